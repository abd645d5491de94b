/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The names of sockets that two QEMUs of one guest listen on, one after the other.
 *
 * A QEMU that starts removes whatever has the name of its socket and makes its own. If it then
 * fails, the one that goes on listens where nobody can find it. So its sockets are renamed before,
 * in their folder, and get their names back, or are removed. Who comes after a death does the same
 * by the names alone.
 *
 * Only sockets of the guest's own user are touched: the names come from a command line.
 */
#pragma once

#include "memfd-preserve/manifest.h"
#include "vmm-glue/cmdline-beside.h"

/**
 * hf_sockets_put_aside() - Rename those that there are.
 *
 * Return: 0; -errno with @e filled, and all names as they were.
 */
int hf_sockets_put_aside(const struct hf_manifest_guest *guest, const struct hf_beside_paths *paths,
	struct hf_error *e);

/** hf_sockets_put_back() - Give them their names again, in place of whatever has these by now. */
void hf_sockets_put_back(
	const struct hf_manifest_guest *guest, const struct hf_beside_paths *paths);

/** hf_sockets_forget() - Remove what was put aside. */
void hf_sockets_forget(const struct hf_manifest_guest *guest, const struct hf_beside_paths *paths);
