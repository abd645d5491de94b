/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What is to be done about a guest's wall clock after the blackout. Pure.
 *
 * A guest whose clock went with the host's lags by the blackout now, or by less if its own time
 * service was quick. One whose clock is elsewhere was elsewhere before: it is not ours to set.
 */
#pragma once

#include <stdint.h>

#include "common/cleanup.h"

/* A guest's clock that is nearer to the host's is right. */
#define HF_GUEST_CLOCK_NEAR_NS (50 * HF_NSEC_PER_MSEC)
/* How far from the host's it may have been before. */
#define HF_GUEST_CLOCK_LOOSE_NS (2 * HF_NSEC_PER_SEC)

enum hf_guest_clock_act {
	HF_GUEST_CLOCK_RIGHT, /* nothing */
	HF_GUEST_CLOCK_SET,   /* set it to the host's */
	HF_GUEST_CLOCK_LEAVE, /* it isn't the host's time that it has */
};

/**
 * hf_guest_clock_judge() - Compare the two.
 * @guest_ns:    the guest's, since the epoch; anything
 * @host_ns:     the host's at the same time
 * @blackout_ns: for how long the guest stood still
 * @ret_behind:  how far the guest's is behind; negative: ahead
 */
enum hf_guest_clock_act hf_guest_clock_judge(
	int64_t guest_ns, int64_t host_ns, uint64_t blackout_ns, int64_t *ret_behind);
