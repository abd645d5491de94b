/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Why a guest's RAM can't be preserved, and what to know of one whose can.
 *
 * Both go by what a survey learned, and by the guest's command line. They ask nobody, so what they
 * say costs nothing.
 */
#pragma once

#include <json-c/json.h>

#include "agent/check.h"
#include "vmm-glue/compat.h"

/**
 * hf_check_guest_ram() - Of a guest that was registered with a reason: that, and what else there
 * is.
 *
 * @verdict: of all of them
 * @fate:    what its policy makes of it: a message behind each, and a remedy in the place of each
 *
 * Appends to @findings. Return: @verdict.
 */
enum hf_verdict hf_check_guest_ram(const struct hf_survey_guest *guest, enum hf_verdict verdict,
	const struct hf_error *fate, struct json_object *findings);

/**
 * hf_check_guest_caveats() - Balloon, disks, CPU and the like. Nothing of it is a refusal.
 * @to_kernel: as for hf_check_guest()
 * @compat:    how the QEMU that is installed compares with the guest's
 *
 * Appends to @findings. Return: the worst verdict.
 */
enum hf_verdict hf_check_guest_caveats(const struct hf_survey_guest *guest, const char *to_kernel,
	enum hf_compat compat, struct json_object *findings);
