/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Any text as libvirt's status file.
 *
 * A path that is found fits, ends, and is in the text unless it has references in it; and the file
 * can be changed for another process, or is none.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/libvirt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const opaques[] = {
		"serial0-source", "serial1-log", "console1-source", "-log", "x"};
	static const struct hf_libvirt_pty ptys[] = {{"serial1", "/dev/pts/9"}};
	char *text = malloc(size + 1), *changed = NULL, path[32];

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	for (size_t i = 0; i < HF_ARRAY_SIZE(opaques); i++) {
		if (hf_libvirt_console_path(text, opaques[i], path, sizeof(path)) < 0)
			continue;
		assert(memchr(path, 0, sizeof(path)));
		assert(strpbrk(path, "&<>'\"") || strstr(text, path));
	}
	if (hf_libvirt_patch_status(text, 4711, ptys, HF_ARRAY_SIZE(ptys), &changed) == 0)
		assert(strstr(changed, "4711"));
	free(changed);
	free(text);
	return 0;
}
