/*
 * Many iSCSI sessions in one process: logs all of them in, lets each do what it is told for some seconds, and reports
 * what each got. One thread, libiscsi's asynchronous calls, closed loops (each answer is followed by the next command).
 *
 *   sessions SECONDS <LIST      a line of LIST for each session:  URL idle|once|randread|randwrite|randrw|write BS QD
 *
 * Writes a line of JSON when all are logged in, and one at the end. Idle sessions answer the target's pings; those of
 * `once` write and read QD times in all, and are idle then.
 * Built by bench/session-load.ts:  gcc -O2 -Wall -Wextra -Werror -o sessions bench/sessions.c -liscsi
 * Exit codes: 0 measured, 1 wrong use or no login, 2 a command failed or a connection was lost, 3 no answer for 30 seconds.
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

enum { MAX_SESSIONS = 4096, LOGINS_AT_ONCE = 32, STALL_SECONDS = 30, DATA_BYTES = 8 << 20, SINK_BYTES = 4 << 20 };
static const double WARM_UP_SECONDS = 0.5;

enum mode { IDLE, ONCE, RANDREAD, RANDWRITE, RANDRW, WRITE };
static const char *const mode_names[] = { "idle", "once", "randread", "randwrite", "randrw", "write" };

struct session {
	struct iscsi_context *iscsi;
	struct iscsi_url *url;
	enum mode mode;
	uint32_t bs, qd, outstanding;
	uint64_t blocks, next_block;
	int is_logged_in;
	uint64_t operations, pushed_back, latency_ns, slowest_ns;
};

struct slot {
	struct session *session;
	struct scsi_iovec iov;
	uint64_t issued_ns;
};

static struct session sessions[MAX_SESSIONS];
static struct pollfd fds[MAX_SESSIONS];
static int session_count, logged_in, logging_in;
static unsigned char *data, *sink;
static uint64_t random_state;
static uint64_t begin_ns, end_ns, last_answer_ns;
static int issuing;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(void)
{
	uint64_t x = random_state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	random_state = x;
	return x * 0x2545f4914f6cdd1dull;
}

static void die(int code, const char *what, const char *why)
{
	fprintf(stderr, "sessions: %s: %s\n", what, why);
	exit(code);
}

static void issue(struct slot *slot);

static void answered(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	struct scsi_task *task = command_data;
	struct slot *slot = private_data;
	struct session *session = slot->session;
	uint64_t now = now_ns(), latency = now - slot->issued_ns;

	last_answer_ns = now;
	session->outstanding--;
	if (status == SCSI_STATUS_TASK_SET_FULL || status == SCSI_STATUS_BUSY)
		session->pushed_back++;
	else if (status != SCSI_STATUS_GOOD)
		die(2, session->url->target, iscsi_get_error(iscsi));
	else if (now >= begin_ns && now < end_ns) {
		session->operations++;
		session->latency_ns += latency;
		if (latency > session->slowest_ns)
			session->slowest_ns = latency;
	}
	scsi_free_scsi_task(task);
	if (issuing && session->mode != ONCE)
		issue(slot);
}

static void issue(struct slot *slot)
{
	struct session *session = slot->session;
	int is_write = session->mode == RANDWRITE || session->mode == WRITE;
	uint64_t block, lba;
	struct scsi_task *task;

	if (session->mode == RANDRW)
		is_write = (next_random() >> 40) & 1;
	if (session->mode == ONCE)
		is_write = session->outstanding & 1;
	if (session->mode == WRITE) {
		block = session->next_block;
		session->next_block = (block + 1) % session->blocks;
	} else {
		block = next_random() % session->blocks;
	}
	lba = block * (session->bs / 512);
	/* What is written is random and never the same twice in a row; what is read is not looked at. */
	slot->iov.iov_base = is_write ? data + next_random() % ((DATA_BYTES - session->bs) / 512) * 512 : sink;
	slot->iov.iov_len = session->bs;
	slot->issued_ns = now_ns();
	session->outstanding++;
	if (is_write)
		task = iscsi_write16_iov_task(session->iscsi, session->url->lun, lba, NULL, session->bs, 512, 0, 0, 0, 0, 0,
					      answered, slot, &slot->iov, 1);
	else
		task = iscsi_read16_iov_task(session->iscsi, session->url->lun, lba, session->bs, 512, 0, 0, 0, 0, 0,
					     answered, slot, &slot->iov, 1);
	if (!task)
		die(2, "issue", iscsi_get_error(session->iscsi));
}

static void measured(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	struct session *session = private_data;
	struct scsi_task *task = command_data;
	struct scsi_readcapacity16 *capacity = status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;

	if (!capacity)
		die(1, session->url->target, iscsi_get_error(iscsi));
	session->blocks = (capacity->returned_lba + 1) * 512 / (session->bs ? session->bs : 512);
	scsi_free_scsi_task(task);
	session->is_logged_in = 1;
	logged_in++;
	logging_in--;
}

static void connected(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	struct session *session = private_data;

	(void)command_data;
	if (status != SCSI_STATUS_GOOD || !iscsi_readcapacity16_task(iscsi, session->url->lun, measured, session))
		die(1, session->url->target, iscsi_get_error(iscsi));
}

