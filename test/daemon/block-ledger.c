/*
 * An initiator (libiscsi) that knows what must be on a LUN. Every 4 KiB block it writes says whose it is (the seed of
 * the ledger), where it belongs and which generation it is, and is filled from these three: a lost, stale, torn or
 * misplaced block shows. What was sent and what was acknowledged is kept in the ledger, a file that is mapped into
 * memory, so that it outlives the target, the connection and this process.
 *
 *   block-ledger URL LEDGER INITIATOR fill   FIRST COUNT DEPTH           every block once, in order, 256 KiB at a time
 *   block-ledger URL LEDGER INITIATOR random FIRST COUNT DEPTH SECONDS   4 KiB to 1 MiB, with FUA, UNMAP and flushes
 *   block-ledger URL LEDGER INITIATOR unmap  FIRST COUNT
 *   block-ledger URL LEDGER INITIATOR verify FIRST COUNT                 reads it all and settles what was unanswered
 *
 * FIRST and COUNT are in blocks. The ledger is made by block-ledger.ts: a page that begins with the seed, then an entry
 * for each block. One line of JSON on stdout; exit codes: 0 done, 1 wrong use or no login, 2 the connection was lost,
 * 3 the target refused a command (its sense is in the JSON), 4 the LUN does not hold what it must, 5 no answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	BLOCK = 4096,
	SECTOR = 512,
	PER_BLOCK = BLOCK / SECTOR,
	MAX_BLOCKS = 256, /* of one write: 1 MiB */
	FILL_BLOCKS = 64,
	UNMAP_BLOCKS = 4096,
	STALL_SECONDS = 30,
	FAULTS_SHOWN = 8,
};
enum { DONE = 0, WRONG_USE = 1, LOST = 2, REFUSED = 3, WRONG_DATA = 4, STALLED = 5 };

static const uint32_t NONE = UINT32_MAX;

struct entry {
	uint32_t acknowledged; /* generation that was promised; 0: zeros */
	uint32_t pending;      /* generation that was sent and not answered; NONE: nothing */
	uint32_t last;         /* the highest generation ever sent */
};

struct slot {
	unsigned char *data;
	struct scsi_iovec iov;
	struct unmap_list range;
	uint64_t first;
	uint32_t count; /* 0: a flush */
	int busy;
};

static struct iscsi_context *iscsi;
static int lun;
static uint64_t seed, random_state;
static struct entry *entries;
static uint64_t entry_count;
static int lost, refused, sense_key, sense_code, refused_status;
static uint64_t commands, last_answer_ns;
static uint32_t outstanding;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dull;
}

static void die(int code, const char *what, const char *why)
{
	fprintf(stderr, "block-ledger: %s: %s\n", what, why);
	exit(code);
}

static int finish(void)
{
	int code = refused ? REFUSED : lost ? LOST : DONE;

	printf("{\"commands\":%" PRIu64 ",\"status\":%d,\"sense\":[%d,%d,%d]}\n", commands, refused_status, sense_key,
	       sense_code >> 8, sense_code & 0xff);
	return code;
}

static void block_content(uint64_t block, uint32_t generation, uint64_t *words)
{
	uint64_t state = (seed ^ block * 0x9e3779b97f4a7c15ull ^ (uint64_t)generation * 0xd1b54a32d192ed03ull) | 1;

	words[0] = seed;
	words[1] = block;
	words[2] = generation;
	for (int i = 3; i < BLOCK / 8; i++)
		words[i] = next_random(&state);
}

static void open_ledger(const char *path)
{
	struct stat stat;
	char *bytes;
	int fd = open(path, O_RDWR);

	if (fd < 0 || fstat(fd, &stat) < 0)
		die(WRONG_USE, path, strerror(errno));
	bytes = mmap(NULL, (size_t)stat.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bytes == MAP_FAILED)
		die(WRONG_USE, path, strerror(errno));
	memcpy(&seed, bytes, sizeof seed);
	entries = (struct entry *)(bytes + BLOCK);
	entry_count = ((uint64_t)stat.st_size - BLOCK) / sizeof *entries;
}

