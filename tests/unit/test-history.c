/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Which reports are kept, which are read, and what is estimated from them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/history.h"
#include "agent/report.h"
#include "common/json.h"

#define GIB (1LL << 30)
#define MIB (1LL << 20)

static char dir[64];

static int set_up(void **state)
{
	char path[96];

	strcpy(dir, "/tmp/hf-test-history-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	setenv("HOLDFAST_STATE_DIR", dir, 1);
	snprintf(path, sizeof(path), "%s/reports", dir);
	return mkdir(path, 0755);
}

static int tear_down(void **state)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

static const char *id_of(unsigned int n)
{
	static char ids[8][HF_UUID_BYTES];
	static unsigned int next;
	char *id = ids[next++ % 8];

	snprintf(id, HF_UUID_BYTES, "%08x-0000-4000-8000-000000000000", n);
	return id;
}

/* A report file that is @n seconds younger than number 0. */
static void put(unsigned int n, const char *text, off_t size)
{
	const struct timespec times[2] = {{.tv_sec = 1000000000 + n}, {.tv_sec = 1000000000 + n}};
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/reports/%s.json", dir, id_of(n));
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	if (size)
		assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(futimens(fd, times), 0);
	close(fd);
}

static bool is_kept(unsigned int n)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/reports/%s.json", dir, id_of(n));
	return access(path, F_OK) == 0;
}

/* One guest "a" with these figures, and the host with the same blackout and a phase `jump`. */
static void put_update(unsigned int n, const char *outcome, const char *carrier, int64_t blackout,
	int64_t ram, int64_t preserve)
{
	char text[1024];

	snprintf(text, sizeof(text),
		"{\"id\": \"%s\", \"time\": \"2026-01-01T00:00:%02uZ\", \"outcome\": \"%s\", "
		"\"carrier\": \"%s\", \"from_kernel\": \"7.2\", \"to_kernel\": \"7.3\", "
		"\"blackout_ns\": %lld, \"phases\": [{\"name\": \"jump\", \"duration_ns\": %lld}], "
		"\"guests\": [{\"uuid\": \"a\", \"blackout_ns\": %lld, \"ram_bytes\": %lld, "
		"\"preserve_ns\": %lld, \"phases\": [{\"name\": \"load\", \"duration_ns\": %lld}, "
		"{\"name\": \"resume\", \"duration_ns\": 5}]}]}",
		id_of(n), n % 60, outcome, carrier, (long long)blackout, (long long)blackout / 2,
		(long long)blackout, (long long)ram, (long long)preserve, (long long)blackout / 10);
	put(n, text, 0);
}

static void roll_back(unsigned int n)
{
	struct hf_agent agent = {0};
	struct hf_error cause = {0};
	struct hf_manifest m = {0};

	snprintf(m.update_id, sizeof(m.update_id), "%s", id_of(n));
	hf_error_set(&cause, -EIO, HF_ERR_FAILED, NULL, "it broke");
	hf_report_rolled_back(&agent, &m, &cause);
}

static void test_list(void **state)
{
	struct hf_history h;
	struct json_object *list, *o;

	assert_int_equal(hf_history_load(&h), 0);
	assert_int_equal(h.n, 0);
	hf_history_clear(&h);
	put_update(3, "done", "luo", 300, GIB, 10);
	put_update(1, "degraded", "luo", 100, GIB, 10);
	put(2, "{\"id\": ", 0);						     /* cut */
	put(4, "{}", 0);						     /* no report */
	put(5, "{\"id\": \"x\", \"outcome\": \"done\", \"guests\": []}", 0); /* another's name */
	put(6, "", 17 * MIB);						     /* too large */
	roll_back(7);
	assert_int_equal(hf_history_load(&h), 0);
	assert_int_equal(h.n, 3);
	assert_int_equal(hf_json_array_size(h.skipped), 4);
	assert_string_equal(
		json_object_get_string(json_object_array_get_idx(h.skipped, 0)), id_of(6));
	list = hf_history_json(&h);
	assert_int_equal(hf_json_array_size(list), 3);
	/* The newest first; this one was written now, and says so. */
	o = json_object_array_get_idx(list, 0);
	assert_string_equal(hf_json_get_string(o, "id", ""), id_of(7));
	assert_string_equal(hf_json_get_string(o, "message", ""), "it broke");
	assert_int_equal(strlen(hf_json_get_string(o, "time", "")), strlen("2026-01-01T00:00:00Z"));
	assert_int_equal(hf_json_get_int(o, "longest_blackout_ns", -1), 0);
	o = json_object_array_get_idx(list, 1);
	assert_string_equal(hf_json_get_string(o, "id", ""), id_of(3));
	assert_string_equal(hf_json_get_string(o, "time", ""), "2026-01-01T00:00:03Z");
	assert_string_equal(hf_json_get_string(o, "to_kernel", ""), "7.3");
	assert_int_equal(hf_json_get_int(o, "guests", 0), 1);
	assert_int_equal(hf_json_get_int(o, "longest_blackout_ns", 0), 300);
	o = json_object_array_get_idx(list, 2);
	assert_string_equal(hf_json_get_string(o, "outcome", ""), "degraded");
	json_object_put(list);
	hf_history_clear(&h);
}

