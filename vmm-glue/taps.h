/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A running QEMU's taps, for a second QEMU of the same guest.
 *
 * A tap with one queue can be opened by one process only. The second QEMU gets a duplicate of the
 * first one's descriptor, and both share what is set by it: when a QEMU starts, it sets the length
 * of the header before each packet and what the guest can take of offloads to their defaults, and
 * as the guest wants them when it has loaded its device state (net/tap.c, net/tap-linux.c and
 * hw/net/virtio-net.c of QEMU). So the guest has to stand still meanwhile; and if it goes on in the
 * first one after all, which doesn't set them again, they have to be put back as they were before.
 */
#pragma once

#include <net/if.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"

struct hf_cmdline;

/** struct hf_tap - one of them, and what is set by its descriptor. */
struct hf_tap {
	char ifname[IFNAMSIZ];
	int fd;		   /* own; -EBADF: there is none */
	int header_bytes;  /* TUNGETVNETHDRSZ */
	uint32_t offloads; /* TUN_F_*, as far as they are in force */
};

/** struct hf_taps - those of a guest, in the order of its command line. Zero-initialise. */
struct hf_taps {
	struct hf_tap v[HF_MANIFEST_MAX_NETS];
	size_t n;
};

/**
 * hf_taps_borrow() - Duplicate the descriptors of a QEMU's taps.
 * @pid:  of it, with the time it started; the caller may look into it
 * @plan: of its command line, one that hf_cmdline_beside() found nothing against
 * @ret:  zeroed; hf_taps_release() frees it, also after a failure
 *
 * Return: 0; -ENXIO QEMU has no such tap open; -EOPNOTSUPP more than one descriptor of it, or in
 * another network namespace; -errno.
 */
int hf_taps_borrow(pid_t pid, uint64_t start_ticks, const struct hf_cmdline *plan,
	struct hf_taps *ret, struct hf_error *e);

/** hf_taps_read() - Read what is set, now that the guest stands still. Return: 0 or -errno. */
int hf_taps_read(struct hf_taps *taps, struct hf_error *e);

/**
 * hf_taps_put_back() - Set what was read again. The guest stands still, in the only QEMU there is.
 * @taps: borrowed
 *
 * Return: 0, or the first -errno with all of them tried.
 */
int hf_taps_put_back(const struct hf_taps *taps, struct hf_error *e);

/**
 * hf_taps_recover() - The same after a death: borrow them again, and set what was read before it.
 * @noted:   what was borrowed then, without descriptors
 * @running: the guest doesn't stand still, and may have set them since: only those are set that are
 *           as a QEMU that has just started leaves them
 */
int hf_taps_recover(pid_t pid, uint64_t start_ticks, const struct hf_cmdline *plan,
	const struct hf_taps *noted, bool running, struct hf_error *e);

/** hf_taps_release() - Close the duplicates; it is empty then. */
void hf_taps_release(struct hf_taps *taps);
#define cleanup_taps HF_CLEANUP(hf_taps_release)
