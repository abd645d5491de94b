/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/libvirt/memory-blocks.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define OBJECTS "/objects/"

/* libvirt's names of cells' memory, which old machine types give with a path. */
static bool take_id(const char *name, char ret[64])
{
	size_t len;

	if (strncmp(name, OBJECTS, strlen(OBJECTS)) == 0)
		name += strlen(OBJECTS);
	len = strlen(name);
	if (len >= 64 || strncmp(name, "ram-node", 8) != 0 || len == 8 ||
		strspn(name + 8, "0123456789") != len - 8)
		return false;
	memcpy(ret, name, len + 1);
	return true;
}

bool hf_memory_block_next(const char **text, struct hf_memory_block *ret)
{
	for (const char *line = *text; *line; line = *text) {
		size_t len = strcspn(line, "\n");
		char copy[256], name[128];

		*text = line + len + (line[len] == '\n');
		if (len >= sizeof(copy))
			continue;
		memcpy(copy, line, len);
		copy[len] = 0;
		if (sscanf(copy, " %" SCNx64 "-%*x (prio %*d, ram): %127s", &ret->guest_address,
			    name) == 2 &&
			take_id(name, ret->id))
			return true;
	}
	return false;
}

bool hf_memory_block_parse_host(
	const char *answer, const struct hf_memory_block *block, uint64_t *ret)
{
	uint64_t asked, address;
	char name[128], id[64];

	if (sscanf(answer, "Host virtual address for 0x%" SCNx64 " (%127[^)]) is 0x%" SCNx64,
		    &asked, name, &address) != 3 ||
		asked != block->guest_address || !take_id(name, id) || strcmp(id, block->id) != 0 ||
		address == 0 || address > INT64_MAX)
		return false;
	*ret = address;
	return true;
}
