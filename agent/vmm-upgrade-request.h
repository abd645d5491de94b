/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The method VmmUpgrade of the control socket: one guest, or all, each on its own and all at
 * once.
 *
 * One request at a time, and not while an update or an adoption is under way.
 */
#pragma once

#include "agent/agent.h"
#include "common/json.h"
#include "common/varlink.h"

struct hf_vmm_upgrades;

/** hf_request_vmm_upgrade() - Handler of VmmUpgrade. Undone when its client goes away. */
void hf_request_vmm_upgrade(
	struct hf_varlink_call *call, struct json_object *params, void *userdata);

/** hf_vmm_upgrades_cancel() - Undo what can be undone; the end comes as usual. */
void hf_vmm_upgrades_cancel(struct hf_vmm_upgrades *all, const struct hf_error *cause);

/** hf_vmm_upgrades_guest_step() - Where a guest is: its step's name; NULL when it is none of them.
 */
const char *hf_vmm_upgrades_guest_step(const struct hf_vmm_upgrades *all, const char *uuid);

/**
 * hf_vmm_upgrades_busy() - Is one under way, or left by an agent that died?
 *
 * Return: 0 or -EBUSY.
 */
int hf_vmm_upgrades_busy(const struct hf_agent *agent, struct hf_error *error);
