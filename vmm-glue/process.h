/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A QEMU that holdfast didn't start, as /proc shows it.
 *
 * Enough to start it again as it was started: command line, environment, folder, user. What of it
 * changed since, or can't be seen from outside, is refused in words.
 */
#pragma once

#include "vmm-glue/registration.h"

/**
 * hf_process_describe() - Make the registration that holdfast-vmm would have made.
 * @pid:  a running QEMU
 * @name: of the guest; NULL: as on its command line
 * @ret:  cleared by the caller, on failure too. Has no RAM and no monitor.
 *
 * Return: 0; -ESRCH; -EINVAL a name that can't be; -EOPNOTSUPP with the reason; -errno.
 */
int hf_process_describe(
	pid_t pid, const char *name, struct hf_registration *ret, struct hf_error *error);

/**
 * hf_process_read() - Only read what /proc shows: command line, environment, folder, user, streams.
 * @reg: with the pid; its guest has no name, and no UUID
 *
 * Return: 0; -ENOENT or -ESRCH when it has ended; -errno.
 */
int hf_process_read(pid_t pid, struct hf_registration *reg);

/**
 * hf_process_touched_bytes() - How much memory a process has in use, swapped or on huge pages.
 *
 * Return: 0 or -errno.
 */
int hf_process_touched_bytes(pid_t pid, uint64_t *ret);

/** hf_host_available_bytes() - Memory that can be had without swapping. Return: 0 or -errno. */
int hf_host_available_bytes(uint64_t *ret);
