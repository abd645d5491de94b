// SPDX-License-Identifier: Apache-2.0
/**
 * DOC: The clock watch
 *
 * One thread of the highest priority reads all clocks together every few milliseconds. What it
 * sees of a pause depends on the guest's clock source, so it reports everything and judges
 * little:
 *
 *  - gap: the monotonic clock between two samples. With kvm-clock, or a TSC that is saved and
 *    restored, it stands still in the pause and the gap stays small; with a TSC that runs on it is
 *    the pause.
 *  - wall step: what CLOCK_REALTIME did that CLOCK_MONOTONIC didn't: someone set the clock.
 *  - TSC step: what the TSC did that CLOCK_MONOTONIC didn't: the pause, when the TSC runs on and
 *    the clock source doesn't.
 *  - RTC: what the emulated RTC, which follows the host's clock, did that CLOCK_MONOTONIC didn't.
 *    It has a grain of one second, but shows the pause whatever the clock source is.
 *
 * Only a clock that must never go back, and does, is a failure.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/rtc.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "witness.h"

/*
 * How long the TSC is compared with the monotonic clock before its steps are believed. A host test
 * wants the thread to run, not its precision.
 */
#define CALIBRATE_NS (2 * NSEC_PER_SEC)
#define CALIBRATE_HOST_TEST_NS (200 * NSEC_PER_MSEC)
/* Clocks that were read further apart than this were not read together. */
#define TOGETHER_NS 20000ULL

struct sample {
	uint64_t mono_ns;
	uint64_t boot_ns;
	uint64_t real_ns;
	uint64_t tsc;
};

/*
 * Reads all clocks as close together as ten attempts allow. The comparison of two samples is wrong
 * by no more than the distance of the reads in each.
 */
static void sample_read(struct sample *ret_sample)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 10 && best > TOGETHER_NS; i++) {
		struct sample s;
		uint64_t end;

		s.mono_ns = time_ns(CLOCK_MONOTONIC);
		s.tsc = __rdtsc();
		s.real_ns = time_ns(CLOCK_REALTIME);
		s.boot_ns = time_ns(CLOCK_BOOTTIME);
		end = time_ns(CLOCK_MONOTONIC);
		if (end - s.mono_ns < best) {
			best = end - s.mono_ns;
			*ret_sample = s;
		}
	}
}

static bool farther(int64_t a, int64_t than)
{
	return (a < 0 ? -a : a) > (than < 0 ? -than : than);
}

static void note_max(_Atomic int64_t *max, int64_t value)
{
	if (farther(value, atomic_load(max)))
		atomic_store(max, value);
}

static void sample_compare(struct witness *w, const struct sample *a, const struct sample *b)
{
	struct clock_watch *c = &w->clock;
	int64_t mono = (int64_t)(b->mono_ns - a->mono_ns);
	int64_t wall = (int64_t)(b->real_ns - a->real_ns) - mono;
	int64_t boot = (int64_t)(b->boot_ns - a->boot_ns) - mono;
	int64_t tsc = (int64_t)(b->tsc - a->tsc);
	uint64_t hz = atomic_load(&c->tsc_hz);

	if (mono < 0 || boot + mono < 0)
		report_fail(w, WATCH_CLOCK, "cause=backwards mono_ns=%lld boot_ns=%lld",
			(long long)mono, (long long)(boot + mono));
	if (mono > 0 && (uint64_t)mono > atomic_load(&c->gap_ns))
		atomic_store(&c->gap_ns, (uint64_t)mono);
	if (mono > 0 && (uint64_t)mono > atomic_load(&c->gap_max_ns)) {
		atomic_store(&c->gap_max_ns, (uint64_t)mono);
		atomic_store(&c->gap_max_at_ns, b->mono_ns);
	}
	note_max(&c->wall_step_ns, wall);
	note_max(&c->wall_step_max_ns, wall);
	note_max(&c->boot_step_max_ns, boot);
	if (tsc < 0)
		atomic_fetch_add(&c->tsc_back, 1);
	else if (hz)
		note_max(&c->tsc_step_max_ns,
			(int64_t)((double)tsc / (double)hz * (double)NSEC_PER_SEC) - mono);
	atomic_fetch_add(&c->samples, 1);
}

