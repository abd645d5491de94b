/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What a QEMU command line has that is worth knowing before an update. Pure.
 *
 * cmdline.h decides whether a guest's RAM can be preserved, and gives one reason if it can't. This
 * finds everything that an operator would want to hear of, so that it can be said all at once. What
 * QEMU itself can be asked is not looked for here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define HF_TRAIT_BYTES 96

/** struct hf_traits - strings are "" where there is no such thing. */
struct hf_traits {
	char cpu[HF_TRAIT_BYTES];     /* "host" or "max": a CPU that has what the host has */
	bool machine_alias;	      /* the type of its machine means another one in each QEMU */
	char machine[HF_TRAIT_BYTES]; /* as written; "" for QEMU's default */
	char vfio[HF_TRAIT_BYTES];    /* driver of a device of the host */
	char hugetlb[HF_TRAIT_BYTES]; /* id of RAM on hugetlb pages, or the folder it is in */
	char discard_data[HF_TRAIT_BYTES];  /* id of RAM that QEMU wipes when it ends */
	char virtio_mem[HF_TRAIT_BYTES];    /* driver of a memory device that shrinks and grows */
	char agent_chardev[HF_TRAIT_BYTES]; /* id of the chardev behind the guest agent's port */
};

/** hf_traits_find() - Look for them. What can't be read is passed over. */
void hf_traits_find(char *const *argv, size_t n, struct hf_traits *ret);
