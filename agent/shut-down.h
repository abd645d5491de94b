/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Shutting down the guests that can't come along, before an update, where that is their
 * policy.
 *
 * All at once; over when each has ended or had its time. Guests are asked as by their power button
 * and nothing is done to those that don't react, so there is nothing to undo: the update is not
 * begun, and a guest that has ended has ended.
 */
#pragma once

#include "agent/survey.h"

/** Called once, from the loop. @error: the first guest that did not end, NULL when all have. */
typedef void (*hf_shut_down_done_fn)(const struct hf_error *error, void *data);

/**
 * hf_shut_down_start() - Ask them all.
 * @survey: borrowed for the call
 *
 * One at a time: until @done no other may begin, nor an update (agent->shutting_down). Return: 0
 * when @done will be called; -errno.
 */
int hf_shut_down_start(struct hf_agent *agent, const struct hf_survey *survey,
	hf_shut_down_done_fn done, void *data, struct hf_error *error);
