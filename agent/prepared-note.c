/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/prepared-note.h"

#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "vmm-glue/registration.h"

static void path_of(char *buf, size_t size)
{
	snprintf(buf, size, "%s/" HF_PREPARED_NOTE, hf_run_dir());
}

int hf_prepared_note_write(const char *update_id, struct hf_error *error)
{
	char path[4096];
	int r;

	path_of(path, sizeof(path));
	r = hf_file_write_atomic(path, update_id, strlen(update_id), 0600);
	return r < 0 ? hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't write %s: %s", path,
			       strerror(-r))
		     : 0;
}

void hf_prepared_note_remove(void)
{
	char path[4096];

	path_of(path, sizeof(path));
	unlink(path);
}
