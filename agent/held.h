/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Methods of the control interface for guests that are held: an operator decides about them.
 *
 * Each is a handler of a struct hf_varlink_method whose userdata is the struct hf_agent. What is
 * begun for a caller that goes away is seen through: a retry and a release must not end halfway. A
 * dump (dump.c) is given up, and its file removed.
 */
#pragma once

#include <json-c/json.h>

#include "common/varlink.h"

/**
 * hf_held_retry() - Retry: bring a held guest up once more.
 *
 * One that runs and was not well is only asked again whether it is.
 */
void hf_held_retry(struct hf_varlink_call *call, struct json_object *params, void *userdata);

/**
 * hf_held_dump() - Dump: write a held guest's memory to a core file that doesn't exist yet.
 *
 * Progress is told once a second. Refused while other guests are still coming in.
 */
void hf_held_dump(struct hf_varlink_call *call, struct json_object *params, void *userdata);

/** hf_held_release() - Release: give a held guest up, or say whether that can be. IRREVERSIBLE. */
void hf_held_release(struct hf_varlink_call *call, struct json_object *params, void *userdata);

/** hf_held_check_program() - Can this be a guest's VMM? Return: 0; -EINVAL with @error filled. */
int hf_held_check_program(const char *path, struct hf_error *error);
