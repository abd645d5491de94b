/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The host's wall clock across the jump.
 *
 * A new kernel takes CLOCK_REALTIME from an RTC that knows whole seconds. The time-stamp counter
 * runs on through a kexec: the old agent notes what the clock said at one reading of it, late in
 * the freeze, and the new one, before any guest runs, moves the clock to where it would be.
 *
 * What is done without: where anything doesn't fit, the clock is left as the kernel has it, as it
 * was before all this, and that is logged. Nothing here takes more than microseconds.
 */
#pragma once

#include "common/error.h"
#include "common/tsc.h"
#include "memfd-preserve/manifest.h"

/* A clock that is nearer is left alone; one that is farther off is wrong for another reason. */
#define HF_WALL_CLOCK_MIN_STEP_NS HF_NSEC_PER_MSEC
#define HF_WALL_CLOCK_MAX_STEP_NS (600 * HF_NSEC_PER_SEC)
/* No freeze takes longer: the note is of another time. */
#define HF_WALL_CLOCK_MAX_AGE_NS (3600 * HF_NSEC_PER_SEC)
/* How far the TSC's rate, as it was measured, may be from that of true time. */
#define HF_WALL_CLOCK_RATE_PPM 100

/** struct hf_wall_clock - what became of it. */
struct hf_wall_clock {
	bool known;	   /* the right time could be told; the next two are meant */
	int64_t step_ns;   /* by how much it was moved; 0 where it was right */
	uint64_t error_ns; /* how far from the right time it is now, at most */
};

/**
 * hf_wall_clock_step() - By how much a clock has to be moved. Pure; trusts no number.
 * @m:   with what the old agent noted
 * @now: the two clocks now
 * @ret: filled on success; step_ns is 0 when the clock is right within
 *       HF_WALL_CLOCK_MIN_STEP_NS
 *
 * Return: 0; -ENODATA when nothing was noted; -ERANGE, with a sentence, when it can't be right.
 */
int hf_wall_clock_step(const struct hf_manifest *m, const struct hf_tsc_wall *now,
	struct hf_wall_clock *ret, struct hf_error *error);

/** hf_wall_clock_note() - Put the clock into the manifest, if the TSC is one to be trusted. */
void hf_wall_clock_note(struct hf_manifest *m);

/** hf_wall_clock_restore() - Move the clock to where the manifest has it. A failure is logged. */
void hf_wall_clock_restore(const struct hf_manifest *m, struct hf_wall_clock *ret);
