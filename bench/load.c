/*
 * A closed-loop load for one iSCSI LUN: keeps `qd` commands outstanding for some seconds and reports how many
 * were answered and how long each took. One thread, libiscsi's asynchronous calls, one JSON line on stdout.
 *
 *   load URL fill                                      writes the whole LUN once, then SYNCHRONIZE CACHE
 *   load URL randread|randwrite|read|write BS QD SECONDS
 *
 * Built by bench/run:  gcc -O2 -Wall -Wextra -o build/load bench/load.c -liscsi
 * Exit codes: 0 measured, 1 wrong use or no login, 2 a command failed, 3 no answer for 30 seconds.
 */
#include <errno.h>
#include <inttypes.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { FILL_BS = 1 << 20, FILL_QD = 8, STALL_SECONDS = 30, STAMP_EVERY = 4096 };
static const double WARM_UP_SECONDS = 0.5;

struct run {
	struct iscsi_context *iscsi;
	int lun, is_write, is_random, is_fill;
	uint32_t sector_size, bs, qd;
	uint64_t blocks;       /* of bs bytes */
	uint64_t next_block;   /* sequential: where the next command goes */
	uint64_t stamp;        /* makes every written block unlike any other */
	uint64_t random_state; /* xorshift64* */
	int issuing;           /* answers are followed by new commands */
	uint32_t outstanding;
	uint64_t begin_ns, last_answer_ns; /* answers count from begin_ns on */
	uint32_t *latency_ns100;           /* one entry an answer, in 100 ns */
	size_t answers, capacity;          /* answers: while measuring */
	uint64_t answers_in_all;           /* with those of the warm-up and the end */
};

