/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/freeze-note.h"

#include <stdio.h>
#include <string.h>

#include "agent/log.h"
#include "common/json.h"
#include "vmm-glue/note.h"
#include "vmm-glue/registration.h"
#include "vmm-glue/vmm.h"

#define RECOVER_TIMEOUT_NS (10 * HF_NSEC_PER_SEC)
#define NOTE "frozen.json"
#define NOTE_MAX_BYTES (1024 * 1024)

int hf_freeze_note_write(const struct hf_manifest *manifest, struct hf_error *error)
{
	cleanup_json struct json_object *note = json_object_new_object();
	struct json_object *ran = json_object_new_array(), *paused = json_object_new_array();

	hf_json_add_string(note, "update_id", manifest->update_id);
	for (size_t i = 0; i < manifest->n_guests; i++)
		hf_json_append(manifest->guests[i]->was_running ? ran : paused,
			json_object_new_string(manifest->guests[i]->uuid));
	hf_json_add(note, "guests", ran);
	hf_json_add(note, "paused", paused);
	return hf_note_write(NOTE, json_object_to_json_string(note), error);
}

int hf_freeze_note_remove(void)
{
	return hf_note_remove(NOTE);
}

bool hf_freeze_note_exists(void)
{
	return hf_note_look(NOTE) != -ENOENT;
}

static bool are_strings(struct json_object *list)
{
	for (size_t i = 0; i < hf_json_array_size(list); i++)
		if (!json_object_is_type(json_object_array_get_idx(list, i), json_type_string))
			return false;
	return true;
}

int hf_freeze_note_parse(const void *data, size_t size, struct json_object **ret)
{
	cleanup_json struct json_object *note = NULL;
	struct json_object *paused = NULL;
	int r = hf_json_parse(data, size, 8, &note);

	if (r < 0)
		return r;
	/* One that names no guests is not one of an update without guests, which has the list. */
	if (!hf_json_get_array(note, "guests") || !are_strings(hf_json_get_array(note, "guests")))
		return -EBADMSG;
	if (json_object_object_get_ex(note, "paused", &paused) &&
		(!json_object_is_type(paused, json_type_array) || !are_strings(paused)))
		return -EBADMSG;
	*ret = TAKE_PTR(note);
	return 0;
}

bool hf_freeze_note_has(struct json_object *note, const char *list, const char *uuid)
{
	struct json_object *guests = hf_json_get_array(note, list);

	for (size_t i = 0; i < hf_json_array_size(guests); i++)
		if (strcmp(json_object_get_string(json_object_array_get_idx(guests, i)), uuid) == 0)
			return true;
	return false;
}

/* ---- recovery ---- */

struct recovery {
	struct hf_agent *agent;
	struct hf_registration *regs;
	size_t n_regs;
	size_t pending;
	bool failed;
};

struct recovering {
	struct recovery *all;
	struct hf_registration *reg;
	struct hf_vmm *vmm;
	bool ran;
};

static void recovered(struct recovering *one, const struct hf_error *error)
{
	struct recovery *all = one->all;

	if (error) {
		all->failed = true;
		hf_log(LOG_ERR, one->reg->guest.uuid,
			"%s was left paused by an agent that died and can't be put back: %s",
			one->reg->guest.name, error->message);
	} else {
		hf_log(LOG_NOTICE, one->reg->guest.uuid,
			"%s was left paused by an agent that died: it %s", one->reg->guest.name,
			one->ran ? "runs again" : "is as it was before, paused");
	}
	hf_vmm_free(one->vmm);
	free(one);
	if (--all->pending > 0)
		return;
	/* With a failure the note stays: the next start tries again. */
	if (!all->failed)
		hf_freeze_note_remove();
	hf_registration_list_free(all->regs, all->n_regs);
	free(all);
}

static void on_resumed(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	recovered(data, error);
}

static void on_attached(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct recovering *one = data;
	struct hf_error e = {0};

	if (error) {
		recovered(one, error);
		return;
	}
	if (hf_vmm_recover(vmm, one->ran, RECOVER_TIMEOUT_NS, on_resumed, one) < 0) {
		hf_error_set(&e, -EIO, HF_ERR_FAILED, NULL, "can't ask it to run");
		recovered(one, &e);
	}
}

static void recover_one(struct recovery *all, struct hf_registration *reg, bool ran)
{
	struct recovering *one = calloc(1, sizeof(*one));
	struct hf_agent *agent = all->agent;

	if (!one) {
		all->failed = true;
		return;
	}
	*one = (struct recovering){.all = all, .reg = reg, .ran = ran};
	if (hf_vmm_new(agent->event, &reg->guest, agent->ring, NULL, NULL, &one->vmm) < 0 ||
		hf_vmm_attach(one->vmm, reg->pid, reg->start_ticks, RECOVER_TIMEOUT_NS, on_attached,
			one) < 0) {
		hf_vmm_free(one->vmm);
		free(one);
		all->failed = true;
		return;
	}
	all->pending++;
}

void hf_freeze_note_recover(struct hf_agent *agent)
{
	cleanup_json struct json_object *note = NULL;
	cleanup_free char *text = NULL;
	struct recovery *all;
	size_t size;

	if (hf_note_read(NOTE, NOTE_MAX_BYTES, &text, &size) < 0)
		return;
	if (hf_freeze_note_parse(text, size, &note) < 0) {
		hf_log(LOG_ERR, NULL,
			"%s/" NOTE " is damaged: guests may stand paused, see `holdfast guests`",
			hf_run_dir());
		return;
	}
	all = calloc(1, sizeof(*all));
	if (!all || hf_registration_list(&all->regs, &all->n_regs, NULL) < 0) {
		free(all);
		return;
	}
	all->agent = agent;
	for (size_t i = 0; i < all->n_regs; i++) {
		const char *uuid = all->regs[i].guest.uuid;

		if (hf_freeze_note_has(note, "guests", uuid))
			recover_one(all, &all->regs[i], true);
		else if (hf_freeze_note_has(note, "paused", uuid))
			recover_one(all, &all->regs[i], false);
	}
	if (all->pending == 0) {
		if (!all->failed)
			hf_freeze_note_remove();
		hf_registration_list_free(all->regs, all->n_regs);
		free(all);
	}
}
