/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vmm-upgrade-note.h"

#include <assert.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "vmm-glue/note.h"

#define FOLDER "vmm-upgrade"
#define SUFFIX ".json"
#define NAME_BYTES 80
/* Of virtio's, and more. */
#define MAX_HEADER_BYTES 256
#define MAX_BYTES (2 * HF_REGISTRATION_MAX_BYTES)

static const char *const phase_names[] = {
	[HF_VMM_UPGRADE_STARTING] = "starting",
	[HF_VMM_UPGRADE_PAUSING] = "pausing",
	[HF_VMM_UPGRADE_RUNNING] = "running",
};
static_assert(HF_ARRAY_SIZE(phase_names) == HF_VMM_UPGRADE_PHASES_, "every phase has its name");

static void name_of(const char *uuid, char *name)
{
	snprintf(name, NAME_BYTES, FOLDER "/%.36s" SUFFIX, uuid);
}

static struct json_object *format_taps(const struct hf_taps *taps)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < taps->n; i++) {
		struct json_object *tap = json_object_new_object();

		hf_json_add_string(tap, "ifname", taps->v[i].ifname);
		hf_json_add_int(tap, "header_bytes", taps->v[i].header_bytes);
		hf_json_add_int(tap, "offloads", taps->v[i].offloads);
		hf_json_append(list, tap);
	}
	return list;
}

int hf_vmm_upgrade_note_format(
	const struct hf_vmm_upgrade_note *note, char **ret, struct hf_error *error)
{
	cleanup_json struct json_object *o = json_object_new_object();
	struct json_object *ram = json_object_new_array();
	cleanup_free char *reg = NULL;
	size_t size;
	const char *text;
	int r = hf_registration_format(&note->reg, &reg, &size, error);

	hf_json_add_string(o, "phase", phase_names[note->phase]);
	hf_json_add_bool(o, "was_running", note->was_running);
	hf_json_add_int(o, "old_pid", note->old_pid);
	hf_json_add_int(o, "old_start_ticks", (int64_t)note->old_start_ticks);
	for (size_t i = 0; i < note->n_ram; i++) {
		struct json_object *file = json_object_new_object();

		hf_json_add_int(file, "dev", (int64_t)note->ram[i].dev);
		hf_json_add_int(file, "ino", (int64_t)note->ram[i].ino);
		hf_json_append(ram, file);
	}
	hf_json_add(o, "ram", ram);
	if (note->taps.n > 0)
		hf_json_add(o, "taps", format_taps(&note->taps));
	hf_json_add_string(o, "registration", reg);
	if (r < 0)
		return r;
	text = o ? json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN) : NULL;
	*ret = text ? strdup(text) : NULL;
	return *ret ? 0 : hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

int hf_vmm_upgrade_note_write(const char *uuid, const char *text, struct hf_error *error)
{
	char folder[PATH_MAX], name[NAME_BYTES];
	int r;

	hf_note_path(FOLDER, folder, sizeof(folder));
	r = hf_mkdir_p(folder, 0700);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't make the folder %s: %s",
			folder, strerror(-r));
	name_of(uuid, name);
	return hf_note_write(name, text, error);
}

static int parse_ram(struct json_object *list, struct hf_vmm_upgrade_note *ret)
{
	size_t n = hf_json_array_size(list);

	if (n == 0 || n > HF_ARRAY_SIZE(ret->ram))
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		struct json_object *file = json_object_array_get_idx(list, i);
		int64_t dev, ino;

		if (!json_object_is_type(file, json_type_object))
			return -EBADMSG;
		dev = hf_json_get_int(file, "dev", -1);
		ino = hf_json_get_int(file, "ino", -1);
		if (dev < 0 || ino <= 0)
			return -EBADMSG;
		ret->ram[i] = (struct hf_inode){.dev = (uint64_t)dev, .ino = (uint64_t)ino};
	}
	ret->n_ram = n;
	return 0;
}

/* Of an older holdfast there are none. */
static int parse_taps(struct json_object *list, struct hf_taps *ret)
{
	size_t n = hf_json_array_size(list);

	if (n > HF_ARRAY_SIZE(ret->v))
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(list, i);
		const char *ifname;
		int64_t bytes, flags;

		if (!json_object_is_type(o, json_type_object))
			return -EBADMSG;
		ifname = hf_json_get_string(o, "ifname", "");
		bytes = hf_json_get_int(o, "header_bytes", -1);
		flags = hf_json_get_int(o, "offloads", -1);
		if (!ifname[0] || strlen(ifname) >= sizeof(ret->v[i].ifname) || bytes < 0 ||
			bytes > MAX_HEADER_BYTES || flags < 0 || flags > UINT32_MAX)
			return -EBADMSG;
		ret->v[i] = (struct hf_tap){
			.fd = -EBADF, .header_bytes = (int)bytes, .offloads = (uint32_t)flags};
		memcpy(ret->v[i].ifname, ifname, strlen(ifname) + 1);
	}
	ret->n = n;
	return 0;
}

