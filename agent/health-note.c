/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Notes of unhealthy guests: `unhealthy/UUID` in the runtime folder, a process id and a
 * sentence; in the second line, which an older agent doesn't write, what has to be known of the
 * update to look at the guest again.
 */
#include <stdio.h>
#include <string.h>

#include "agent/health.h"
#include "agent/log.h"
#include "common/fd.h"
#include "vmm-glue/note.h"

#define MAX_NOTE_BYTES 1024

#define FOLDER "unhealthy"
#define NAME_BYTES 128

static void name_of(const char *uuid, char name[NAME_BYTES])
{
	snprintf(name, NAME_BYTES, FOLDER "/%s", uuid);
}

void hf_health_note(const char *uuid, pid_t pid, const struct hf_health_remark *remark)
{
	char path[4096], name[NAME_BYTES], text[MAX_NOTE_BYTES], *end;
	int n = snprintf(text, sizeof(text), "%d %s", (int)pid, remark->message), r;

	while ((end = strchr(text, '\n')))
		*end = ' ';
	n += snprintf(text + n, sizeof(text) - (size_t)n, "\nagent-answered=%d blackout-ns=%llu\n",
		remark->agent_answered, (unsigned long long)remark->blackout_ns);
	hf_note_path(FOLDER, path, sizeof(path));
	r = hf_mkdir_p(path, 0755);
	name_of(uuid, name);
	hf_note_path(name, path, sizeof(path));
	if (r == 0)
		r = hf_file_write_atomic(path, text, (size_t)HF_MIN(n, MAX_NOTE_BYTES - 1), 0644);
	if (r < 0)
		hf_log(LOG_WARNING, uuid, "can't write %s: %s", path, strerror(-r));
}

void hf_health_forget(const char *uuid)
{
	char name[NAME_BYTES];

	name_of(uuid, name);
	hf_note_remove(name);
}

int hf_health_parse_note(const void *data, size_t size, pid_t pid, struct hf_health_remark *ret)
{
	cleanup_free char *text = strndup(data, size);
	unsigned long long ns = 0;
	int answered = 0;
	char *end;

	if (!text || strtol(text, &end, 10) != pid || *end != ' ')
		return -ENOENT;
	*ret = (struct hf_health_remark){0};
	snprintf(ret->message, sizeof(ret->message), "%.*s", (int)strcspn(end + 1, "\n"), end + 1);
	end = strchr(end, '\n');
	if (end && sscanf(end, "\nagent-answered=%d blackout-ns=%llu", &answered, &ns) == 2) {
		ret->agent_answered = answered == 1;
		ret->blackout_ns = ns;
	}
	return 0;
}

int hf_health_noted(const char *uuid, pid_t pid, struct hf_health_remark *ret)
{
	cleanup_free char *text = NULL;
	char name[NAME_BYTES];
	size_t size;

	name_of(uuid, name);
	if (hf_note_read(name, MAX_NOTE_BYTES, &text, &size) < 0)
		return -ENOENT;
	return hf_health_parse_note(text, size, pid, ret);
}
