/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: By how much the clock is moved after the jump, and when it is left alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "agent/wall-clock.h"

#define HZ 2500000000ULL
#define WALL 1790000000123456789ULL
#define TSC 500000000000ULL
#define SEC HF_NSEC_PER_SEC
#define MS HF_NSEC_PER_MSEC

/* Noted at TSC and WALL; now it is @s seconds later, and the clock is @off behind. */
static int step(uint64_t s, int64_t off, struct hf_wall_clock *ret, struct hf_error *e)
{
	const struct hf_wall_clock_target m = {.hz = HZ, .tsc = TSC, .wall_ns = WALL, .width = 250};
	const struct hf_tsc_wall now = {
		.tsc = TSC + s * HZ, .wall_ns = WALL + s * SEC - (uint64_t)off, .width = 250};

	*ret = (struct hf_wall_clock){0};
	return hf_clock_step_find(&m, &now, ret, e);
}

static void test_moves(void **state)
{
	static const int64_t offs[] = {MS, -(int64_t)MS, 987654321, -987654321, 5 * SEC,
		(int64_t)HF_WALL_CLOCK_MAX_STEP_NS, -(int64_t)HF_WALL_CLOCK_MAX_STEP_NS};
	struct hf_wall_clock c;

	for (size_t i = 0; i < HF_ARRAY_SIZE(offs); i++) {
		assert_int_equal(step(4, offs[i], &c, NULL), 0);
		assert_true(c.known);
		assert_int_equal(c.step_ns, offs[i]);
		/* 250 ticks are 100 ns, and 100 ppm of four seconds 400 µs. */
		assert_int_equal(c.error_ns, 100 + 400000);
	}
}

static void test_right_already(void **state)
{
	static const int64_t offs[] = {0, 1, -1, 999999, -999999};
	struct hf_wall_clock c;

	for (size_t i = 0; i < HF_ARRAY_SIZE(offs); i++) {
		assert_int_equal(step(1, offs[i], &c, NULL), 0);
		assert_true(c.known);
		assert_int_equal(c.step_ns, 0);
		assert_int_equal(c.error_ns, 100 + 100000 + (uint64_t)llabs(offs[i]));
	}
}

static void test_too_far(void **state)
{
	struct hf_wall_clock c;
	struct hf_error e = {0};

	assert_int_equal(step(4, (int64_t)HF_WALL_CLOCK_MAX_STEP_NS + 1, &c, &e), -ERANGE);
	assert_non_null(strstr(e.message, "ten minutes"));
	assert_int_equal(step(4, -(int64_t)HF_WALL_CLOCK_MAX_STEP_NS - 1, &c, &e), -ERANGE);
	assert_false(c.known);
	assert_int_equal(step(3599, SEC, &c, &e), 0);
	assert_int_equal(step(3600, SEC, &c, &e), -ERANGE);
	assert_non_null(strstr(e.message, "an hour"));
}

/* From a manifest that has anything in it, and a clock that says anything. */
static void test_hostile(void **state)
{
	static const uint64_t values[] = {0, 1, 9999999, 10000000, HZ, 100000000000ULL,
		100000000001ULL, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX - 1, UINT64_MAX};
	const size_t n = HF_ARRAY_SIZE(values);
	size_t done = 0;

	for (size_t i = 0; i < n * n * n * n * n; i++) {
		const struct hf_wall_clock_target m = {.hz = values[i % n],
			.tsc = values[i / n % n],
			.wall_ns = values[i / n / n % n],
			.width = i % 7 ? 0 : UINT64_MAX};
		const struct hf_tsc_wall now = {.tsc = values[i / n / n / n % n],
			.wall_ns = values[i / n / n / n / n % n],
			.width = i % 5 ? 0 : UINT64_MAX};
		struct hf_wall_clock c = {0};
		struct hf_error e = {0};
		int r = hf_clock_step_find(&m, &now, &c, &e);

		assert_true(r == 0 || r == -ENODATA || r == -ERANGE);
		assert_int_equal(c.known, r == 0);
		assert_true((uint64_t)llabs(c.step_ns) <= HF_WALL_CLOCK_MAX_STEP_NS);
		assert_int_equal(e.err, r == -ERANGE ? r : 0);
		done += r == 0;
	}
	assert_true(done > 0);
}

static void test_refusals(void **state)
{
	const struct hf_wall_clock_target good = {
		.hz = HZ, .tsc = TSC, .wall_ns = WALL, .width = 250};
	const struct hf_tsc_wall now = {.tsc = TSC + HZ, .wall_ns = WALL, .width = 250};
	struct hf_wall_clock c = {0};
	struct hf_tsc_wall other;
	struct hf_error e = {0};
	struct hf_wall_clock_target m;

	assert_int_equal(hf_clock_step_find(&good, &now, &c, &e), 0);
	assert_int_equal(c.step_ns, SEC);
	/* A manifest of before. */
	m = good;
	m.tsc = 0;
	assert_int_equal(hf_clock_step_find(&m, &now, &c, &e), -ENODATA);
	m = good;
	m.hz = 0;
	assert_int_equal(hf_clock_step_find(&m, &now, &c, &e), -ERANGE);
	assert_non_null(strstr(e.message, "rate"));
	/* Backwards, as after a reset. */
	other = now;
	other.tsc = TSC - 1;
	assert_int_equal(hf_clock_step_find(&good, &other, &c, &e), -ERANGE);
	assert_non_null(strstr(e.message, "run on"));
	/* Something came between the two readings. */
	m = good;
	m.width = HZ / 1000 + 1;
	assert_int_equal(hf_clock_step_find(&m, &now, &c, &e), -ERANGE);
	other = now;
	other.width = HZ / 1000 + 1;
	assert_int_equal(hf_clock_step_find(&good, &other, &c, &e), -ERANGE);
	assert_non_null(strstr(e.message, "exactly"));
}

/* The clock of this very machine: noted, and found to be right. */
static void test_here(void **state)
{
	struct hf_tsc_mark from = hf_tsc_mark(), to;
	struct hf_tsc_wall a = hf_tsc_wall(), b;
	struct hf_wall_clock c = {0};
	struct hf_wall_clock_target m = {0};

	assert_true(a.tsc != 0 && a.wall_ns > 0);
	usleep(200000);
	to = hf_tsc_mark();
	b = hf_tsc_wall();
	m = (struct hf_wall_clock_target){
		.hz = hf_tsc_hz(&from, &to), .tsc = a.tsc, .wall_ns = a.wall_ns, .width = a.width};
	assert_int_equal(hf_clock_step_find(&m, &b, &c, NULL), 0);
	assert_int_equal(c.step_ns, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_right_already),
		cmocka_unit_test(test_too_far),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_here),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
