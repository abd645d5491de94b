/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The method Adopt of the control socket.
 */
#pragma once

#include "common/json.h"
#include "common/varlink.h"

/** hf_request_adopt() - Handler of Adopt. The adoption is undone when its client goes away. */
void hf_request_adopt(struct hf_varlink_call *call, struct json_object *params, void *userdata);
