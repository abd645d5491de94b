// SPDX-License-Identifier: Apache-2.0
/**
 * DOC: What the witness says
 *
 * Every line is one write(2), starts with a tag and ends with a checksum, because the console is
 * shared with the kernel and the log of a guest is cut in two by the very event under test: a
 * reader throws away lines that are torn instead of mistaking them for something else.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "witness.h"

static pthread_mutex_t line_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t line_number;
static const char *line_name = "guest";
static uint64_t line_boot;

static const char *const watch_names[WATCH_MAX] = {
	[WATCH_MEM] = "mem",
	[WATCH_CLOCK] = "clock",
	[WATCH_DISK] = "disk",
	[WATCH_NET] = "net",
	[WATCH_SELF] = "self",
};

/* FNV-1a of 32 bits: short, well known, easy to repeat in the reader. */
static uint32_t line_sum(const char *text, size_t len)
{
	uint32_t h = 0x811c9dc5U;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)text[i]) * 0x01000193U;
	return h;
}

static void write_all(const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = write(STDOUT_FILENO, text, len);

		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

static void line_out(const char *tag, const char *body)
{
	uint64_t t = time_ns(CLOCK_MONOTONIC);
	char buf[1200];
	size_t len;
	int n;

	pthread_mutex_lock(&line_lock);
	n = snprintf(buf, sizeof(buf) - 32, "%s v=1 n=%llu name=%s boot=%016llx t=%llu.%03llu %s",
		tag, (unsigned long long)++line_number, line_name, (unsigned long long)line_boot,
		(unsigned long long)(t / NSEC_PER_SEC),
		(unsigned long long)(t / NSEC_PER_MSEC % 1000), body);
	len = (size_t)n < sizeof(buf) - 32 ? (size_t)n : sizeof(buf) - 33;
	len += (size_t)snprintf(buf + len, 32, " sum=%08x\n", line_sum(buf, len));
	write_all(buf, len);
	pthread_mutex_unlock(&line_lock);
}

/**
 * report_init() - give every later line its name and boot id
 * @w: the witness
 */
void report_init(struct witness *w)
{
	line_name = w->cfg.name;
	line_boot = w->boot_id;
}

/**
 * report_line() - print one line of any kind
 * @tag: first word
 * @fmt: the rest, key=value words
 */
void report_line(const char *tag, const char *fmt, ...)
{
	char body[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(body, sizeof(body), fmt, ap);
	va_end(ap);
	line_out(tag, body);
}

/**
 * report_fail() - something is not as it was left: say so now, and for ever
 * @w: the witness
 * @watch: who noticed
 * @fmt: key=value words, the first being cause=
 */
void report_fail(struct witness *w, enum watch watch, const char *fmt, ...)
{
	char body[900];
	va_list ap;

	if (atomic_fetch_add(&w->fails[watch], 1) >= FAIL_PRINT_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(body, sizeof(body), fmt, ap);
	va_end(ap);
	report_line("WITNESS-FAIL", "kind=%s %s", watch_names[watch], body);
}

uint64_t report_fail_count(struct witness *w)
{
	uint64_t n = 0;

	for (int i = 0; i < WATCH_MAX; i++)
		n += atomic_load(&w->fails[i]);
	return n;
}

static void memory_text(struct witness *w, char *buf, size_t size)
{
	uint64_t pct_x10 = w->mem.ram_bytes ? w->mem.bytes * 1000 / w->mem.ram_bytes : 0;

	snprintf(buf, size, "mem_bytes=%llu mem_pct=%llu.%llu", (unsigned long long)w->mem.bytes,
		(unsigned long long)(pct_x10 / 10), (unsigned long long)(pct_x10 % 10));
}

/**
 * report_ready() - memory is filled and verified once, every watch has begun
 * @w: the witness
 */
void report_ready(struct witness *w)
{
	char mem[64];

	memory_text(w, mem, sizeof(mem));
	report_line("WITNESS-READY", "%s threads=%u disk=%d net=%d tsc_hz=%llu fails=%llu", mem,
		w->mem.parts_used, w->cfg.disk[0] != '\0', w->cfg.net,
		(unsigned long long)atomic_load(&w->clock.tsc_hz),
		(unsigned long long)report_fail_count(w));
}

/**
 * report_status() - the periodic line
 * @w: the witness
 */
void report_status(struct witness *w)
{
	static uint64_t last_ns, last_words;
	struct clock_watch *c = &w->clock;
	uint64_t now = time_ns(CLOCK_MONOTONIC), words = mem_words(w);
	uint64_t mib_s = 0, fails = report_fail_count(w);
	char mem[64], rtc[32] = "na";

	if (last_ns && now > last_ns)
		mib_s = (words - last_words) * 8 * 1000 / ((now - last_ns) / 1000 + 1) * 1000 >> 20;
	last_ns = now;
	last_words = words;
	memory_text(w, mem, sizeof(mem));
	if (atomic_load(&c->rtc_valid))
		snprintf(rtc, sizeof(rtc), "%lld", (long long)atomic_load(&c->rtc_lost_s));

	report_line("WITNESS-STATUS",
		"state=%s %s passes=%llu words=%llu bad=%llu mib_s=%llu disk_seq=%llu "
		"disk_read=%llu disk_bad=%llu disk_slow_ns=%llu net_conns=%llu net_live=%llu "
		"net_msgs=%llu net_bad=%llu gap_ns=%llu gap_max_ns=%llu gap_max_at_ms=%llu "
		"wall_step_ns=%lld wall_step_max_ns=%lld wall_off_ns=%lld boot_step_max_ns=%lld "
		"tsc_step_max_ns=%lld tsc_back=%llu rtc_lost_s=%s fails=%llu",
		fails			 ? "failed"
		: atomic_load(&w->ready) ? "ok"
					 : "starting",
		mem, (unsigned long long)mem_passes(w), (unsigned long long)words,
		(unsigned long long)mem_bad(w), (unsigned long long)mib_s,
		(unsigned long long)atomic_load(&w->disk.seq),
		(unsigned long long)atomic_load(&w->disk.checked),
		(unsigned long long)atomic_load(&w->disk.bad),
		(unsigned long long)atomic_load(&w->disk.slow_ns),
		(unsigned long long)atomic_load(&w->net.conns),
		(unsigned long long)atomic_load(&w->net.live),
		(unsigned long long)atomic_load(&w->net.msgs),
		(unsigned long long)atomic_load(&w->net.bad),
		(unsigned long long)atomic_exchange(&c->gap_ns, 0),
		(unsigned long long)atomic_load(&c->gap_max_ns),
		(unsigned long long)(atomic_load(&c->gap_max_at_ns) / NSEC_PER_MSEC),
		(long long)atomic_exchange(&c->wall_step_ns, 0),
		(long long)atomic_load(&c->wall_step_max_ns),
		(long long)atomic_load(&c->wall_off_ns),
		(long long)atomic_load(&c->boot_step_max_ns),
		(long long)atomic_load(&c->tsc_step_max_ns),
		(unsigned long long)atomic_load(&c->tsc_back), rtc, (unsigned long long)fails);
}
