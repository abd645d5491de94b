/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vmm-upgrade-request.h"

#include <stdio.h>
#include <string.h>

#include "agent/held.h"
#include "agent/update.h"
#include "agent/vmm-upgrade-note.h"
#include "agent/vmm-upgrade.h"
#include "vmm-glue/registration-trust.h"

struct hf_vmm_upgrades {
	struct hf_agent *agent;
	struct hf_varlink_call *call;
	struct hf_vmm_upgrade **guests; /* NULL: through */
	size_t n_guests;
	size_t pending;
	bool all;
	struct json_object *results;
	struct hf_error error; /* of the one guest that was named */
};

static const char *const outcome_names[] = {
	[HF_VMM_UPGRADE_REPLACED] = "replaced",
	[HF_VMM_UPGRADE_CURRENT] = "current",
	[HF_VMM_UPGRADE_WOULD] = "would_replace",
	[HF_VMM_UPGRADE_FAILED] = "failed",
};

static void upgrades_free(struct hf_vmm_upgrades *all)
{
	for (size_t i = 0; i < all->n_guests; i++)
		hf_vmm_upgrade_free(all->guests[i]);
	free(all->guests);
	json_object_put(all->results);
	if (all->agent->vmm_upgrades == all)
		all->agent->vmm_upgrades = NULL;
	free(all);
}

static void answer(struct hf_vmm_upgrades *all)
{
	struct hf_varlink_call *call = all->call;
	struct json_object *params;

	hf_varlink_call_on_gone(call, NULL, NULL);
	hf_agent_unwatch(all->agent, call);
	/* Before anybody is told: who hears of it may want to go on. */
	all->agent->vmm_upgrades = NULL;
	if (all->error.err && !all->all) {
		hf_varlink_call_error(call, &all->error, NULL);
	} else {
		params = json_object_new_object();
		hf_json_add(params, "guests", TAKE_PTR(all->results));
		hf_varlink_call_reply(call, params);
	}
	hf_varlink_call_unref(call);
	upgrades_free(all);
}

static void add_phase(struct json_object *list, const char *name, uint64_t ns)
{
	struct json_object *o = json_object_new_object();

	hf_json_add_string(o, "name", name);
	hf_json_add_int(o, "duration_ns", (int64_t)ns);
	hf_json_append(list, o);
}

static struct json_object *result_json(
	const struct hf_vmm_upgrade_result *r, const struct hf_error *error)
{
	struct json_object *o = json_object_new_object(), *phases;

	hf_json_add_string(o, "uuid", r->uuid);
	hf_json_add_string(o, "name", r->name);
	hf_json_add_string(o, "outcome", outcome_names[r->outcome]);
	if (r->pid)
		hf_json_add_int(o, "pid", r->pid);
	hf_json_add_string(o, "from", r->from);
	hf_json_add_string(o, "to", r->to);
	if (r->stood_still) {
		phases = json_object_new_array();
		add_phase(phases, "pause", r->pause_ns);
		add_phase(phases, "save", r->save_ns);
		if (r->start_ns)
			add_phase(phases, "vmm-start", r->start_ns);
		add_phase(phases, "load", r->load_ns);
		add_phase(phases, "resume", r->resume_ns);
		hf_json_add_int(o, "blackout_ns", (int64_t)r->blackout_ns);
		hf_json_add(o, "phases", phases);
	}
	if (error) {
		hf_json_add_string(o, "error", error->name);
		hf_json_add_string(o, "message", error->message);
		hf_json_add_string(o, "remedy", error->remedy);
	}
	return o;
}

static void on_done(void *data, struct hf_vmm_upgrade *u,
	const struct hf_vmm_upgrade_result *result, const struct hf_error *error)
{
	struct hf_vmm_upgrades *all = data;

	hf_json_append(all->results, result_json(result, error));
	if (error)
		all->error = *error;
	for (size_t i = 0; i < all->n_guests; i++)
		if (all->guests[i] == u)
			all->guests[i] = NULL;
	hf_vmm_upgrade_free(u);
	if (--all->pending == 0)
		answer(all);
}

void hf_vmm_upgrades_cancel(struct hf_vmm_upgrades *all, const struct hf_error *cause)
{
	for (size_t i = 0; i < all->n_guests; i++)
		if (all->guests[i])
			hf_vmm_upgrade_cancel(all->guests[i], cause);
}

const char *hf_vmm_upgrades_guest_step(const struct hf_vmm_upgrades *all, const char *uuid)
{
	for (size_t i = 0; i < all->n_guests; i++)
		if (all->guests[i] && strcmp(hf_vmm_upgrade_uuid(all->guests[i]), uuid) == 0)
			return hf_vmm_upgrade_step(all->guests[i]);
	return NULL;
}

