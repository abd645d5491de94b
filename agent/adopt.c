/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/adopt.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/adopt-guest.h"
#include "agent/adopt-keep.h"
#include "agent/arrival.h"
#include "agent/freeze-note.h"
#include "agent/log.h"
#include "agent/update.h"
#include "common/fault.h"
#include "common/fd.h"
#include "vmm-glue/compat.h"
#include "vmm-glue/process.h"

#define ATTACH_TIMEOUT_NS (10 * HF_NSEC_PER_SEC)
#define INSTALLED_TIMEOUT_NS (5 * HF_NSEC_PER_SEC)
#define ROLLBACK_TIMEOUT_NS (30 * HF_NSEC_PER_SEC)
#define QUIT_TIMEOUT_NS (20 * HF_NSEC_PER_SEC)
#define SAY_EVERY_NS HF_NSEC_PER_SEC
#define MIB ((uint64_t)1 << 20)
/* A monitor that closes is usually the first one sees of QEMU's end. */
#define UNDO_RETRY_USEC 10000u
#define UNDO_RETRIES 200u

enum step { STEP_CHECKING, STEP_COPYING, STEP_QUITTING, STEP_RESUMING, STEP_UNDOING, STEP_N_ };

static const char *const step_names[] = {
	[STEP_CHECKING] = "checking",
	[STEP_COPYING] = "copying",
	[STEP_QUITTING] = "quitting",
	[STEP_RESUMING] = "resuming",
	[STEP_UNDOING] = "undoing",
};
static_assert(HF_ARRAY_SIZE(step_names) == STEP_N_, "every step has its name");

struct hf_adopt {
	struct hf_agent *agent;
	const struct hf_adopt_ops *ops;
	void *data;
	enum step step;
	struct hf_registration reg; /* its process; the description has moved into @guest */
	struct hf_manifest *manifest;
	struct hf_manifest_guest *guest;
	char uuid[HF_UUID_CHARS], name[HF_GUEST_NAME_MAX + 1];
	char *private_path; /* of the new QEMU's monitor */
	struct hf_vmm *vmm;
	bool vmm_gone;
	bool asking; /* what QEMU is installed */
	bool noted;
	int ram_fds[HF_MANIFEST_MAX_RAM];
	int state_fds[HF_MANIFEST_MAX_CHUNKS];
	struct hf_ram_receiver *receiver;
	struct hf_arrival *arrival; /* made ready, until it is under way */
	bool paused;
	uint64_t downtime_ms, timeout_ns;
	uint64_t said_ns;
	uint64_t tsc_paused;
	bool was_running;
	struct hf_vmm_progress copy;
	struct hf_error cause; /* of the undo */
	sd_event_source *undo;
	unsigned int n_tries;
	bool foreign; /* not registered before: see note() */
};

