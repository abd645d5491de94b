/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Guests as the control socket shows them: the Guest objects of org.holdfast.Host.
 *
 * Made of what a survey found, what the checks say to it, and where the guest is in an update.
 */
#pragma once

#include <json-c/json.h>

#include "agent/survey.h"

/**
 * hf_guest_json_list() - Array of Guest objects, held ones included; owned by the caller.
 * @to_kernel: release of the kernel to jump into; NULL when it is not known, or none is
 */
struct json_object *hf_guest_json_list(
	const struct hf_agent *agent, const struct hf_survey *survey, const char *to_kernel);
