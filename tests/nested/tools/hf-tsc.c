/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: one reading of the TSC and of the monotonic clock, or (hf-tsc wall) of the wall clock
 *
 * Two of them, some time apart, give the TSC's rate; nothing in the kernel's interface does. With
 * the wall clock comes a third number: within how many ticks the two were read.
 */

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

static unsigned long long now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

/* The tightest of many: the machine that runs this may be an emulated one, on a busy host. */
static void print_wall(void)
{
	unsigned long long best = ~0ULL, tsc = 0, ns = 0;

	for (int i = 0; i < 50; i++) {
		unsigned long long before = __rdtsc();
		unsigned long long wall = now_ns(CLOCK_REALTIME);
		unsigned long long width = __rdtsc() - before;

		if (width >= best)
			continue;
		best = width;
		tsc = before + width / 2;
		ns = wall;
	}
	printf("%llu %llu %llu\n", tsc, ns, best);
}

int main(int argc, char **argv)
{
	unsigned long long ns;

	if (argc > 1 && strcmp(argv[1], "wall") == 0) {
		print_wall();
		return 0;
	}
	ns = now_ns(CLOCK_MONOTONIC_RAW);
	printf("%llu %llu\n", (unsigned long long)__rdtsc(), ns);
	return 0;
}
