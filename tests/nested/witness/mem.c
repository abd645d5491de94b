// SPDX-License-Identifier: Apache-2.0
/**
 * DOC: The memory watch
 *
 * All watched memory is one mapping, cut into blocks of 64 KiB. The word i of block b in
 * generation g must be
 *
 *	key(seed, b, g) + i * STEP
 *
 * where key() mixes well and is computed once a block, so that the inner loop is an addition and
 * a comparison: guests run under emulation. Two pages that changed places differ in b or i; a
 * page of the past differs in g; a flipped bit differs at once.
 *
 * A thread owns a range of blocks and goes round it for ever: verify a chunk, rewrite it in the
 * next generation. The generation of a block stands in a table *and* follows from the thread's
 * own pass number, so a table page that went back together with its blocks is noticed as well.
 * What can't be noticed from within is a guest of which everything went back in time; that is
 * what the records on disk and the counters sent over the network are for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "witness.h"

#define STEP 0x9e3779b97f4a7c15ULL
/* STEP times this is 1 (mod 2^64): gives back i from a word, to name where it came from. */
#define STEP_INVERSE 0xf1de83e19937733dULL
static_assert(STEP * STEP_INVERSE == 1, "inverse of STEP");

#define BLOCK_WORDS (MEM_BLOCK_BYTES / 8)
#define CHUNK_WORDS (MEM_CHUNK_BYTES / 8)
static_assert(CHUNK_WORDS % 8 == 0, "loops below are unrolled by eight");

/* A memory thread looks at the clock every so many blocks. */
#define THROTTLE_BLOCKS 4
/* What is left to the kernel beyond its own estimate of available memory. */
#define MEM_RESERVE_BYTES (1UL << 20)
/* How many generations around the right one are tried to explain a wrong word. */
#define EXPLAIN_GENERATIONS 16

static uint64_t block_key(uint64_t seed, uint64_t block, uint64_t generation)
{
	return mix64(mix64(seed + block * 0xff51afd7ed558ccdULL) ^ generation * STEP);
}

/* 0 when all words of the chunk are right. */
static uint64_t chunk_verify(const uint64_t *p, uint64_t value)
{
	uint64_t diff = 0;

	for (size_t i = 0; i < CHUNK_WORDS; i += 8) {
		for (size_t j = 0; j < 8; j++) {
			diff |= p[i + j] ^ value;
			value += STEP;
		}
	}
	return diff;
}

static void chunk_write(uint64_t *p, uint64_t value)
{
	for (size_t i = 0; i < CHUNK_WORDS; i += 8) {
		for (size_t j = 0; j < 8; j++) {
			p[i + j] = value;
			value += STEP;
		}
	}
}

/* Says in words where a wrong word might come from. @off is where it was found. */
static void explain(const struct witness *w, uint64_t off, uint64_t generation, uint64_t want,
	uint64_t got, char *buf, size_t size)
{
	uint64_t blocks = w->mem.bytes / MEM_BLOCK_BYTES;

	if (!got || __builtin_popcountll(got ^ want) == 1) {
		snprintf(buf, size, got ? "bitflip" : "zero");
		return;
	}
	for (uint64_t b = 0; b < blocks; b++) {
		for (uint64_t k = 0; k < 2 * EXPLAIN_GENERATIONS; k++) {
			uint64_t g = generation + EXPLAIN_GENERATIONS - k;
			uint64_t i = (got - block_key(w->cfg.seed, b, g)) * STEP_INVERSE;
			uint64_t from = b * MEM_BLOCK_BYTES + i * 8;

			if (i >= BLOCK_WORDS)
				continue;
			snprintf(buf, size, "%s from_off=0x%llx from_gen=%lld",
				from != off	 ? "moved"
				: g < generation ? "stale"
						 : "future",
				(unsigned long long)from, (long long)g);
			return;
		}
	}
	snprintf(buf, size, "unknown");
}

static void chunk_report(
	struct mem_part *part, uint64_t block, size_t first, uint64_t generation, uint64_t value)
{
	struct witness *w = part->w;
	uint64_t *p = w->mem.base + block * BLOCK_WORDS + first;
	uint64_t bad = 0;
	char cause[96];

