/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resume-journal.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "common/json.h"
#include "vmm-glue/note.h"
#include "vmm-glue/registration.h"

#define MAX_BYTES 8192

/* What there may be of a guest. */
#define NOTE_RAN ".json"
#define NOTE_RELEASED ".released"
#define NOTE_VMM ".vmm"

#define FOLDER "resumed"
#define NAME_BYTES 80

static void name_of(const char *uuid, const char *note, char *name)
{
	snprintf(name, NAME_BYTES, FOLDER "/%.36s%s", uuid, note);
}

static int write_note(const char *uuid, const char *note, const char *text, struct hf_error *error)
{
	char folder[4096], name[NAME_BYTES];
	int r;

	hf_note_path(FOLDER, folder, sizeof(folder));
	r = hf_mkdir_p(folder, 0700);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't make the folder %s: %s",
			folder, strerror(-r));
	name_of(uuid, note, name);
	return hf_note_write(name, text, error);
}

static int read_note(const char *uuid, const char *note, char **ret, size_t *ret_size)
{
	char name[NAME_BYTES];

	name_of(uuid, note, name);
	return hf_note_read(name, MAX_BYTES, ret, ret_size);
}

static void remove_note(const char *uuid, const char *note)
{
	char name[NAME_BYTES];

	name_of(uuid, note, name);
	hf_note_remove(name);
}

int hf_resume_journal_write(const char *uuid, pid_t pid, bool afresh, struct hf_error *error)
{
	cleanup_json struct json_object *o = json_object_new_object();
	uint64_t ticks = 0;
	int r = hf_pid_start_time(pid, &ticks);

	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL,
			"can't note that %s runs: its process %d: %s", uuid, (int)pid,
			strerror(-r));
	hf_json_add_int(o, "pid", (uint64_t)pid);
	hf_json_add_int(o, "start_ticks", ticks);
	hf_json_add_bool(o, "afresh", afresh);
	return write_note(uuid, NOTE_RAN, o ? json_object_to_json_string(o) : NULL, error);
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
	size_t size;
	int r = read_note(uuid, NOTE_RAN, &text, &size);

	return r < 0 ? r
		     : hf_resume_journal_parse(text, size, ret_pid, ret_start_ticks, ret_afresh);
}

int hf_resume_journal_release(const char *uuid, struct hf_error *error)
{
	return write_note(uuid, NOTE_RELEASED, "", error);
}

void hf_resume_journal_unrelease(const char *uuid)
{
	remove_note(uuid, NOTE_RELEASED);
}

bool hf_resume_journal_released(const char *uuid)
{
	char name[NAME_BYTES];

	name_of(uuid, NOTE_RELEASED, name);
	return hf_note_is_there(name);
}

int hf_resume_journal_set_vmm(const char *uuid, const char *vmm, struct hf_error *error)
{
	if (vmm)
		return write_note(uuid, NOTE_VMM, vmm, error);
	remove_note(uuid, NOTE_VMM);
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
	size_t size;
	int r = read_note(uuid, NOTE_VMM, &text, &size);

	return r < 0 ? r : hf_resume_journal_parse_vmm(text, size, ret);
}

void hf_resume_journal_remove(const char *uuid)
{
	static const char *const notes[] = {NOTE_RAN, NOTE_RELEASED, NOTE_VMM};
	for (size_t i = 0; i < HF_ARRAY_SIZE(notes); i++)
		remove_note(uuid, notes[i]);
}

void hf_resume_journal_clear(void)
{
	char path[4096 + 300];
	struct dirent *e;
	DIR *folder;

	hf_note_path(FOLDER, path, sizeof(path));
	folder = opendir(path);
	while (folder && (e = readdir(folder))) {
		snprintf(path, sizeof(path), "%s/" FOLDER "/%s", hf_run_dir(), e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	if (folder)
		closedir(folder);
}
