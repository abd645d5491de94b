/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Fuzzes the parsers of what an installed QEMU prints about itself.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/installed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Strings that are none, or that no line of the text has. */
static void check_list(char **list, const uint8_t *data, size_t size)
{
	for (size_t i = 0; list[i]; i++)
		if (!list[i][0] || !memmem(data, size, list[i], strlen(list[i])))
			abort();
	free(list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct hf_qmp_version version;
	char **list;

	memset(&version, 0xff, sizeof(version));
	if (hf_installed_parse_version(text, size, &version) == 0 &&
		(strnlen(version.package, sizeof(version.package)) == sizeof(version.package) ||
			version.major > 9999 || version.minor > 9999 || version.micro > 9999))
		abort();
	if (hf_installed_parse_machines(text, size, &list) == 0)
		check_list(list, data, size);
	if (hf_installed_parse_dirs(text, size, &list) == 0)
		check_list(list, data, size);
	return 0;
}