static int oom(struct hf_error *error)
{
	return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

/* Ours of it: the keeper has its own, or it was thrown away. */
static void free_copy(struct hf_adopt *a)
{
	hf_ram_receiver_free(a->receiver);
	a->receiver = NULL;
	for (size_t i = 0; i < HF_ARRAY_SIZE(a->ram_fds); i++)
		hf_close(&a->ram_fds[i]);
	for (size_t i = 0; i < HF_ARRAY_SIZE(a->state_fds); i++)
		hf_close(&a->state_fds[i]);
}

static void adopt_free(struct hf_adopt *a)
{
	sd_event_source_disable_unref(a->undo);
	hf_vmm_free(a->vmm);
	free_copy(a);
	/* Else it is the arrival's. */
	if (a->step != STEP_RESUMING)
		hf_adopt_keep_end(a->agent);
	hf_registration_clear(&a->reg);
	hf_manifest_free(a->manifest);
	free(a->private_path);
	if (a->agent->adopt == a)
		a->agent->adopt = NULL;
	free(a);
}

static void end(struct hf_adopt *a, pid_t pid, uint64_t blackout_ns, const struct hf_error *error)
{
	const struct hf_adopt_result result = {
		.uuid = a->uuid,
		.name = a->name,
		.pid = pid,
		.blackout_ns = blackout_ns,
		.copy = a->copy,
	};

	/* Before anybody is told: who hears of it may want to adopt the next one. */
	a->agent->adopt = NULL;
	a->ops->done(a->data, &result, error);
	adopt_free(a);
}

/* ---- undo ---- */

/*
 * For the next agent, should this one die while the guest stands still: that lets those run again
 * that are noted, and knows them by their registrations.
 */
static int note(struct hf_adopt *a, struct hf_error *error)
{
	struct hf_registration reg = {.pid = a->reg.pid, .start_ticks = a->reg.start_ticks};
	int r;

	snprintf(reg.reason, sizeof(reg.reason), "its RAM is where its QEMU was told to have it");
	snprintf(reg.remedy, sizeof(reg.remedy), "move it: holdfast adopt NAME");
	/* A shallow copy: nothing of it is freed. */
	reg.guest = *a->guest;
	reg.guest.n_ram = 0;
	r = hf_fault(HF_FAULT_ADOPT_NOTE, error);
	if (r == 0 && a->foreign)
		r = hf_registration_write(&reg, error);
	if (r == 0) {
		a->noted = true;
		r = hf_freeze_note_write(a->manifest, error);
	}
	return r;
}

static void forget_note(struct hf_adopt *a)
{
	if (!a->noted)
		return;
	hf_freeze_note_remove();
	if (a->foreign)
		hf_registration_remove(a->uuid);
	a->noted = false;
}

static void end_undone(struct hf_adopt *a)
{
	struct hf_error e = a->cause;

	/* What was only looked at and refused says so by its own name. */
	if (a->noted)
		snprintf(e.name, sizeof(e.name), "%s", HF_ERR_ROLLED_BACK);
	hf_agent_progress(a->agent, a->name, "not adopted%s: %s",
		a->noted && !a->vmm_gone ? ", it runs as before" : "", e.message);
	forget_note(a);
	hf_error_guest(&e, a->name);
	end(a, 0, 0, &e);
}

/* The note stays: the next agent tries to let it run. */
static void end_degraded(struct hf_adopt *a, const struct hf_error *error)
{
	struct hf_error e = *error;

	hf_log(LOG_ERR, a->uuid, "%s: %s", a->name, e.message);
	snprintf(e.name, sizeof(e.name), "%s", HF_ERR_DEGRADED);
	hf_error_guest(&e, a->name);
	end(a, 0, 0, &e);
}

static void on_rolled_back(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	if (error)
		end_degraded(data, error);
	else
		end_undone(data);
}

static int on_undo(sd_event_source *s, uint64_t usec, void *data)
{
	struct hf_adopt *a = data;
	struct hf_error e = {0};
	int r;

	/* Its answer would find nobody: undone when it has come. */
	if (a->asking)
		return 0;
	if (a->vmm_gone && !hf_registration_alive(&a->reg)) {
		end_undone(a);
		return 0;
	}
	if (a->vmm_gone && ++a->n_tries < UNDO_RETRIES) {
		sd_event_source_set_time_relative(s, UNDO_RETRY_USEC);
		sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
		return 0;
	}
	if (a->vmm_gone) {
		hf_error_set(&e, -ENOTCONN, HF_ERR_DEGRADED, "look at it with its own monitor",
			"%s, and what became of the guest is not known", a->cause.message);
		end_degraded(a, &e);
		return 0;
	}
	hf_fault(HF_FAULT_ADOPT_UNDO, NULL);
	r = hf_vmm_rollback(a->vmm, ROLLBACK_TIMEOUT_NS, on_rolled_back, a);
	if (r < 0) {
		hf_error_set(&e, r, HF_ERR_DEGRADED, "look at it with its own monitor",
			"can't roll it back: %s", strerror(-r));
		end_degraded(a, &e);
	}
	return 0;
}

static void undo(struct hf_adopt *a, const struct hf_error *cause)
{
	if (a->step == STEP_UNDOING)
		return;
	a->step = STEP_UNDOING;
	a->cause = *cause;
	if (a->noted)
		hf_agent_progress(a->agent, a->name, "undoing: %s", cause->message);
	/* Before it runs again: from then on what the keeper may have is of the past. */
	hf_arrival_drop_local(TAKE_PTR(a->arrival));
	hf_adopt_keep_drop(a->agent);
	/* From the loop: an end of QEMU is told after the failure that it causes. */
	sd_event_source_set_time_relative(a->undo, 0);
	sd_event_source_set_enabled(a->undo, SD_EVENT_ONESHOT);
}

static void on_vmm_gone(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_adopt *a = data;

	a->vmm_gone = true;
	if (a->step == STEP_CHECKING || a->step == STEP_COPYING)
		undo(a, error);
}

void hf_adopt_cancel(struct hf_adopt *a, const struct hf_error *cause)
{
	if (a->step == STEP_CHECKING || a->step == STEP_COPYING)
		undo(a, cause);
}

/* ---- behind the point of no return ---- */

static void on_arrived(void *data, const struct hf_vmm_stamps *stamps, const struct hf_error *error)
{
	struct hf_adopt *a = data;
	struct hf_tsc_mark now = hf_tsc_mark();
	uint64_t hz = hf_tsc_hz(&a->agent->start, &now);
	struct hf_registration *regs = NULL;
	struct hf_error e = {0};
	uint64_t blackout_ns = 0;
	pid_t pid = 0;
	size_t n = 0;

	if (error) {
		e = *error;
		snprintf(e.name, sizeof(e.name), "%s", HF_ERR_DEGRADED);
		hf_error_prefix(&e, "it is held: its RAM was moved, but it doesn't run");
		end(a, 0, 0, &e);
		return;
	}
	if (a->was_running && hz > 0 && stamps->resumed > a->tsc_paused)
		blackout_ns = hf_tsc_to_ns(stamps->resumed - a->tsc_paused, hz);
	if (hf_registration_list(&regs, &n, NULL) == 0) {
		for (size_t i = 0; i < n; i++)
			if (strcmp(regs[i].guest.uuid, a->uuid) == 0)
				pid = regs[i].pid;
		hf_registration_list_free(regs, n);
	}
	hf_agent_progress(a->agent, a->name, "adopted: it stood still for %" PRIu64 " ms",
		(uint64_t)(blackout_ns / HF_NSEC_PER_MSEC));
	end(a, pid, blackout_ns, NULL);
}

static void quit(struct hf_adopt *a);

static void on_quit(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_adopt *a = data;

	if (error) {
		/* Its disks and ports must not get a second user. It was killed: it will go. */
		hf_agent_progress(a->agent, a->name, "still waiting: %s", error->message);
		quit(a);
		return;
	}
	hf_vmm_free(a->vmm);
	a->vmm = NULL;
	forget_note(a);
	hf_fault(HF_FAULT_ADOPT_ENDED, NULL);
	a->step = STEP_RESUMING;
	hf_arrival_run_local(TAKE_PTR(a->arrival));
}

static void quit(struct hf_adopt *a)
{
	int r = hf_fault(HF_FAULT_ADOPT_QUIT, NULL);

	if (r == 0)
		r = hf_vmm_quit(a->vmm, QUIT_TIMEOUT_NS, on_quit, a);
	/* Only without memory for a timer: there is nothing else to be done than this. */
	if (r < 0) {
		sleep(1);
		r = hf_vmm_quit(a->vmm, QUIT_TIMEOUT_NS, on_quit, a);
	}
	if (r < 0)
		hf_log(LOG_CRIT, a->uuid, "%s: can't end its QEMU, so it stands still: %s", a->name,
			strerror(-r));
}

/* The guest stands still, and nothing of it is missing: it goes to the keeper. */
static int hand_over(struct hf_adopt *a, struct hf_error *error)
{
	int r = hf_fault(HF_FAULT_ADOPT_COPIED, error);

	if (r < 0)
		return r;
	if (hf_ram_receiver_take_state(a->receiver, a->guest, a->state_fds) < 0)
		return oom(error);
	a->guest->ram_copied = true;
	a->guest->adopted_pid = (uint32_t)a->reg.pid;
	a->guest->adopted_start_ticks = a->reg.start_ticks;
	a->tsc_paused = a->guest->tsc_paused;
	a->was_running = a->guest->was_running;
	free(a->guest->qmp_path);
	a->guest->qmp_path = TAKE_PTR(a->private_path);
	r = hf_adopt_keep_guest(a->agent, a->manifest, a->ram_fds, a->state_fds, error);
	if (r == 0)
		r = hf_arrival_new_local(a->agent, on_arrived, a, &a->arrival, error);
	if (r == 0)
		r = hf_fault(HF_FAULT_ADOPT_NO_RETURN, error);
	if (r == 0 && (r = hf_freeze_note_remove()) < 0)
		hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't remove the freeze note: %s",
			strerror(-r));
	return r;
}

