/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The methods that begin with a look at everything: Check, Plan, Prepare, Upgrade.
 *
 * A target is looked into first, in a worker, one at a time: it may take seconds and a good deal
 * of memory, and whoever may call Check may name any file. While guests stand still nothing is
 * looked into. Then the guests are asked, and then all findings are put together.
 */
#pragma once

#include <json-c/json.h>

#include "common/varlink.h"

/**
 * hf_request_check() - Handlers of a struct hf_varlink_method; @userdata is the struct hf_agent.
 *
 * Nothing more is looked at for a caller that has gone.
 */
void hf_request_check(struct hf_varlink_call *call, struct json_object *params, void *userdata);
void hf_request_plan(struct hf_varlink_call *call, struct json_object *params, void *userdata);
void hf_request_prepare(struct hf_varlink_call *call, struct json_object *params, void *userdata);
void hf_request_upgrade(struct hf_varlink_call *call, struct json_object *params, void *userdata);
