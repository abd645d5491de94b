// SPDX-License-Identifier: Apache-2.0
/**
 * DOC: The disk watch
 *
 * Numbered records go into a ring of slots, each written past the page cache and followed by
 * fdatasync(), so that the guest may rely on it. The number that must be found in a slot follows
 * from the number written last; after every append a stretch of the ring is read back:
 *
 *  - an older number: a write that was acknowledged is lost;
 *  - a newer number: the guest's memory is older than its disk;
 *  - a number of another slot: a write went astray or was done twice;
 *  - a wrong checksum: the record is damaged.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>
#include <sys/ioctl.h>

#include "witness.h"

#define DISK_MAGIC 0x3154494e57464854ULL
/* Records read back after every append. */
#define SPAN_RECORDS 16U

struct record {
	uint64_t magic;
	uint64_t seed;
	uint64_t boot_id;
	uint64_t seq;
	uint64_t slot;
	uint64_t mono_ns;
	uint64_t filler[DISK_RECORD_BYTES / 8 - 7];
	uint64_t sum;
};
static_assert(sizeof(struct record) == DISK_RECORD_BYTES, "one record is one page");

static uint64_t record_sum(const struct record *rec)
{
	const uint64_t *word = (const uint64_t *)rec;
	uint64_t sum = DISK_MAGIC;

	for (size_t i = 0; i < offsetof(struct record, sum) / 8; i++)
		sum = (sum ^ word[i]) * 0x9e3779b97f4a7c15ULL + (sum >> 29);
	return sum;
}

static void record_make(struct witness *w, struct record *rec, uint64_t seq)
{
	uint64_t value = mix64(w->cfg.seed ^ mix64(seq));

	rec->magic = DISK_MAGIC;
	rec->seed = w->cfg.seed;
	rec->boot_id = w->boot_id;
	rec->seq = seq;
	rec->slot = seq % w->cfg.disk_slots;
	rec->mono_ns = time_ns(CLOCK_MONOTONIC);
	for (size_t i = 0; i < sizeof(rec->filler) / 8; i++)
		rec->filler[i] = value += 0x9e3779b97f4a7c15ULL;
	rec->sum = record_sum(rec);
}

static void disk_fail(
	struct witness *w, const char *cause, uint64_t slot, uint64_t want, uint64_t got)
{
	atomic_fetch_add(&w->disk.bad, 1);
	report_fail(w, WATCH_DISK, "cause=%s slot=%llu want=%llu got=%llu last=%llu", cause,
		(unsigned long long)slot, (unsigned long long)want, (unsigned long long)got,
		(unsigned long long)atomic_load(&w->disk.seq));
}

/* @seq: number written last. Slots that were never written are not looked at. */
static void record_check(struct witness *w, const struct record *rec, uint64_t slot, uint64_t seq)
{
	uint64_t slots = w->cfg.disk_slots;
	uint64_t back = (seq % slots + slots - slot) % slots, want;

	if (back >= seq)
		return;
	want = seq - back;
	atomic_fetch_add(&w->disk.checked, 1);
	if (rec->magic != DISK_MAGIC && !rec->magic && !rec->sum)
		disk_fail(w, "empty", slot, want, 0);
	else if (rec->magic != DISK_MAGIC || rec->sum != record_sum(rec))
		disk_fail(w, "corrupt", slot, want, rec->seq);
	else if (rec->seed != w->cfg.seed || rec->boot_id != w->boot_id)
		disk_fail(w, "foreign", slot, want, rec->seq);
	else if (rec->slot != slot)
		disk_fail(w, "repeated", slot, want, rec->seq);
	else if (rec->seq < want)
		disk_fail(w, "lost", slot, want, rec->seq);
	else if (rec->seq > want)
		disk_fail(w, "ahead", slot, want, rec->seq);
}

static int io_fail(struct witness *w, const char *what, ssize_t n)
{
	int e = n < 0 ? errno : EIO;

	atomic_fetch_add(&w->disk.bad, 1);
	report_fail(w, WATCH_DISK, "cause=io op=%s errno=%d result=%lld seq=%llu", what, e,
		(long long)n, (unsigned long long)atomic_load(&w->disk.seq));
	return -e;
}

static int disk_append(struct witness *w, uint64_t seq)
{
	uint64_t start = time_ns(CLOCK_MONOTONIC), took;
	struct record *rec = w->disk.record;
	ssize_t n;

	record_make(w, rec, seq);
	n = pwrite(w->disk.fd, rec, sizeof(*rec), (off_t)(rec->slot * sizeof(*rec)));
	if (n != (ssize_t)sizeof(*rec))
		return io_fail(w, "write", n);
	if (fdatasync(w->disk.fd) < 0)
		return io_fail(w, "sync", -1);
	atomic_store(&w->disk.seq, seq);
	took = time_ns(CLOCK_MONOTONIC) - start;
	if (took > atomic_load(&w->disk.slow_ns))
		atomic_store(&w->disk.slow_ns, took);
	return 0;
}

