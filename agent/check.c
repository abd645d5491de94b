/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/check.h"

#include <stdio.h>
#include <string.h>

#include "agent/kexec.h"
#include "common/fd.h"
#include "common/json.h"
#include "memfd-preserve/luo.h"
#include "vmm-glue/compat.h"

#define SHMEM_HUGE "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

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

static enum hf_verdict check_huge_pages(struct json_object *findings)
{
	cleanup_free char *text = NULL;

	if (hf_file_read(SHMEM_HUGE, 4096, &text, NULL) < 0)
		return HF_OK;
	if (strstr(text, "[never]") || strstr(text, "[deny]"))
		return add(findings, "host.shmem-huge", HF_WARNING, NULL,
			"shared memory gets no huge pages: preserving and retrieving guest RAM, "
			"and the new "
			"kernel's boot, take many times as long",
			"echo advise > " SHMEM_HUGE " before guests start");
	return add(
		findings, "host.shmem-huge", HF_OK, NULL, "shared memory may use huge pages", NULL);
}

enum hf_verdict hf_check_host(const struct hf_agent *agent, struct json_object *findings)
{
	enum hf_verdict worst = HF_OK, v;
	struct hf_error e = {0};

	if (!hf_agent_is_luo(agent))
		return add(findings, "host.carrier", HF_OK, NULL,
			"the agent keeps guests' memory itself: QEMU is replaced, the kernel stays",
			NULL);
	if (hf_luo_available(&e) < 0)
		worst = add(findings, "host.luo", HF_REFUSAL, NULL, e.message, e.remedy);
	else
		add(findings, "host.luo", HF_OK, NULL, "the kernel has a Live Update Orchestrator",
			NULL);
	hf_error_clear(&e);
	if (hf_kexec_allowed(&e) < 0)
		worst = add(findings, "host.kexec", HF_REFUSAL, NULL, e.message, e.remedy);
	else
		add(findings, "host.kexec", HF_OK, NULL, "a kernel may be loaded", NULL);
	v = check_huge_pages(findings);
	return HF_MAX(worst, v);
}

enum hf_verdict hf_check_guest(const struct hf_survey_guest *g, struct json_object *findings)
{
	const char *name = g->reg.guest.name;
	struct hf_error e = {0};
	enum hf_compat compat;
	char message[512];

	if (g->reg.reason[0] && g->reg.guest.qmp_path) {
		/* The agent has a monitor of such a guest only where its RAM can be moved. */
		snprintf(message, sizeof(message),
			"`holdfast adopt %.63s` moves it while it runs; or %s", name,
			g->reg.remedy);
		return add(findings, "guest.ram", HF_REFUSAL, name, g->reg.reason, message);
	}
	if (g->reg.reason[0])
		return add(findings, "guest.ram", HF_REFUSAL, name, g->reg.reason, g->reg.remedy);
	if (g->error.err)
		return add(findings, "guest.monitor", HF_REFUSAL, name, g->error.message,
			g->error.remedy);
	if (g->asked && g->probe.n_blockers > 0) {
		snprintf(message, sizeof(message), "QEMU can't save its device state: %s",
			g->probe.blockers[0]);
		return add(findings, "guest.blocked", HF_REFUSAL, name, message,
			"remove the device or feature that QEMU names");
	}
	compat = g->asked ? hf_compat_judge(&g->probe, g->installed, &e) : HF_COMPAT_SAME;
	if (compat == HF_COMPAT_BROKEN)
		return add(findings, "guest.qemu-version", HF_REFUSAL, name, e.message, e.remedy);
	add(findings, "guest.eligible", HF_OK, name, "its memory and devices can be preserved",
		NULL);
	if (compat == HF_COMPAT_SAME)
		return HF_OK;
	return add(findings, "guest.qemu-version", HF_WARNING, name, e.message, e.remedy);
}

enum hf_verdict hf_check_guests(const struct hf_survey *survey, struct json_object *findings)
{
	enum hf_verdict worst = HF_OK;
	char message[128];
	size_t n;
	const struct hf_survey_guest *guests = hf_survey_guests(survey, &n);

	for (size_t i = 0; i < n; i++) {
		enum hf_verdict v = hf_check_guest(&guests[i], findings);

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
