/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Where a guest's agent (qemu-ga) can be spoken to, by QEMU's command line. Pure.
 */
#pragma once

#include <stddef.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"

/** struct hf_agent_channel - a UNIX socket that QEMU listens on, behind the guest agent's port. */
struct hf_agent_channel {
	char label[96]; /* id of the chardev */
	char path[108]; /* absolute: as much as a socket's address can have */
};

/**
 * hf_agent_channel_find() - Look for it.
 * @guest: its command line, its folder for a relative path, and its descriptors: QEMU may have
 *         been given the socket
 *
 * Return: 0; -ENODEV when the guest has no such port; -EOPNOTSUPP when what is behind it is nothing
 * that can be connected to. @error has the reason.
 */
int hf_agent_channel_find(const struct hf_manifest_guest *guest, struct hf_agent_channel *ret,
	struct hf_error *error);
