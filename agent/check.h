/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Can this host, and can its guests, be updated? Looks only.
 *
 * Each thing looked at yields a Finding with a stable id, a verdict, a sentence and a remedy. The
 * worst verdict is the whole check's. The host has a file of its
 * own, check-host.h, and so have the target, check-target.h, and a guest's caveats, check-guest.h.
 */
#pragma once

#include <json-c/json.h>

#include "agent/survey.h"

enum hf_verdict {
	HF_OK,
	HF_WARNING,
	HF_REFUSAL,
};

/** hf_verdict_name() - Its name on the Varlink interface. */
const char *hf_verdict_name(enum hf_verdict verdict);

/** hf_finding_new() - A Finding object. @guest and @remedy may be NULL or empty. */
struct json_object *hf_finding_new(const char *id, enum hf_verdict verdict, const char *guest,
	const char *message, const char *remedy);

/** hf_findings_first() - The first Finding of an array with this verdict. Borrowed, NULL: none. */
struct json_object *hf_findings_first(struct json_object *findings, enum hf_verdict verdict);

/* What becomes of a guest in an update. */
enum hf_fate {
	HF_FATE_COMES_ALONG,
	HF_FATE_REFUSES,   /* it keeps the update from being made */
	HF_FATE_SHUT_DOWN, /* it is powered down first */
	HF_FATE_ADOPTED,   /* its RAM is moved first, then it comes along */
	HF_FATE_SAVED,	   /* libvirt saves it to disk first, and starts it again afterwards */
};

/** hf_check_fate() - By what was found of a guest, and its policy. */
enum hf_fate hf_check_fate(const struct hf_survey_guest *guest);

/** hf_check_count() - How many of a survey's guests have a fate. */
size_t hf_check_count(const struct hf_survey *survey, enum hf_fate fate);

/**
 * hf_policy_adopt() - Can a guest that isn't eligible be adopted as a part of prepare?
 *
 * Return: 0 as far as can be told before it is tried; or -errno with the reason.
 */
int hf_policy_adopt(const struct hf_survey_guest *guest, struct hf_error *error);

/**
 * hf_check_guest() - Appends what a survey found of a guest. Return: the worst verdict.
 * @to_kernel: release of the kernel to jump into; NULL when it is not known, or none is
 */
enum hf_verdict hf_check_guest(
	const struct hf_survey_guest *guest, const char *to_kernel, struct json_object *findings);

/** hf_check_guests() - All of them, registrations that can't be read, and the configuration. */
enum hf_verdict hf_check_guests(
	const struct hf_survey *survey, const char *to_kernel, struct json_object *findings);
