/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The updates that there are reports of, and what they let expect of the next one.
 *
 * hf_history_load() reads files of up to 64 MiB altogether and runs in a worker; the rest is pure.
 * A report that can't be read, or is none, is left out and counted by its id. An estimate is the
 * median and the worst of what was measured, nothing else: it does not go by the size of a guest,
 * but for preserving, which is in proportion to RAM. Nothing is estimated from another carrier,
 * nor from updates that did not succeed.
 */
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* So many updates, the newest that fit, are what estimates are made of. */
#define HF_HISTORY_ESTIMATE_FROM 10

/** struct hf_history - reports, the newest first. */
struct hf_history {
	struct json_object **reports; /* UpdateReport objects */
	size_t n;
	struct json_object *skipped; /* array of ids */
};

/** hf_history_load() - Read all there are. Return: 0, hf_history_clear() frees it; or -errno. */
int hf_history_load(struct hf_history *ret);
void hf_history_clear(struct hf_history *history);

/** hf_history_is_report() - Is this, which was in the file of that report, one? */
bool hf_history_is_report(struct json_object *report, const char *id);

/** hf_history_json() - Array of UpdateSummary objects, owned by the caller. */
struct json_object *hf_history_json(const struct hf_history *history);

/** struct hf_sample - the reports that estimates are made of; borrowed from a history. */
struct hf_sample {
	struct json_object *reports[HF_HISTORY_ESTIMATE_FROM];
	size_t n;
};

/** hf_sample_take() - The newest updates that were done, with this carrier. */
void hf_sample_take(const struct hf_history *history, const char *carrier, struct hf_sample *ret);

/**
 * hf_sample_blackout() - How long everything stands still, or one guest does.
 * @uuid: a guest, or NULL for the host: first guest paused to last one running
 *
 * Return: an Estimate, owned by the caller; NULL when no update has it.
 */
struct json_object *hf_sample_blackout(const struct hf_sample *sample, const char *uuid);

/** hf_sample_phase() - One phase of it, likewise. */
struct json_object *hf_sample_phase(
	const struct hf_sample *sample, const char *uuid, const char *phase);

/** hf_sample_phases() - All phases: an array of PhaseEstimate, in the order of the reports. */
struct json_object *hf_sample_phases(const struct hf_sample *sample, const char *uuid);

/**
 * hf_sample_preserve() - How long preserving so much RAM takes.
 *
 * From the time it took for each guest, by the bytes of its RAM. Return: as hf_sample_blackout().
 */
struct json_object *hf_sample_preserve(const struct hf_sample *sample, uint64_t ram_bytes);
