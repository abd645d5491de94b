/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What an update would do to this host and to each guest, and how long that took before.
 *
 * The steps are those of update.c and arrival.c, told in their order; the times are those of the
 * reports that are kept (history.h), and left out where there are none.
 */
#pragma once

#include <json-c/json.h>

#include "agent/history.h"
#include "agent/survey.h"
#include "agent/way.h"

/**
 * hf_plan_add() - Add to the reply of Plan all that the one of Check has not.
 * @reply:     gets `guests`, `steps`, `blackout`, `preserve`, `updates` and `skipped`
 * @way:       how the update is to go
 * @survey:    the guests
 * @to_kernel: as for hf_check_guest()
 * @history:   the reports
 */
void hf_plan_add(struct json_object *reply, const struct hf_way *way,
	const struct hf_survey *survey, const char *to_kernel, const struct hf_history *history);
