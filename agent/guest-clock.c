/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest-clock.h"

enum hf_guest_clock_act hf_guest_clock_judge(
	int64_t guest_ns, int64_t host_ns, uint64_t blackout_ns, int64_t *ret_behind)
{
	const __int128 near = HF_GUEST_CLOCK_NEAR_NS, loose = HF_GUEST_CLOCK_LOOSE_NS;
	__int128 behind = (__int128)host_ns - guest_ns;

	if (behind > INT64_MAX)
		*ret_behind = INT64_MAX;
	else if (behind < INT64_MIN)
		*ret_behind = INT64_MIN;
	else
		*ret_behind = (int64_t)behind;
	if (behind >= -near && behind <= near)
		return HF_GUEST_CLOCK_RIGHT;
	return behind >= -loose && behind <= (__int128)blackout_ns + loose ? HF_GUEST_CLOCK_SET
									   : HF_GUEST_CLOCK_LEAVE;
}
