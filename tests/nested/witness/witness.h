/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The witness: a guest that notices when anything happened to it
 *
 * The witness runs as PID 1 of a test guest (or, with --host-test, as an ordinary process) and
 * keeps four watches at once: memory, clocks, disk and network. Each watch knows beforehand what
 * it must find; a single difference is reported on the console and is never forgotten.
 *
 * Ownership: main() owns the one struct witness and every watch gets a pointer to it. A watch
 * writes only its own part; the reporter reads all of them, hence the atomics. Nothing is ever
 * freed: the program ends with its guest.
 */
#pragma once

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NSEC_PER_SEC 1000000000ULL
#define NSEC_PER_MSEC 1000000ULL

/* Unit of the generation table, and unit in which memory is checked and rewritten. */
#define MEM_BLOCK_BYTES 65536UL
#define MEM_CHUNK_BYTES 4096UL
#define MEM_MAX_THREADS 64

#define DISK_RECORD_BYTES 4096U

/* Of every kind of failure so many are printed in full; the rest are only counted. */
#define FAIL_PRINT_MAX 8

enum watch {
	WATCH_MEM,
	WATCH_CLOCK,
	WATCH_DISK,
	WATCH_NET,
	WATCH_SELF,
	WATCH_MAX,
};

/**
 * struct config - what the kernel command line (or argv) asked for
 * @name: name of the guest in every line
 * @seed: makes the patterns of two guests differ
 * @ram_mib: RAM the guest was given; 0: believe MemTotal
 * @mem_pct: part of @ram_mib to put under watch
 * @mem_mib: if not 0: exactly so much, whatever @mem_pct says
 * @threads: memory threads; 0: one a vCPU
 * @duty: percent of the time a memory thread may work
 * @clock_ms: interval of clock samples
 * @report_ms: interval of report lines
 * @disk: block device or file; empty: no disk watch
 * @disk_slots: records in the ring
 * @disk_ms: interval of appends
 * @disk_reuse: records of an earlier boot with the same seed are no failure
 * @ip: address/prefix; empty: no network watch, or, in a host test, loopback
 * @gw: default route, may be empty
 * @ifname: network interface
 * @port: TCP port; 0 (host test only): any free one
 * @host_test: run as an ordinary process
 */
struct config {
	char name[32];
	uint64_t seed;
	uint64_t ram_mib;
	uint64_t mem_pct;
	uint64_t mem_mib;
	uint64_t threads;
	uint64_t duty;
	uint64_t clock_ms;
	uint64_t report_ms;
	char disk[128];
	uint64_t disk_slots;
	uint64_t disk_ms;
	uint64_t disk_reuse;
	char ip[32];
	char gw[32];
	char ifname[16];
	uint64_t port;
	bool host_test;
	bool net;
};

struct witness;

/**
 * struct mem_part - one memory thread and the blocks that are its own
 * @cursor: byte offset of the chunk being worked on (from the start of all memory); a test reads
 *	it from outside so as not to damage the very words that are being rewritten
 */
struct mem_part {
	struct witness *w;
	pthread_t thread;
	uint64_t first_block;
	uint64_t blocks;
	uint64_t pass;
	_Atomic uint64_t cursor;
	_Atomic uint64_t passes;
	_Atomic uint64_t words;
	_Atomic uint64_t bad;
	_Atomic bool filled;
};

struct mem_watch {
	uint64_t *base;
	uint64_t bytes;
	uint64_t *generation;
	uint64_t ram_bytes;
	unsigned parts_used;
	struct mem_part parts[MEM_MAX_THREADS];
};

struct clock_watch {
	_Atomic uint64_t samples;
	_Atomic uint64_t gap_ns;	/* largest since the last report line */
	_Atomic uint64_t gap_max_ns;	/* largest since ready */
	_Atomic uint64_t gap_max_at_ns; /* monotonic time at the end of that gap */
	_Atomic int64_t wall_step_ns;	/* the like for realtime minus monotonic */
	_Atomic int64_t wall_step_max_ns;
	_Atomic int64_t wall_off_ns; /* sum of all steps since ready */
	_Atomic int64_t boot_step_max_ns;
	_Atomic int64_t tsc_step_max_ns; /* TSC time minus monotonic time */
	_Atomic uint64_t tsc_hz;
	_Atomic uint64_t tsc_back;
	_Atomic int64_t rtc_lost_s;
	_Atomic bool rtc_valid;
	_Atomic bool calibrated;
	_Atomic bool reset; /* asks the clock thread to forget its maxima */
};

struct disk_watch {
	int fd;
	void *record;
	void *span;
	_Atomic uint64_t seq;
	_Atomic uint64_t checked;
	_Atomic uint64_t bad;
	_Atomic uint64_t slow_ns; /* slowest append */
};

struct net_watch {
	int listen_fd;
	_Atomic uint64_t conns;
	_Atomic uint64_t live;
	_Atomic uint64_t msgs;
	_Atomic uint64_t bad;
};

struct witness {
	struct config cfg;
	uint64_t boot_id;
	struct mem_watch mem;
	struct clock_watch clock;
	struct disk_watch disk;
	struct net_watch net;
	_Atomic bool ready;
	_Atomic uint64_t fails[WATCH_MAX];
};

/* report.c */
void report_init(struct witness *w);
void report_line(const char *tag, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void report_fail(struct witness *w, enum watch watch, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void report_status(struct witness *w);
void report_ready(struct witness *w);
uint64_t report_fail_count(struct witness *w);

/* config.c */
int config_parse_word(struct config *cfg, const char *word);
int config_parse_line(struct config *cfg, char *line);
void config_defaults(struct config *cfg);

/* util.c */
uint64_t time_ns(clockid_t clock);
void sleep_ns(uint64_t ns);
uint64_t mix64(uint64_t x);
int read_text(const char *path, char *buf, size_t size);
int write_text(const char *path, const char *text);
int thread_start(pthread_t *ret_thread, void *(*fn)(void *), void *arg);

/* One pair for each watch: set up (0 or -errno, failure already reported), then start. */
int mem_start(struct witness *w);
bool mem_ready(struct witness *w);
uint64_t mem_passes(struct witness *w);
uint64_t mem_words(struct witness *w);
uint64_t mem_bad(struct witness *w);
int clock_start(struct witness *w);
void clock_read_rtc(struct witness *w, bool first);
int disk_start(struct witness *w);
int net_start(struct witness *w);
