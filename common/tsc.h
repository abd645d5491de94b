/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The time-stamp counter, the only clock that runs on through a kexec.
 *
 * CLOCK_MONOTONIC restarts from zero in the new kernel and CLOCK_REALTIME comes back from an RTC
 * with a grain of one second, so every reading that is compared across the jump is a TSC reading.
 * Its frequency is measured against CLOCK_MONOTONIC_RAW, over as long a window as there is.
 */
#pragma once

#include <stdint.h>
#include <x86intrin.h>

/** hf_tsc_now() - Read the counter, after all earlier loads. Unit: TSC ticks. */
static inline uint64_t hf_tsc_now(void)
{
	unsigned int aux;

	return __rdtscp(&aux);
}

/** struct hf_tsc_mark - the same instant on both clocks. */
struct hf_tsc_mark {
	uint64_t tsc;
	uint64_t raw_ns; /* CLOCK_MONOTONIC_RAW */
};

/** hf_tsc_mark() - Take both readings as close together as possible. */
struct hf_tsc_mark hf_tsc_mark(void);

/** struct hf_tsc_wall - the same instant on the counter and on the wall clock. */
struct hf_tsc_wall {
	uint64_t tsc;	  /* 0: not taken */
	uint64_t wall_ns; /* CLOCK_REALTIME, since the epoch */
	uint64_t width;	  /* ticks: the instant is within half of it, on either side of @tsc */
};

/** hf_tsc_wall() - Take both readings as close together as possible: the tightest of several. */
struct hf_tsc_wall hf_tsc_wall(void);

/**
 * hf_tsc_hz() - Frequency in ticks per second, from two marks.
 *
 * Return: the frequency, or 0 when the marks lie less than 1 ms apart.
 */
uint64_t hf_tsc_hz(const struct hf_tsc_mark *from, const struct hf_tsc_mark *to);

/** hf_tsc_to_ns() - Ticks to nanoseconds, without overflow. @hz must not be 0. */
static inline uint64_t hf_tsc_to_ns(uint64_t ticks, uint64_t hz)
{
	return (uint64_t)((unsigned __int128)ticks * 1000000000u / hz);
}

/**
 * hf_tsc_kernel_start() - What the TSC read when the running kernel's clock started.
 * @hz: frequency
 *
 * CLOCK_BOOTTIME counts from the start of the kernel's timekeeping: going back by it from now gives
 * the first instant of this kernel, to the precision of @hz.
 */
uint64_t hf_tsc_kernel_start(uint64_t hz);
