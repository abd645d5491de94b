/* SPDX-License-Identifier: Apache-2.0 */
#include "common/tsc.h"

#include <time.h>

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

struct hf_tsc_mark hf_tsc_mark(void)
{
	struct hf_tsc_mark best = {0};
	uint64_t best_width = UINT64_MAX;

	/* An interrupt between the readings would spoil the pair: keep the narrowest of a few. */
	for (int i = 0; i < 5; i++) {
		uint64_t before = hf_tsc_now();
		uint64_t ns = clock_ns(CLOCK_MONOTONIC_RAW);
		uint64_t after = hf_tsc_now();

		if (after - before < best_width) {
			best_width = after - before;
			best = (struct hf_tsc_mark){
				.tsc = before + (after - before) / 2, .raw_ns = ns};
		}
	}
	return best;
}

struct hf_tsc_wall hf_tsc_wall(void)
{
	struct hf_tsc_wall best = {.width = UINT64_MAX};

	for (int i = 0; i < 9; i++) {
		uint64_t before = hf_tsc_now();
		uint64_t ns = clock_ns(CLOCK_REALTIME);
		uint64_t after = hf_tsc_now();

		if (after >= before && after - before < best.width)
			best = (struct hf_tsc_wall){.tsc = before + (after - before) / 2,
				.wall_ns = ns,
				.width = after - before};
	}
	return best.tsc ? best : (struct hf_tsc_wall){0};
}

uint64_t hf_tsc_hz(const struct hf_tsc_mark *from, const struct hf_tsc_mark *to)
{
	uint64_t ns = to->raw_ns - from->raw_ns;

	if (to->raw_ns <= from->raw_ns || ns < 1000000 || to->tsc <= from->tsc)
		return 0;
	return (uint64_t)((unsigned __int128)(to->tsc - from->tsc) * 1000000000u / ns);
}

uint64_t hf_tsc_kernel_start(uint64_t hz)
{
	uint64_t up_ns = clock_ns(CLOCK_BOOTTIME);
	uint64_t now = hf_tsc_now();
	uint64_t up = (uint64_t)((unsigned __int128)up_ns * hz / 1000000000u);

	return up < now ? now - up : 0;
}
