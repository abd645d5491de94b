/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/history.h"

#include <stdlib.h>
#include <string.h>

#include "agent/report.h"
#include "common/json.h"

/* ---- reading ---- */

/* What the rest relies on. Whatever else is missing or of another type counts as 0 or "". */
bool hf_history_is_report(struct json_object *report, const char *id)
{
	return strcmp(hf_json_get_string(report, "id", ""), id) == 0 &&
	       hf_json_get_string(report, "outcome", "")[0] && hf_json_get_array(report, "guests");
}

int hf_history_load(struct hf_history *ret)
{
	cleanup_free char(*ids)[HF_UUID_BYTES] = NULL;
	struct hf_history h = {0};
	size_t n = 0;
	int r;

	r = hf_report_ids(&ids, &n);
	if (r < 0)
		return r;
	h.reports = calloc(n ? n : 1, sizeof(*h.reports));
	h.skipped = json_object_new_array();
	if (!h.reports || !h.skipped) {
		hf_history_clear(&h);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		struct json_object *report = NULL;

		r = hf_report_load(ids[i], &report);
		if (r == -ENOENT)
			continue; /* pruned meanwhile */
		if (r == 0 && hf_history_is_report(report, ids[i])) {
			h.reports[h.n++] = report;
			continue;
		}
		json_object_put(report);
		hf_json_append(h.skipped, json_object_new_string(ids[i]));
	}
	*ret = h;
	return 0;
}

void hf_history_clear(struct hf_history *h)
{
	for (size_t i = 0; i < h->n; i++)
		json_object_put(h->reports[i]);
	free(h->reports);
	json_object_put(h->skipped);
	*h = (struct hf_history){0};
}

static int64_t longest_blackout(struct json_object *guests)
{
	int64_t longest = 0;

	for (size_t i = 0; i < hf_json_array_size(guests); i++) {
		int64_t ns =
			hf_json_get_int(json_object_array_get_idx(guests, i), "blackout_ns", 0);

		longest = HF_MAX(longest, ns);
	}
	return longest;
}

static int64_t n_cold_booted(struct json_object *guests)
{
	int64_t n = 0;

	for (size_t i = 0; i < hf_json_array_size(guests); i++)
		n += strcmp(hf_json_get_string(json_object_array_get_idx(guests, i), "outcome", ""),
			     "cold-booted") == 0;
	return n;
}

static struct json_object *summary(struct json_object *report)
{
	static const char *const always[] = {
		"id", "outcome", "carrier", "from_kernel", "to_kernel"};
	struct json_object *guests = hf_json_get_array(report, "guests");
	struct json_object *o = json_object_new_object();

	for (size_t i = 0; i < HF_ARRAY_SIZE(always); i++)
		hf_json_add_string(o, always[i], hf_json_get_string(report, always[i], ""));
	hf_json_add_string(o, "time", hf_json_get_string(report, "time", NULL));
	hf_json_add_string(o, "message", hf_json_get_string(report, "message", NULL));
	hf_json_add_int(o, "guests", (int64_t)hf_json_array_size(guests));
	if (n_cold_booted(guests) > 0)
		hf_json_add_int(o, "cold_booted", n_cold_booted(guests));
	hf_json_add_int(o, "longest_blackout_ns", longest_blackout(guests));
	return o;
}

struct json_object *hf_history_json(const struct hf_history *h)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < h->n; i++)
		hf_json_append(list, summary(h->reports[i]));
	return list;
}

/* ---- estimates ---- */

