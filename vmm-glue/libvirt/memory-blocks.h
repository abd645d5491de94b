/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What QEMU's human monitor says of where the memory of NUMA cells is. Pure: text in, numbers
 * out.
 *
 * QEMU 7.2 tells in one way only: `gpa2hva` of an address of the guest names the memory that is
 * there and the address that it has in QEMU. Where to ask is in `info mtree -f`. A wrong question
 * does no harm, because the answer has the name in it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/** struct hf_memory_block - memory of one cell. */
struct hf_memory_block {
	char id[64]; /* of the memory object, without a path before it */
	uint64_t guest_address;
};

/**
 * hf_memory_block_next() - The next line of `info mtree -f` that shows a cell's memory.
 * @text: moved behind it
 *
 * A cell may be there several times. Return: false at the end.
 */
bool hf_memory_block_next(const char **text, struct hf_memory_block *ret);

/**
 * hf_memory_block_parse_host() - The answer to `gpa2hva`.
 *
 * Return: is it about that block, and that address of it?
 */
bool hf_memory_block_parse_host(
	const char *answer, const struct hf_memory_block *block, uint64_t *ret);
