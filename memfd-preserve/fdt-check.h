/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Is this a flattened device tree that can be walked? One check for all trees from outside.
 *
 * libfdt has such a check, fdt_check_full(), but that of 1.6.1 (Debian 12) isn't enough for bytes
 * that nobody vouches for. Fuzzing found that it follows a null pointer in trees of layouts before
 * 16, and that it accepts a property whose length is negative as an int, which later walks take for
 * a pointer backwards. So lengths and nesting are checked here first.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/**
 * hf_fdt_check() - Whether bytes are a sound tree as a whole, so that libfdt stays inside them.
 * @fdt:  aligned to 8 bytes, as libfdt wants it
 * @size: bytes there are; the tree may be smaller
 *
 * All trees met here, the kernel's and ours, are of layout 17; older ones are refused.
 */
bool hf_fdt_check(const void *fdt, size_t size);
