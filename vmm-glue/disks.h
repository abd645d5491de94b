/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The host's file systems before a jump: kexec does not sync.
 *
 * Remounting takes rights that an agent in a sandbox does not have; its spawner then does it.
 */
#pragma once

#include <stdbool.h>

#include "common/error.h"

/**
 * hf_disks_settle() - Write everything back and remount read-only what can be, or undo that.
 *
 * File systems with files open for writing (guests' disks, the root) stay writable and are synced.
 * Blocks. Return: 0, or -errno when the spawner can't be asked.
 */
int hf_disks_settle(bool settled, struct hf_error *error);

/** hf_disks_settle_here() - By this process, whoever else there is. */
void hf_disks_settle_here(bool settled);
