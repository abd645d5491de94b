/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Can a second QEMU of one command line be started while the first one runs?
 *
 * Pure. What a host has once can't be had by both: a TCP port, a locked file, a device. What isn't
 * known here is taken for such a thing. Disk images are none: a QEMU that waits for a device state
 * takes no locks. Nor are names of sockets in the file system: the second one takes the name over,
 * see sockets-aside.h. A tap with one queue, that the command line names, is handed to the second
 * one while the guest stands still.
 */
#pragma once

#include "vmm-glue/cmdline.h"

/** struct hf_beside_paths - what the second one takes over from the first. Zero-initialise. */
struct hf_beside_paths {
	char **v; /* sockets that QEMU listens on, as on the command line: relative ones are in the
		     guest's folder */
	size_t n;
	bool taps; /* there are some, see taps.h: the guest has to stand still when it starts */
};

/**
 * hf_cmdline_beside() - Look at a guest's command line.
 * @plan:  of it
 * @paths: those are added, hf_beside_paths_clear() frees them; on failure, too
 *
 * Return: 0; -EOPNOTSUPP with what there can be only one of; -ENOMEM.
 */
int hf_cmdline_beside(
	const struct hf_cmdline *plan, struct hf_beside_paths *paths, struct hf_error *e);

/** hf_beside_paths_clear() - Free what is in it; it can be used again. */
void hf_beside_paths_clear(struct hf_beside_paths *paths);
#define cleanup_beside_paths HF_CLEANUP(hf_beside_paths_clear)
