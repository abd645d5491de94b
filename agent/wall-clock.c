/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/wall-clock.h"

#include <string.h>

#include "agent/log.h"

void hf_wall_clock_note(struct hf_manifest *m)
{
	struct hf_tsc_wall now = {0};

	if (hf_clock_tsc_is_sound())
		now = hf_tsc_wall();
	m->clock_tsc = now.tsc;
	m->clock_ns = now.wall_ns;
	m->clock_width = now.width;
}

struct hf_wall_clock_target hf_wall_clock_target(const struct hf_manifest *m)
{
	if (!m->clock_tsc || !m->clock_ns)
		return (struct hf_wall_clock_target){0};
	return (struct hf_wall_clock_target){.tsc = m->clock_tsc,
		.wall_ns = m->clock_ns,
		.width = m->clock_width,
		.hz = m->tsc_hz};
}

int64_t hf_wall_clock_tsc_shift(const struct hf_manifest *m)
{
	struct hf_tsc_wall now = hf_tsc_wall();
	__int128 away, shift;

	if (!m->clock_tsc || !m->tsc_hz || !now.tsc || now.wall_ns < m->clock_ns)
		return 0;
	away = (__int128)(now.wall_ns - m->clock_ns) * m->tsc_hz / HF_NSEC_PER_SEC;
	shift = (__int128)m->clock_tsc + away - now.tsc;
	/* The wall clock is no better than that after a boot. */
	if (shift < 2 * (__int128)m->tsc_hz && shift > -2 * (__int128)m->tsc_hz)
		return 0;
	return (int64_t)shift;
}

void hf_wall_clock_log(int r, const struct hf_wall_clock *clock, const struct hf_error *error)
{
	if (r == -ENODATA)
		hf_log(LOG_NOTICE, NULL,
			"the old kernel's clock did not come over: this one's is what its RTC "
			"says");
	else if (r < 0)
		hf_log(LOG_WARNING, NULL,
			"the host's clock is left as the new kernel has it, right to about a "
			"second: %s",
			error->message);
	else
		hf_log(LOG_NOTICE, NULL,
			"the host's clock was moved by %.3f ms, and is right within %.3f ms",
			(double)clock->step_ns / 1e6, (double)clock->error_ns / 1e6);
}
