/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: An update on its way out: prepare, commit, and the undo of both.
 *
 * Guests are independent: each runs through its own chain of steps (outgoing.c), all chains at
 * once, and the update only counts those under way. It moves on when the count is back at zero: to
 * the next stage, or, if anything failed meanwhile, to the undo. There is one undo, whatever the
 * cause: every guest is rolled back to how it ran, then its session is discarded, then the host's
 * part.
 *
 * The ways out are two functions of update.c, each called from one place: jump(), and
 * jump_execve() where the agent leaves no kernel.
 */
#pragma once

#include <stddef.h>

#include "agent/agent.h"
#include "agent/config.h"
#include "agent/target.h"
#include "agent/way.h"

/** struct hf_update_request - what a caller asks for; borrowed during the call only. */
struct hf_update_request {
	struct hf_target *target; /* moves into the update; HF_TARGET_NONE where there is no jump */
	struct hf_way way;
	const struct hf_config *config; /* policies; without problems */
	bool commit;			/* go on to the jump when prepared */
	bool keep_loaded; /* the target stays loaded while prepared: see hf_update_load() */
};

/** hf_update_may_prepare() - Does the host's state allow an update to begin? 0 or -errno. */
int hf_update_may_prepare(const struct hf_agent *agent, struct hf_error *error);

/**
 * hf_update_prepare() - Begin: brownout, guests run on.
 * @request: its target has passed hf_check_target()
 * @call: answered when prepared (or, with commit, never: it ends in the jump), or with the error
 *        after the undo. If its client vanishes before the jump, the update is undone.
 *
 * Return: 0 when under way; else -errno, nothing begun and @error says why.
 */
int hf_update_prepare(struct hf_agent *agent, const struct hf_update_request *request,
	struct hf_varlink_call *call, struct hf_error *error);

/**
 * hf_update_commit() - Pause, save, jump. Only when prepared. @call as in hf_update_prepare().
 * @hand_over: don't jump: the service manager does, in a moment. @call is answered when guests are
 *             saved and nothing but the jump is missing; the update is undone when that does not
 *             come.
 */
int hf_update_commit(struct hf_agent *agent, bool hand_over, struct hf_varlink_call *call,
	struct hf_error *error);

/**
 * hf_update_abort() - Undo what there is.
 * @cause: what those who wait for the update are told; NULL: aborted on request
 * @call:  answered when everything is undone; may be NULL
 *
 * Return: 0 when the undo is under way (or was already), -EPERM when there is nothing to undo.
 */
int hf_update_abort(struct hf_agent *agent, const struct hf_error *cause,
	struct hf_varlink_call *call, struct hf_error *error);

/**
 * hf_update_guest_step() - Where a guest is in the update, if it takes part.
 *
 * Return: the step's name, or NULL.
 */
const char *hf_update_guest_step(const struct hf_update *update, const char *uuid);

/** hf_update_is_orderly() - Is it to be committed by a shutdown? See struct hf_update_request. */
bool hf_update_is_orderly(const struct hf_update *update);

/** hf_update_is_handed_over() - Is nothing missing but the jump, which is somebody else's? */
bool hf_update_is_handed_over(const struct hf_update *update);

/** hf_update_manifest() - The manifest as it stands now, borrowed. */
const struct hf_manifest *hf_update_manifest(const struct hf_update *update);