static void test_bounds(void **state)
{
	/* By number: the oldest go. */
	for (unsigned int i = 0; i < 203; i++)
		put(i, "{}", 0);
	roll_back(1000);
	assert_false(is_kept(0) || is_kept(3));
	assert_true(is_kept(4) && is_kept(202) && is_kept(1000));
	/* By size: four of 15 MiB fit beside a small one, and those behind go, whatever they are.
	 */
	for (unsigned int i = 300; i < 305; i++)
		put(i, "{}", 15 * MIB);
	roll_back(1001);
	assert_true(is_kept(1000) && is_kept(1001) && is_kept(304) && is_kept(301));
	assert_false(is_kept(300));
}

static struct hf_sample sample(const struct hf_history *h)
{
	struct hf_sample s;

	hf_sample_take(h, "luo", &s);
	return s;
}

static void expect(struct json_object *estimate, int64_t updates, int64_t median, int64_t worst)
{
	assert_int_equal(hf_json_get_int(estimate, "updates", -1), updates);
	assert_int_equal(hf_json_get_int(estimate, "median_ns", -1), median);
	assert_int_equal(hf_json_get_int(estimate, "worst_ns", -1), worst);
	json_object_put(estimate);
}

static void test_estimates(void **state)
{
	struct json_object *phases;
	struct hf_history h;
	struct hf_sample s;

	put_update(1, "done", "luo", 1000, GIB, 10);
	put_update(2, "done", "hold", 7000000, GIB, 7000000); /* another carrier */
	put_update(3, "degraded", "luo", 7000000, GIB, 7000000);
	put_update(4, "rolled-back", "luo", 7000000, GIB, 7000000);
	put_update(5, "done", "luo", 3000, 2 * GIB, 60);
	assert_int_equal(hf_history_load(&h), 0);
	s = sample(&h);
	assert_int_equal(s.n, 2);
	/* Of two, the mean. */
	expect(hf_sample_blackout(&s, NULL), 2, 2000, 3000);
	expect(hf_sample_blackout(&s, "a"), 2, 2000, 3000);
	expect(hf_sample_phase(&s, NULL, "jump"), 2, 1000, 1500);
	assert_null(hf_sample_blackout(&s, "b"));
	assert_null(hf_sample_phase(&s, NULL, "boot"));
	/* 10 and 30 ns a GiB. */
	expect(hf_sample_preserve(&s, 4 * GIB), 2, 80, 120);
	expect(hf_sample_preserve(&s, GIB / 2), 2, 10, 15);
	phases = hf_sample_phases(&s, "a");
	assert_int_equal(hf_json_array_size(phases), 2);
	assert_string_equal(
		hf_json_get_string(json_object_array_get_idx(phases, 0), "name", ""), "load");
	expect(json_object_get(json_object_array_get_idx(phases, 0)), 2, 200, 300);
	expect(json_object_get(json_object_array_get_idx(phases, 1)), 2, 5, 5);
	json_object_put(phases);
	hf_history_clear(&h);

	/* Three: the one in the middle. One without a blackout is none of them. */
	put_update(6, "done", "luo", 100, GIB, 0);
	put_update(7, "done", "luo", 0, GIB, 20);
	assert_int_equal(hf_history_load(&h), 0);
	s = sample(&h);
	expect(hf_sample_blackout(&s, "a"), 3, 1000, 3000);
	expect(hf_sample_preserve(&s, GIB), 3, 20, 30);
	hf_history_clear(&h);

	/* The newest ten only. */
	for (unsigned int i = 10; i < 20; i++)
		put_update(i, "done", "luo", 500, GIB, 10);
	assert_int_equal(hf_history_load(&h), 0);
	s = sample(&h);
	expect(hf_sample_blackout(&s, NULL), 10, 500, 500);
	hf_history_clear(&h);
}