static int disk_read_back(struct witness *w, uint64_t first, uint64_t seq)
{
	const struct record *span = w->disk.span;
	uint64_t left = w->cfg.disk_slots - first;
	uint64_t count = left < SPAN_RECORDS ? left : SPAN_RECORDS;
	size_t bytes = count * sizeof(struct record);
	ssize_t n;

	/* A file is only as long as the records it has had: what is not there reads as empty. */
	memset(w->disk.span, 0, bytes);
	n = pread(w->disk.fd, w->disk.span, bytes, (off_t)(first * sizeof(struct record)));
	if (n < 0 || (!w->cfg.host_test && n != (ssize_t)bytes))
		return io_fail(w, "read", n);
	for (uint64_t i = 0; i < count; i++)
		record_check(w, &span[i], first + i, seq);
	return 0;
}

static void *disk_thread(void *arg)
{
	struct witness *w = arg;
	uint64_t first = 0;

	for (uint64_t seq = 1;; seq++) {
		if (disk_append(w, seq) < 0 || disk_read_back(w, first, seq) < 0)
			break;
		first += SPAN_RECORDS;
		if (first >= w->cfg.disk_slots)
			first = 0;
		sleep_ns(w->cfg.disk_ms * NSEC_PER_MSEC);
	}
	/* The failure is reported; a broken disk has no more to say. */
	return NULL;
}

/* A record of our own seed at the start says that the guest booted anew instead of living on. */
static int disk_check_fresh(struct witness *w)
{
	const struct record *rec = w->disk.span;
	ssize_t n;

	for (uint64_t slot = 0; slot < 2; slot++) {
		n = pread(w->disk.fd, w->disk.span, sizeof(*rec), (off_t)(slot * sizeof(*rec)));
		if (n < 0)
			return io_fail(w, "read", n);
		if (n != (ssize_t)sizeof(*rec) || rec->magic != DISK_MAGIC ||
			rec->sum != record_sum(rec) || rec->seed != w->cfg.seed ||
			w->cfg.disk_reuse)
			continue;
		report_fail(w, WATCH_SELF, "cause=rebooted earlier_boot=%016llx earlier_seq=%llu",
			(unsigned long long)rec->boot_id, (unsigned long long)rec->seq);
		break;
	}
	return 0;
}

static int disk_open(struct witness *w)
{
	int flags = O_RDWR | O_CLOEXEC | (w->cfg.host_test ? O_CREAT : 0);
	uint64_t size, want = w->cfg.disk_slots * DISK_RECORD_BYTES;
	struct stat st;

	w->disk.fd = open(w->cfg.disk, flags | O_DIRECT, 0600);
	/* A file of a host test may live where O_DIRECT is unknown; a guest's disk must have it. */
	if (w->disk.fd < 0 && errno == EINVAL && w->cfg.host_test)
		w->disk.fd = open(w->cfg.disk, flags, 0600);
	if (w->disk.fd < 0 || fstat(w->disk.fd, &st) < 0)
		return io_fail(w, "open", -1);
	if (S_ISBLK(st.st_mode)) {
		if (ioctl(w->disk.fd, BLKGETSIZE64, &size) < 0)
			return io_fail(w, "size", -1);
		if (size < want) {
			report_fail(w, WATCH_DISK, "cause=too-small bytes=%llu want=%llu",
				(unsigned long long)size, (unsigned long long)want);
			return -ENOSPC;
		}
	}
	return 0;
}

int disk_start(struct witness *w)
{
	pthread_t thread;
	int r;

	w->disk.record = aligned_alloc(DISK_RECORD_BYTES, DISK_RECORD_BYTES);
	w->disk.span = aligned_alloc(DISK_RECORD_BYTES, SPAN_RECORDS * DISK_RECORD_BYTES);
	if (!w->disk.record || !w->disk.span) {
		report_fail(w, WATCH_DISK, "cause=memory");
		return -ENOMEM;
	}
	r = disk_open(w);
	if (!r)
		r = disk_check_fresh(w);
	if (r < 0)
		return r;
	r = thread_start(&thread, disk_thread, w);
	if (r < 0)
		report_fail(w, WATCH_DISK, "cause=thread errno=%d", -r);
	return r;
}
