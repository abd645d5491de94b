/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/compat.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Room for a version and, where that is needed to tell two apart, its package. */
#define NAME_BYTES 128

static bool same_numbers(const struct hf_qmp_version *a, const struct hf_qmp_version *b)
{
	return a->major == b->major && a->minor == b->minor && a->micro == b->micro;
}

static void write_name(
	const struct hf_qmp_version *v, bool with_package, char buf[static NAME_BYTES])
{
	bool package = with_package && v->package[0];

	snprintf(buf, NAME_BYTES, "%u.%u.%u%s%s%s", v->major, v->minor, v->micro,
		package ? " (" : "", package ? v->package : "", package ? ")" : "");
}

static bool has_machine(const struct hf_installed_vmm *installed, const char *type)
{
	if (!installed->machines)
		return true;
	for (char **p = installed->machines; *p; p++)
		if (strcmp(*p, type) == 0)
			return true;
	return false;
}

/* From 11.1 on, as far as is known: 11.1.3 was tried. */
static bool checks_queues(const struct hf_qmp_version *v)
{
	return v->major > 11 || (v->major == 11 && v->minor >= 1);
}

static enum hf_compat unknown(const struct hf_vmm_probe *running, const struct hf_error *error,
	const char *now, struct hf_error *ret_why)
{
	if (error && error->err == -ENOEXEC) {
		hf_error_set(ret_why, -ENOEXEC, HF_ERR_NOT_READY,
			error->remedy[0] ? error->remedy : "install the QEMU that it is to run on",
			"it runs on QEMU %s, and after the jump nothing could be started: %.320s",
			now, error->message);
		return HF_COMPAT_BROKEN;
	}
	hf_error_set(ret_why, -EAGAIN, HF_ERR_NOT_READY,
		"see that the program which it was started with is a QEMU that can load its state",
		"it runs on QEMU %s, and which one is installed now can't be told%s%.320s", now,
		error ? ": " : "", error ? error->message : "");
	return HF_COMPAT_DIFFERENT;
}

enum hf_compat hf_compat_judge(const struct hf_vmm_probe *running,
	const struct hf_installed_vmm *installed, struct hf_error *ret_why)
{
	const struct hf_qmp_version *old = &running->version;
	const struct hf_qmp_version *new = installed ? &installed->version : NULL;
	char now[NAME_BYTES], then[NAME_BYTES], remedy[256];
	bool rebuilt;

	rebuilt = new &&same_numbers(old, new);
	write_name(old, rebuilt, now);
	if (!installed || installed->error.err)
		return unknown(running, installed ? &installed->error : NULL, now, ret_why);
	if (rebuilt && strcmp(old->package, new->package) == 0)
		return HF_COMPAT_SAME;
	write_name(new, rebuilt, then);
	snprintf(remedy, sizeof(remedy),
		"install QEMU %.70s again, or shut the guest down and start it anew with %.70s",
		now, then);
	if (!has_machine(installed, running->machine_type)) {
		hf_error_set(ret_why, -EOPNOTSUPP, HF_ERR_NOT_READY, remedy,
			"it runs on QEMU %s; QEMU %s, which is installed now, has no machine "
			"type `%s`",
			now, then, running->machine_type);
		return HF_COMPAT_BROKEN;
	}
	if (running->odd_queue_entries > 0 && checks_queues(new)) {
		hf_error_set(ret_why, -EOPNOTSUPP, HF_ERR_NOT_READY, remedy,
			"it runs on QEMU %s, which makes virtqueues larger than it should (%llu "
			"entries of %s); QEMU %s, which is installed now, refuses to load them",
			now, (unsigned long long)running->odd_queue_entries,
			running->odd_queue_device, then);
		return HF_COMPAT_BROKEN;
	}
	snprintf(remedy, sizeof(remedy),
		"try this pair on a guest that may be lost, or shut the guest down and start it "
		"anew with %.70s",
		then);
	hf_error_set(ret_why, -ESTALE, HF_ERR_NOT_READY, remedy,
		"it runs on QEMU %s; QEMU %s is installed now and will have to load its state", now,
		then);
	return HF_COMPAT_DIFFERENT;
}
