/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Does a target fit this host? What it understands beside what the running kernel hands over.
 *
 * A kernel with another LUO format panics when it boots, one without LUO or with another format of
 * memfds drops what it is handed: every guest would be lost. So any difference is a refusal.
 */
#pragma once

#include <json-c/json.h>
#include <stdbool.h>

#include "agent/check.h"
#include "agent/target.h"
#include "memfd-preserve/kho.h"

/** struct hf_running - the running kernel and its processors, as far as a target has to fit. */
struct hf_running {
	struct hf_kho_abi formats;     /* "" where the kernel does not show one */
	struct hf_error formats_error; /* why it shows none, or unset */
	bool svm;		       /* the processor has AMD's virtualization */
	bool vmx;		       /* … Intel's */
};

/**
 * hf_running_read() - Find out. What can't be found out is left empty.
 * @kho:     HF_KHO_DEBUGFS, or another folder in tests
 * @cpuinfo: HF_CPUINFO, or another file in tests
 */
void hf_running_read(const char *kho, const char *cpuinfo, struct hf_running *ret);

#define HF_CPUINFO "/proc/cpuinfo"

/** struct hf_target_needs - what guests need of the target, beside their memory. */
struct hf_target_needs {
	bool tap;
	bool bridge;
};

/** hf_target_needs_of() - Of all guests that a survey knows. */
struct hf_target_needs hf_target_needs_of(const struct hf_survey *survey);

/**
 * hf_check_target() - Is it a kernel, can it be loaded, does it fit? Pure.
 * @in_memory: is it to find guests' memory where it is?
 * @target:  what was looked into; ignored when @error is given
 * @error:   what hf_target_new() said, or NULL when it was content
 * @running: of hf_running_read()
 * @needs:   of hf_target_needs_of()
 *
 * Appends to @findings. Return: the worst verdict.
 */
enum hf_verdict hf_check_target(bool in_memory, const struct hf_target *target,
	const struct hf_error *error, const struct hf_running *running,
	const struct hf_target_needs *needs, struct json_object *findings);
