/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Were a guest's disks left alone while its memory was on its way?
 *
 * A guest that was started afresh meanwhile, here or on another host, has written to its disks.
 * Brought up from its old memory it would write what that has cached over them, and destroy both.
 * So what the VMM had open to read and write is noted when the guest is saved, and looked at before
 * it is brought up.
 *
 * That is for files with a time of their last change. Block devices have none, and of files that
 * are shared between guests (share-rw) it says nothing.
 */
#pragma once

#include <sys/types.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"

/**
 * hf_guest_disks_collect() - Note which files a running VMM has open to read and write.
 * @guest: its list of disks is made anew
 *
 * RAM is not among them, nor is anything in memory. Takes time for each descriptor of the VMM; may
 * run in a worker. Return: 0 or -ENOMEM.
 */
int hf_guest_disks_collect(struct hf_manifest_guest *guest, pid_t pid);

/** hf_guest_disks_stamp() - Note how they are now: of a guest that was saved. One stat(2) for each.
 */
void hf_guest_disks_stamp(struct hf_manifest_guest *guest);

/**
 * hf_guest_disks_check() - Are they as they were noted?
 *
 * One that isn't there is for the VMM to complain of. Return: 0, or -ESTALE with @e filled.
 */
int hf_guest_disks_check(const struct hf_manifest_guest *guest, struct hf_error *e);
