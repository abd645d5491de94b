/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest-json.h"

#include <stdio.h>

#include "agent/arrival.h"
#include "agent/check.h"
#include "agent/health.h"
#include "common/json.h"

static struct json_object *policy_json(const struct hf_policy *p)
{
	struct json_object *o = json_object_new_object();
	char text[HF_POLICY_TEXT_MAX];

	for (int i = 0; i < HF_POLICY_N_; i++) {
		hf_policy_format(p, i, text, sizeof(text));
		hf_json_add_string(o, hf_policy_key_name(i), text);
	}
	return o;
}

static struct json_object *guest_json(
	const struct hf_manifest_guest *g, pid_t pid, const char *status, const char *step)
{
	struct json_object *o = json_object_new_object();
	struct json_object *ram = json_object_new_array();

	hf_json_add_string(o, "uuid", g->uuid);
	hf_json_add_string(o, "name", g->name);
	hf_json_add_string(o, "manager", g->manager);
	hf_json_add_int(o, "pid", pid);
	hf_json_add_string(o, "status", status);
	hf_json_add_string(o, "step", step ? step : "idle");
	hf_json_add_string(o, "vmm", g->vmm);
	for (size_t i = 0; i < g->n_ram; i++) {
		struct json_object *block = json_object_new_object();
		char file[32];

		snprintf(file, sizeof(file), "/proc/%d/fd/%d", (int)pid, g->ram[i].fd);
		hf_json_add_string(block, "id", g->ram[i].id);
		hf_json_add_int(block, "size_bytes", g->ram[i].size);
		hf_json_add_string(block, "file", pid ? file : "");
		hf_json_append(ram, block);
	}
	hf_json_add(o, "ram", ram);
	return o;
}

/* Guests in the arrival whose VMM is not (or not yet) running. */
static void add_held(const struct hf_agent *agent, struct json_object *list)
{
	const struct hf_arrival *a = agent->arrival;
	const struct hf_manifest *m = a ? hf_arrival_manifest(a) : NULL;

	for (size_t i = 0; m && i < m->n_guests; i++) {
		const struct hf_manifest_guest *g = m->guests[i];
		const struct hf_error *error = hf_arrival_guest_error(a, g->uuid);
		const char *step = hf_survey_update_step(agent, g->uuid);
		struct json_object *findings, *o;

		if (!step)
			continue;
		findings = json_object_new_array();
		o = guest_json(g, 0, error ? "held" : "arriving", step);
		hf_json_add_bool(o, "eligible", false);
		/* In an arrival those count that came along. */
		hf_json_add(o, "policy", policy_json(&g->policies));
		if (error)
			hf_json_append(findings, hf_finding_new("guest.held", HF_REFUSAL, g->name,
							 error->message, error->remedy));
		hf_json_add(o, "findings", findings);
		hf_json_append(list, o);
	}
}

/* It came over with an update, but not well. */
static void add_unhealthy(const struct hf_registration *reg, struct json_object *findings)
{
	struct hf_health_remark remark;

	if (hf_health_noted(reg->guest.uuid, reg->pid, &remark) == 0)
		hf_json_append(findings,
			hf_finding_new("guest.unhealthy", HF_WARNING, reg->guest.name,
				remark.message,
				"see into the guest, which runs on; when it is well, `holdfast "
				"retry` asks it again"));
}

static bool is_arriving(const struct hf_agent *agent, const char *uuid)
{
	const struct hf_arrival *a = agent->arrival;

	return a && hf_arrival_manifest(a) && hf_survey_update_step(agent, uuid) &&
	       hf_arrival_guest_step(a, uuid);
}

struct json_object *hf_guest_json_list(
	const struct hf_agent *agent, const struct hf_survey *survey, const char *to_kernel)
{
	bool policies_known;
	struct json_object *list = json_object_new_array();
	size_t n;
	const struct hf_survey_guest *guests = hf_survey_guests(survey, &n);
	size_t n_problems = 1;

	if (hf_survey_config(survey))
		hf_config_problems(hf_survey_config(survey), &(size_t){0}, &n_problems);
	policies_known = n_problems == 0;
	for (size_t i = 0; i < n; i++) {
		const struct hf_survey_guest *g = &guests[i];
		const char *status = g->asked && !g->error.err ? g->probe.status : "unknown";
		struct json_object *findings, *o;

		if (is_arriving(agent, g->reg.guest.uuid))
			continue;
		findings = json_object_new_array();
		hf_check_guest(g, to_kernel, findings);
		add_unhealthy(&g->reg, findings);
		o = guest_json(&g->reg.guest, g->reg.pid, status,
			hf_survey_update_step(agent, g->reg.guest.uuid));
		hf_json_add_bool(o, "eligible", hf_check_fate(g) == HF_FATE_COMES_ALONG);
		if (policies_known)
			hf_json_add(o, "policy", policy_json(&g->policy));
		hf_json_add(o, "findings", findings);
		hf_json_append(list, o);
	}
	add_held(agent, list);
	return list;
}
