/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What an update did and how long each part of it took.
 *
 * A report is the JSON object UpdateReport of the Varlink interface, kept as one file per update
 * under /var/lib/holdfast/reports, the newest 200 of them, as long as
 * they have no more than 64 MiB together. Durations come from TSC readings, those
 * of the old kernel by way of the manifest: no other clock runs on through the jump.
 */
#pragma once

#include <json-c/json.h>

#include "agent/agent.h"
#include "agent/incoming.h"
#include "agent/wall-clock.h"
#include "memfd-preserve/manifest.h"

/** struct hf_report_arrival - all that is known when every guest is accounted for. Borrowed. */
struct hf_report_arrival {
	const struct hf_manifest *manifest;
	int64_t tsc_shift; /* from readings of this boot to the manifest's */
	struct hf_incoming **guests;
	size_t n_guests;
	uint64_t readahead_bytes;
	uint64_t readahead_ns;
	struct hf_wall_clock clock; /* the host's */
};

/** hf_report_arrived() - Write the report of an update that jumped. A failure is logged. */
void hf_report_arrived(struct hf_agent *agent, const struct hf_report_arrival *arrival);

/** hf_report_rolled_back() - Write the report of an update that did not. A failure is logged. */
void hf_report_rolled_back(
	struct hf_agent *agent, const struct hf_manifest *manifest, const struct hf_error *cause);

/**
 * hf_report_amend_domain() - Put into the newest report what became of a domain that libvirt saved.
 * @domain: a SavedDomain, borrowed; one that is not in that report is not added
 */
void hf_report_amend_domain(struct hf_agent *agent, struct json_object *domain);

/**
 * hf_report_load() - Read a report back.
 * @id:  an update's id, or NULL for the newest
 * @ret: the object, owned by the caller
 *
 * Return: 0; -ENOENT when there is none; -EINVAL when @id is no id; -EBADMSG when it is damaged.
 */
int hf_report_load(const char *id, struct json_object **ret);

/**
 * hf_report_ids() - Ids of all reports that are kept, the newest first.
 * @ret_ids: free() it
 *
 * Return: 0, also when there are none; -errno.
 */
int hf_report_ids(char (**ret_ids)[HF_UUID_BYTES], size_t *ret_n);

/** hf_report_newest_id() - Return: 0 or -ENOENT. */
int hf_report_newest_id(char ret_id[HF_UUID_BYTES]);

/**
 * hf_report_phases() - The blackout of one guest, phase by phase; pure.
 * @g:            its description, with the stamps of the old kernel
 * @up:           its stamps of the new one
 * @kernel_start: TSC at the start of the new kernel's clock; 0 when there was no new kernel
 * @agent_start:  TSC at the start of the new agent
 * @hz:           TSC frequency
 * @ret_total_ns: their sum: pause asked for to guest running
 *
 * Return: array of Phase objects (pause, save, jump, boot, agent, vmm-start, load, resume), owned
 * by the caller. Phases whose ends were not reached are left out.
 */
struct json_object *hf_report_phases(const struct hf_manifest_guest *g,
	const struct hf_vmm_stamps *up, uint64_t kernel_start, uint64_t agent_start, uint64_t hz,
	uint64_t *ret_total_ns);