/*
 * IRREVERSIBLE from the removal of the freeze note on: an agent that comes after this one's death
 * then goes on from the keeper, and ends the old QEMU. All that could fail has been done before.
 */
static void give_up_old(struct hf_adopt *a)
{
	struct hf_error e = {0};

	if (hand_over(a, &e) < 0) {
		undo(a, &e);
		return;
	}
	a->step = STEP_QUITTING;
	free_copy(a);
	quit(a);
}

/* ---- the copy ---- */

static void on_copied(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_adopt *a = data;

	if (a->step != STEP_COPYING)
		return; /* being undone: its end comes next */
	if (error)
		undo(a, error);
	else
		give_up_old(a);
}

static void on_progress(void *data, const struct hf_vmm_progress *p)
{
	struct hf_adopt *a = data;
	uint64_t now = hf_agent_now_ns();

	if (a->step != STEP_COPYING)
		return;
	a->copy = *p;
	if (now - a->said_ns >= SAY_EVERY_NS) {
		a->said_ns = now;
		hf_agent_progress(a->agent, a->name,
			"round %" PRIu64 ": %" PRIu64 " MiB sent, %" PRIu64 " MiB to go, %" PRIu64
			" MiB/s rewritten",
			p->rounds, p->sent_bytes / MIB, p->remaining_bytes / MIB,
			p->dirty_bytes_per_s / MIB);
	}
	if (a->ops->progress)
		a->ops->progress(a->data, p);
}

