/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resume-journal.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "common/json.h"
#include "vmm-glue/registration.h"

#define MAX_BYTES 8192

/* What there may be of a guest. */
#define NOTE_RAN ".json"
#define NOTE_RELEASED ".released"
#define NOTE_VMM ".vmm"

static void path_of_note(const char *uuid, const char *note, char *path, size_t size)
{
	snprintf(path, size, "%s/resumed/%s%s", hf_run_dir(), uuid, note);
}

static void path_of(const char *uuid, char *path, size_t size)
{
	path_of_note(uuid, NOTE_RAN, path, size);
}

static int cant_write(const char *uuid, const char *note, int r, struct hf_error *error)
{
	char path[4096];

	path_of_note(uuid, note, path, sizeof(path));
	return hf_error_set(
		error, r, HF_ERR_FAILED, NULL, "can't write %s: %s", path, strerror(-r));
}

static int write_note(const char *uuid, const char *note, const char *text, struct hf_error *error)
{
	char path[4096], folder[4096];
	int r;

	snprintf(folder, sizeof(folder), "%s/resumed", hf_run_dir());
	path_of_note(uuid, note, path, sizeof(path));
	r = hf_mkdir_p(folder, 0700);
	if (r == 0)
		r = hf_file_write_atomic(path, text, strlen(text), 0600);
	return r < 0 ? cant_write(uuid, note, r, error) : 0;
}

int hf_resume_journal_write(const char *uuid, pid_t pid, bool afresh, struct hf_error *error)
{
	cleanup_json struct json_object *o = json_object_new_object();
	const char *text = NULL;
	uint64_t ticks = 0;
	int r = hf_pid_start_time(pid, &ticks);

	if (r < 0)
		return cant_write(uuid, NOTE_RAN, r, error);
	hf_json_add_int(o, "pid", (uint64_t)pid);
	hf_json_add_int(o, "start_ticks", ticks);
	hf_json_add_bool(o, "afresh", afresh);
	if (o)
		text = json_object_to_json_string(o);
	return text ? write_note(uuid, NOTE_RAN, text, error)
		    : cant_write(uuid, NOTE_RAN, -ENOMEM, error);
}

int hf_resume_journal_parse(
	const void *data, size_t size, pid_t *ret_pid, uint64_t *ret_start_ticks, bool *ret_afresh)
{
	cleanup_json struct json_object *o = NULL;
	int64_t pid, ticks;
	int r = hf_json_parse(data, size, 2, &o);

	if (r < 0)
		return r;
	/* Taken for another process than it was, the guest's disks would get a second QEMU. */
	pid = hf_json_get_int(o, "pid", 0);
	ticks = hf_json_get_int(o, "start_ticks", -1);
	if (pid <= 1 || pid > INT_MAX || ticks < 0)
		return -EBADMSG;
	*ret_pid = (pid_t)pid;
	*ret_start_ticks = (uint64_t)ticks;
	*ret_afresh = hf_json_get_bool(o, "afresh", false);
	return 0;
}

int hf_resume_journal_read(
	const char *uuid, pid_t *ret_pid, uint64_t *ret_start_ticks, bool *ret_afresh)
{
	cleanup_free char *text = NULL;
	char path[4096];
	size_t size;
	int r;

	path_of(uuid, path, sizeof(path));
	r = hf_file_read(path, MAX_BYTES, &text, &size);
	return r < 0 ? r
		     : hf_resume_journal_parse(text, size, ret_pid, ret_start_ticks, ret_afresh);
}

int hf_resume_journal_release(const char *uuid, struct hf_error *error)
{
	return write_note(uuid, NOTE_RELEASED, "", error);
}

void hf_resume_journal_unrelease(const char *uuid)
{
	char path[4096];

	path_of_note(uuid, NOTE_RELEASED, path, sizeof(path));
	unlink(path);
}

bool hf_resume_journal_released(const char *uuid)
{
	char path[4096];

	path_of_note(uuid, NOTE_RELEASED, path, sizeof(path));
	return access(path, F_OK) == 0;
}

int hf_resume_journal_set_vmm(const char *uuid, const char *vmm, struct hf_error *error)
{
	char path[4096];

	if (vmm)
		return write_note(uuid, NOTE_VMM, vmm, error);
	path_of_note(uuid, NOTE_VMM, path, sizeof(path));
	unlink(path);
	return 0;
}

int hf_resume_journal_parse_vmm(const void *data, size_t size, char **ret)
{
	const char *text = data;
	char *copy;

	if (size == 0 || text[0] != '/' || memchr(text, 0, size))
		return -EBADMSG;
	copy = strndup(text, size);
	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

int hf_resume_journal_get_vmm(const char *uuid, char **ret)
{
	cleanup_free char *text = NULL;
	char path[4096];
	size_t size;
	int r;

	path_of_note(uuid, NOTE_VMM, path, sizeof(path));
	r = hf_file_read(path, MAX_BYTES, &text, &size);
	return r < 0 ? r : hf_resume_journal_parse_vmm(text, size, ret);
}

void hf_resume_journal_remove(const char *uuid)
{
	static const char *const notes[] = {NOTE_RAN, NOTE_RELEASED, NOTE_VMM};
	char path[4096];

	for (size_t i = 0; i < HF_ARRAY_SIZE(notes); i++) {
		path_of_note(uuid, notes[i], path, sizeof(path));
		unlink(path);
	}
}

void hf_resume_journal_clear(void)
{
	char path[4096 + 300];
	struct dirent *e;
	DIR *folder;

	snprintf(path, sizeof(path), "%s/resumed", hf_run_dir());
	folder = opendir(path);
	while (folder && (e = readdir(folder))) {
		snprintf(path, sizeof(path), "%s/resumed/%s", hf_run_dir(), e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	if (folder)
		closedir(folder);
}
