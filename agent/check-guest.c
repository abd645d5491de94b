/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/check-guest.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "common/json.h"
#include "vmm-glue/traits.h"

#define MESSAGE_BYTES 512
#define MIB (1ULL << 20)

static enum hf_verdict add(struct json_object *findings, const char *id, enum hf_verdict verdict,
	const char *guest, const char *message, const char *remedy)
{
	hf_json_append(findings, hf_finding_new(id, verdict, guest, message, remedy));
	return verdict;
}

/* ---- why not ---- */

enum hf_verdict hf_check_guest_ram(const struct hf_survey_guest *g, enum hf_verdict verdict,
	const struct hf_error *fate, struct json_object *findings)
{
	const struct hf_registration *reg = &g->reg;
	const char *name = reg->guest.name;
	struct hf_traits t;
	/* A sentence in parts: how it begins, where the launcher says the same, and its end. */
	const struct {
		const char *id;
		const char *before;
		const char *what; /* "" where the guest has no such thing */
		const char *after;
		const char *end;
		const char *remedy;
	} rows[] = {
		{"guest.vfio", "it has a host device passed through (", t.vfio, ")", "",
			"use virtio devices"},
		{"guest.hugetlb", "RAM ", t.hugetlb, " is on huge",
			"tlb pages, which the kernel can't preserve",
			"leave hugetlb out: transparent huge pages do"},
		{"guest.discard-data", "RAM ", t.discard_data, " has discard-data=on",
			": QEMU wipes it when it ends", "leave discard-data out"},
		{"guest.virtio-mem", "its device ", t.virtio_mem, " may empty its RAM",
			" when a new QEMU starts", "use pc-dimm"},
	};
	const char *sep = fate->message[0] ? "; " : "";
	bool said = false;
	char message[sizeof(reg->reason) + sizeof(fate->message) + 8];

	hf_traits_find(reg->guest.argv, reg->guest.n_argv, &t);
	/* The launcher gave one reason. If it is one of these it goes by that name. */
	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		size_t n;

		if (!rows[i].what[0])
			continue;
		n = (size_t)snprintf(message, sizeof(message), "%s%s%s", rows[i].before,
			rows[i].what, rows[i].after);
		said |= strncmp(reg->reason, message, n) == 0;
		snprintf(message + n, sizeof(message) - n, "%s%s%s", rows[i].end, sep,
			fate->message);
		add(findings, rows[i].id, verdict, name, message,
			fate->remedy[0] ? fate->remedy : rows[i].remedy);
	}
	if (said)
		return verdict;
	snprintf(message, sizeof(message), "%s%s%s", reg->reason, sep, fate->message);
	return add(findings, "guest.ram", verdict, name, message,
		fate->remedy[0] ? fate->remedy : reg->remedy);
}

/* ---- what to know ---- */

static enum hf_verdict check_balloon(const struct hf_survey_guest *g, struct json_object *findings)
{
	const struct hf_vmm_probe *p = &g->probe;
	const char *name = g->reg.guest.name;
	enum hf_verdict worst = HF_OK;
	char message[MESSAGE_BYTES];
	uint64_t ram = 0;

	for (size_t i = 0; i < g->reg.guest.n_ram; i++)
		ram += g->reg.guest.ram[i].size;
	if (p->balloon && p->balloon_bytes < ram) {
		snprintf(message, sizeof(message),
			"it has a balloon, which holds %llu MiB of its %llu MiB: preserving fills "
			"them, so the host needs that memory, and inflating it gives none back "
			"between prepare and the end of the update",
			(unsigned long long)((ram - p->balloon_bytes) / MIB),
			(unsigned long long)(ram / MIB));
		worst = add(findings, "guest.balloon", HF_WARNING, name, message,
			"see that the host has so much memory, and leave the balloon alone "
			"meanwhile");
	} else if (p->balloon) {
		worst = add(findings, "guest.balloon", HF_WARNING, name,
			"it has a balloon: inflating it gives no memory back between prepare and "
			"the end of the update",
			"leave the balloon alone meanwhile");
	}
	if (p->free_page_reporting)
		worst = add(findings, "guest.free-page-reporting", HF_WARNING, name,
			"it reports free pages: preserving fills what it gave back, so the host "
			"needs that memory, and it gives none back between prepare and the end of "
			"the update",
			"see that the host has memory for the whole of its RAM");
	return worst;
}