struct slot {
	struct run *run;
	unsigned char *data;
	struct scsi_iovec iov;
	uint64_t issued_ns;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(struct run *run)
{
	uint64_t x = run->random_state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	run->random_state = x;
	return x * 0x2545f4914f6cdd1dull;
}

static void die(int code, const char *what, const char *why)
{
	fprintf(stderr, "load: %s: %s\n", what, why);
	exit(code);
}

static void record(struct run *run, uint64_t latency_ns)
{
	if (run->answers == run->capacity) {
		run->capacity = run->capacity ? run->capacity * 2 : 1 << 16;
		run->latency_ns100 = realloc(run->latency_ns100, run->capacity * sizeof *run->latency_ns100);
		if (!run->latency_ns100)
			die(1, "memory", strerror(errno));
	}
	run->latency_ns100[run->answers++] = latency_ns / 100 > UINT32_MAX ? UINT32_MAX : (uint32_t)(latency_ns / 100);
}

static void issue(struct slot *slot);

static void answered(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	struct scsi_task *task = command_data;
	struct slot *slot = private_data;
	struct run *run = slot->run;
	uint64_t now = now_ns();

	if (status != SCSI_STATUS_GOOD)
		die(2, run->is_write ? "WRITE(16)" : "READ(16)", iscsi_get_error(iscsi));
	if (task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL)
		die(2, "transfer", "shorter than asked for");
	scsi_free_scsi_task(task);
	run->outstanding--;
	run->answers_in_all++;
	run->last_answer_ns = now;
	if (run->issuing && now >= run->begin_ns)
		record(run, now - slot->issued_ns);
	if (run->issuing && !(run->is_fill && run->next_block == run->blocks))
		issue(slot);
}

static void issue(struct slot *slot)
{
	struct run *run = slot->run;
	struct scsi_task *task;
	uint64_t block, lba;

	if (run->is_random) {
		block = next_random(run) % run->blocks;
	} else {
		if (run->next_block == run->blocks)
			run->next_block = 0;
		block = run->next_block++;
	}
	lba = block * (run->bs / run->sector_size);
	if (run->is_write)
		for (uint32_t at = 0; at + sizeof run->stamp <= run->bs; at += STAMP_EVERY) {
			run->stamp++;
			memcpy(slot->data + at, &run->stamp, sizeof run->stamp);
		}
	run->outstanding++;
	slot->issued_ns = now_ns();
	if (run->is_write)
		task = iscsi_write16_iov_task(run->iscsi, run->lun, lba, NULL, run->bs, (int)run->sector_size, 0, 0, 0, 0, 0,
					      answered, slot, &slot->iov, 1);
	else
		task = iscsi_read16_iov_task(run->iscsi, run->lun, lba, run->bs, (int)run->sector_size, 0, 0, 0, 0, 0,
					     answered, slot, &slot->iov, 1);
	if (!task)
		die(2, "issue", iscsi_get_error(run->iscsi));
}

/* Serves the connection once, for at most 100 ms. */
static void pump(struct run *run)
{
	struct pollfd fd = { .fd = iscsi_get_fd(run->iscsi), .events = (short)iscsi_which_events(run->iscsi) };

	if (poll(&fd, 1, 100) < 0 && errno != EINTR)
		die(1, "poll", strerror(errno));
	if (iscsi_service(run->iscsi, fd.revents) < 0)
		die(2, "connection", iscsi_get_error(run->iscsi));
	if (run->outstanding && now_ns() - run->last_answer_ns > STALL_SECONDS * 1000000000ull)
		die(3, "stalled", "no answer for 30 seconds");
}

static void connect_lun(struct run *run, const char *address)
{
	struct iscsi_url *url;
	struct scsi_task *task = NULL;
	struct scsi_readcapacity16 *capacity;

	run->iscsi = iscsi_create_context("iqn.2026-11.io.weft:bench");
	if (!run->iscsi)
		die(1, "libiscsi", "no context");
	url = iscsi_parse_full_url(run->iscsi, address);
	if (!url)
		die(1, address, iscsi_get_error(run->iscsi));
	iscsi_set_targetname(run->iscsi, url->target);
	iscsi_set_session_type(run->iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(run->iscsi, ISCSI_HEADER_DIGEST_NONE);
	iscsi_set_noautoreconnect(run->iscsi, 1);
	run->lun = url->lun;
	if (iscsi_full_connect_sync(run->iscsi, url->portal, url->lun))
		die(1, address, iscsi_get_error(run->iscsi));
	/* The first commands of a session may be answered with a unit attention. */
	for (int attempt = 0; attempt < 5; attempt++) {
		task = iscsi_readcapacity16_sync(run->iscsi, run->lun);
		if (task && task->status == SCSI_STATUS_GOOD)
			break;
		if (task)
			scsi_free_scsi_task(task);
		task = NULL;
	}
	capacity = task ? scsi_datain_unmarshall(task) : NULL;
	if (!capacity)
		die(1, "READ CAPACITY(16)", iscsi_get_error(run->iscsi));
	run->sector_size = capacity->block_length;
	if (!run->sector_size || run->bs % run->sector_size)
		die(1, "block size", "is no multiple of the LUN's");
	run->blocks = (capacity->returned_lba + 1) * run->sector_size / run->bs;
	if (run->blocks < run->qd)
		die(1, "LUN", "too small");
	scsi_free_scsi_task(task);
	iscsi_destroy_url(url);
}

static struct slot *make_slots(struct run *run)
{
	struct slot *slots = calloc(run->qd, sizeof *slots);

	if (!slots)
		die(1, "memory", strerror(errno));
	for (uint32_t i = 0; i < run->qd; i++) {
		slots[i].run = run;
		slots[i].data = aligned_alloc(4096, (run->bs + 4095u) / 4096u * 4096u);
		if (!slots[i].data)
			die(1, "memory", strerror(errno));
		/* Random content: nothing on the way can make it smaller. */
		for (uint32_t at = 0; at < run->bs; at += 8) {
			uint64_t word = next_random(run);
			memcpy(slots[i].data + at, &word, 8);
		}
		slots[i].iov.iov_base = slots[i].data;
		slots[i].iov.iov_len = run->bs;
	}
	return slots;
}

static void synchronize_cache(struct run *run)
{
	struct scsi_task *task = iscsi_synchronizecache10_sync(run->iscsi, run->lun, 0, 0, 0, 0);

	if (!task || task->status != SCSI_STATUS_GOOD)
		die(2, "SYNCHRONIZE CACHE(10)", iscsi_get_error(run->iscsi));
	scsi_free_scsi_task(task);
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The latency that a share `p` of all answers did not exceed, in µs. */
static double percentile(const struct run *run, double p)
{
	size_t rank = (size_t)(p * (double)run->answers);

	if (!run->answers)
		return 0;
	return run->latency_ns100[rank < run->answers ? rank : run->answers - 1] / 10.0;
}

static double cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
	static struct run run;
	struct slot *slots;
	double seconds = 0, elapsed, cpu = 0;
	const char *mode = argc > 2 ? argv[2] : "";

	run.is_fill = !strcmp(mode, "fill");
	run.is_random = !strncmp(mode, "rand", 4);
	run.is_write = run.is_fill || strstr(mode, "write") != NULL;
	if (run.is_fill) {
		run.bs = FILL_BS;
		run.qd = FILL_QD;
	} else if (argc == 6 && (strstr(mode, "read") || strstr(mode, "write"))) {
		run.bs = (uint32_t)strtoul(argv[3], NULL, 10);
		run.qd = (uint32_t)strtoul(argv[4], NULL, 10);
		seconds = strtod(argv[5], NULL);
	}
	if (!run.bs || run.bs % 512 || !run.qd || (!run.is_fill && seconds <= 0)) {
		fprintf(stderr, "usage: load URL fill | load URL randread|randwrite|read|write BS QD SECONDS\n");
		return 1;
	}
	run.random_state = now_ns() | 1;
	run.stamp = run.random_state;
	connect_lun(&run, argv[1]);
	slots = make_slots(&run);

	run.last_answer_ns = now_ns();
	run.begin_ns = run.last_answer_ns + (run.is_fill ? 0 : (uint64_t)(WARM_UP_SECONDS * 1e9));
	run.issuing = 1;
	for (uint32_t i = 0; i < run.qd; i++)
		issue(&slots[i]);
	if (run.is_fill) {
		while (run.outstanding)
			pump(&run);
		synchronize_cache(&run);
		elapsed = (double)(now_ns() - run.begin_ns) / 1e9;
	} else {
		uint64_t end_ns = run.begin_ns + (uint64_t)(seconds * 1e9);

		while (now_ns() < run.begin_ns)
			pump(&run);
		cpu = cpu_seconds();
		while (now_ns() < end_ns)
			pump(&run);
		run.issuing = 0;
		elapsed = (double)(now_ns() - run.begin_ns) / 1e9;
		cpu = cpu_seconds() - cpu;
		while (run.outstanding)
			pump(&run);
	}
	iscsi_logout_sync(run.iscsi);

	qsort(run.latency_ns100, run.answers, sizeof *run.latency_ns100, by_size);
	printf("{\"operations\":%zu,\"seconds\":%.3f,\"iops\":%.1f,\"megabytesPerSecond\":%.2f,\"p50Us\":%.1f,"
	       "\"p99Us\":%.1f,\"clientCpuSeconds\":%.3f,\"operationsInAll\":%" PRIu64 "}\n",
	       run.answers, elapsed, (double)run.answers / elapsed,
	       (double)run.answers * run.bs / elapsed / 1e6, percentile(&run, 0.5), percentile(&run, 0.99), cpu,
	       run.answers_in_all);
	return 0;
}