static void begin_login(struct session *session)
{
	iscsi_set_initiator_username_pwd(session->iscsi, session->url->user, session->url->passwd);
	iscsi_set_targetname(session->iscsi, session->url->target);
	iscsi_set_session_type(session->iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(session->iscsi, ISCSI_HEADER_DIGEST_NONE);
	iscsi_set_noautoreconnect(session->iscsi, 1);
	logging_in++;
	if (iscsi_full_connect_async(session->iscsi, session->url->portal, session->url->lun, connected, session))
		die(1, session->url->target, iscsi_get_error(session->iscsi));
}

/* Serves every connection that has something, or waits for at most 100 ms. */
static void pump(int count)
{
	for (int i = 0; i < count; i++) {
		fds[i].fd = iscsi_get_fd(sessions[i].iscsi);
		fds[i].events = (short)iscsi_which_events(sessions[i].iscsi);
	}
	if (poll(fds, (nfds_t)count, 100) < 0 && errno != EINTR)
		die(1, "poll", strerror(errno));
	for (int i = 0; i < count; i++)
		if (fds[i].revents && iscsi_service(sessions[i].iscsi, fds[i].revents) < 0)
			die(sessions[i].is_logged_in ? 2 : 1, sessions[i].url->target, iscsi_get_error(sessions[i].iscsi));
	if (now_ns() - last_answer_ns > STALL_SECONDS * 1000000000ull)
		die(3, "stalled", "no answer for 30 seconds");
}

static void read_list(void)
{
	char line[1024], address[900], mode[16], name[64];

	while (fgets(line, sizeof line, stdin)) {
		struct session *session = &sessions[session_count];

		if (session_count == MAX_SESSIONS)
			die(1, "list", "too long");
		if (sscanf(line, "%899s %15s %" SCNu32 " %" SCNu32, address, mode, &session->bs, &session->qd) != 4)
			die(1, "list", line);
		while (session->mode <= WRITE && strcmp(mode_names[session->mode], mode))
			session->mode++;
		if (session->mode > WRITE || session->bs % 512 || session->bs > SINK_BYTES)
			die(1, "list", line);
		snprintf(name, sizeof name, "iqn.2026-11.io.weft:session-%d", session_count);
		session->iscsi = iscsi_create_context(name);
		session->url = session->iscsi ? iscsi_parse_full_url(session->iscsi, address) : NULL;
		if (!session->url)
			die(1, address, "cannot be used");
		session_count++;
	}
}

static double log_in_all(void)
{
	uint64_t start = now_ns();
	int begun = 0;

	last_answer_ns = start;
	while (logged_in < session_count) {
		while (begun < session_count && logging_in < LOGINS_AT_ONCE) {
			begin_login(&sessions[begun++]);
		}
		int before = logged_in;
		pump(begun);
		if (logged_in > before)
			last_answer_ns = now_ns();
	}
	return (double)(now_ns() - start) / 1e9;
}

static void run(double seconds)
{
	int busy = 0;

	for (int i = 0; i < session_count; i++)
		busy += sessions[i].mode > ONCE;
	issuing = 1;
	begin_ns = now_ns() + (uint64_t)(WARM_UP_SECONDS * 1e9);
	end_ns = begin_ns + (uint64_t)(seconds * 1e9);
	last_answer_ns = now_ns();
	for (int i = 0; i < session_count; i++) {
		struct session *session = &sessions[i];
		struct slot *slots = calloc(session->qd ? session->qd : 1, sizeof *slots);

		if (!slots)
			die(1, "memory", strerror(errno));
		for (uint32_t j = 0; session->mode != IDLE && j < session->qd; j++) {
			slots[j].session = session;
			issue(&slots[j]);
		}
	}
	while (now_ns() < end_ns) {
		pump(session_count);
		if (!busy)
			last_answer_ns = now_ns();
	}
	issuing = 0;
	for (int i = 0; i < session_count; i++)
		while (sessions[i].outstanding)
			pump(session_count);
}

static void report(double seconds)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	printf("{\"seconds\":%.3f,\"clientCpuSeconds\":%.3f,\"sessions\":[", seconds,
	       (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	for (int i = 0; i < session_count; i++) {
		struct session *session = &sessions[i];
		double operations = (double)(session->operations ? session->operations : 1);

		printf("%s{\"operations\":%" PRIu64 ",\"pushedBack\":%" PRIu64 ",\"meanUs\":%.1f,\"slowestUs\":%.1f}",
		       i ? "," : "", session->operations, session->pushed_back,
		       (double)session->latency_ns / 1e3 / operations, (double)session->slowest_ns / 1e3);
	}
	printf("]}\n");
}

int main(int argc, char **argv)
{
	double seconds = argc == 2 ? strtod(argv[1], NULL) : 0, login_seconds;
	struct rlimit files;

	if (seconds <= 0) {
		fprintf(stderr, "usage: sessions SECONDS <LIST, with lines of URL idle|once|randread|randwrite|randrw|write BS QD\n");
		return 1;
	}
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	random_state = now_ns() | 1;
	data = malloc(DATA_BYTES);
	sink = malloc(SINK_BYTES);
	if (!data || !sink)
		die(1, "memory", strerror(errno));
	for (int at = 0; at < DATA_BYTES; at += 8) {
		uint64_t word = next_random();
		memcpy(data + at, &word, 8);
	}
	read_list();
	if (!session_count)
		die(1, "list", "is empty");
	login_seconds = log_in_all();
	printf("{\"loginSeconds\":%.3f}\n", login_seconds);
	fflush(stdout);
	run(seconds);
	report(seconds);
	return 0;
}
