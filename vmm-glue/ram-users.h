/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Ends what still has a guest's RAM open, before another QEMU gets it.
 *
 * For an agent that comes after a dead one: that may have started a QEMU which nobody knows of.
 * Such a process is found by the RAM file it has open, and by nothing else, so that no moment of a
 * crash can hide one.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "common/fd.h"

/**
 * hf_ram_users_end() - Kill every other process that has one of some files open; wait until it is
 * gone.
 * @files:   the RAM files
 * @spare:   a process that only keeps them, 0 for none
 * @ret_n:   how many there were; may be NULL
 *
 * Blocks. Return: 0 when nobody has them open any more; -ETIMEDOUT; -errno.
 */
int hf_ram_users_end(const struct hf_inode *files, size_t n_files, pid_t spare, uint64_t timeout_ns,
	size_t *ret_n, struct hf_error *error);

/**
 * hf_ram_users_end_former() - End the process that a guest's RAM was copied from, and wait for
 * that.
 * @pid:         of it, when it was copied; may mean another process by now, which is left alone
 * @start_ticks: when it was started
 *
 * Return: 1 it was ended, 0 it was not there any more; -ETIMEDOUT; -errno, with @e filled.
 */
int hf_ram_users_end_former(
	pid_t pid, uint64_t start_ticks, uint64_t timeout_ns, struct hf_error *e);
