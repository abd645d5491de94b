/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/check.h"

#include <stdio.h>
#include <string.h>

#include "agent/check-guest.h"
#include "common/json.h"

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

static enum hf_verdict add(struct json_object *findings, const char *id, enum hf_verdict verdict,
	const char *guest, const char *message, const char *remedy)
{
	hf_json_append(findings, hf_finding_new(id, verdict, guest, message, remedy));
	return verdict;
}

static enum hf_verdict check_ready(
	const struct hf_survey_guest *g, enum hf_compat *ret_compat, struct json_object *findings)
{
	const char *name = g->reg.guest.name;
	struct hf_error e = {0};
	enum hf_compat compat;
	char message[512];

	if (g->error.err)
		return add(findings, "guest.monitor", HF_REFUSAL, name, g->error.message,
			g->error.remedy);
	for (size_t i = 0; g->asked && i < g->probe.n_blockers; i++) {
		snprintf(message, sizeof(message), "QEMU can't save its device state: %s",
			g->probe.blockers[i]);
		add(findings, "guest.blocked", HF_REFUSAL, name, message,
			"remove the device or feature that QEMU names");
	}
	if (g->asked && g->probe.n_blockers > 0)
		return HF_REFUSAL;
	compat = g->asked ? hf_compat_judge(&g->probe, g->installed, &e) : HF_COMPAT_SAME;
	*ret_compat = compat;
	if (compat == HF_COMPAT_BROKEN)
		return add(findings, "guest.qemu-version", HF_REFUSAL, name, e.message, e.remedy);
	add(findings, "guest.eligible", HF_OK, name, "its memory and devices can be preserved",
		NULL);
	if (compat == HF_COMPAT_SAME)
		return HF_OK;
	return add(findings, "guest.qemu-version", HF_WARNING, name, e.message, e.remedy);
}

enum hf_verdict hf_check_guest(
	const struct hf_survey_guest *g, const char *to_kernel, struct json_object *findings)
{
	enum hf_compat compat = HF_COMPAT_SAME;
	enum hf_verdict worst, v;

	if (g->reg.reason[0])
		return hf_check_guest_ram(g, findings);
	worst = check_ready(g, &compat, findings);
	v = hf_check_guest_caveats(g, to_kernel, compat, findings);
	return HF_MAX(worst, v);
}

enum hf_verdict hf_check_guests(
	const struct hf_survey *survey, const char *to_kernel, struct json_object *findings)
{
	enum hf_verdict worst = HF_OK;
	char message[128];
	size_t n;
	const struct hf_survey_guest *guests = hf_survey_guests(survey, &n);

	for (size_t i = 0; i < n; i++) {
		enum hf_verdict v = hf_check_guest(&guests[i], to_kernel, findings);

		worst = HF_MAX(worst, v);
	}
	if (hf_survey_unreadable(survey) > 0) {
		snprintf(message, sizeof(message), "%zu guest registrations can't be read",
			hf_survey_unreadable(survey));
		worst = add(findings, "host.registrations", HF_REFUSAL, NULL, message,
			"look at the files under /run/holdfast/guests");
	}
	return worst;
}
