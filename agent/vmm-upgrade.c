/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vmm-upgrade-internal.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/config.h"
#include "common/fault.h"
#include "common/fd.h"
#include "vmm-glue/compat.h"
#include "vmm-glue/sockets-aside.h"
#include "vmm-glue/spawn.h"

#define INSTALLED_TIMEOUT_NS (5 * HF_NSEC_PER_SEC)
#define TURN_USEC 2000

static const char *const step_names[] = {
	[HF_VMM_UPGRADE_STEP_CHECKING] = "checking",
	[HF_VMM_UPGRADE_STEP_STARTING] = "starting",
	[HF_VMM_UPGRADE_STEP_MOVING] = "moving",
	[HF_VMM_UPGRADE_STEP_RESUMING] = "resuming",
	[HF_VMM_UPGRADE_STEP_QUITTING] = "quitting",
	[HF_VMM_UPGRADE_STEP_UNDOING] = "undoing",
};
static_assert(HF_ARRAY_SIZE(step_names) == HF_VMM_UPGRADE_STEP_N_, "every step has its name");

static int oom(struct hf_error *error)
{
	return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

/* @u belongs to its owner again, who may free it. */
void hf_vmm_upgrade_end(
	struct hf_vmm_upgrade *u, enum hf_vmm_upgrade_outcome outcome, const struct hf_error *error)
{
	struct hf_error e = {0};

	if (error) {
		e = *error;
		hf_error_guest(&e, hf_vmm_upgrade_name(u));
	}
	u->result.outcome = outcome;
	u->result.uuid = u->reg.guest.uuid;
	u->result.name = hf_vmm_upgrade_name(u);
	if (u->agent->stands_still == u)
		u->agent->stands_still = NULL;
	u->done(u->data, u, &u->result, error ? &e : NULL);
}

/* ---- the new QEMU ---- */

int hf_vmm_upgrade_write_note(struct hf_vmm_upgrade *u, enum hf_vmm_upgrade_phase phase,
	char **ret_text, struct hf_error *error)
{
	struct hf_vmm_upgrade_note note = {
		.phase = phase,
		.was_running = u->reg.guest.was_running,
		.old_pid = u->reg.pid,
		.old_start_ticks = u->reg.start_ticks,
		.n_ram = u->reg.guest.n_ram,
	};
	pid_t new_pid = u->new ? hf_vmm_pid(u->new) : 0;
	cleanup_free char *text = NULL;
	int r = 0;

	memcpy(note.ram, u->reg.ram_inodes, sizeof(note.ram));
	if (u->taps_read)
		note.taps = u->taps;
	/* A shallow copy: nothing of it is freed. */
	note.reg = u->reg;
	if (new_pid) {
		note.reg.pid = new_pid;
		r = hf_pid_start_time(note.reg.pid, &note.reg.start_ticks);
		if (r < 0)
			return hf_error_set(error, r, HF_ERR_FAILED, "see QEMU's log",
				"its new QEMU ended: %s", strerror(-r));
	}
	r = hf_vmm_upgrade_note_format(&note, &text, error);
	if (r == 0 && !ret_text)
		r = hf_vmm_upgrade_note_write(u->reg.guest.uuid, text, error);
	if (r == 0 && ret_text) {
		free(*ret_text);
		*ret_text = TAKE_PTR(text);
	}
	return r;
}

/* Whoever is registered may have one of the two names, from the upgrade before this one. */
static int choose_monitor(struct hf_vmm_upgrade *u, struct hf_error *error)
{
	const struct hf_manifest_guest *g = &u->reg.guest;
	cleanup_free char *path = NULL;

	for (int i = 0; i < 2; i++) {
		free(path);
		if (asprintf(&path, "%s/qmp/%s%s.sock", hf_run_dir(), g->uuid, i ? "-b" : "") < 0) {
			path = NULL;
			return oom(error);
		}
		if (!g->qmp_path || strcmp(path, g->qmp_path) != 0)
			break;
	}
	if (strlen(path) >= 108)
		return hf_error_set(error, -ENAMETOOLONG, HF_ERR_FAILED,
			"set HOLDFAST_RUN_DIR to a shorter one",
			"the path %.100s is too long for a socket", hf_run_dir());
	u->new_qmp_path = TAKE_PTR(path);
	return 0;
}

static int make_ready(struct hf_vmm_upgrade *u, struct hf_error *error)
{
	size_t size;
	int r = hf_fault(HF_FAULT_VMM_NOTE, error);

	if (r == 0)
		r = hf_registration_open_ram(&u->reg, u->ram_fds, error);
	if (r == 0)
		r = choose_monitor(u, error);
	/* From the file, without what was learned since: it is put back as it was. */
	if (r == 0)
		r = hf_registration_format(&u->reg, &u->old_reg, &size, error);
	if (r < 0)
		return r;
	u->noted = true;
	r = hf_vmm_upgrade_write_note(u, HF_VMM_UPGRADE_STARTING, NULL, error);
	if (r == 0)
		r = hf_fault(HF_FAULT_VMM_START, error);
	if (r == 0) {
		r = hf_sockets_put_aside(&u->reg.guest, &u->beside, error);
		u->aside = r == 0;
	}
	return r;
}

int hf_vmm_upgrade_start_new(struct hf_vmm_upgrade *u)
{
	int r = hf_vmm_start_beside(u->new, u->ram_fds, u->beside.taps ? &u->taps : NULL,
		u->reg.guest.policies.resume_timeout_ns, hf_vmm_upgrade_on_started, u);

	u->new_begun = r == 0;
	if (r < 0)
		hf_vmm_upgrade_undo_errno(u, r, "can't start its new QEMU");
	return r;
}

static int on_turn(sd_event_source *s, uint64_t usec, void *data);

/* Many QEMUs that start at once take longer, and guests wait for these. */
static void wait_turn(struct hf_vmm_upgrade *u)
{
	int r;

	if (hf_vmm_upgrade_broke_off(u, NULL))
		return;
	if (!u->agent->stands_still) {
		u->agent->stands_still = u;
		hf_vmm_upgrade_pause_first(u);
		return;
	}
	u->begin = sd_event_source_disable_unref(u->begin);
	r = sd_event_add_time_relative(
		u->agent->event, &u->begin, CLOCK_MONOTONIC, TURN_USEC, 0, on_turn, u);
	if (r < 0)
		hf_vmm_upgrade_undo_errno(u, r, "can't wait for others to be done");
}

static int on_turn(sd_event_source *s, uint64_t usec, void *data)
{
	wait_turn(data);
	return 0;
}

static void begin_new(struct hf_vmm_upgrade *u)
{
	struct hf_manifest_guest *g = &u->reg.guest;
	struct hf_error e = {0};
	int r = make_ready(u, &e);

	if (r < 0) {
		hf_vmm_upgrade_undo(u, &e);
		return;
	}
	u->step = HF_VMM_UPGRADE_STEP_STARTING;
	/* The old one is connected to: its path is not needed any more. */
	free(g->qmp_path);
	g->qmp_path = TAKE_PTR(u->new_qmp_path);
	r = hf_vmm_new(u->agent->event, g, u->agent->ring, hf_vmm_upgrade_new_gone, u, &u->new);
	if (r < 0) {
		hf_vmm_upgrade_undo_errno(u, r, "can't start its new QEMU");
	} else if (u->beside.taps) {
		wait_turn(u);
	} else {
		hf_agent_progress(u->agent, hf_vmm_upgrade_name(u),
			"starting QEMU %s beside the one that it runs in", u->result.to);
		hf_vmm_upgrade_start_new(u);
	}
}

/* ---- looking ---- */

static void write_version(const struct hf_qmp_version *v, char *buf, size_t size)
{
	snprintf(buf, size, "%u.%u.%u%s%.100s%s", v->major, v->minor, v->micro,
		v->package[0] ? " (" : "", v->package, v->package[0] ? ")" : "");
}

/* A script says nothing about the program that it executes. */
static bool is_script(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char head[2];

	return fd < 0 || read(fd, head, sizeof(head)) != sizeof(head) || memcmp(head, "#!", 2) == 0;
}

/* Is what would be executed another file than what is? A package of the same version may be. */
static bool is_other_file(const struct hf_vmm_upgrade *u)
{
	struct hf_spawn_spec spec = hf_spawn_spec_of(&u->reg.guest);
	struct stat runs, would;
	char path[PATH_MAX], exe[64];

	snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)u->reg.pid);
	return hf_spawn_find(&spec, path, sizeof(path)) == 0 && stat(exe, &runs) == 0 &&
	       stat(path, &would) == 0 && !is_script(path) &&
	       (runs.st_dev != would.st_dev || runs.st_ino != would.st_ino);
}

