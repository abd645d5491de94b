/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: How an update gets guests to where it leads: what was asked for, and what the agent can do.
 */
#pragma once

#include <stdbool.h>

#include "memfd-preserve/carrier.h"

/** struct hf_way - the carrier, and what happens to the kernel. */
struct hf_way {
	struct hf_carrier *carrier; /* borrowed */
	bool leaves;		    /* this kernel; else only QEMUs and the agent are replaced */
	bool reboot;		    /* with firmware and all, in place of a jump into a target */
	bool has_key;		    /* images are encrypted */
	bool plaintext;		    /* they need not be encrypted: the operator says so */
};

/** hf_way_in_memory() - Does guests' memory stay where it is, for the next kernel to find? */
static inline bool hf_way_in_memory(const struct hf_way *way)
{
	return hf_carrier_kind(way->carrier) == HF_CARRIER_LUO;
}

/** hf_way_on_disk() - Is it copied to storage? */
static inline bool hf_way_on_disk(const struct hf_way *way)
{
	return hf_carrier_kind(way->carrier) == HF_CARRIER_IMAGE;
}
