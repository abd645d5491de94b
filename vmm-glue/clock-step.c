/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/clock-step.h"

#include <cpuid.h>
#include <string.h>
#include <sys/timex.h>

#include "common/fd.h"

#define CLOCKSOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"
#define CPUID_POWER 0x80000007u
#define CPUID_INVARIANT_TSC (1u << 8)

/* Slower or faster is no TSC that Linux runs on. */
#define MIN_HZ 10000000ULL
#define MAX_HZ 100000000000ULL

static int refuse(struct hf_error *error, const char *why)
{
	return hf_error_set(error, -ERANGE, HF_ERR_FAILED, NULL, "%s", why);
}

/* The CPU says so, or the kernel itself goes by it, which it does not do with one that stops. */
bool hf_clock_tsc_is_sound(void)
{
	unsigned int a = 0, b = 0, c = 0, d = 0;
	cleanup_free char *source = NULL;

	if (__get_cpuid(CPUID_POWER, &a, &b, &c, &d) && d & CPUID_INVARIANT_TSC)
		return true;
	return hf_file_read(CLOCKSOURCE, 64, &source, NULL) == 0 && strncmp(source, "tsc", 3) == 0;
}

int hf_clock_step_find(const struct hf_wall_clock_target *target, const struct hf_tsc_wall *now,
	struct hf_wall_clock *ret, struct hf_error *error)
{
	uint64_t hz = target->hz, elapsed, size;
	int64_t step;
	__int128 diff;

	if (!target->tsc || !target->wall_ns)
		return -ENODATA;
	if (hz < MIN_HZ || hz > MAX_HZ)
		return refuse(error, "the rate of the time-stamp counter is not known");
	if (!now->tsc || now->tsc <= target->tsc)
		return refuse(error, "the time-stamp counter did not run on through the jump");
	if ((now->tsc - target->tsc) / hz >= HF_WALL_CLOCK_MAX_AGE_NS / HF_NSEC_PER_SEC)
		return refuse(error, "the freeze seems to have lasted for more than an hour");
	/* Below an hour, at up to MAX_HZ: nothing overflows from here on. */
	elapsed = hf_tsc_to_ns(now->tsc - target->tsc, hz);
	diff = (__int128)target->wall_ns + elapsed - now->wall_ns;
	if (diff > (__int128)HF_WALL_CLOCK_MAX_STEP_NS ||
		-diff > (__int128)HF_WALL_CLOCK_MAX_STEP_NS)
		return refuse(error, "it is off by more than ten minutes: that is not of the jump");
	if (target->width > hz / 1000 || now->width > hz / 1000)
		return refuse(error, "it could not be read exactly enough");
	step = (int64_t)diff;
	size = (uint64_t)(step < 0 ? -step : step);
	if (size < HF_WALL_CLOCK_MIN_STEP_NS)
		step = 0;
	*ret = (struct hf_wall_clock){
		.known = true,
		.step_ns = step,
		.error_ns = hf_tsc_to_ns(target->width / 2 + now->width / 2, hz) +
			    elapsed / 1000000 * HF_WALL_CLOCK_RATE_PPM + (step ? 0 : size),
	};
	return 0;
}

/* Relative, so that the time between reading and writing it doesn't count. */
static int move(int64_t ns)
{
	int64_t sec = ns / (int64_t)HF_NSEC_PER_SEC, rest = ns % (int64_t)HF_NSEC_PER_SEC;
	struct timex t = {.modes = ADJ_SETOFFSET | ADJ_NANO};

	if (rest < 0) {
		sec--;
		rest += (int64_t)HF_NSEC_PER_SEC;
	}
	t.time.tv_sec = sec;
	t.time.tv_usec = rest;
	return adjtimex(&t) < 0 ? -errno : 0;
}

int hf_clock_step_here(const struct hf_wall_clock_target *target, struct hf_wall_clock *ret,
	struct hf_error *error)
{
	struct hf_tsc_wall now = hf_tsc_wall();
	struct hf_wall_clock found = {0};
	int r = hf_clock_step_find(target, &now, &found, error);

	if (r == 0 && !hf_clock_tsc_is_sound())
		r = refuse(error, "this kernel does not trust the time-stamp counter");
	if (r == 0 && found.step_ns) {
		r = move(found.step_ns);
		if (r < 0)
			hf_error_set(error, r, HF_ERR_FAILED, NULL, "%s%s", strerror(-r),
				r == -EPERM ? " (it takes CAP_SYS_TIME)" : "");
	}
	if (r == 0)
		*ret = found;
	return r;
}