static void go_on(struct hf_vmm_upgrade *u)
{
	const struct hf_installed_vmm *installed =
		hf_installed_get(u->agent->installed, &u->reg.guest);
	const struct hf_vmm_probe *probe = hf_vmm_get_probe(u->old);
	struct hf_error e = {0};

	write_version(&probe->version, u->result.from, sizeof(u->result.from));
	if (installed && !installed->error.err)
		write_version(&installed->version, u->result.to, sizeof(u->result.to));
	else
		snprintf(u->result.to, sizeof(u->result.to), "of a version that it doesn't tell");
	switch (hf_compat_judge(probe, installed, &e)) {
	case HF_COMPAT_BROKEN:
		hf_vmm_upgrade_undo(u, &e);
		return;
	case HF_COMPAT_SAME:
		if (!u->force && !is_other_file(u)) {
			hf_agent_progress(u->agent, hf_vmm_upgrade_name(u),
				"runs on QEMU %s already, which is the installed one",
				u->result.to);
			hf_vmm_upgrade_end(u, HF_VMM_UPGRADE_CURRENT, NULL);
			return;
		}
		break;
	default:
		break;
	}
	if (u->dry_run)
		hf_vmm_upgrade_end(u, HF_VMM_UPGRADE_WOULD, NULL);
	else
		begin_new(u);
}