/* Its RAM is there twice for a while. */
static int check_memory(const struct hf_adopt *a, struct hf_error *error)
{
	uint64_t ram = 0, touched = 0, available = 0;

	for (size_t i = 0; i < a->guest->n_ram; i++)
		ram += a->guest->ram[i].size;
	if (hf_process_touched_bytes(a->reg.pid, &touched) < 0 ||
		hf_host_available_bytes(&available) < 0)
		return 0;
	ram = HF_MIN(ram, touched);
	/* Something has to be left for everybody else. */
	if (ram + ram / 20 <= available)
		return 0;
	return hf_error_set(error, -ENOMEM, HF_ERR_NOT_READY,
		"free memory, or move another guest away first",
		"its RAM is needed twice for a while: %" PRIu64 " MiB, and the host has %" PRIu64
		" MiB",
		(ram + ram / 20) / MIB, available / MIB);
}

static int make_receiver(struct hf_adopt *a, struct hf_error *error)
{
	struct hf_ram_dest dests[HF_MANIFEST_MAX_RAM];
	uint64_t state_bytes = a->agent->state_bytes;

	for (size_t i = 0; i < a->guest->n_ram; i++) {
		const struct hf_manifest_ram *ram = &a->guest->ram[i];
		char name[256];
		int r;

		snprintf(name, sizeof(name), "holdfast:%.200s", ram->id);
		r = hf_memfd_new(name, ram->size, &a->ram_fds[i]);
		if (r < 0)
			return hf_error_set(error, r, HF_ERR_FAILED, NULL,
				"can't make the memfd of RAM block %s: %s", ram->id, strerror(-r));
		dests[i] = (struct hf_ram_dest){ram->id, ram->size, a->ram_fds[i]};
	}
	if (state_bytes == 0)
		state_bytes = hf_vmm_get_probe(a->vmm)->state_estimate_bytes;
	return hf_ram_receiver_new(dests, a->guest->n_ram, state_bytes, &a->receiver, error);
}

static int check_installed(const struct hf_adopt *a, struct hf_error *error)
{
	struct hf_error why = {0};

	switch (hf_compat_judge(
		hf_vmm_get_probe(a->vmm), hf_installed_get(a->agent->installed, a->guest), &why)) {
	case HF_COMPAT_BROKEN:
		*error = why;
		return why.err < 0 ? why.err : -EOPNOTSUPP;
	case HF_COMPAT_DIFFERENT:
		hf_agent_progress(a->agent, a->name, "%s", why.message);
		return 0;
	default:
		return 0;
	}
}

static void start_copy(struct hf_adopt *a)
{
	struct hf_error e = {0};
	int r = check_installed(a, &e);

	if (r == 0)
		r = check_memory(a, &e);
	if (r == 0)
		r = make_receiver(a, &e);
	if (r == 0)
		r = note(a, &e);
	if (r < 0) {
		undo(a, &e);
		return;
	}
	a->step = STEP_COPYING;
	hf_agent_progress(
		a->agent, a->name, "copying its RAM while it %s", a->paused ? "is paused" : "runs");
	r = hf_fault(HF_FAULT_ADOPT_COPY, NULL);
	if (r == 0)
		r = hf_vmm_copy(a->vmm, a->receiver, a->paused, a->downtime_ms, a->timeout_ns,
			on_progress, on_copied, a);
	if (r < 0) {
		hf_error_set(&e, r, HF_ERR_FAILED, NULL, "can't copy its RAM: %s", strerror(-r));
		undo(a, &e);
	}
}

/* ---- looking ---- */

