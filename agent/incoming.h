/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: One guest on its way in: retrieve, respawn, load, resume, see that it is well, finish.
 *
 * One chain, started by hf_incoming_start(), ended by exactly one callback, on the loop. Between
 * retrieve and respawn it waits for hf_incoming_go(): guests with a higher priority go first. When
 * this guest is out of the way of others, because it runs or can't be brought up, `passed` is
 * called, once, before the chain's end. A guest that can't be loaded is started afresh if that is
 * its policy, and what is kept of it given up when it runs (`cold-booted`). After any other failure
 * the guest is *held*: its session and whatever was retrieved of it stay open, nothing is freed,
 * until an operator has it tried again (which ends in the same callback) or gives it up, or until
 * hf_incoming_free(), which must not be called for a held guest but at the very end of the process.
 *
 * A guest that was let run is never loaded again, by nobody: its device state is of the past. A
 * retry of such a guest goes on with the process that it runs in, if that is still there.
 */
#pragma once

#include "agent/agent.h"
#include "agent/health.h"
#include "memfd-preserve/manifest.h"
#include "vmm-glue/vmm.h"

enum hf_incoming_step {
	HF_IN_IDLE,
	HF_IN_RETRIEVING,
	HF_IN_WAITING,
	HF_IN_LOADING,
	HF_IN_RESUMING,
	HF_IN_CHECKING,
	HF_IN_FINISHING,
	HF_IN_COLD_BOOTING,
	HF_IN_RESUMED,
	HF_IN_COLD_BOOTED,
	HF_IN_HELD,
	HF_IN_RELEASING,
	HF_IN_RELEASED,
	HF_IN_N_,
};

struct hf_incoming;

typedef void (*hf_incoming_done_fn)(
	struct hf_incoming *in, const struct hf_error *error, void *data);

typedef void (*hf_incoming_passed_fn)(struct hf_incoming *in, void *data);

/**
 * hf_incoming_new() - A guest that waits in a carrier.
 * @carrier: borrowed until hf_incoming_free(), as is @guest of the manifest
 * @passed:  called once, when it is out of the way of others
 * @done:    called at the end of the chain, and of each attempt to retry or to release it
 *
 * Return: 0 or -errno.
 */
int hf_incoming_new(struct hf_agent *agent, struct hf_carrier *carrier,
	struct hf_manifest_guest *guest, hf_incoming_passed_fn passed, hf_incoming_done_fn done,
	void *data, struct hf_incoming **ret);

/** hf_incoming_free() - What is kept of it stays open till the process ends. NULL is fine. */
void hf_incoming_free(struct hf_incoming *in);

/** hf_incoming_start() - Start the chain, once. It may end in its callback before this returns. */
void hf_incoming_start(struct hf_incoming *in);

/** hf_incoming_go() - Let it be respawned as soon as it can. Once more does nothing. */
void hf_incoming_go(struct hf_incoming *in);

/** hf_incoming_has_passed() - Whether it is out of the way: `passed` has been called, or is being.
 */
bool hf_incoming_has_passed(const struct hf_incoming *in);

/** hf_incoming_may_act() - Is it held, and nobody busy with it? Return: 0 or -errno, @error filled.
 */
int hf_incoming_may_act(const struct hf_incoming *in, struct hf_error *error);

/** struct hf_retry_how - what an operator wants to be different this time. */
struct hf_retry_how {
	const char *vmm;   /* absolute path of another VMM binary for it, or NULL */
	bool ignore_disks; /* that were written to after it was saved */
};

/**
 * hf_incoming_retry() - Try once more to bring a held guest up.
 *
 * Ends in the callback of hf_incoming_new(), as the first attempt did. When it fails, the guest is
 * held as before, for a reason that may be another one. Return: 0 when it is under way; -errno with
 * @error filled.
 */
int hf_incoming_retry(
	struct hf_incoming *in, const struct hf_retry_how *how, struct hf_error *error);

/** hf_incoming_may_release() - Can it be given up? Return: 0 or -errno, @error filled. */
int hf_incoming_may_release(const struct hf_incoming *in, struct hf_error *error);

/**
 * hf_incoming_release() - Give a held guest up: its RAM is freed. IRREVERSIBLE.
 *
 * Noted in the resume journal before. Ends in the callback of hf_incoming_new(); after a failure
 * the guest is held as before. Return: 0 when it is under way; -errno with @error filled.
 */
int hf_incoming_release(struct hf_incoming *in, struct hf_error *error);

/**
 * hf_incoming_begin_dump() - Have a held guest's files read; nothing else is done with it
 * meanwhile.
 *
 * Return: 0, and hf_incoming_end_dump() has to follow; -errno with @error filled.
 */
int hf_incoming_begin_dump(struct hf_incoming *in, struct hf_error *error);
void hf_incoming_end_dump(struct hf_incoming *in);

/**
 * hf_incoming_open_files() - Between the two, in a worker: see that its files are here.
 * @ret_ram:      one a block of its description, borrowed
 * @ret_state:    one a chunk, borrowed; NULL when its device state can't be had
 * @ret_ran:      whether it was let run: its device state is then older than its RAM
 *
 * Return: 0; -errno with @error filled when its RAM can't be had, or a process has it.
 */
int hf_incoming_open_files(struct hf_incoming *in, const int **ret_ram, const int **ret_state,
	bool *ret_ran, struct hf_error *error);

/** hf_incoming_get_step() - Where it is. */
enum hf_incoming_step hf_incoming_get_step(const struct hf_incoming *in);

/** hf_incoming_is_up() - Whether it runs and its chain has ended: resumed or cold-booted. */
bool hf_incoming_is_up(const struct hf_incoming *in);

/** hf_incoming_step_name() - A step's name on the Varlink interface. */
const char *hf_incoming_step_name(enum hf_incoming_step step);

/** hf_incoming_guest() - Its description in the manifest. Borrowed. */
const struct hf_manifest_guest *hf_incoming_guest(const struct hf_incoming *in);

/** hf_incoming_stamps() - When it got how far, see vmm.h. Borrowed; filled as it goes on. */
const struct hf_vmm_stamps *hf_incoming_stamps(const struct hf_incoming *in);

/** hf_incoming_retrieve_ns() - How long the kernel took to give its RAM and state back. */
uint64_t hf_incoming_retrieve_ns(const struct hf_incoming *in);
/** hf_incoming_error() - Why it is held, or was started afresh; err is 0 when it is neither. */
const struct hf_error *hf_incoming_error(const struct hf_incoming *in);
/** hf_incoming_health() - Whether it came over well, and its clock: see health.h. */
const struct hf_health_result *hf_incoming_health(const struct hf_incoming *in);
