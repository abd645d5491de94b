/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The host's wall clock across the jump.
 *
 * A new kernel takes CLOCK_REALTIME from an RTC that knows whole seconds. The time-stamp counter
 * runs on through a kexec: the old agent notes what the clock said at one reading of it, late in
 * the freeze, and the new one, before any guest runs, has the clock moved to where it would be
 * (vmm-glue/clock-step.h), by itself or by its spawner.
 *
 * What is done without: where anything doesn't fit, the clock is left as the kernel has it, as it
 * was before all this, and that is logged.
 */
#pragma once

#include "memfd-preserve/manifest.h"
#include "vmm-glue/clock-step.h"

/** hf_wall_clock_note() - Put the clock into the manifest, if the TSC is one to be trusted. */
void hf_wall_clock_note(struct hf_manifest *m);

/** hf_wall_clock_target() - What the manifest has of it; all zero when it has nothing. */
struct hf_wall_clock_target hf_wall_clock_target(const struct hf_manifest *m);

/**
 * hf_wall_clock_tsc_shift() - What to add to readings of the TSC to compare them with the
 * manifest's.
 *
 * The counter runs on through a kexec, but begins anew when the firmware boots the host. From the
 * wall clock, so it is right to a second or so: for people. 0: it ran on, or nothing is known.
 */
int64_t hf_wall_clock_tsc_shift(const struct hf_manifest *m);

/**
 * hf_wall_clock_log() - Say what became of it.
 * @r:     what moving it returned
 * @error: why it failed
 */
void hf_wall_clock_log(int r, const struct hf_wall_clock *clock, const struct hf_error *error);
