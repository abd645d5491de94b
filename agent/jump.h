/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The hold carrier's jump: the agent becomes its next self without leaving the kernel.
 */
#pragma once

#include "agent/agent.h"

/**
 * hf_jump_execve() - Execute this program anew, with every held fd.
 *
 * The binary is the one installed now under the same path, so that an upgraded agent takes over;
 * when it was removed, the running one. Returns only on failure: -errno, everything still held.
 */
int hf_jump_execve(struct hf_agent *agent, struct hf_error *error);