	for (size_t i = 0; i < CHUNK_WORDS; i++, value += STEP) {
		uint64_t got = p[i], off = block * MEM_BLOCK_BYTES + (first + i) * 8;

		if (got == value)
			continue;
		/* Three words of a page say enough, and leave lines for other pages. */
		if (bad++ >= 3 || atomic_load(&w->fails[WATCH_MEM]) >= FAIL_PRINT_MAX) {
			atomic_fetch_add(&w->fails[WATCH_MEM], 1);
			continue;
		}
		explain(w, off, generation, value, got, cause, sizeof(cause));
		report_fail(w, WATCH_MEM,
			"cause=%s off=0x%llx gen=%llu want=0x%016llx got=0x%016llx", cause,
			(unsigned long long)off, (unsigned long long)generation,
			(unsigned long long)value, (unsigned long long)got);
	}
	/* Right at the second look is wrong too: the first look has seen something else. */
	if (!bad) {
		bad = 1;
		report_fail(w, WATCH_MEM, "cause=unstable off=0x%llx gen=%llu",
			(unsigned long long)(block * MEM_BLOCK_BYTES + first * 8),
			(unsigned long long)generation);
	}
	atomic_fetch_add(&part->bad, bad);
}

static void block_pass(struct mem_part *part, uint64_t block)
{
	struct witness *w = part->w;
	uint64_t *p = w->mem.base + block * BLOCK_WORDS;
	uint64_t now = block_key(w->cfg.seed, block, part->pass);
	uint64_t next = block_key(w->cfg.seed, block, part->pass + 1);

	if (w->mem.generation[block] != part->pass) {
		report_fail(w, WATCH_MEM, "cause=generation off=0x%llx gen=%llu table=%llu",
			(unsigned long long)(block * MEM_BLOCK_BYTES),
			(unsigned long long)part->pass,
			(unsigned long long)w->mem.generation[block]);
		atomic_fetch_add(&part->bad, 1);
	}
	for (size_t first = 0; first < BLOCK_WORDS; first += CHUNK_WORDS) {
		atomic_store(&part->cursor, block * MEM_BLOCK_BYTES + first * 8);
		if (chunk_verify(p + first, now + first * STEP))
			chunk_report(part, block, first, part->pass, now + first * STEP);
		chunk_write(p + first, next + first * STEP);
	}
	w->mem.generation[block] = part->pass + 1;
	atomic_fetch_add_explicit(&part->words, BLOCK_WORDS, memory_order_relaxed);
}

static void part_fill(struct mem_part *part)
{
	struct witness *w = part->w;

	for (uint64_t b = part->first_block; b < part->first_block + part->blocks; b++) {
		uint64_t *p = w->mem.base + b * BLOCK_WORDS;
		uint64_t key = block_key(w->cfg.seed, b, 0);

		for (size_t first = 0; first < BLOCK_WORDS; first += CHUNK_WORDS)
			chunk_write(p + first, key + first * STEP);
		w->mem.generation[b] = 0;
	}
	atomic_store(&part->filled, true);
}

/* Sleeps as long as @duty demands for the work since @since_ns; returns the new start of work. */
static uint64_t throttle(uint64_t duty, uint64_t since_ns)
{
	uint64_t worked = time_ns(CLOCK_MONOTONIC) - since_ns;

	if (duty >= 100)
		return since_ns;
	/* Too short to sleep for: a timer under emulation costs more than that. */
	if (worked < 2 * NSEC_PER_MSEC)
		return since_ns;
	/* A pause of the guest may look like work; it's no reason to sleep for as long. */
	if (worked > 100 * NSEC_PER_MSEC)
		worked = 100 * NSEC_PER_MSEC;
	sleep_ns(worked * (100 - duty) / duty);
	return time_ns(CLOCK_MONOTONIC);
}

static void *mem_thread(void *arg)
{
	struct mem_part *part = arg;
	uint64_t duty = part->w->cfg.duty, since;

	/* Below clocks and network, so that these measure the guest and not this loop. */
	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 10);
	part_fill(part);
	since = time_ns(CLOCK_MONOTONIC);
	for (;;) {
		for (uint64_t i = 0; i < part->blocks; i++) {
			block_pass(part, part->first_block + i);
			if (i % THROTTLE_BLOCKS == THROTTLE_BLOCKS - 1)
				since = throttle(duty, since);
		}
		part->pass++;
		atomic_store(&part->passes, part->pass);
		since = throttle(duty, since);
	}
	return NULL;
}

