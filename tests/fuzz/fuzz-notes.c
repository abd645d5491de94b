/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Any file in the place of each note in the runtime folder.
 *
 * Every input is given to every parser: the notes of the resume journal, the freeze note, the note
 * of file systems made read-only, that of an unhealthy guest, that of a guest with two QEMUs, and
 * the list of domains that libvirt saved. What is taken from them is what an agent acts on after
 * another one's death: processes that can be, absolute paths, whole lines.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/freeze-note.h"
#include "agent/health.h"
#include "agent/resume-journal.h"
#include "agent/saved-domains.h"
#include "agent/vmm-upgrade-note.h"
#include "common/json.h"
#include "vmm-glue/disks.h"

#define UUID "0e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"
#define PID 4711

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void resume_journal(const uint8_t *data, size_t size)
{
	uint64_t ticks = UINT64_MAX;
	bool afresh = false;
	char *vmm = NULL;
	pid_t pid = -1;

	if (hf_resume_journal_parse(data, size, &pid, &ticks, &afresh) == 0)
		assert(pid > 1 && ticks <= INT64_MAX);
	else
		assert(pid == -1 && ticks == UINT64_MAX);
	if (hf_resume_journal_parse_vmm(data, size, &vmm) == 0)
		assert(vmm[0] == '/' && strlen(vmm) == size && memcmp(vmm, data, size) == 0);
	else
		assert(!vmm);
	free(vmm);
}

static void freeze_note(const uint8_t *data, size_t size)
{
	cleanup_json struct json_object *note = NULL;

	if (hf_freeze_note_parse(data, size, &note) < 0) {
		assert(!note);
		return;
	}
	for (int i = 0; i < 2; i++) {
		const char *list = i ? "paused" : "guests";
		struct json_object *guests = hf_json_get_array(note, list);

		hf_freeze_note_has(note, list, UUID);
		for (size_t k = 0; k < hf_json_array_size(guests); k++)
			assert(hf_freeze_note_has(note, list,
				json_object_get_string(json_object_array_get_idx(guests, k))));
	}
}

static void read_only(const uint8_t *data, size_t size)
{
	const char *rest = (const char *)data;
	size_t left = size, before = size, lines = 0, found = 0;
	char dir[64];

	for (size_t i = 0; i < size; i++)
		lines += data[i] == '\n';
	while (hf_disks_next_noted(&rest, &left, dir, sizeof(dir))) {
		assert(dir[0] == '/' && !strchr(dir, '\n') && left < before);
		assert(rest + left == (const char *)data + size);
		before = left;
		found++;
	}
	assert(found <= lines);
}

static void unhealthy(const uint8_t *data, size_t size)
{
	struct hf_health_remark remark = {.message = "untouched"};

	if (hf_health_parse_note(data, size, PID, &remark) < 0)
		assert(strcmp(remark.message, "untouched") == 0);
	else
		assert(!strchr(remark.message, '\n') && strlen(remark.message) < size);
}

static void saved_domains(const uint8_t *data, size_t size)
{
	struct hf_saved_name *names = NULL;
	size_t bad = 0, lines = 1;
	int n = hf_saved_domains_parse(data, size, &names, &bad);

	for (size_t i = 0; i < size; i++)
		lines += data[i] == '\n';
	assert(n >= 0 && (size_t)n + bad <= lines);
	for (int i = 0; i < n; i++) {
		assert(strlen(names[i].uuid) == HF_UUID_CHARS - 1);
		assert(names[i].name[0] && !strchr(names[i].name, '\n'));
		free(names[i].name);
	}
	free(names);
}

static void two_qemus(const uint8_t *data, size_t size)
{
	struct hf_vmm_upgrade_note note = {0};

	if (hf_vmm_upgrade_note_parse(data, size, &note) < 0) {
		assert(!note.reg.guest.name);
		return;
	}
	assert(note.phase < HF_VMM_UPGRADE_PHASES_ && note.old_pid > 1 && note.n_ram > 0);
	assert(note.n_ram == note.reg.guest.n_ram && note.n_ram <= HF_MANIFEST_MAX_RAM);
	assert(strlen(note.uuid) == HF_UUID_CHARS - 1);
	hf_vmm_upgrade_note_clear(&note);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	two_qemus(data, size);
	resume_journal(data, size);
	freeze_note(data, size);
	read_only(data, size);
	unhealthy(data, size);
	saved_domains(data, size);
	return 0;
}
