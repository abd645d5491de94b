/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: An update on its way in: the new kernel's first minutes.
 *
 * Found at start: if the carrier has our manifest, this is the new kernel (or, with hold, the new
 * process). A *local* one is the end of an adoption, of this agent or of one that died: one guest,
 * in agent->kept. Every guest then goes through its own chain (incoming.c), all at once, and ends
 * resumed or held. None waits for another, unless that has a higher priority. While sessions are
 * retrieved, the files the VMMs start from are read into the page cache.
 *
 * A held guest keeps its session and its RAM fds open in this process; the host is `degraded` until
 * an operator has had every one of them resumed or released.
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
 * Called once, when a local arrival is over or its guest is held for the first time. @stamps: of
 * the guest, on success. @error: why it is held; then an operator decides as about any other.
 */
typedef void (*hf_arrival_local_fn)(
	void *data, const struct hf_vmm_stamps *stamps, const struct hf_error *error);

/**
 * hf_arrival_new_local() - An arrival of the guest that agent->kept has: see adopt-keep.h.
 * @ret: ends with one of the two below
 *
 * Nothing has changed yet, but whatever can fail is done here, before the guest's old QEMU ends:
 * what the next agent would find is read back. Return: 0 or -errno.
 */
int hf_arrival_new_local(struct hf_agent *agent, hf_arrival_local_fn done, void *data,
	struct hf_arrival **ret, struct hf_error *error);

/** hf_arrival_drop_local() - It doesn't come to that. NULL is fine. */
void hf_arrival_drop_local(struct hf_arrival *arrival);

/** hf_arrival_run_local() - Its old QEMU has ended: bring it up. The host is `resuming`. */
void hf_arrival_run_local(struct hf_arrival *arrival);

/** hf_arrival_tsc_shift() - As hf_wall_clock_tsc_shift(). */
int64_t hf_arrival_tsc_shift(const struct hf_arrival *arrival);

/** hf_arrival_manifest() - The manifest that came over; NULL when it could not be read. */
const struct hf_manifest *hf_arrival_manifest(const struct hf_arrival *arrival);

/** hf_arrival_guest_step() - Where a guest is: its step's name, or NULL when it did not come over.
 */
const char *hf_arrival_guest_step(const struct hf_arrival *arrival, const char *uuid);

/** hf_arrival_guest_error() - Why a guest is held; NULL when it is not. */
const struct hf_error *hf_arrival_guest_error(const struct hf_arrival *arrival, const char *uuid);

struct hf_retry_how;

/** Called when what was asked for a held guest has ended. @error is NULL on success. */
typedef void (*hf_arrival_done_fn)(const struct hf_error *error, void *data);

/**
 * hf_arrival_retry() - Try once more to bring a held guest up.
 * @id:   its uuid or name
 * @how:  as of hf_incoming_retry()
 * @done: called on the loop, once, when 0 was returned. When the last held guest is resumed, the
 *        host is `normal` by then.
 *
 * Return: 0 when it is under way; -errno with @error filled.
 */
int hf_arrival_retry(struct hf_agent *agent, const char *id, const struct hf_retry_how *how,
	hf_arrival_done_fn done, void *data, struct hf_error *error);

/** hf_arrival_release() - Give a held guest up: its RAM is freed. As hf_arrival_retry(). */
int hf_arrival_release(struct hf_agent *agent, const char *id, hf_arrival_done_fn done, void *data,
	struct hf_error *error);

struct hf_incoming;

/**
 * hf_arrival_find() - A guest that came over.
 * @id:  its uuid or name
 * @ret: borrowed: as long as it is held, or something is under way with it
 *
 * Return: 0; -ENOENT when there is none, with @error filled.
 */
int hf_arrival_find(const struct hf_agent *agent, const char *id, struct hf_incoming **ret,
	struct hf_error *error);

/** hf_arrival_keeps_libvirt() - Are there domains of libvirt's that neither run nor are held yet?
 */
bool hf_arrival_keeps_libvirt(const struct hf_arrival *arrival);

/**
 * hf_arrival_may_leave() - May the agent end, for the next one to begin this arrival anew?
 *
 * As long as the manifest was not read, and so nothing else retrieved: images outlive the agent,
 * and this kernel; a manifest that came over is with the keeper, and guests are with it or the
 * kernel. After that guests' memory is in the files of this process.
 */
bool hf_arrival_may_leave(const struct hf_arrival *arrival);
