/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Asking every guest how it is, all at once.
 *
 * A QEMU monitor serves one client, so there is one survey at a time: who asks while one is under
 * way gets its result. Guests that an update holds the monitors of are not asked; their step in the
 * update is what is known of them. When callbacks run, all monitors are free again.
 *
 * At the same time the program that each guest would be started with is asked what it is. At the
 * end the configuration is read, so that every survey has the policies of that moment.
 */
#pragma once

#include "agent/agent.h"
#include "agent/config.h"
#include "vmm-glue/installed.h"
#include "vmm-glue/registration.h"
#include "vmm-glue/vmm.h"

/** struct hf_survey_guest - one guest and its answer. */
struct hf_survey_guest {
	struct hf_registration reg;
	struct hf_vmm *vmm;
	struct hf_survey *survey;
	bool asked;
	struct hf_vmm_probe probe; /* valid when asked and error.err is 0 */
	struct hf_error error;
	const struct hf_installed_vmm *installed; /* likewise; borrowed, NULL: nothing is known */
	struct hf_policy policy;      /* in effect; the defaults where that can't be told */
	struct hf_error policy_error; /* its launcher's settings, when they are wrong */
};

struct hf_survey;

/** Called once, on the loop; @survey is borrowed for the call. */
typedef void (*hf_survey_done_fn)(const struct hf_survey *survey, void *data);

/** hf_survey_start() - Ask. Return: 0 when @done will be called, or -errno. */
int hf_survey_start(struct hf_agent *agent, hf_survey_done_fn done, void *data);

/** hf_survey_guests() - All that are known, asked or not. Borrowed. */
const struct hf_survey_guest *hf_survey_guests(const struct hf_survey *survey, size_t *ret_n);

/** hf_survey_config() - The configuration, with its problems. NULL when there was no memory. */
const struct hf_config *hf_survey_config(const struct hf_survey *survey);

/** hf_survey_is_luo() - Would an update leave this kernel? See hf_agent_is_luo(). */
bool hf_survey_is_luo(const struct hf_survey *survey);

/** hf_survey_list_error() - Why the guests of this host are not all known; NULL: they are. */
const struct hf_error *hf_survey_list_error(const struct hf_survey *survey);

/** hf_survey_unreadable() - How many registrations could not be read. */
size_t hf_survey_unreadable(const struct hf_survey *survey);

/**
 * hf_survey_update_step() - Where a guest is in the update under way.
 *
 * Return: the step's name; NULL when no update has it, and its monitor is free to ask.
 */
const char *hf_survey_update_step(const struct hf_agent *agent, const char *uuid);

/** hf_survey_refuse() - Answer a call with why hf_survey_start() failed. */
void hf_survey_refuse(struct hf_varlink_call *call, int err);