static void connect_lun(const char *address, const char *initiator)
{
	struct iscsi_url *url;
	struct scsi_task *task = NULL;

	iscsi = iscsi_create_context(initiator);
	if (!iscsi)
		die(WRONG_USE, "libiscsi", "no context");
	url = iscsi_parse_full_url(iscsi, address);
	if (!url)
		die(WRONG_USE, address, iscsi_get_error(iscsi));
	iscsi_set_targetname(iscsi, url->target);
	iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE_CRC32C);
	if (url->user[0])
		iscsi_set_initiator_username_pwd(iscsi, url->user, url->passwd);
	iscsi_set_noautoreconnect(iscsi, 1);
	lun = url->lun;
	if (iscsi_full_connect_sync(iscsi, url->portal, url->lun))
		die(WRONG_USE, address, iscsi_get_error(iscsi));
	/* The first commands of a session may be answered with a unit attention. */
	for (int attempt = 0; attempt < 5; attempt++) {
		task = iscsi_testunitready_sync(iscsi, lun);
		if (task && task->status == SCSI_STATUS_GOOD)
			break;
		if (task)
			scsi_free_scsi_task(task);
		task = NULL;
	}
	if (!task)
		die(WRONG_USE, "TEST UNIT READY", iscsi_get_error(iscsi));
	scsi_free_scsi_task(task);
	iscsi_destroy_url(url);
}

/* Remembers how a command failed. What it would have changed stays pending: it may have been done. */
static void note_failure(int status, const struct scsi_task *task)
{
	if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR || status == SCSI_STATUS_TIMEOUT) {
		lost = 1;
		return;
	}
	if (refused)
		return;
	refused = 1;
	refused_status = status;
	sense_key = task ? (int)task->sense.key : 0;
	sense_code = task ? task->sense.ascq : 0;
}

static void answered(struct iscsi_context *context, int status, void *command_data, void *private_data)
{
	struct scsi_task *task = command_data;
	struct slot *slot = private_data;

	(void)context;
	outstanding--;
	slot->busy = 0;
	last_answer_ns = now_ns();
	if (status == SCSI_STATUS_GOOD) {
		commands++;
		for (uint32_t i = 0; i < slot->count; i++) {
			struct entry *entry = &entries[slot->first + i];

			entry->acknowledged = entry->pending;
			entry->pending = NONE;
		}
	} else {
		note_failure(status, task);
	}
	if (task && status != SCSI_STATUS_CANCELLED)
		scsi_free_scsi_task(task);
}

static void sent(struct slot *slot, const void *task)
{
	if (!task) {
		lost = 1;
		return;
	}
	slot->busy = 1;
	outstanding++;
}

static void send_write(struct slot *slot, uint64_t first, uint32_t count, int fua)
{
	slot->first = first;
	slot->count = count;
	for (uint32_t i = 0; i < count; i++) {
		struct entry *entry = &entries[first + i];

		entry->pending = ++entry->last;
		block_content(first + i, entry->pending, (uint64_t *)(slot->data + (size_t)i * BLOCK));
	}
	slot->iov.iov_base = slot->data;
	slot->iov.iov_len = (size_t)count * BLOCK;
	sent(slot, iscsi_write16_iov_task(iscsi, lun, first * PER_BLOCK, NULL, count * BLOCK, SECTOR, 0, 0, fua, 0, 0,
					  answered, slot, &slot->iov, 1));
}

static void send_unmap(struct slot *slot, uint64_t first, uint32_t count)
{
	slot->first = first;
	slot->count = count;
	for (uint32_t i = 0; i < count; i++)
		entries[first + i].pending = 0;
	slot->range.lba = first * PER_BLOCK;
	slot->range.num = count * PER_BLOCK;
	sent(slot, iscsi_unmap_task(iscsi, lun, 0, 0, &slot->range, 1, answered, slot));
}