static void on_installed(void *data)
{
	struct hf_vmm_upgrade *u = data;

	if (!hf_vmm_upgrade_broke_off(u, NULL))
		go_on(u);
}

static void on_attached(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_vmm_upgrade *u = data;
	struct hf_error e = {0};
	int r;

	if (!error && hf_vmm_probe_check(hf_vmm_get_probe(vmm), &e) < 0)
		error = &e;
	if (hf_vmm_upgrade_broke_off(u, error))
		return;
	u->result.pid = u->reg.pid;
	r = hf_installed_ask(
		u->agent->installed, &u->reg.guest, INSTALLED_TIMEOUT_NS, on_installed, u);
	/* What can't be asked is judged as not known. */
	if (r != 0)
		go_on(u);
}

static int check(struct hf_vmm_upgrade *u, struct hf_error *error)
{
	const struct hf_registration *reg = &u->reg;
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	int r;

	if (hf_guest_is_libvirt(&reg->guest))
		return hf_error_set(error, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"migrate it to another host with `virsh migrate`, or shut it down and "
			"start it",
			"libvirt manages it, and would take the end of the QEMU that it started "
			"for the end of the domain");
	if (reg->reason[0])
		return hf_error_set(error, -EOPNOTSUPP, HF_ERR_NOT_READY, reg->remedy,
			"its RAM can't be handed to another QEMU: %s", reg->reason);
	r = hf_cmdline_of_guest(&reg->guest, &plan, error);
	if (r == 0)
		r = hf_cmdline_beside(plan, &u->beside, error);
	return r < 0 || !u->beside.taps
		       ? r
		       : hf_taps_borrow(reg->pid, reg->start_ticks, plan, &u->taps, error);
}

static int on_begin(sd_event_source *s, uint64_t usec, void *data)
{
	struct hf_vmm_upgrade *u = data;
	struct hf_error e = {0};
	int r = check(u, &e);

	if (r == 0)
		r = hf_fault(HF_FAULT_VMM_ATTACH, &e);
	if (hf_vmm_upgrade_broke_off(u, r < 0 ? &e : NULL))
		return 0;
	r = hf_vmm_new(u->agent->event, &u->reg.guest, u->agent->ring, hf_vmm_upgrade_old_gone, u,
		&u->old);
	if (r == 0)
		r = hf_vmm_attach(u->old, u->reg.pid, u->reg.start_ticks,
			u->reg.guest.policies.attach_timeout_ns, on_attached, u);
	if (r < 0)
		hf_vmm_upgrade_undo_errno(u, r, "can't attach to its QEMU");
	return 0;
}

/* ---- beginning ---- */

/* As far as that makes sense: its time-outs are what counts here. */
int hf_vmm_upgrade_start(struct hf_agent *agent, struct hf_registration *reg,
	const struct hf_vmm_upgrade_how *how, hf_vmm_upgrade_fn done, void *data,
	struct hf_vmm_upgrade **ret)
{
	struct hf_vmm_upgrade *u = calloc(1, sizeof(*u));
	int r = u ? 0 : -ENOMEM;

	if (u) {
		*u = (struct hf_vmm_upgrade){.agent = agent,
			.done = done,
			.data = data,
			.force = how->force || how->qemu,
			.dry_run = how->dry_run,
			.reg = *reg};
		*reg = (struct hf_registration){0};
		for (size_t i = 0; i < HF_ARRAY_SIZE(u->ram_fds); i++)
			u->ram_fds[i] = -EBADF;
		hf_config_give_policy(&u->reg.guest);
		if (how->qemu)
			r = hf_manifest_set(&u->reg.guest.vmm, how->qemu);
	}
	if (r == 0)
		r = sd_event_add_time_relative(
			agent->event, &u->begin, CLOCK_MONOTONIC, 0, 1, on_begin, u);
	if (r < 0) {
		hf_registration_clear(reg);
		hf_vmm_upgrade_free(u);
		return r;
	}
	*ret = u;
	return 0;
}

void hf_vmm_upgrade_free(struct hf_vmm_upgrade *u)
{
	if (!u)
		return;
	sd_event_source_disable_unref(u->begin);
	hf_vmm_free(u->new);
	hf_vmm_free(u->old);
	for (size_t i = 0; i < HF_ARRAY_SIZE(u->ram_fds); i++)
		hf_close(&u->ram_fds[i]);
	hf_taps_release(&u->taps);
	hf_beside_paths_clear(&u->beside);
	hf_registration_clear(&u->reg);
	free(u->old_reg);
	free(u->note_pausing);
	free(u->note_running);
	free(u->new_qmp_path);
	free(u);
}

const char *hf_vmm_upgrade_step(const struct hf_vmm_upgrade *u)
{
	return step_names[u->step];
}

const char *hf_vmm_upgrade_uuid(const struct hf_vmm_upgrade *u)
{
	return u->reg.guest.uuid;
}
