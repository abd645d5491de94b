/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/adopt-guest.h"

#include <stdio.h>
#include <string.h>

#include "agent/config.h"
#include "common/fd.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/process.h"

static int oom(struct hf_error *error)
{
	return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

static bool is_called(const struct hf_registration *reg, const char *id)
{
	return strcmp(reg->guest.name, id) == 0 || strcmp(reg->guest.uuid, id) == 0;
}

/* Finds the guest among the registered ones, and takes it out; or sees that it isn't among them. */
static int take_registered(
	const struct hf_adopt_request *q, struct hf_registration *reg, struct hf_error *error)
{
	struct hf_registration *regs = NULL;
	size_t n = 0;
	int r = hf_registration_list(&regs, &n, NULL);

	if (r < 0)
		return hf_error_set(
			error, r, HF_ERR_FAILED, NULL, "can't list the guests: %s", strerror(-r));
	for (size_t i = 0; i < n && r == 0; i++) {
		if (q->guest && is_called(&regs[i], q->guest) && !reg->pid) {
			*reg = regs[i];
			regs[i] = (struct hf_registration){0};
		} else if (!q->guest && (regs[i].pid == q->pid ||
						strcmp(regs[i].guest.uuid, reg->guest.uuid) == 0)) {
			r = hf_error_set(error, -EEXIST, HF_ERR_INVALID, "adopt it by its name",
				"process %d is guest %s, or has its uuid", (int)q->pid,
				regs[i].guest.name);
		}
	}
	hf_registration_list_free(regs, n);
	if (r == 0 && q->guest && !reg->pid) {
		r = hf_error_set(error, -ENOENT, HF_ERR_NO_GUEST,
			"`holdfast guests` lists those there are; others are named by --pid",
			"there is no guest with this name or uuid");
		hf_error_guest(error, q->guest);
	}
	return r;
}

static int set_paths(const struct hf_adopt_request *q, struct hf_manifest_guest *g,
	char **ret_private_path, struct hf_error *error)
{
	cleanup_free char *path = NULL;

	if (asprintf(&path, "%s/qmp/%s.sock", hf_run_dir(), g->uuid) < 0) {
		path = NULL;
		return oom(error);
	}
	if (strlen(path) >= 108)
		return hf_error_set(error, -ENAMETOOLONG, HF_ERR_FAILED,
			"set HOLDFAST_RUN_DIR to a shorter one",
			"the path %.100s is too long for a socket", hf_run_dir());
	if (q->qmp_path && hf_manifest_set(&g->qmp_path, q->qmp_path) < 0)
		return oom(error);
	if (!g->qmp_path)
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID,
			"name a QMP socket of it that nobody uses, with --qmp",
			"holdfast has no monitor of this guest");
	*ret_private_path = TAKE_PTR(path);
	return 0;
}

/* The command line that it will have, and the RAM that this one gives. */
static int plan_ram(struct hf_registration *reg, bool foreign, struct hf_error *error)
{
	struct hf_manifest_guest *g = &reg->guest;
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	cleanup_free char **argv = NULL;
	size_t n = 0;
	int r;

	/* One with a reason and nothing to rewrite: of an adoption whose agent died, see note(). */
	foreign |= reg->reason[0] != 0;
	if (!foreign)
		return hf_error_set(error, -EALREADY, HF_ERR_STATE, "there is nothing to do",
			"its RAM can be preserved as it is");
	r = hf_cmdline_adopt((const char *const *)g->argv, g->n_argv, &argv, &n, error);
	/* Such a command line alone makes no memfds: holdfast-vmm does. */
	if (r == -EALREADY && foreign)
		hf_error_clear(error);
	else if (r < 0)
		return r;
	else if (hf_manifest_set_strings(&g->argv, &g->n_argv, (const char *const *)argv, n) < 0)
		return oom(error);
	r = hf_cmdline_parse((const char *const *)g->argv, g->n_argv, &plan, error);
	if (r < 0)
		return r;
	for (size_t i = 0; i < plan->n_ram; i++) {
		struct hf_manifest_ram *ram = hf_manifest_add_ram(g);

		if (!ram || hf_manifest_set(&ram->id, plan->ram[i].id) < 0)
			return oom(error);
		ram->size = plan->ram[i].size;
		ram->fd = -1;
	}
	return 0;
}

int hf_adopt_describe(const struct hf_adopt_request *q, struct hf_registration *reg,
	char **ret_private_path, struct hf_error *error)
{
	int r;

	if (!q->guest == !q->pid)
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, NULL,
			"either a guest or a process is adopted");
	r = q->guest ? 0 : hf_process_describe(q->pid, q->name, reg, error);
	if (r == 0)
		r = take_registered(q, reg, error);
	if (r == 0 && hf_guest_is_libvirt(&reg->guest))
		r = hf_error_set(error, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"`holdfast libvirt enable` it, then shut it down and start it",
			"its memory can't be moved while libvirt manages it");
	if (r == 0)
		r = plan_ram(reg, !q->guest, error);
	if (r == 0)
		r = set_paths(q, &reg->guest, ret_private_path, error);
	if (r < 0)
		return r;
	hf_config_give_policy(&reg->guest);
	/* One that can't be loaded is always held, so that it can be tried again. */
	reg->guest.policies.resume_failure = HF_RESUME_FAILURE_HOLD;
	return 0;
}
