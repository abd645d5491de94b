/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Is this a flattened device tree that can be walked? One check for all trees from outside.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/**
 * hf_fdt_check() - Whether bytes are a sound tree as a whole, so that libfdt stays inside them.
 * @fdt:  aligned to 8 bytes, as libfdt wants it
 * @size: bytes there are; the tree may be smaller
 *
 * Trees of layouts before 17 are refused before libfdt looks further: for those before 16,
 * fdt_check_full() of libfdt 1.6.1 follows a null pointer (found by fuzz-kho). All trees met here
 * are of layout 17: the kernel's and ours.
 */
bool hf_fdt_check(const void *fdt, size_t size);
