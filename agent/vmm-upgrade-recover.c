/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/log.h"
#include "agent/vmm-upgrade-note.h"
#include "common/fd.h"
#include "common/worker.h"
#include "vmm-glue/cmdline-beside.h"
#include "vmm-glue/ram-users.h"
#include "vmm-glue/sockets-aside.h"
#include "vmm-glue/vmm.h"

#define TIMEOUT_NS (20 * HF_NSEC_PER_SEC)

/* One guest that an agent left with two QEMUs, or maybe with two. */
struct recovering {
	struct hf_agent *agent;
	struct hf_vmm_upgrade_note note;
	struct hf_registration reg; /* of the QEMU that is the guest */
	struct hf_vmm *vmm;
	bool alive; /* that one */
	bool known; /* its registration could be read */
	int ram_fds[HF_MANIFEST_MAX_RAM];
	struct hf_error error;
};

static const char *name_of(const struct recovering *one)
{
	// NOLINTNEXTLINE(clang-analyzer-core.NullDereference): worker callbacks have their data
	return one->note.reg.guest.name;
}

static void recovering_free(struct recovering *one)
{
	hf_vmm_free(one->vmm);
	for (size_t i = 0; i < HF_ARRAY_SIZE(one->ram_fds); i++)
		hf_close(&one->ram_fds[i]);
	hf_registration_clear(&one->reg);
	hf_vmm_upgrade_note_clear(&one->note);
	free(one);
}

/* With a failure the note stays: the next start tries again. */
static void recovered(struct recovering *one, const struct hf_error *error, const char *what)
{
	const char *uuid = one->note.uuid;

	if (error) {
		hf_log(LOG_ERR, uuid,
			"%s: an agent died while it replaced its QEMU, and that can't be ended: "
			"%s",
			name_of(one), error->message);
	} else {
		hf_vmm_upgrade_note_remove(uuid);
		hf_log(LOG_NOTICE, uuid, "%s: an agent died while it replaced its QEMU: %s",
			name_of(one), what);
	}
	recovering_free(one);
}

static void on_back(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct recovering *one = data;

	recovered(one, error,
		one->note.was_running ? "it goes on in the old one" : "it has the old one, paused");
}

static void on_resumed(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	recovered(data, error, "it goes on in the new one");
}

/* What its new QEMU may have set of its taps. The guest goes on all the same. */
static void put_taps_back(struct recovering *one, bool running)
{
	const struct hf_vmm_upgrade_note *note = &one->note;
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	struct hf_error e = {0};
	int r;

	if (note->taps.n == 0)
		return;
	r = hf_cmdline_of_guest(&note->reg.guest, &plan, &e);
	if (r == 0)
		r = hf_taps_recover(
			note->old_pid, note->old_start_ticks, plan, &note->taps, running, &e);
	if (r < 0)
		hf_log(LOG_ERR, note->uuid, "%s: its network may be dead now: %s", name_of(one),
			e.message);
}

static void on_attached(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct recovering *one = data;
	struct hf_error e = {0};
	int r = 0;

	if (error) {
		recovered(one, error, NULL);
		return;
	}
	if (one->note.phase == HF_VMM_UPGRADE_PAUSING) {
		put_taps_back(one, hf_vmm_get_probe(vmm)->running);
		r = hf_vmm_recover(vmm, one->note.was_running, TIMEOUT_NS, on_back, one);
	} else {
		one->reg.guest.was_running = one->note.was_running;
		if (hf_vmm_adopt(vmm, one->ram_fds, &e) < 0) {
			recovered(one, &e, NULL);
			return;
		}
		r = hf_vmm_resume(vmm, TIMEOUT_NS, on_resumed, one);
	}
	if (r < 0) {
		hf_error_set(&e, r, HF_ERR_FAILED, NULL, "can't ask its QEMU: %s", strerror(-r));
		recovered(one, &e, NULL);
	}
}

/* What the two had from each other. */
static void sort_out(struct recovering *one)
{
	const struct hf_vmm_upgrade_note *note = &one->note;
	const struct hf_manifest_guest *guest = &note->reg.guest;
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	cleanup_beside_paths struct hf_beside_paths paths = {0};

	/* What can't be replaced was not, and has no note. */
	if (hf_cmdline_of_guest(guest, &plan, NULL) < 0 ||
		hf_cmdline_beside(plan, &paths, NULL) < 0)
		return;
	if (note->phase == HF_VMM_UPGRADE_RUNNING)
		hf_sockets_forget(guest, &paths);
	else
		hf_sockets_put_back(guest, &paths);
}

/*
 * In a worker: it waits for processes to end. Whoever is not the guest goes before anything is done
 * with the one that is.
 */