static void send_flush(struct slot *slot)
{
	slot->count = 0;
	sent(slot, iscsi_synchronizecache10_task(iscsi, lun, 0, 0, 0, 0, answered, slot));
}

/* Serves the connection once. */
static void pump(void)
{
	struct pollfd fd = { .fd = iscsi_get_fd(iscsi), .events = (short)iscsi_which_events(iscsi) };

	if (fd.fd < 0) {
		lost = 1;
		return;
	}
	if (poll(&fd, 1, 50) < 0 && errno != EINTR)
		die(WRONG_USE, "poll", strerror(errno));
	if (iscsi_service(iscsi, fd.revents) < 0)
		lost = 1;
	if (outstanding && now_ns() - last_answer_ns > STALL_SECONDS * 1000000000ull)
		die(STALLED, "stalled", "no answer for 30 seconds");
}

static struct slot *make_slots(uint32_t depth)
{
	struct slot *slots = calloc(depth, sizeof *slots);

	for (uint32_t i = 0; slots && i < depth; i++) {
		slots[i].data = aligned_alloc(BLOCK, (size_t)MAX_BLOCKS * BLOCK);
		if (!slots[i].data)
			die(WRONG_USE, "memory", strerror(errno));
	}
	if (!slots)
		die(WRONG_USE, "memory", strerror(errno));
	last_answer_ns = now_ns();
	return slots;
}

static void drain(void)
{
	while (outstanding && !lost)
		pump();
}

static int is_free(uint64_t first, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (entries[first + i].pending != NONE)
			return 0;
	return 1;
}

static int fill(uint64_t first, uint64_t count, uint32_t depth, int unmap)
{
	struct slot *slots = make_slots(depth);
	uint64_t next = first, end = first + count;
	uint32_t step = unmap ? UNMAP_BLOCKS : FILL_BLOCKS;

	while (next < end && !lost && !refused) {
		for (uint32_t i = 0; i < depth && next < end && !lost && !refused; i++) {
			uint32_t length = end - next < step ? (uint32_t)(end - next) : step;

			if (slots[i].busy)
				continue;
			if (!is_free(next, length))
				die(WRONG_USE, "ledger", "something is unanswered: verify first");
			if (unmap)
				send_unmap(&slots[i], next, length);
			else
				send_write(&slots[i], next, length, 0);
			next += length;
		}
		pump();
	}
	drain();
	return finish();
}

static void send_anything(struct slot *slot, uint64_t first, uint64_t count)
{
	uint64_t kind = next_random(&random_state) % 64;

	if (kind == 0) {
		send_flush(slot);
		return;
	}
	for (int attempt = 0; attempt < 50; attempt++) {
		uint64_t shape = next_random(&random_state) % 20;
		uint64_t longest = attempt > 40 || shape < 10 ? 1 : shape < 19 ? 64 : MAX_BLOCKS;
		uint64_t length = 1 + next_random(&random_state) % longest;
		uint64_t start = next_random(&random_state) % count;

		if (length > count - start)
			length = count - start;
		if (!is_free(first + start, (uint32_t)length))
			continue;
		if (kind < 3)
			send_unmap(slot, first + start, (uint32_t)length);
		else
			send_write(slot, first + start, (uint32_t)length, kind < 7);
		return;
	}
}

static int random_writes(uint64_t first, uint64_t count, uint32_t depth, double seconds)
{
	struct slot *slots = make_slots(depth);
	uint64_t end_ns = now_ns() + (uint64_t)(seconds * 1e9);

	while (now_ns() < end_ns && !lost && !refused) {
		for (uint32_t i = 0; i < depth && !lost; i++)
			if (!slots[i].busy)
				send_anything(&slots[i], first, count);
		pump();
	}
	drain();
	return finish();
}

