/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/check.h"

#include <stdio.h>
#include <string.h>

#include "agent/adopt-policy.h"
#include "agent/check-guest.h"
#include "common/json.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/libvirt.h"

static const char *const verdict_names[] = {"ok", "warning", "refusal"};

const char *hf_verdict_name(enum hf_verdict verdict)
{
	return verdict_names[verdict];
}

struct json_object *hf_finding_new(const char *id, enum hf_verdict verdict, const char *guest,
	const char *message, const char *remedy)
{
	struct json_object *o = json_object_new_object();

	hf_json_add_string(o, "id", id);
	hf_json_add_string(o, "verdict", verdict_names[verdict]);
	hf_json_add_string(o, "guest", guest && guest[0] ? guest : NULL);
	hf_json_add_string(o, "message", message);
	hf_json_add_string(o, "remedy", remedy && remedy[0] ? remedy : NULL);
	return o;
}

struct json_object *hf_findings_first(struct json_object *findings, enum hf_verdict verdict)
{
	for (size_t i = 0; i < hf_json_array_size(findings); i++) {
		struct json_object *f = json_object_array_get_idx(findings, i);

		if (strcmp(hf_json_get_string(f, "verdict", ""), hf_verdict_name(verdict)) == 0)
			return f;
	}
	return NULL;
}

static enum hf_verdict add(struct json_object *findings, const char *id, enum hf_verdict verdict,
	const char *guest, const char *message, const char *remedy)
{
	hf_json_append(findings, hf_finding_new(id, verdict, guest, message, remedy));
	return verdict;
}

/*
 * Why a guest can't come along: what its policy is for. Return: the finding's id, NULL when it can.
 * What can't be told at all is none of these.
 */
static const char *obstacle(const struct hf_survey_guest *g, struct hf_error *e)
{
	if (g->reg.reason[0]) {
		hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, g->reg.remedy, "%s", g->reg.reason);
		return "guest.ram";
	}
	if (!g->asked || g->error.err)
		return NULL;
	if (hf_vmm_probe_check(&g->probe, e) < 0)
		return e->err == -EOPNOTSUPP ? "guest.blocked" : "guest.state";
	return hf_compat_judge(&g->probe, g->installed, e) == HF_COMPAT_BROKEN
		       ? "guest.qemu-version"
		       : NULL;
}

int hf_policy_adopt(const struct hf_survey_guest *g, struct hf_error *error)
{
	if (!g->reg.reason[0])
		hf_error_set(error, -EOPNOTSUPP, HF_ERR_NOT_READY, NULL,
			"it is not its RAM that is in the way");
	else if (hf_adopt_possible(&g->reg, error) && g->error.err)
		*error = g->error;
	else if (!error->err && g->asked)
		hf_vmm_probe_check(&g->probe, error);
	if (error->err)
		hf_error_prefix(error, "its policy is to adopt it, which can't be done");
	return error->err;
}

static enum hf_fate managed_save(const struct hf_survey_guest *g, struct hf_error *e)
{
	int r = 0;

	hf_error_clear(e);
	if (!hf_guest_is_libvirt(&g->reg.guest))
		r = hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"use not-eligible=shutdown or adopt", "it is no domain of libvirt's");
	if (r == 0)
		r = hf_libvirt_may_save(&g->reg.guest, hf_survey_is_luo(g->survey), e);
	if (r < 0) {
		hf_error_prefix(e, "its policy is to have libvirt save it, which can't be done");
		return HF_FATE_REFUSES;
	}
	hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, NULL,
		"by its policy libvirt saves it to disk when an update is prepared, and starts it "
		"again after the update");
	return HF_FATE_SAVED;
}

/* What its policy makes of a guest that can't come along, in words. */
static enum hf_fate fate(const struct hf_survey_guest *g, struct hf_error *e)
{
	switch (g->policy.not_eligible) {
	case HF_NOT_ELIGIBLE_ADOPT:
		hf_error_clear(e);
		if (hf_policy_adopt(g, e) < 0)
			return HF_FATE_REFUSES;
		hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, NULL,
			"by its policy it is adopted when an update is prepared");
		return HF_FATE_ADOPTED;
	case HF_NOT_ELIGIBLE_MANAGED_SAVE:
		return managed_save(g, e);
	case HF_NOT_ELIGIBLE_SHUTDOWN:
		/* Its monitor is libvirt's, and who shuts it down has to start it again. */
		if (hf_guest_is_libvirt(&g->reg.guest)) {
			hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY,
				"use not-eligible=managed-save, or `virsh shutdown` it",
				"its policy is to shut it down, which isn't done with libvirt's "
				"domains");
			return HF_FATE_REFUSES;
		}
		if (!g->reg.guest.qmp_path) {
			hf_error_set(e, -ENOTCONN, HF_ERR_NOT_READY,
				"shut it down by hand, and start it with --policy "
				"not-eligible=shutdown",
				"its policy is to shut it down, but it has no monitor to be "
				"asked over");
			return HF_FATE_REFUSES;
		}
		hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, NULL,
			"by its policy it is asked to power down when an update is prepared");
		return HF_FATE_SHUT_DOWN;
	default:
		return HF_FATE_REFUSES;
	}
}

enum hf_fate hf_check_fate(const struct hf_survey_guest *g)
{
	struct hf_error e = {0};

