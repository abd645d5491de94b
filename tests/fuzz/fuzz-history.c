/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Any file in the place of a report, and what a history makes of it.
 *
 * The same report counts twice, so that estimates have something to be the median of. They are
 * times: none is negative, and none better than the worst.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/history.h"
#include "common/json.h"

#define MAX_DEPTH 16 /* as hf_report_load() has it */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of what hf_sample_…() returns; consumed. */
static void check_estimate(struct json_object *estimate)
{
	if (estimate) {
		int64_t median = hf_json_get_int(estimate, "median_ns", -1);
		int64_t worst = hf_json_get_int(estimate, "worst_ns", -1);

		assert(hf_json_get_int(estimate, "updates", 0) > 0);
		assert(median >= 0 && worst >= median);
	}
	json_object_put(estimate);
}

static void check_part(const struct hf_sample *s, const char *uuid)
{
	struct json_object *phases = hf_sample_phases(s, uuid);

	for (size_t i = 0; i < hf_json_array_size(phases); i++) {
		struct json_object *phase = json_object_array_get_idx(phases, i);

		assert(hf_json_get_string(phase, "name", NULL));
		check_estimate(json_object_get(phase));
	}
	json_object_put(phases);
	check_estimate(hf_sample_blackout(s, uuid));
	check_estimate(hf_sample_phase(s, uuid, "jump"));
}

static void check_history(struct json_object *report)
{
	struct json_object *reports[] = {report, report}, *list;
	const struct hf_history h = {.reports = reports, .n = 2};
	struct json_object *guests = hf_json_get_array(report, "guests");
	struct hf_sample s;

	list = hf_history_json(&h);
	assert(hf_json_array_size(list) == 2);
	assert(hf_json_get_int(json_object_array_get_idx(list, 0), "longest_blackout_ns", -1) >= 0);
	json_object_put(list);
	hf_sample_take(&h, hf_json_get_string(report, "carrier", "luo"), &s);
	check_part(&s, NULL);
	for (size_t i = 0; i < hf_json_array_size(guests) && i < 4; i++)
		check_part(
			&s, hf_json_get_string(json_object_array_get_idx(guests, i), "uuid", ""));
	check_estimate(hf_sample_preserve(&s, 1ULL << 40));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_json struct json_object *report = NULL;

	if (hf_json_parse(data, size, MAX_DEPTH, &report) == 0 &&
		hf_history_is_report(report, hf_json_get_string(report, "id", "")))
		check_history(report);
	return 0;
}
