/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Adopting the guests that can't come along, before an update, where that is their policy.
 *
 * One after the other, as adopt.h does it. Ends with the first that isn't adopted, which then runs
 * as before, or is held; those before it stay adopted, as nothing is the worse for that. The update
 * is not begun before all is looked at anew.
 */
#pragma once

#include "agent/survey.h"
#include "vmm-glue/registration.h"

/**
 * hf_adopt_possible() - Is its RAM all that keeps a registered guest from being preserved, and can
 * that be moved? By what is known of it without asking its QEMU.
 * @error: why not; may be NULL
 */
bool hf_adopt_possible(const struct hf_registration *reg, struct hf_error *error);

/** Called once, from the loop. @error: why a guest was not adopted, NULL when all were. */
typedef void (*hf_adopt_all_fn)(const struct hf_error *error, void *data);

/**
 * hf_adopt_all_start() - Adopt them.
 * @survey: borrowed for the call
 *
 * Until @done, agent->adopt is one of these: hf_adopt_cancel() of it ends it all. Return: 0 when
 * @done will be called; -errno with @error filled.
 */
int hf_adopt_all_start(struct hf_agent *agent, const struct hf_survey *survey, hf_adopt_all_fn done,
	void *data, struct hf_error *error);
