/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Reports: phases add up to the blackout; reports are kept, found and refused by id. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/report.h"
#include "common/json.h"

#define HZ 1000000000ULL /* one tick is a nanosecond */

static void test_phases_add_up(void **state)
{
	const struct hf_manifest_guest g = {.tsc_pause = 100, .tsc_paused = 110, .tsc_saved = 130};
	const struct hf_vmm_stamps up = {
		.spawn = 900, .ready = 1500, .loaded = 1700, .resumed = 1750};
	static const struct {
		const char *name;
		int64_t ns;
	} want[] = {{"pause", 10}, {"save", 20}, {"jump", 370}, {"boot", 300}, {"agent", 100},
		{"vmm-start", 600}, {"load", 200}, {"resume", 50}};
	struct json_object *phases;
	uint64_t total = 0;
	int64_t sum = 0;

	phases = hf_report_phases(&g, &up, 500, 800, HZ, &total);
	assert_int_equal(hf_json_array_size(phases), HF_ARRAY_SIZE(want));
	for (size_t i = 0; i < HF_ARRAY_SIZE(want); i++) {
		struct json_object *p = json_object_array_get_idx(phases, i);

		assert_string_equal(hf_json_get_string(p, "name", ""), want[i].name);
		assert_int_equal(hf_json_get_int(p, "duration_ns", -1), want[i].ns);
		sum += want[i].ns;
	}
	assert_int_equal(total, sum);
	json_object_put(phases);
}

/* A guest that never came up: what was not reached is not made up. */
static void test_phases_of_held_guest(void **state)
{
	const struct hf_manifest_guest g = {.tsc_pause = 100, .tsc_paused = 110, .tsc_saved = 130};
	const struct hf_vmm_stamps up = {.spawn = 900};
	uint64_t total = 1;
	struct json_object *phases = hf_report_phases(&g, &up, 500, 800, HZ, &total);

	assert_int_equal(hf_json_array_size(phases), 5);
	assert_int_equal(total, 0);
	json_object_put(phases);
}

static void test_store_and_load(void **state)
{
	char dir[] = "/tmp/hf-test-report-XXXXXX";
	struct hf_agent agent = {0};
	struct hf_error cause = {0};
	struct hf_manifest m = {.update_id = "01234567-89ab-4cde-8f01-23456789abcd"};
	struct json_object *report = NULL;
	char id[HF_UUID_BYTES];
	char cmd[128];

	assert_non_null(mkdtemp(dir));
	setenv("HOLDFAST_STATE_DIR", dir, 1);
	assert_int_equal(hf_report_load(NULL, &report), -ENOENT);
	hf_error_set(&cause, -EIO, HF_ERR_FAILED, NULL, "it broke");
	hf_report_rolled_back(&agent, &m, &cause);
	assert_int_equal(hf_report_newest_id(id), 0);
	assert_string_equal(id, m.update_id);
	assert_int_equal(hf_report_load(NULL, &report), 0);
	assert_string_equal(hf_json_get_string(report, "outcome", ""), "rolled-back");
	assert_string_equal(hf_json_get_string(report, "message", ""), "it broke");
	json_object_put(report);
	assert_int_equal(hf_report_load("../../../../etc/passwd", &report), -EINVAL);
	assert_int_equal(hf_report_load("01234567-89ab-4cde-8f01-23456789abce", &report), -ENOENT);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_phases_add_up),
		cmocka_unit_test(test_phases_of_held_guest),
		cmocka_unit_test(test_store_and_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
