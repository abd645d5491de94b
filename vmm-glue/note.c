/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/note.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "vmm-glue/registration.h"

void hf_note_path(const char *name, char *path, size_t size)
{
	snprintf(path, size, "%s/%s", hf_run_dir(), name);
}

int hf_note_write(const char *name, const char *text, struct hf_error *error)
{
	char path[4096];
	int r;

	hf_note_path(name, path, sizeof(path));
	r = text ? hf_file_write_atomic(path, text, strlen(text), 0600) : -ENOMEM;
	if (r < 0)
		return hf_error_set(
			error, r, HF_ERR_FAILED, NULL, "can't write %s: %s", path, strerror(-r));
	return 0;
}

int hf_note_read(const char *name, size_t max, char **ret, size_t *ret_size)
{
	char path[4096];

	hf_note_path(name, path, sizeof(path));
	return hf_file_read(path, max, ret, ret_size);
}

int hf_note_look(const char *name)
{
	char path[4096];

	hf_note_path(name, path, sizeof(path));
	return access(path, F_OK) < 0 ? -errno : 0;
}

bool hf_note_is_there(const char *name)
{
	return hf_note_look(name) == 0;
}

int hf_note_remove(const char *name)
{
	char path[4096];

	hf_note_path(name, path, sizeof(path));
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}