static void clock_reset(struct clock_watch *c)
{
	atomic_store(&c->gap_ns, 0);
	atomic_store(&c->gap_max_ns, 0);
	atomic_store(&c->gap_max_at_ns, 0);
	atomic_store(&c->wall_step_ns, 0);
	atomic_store(&c->wall_step_max_ns, 0);
	atomic_store(&c->boot_step_max_ns, 0);
	atomic_store(&c->tsc_step_max_ns, 0);
	atomic_store(&c->tsc_back, 0);
}

static void calibrate(struct witness *w, const struct sample *first, const struct sample *now)
{
	uint64_t ns = now->mono_ns - first->mono_ns;
	double hz;

	if (ns < (w->cfg.host_test ? CALIBRATE_HOST_TEST_NS : CALIBRATE_NS))
		return;
	hz = (double)(now->tsc - first->tsc) * (double)NSEC_PER_SEC / (double)ns;
	atomic_store(&w->clock.tsc_hz, (uint64_t)hz);
	atomic_store(&w->clock.calibrated, true);
}

static void *clock_thread(void *arg)
{
	struct witness *w = arg;
	struct clock_watch *c = &w->clock;
	struct sched_param prio = {.sched_priority = 10};
	struct sample first, last, now;
	cpu_set_t cpu;

	/*
	 * On one CPU, because TSCs of different vCPUs need not agree; before everything else there,
	 * because a gap shall be the guest's and not the scheduler's. Neither is vital, and a host
	 * test has no right to the second.
	 */
	CPU_ZERO(&cpu);
	CPU_SET(0, &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
	sched_setscheduler(0, SCHED_FIFO, &prio);

	sample_read(&first);
	last = first;
	for (;;) {
		sleep_ns(w->cfg.clock_ms * NSEC_PER_MSEC);
		sample_read(&now);
		if (!atomic_load(&c->calibrated))
			calibrate(w, &first, &now);
		if (atomic_exchange(&c->reset, false)) {
			clock_reset(c);
			first = now;
		}
		sample_compare(w, &last, &now);
		atomic_store(&c->wall_off_ns, (int64_t)(now.real_ns - first.real_ns) -
						      (int64_t)(now.mono_ns - first.mono_ns));
		last = now;
	}
	return NULL;
}

/**
 * clock_read_rtc() - compare the RTC with the monotonic clock
 * @w: the witness
 * @first: take this comparison as the one that later ones are measured against
 *
 * A host test has no RTC of its own and leaves the machine's alone.
 */
void clock_read_rtc(struct witness *w, bool first)
{
	static int64_t base_s;
	static int fd = -1;
	struct rtc_time rt;
	struct tm tm = {0};
	int64_t diff;

	if (w->cfg.host_test)
		return;
	if (fd < 0)
		fd = open("/dev/rtc0", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, RTC_RD_TIME, &rt) < 0)
		return;
	tm.tm_sec = rt.tm_sec;
	tm.tm_min = rt.tm_min;
	tm.tm_hour = rt.tm_hour;
	tm.tm_mday = rt.tm_mday;
	tm.tm_mon = rt.tm_mon;
	tm.tm_year = rt.tm_year;
	diff = (int64_t)timegm(&tm) - (int64_t)(time_ns(CLOCK_MONOTONIC) / NSEC_PER_SEC);
	if (first)
		base_s = diff;
	atomic_store(&w->clock.rtc_lost_s, diff - base_s);
	atomic_store(&w->clock.rtc_valid, true);
}

int clock_start(struct witness *w)
{
	pthread_t thread;
	int r;

	r = thread_start(&thread, clock_thread, w);
	if (r < 0)
		report_fail(w, WATCH_CLOCK, "cause=thread errno=%d", -r);
	return r;
}