/* Free enough for the kernel to give without killing anybody. */
static uint64_t available_bytes(void)
{
	char text[2048];
	unsigned long long kib;
	char *p;

	if (read_text("/proc/meminfo", text, sizeof(text)) < 0)
		return 0;
	p = strstr(text, "MemAvailable:");
	if (!p || sscanf(p, "MemAvailable: %llu kB", &kib) != 1)
		return 0;
	return kib << 10;
}

static int mem_size(struct witness *w)
{
	struct mem_watch *m = &w->mem;
	struct sysinfo si;
	uint64_t available;

	if (sysinfo(&si) < 0)
		return -errno;
	m->ram_bytes = w->cfg.ram_mib ? w->cfg.ram_mib << 20 : (uint64_t)si.totalram * si.mem_unit;
	if (w->cfg.mem_mib)
		m->bytes = w->cfg.mem_mib << 20;
	else
		m->bytes = (m->ram_bytes * w->cfg.mem_pct + 99) / 100;
	m->bytes = (m->bytes + MEM_BLOCK_BYTES - 1) / MEM_BLOCK_BYTES * MEM_BLOCK_BYTES;

	available = available_bytes();
	if (available < m->bytes + MEM_RESERVE_BYTES) {
		report_fail(w, WATCH_MEM, "cause=too-little want=%llu available=%llu total=%llu",
			(unsigned long long)m->bytes, (unsigned long long)available,
			(unsigned long long)si.totalram * si.mem_unit);
		return -ENOMEM;
	}
	return 0;
}

static int mem_map(struct witness *w)
{
	struct mem_watch *m = &w->mem;
	uint64_t blocks = m->bytes / MEM_BLOCK_BYTES;

	/* Linux promises zeroes, which is one of the wrong values that is told apart. */
	m->base = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->base == MAP_FAILED)
		goto fail;
	m->generation = mmap(NULL, blocks * sizeof(*m->generation), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->generation == MAP_FAILED)
		goto fail;
	return 0;
fail:
	report_fail(w, WATCH_MEM, "cause=map errno=%d", errno);
	return -ENOMEM;
}

int mem_start(struct witness *w)
{
	struct mem_watch *m = &w->mem;
	uint64_t blocks, first = 0;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int r;

	r = mem_size(w);
	if (!r)
		r = mem_map(w);
	if (r < 0)
		return r;

	blocks = m->bytes / MEM_BLOCK_BYTES;
	m->parts_used = w->cfg.threads ? (unsigned)w->cfg.threads : cpus > 0 ? (unsigned)cpus : 1;
	if (m->parts_used > MEM_MAX_THREADS)
		m->parts_used = MEM_MAX_THREADS;
	if (m->parts_used > blocks)
		m->parts_used = (unsigned)blocks;
	for (unsigned i = 0; i < m->parts_used; i++) {
		struct mem_part *part = &m->parts[i];

		part->w = w;
		part->first_block = first;
		part->blocks = blocks / m->parts_used + (i < blocks % m->parts_used);
		first += part->blocks;
		r = thread_start(&part->thread, mem_thread, part);
		if (r < 0) {
			report_fail(w, WATCH_MEM, "cause=thread errno=%d", -r);
			return r;
		}
	}
	return 0;
}

/* Once round: everything filled, read back and rewritten. */
bool mem_ready(struct witness *w)
{
	return mem_passes(w) > 0;
}

/* The slowest thread decides: so many times has every word been verified. */
uint64_t mem_passes(struct witness *w)
{
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < w->mem.parts_used; i++) {
		uint64_t p = atomic_load(&w->mem.parts[i].passes);

		if (p < least)
			least = p;
	}
	return w->mem.parts_used ? least : 0;
}

uint64_t mem_words(struct witness *w)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < w->mem.parts_used; i++)
		n += atomic_load(&w->mem.parts[i].words);
	return n;
}

uint64_t mem_bad(struct witness *w)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < w->mem.parts_used; i++)
		n += atomic_load(&w->mem.parts[i].bad);
	return n;
}