static int end_other(void *data)
{
	struct recovering *one = data;
	const struct hf_vmm_upgrade_note *note = &one->note;
	bool running = note->phase == HF_VMM_UPGRADE_RUNNING;
	pid_t keep = running ? note->reg.pid : note->old_pid;
	int r;

	/* A number may mean another process by now. */
	if (!one->alive)
		keep = 0;
	if (running)
		r = hf_ram_users_end_former(
			note->old_pid, note->old_start_ticks, TIMEOUT_NS, &one->error);
	else
		r = 0;
	if (r >= 0)
		r = hf_ram_users_end(note->ram, note->n_ram, keep, TIMEOUT_NS, NULL, &one->error);
	if (r < 0)
		return r;
	sort_out(one);
	if (!one->alive || !one->known || note->phase == HF_VMM_UPGRADE_STARTING)
		return 0;
	return running ? hf_registration_open_ram(&one->reg, one->ram_fds, &one->error) : 0;
}

static void on_other_ended(void *data, int result)
{
	struct recovering *one = data;
	struct hf_error e = {0};
	int r;

	if (result < 0) {
		recovered(one, &one->error, NULL);
		return;
	}
	if (!one->alive) {
		recovered(one, NULL,
			"the one that it had has ended since, so the guest has to be started "
			"again");
		return;
	}
	if (one->note.phase == HF_VMM_UPGRADE_STARTING) {
		recovered(one, NULL, "it runs on in the old one");
		return;
	}
	if (!one->known) {
		hf_error_set(&e, -ENOENT, HF_ERR_DEGRADED, NULL,
			"process %d has it, but isn't registered: look at it with its own monitor",
			(int)one->note.old_pid);
		recovered(one, &e, NULL);
		return;
	}
	r = hf_vmm_new(one->agent->event, &one->reg.guest, one->agent->ring, NULL, NULL, &one->vmm);
	if (r == 0)
		r = hf_vmm_attach(
			one->vmm, one->reg.pid, one->reg.start_ticks, TIMEOUT_NS, on_attached, one);
	if (r < 0) {
		hf_error_set(&e, r, HF_ERR_FAILED, NULL, "can't ask its QEMU: %s", strerror(-r));
		recovered(one, &e, NULL);
	}
}

/* The old QEMU's own registration: the note has the new one's. */
static int read_old(struct recovering *one)
{
	char path[4096];
	int r = hf_registration_path(one->note.uuid, path, sizeof(path));

	if (r == 0)
		r = hf_registration_read(path, &one->reg, &one->error);
	if (r == 0 && (one->reg.pid != one->note.old_pid ||
			      one->reg.start_ticks != one->note.old_start_ticks))
		r = -ESTALE;
	return r;
}

/* What the note has is described twice: the registration is changed by what is learned of it. */
static int read_new(struct recovering *one)
{
	cleanup_free char *json = NULL;
	size_t size;
	int r = hf_registration_format(&one->note.reg, &json, &size, &one->error);

	return r < 0 ? r : hf_registration_parse(json, size, &one->reg, &one->error);
}

static void recover_one(struct hf_agent *agent, const char *uuid)
{
	struct recovering *one = calloc(1, sizeof(*one));
	struct hf_registration guest = {0};
	bool running;
	int r;

	if (!one) {
		hf_log(LOG_ERR, uuid, "out of memory");
		return;
	}
	one->agent = agent;
	for (size_t i = 0; i < HF_ARRAY_SIZE(one->ram_fds); i++)
		one->ram_fds[i] = -EBADF;
	r = hf_vmm_upgrade_note_read(uuid, &one->note);
	if (r < 0) {
		hf_log(LOG_ERR, uuid,
			"the note on the replacement of its QEMU can't be read: %s. See which of "
			"its QEMUs runs, end the other one, and remove the note from "
			"%s/vmm-upgrade",
			strerror(-r), hf_run_dir());
		free(one);
		return;
	}
	running = one->note.phase == HF_VMM_UPGRADE_RUNNING;
	guest.pid = running ? one->note.reg.pid : one->note.old_pid;
	guest.start_ticks = running ? one->note.reg.start_ticks : one->note.old_start_ticks;
	one->alive = hf_registration_alive(&guest);
	r = running ? read_new(one) : read_old(one);
	one->known = r == 0;
	r = hf_worker_run(agent->event, end_other, on_other_ended, one);
	if (r < 0) {
		hf_log(LOG_ERR, uuid, "can't start a thread: %s", strerror(-r));
		recovering_free(one);
	}
}

void hf_vmm_upgrade_recover(struct hf_agent *agent)
{
	cleanup_free char(*uuids)[HF_UUID_CHARS] = NULL;
	int n = hf_vmm_upgrade_note_list(&uuids);

	if (n < 0)
		hf_log(LOG_ERR, NULL, "can't see whether guests' QEMUs were being replaced: %s",
			strerror(-n));
	for (int i = 0; i < n; i++)
		recover_one(agent, uuids[i]);
}