int hf_vmm_upgrades_busy(const struct hf_agent *agent, struct hf_error *error)
{
	cleanup_free char(*uuids)[HF_UUID_CHARS] = NULL;

	if (agent->vmm_upgrades)
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY, "try again when that is over",
			"guests' QEMUs are being replaced");
	if (hf_vmm_upgrade_note_list(&uuids) != 0)
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY,
			"see the agent's log; holdfastd tries again when it is restarted",
			"the replacement of a guest's QEMU has not come to its end, and the guest "
			"is not seen to yet");
	return 0;
}

static void on_gone(struct hf_varlink_call *call, void *userdata)
{
	struct hf_vmm_upgrades *all = userdata;
	struct hf_error e = {0};

	hf_error_set(&e, -ECONNRESET, HF_ERR_ROLLED_BACK, "start again",
		"the client that asked for the new QEMU went away");
	hf_vmm_upgrades_cancel(all, &e);
}

/* Those that are meant, begun. Return: 0; -errno with nothing under way. */
static int start_guests(struct hf_vmm_upgrades *all, const char *guest,
	const struct hf_vmm_upgrade_how *how, struct hf_error *error)
{
	struct hf_registration *regs = NULL;
	size_t n = 0;
	int r = hf_registration_check_folder(error);

	/* From what is there follows what is run, as whom. */
	if (r < 0)
		return r;
	r = hf_registration_list(&regs, &n, NULL);
	if (r < 0)
		return hf_error_set(
			error, r, HF_ERR_FAILED, NULL, "can't list the guests: %s", strerror(-r));
	all->guests = calloc(n ? n : 1, sizeof(struct hf_vmm_upgrade *));
	all->results = json_object_new_array();
	if (!all->guests || !all->results)
		r = -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++) {
		if (guest && strcmp(regs[i].guest.name, guest) != 0 &&
			strcmp(regs[i].guest.uuid, guest) != 0)
			continue;
		r = hf_vmm_upgrade_start(
			all->agent, &regs[i], how, on_done, all, &all->guests[all->n_guests]);
		all->n_guests += r == 0;
	}
	hf_registration_list_free(regs, n);
	all->pending = all->n_guests;
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't begin: %s", strerror(-r));
	if (guest && all->n_guests == 0) {
		r = hf_error_set(error, -ENOENT, HF_ERR_NO_GUEST,
			"`holdfast guests` lists those there are",
			"there is no guest with this name or uuid");
		hf_error_guest(error, guest);
	}
	return r;
}

static int check_request(const struct hf_agent *agent, const char *guest, bool all,
	const char *qemu, struct hf_error *error)
{
	int r;

	if (!guest == !all)
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, NULL,
			"either a guest is named, or all are meant");
	r = qemu ? hf_held_check_program(qemu, error) : 0;
	return r < 0 ? r : hf_update_may_prepare(agent, error);
}

void hf_request_vmm_upgrade(
	struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	const char *guest = NULL, *qemu = NULL;
	bool every = false, force = false, dry_run = false;
	const struct hf_json_field fields[] = {
		{"guest", json_type_string, HF_JSON_OPTIONAL, &guest},
		{"all", json_type_boolean, HF_JSON_OPTIONAL, &every},
		{"qemu", json_type_string, HF_JSON_OPTIONAL, &qemu},
		{"force", json_type_boolean, HF_JSON_OPTIONAL, &force},
		{"dry_run", json_type_boolean, HF_JSON_OPTIONAL, &dry_run},
		{NULL, json_type_null, 0, NULL},
	};
	struct hf_agent *agent = userdata;
	struct hf_vmm_upgrades *all;
	struct hf_error e = {0};
	int r;

	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	if (check_request(agent, guest, every, qemu, &e) < 0) {
		hf_varlink_call_error(call, &e, NULL);
		return;
	}
	all = calloc(1, sizeof(*all));
	if (!all) {
		hf_varlink_call_errno(call, -ENOMEM, "request");
		return;
	}
	*all = (struct hf_vmm_upgrades){.agent = agent, .call = call, .all = every};
	r = hf_agent_new_update_id(agent);
	if (r == 0)
		r = start_guests(all, guest,
			&(struct hf_vmm_upgrade_how){
				.qemu = qemu, .force = force, .dry_run = dry_run},
			&e);
	if (r < 0) {
		if (!e.err)
			hf_error_set(&e, r, HF_ERR_FAILED, NULL, "%s", strerror(-r));
		hf_varlink_call_error(call, &e, NULL);
		upgrades_free(all);
		return;
	}
	agent->vmm_upgrades = all;
	hf_varlink_call_ref(call);
	hf_varlink_call_on_gone(call, on_gone, all);
	if (hf_varlink_call_wants_more(call))
		hf_agent_watch(agent, call);
	if (all->pending == 0)
		answer(all);
}
