/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Where a guest's RAM blocks are in its physical address space.
 *
 * Machines for x86 have a hole below 4 GiB, for devices, and what doesn't fit below the hole goes
 * on at 4 GiB. How much that is depends on the machine type and on the amount of RAM; the firmware
 * is told through the CMOS of the clock, which is in the device state and is believed when it adds
 * up to the guest's RAM.
 *
 * Pure: what it needs is the guest's description and, where there is one, its device state.
 */
#pragma once

#include "memfd-preserve/manifest.h"
#include "vmm-glue/vmdesc.h"

/* Every block once, and one of them cut by the hole. */
#define HF_LAYOUT_MAX_RANGES (HF_MANIFEST_MAX_RAM + 1)

/** struct hf_layout_range - a part of a RAM block, at consecutive addresses. */
struct hf_layout_range {
	size_t block; /* index in guest->ram */
	uint64_t offset;
	uint64_t size;
	uint64_t address;
};

struct hf_layout {
	struct hf_layout_range ranges[HF_LAYOUT_MAX_RANGES];
	size_t n_ranges;
	/* Why addresses are not known, and are offsets in the blocks, one behind the other; or "".
	 */
	char unknown[160];
};

/**
 * hf_layout_get() - Find out where a guest's RAM is.
 * @d: its device state, or NULL
 *
 * Always gives ranges that cover all of its RAM. Return: 0, or -ENOMEM.
 */
int hf_layout_get(
	const struct hf_manifest_guest *guest, const struct hf_vmdesc *d, struct hf_layout *ret);
