/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The host's file systems before a jump: kexec does not sync.
 *
 * Remounting takes rights that an agent in a sandbox does not have; its spawner then does it. What
 * is made read-only is noted in the runtime folder first, so that an agent which starts after one
 * that died there has it made writable again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

/**
 * hf_disks_settle() - Write everything back and remount read-only what can be, or undo that.
 *
 * File systems with files open for writing (guests' disks, the root) stay writable and are synced.
 * Blocks, for ever when a disk does. Return: 0, or -errno when the spawner can't be asked.
 */
int hf_disks_settle(bool settled, struct hf_error *error);

/** hf_disks_left_settled() - Is there anything to undo, of this process or of one that died? */
bool hf_disks_left_settled(void);

/** hf_disks_settle_here() - By this process, whoever else there is. */
void hf_disks_settle_here(bool settled);

/**
 * hf_disks_next_noted() - The next mount point of a note. Pure.
 * @text: what is left of the note, moved on; no NUL needed
 * @size: its bytes, likewise
 *
 * What is no absolute path, or too long, is passed over; so is a last line without its end: its
 * writer died before it made anything of it read-only. Return: whether there was one.
 */
bool hf_disks_next_noted(const char **text, size_t *size, char *ret_dir, size_t dir_size);