static void on_installed(void *data)
{
	struct hf_adopt *a = data;

	a->asking = false;
	if (a->step == STEP_UNDOING)
		on_undo(a->undo, 0, a);
	else
		start_copy(a);
}

/* The wrong monitor would have another guest copied, and this one ended. */
static int check_monitor(const struct hf_adopt *a, struct hf_error *error)
{
	pid_t pid = hf_vmm_monitor_pid(a->vmm);

	if (pid == a->reg.pid)
		return 0;
	return hf_error_set(error, -ESTALE, HF_ERR_INVALID, "give that QEMU's own QMP socket",
		"the monitor at %s belongs to process %d, not to %d", a->guest->qmp_path, (int)pid,
		(int)a->reg.pid);
}

static void on_attached(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_adopt *a = data;
	struct hf_error e = {0};
	int r;

	if (a->step != STEP_CHECKING)
		return;
	if (error) {
		undo(a, error);
		return;
	}
	r = check_monitor(a, &e);
	if (r == 0)
		r = hf_vmm_probe_check(hf_vmm_get_probe(vmm), &e);
	if (r < 0) {
		undo(a, &e);
		return;
	}
	r = hf_installed_ask(a->agent->installed, a->guest, INSTALLED_TIMEOUT_NS, on_installed, a);
	a->asking = r == 0;
	/* What can't be asked is judged as not known. */
	if (r != 0)
		start_copy(a);
}

/* ---- beginning ---- */

static int prepare(struct hf_adopt *a, const struct hf_adopt_request *q, struct hf_error *error)
{
	int r = hf_adopt_describe(q, &a->reg, &a->private_path, error);

	if (r == 0 && (hf_manifest_new(&a->manifest) < 0 ||
			      hf_manifest_add_guest(a->manifest, &a->guest) < 0))
		r = oom(error);
	if (r < 0) {
		hf_error_guest(error, a->reg.guest.name ? a->reg.guest.name : q->guest);
		return r;
	}
	*a->guest = a->reg.guest;
	a->reg.guest = (struct hf_manifest_guest){0};
	snprintf(a->uuid, sizeof(a->uuid), "%s", a->guest->uuid);
	snprintf(a->name, sizeof(a->name), "%s", a->guest->name);
	return 0;
}

int hf_adopt_start(struct hf_agent *agent, const struct hf_adopt_request *q,
	const struct hf_adopt_ops *ops, void *data, struct hf_error *error)
{
	struct hf_adopt *a;
	int r = hf_update_may_prepare(agent, error);

	if (r < 0)
		return r;
	a = calloc(1, sizeof(*a));
	if (!a)
		return oom(error);
	*a = (struct hf_adopt){.agent = agent, .ops = ops, .data = data, .foreign = !q->guest};
	for (size_t i = 0; i < HF_ARRAY_SIZE(a->ram_fds); i++)
		a->ram_fds[i] = -EBADF;
	for (size_t i = 0; i < HF_ARRAY_SIZE(a->state_fds); i++)
		a->state_fds[i] = -EBADF;
	a->paused = q->paused;
	a->downtime_ms = q->downtime_ms ? q->downtime_ms : HF_ADOPT_DOWNTIME_MS;
	a->timeout_ns = q->timeout_ns ? q->timeout_ns : HF_ADOPT_TIMEOUT_NS;
	r = prepare(a, q, error);
	if (r == 0)
		r = hf_vmm_new(agent->event, a->guest, agent->ring, on_vmm_gone, a, &a->vmm);
	if (r == 0)
		r = sd_event_add_time(
			agent->event, &a->undo, CLOCK_MONOTONIC, UINT64_MAX, 1, on_undo, a);
	if (r >= 0)
		r = sd_event_source_set_enabled(a->undo, SD_EVENT_OFF);
	if (r >= 0)
		r = hf_agent_new_update_id(agent);
	if (r >= 0)
		r = hf_adopt_keep_start(agent, error);
	if (r >= 0)
		r = hf_fault(HF_FAULT_ADOPT_ATTACH, error);
	if (r >= 0)
		r = hf_vmm_attach(
			a->vmm, a->reg.pid, a->reg.start_ticks, ATTACH_TIMEOUT_NS, on_attached, a);
	if (r < 0) {
		if (!error->err)
			hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't attach to its QEMU: %s",
				strerror(-r));
		adopt_free(a);
		return r;
	}
	agent->adopt = a;
	return 0;
}

const char *hf_adopt_guest_step(const struct hf_adopt *a, const char *uuid)
{
	return strcmp(a->uuid, uuid) == 0 ? step_names[a->step] : NULL;
}
