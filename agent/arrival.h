/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: An update on its way in: the new kernel's first minutes.
 *
 * Found at start: if the carrier has our manifest, this is the new kernel (or, with hold, the new
 * process). Every guest then goes through its own chain (incoming.c), all at once, and ends resumed
 * or held; none waits for another. While sessions are retrieved, the files the VMMs start from are
 * read into the page cache.
 *
 * A held guest keeps its session and its RAM fds open in this process; the host is `degraded`.
 */
#pragma once

#include "agent/agent.h"
#include "memfd-preserve/manifest.h"
#include "vmm-glue/vmm.h"

/**
 * hf_arrival_start() - See whether guests came over, and bring them up.
 * @readahead: read the VMMs' files ahead (off only to measure what it brings)
 *
 * Return: 1 when an update has arrived, 0 when this is a normal start, -errno when it can't be told
 * or the manifest can't be read: then the agent must stay up, in state `degraded`, and @error says
 * why.
 */
int hf_arrival_start(struct hf_agent *agent, bool readahead, struct hf_error *error);

/**
 * Called when a local arrival is over. @stamps: of its guest, on success. @error: why it is held.
 */
typedef void (*hf_arrival_done_fn)(
	void *data, const struct hf_vmm_stamps *stamps, const struct hf_error *error);

/**
 * hf_arrival_new_local() - An arrival of one guest that never left this process: see adopt.h.
 * @manifest: with that guest alone; taken on success only
 *
 * From here on the host is `resuming`, or it failed and nothing has changed: whatever can fail is
 * done here, before the guest's old QEMU ends. Return: 0 or -errno.
 */
int hf_arrival_new_local(struct hf_agent *agent, struct hf_manifest *manifest,
	hf_arrival_done_fn done, void *data, struct hf_error *error);

/** hf_arrival_run_local() - Bring it up, from files that are taken: hf_incoming_start_with(). */
void hf_arrival_run_local(struct hf_arrival *arrival, int *ram_fds, int *state_fds);

/** hf_arrival_manifest() - The manifest that came over; NULL when it could not be read. */
const struct hf_manifest *hf_arrival_manifest(const struct hf_arrival *arrival);

/** hf_arrival_guest_step() - Where a guest is: its step's name, or NULL when it did not come over.
 */
const char *hf_arrival_guest_step(const struct hf_arrival *arrival, const char *uuid);

/** hf_arrival_guest_error() - Why a guest is held; NULL when it is not. */
const struct hf_error *hf_arrival_guest_error(const struct hf_arrival *arrival, const char *uuid);
