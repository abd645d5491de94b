/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The host's side of a guest's network: taps die with a kernel and are made anew.
 *
 * Before the pause a guest's taps are looked up and noted in its manifest entry; before its VMM
 * starts again, those that are missing are made as they were: name, mode, owner, MAC, MTU, bridge,
 * up. One that exists is somebody else's work (a network manager was faster) and keeps everything
 * but a missing bridge.
 *
 * Everything goes by name, through rtnetlink and /dev/net/tun, in the caller's network namespace.
 */
#pragma once

#include <sys/types.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"

struct hf_cmdline;

/**
 * hf_net_collect() - Note a running guest's taps in guest->net, in place of what was there.
 * @plan: of the guest's command line
 *
 * A tap that isn't there (the guest runs without it) is noted with what the command line says.
 * Taps that QEMU names itself at every start are left out: it makes a new one.
 * Return: 0, -ENOMEM, or an -errno of netlink.
 */
int hf_net_collect(
	const struct hf_cmdline *plan, struct hf_manifest_guest *guest, struct hf_error *error);

/**
 * hf_net_note() - Note one more tap, that the VMM has as descriptors.
 * @id: of the netdev
 *
 * Once, however many queues it has. Return: as for hf_net_collect().
 */
int hf_net_note(struct hf_manifest_guest *guest, const char *id, const char *ifname,
	struct hf_error *error);

/**
 * hf_net_restore() - Make the taps of a guest that are missing.
 *
 * Taps become persistent, and are opened by the VMM then, as the guest's user if that is not root.
 * May be called again: what is done is not done twice.
 * A libvirt domain's tap doesn't wait for its bridge: that is libvirt's, which starts after the
 * guest and attaches the taps of those that run. Return: 0; -EAGAIN a bridge is not there yet,
 * named in the error: try later; other -errno.
 */
int hf_net_restore(const struct hf_manifest_guest *guest, struct hf_error *error);