	if (obstacle(g, &e))
		return fate(g, &e);
	return g->error.err || g->policy_error.err ? HF_FATE_REFUSES : HF_FATE_COMES_ALONG;
}

size_t hf_check_count(const struct hf_survey *survey, enum hf_fate wanted)
{
	size_t n, count = 0;
	const struct hf_survey_guest *guests = hf_survey_guests(survey, &n);

	for (size_t i = 0; i < n; i++)
		count += hf_check_fate(&guests[i]) == wanted;
	return count;
}

static enum hf_verdict check_obstacle(const struct hf_survey_guest *g, const char *id,
	const struct hf_error *why, struct json_object *findings)
{
	const char *name = g->reg.guest.name;
	char message[sizeof(why->message) * 2 + 8];
	struct hf_error what = {0};
	enum hf_verdict verdict = fate(g, &what) == HF_FATE_REFUSES ? HF_REFUSAL : HF_WARNING;
	const char *remedy = what.remedy[0] ? what.remedy : why->remedy;

	if (verdict == HF_REFUSAL && !what.remedy[0] && hf_adopt_possible(&g->reg, NULL))
		snprintf(what.remedy, sizeof(what.remedy),
			"`holdfast adopt %.63s` moves it while it runs; or %.147s", name,
			g->reg.remedy);
	if (g->reg.reason[0])
		return hf_check_guest_ram(g, verdict, &what, findings);
	snprintf(message, sizeof(message), "%s%s%s", why->message, what.message[0] ? "; " : "",
		what.message);
	add(findings, id, verdict, name, message, remedy);
	/* The first one it is; here are the others. */
	for (size_t i = 1; strcmp(id, "guest.blocked") == 0 && i < g->probe.n_blockers; i++) {
		snprintf(message, sizeof(message), "QEMU can't save its device state: %s",
			g->probe.blockers[i]);
		add(findings, id, verdict, name, message, remedy);
	}
	return verdict;
}

static enum hf_verdict check_ready(
	const struct hf_survey_guest *g, enum hf_compat *ret_compat, struct json_object *findings)
{
	const char *name = g->reg.guest.name, *id;
	struct hf_error e = {0};

	if (g->policy_error.err)
		return add(findings, "guest.policy", HF_REFUSAL, name, g->policy_error.message,
			"use a holdfastd that is as new as the holdfast-vmm that started it");
	id = obstacle(g, &e);
	if (id)
		return check_obstacle(g, id, &e, findings);
	if (g->error.err)
		return add(findings, "guest.monitor", HF_REFUSAL, name, g->error.message,
			g->error.remedy);
	if (g->asked)
		*ret_compat = hf_compat_judge(&g->probe, g->installed, &e);
	add(findings, "guest.eligible", HF_OK, name, "its memory and devices can be preserved",
		NULL);
	if (*ret_compat == HF_COMPAT_SAME)
		return HF_OK;
	return add(findings, "guest.qemu-version", HF_WARNING, name, e.message, e.remedy);
}

enum hf_verdict hf_check_guest(
	const struct hf_survey_guest *g, const char *to_kernel, struct json_object *findings)
{
	enum hf_compat compat = HF_COMPAT_SAME;
	enum hf_verdict worst = check_ready(g, &compat, findings), v = HF_OK;

	if (!g->reg.reason[0])
		v = hf_check_guest_caveats(g, to_kernel, compat, findings);
	return HF_MAX(worst, v);
}

static enum hf_verdict check_config(const struct hf_config *config, struct json_object *findings)
{
	const struct hf_config_problem *problems;
	size_t n, total;

	if (!config)
		return add(findings, "host.config", HF_REFUSAL, NULL,
			"the configuration can't be read: out of memory", NULL);
	problems = hf_config_problems(config, &n, &total);
	for (size_t i = 0; i < n; i++) {
		const struct hf_config_problem *p = &problems[i];
		char where[16] = "", message[4096 + sizeof(p->message)];

		if (p->line)
			snprintf(where, sizeof(where), ":%u", p->line);
		snprintf(message, sizeof(message), "%s%s: %s", p->file, where, p->message);
		add(findings, "host.config", HF_REFUSAL, NULL, message, p->remedy);
	}
	return total > 0 ? HF_REFUSAL : HF_OK;
}

enum hf_verdict hf_check_guests(
	const struct hf_survey *survey, const char *to_kernel, struct json_object *findings)
{
	enum hf_verdict worst = check_config(hf_survey_config(survey), findings);
	const struct hf_error *unknown = hf_survey_list_error(survey);
	char message[128];
	size_t n;
	const struct hf_survey_guest *guests = hf_survey_guests(survey, &n);

	for (size_t i = 0; i < n; i++) {
		enum hf_verdict v = hf_check_guest(&guests[i], to_kernel, findings);

		worst = HF_MAX(worst, v);
	}
	if (unknown)
		worst = add(findings, "host.guests", HF_REFUSAL, NULL, unknown->message,
			unknown->remedy);
	if (hf_survey_unreadable(survey) > 0) {
		snprintf(message, sizeof(message),
			"%zu guest registrations can't be read, or are not what their processes "
			"are",
			hf_survey_unreadable(survey));
		worst = add(findings, "host.registrations", HF_REFUSAL, NULL, message,
			"look at the files under /run/holdfast/guests");
	}
	return worst;
}
