/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What a process may use and how the kernel treats it: read from one VMM, given to the next.
 *
 * That is all resource limits of getrlimit(2), the OOM score's adjustment, the nice value and the
 * CPUs of its main thread, which threads made later inherit. What cgroups limit is not in here, nor
 * are scheduling policies, and nor is what somebody set for single threads.
 *
 * Giving is done by the new process itself, between fork and exec, in two steps: rights come first,
 * as long as it still may take them, and what restricts it comes last, so that it can't stumble
 * over it on its own way. Both steps go on where one thing can't be had, and note it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"

/** struct hf_limits_missed - what could not be given as it was. */
struct hf_limits_missed {
	uint32_t what; /* a bit each */
	int err;       /* errno of the first */
};

/**
 * hf_limits_read() - Of a process.
 * @limits: replaced; what can't be read is not known then
 *
 * Return: 0; -ENOMEM; -errno of what can't be read, @error says what.
 */
int hf_limits_read(pid_t pid, struct hf_manifest_limits *limits, struct hf_error *error);

/** hf_limits_take() - First step, before credentials: scores, CPUs, higher hard limits. */
void hf_limits_take(const struct hf_manifest_limits *limits, struct hf_limits_missed *missed);

/**
 * hf_limits_apply() - Last step, right before exec: every limit as it was, and where it can't be
 * that high, as high as it can be.
 */
void hf_limits_apply(const struct hf_manifest_limits *limits, struct hf_limits_missed *missed);

/** hf_limits_describe() - What was missed, for a person; "" when nothing was. */
void hf_limits_describe(const struct hf_limits_missed *missed, char *buf, size_t size);
