/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/check-target.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "common/json.h"
#include "vmm-glue/cmdline.h"

#define CPUINFO_BYTES 16384 /* more than one processor takes: they are all alike */
#define MESSAGE_BYTES 1024

/* ---- the running kernel ---- */

static bool has_flag(const char *flags, const char *flag)
{
	size_t n = strlen(flag);

	for (const char *p = flags; (p = strstr(p, flag)); p += n) {
		if (p[-1] == ' ' && (p[n] == ' ' || p[n] == '\n' || p[n] == 0))
			return true;
	}
	return false;
}

static void read_processor(const char *path, struct hf_running *ret)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	cleanup_free char *text = calloc(1, CPUINFO_BYTES);
	size_t size = 0;
	ssize_t n;
	char *flags, *end;

	if (fd < 0 || !text)
		return;
	while (size < CPUINFO_BYTES - 1 &&
		(n = read(fd, text + size, CPUINFO_BYTES - 1 - size)) > 0)
		size += (size_t)n;
	flags = strstr(text, "\nflags");
	if (!flags)
		return;
	end = strchr(flags + 1, '\n');
	if (end)
		*end = 0;
	ret->svm = has_flag(flags + 1, "svm");
	ret->vmx = has_flag(flags + 1, "vmx");
}

void hf_running_read(const char *kho, const char *cpuinfo, struct hf_running *ret)
{
	*ret = (struct hf_running){0};
	hf_kho_running_abi(kho, &ret->formats, &ret->formats_error);
	read_processor(cpuinfo, ret);
}

/* ---- the guests ---- */

static void add_needs(const struct hf_manifest_guest *g, struct hf_target_needs *needs)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;

	for (size_t i = 0; i < g->n_net; i++) {
		needs->tap = true;
		needs->bridge = needs->bridge || g->net[i].bridge;
	}
	/* Those that get another name at each start are on the command line only. */
	if (hf_cmdline_of_guest(g, &plan, NULL) < 0)
		return;
	for (size_t i = 0; i < plan->n_taps; i++) {
		needs->tap = true;
		needs->bridge = needs->bridge || plan->taps[i].bridge || plan->taps[i].helper_used;
	}
}

struct hf_target_needs hf_target_needs_of(const struct hf_survey *survey)
{
	struct hf_target_needs needs = {0};
	size_t n;
	const struct hf_survey_guest *guests = hf_survey_guests(survey, &n);

	for (size_t i = 0; i < n; i++)
		add_needs(&guests[i].reg.guest, &needs);
	return needs;
}

/* ---- findings ---- */

static enum hf_verdict add(struct json_object *findings, const char *id, enum hf_verdict verdict,
	const char *message, const char *remedy)
{
	hf_json_append(findings, hf_finding_new(id, verdict, NULL, message, remedy));
	return verdict;
}

/* One family on both sides. */
enum fit { FIT_SAME, FIT_UNKNOWN, FIT_OTHER, FIT_MISSING };

struct comparison {
	const char *running[HF_KERNEL_N_FAMILIES]; /* "" where unknown */
	enum fit fit[HF_KERNEL_N_FAMILIES];
	enum fit worst;
};

static struct comparison compare(
	const struct hf_kernel_strings *target, const struct hf_kho_abi *running)
{
	struct comparison c = {
		.running = {[HF_KERNEL_KHO] = running->kho,
			[HF_KERNEL_LUO] = running->luo,
			[HF_KERNEL_MEMFD] = running->memfd},
	};

	for (size_t f = 0; f < HF_KERNEL_N_FAMILIES; f++) {
		if (target->formats[f].n == 0)
			c.fit[f] = FIT_MISSING;
		else if (!c.running[f][0])
			c.fit[f] = FIT_UNKNOWN;
		else if (hf_kernel_formats_has(&target->formats[f], c.running[f]))
			c.fit[f] = FIT_SAME;
		else
			c.fit[f] = FIT_OTHER;
		c.worst = HF_MAX(c.worst, c.fit[f]);
	}
	return c;
}

struct text {
	char s[256];
};

static void append(struct text *t, const char *separator, const char *word)
{
	size_t n = strlen(t->s);

	snprintf(t->s + n, sizeof(t->s) - n, "%s%s", n ? separator : "", word);
}

/* "kho-v4, luo-v5, no memfd" */
static struct text target_text(const struct hf_kernel_strings *target)
{
	struct text t = {""};

	for (size_t f = 0; f < HF_KERNEL_N_FAMILIES; f++) {
		const struct hf_kernel_formats *formats = &target->formats[f];

		if (formats->n == 0)
			append(&t, ", ", "no ");
		if (formats->n == 0)
			append(&t, "", hf_kernel_family_name(f));
		for (size_t i = 0; i < formats->n; i++)
			append(&t, i ? "/" : ", ", formats->names[i]);
	}
	return t;
}

/* "kho-v4, luo-v5, memfd unknown" */
static struct text running_text(const struct comparison *c)
{
	struct text t = {""};

	for (size_t f = 0; f < HF_KERNEL_N_FAMILIES; f++) {
		append(&t, ", ", c->running[f][0] ? c->running[f] : hf_kernel_family_name(f));
		if (!c->running[f][0])
			append(&t, " ", "unknown");
	}
	return t;
}

