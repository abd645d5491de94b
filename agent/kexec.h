/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The target kernel: load it, unload it, jump into it.
 *
 * The image has to be loaded with kexec_file_load(2) before the jump; KHO hooks into exactly that
 * call. reboot(LINUX_REBOOT_CMD_KEXEC) then freezes every LUO session first, and returns with an
 * error, everything thawed again, if one can't be frozen: the last point of return.
 */
#pragma once

#include "agent/target.h"
#include "common/error.h"

/**
 * hf_kexec_load() - Load a target, from the file that was looked into. Replaces one loaded before.
 *
 * Blocks while the image is read. Return: 0; -ESTALE when the file was written to since it was
 * looked into (nothing is loaded then); another -errno.
 */
int hf_kexec_load(const struct hf_target *target, struct hf_error *error);

/** hf_kexec_unload() - Undo of hf_kexec_load(). Success when nothing was loaded. */
int hf_kexec_unload(struct hf_error *error);

/**
 * hf_kexec_recover() - Unload what an agent that died had loaded. Call it at start.
 *
 * Return: 1 when there was one, 0 when not, -errno.
 */
int hf_kexec_recover(struct hf_error *error);

/**
 * hf_kexec_allowed() - May this process load a kernel at all?
 * @root: in front of /proc and /sys; "" for the host itself
 */
int hf_kexec_allowed(const char *root, struct hf_error *error);

/**
 * hf_kexec_jump() - Leave this kernel. Irreversible, unless it returns.
 *
 * Return: only when the kernel refused: -errno with the reason, everything still preserved and
 * unfrozen, the image still loaded.
 */
int hf_kexec_jump(struct hf_error *error);

/**
 * hf_kexec_reboot() - Leave this kernel by way of the firmware. Irreversible, unless it returns.
 *
 * Return: only when the kernel refused: -errno with the reason.
 */
int hf_kexec_reboot(struct hf_error *error);
