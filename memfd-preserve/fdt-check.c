/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/fdt-check.h"

#include <libfdt.h>

#define LAYOUT 17

bool hf_fdt_check(const void *fdt, size_t size)
{
	return size >= FDT_V17_SIZE && fdt_magic(fdt) == FDT_MAGIC && fdt_version(fdt) >= LAYOUT &&
	       fdt_check_full(fdt, size) == 0;
}
