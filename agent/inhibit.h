/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Telling logind when this is no time for a shutdown.
 *
 * While guests would be lost or an update would come to nothing, the agent holds an inhibitor lock:
 * `systemctl reboot`, `poweroff` and `kexec` are then refused by logind in the agent's words. A
 * host without logind or D-Bus has no such refusals, and nothing here is waited for: the lock comes
 * when they are there. What the lock can't hold up (`--force`, a job for reboot.target) the units
 * do in another way: see holdfastd.service.
 */
#pragma once

#include "agent/agent.h"

/** hf_inhibit_update() - Take or give up the lock, as the state of the host wants it now. */
void hf_inhibit_update(struct hf_agent *agent);

/** hf_inhibit_reason() - What refuses a shutdown; NULL: nothing does. @orderly: of the prepared
 * update. */
const char *hf_inhibit_reason(enum hf_state state, bool orderly);

/** hf_inhibit_stop() - Give it up for good. */
void hf_inhibit_stop(struct hf_agent *agent);
