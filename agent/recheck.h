/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A guest that came over with an update, but not well, is looked at once more.
 *
 * It runs, and goes on running whatever comes out. It goes through the gate (health.h) as after the
 * jump, with the policies of now: so an operator can mend the guest, or its health-command, and
 * have the note of it taken away. What has to be known of the update (whether its agent answered
 * before, for how long it stood still) is in that note, which outlives the agent.
 *
 * One guest at a time. Its monitor is in use meanwhile: no update begins, and a survey leaves it
 * out.
 */
#pragma once

#include "agent/agent.h"

struct hf_recheck;

/** typedef hf_recheck_done_fn - Called once, on the loop. @error: why it is not well; NULL: it is.
 */
typedef void (*hf_recheck_done_fn)(const struct hf_error *error, void *data);

/** hf_recheck_applies() - Is there such a guest, by name or uuid, that nothing else has? */
bool hf_recheck_applies(const struct hf_agent *agent, const char *id);

/** hf_recheck_start() - Begin. Return: 0, or -errno, @error filled (then @done isn't called). */
int hf_recheck_start(struct hf_agent *agent, const char *id, hf_recheck_done_fn done, void *data,
	struct hf_error *error);

/** hf_recheck_guest() - The uuid of the guest that is looked at, or NULL. */
const char *hf_recheck_guest(const struct hf_agent *agent);

/** hf_recheck_stop() - Give it up; @done isn't called. */
void hf_recheck_stop(struct hf_agent *agent);