void hf_sample_take(const struct hf_history *h, const char *carrier, struct hf_sample *ret)
{
	struct hf_sample s = {0};

	for (size_t i = 0; i < h->n && s.n < HF_ARRAY_SIZE(s.reports); i++) {
		struct json_object *report = h->reports[i];

		if (strcmp(hf_json_get_string(report, "outcome", ""), "done") == 0 &&
			strcmp(hf_json_get_string(report, "carrier", ""), carrier) == 0)
			s.reports[s.n++] = report;
	}
	*ret = s;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* A report's numbers can be anything: what is beyond the type would wrap around. */
static int64_t to_ns(double ns)
{
	return ns < (double)INT64_MAX ? (int64_t)(ns + 0.5) : INT64_MAX;
}

/* @values: sorted here. @updates: how many updates they are of. */
static struct json_object *estimate(double *values, size_t n, size_t updates)
{
	struct json_object *o;

	if (n == 0)
		return NULL;
	qsort(values, n, sizeof(*values), by_size);
	o = json_object_new_object();
	hf_json_add_int(o, "updates", (int64_t)updates);
	hf_json_add_int(o, "median_ns", to_ns((values[(n - 1) / 2] + values[n / 2]) / 2));
	hf_json_add_int(o, "worst_ns", to_ns(values[n - 1]));
	return o;
}

/* The host's part of a report, which is the report itself, or a guest's. */
static struct json_object *part_of(struct json_object *report, const char *uuid)
{
	struct json_object *guests = hf_json_get_array(report, "guests");

	if (!uuid)
		return report;
	for (size_t i = 0; i < hf_json_array_size(guests); i++) {
		struct json_object *guest = json_object_array_get_idx(guests, i);

		if (strcmp(hf_json_get_string(guest, "uuid", ""), uuid) == 0)
			return guest;
	}
	return NULL;
}

struct json_object *hf_sample_blackout(const struct hf_sample *s, const char *uuid)
{
	double values[HF_HISTORY_ESTIMATE_FROM];
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++) {
		struct json_object *part = part_of(s->reports[i], uuid);
		int64_t ns = part ? hf_json_get_int(part, "blackout_ns", 0) : 0;

		/* 0: without guests, or of one that was paused, there was none. */
		if (ns > 0)
			values[n++] = (double)ns;
	}
	return estimate(values, n, n);
}

static struct json_object *find_phase(struct json_object *part, const char *name)
{
	struct json_object *phases = part ? hf_json_get_array(part, "phases") : NULL;

	for (size_t i = 0; i < hf_json_array_size(phases); i++) {
		struct json_object *phase = json_object_array_get_idx(phases, i);

		if (strcmp(hf_json_get_string(phase, "name", ""), name) == 0)
			return phase;
	}
	return NULL;
}

struct json_object *hf_sample_phase(const struct hf_sample *s, const char *uuid, const char *name)
{
	double values[HF_HISTORY_ESTIMATE_FROM];
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++) {
		struct json_object *phase = find_phase(part_of(s->reports[i], uuid), name);
		int64_t ns = phase ? hf_json_get_int(phase, "duration_ns", 0) : -1;

		if (ns >= 0)
			values[n++] = (double)ns;
	}
	return estimate(values, n, n);
}

struct json_object *hf_sample_phases(const struct hf_sample *s, const char *uuid)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < s->n; i++) {
		struct json_object *part = part_of(s->reports[i], uuid);
		struct json_object *phases = part ? hf_json_get_array(part, "phases") : NULL;

		for (size_t k = 0; k < hf_json_array_size(phases); k++) {
			const char *name = hf_json_get_string(
				json_object_array_get_idx(phases, k), "name", "");
			bool known = false;
			struct json_object *o;

			for (size_t j = 0; j < hf_json_array_size(list); j++)
				known |= strcmp(hf_json_get_string(
							json_object_array_get_idx(list, j), "name",
							""),
						 name) == 0;
			o = known ? NULL : hf_sample_phase(s, uuid, name);
			if (o)
				hf_json_add_string(o, "name", name);
			hf_json_append(list, o);
		}
	}
	return list;
}

#define MAX_RATES 4096

struct json_object *hf_sample_preserve(const struct hf_sample *s, uint64_t ram_bytes)
{
	cleanup_free double *values = calloc(MAX_RATES, sizeof(*values));
	size_t n = 0, updates = 0;

	for (size_t i = 0; values && i < s->n; i++) {
		struct json_object *guests = hf_json_get_array(s->reports[i], "guests");
		size_t before = n;

		for (size_t k = 0; k < hf_json_array_size(guests) && n < MAX_RATES; k++) {
			struct json_object *guest = json_object_array_get_idx(guests, k);
			int64_t bytes = hf_json_get_int(guest, "ram_bytes", 0);
			int64_t ns = hf_json_get_int(guest, "preserve_ns", 0);

			if (bytes > 0 && ns > 0)
				values[n++] = (double)ns / (double)bytes * (double)ram_bytes;
		}
		updates += n > before;
	}
	return estimate(values, n, updates);
}