static enum hf_verdict check_formats(
	const struct hf_target *t, const struct hf_running *running, struct json_object *findings)
{
	const struct hf_kernel_strings *strings = &t->image.strings;
	const struct comparison c = compare(strings, &running->formats);
	const struct text theirs = target_text(strings), ours = running_text(&c);
	const struct hf_error *why = &running->formats_error;
	char message[MESSAGE_BYTES];

	if (c.worst >= FIT_OTHER) {
		snprintf(message, sizeof(message),
			"%s would lose every guest: the running kernel hands over as %s, and it "
			"understands %s",
			t->kernel, ours.s, theirs.s);
		return add(findings, "target.formats", HF_REFUSAL, message,
			c.worst == FIT_MISSING
				? "give a kernel with CONFIG_KEXEC_HANDOVER, CONFIG_LIVEUPDATE and "
				  "CONFIG_LIVEUPDATE_MEMFD"
				: "give a kernel with the same formats, or shut the guests down "
				  "and reboot");
	}
	if (c.fit[HF_KERNEL_KHO] == FIT_UNKNOWN || c.fit[HF_KERNEL_LUO] == FIT_UNKNOWN) {
		snprintf(message, sizeof(message),
			"%s understands %s; whether that is what the running kernel hands over "
			"can't "
			"be told: %s",
			t->kernel, theirs.s,
			why->err ? why->message : "it does not show its formats in debugfs");
		return add(findings, "target.formats", HF_WARNING, message,
			why->remedy[0] ? why->remedy
				       : "boot with kho=on liveupdate=on, or try the update on an "
					 "empty host first");
	}
	if (c.fit[HF_KERNEL_MEMFD] == FIT_UNKNOWN)
		snprintf(message, sizeof(message),
			"it understands the running kernel's %s and %s; its %s is not compared, "
			"for "
			"the running kernel shows none",
			c.running[HF_KERNEL_KHO], c.running[HF_KERNEL_LUO],
			strings->formats[HF_KERNEL_MEMFD].names[0]);
	else
		snprintf(
			message, sizeof(message), "it understands the running kernel's %s", ours.s);
	return add(findings, "target.formats", HF_OK, message, NULL);
}

static enum hf_verdict check_loadable(const struct hf_target *t, struct json_object *findings)
{
	const char *why = hf_kernel_image_no_kexec(&t->image);
	char message[MESSAGE_BYTES];

	if (!why)
		return HF_OK;
	snprintf(message, sizeof(message), "%s can't be loaded: %s", t->kernel, why);
	return add(findings, "target.kexec", HF_REFUSAL, message,
		t->image.kind == HF_KERNEL_UKI
			? "give the kernel and, with --initrd, the initrd it was made of"
			: "give a bzImage with CONFIG_RELOCATABLE");
}

/* One option that should be on. */
static enum hf_verdict check_option(const struct hf_target *t, const char *option, const char *id,
	enum hf_verdict verdict, const char *consequence, struct json_object *findings)
{
	char message[MESSAGE_BYTES], remedy[128];

	if (hf_kernel_config_has(t->config, option))
		return HF_OK;
	snprintf(message, sizeof(message), "%s has no %s (says %s): %s", t->kernel, option,
		t->config_path ? t->config_path : "the configuration in it", consequence);
	snprintf(remedy, sizeof(remedy), "give a kernel with %s", option);
	return add(findings, id, verdict, message, remedy);
}

static enum hf_verdict check_config(const struct hf_target *t, const struct hf_running *running,
	const struct hf_target_needs *needs, struct json_object *findings)
{
	static const char no_kvm[] = "guests that use KVM could not be started again";
	enum hf_verdict worst = HF_OK, v;
	char message[MESSAGE_BYTES];

	if (!t->config)
		return HF_OK;
	if (running->svm) {
		v = check_option(t, "CONFIG_KVM_AMD", "target.kvm", HF_REFUSAL, no_kvm, findings);
		worst = HF_MAX(worst, v);
	}
	if (running->vmx) {
		v = check_option(t, "CONFIG_KVM_INTEL", "target.kvm", HF_REFUSAL, no_kvm, findings);
		worst = HF_MAX(worst, v);
	}
	if (needs->tap) {
		v = check_option(t, "CONFIG_TUN", "target.tun", HF_WARNING,
			"guests' taps can't be made anew", findings);
		worst = HF_MAX(worst, v);
	}
	if (needs->bridge) {
		v = check_option(t, "CONFIG_BRIDGE", "target.bridge", HF_WARNING,
			"guests' taps would wait for bridges that never come", findings);
		worst = HF_MAX(worst, v);
	}
	if (worst != HF_OK)
		return worst;
	snprintf(message, sizeof(message), "it has what the guests need, says %s",
		t->config_path ? t->config_path : "the configuration in it");
	return add(findings, "target.config", HF_OK, message, NULL);
}

enum hf_verdict hf_check_target(bool in_memory, const struct hf_target *t,
	const struct hf_error *error, const struct hf_running *running,
	const struct hf_target_needs *needs, struct json_object *findings)
{
	enum hf_verdict worst = HF_OK, v;
	char message[MESSAGE_BYTES];

	if (error)
		return add(findings, "target.image", HF_REFUSAL, error->message, error->remedy);
	snprintf(message, sizeof(message), "%s is Linux %s", t->kernel,
		t->image.release[0] ? t->image.release : "of unknown version");
	add(findings, "target.image", HF_OK, message, NULL);
	v = check_loadable(t, findings);
	worst = HF_MAX(worst, v);
	if (in_memory) {
		v = check_formats(t, running, findings);
		worst = HF_MAX(worst, v);
	}
	v = check_config(t, running, needs, findings);
	return HF_MAX(worst, v);
}