/* Null when the block is what it must be; `found` is the generation it has. */
static const char *fault_of(uint64_t block, const uint64_t *words, uint32_t *found)
{
	static uint64_t expected[BLOCK / 8];
	const struct entry *entry = &entries[block];
	int zeros = 1;

	for (int i = 0; i < BLOCK / 8 && zeros; i++)
		zeros = words[i] == 0;
	if (zeros) {
		*found = 0;
	} else {
		if (words[0] != seed)
			return "is of no writer of this ledger";
		if (words[1] != block)
			return "belongs elsewhere";
		*found = (uint32_t)words[2];
		block_content(block, *found, expected);
		if (memcmp(expected, words, BLOCK))
			return "is torn or damaged";
	}
	if (*found == entry->acknowledged || (entry->pending != NONE && *found == entry->pending))
		return NULL;
	return "is of another generation than was acknowledged";
}

static int verify(uint64_t first, uint64_t count)
{
	uint64_t faults = 0;

	for (uint64_t at = first; at < first + count; at += MAX_BLOCKS) {
		uint32_t length = first + count - at < MAX_BLOCKS ? (uint32_t)(first + count - at) : MAX_BLOCKS;
		struct scsi_task *task =
			iscsi_read16_sync(iscsi, lun, at * PER_BLOCK, length * BLOCK, SECTOR, 0, 0, 0, 0, 0);

		if (!task || task->status != SCSI_STATUS_GOOD || task->datain.size != (int)(length * BLOCK)) {
			fprintf(stderr, "block-ledger: READ(16) of block %" PRIu64 ": %s\n", at, iscsi_get_error(iscsi));
			note_failure(task ? task->status : SCSI_STATUS_CANCELLED, task);
			return finish();
		}
		commands++;
		for (uint32_t i = 0; i < length; i++) {
			struct entry *entry = &entries[at + i];
			uint32_t found = 0;
			const char *fault = fault_of(at + i, (uint64_t *)(task->datain.data + (size_t)i * BLOCK), &found);

			if (fault && faults++ < FAULTS_SHOWN)
				fprintf(stderr,
					"block %" PRIu64 " %s: found generation %" PRIu32 ", acknowledged %" PRIu32
					", unanswered %" PRId32 "\n",
					at + i, fault, found, entry->acknowledged, (int32_t)entry->pending);
			if (!fault) {
				entry->acknowledged = found;
				entry->pending = NONE;
			}
		}
		scsi_free_scsi_task(task);
	}
	if (!faults)
		return finish();
	fprintf(stderr, "%" PRIu64 " of %" PRIu64 " blocks are wrong\n", faults, count);
	return WRONG_DATA;
}

int main(int argc, char **argv)
{
	const char *command = argc >= 7 ? argv[4] : "";
	uint64_t first = argc >= 7 ? strtoull(argv[5], NULL, 10) : 0;
	uint64_t count = argc >= 7 ? strtoull(argv[6], NULL, 10) : 0;
	uint32_t depth = argc >= 8 ? (uint32_t)strtoul(argv[7], NULL, 10) : 4;
	double seconds = argc >= 9 ? strtod(argv[8], NULL) : 0;
	int status;

	if (!count || !depth)
		die(WRONG_USE, "usage", "block-ledger URL LEDGER INITIATOR COMMAND FIRST COUNT [DEPTH [SECONDS]]");
	open_ledger(argv[2]);
	if (first + count > entry_count)
		die(WRONG_USE, "range", "is beyond the ledger");
	random_state = (now_ns() ^ (uint64_t)getpid() << 32) | 1;
	connect_lun(argv[1], argv[3]);
	if (!strcmp(command, "fill"))
		status = fill(first, count, depth, 0);
	else if (!strcmp(command, "unmap"))
		status = fill(first, count, depth, 1);
	else if (!strcmp(command, "random"))
		status = random_writes(first, count, depth, seconds);
	else if (!strcmp(command, "verify"))
		status = verify(first, count);
	else
		die(WRONG_USE, command, "is no command");
	if (!lost)
		iscsi_logout_sync(iscsi);
	return status;
}
