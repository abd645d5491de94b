/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Filling the holes of a memfd with 2 MiB folios, before the kernel fills them with small
 * ones.
 *
 * LUO fills every hole when a memfd is preserved, 4 KiB at a time. A guest that never touched a
 * quarter of its RAM would then cost the blackout far more than one that used it all: retrieve and
 * the new kernel's boot go by the number of folios.
 */
#pragma once

#include <stdint.h>

/**
 * hf_memfd_fill() - Fill holes with large folios where the kernel gives them.
 * @fd:   a memfd, stays the caller's; may be in use by a running guest
 * @size: bytes of it to look at
 *
 * Blocks for as long as it takes to clear the memory; needs no more than 2 MiB of address space and
 * resident memory at a time. Contents don't change. It only ever helps: holes that stay are the
 * kernel's to fill. Return: 0, or -errno of what kept it from going on.
 */
int hf_memfd_fill(int fd, uint64_t size);