static void test_no_history(void **state)
{
	struct json_object *phases;
	struct hf_history h;
	struct hf_sample s;

	assert_int_equal(hf_history_load(&h), 0);
	s = sample(&h);
	assert_int_equal(s.n, 0);
	assert_null(hf_sample_blackout(&s, NULL));
	assert_null(hf_sample_preserve(&s, GIB));
	phases = hf_sample_phases(&s, NULL);
	assert_int_equal(hf_json_array_size(phases), 0);
	json_object_put(phases);
	hf_history_clear(&h);
}

/* Reports that are JSON, but nonsense. */
static void test_nonsense(void **state)
{
	struct hf_history h;
	struct hf_sample s;
	char text[512];

	snprintf(text, sizeof(text),
		"{\"id\": \"%s\", \"outcome\": \"done\", \"carrier\": \"luo\", \"blackout_ns\": "
		"\"x\", "
		"\"phases\": [1, {\"name\": 2}, null], \"guests\": [null, 7, {\"uuid\": 1, "
		"\"ram_bytes\": -5, \"preserve_ns\": 9, \"blackout_ns\": -7, \"phases\": {}}]}",
		id_of(1));
	put(1, text, 0);
	assert_int_equal(hf_history_load(&h), 0);
	assert_int_equal(h.n, 1);
	json_object_put(hf_history_json(&h));
	s = sample(&h);
	assert_null(hf_sample_blackout(&s, NULL));
	assert_null(hf_sample_blackout(&s, "a"));
	assert_null(hf_sample_preserve(&s, GIB));
	json_object_put(hf_sample_phases(&s, NULL));
	hf_history_clear(&h);
}

static void test_cold_booted(void **state)
{
	struct json_object *list, *o;
	struct hf_history h;
	char text[512];

	snprintf(text, sizeof(text),
		"{\"id\": \"%s\", \"outcome\": \"done\", \"guests\": [{\"outcome\": "
		"\"cold-booted\"}, {\"outcome\": \"resumed\"}, {\"outcome\": \"cold-booted\"}]}",
		id_of(2));
	put(2, text, 0);
	put_update(1, "done", "luo", 100, GIB, 10);
	assert_int_equal(hf_history_load(&h), 0);
	list = hf_history_json(&h);
	o = json_object_array_get_idx(list, 0);
	assert_int_equal(hf_json_get_int(o, "guests", 0), 3);
	assert_int_equal(hf_json_get_int(o, "cold_booted", 0), 2);
	o = json_object_array_get_idx(list, 1);
	assert_null(json_object_object_get(o, "cold_booted"));
	json_object_put(list);
	hf_history_clear(&h);
}

/* Numbers that are no times, or too large for one. */
static void test_odd_numbers(void **state)
{
	struct json_object *estimate;
	struct hf_history h;
	struct hf_sample s;

	put_update(1, "done", "luo", INT64_MAX, 1, INT64_MAX);
	assert_int_equal(hf_history_load(&h), 0);
	s = sample(&h);
	estimate = hf_sample_blackout(&s, NULL);
	assert_true(hf_json_get_int(estimate, "median_ns", 0) == INT64_MAX);
	assert_true(hf_json_get_int(estimate, "worst_ns", 0) == INT64_MAX);
	json_object_put(estimate);
	estimate = hf_sample_preserve(&s, 1ULL << 50);
	assert_true(hf_json_get_int(estimate, "worst_ns", 0) == INT64_MAX);
	json_object_put(estimate);
	hf_history_clear(&h);

	put_update(1, "done", "luo", -20, GIB, 10);
	assert_int_equal(hf_history_load(&h), 0);
	s = sample(&h);
	assert_null(hf_sample_phase(&s, NULL, "jump"));
	hf_history_clear(&h);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_list),
		TEST(test_bounds),
		TEST(test_estimates),
		TEST(test_no_history),
		TEST(test_nonsense),
		TEST(test_cold_booted),
		TEST(test_odd_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
