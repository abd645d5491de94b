/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Moving the host's wall clock to where it would be, had the kernel not changed.
 *
 * The clock was read at one reading of the time-stamp counter, which runs on: that and the rate are
 * the target. How far the clock is from it is found out where it is moved, in the same breath: so
 * it doesn't matter how long a target was on its way, nor whether somebody has set the clock
 * meanwhile, and a target that is asked for twice moves the clock once.
 *
 * Moving it takes a right that an agent in a sandbox does not have; its spawner then does it.
 */
#pragma once

#include <stdbool.h>

#include "common/error.h"
#include "common/tsc.h"

/* A clock that is nearer is left alone; one that is farther off is wrong for another reason. */
#define HF_WALL_CLOCK_MIN_STEP_NS HF_NSEC_PER_MSEC
#define HF_WALL_CLOCK_MAX_STEP_NS (600 * HF_NSEC_PER_SEC)
/* No freeze takes longer: the note is of another time. */
#define HF_WALL_CLOCK_MAX_AGE_NS (3600 * HF_NSEC_PER_SEC)
/* How far the TSC's rate, as it was measured, may be from that of true time. */
#define HF_WALL_CLOCK_RATE_PPM 100

/** struct hf_wall_clock_target - what the clock said at a reading of the counter. */
struct hf_wall_clock_target {
	uint64_t tsc;	  /* 0: none, nothing is to be moved */
	uint64_t wall_ns; /* CLOCK_REALTIME, since the epoch */
	uint64_t width;	  /* ticks: the instant is within half of it, on either side of @tsc */
	uint64_t hz;	  /* ticks a second */
};

/** struct hf_wall_clock - what became of it. */
struct hf_wall_clock {
	bool known;	   /* the right time could be told; the next two are meant */
	int64_t step_ns;   /* by how much it was moved; 0 where it was right */
	uint64_t error_ns; /* how far from the right time it is now, at most */
};

/** hf_clock_tsc_is_sound() - Is the counter one to be trusted through a jump? */
bool hf_clock_tsc_is_sound(void);

/**
 * hf_clock_step_find() - By how much a clock has to be moved. Pure; trusts no number.
 * @now: the two clocks now
 * @ret: filled on success; step_ns is 0 when the clock is right within
 *       HF_WALL_CLOCK_MIN_STEP_NS
 *
 * Return: 0; -ENODATA when there is no target; -ERANGE, with a sentence, when it can't be right.
 */
int hf_clock_step_find(const struct hf_wall_clock_target *target, const struct hf_tsc_wall *now,
	struct hf_wall_clock *ret, struct hf_error *error);

/**
 * hf_clock_step_here() - Move this host's clock, by this process.
 *
 * Return: as hf_clock_step_find(); or the -errno of moving it, with a sentence: nothing is moved
 * then.
 */
int hf_clock_step_here(const struct hf_wall_clock_target *target, struct hf_wall_clock *ret,
	struct hf_error *error);
