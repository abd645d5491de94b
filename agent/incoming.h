/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: One guest on its way in: retrieve, respawn, load, resume, finish.
 *
 * One chain, started by hf_incoming_start(), ended by exactly one callback, on the loop. After a
 * failure the guest is *held*: its session and whatever was retrieved of it stay open, nothing is
 * freed, until hf_incoming_free(), which must not be called for a held guest but at the very end of
 * the process.
 */
#pragma once

#include "agent/agent.h"
#include "memfd-preserve/manifest.h"
#include "vmm-glue/vmm.h"

enum hf_incoming_step {
	HF_IN_IDLE,
	HF_IN_RETRIEVING,
	HF_IN_LOADING,
	HF_IN_RESUMING,
	HF_IN_FINISHING,
	HF_IN_RESUMED,
	HF_IN_HELD,
	HF_IN_N_,
};

struct hf_incoming;

typedef void (*hf_incoming_done_fn)(
	struct hf_incoming *in, const struct hf_error *error, void *data);

/** hf_incoming_new() - @guest: borrowed from the manifest until hf_incoming_free(). */
int hf_incoming_new(struct hf_agent *agent, struct hf_manifest_guest *guest,
	hf_incoming_done_fn done, void *data, struct hf_incoming **ret);
void hf_incoming_free(struct hf_incoming *in);
void hf_incoming_start(struct hf_incoming *in);

/**
 * hf_incoming_start_with() - The same with files that never left this process: see adopt.h.
 * @ram_fds:   one per guest->ram[]; taken
 * @state_fds: one per guest->state[]; taken
 *
 * There is no session then: a held guest's memory lives in this process alone.
 */
void hf_incoming_start_with(struct hf_incoming *in, int *ram_fds, int *state_fds);

enum hf_incoming_step hf_incoming_get_step(const struct hf_incoming *in);
const char *hf_incoming_step_name(enum hf_incoming_step step);
const struct hf_manifest_guest *hf_incoming_guest(const struct hf_incoming *in);
const struct hf_vmm_stamps *hf_incoming_stamps(const struct hf_incoming *in);
/** hf_incoming_retrieve_ns() - How long the kernel took to give its RAM and state back. */
uint64_t hf_incoming_retrieve_ns(const struct hf_incoming *in);
/** hf_incoming_error() - Why it is held; err is 0 when it is not. */
const struct hf_error *hf_incoming_error(const struct hf_incoming *in);