static enum hf_verdict check_cpu(const struct hf_survey_guest *g, const struct hf_traits *t,
	const char *to_kernel, enum hf_compat compat, struct json_object *findings)
{
	char message[MESSAGE_BYTES];
	struct utsname uts;
	bool other_kernel;

	uname(&uts);
	other_kernel = to_kernel && strcmp(to_kernel, uts.release) != 0;
	if (!t->cpu[0] || (!other_kernel && compat == HF_COMPAT_SAME))
		return HF_OK;
	snprintf(message, sizeof(message),
		"its CPU is `%s`, which is whatever %s%s%s offers: one feature less than now, and "
		"QEMU refuses its state after the jump; or the guest finds a CPU that it did not "
		"start with",
		t->cpu, other_kernel ? "the new kernel" : "",
		other_kernel && compat != HF_COMPAT_SAME ? " and " : "",
		compat != HF_COMPAT_SAME ? "the QEMU that is installed" : "");
	return add(findings, "guest.cpu-model", HF_WARNING, g->reg.guest.name, message,
		"start it with a CPU model that has a name, such as -cpu EPYC or Skylake-Server");
}

static enum hf_verdict check_machine(const struct hf_survey_guest *g, const struct hf_traits *t,
	enum hf_compat compat, struct json_object *findings)
{
	char message[MESSAGE_BYTES];

	if (!t->machine_alias || compat != HF_COMPAT_DIFFERENT || !g->probe.machine_type[0])
		return HF_OK;
	snprintf(message, sizeof(message),
		"its machine type is %s%s%s, which another QEMU takes for a newer one: it will be "
		"started as `%s`, which it is, until somebody starts it anew",
		t->machine[0] ? "`" : "not given", t->machine, t->machine[0] ? "`" : "",
		g->probe.machine_type);
	return add(findings, "guest.machine-type", HF_WARNING, g->reg.guest.name, message,
		"give the type with its version (-machine) where the guest is defined");
}

static enum hf_verdict check_disks(const struct hf_survey_guest *g, struct json_object *findings)
{
	char message[MESSAGE_BYTES], more[32] = "";

	if (g->probe.n_no_flush == 0)
		return HF_OK;
	if (g->probe.n_no_flush > 1)
		snprintf(more, sizeof(more), " and %u more", g->probe.n_no_flush - 1);
	snprintf(message, sizeof(message),
		"its disk %s%s ignores the guest's flushes (cache=unsafe): what is not on disk is "
		"written back before the jump, so the update itself loses nothing; but that takes "
		"its time in the blackout, and if the host crashes, then or later, the disk may be "
		"damaged",
		g->probe.no_flush_disk, more);
	return add(findings, "guest.disk-cache", HF_WARNING, g->reg.guest.name, message,
		"use cache=none or writeback for data that matters");
}

static void check_agent(const struct hf_survey_guest *g, struct json_object *findings)
{
	const struct hf_vmm_probe *p = &g->probe;

	if (!p->agent_known)
		return;
	add(findings, "guest.agent", HF_OK, g->reg.guest.name,
		!p->agent_channel ? "it has no channel for a guest agent; an update needs none"
		: p->agent_open	  ? "its guest agent is there"
				  : "it has a channel for a guest agent, and nothing in the guest "
				    "has it open; an update needs none",
		NULL);
}

enum hf_verdict hf_check_guest_caveats(const struct hf_survey_guest *g, const char *to_kernel,
	enum hf_compat compat, struct json_object *findings)
{
	enum hf_verdict worst = HF_OK, v;
	struct hf_traits t;

	if (!g->asked || g->error.err)
		return HF_OK;
	hf_traits_find(g->reg.guest.argv, g->reg.guest.n_argv, &t);
	v = check_balloon(g, findings);
	worst = HF_MAX(worst, v);
	v = check_cpu(g, &t, to_kernel, compat, findings);
	worst = HF_MAX(worst, v);
	v = check_machine(g, &t, compat, findings);
	worst = HF_MAX(worst, v);
	v = check_disks(g, findings);
	worst = HF_MAX(worst, v);
	check_agent(g, findings);
	return worst;
}