int hf_vmm_upgrade_note_parse(const void *data, size_t size, struct hf_vmm_upgrade_note *ret)
{
	cleanup_json struct json_object *o = NULL;
	struct hf_vmm_upgrade_note note = {.phase = HF_VMM_UPGRADE_PHASES_};
	const char *phase, *reg;
	int64_t pid, ticks;
	int r = hf_json_parse(data, size, 8, &o);

	if (r < 0)
		return r;
	phase = hf_json_get_string(o, "phase", "");
	for (int i = 0; i < HF_VMM_UPGRADE_PHASES_; i++)
		if (strcmp(phase, phase_names[i]) == 0)
			note.phase = i;
	pid = hf_json_get_int(o, "old_pid", 0);
	ticks = hf_json_get_int(o, "old_start_ticks", -1);
	reg = hf_json_get_string(o, "registration", NULL);
	if (note.phase == HF_VMM_UPGRADE_PHASES_ || pid <= 1 || pid > INT_MAX || ticks < 0 ||
		!reg || parse_ram(hf_json_get_array(o, "ram"), &note) < 0 ||
		parse_taps(hf_json_get_array(o, "taps"), &note.taps) < 0)
		return -EBADMSG;
	note.old_pid = (pid_t)pid;
	note.old_start_ticks = (uint64_t)ticks;
	note.was_running = hf_json_get_bool(o, "was_running", false);
	r = hf_registration_parse(reg, strlen(reg), &note.reg, NULL);
	if (r < 0)
		return r == -ENOMEM ? r : -EBADMSG;
	if (note.reg.guest.n_ram != note.n_ram) {
		hf_registration_clear(&note.reg);
		return -EBADMSG;
	}
	snprintf(note.uuid, sizeof(note.uuid), "%s", note.reg.guest.uuid);
	*ret = note;
	return 0;
}

void hf_vmm_upgrade_note_clear(struct hf_vmm_upgrade_note *note)
{
	hf_registration_clear(&note->reg);
	*note = (struct hf_vmm_upgrade_note){0};
}

int hf_vmm_upgrade_note_remove(const char *uuid)
{
	char name[NAME_BYTES];

	name_of(uuid, name);
	return hf_note_remove(name);
}

int hf_vmm_upgrade_note_list(char (**ret)[HF_UUID_CHARS])
{
	cleanup_free char(*found)[HF_UUID_CHARS] = NULL;
	char folder[PATH_MAX];
	struct dirent *d;
	int n = 0;
	DIR *dir;

	hf_note_path(FOLDER, folder, sizeof(folder));
	dir = opendir(folder);
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while ((d = readdir(dir))) {
		char uuid[HF_UUID_CHARS], text[HF_UUID_CHARS];
		void *more;

		/* What else is there is a note that was not written to its end. */
		snprintf(text, sizeof(text), "%.36s", d->d_name);
		if (strlen(d->d_name) != HF_UUID_CHARS - 1 + strlen(SUFFIX) ||
			strcmp(d->d_name + HF_UUID_CHARS - 1, SUFFIX) != 0 ||
			!hf_uuid_parse(text, uuid))
			continue;
		more = reallocarray(found, (size_t)n + 1, sizeof(*found));
		if (!more) {
			n = -ENOMEM;
			break;
		}
		found = more;
		memcpy(found[n++], uuid, sizeof(uuid));
	}
	closedir(dir);
	if (n > 0)
		*ret = TAKE_PTR(found);
	return n;
}

int hf_vmm_upgrade_note_read(const char *uuid, struct hf_vmm_upgrade_note *ret)
{
	cleanup_free char *text = NULL;
	char name[NAME_BYTES];
	size_t size;
	int r;

	name_of(uuid, name);
	r = hf_note_read(name, MAX_BYTES, &text, &size);
	if (r == 0)
		r = hf_vmm_upgrade_note_parse(text, size, ret);
	if (r == 0 && strcmp(ret->uuid, uuid) != 0) {
		hf_vmm_upgrade_note_clear(ret);
		r = -EBADMSG;
	}
	return r;
}
