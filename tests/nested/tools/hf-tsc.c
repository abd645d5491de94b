/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: one reading of the TSC and of the monotonic clock
 *
 * Two of them, some time apart, give the TSC's rate; nothing in the kernel's interface does.
 */

#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

int main(void)
{
	struct timespec now;
	unsigned long long tsc;

	clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	tsc = __rdtsc();
	printf("%llu %lld\n", tsc, now.tv_sec * 1000000000LL + now.tv_nsec);
	return 0;
}
