/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Fuzzes the parsers of the human monitor's text: `info ramblock`, `info roms`,
 * `info qtree`.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qmp/commands.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define N 16

static void must_be_name(const char *s, size_t size, bool may_be_empty)
{
	size_t n = strnlen(s, size);

	if (n == size || (!n && !may_be_empty))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hf_qmp_ramblock blocks[N];
	struct hf_qmp_rom roms[N];
	struct hf_qmp_romfile files[N];
	size_t i, n;

	memset(blocks, 0xff, sizeof(blocks));
	memset(roms, 0xff, sizeof(roms));
	if (hf_qmp_parse_ramblocks((const char *)data, size, blocks, N, &n) == 0) {
		for (i = 0; i < n; i++) {
			must_be_name(blocks[i].name, sizeof(blocks[i].name), false);
			if (!blocks[i].page_bytes)
				abort();
		}
	}
	if (hf_qmp_parse_roms((const char *)data, size, roms, N, &n) == 0) {
		for (i = 0; i < n; i++) {
			must_be_name(roms[i].name, sizeof(roms[i].name), false);
			must_be_name(roms[i].fw_path, sizeof(roms[i].fw_path), true);
		}
	}
	memset(files, 0xff, sizeof(files));
	if (hf_qmp_parse_romfiles((const char *)data, size, files, N, &n) == 0)
		for (i = 0; i < n; i++)
			must_be_name(files[i].name, sizeof(files[i].name), false);
	return 0;
}
