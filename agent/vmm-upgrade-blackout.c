/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vmm-upgrade-internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/log.h"
#include "common/fault.h"
#include "vmm-glue/sockets-aside.h"

#define KILL_TIMEOUT_NS (20 * HF_NSEC_PER_SEC)

/* ---- undo ---- */

static void end_undone(struct hf_vmm_upgrade *u)
{
	struct hf_error e = u->cause;

	/* What was only looked at and refused says so by its own name. */
	if (u->noted)
		snprintf(e.name, sizeof(e.name), "%s", HF_ERR_ROLLED_BACK);
	hf_agent_progress(u->agent, hf_vmm_upgrade_name(u), "its QEMU is not replaced%s: %s",
		u->noted ? ", it goes on in the old one" : "", e.message);
	hf_vmm_upgrade_note_remove(u->reg.guest.uuid);
	hf_vmm_upgrade_end(u, HF_VMM_UPGRADE_FAILED, &e);
}

/* The note stays, unless there is nothing left that the next agent could do. */
static void end_degraded(struct hf_vmm_upgrade *u, const struct hf_error *error)
{
	struct hf_error e = *error;

	hf_log(LOG_ERR, u->reg.guest.uuid, "%s: %s", hf_vmm_upgrade_name(u), e.message);
	snprintf(e.name, sizeof(e.name), "%s", HF_ERR_DEGRADED);
	hf_vmm_upgrade_end(u, HF_VMM_UPGRADE_FAILED, &e);
}

/* The registration of the old QEMU was removed, for the new one to be registered. */
static int register_again(const struct hf_vmm_upgrade *u, struct hf_error *error)
{
	cleanup_registration struct hf_registration reg = {0};
	int r;

	if (!u->unregistered)
		return 0;
	r = hf_registration_parse(u->old_reg, strlen(u->old_reg), &reg, error);
	return r < 0 ? r : hf_registration_write(&reg, error);
}

static void end_lost(struct hf_vmm_upgrade *u)
{
	struct hf_error e = {0};

	hf_vmm_upgrade_note_remove(u->reg.guest.uuid);
	hf_error_set(&e, u->cause.err, HF_ERR_DEGRADED,
		"see both QEMUs' logs, and start the guest again",
		"the QEMU that it ran in ended by itself: %s", u->cause.message);
	end_degraded(u, &e);
}

static void on_rolled_back(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_vmm_upgrade *u = data;
	struct hf_error e = {0};

	if (error && !hf_vmm_pid(u->old)) {
		end_lost(u);
		return;
	}
	if (!error && register_again(u, &e) < 0) {
		hf_error_prefix(&e, "it goes on in its old QEMU, but isn't registered");
		error = &e;
	}
	if (error)
		end_degraded(u, error);
	else
		end_undone(u);
}

/* There is one QEMU on its RAM again: the one that it ran in. */
static void on_new_ended(struct hf_vmm_upgrade *u)
{
	struct hf_error e = {0};
	int r;

	hf_vmm_free(TAKE_PTR(u->new));
	/* The guest goes on all the same: without network, but it may be needed for more than that.
	 */
	if (u->new_begun && u->taps_read && !u->old_gone && hf_taps_put_back(&u->taps, &e) < 0)
		hf_error_prefix(&u->cause, "its network may be dead now (%s)", e.message);
	if (u->aside)
		hf_sockets_put_back(&u->reg.guest, &u->beside);
	hf_fault(HF_FAULT_VMM_UNDO, NULL);
	if (u->old_gone) {
		end_lost(u);
		return;
	}
	if (!u->old) {
		end_undone(u);
		return;
	}
	r = hf_vmm_rollback(u->old, u->reg.guest.policies.rollback_timeout_ns, on_rolled_back, u);
	if (r < 0) {
		hf_error_set(&e, r, HF_ERR_DEGRADED, "look at it with its own monitor",
			"%s; and it can't be rolled back: %s", u->cause.message, strerror(-r));
		end_degraded(u, &e);
	}
}

static void end_new(struct hf_vmm_upgrade *u);

static void on_new_killed(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_vmm_upgrade *u = data;

	if (error) {
		/* Two must not run on this RAM. It was killed: it will go. */
		hf_agent_progress(
			u->agent, hf_vmm_upgrade_name(u), "still waiting: %s", error->message);
		end_new(u);
		return;
	}
	on_new_ended(u);
}

static void end_new(struct hf_vmm_upgrade *u)
{
	int r;

	if (!u->new || !hf_vmm_pid(u->new)) {
		on_new_ended(u);
		return;
	}
	r = hf_vmm_kill(u->new, KILL_TIMEOUT_NS, on_new_killed, u);
	/* Only without memory for a timer. Its disks and RAM are not given to two. */
	if (r < 0) {
		struct hf_error e = {0};

		hf_error_set(&e, r, HF_ERR_DEGRADED, "end its new QEMU, then start holdfastd anew",
			"%s; and its new QEMU, process %d, can't be ended: %s", u->cause.message,
			(int)hf_vmm_pid(u->new), strerror(-r));
		end_degraded(u, &e);
	}
}

/* Nothing is under way with the new QEMU, if there is one. */
void hf_vmm_upgrade_undo(struct hf_vmm_upgrade *u, const struct hf_error *cause)
{
	struct hf_error e = {0};
	bool begun;

	if (u->step == HF_VMM_UPGRADE_STEP_UNDOING)
		return;
	begun = u->step >= HF_VMM_UPGRADE_STEP_MOVING;
	u->step = HF_VMM_UPGRADE_STEP_UNDOING;
	if (!u->cause.err)
		u->cause = *cause;
	/* Before anything else: should this process die, the old one is the guest, and known. */
	if (register_again(u, &e) == 0)
		u->unregistered = false;
	else
		hf_log(LOG_ERR, u->reg.guest.uuid, "%s: %s", hf_vmm_upgrade_name(u), e.message);
	if (u->no_return && hf_vmm_upgrade_note_write(u->reg.guest.uuid, u->note_pausing, NULL) < 0)
		hf_vmm_upgrade_note_remove(u->reg.guest.uuid);
	u->no_return = false;
	if (begun)
		hf_agent_progress(u->agent, hf_vmm_upgrade_name(u),
			"going back to its old QEMU: %s", u->cause.message);
	else if (u->noted)
		hf_agent_progress(
			u->agent, hf_vmm_upgrade_name(u), "undoing: %s", u->cause.message);
	end_new(u);
}

void hf_vmm_upgrade_undo_errno(struct hf_vmm_upgrade *u, int err, const char *what)
{
	struct hf_error e = {0};

	hf_error_set(&e, err, HF_ERR_FAILED, NULL, "%s: %s", what, strerror(-err));
	hf_vmm_upgrade_undo(u, &e);
}

void hf_vmm_upgrade_cancel(struct hf_vmm_upgrade *u, const struct hf_error *cause)
{
	/* The operation under way ends soon, and then nothing comes after it. */
	if (u->step <= HF_VMM_UPGRADE_STEP_MOVING && !u->cause.err)
		u->cause = *cause;
	/* But the guest isn't to stand still for a QEMU that nobody wants. */
	if (u->step == HF_VMM_UPGRADE_STEP_MOVING && u->new_begun && !u->loaded)
		hf_vmm_cancel(u->new, cause);
}

/* Return: the step under way is the last. */
bool hf_vmm_upgrade_broke_off(struct hf_vmm_upgrade *u, const struct hf_error *error)
{
	if (u->step == HF_VMM_UPGRADE_STEP_UNDOING)
		return true;
	if (error || u->cause.err) {
		hf_vmm_upgrade_undo(u, error && !u->cause.err ? error : &u->cause);
		return true;
	}
	return false;
}

void hf_vmm_upgrade_old_gone(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_vmm_upgrade *u = data;

	u->old_gone = true;
	/* Once it is saved, nobody needs it but for the way back. While something is under way,
	 * that ends, and finds this. */
	if (u->step <= HF_VMM_UPGRADE_STEP_MOVING && !u->saved && !u->cause.err)
		u->cause = *error;
}

void hf_vmm_upgrade_new_gone(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_vmm_upgrade *u = data;

	/* Elsewhere an operation is under way that fails by this. */
	if (u->step == HF_VMM_UPGRADE_STEP_MOVING)
		hf_vmm_upgrade_undo(u, error);
}

/* ---- behind the point of no return ---- */

static void set_times(struct hf_vmm_upgrade *u)
{
	const struct hf_manifest_guest *g = &u->reg.guest;
	const struct hf_vmm_stamps *up = hf_vmm_get_stamps(u->new);
	struct hf_tsc_mark now = hf_tsc_mark();
	uint64_t hz = hf_tsc_hz(&u->agent->start, &now);
	struct hf_vmm_upgrade_result *r = &u->result;
	/* The new one may have been done first. Or it was not there yet. */
	uint64_t loaded = HF_MAX(up->loaded, g->tsc_saved);
	uint64_t ready = HF_MIN(HF_MAX(up->ready, g->tsc_saved), loaded);

	if (!g->was_running || hz == 0 || up->resumed < loaded)
		return;
	r->stood_still = true;
	r->pause_ns = hf_tsc_to_ns(g->tsc_paused - g->tsc_pause, hz);
	r->save_ns = hf_tsc_to_ns(g->tsc_saved - g->tsc_paused, hz);
	r->start_ns = hf_tsc_to_ns(ready - g->tsc_saved, hz);
	r->load_ns = hf_tsc_to_ns(loaded - ready, hz);
	r->resume_ns = hf_tsc_to_ns(up->resumed - loaded, hz);
	r->blackout_ns = r->pause_ns + r->save_ns + r->start_ns + r->load_ns + r->resume_ns;
}

static void end_old(struct hf_vmm_upgrade *u);

static void on_old_killed(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_vmm_upgrade *u = data;
	const struct hf_vmm_upgrade_result *r = &u->result;

	if (error) {
		/* It stands still, and has what the guest needs for itself. */
		hf_agent_progress(
			u->agent, hf_vmm_upgrade_name(u), "still waiting: %s", error->message);
		end_old(u);
		return;
	}
	hf_fault(HF_FAULT_VMM_ENDED, NULL);
	hf_sockets_forget(&u->reg.guest, &u->beside);
	hf_vmm_upgrade_note_remove(u->reg.guest.uuid);
	if (u->damage.err) {
		end_degraded(u, &u->damage);
		return;
	}
	hf_agent_progress(u->agent, hf_vmm_upgrade_name(u),
		"runs on QEMU %s now, process %d: it stood still for %.1f ms", r->to, (int)r->pid,
		(double)r->blackout_ns / HF_NSEC_PER_MSEC);
	hf_vmm_upgrade_end(u, HF_VMM_UPGRADE_REPLACED, NULL);
}

/* IRREVERSIBLE, as the note said before. By force: what it would do by itself is for the new one.
 */
static void end_old(struct hf_vmm_upgrade *u)
{
	struct hf_error e = {0};
	int r;

	u->step = HF_VMM_UPGRADE_STEP_QUITTING;
	r = hf_vmm_kill(u->old, KILL_TIMEOUT_NS, on_old_killed, u);
	if (r == 0)
		return;
	hf_error_set(&e, r, HF_ERR_DEGRADED, "end it, and never let it run",
		"its old QEMU, process %d, can't be ended: %s", (int)hf_vmm_pid(u->old),
		strerror(-r));
	end_degraded(u, &e);
}

static void on_resumed(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_vmm_upgrade *u = data;
	struct hf_error e = {0};

	/* QEMU said no to `cont`, so the guest has not run: there is a way back after all. */
	if (error && error->err == -EREMOTEIO && hf_vmm_get_stamps(vmm)->resumed == 0 &&
		u->reg.guest.was_running && hf_vmm_pid(vmm)) {
		e = *error;
		hf_vmm_upgrade_undo(u, &e);
		return;
	}
	hf_fault(HF_FAULT_VMM_QUIT, NULL);
	u->result.pid = hf_vmm_pid(vmm);
	if (error) {
		u->damage = *error;
		if (!u->damage.remedy[0])
			snprintf(u->damage.remedy, sizeof(u->damage.remedy),
				"look at its new QEMU with its own monitor");
		hf_error_prefix(&u->damage,
			"it was given to its new QEMU, and there is no way back to the old one");
	} else {
		set_times(u);
	}
	if (hf_vmm_get_warning(vmm)[0])
		hf_log(LOG_WARNING, u->reg.guest.uuid, "%s: %s", hf_vmm_upgrade_name(u),
			hf_vmm_get_warning(vmm));
	end_old(u);
}

/*
 * The note makes the new QEMU the guest: an agent that comes after this one's death then ends the
 * old one, and lets this one run. As long as nothing was sent, it can be taken back.
 */
static int let_run(struct hf_vmm_upgrade *u, struct hf_error *error)
{
	const char *uuid = u->reg.guest.uuid;
	int r = hf_fault(HF_FAULT_VMM_LOADED, error);

	u->no_return = r == 0;
	if (r == 0)
		r = hf_vmm_upgrade_note_write(uuid, u->note_running, error);
	if (r == 0)
		r = hf_fault(HF_FAULT_VMM_RUN, error);
	if (r < 0)
		return r;
	hf_registration_remove(uuid);
	u->unregistered = true;
	r = hf_vmm_resume(u->new, u->reg.guest.policies.resume_timeout_ns, on_resumed, u);
	return r < 0 ? hf_error_set(
			       error, r, HF_ERR_FAILED, NULL, "can't let it run: %s", strerror(-r))
		     : 0;
}

/* ---- the blackout ---- */

/* As the guest is now. */
static int note_pause(struct hf_vmm_upgrade *u, struct hf_error *error)
{
	int r = hf_vmm_upgrade_write_note(u, HF_VMM_UPGRADE_PAUSING, &u->note_pausing, error);

	if (r == 0)
		r = hf_vmm_upgrade_note_write(u->reg.guest.uuid, u->note_pausing, error);
	u->noted_running = u->reg.guest.was_running;
	return r;
}

/* The text that is written later. The new QEMU is there. */
static int compose_run(struct hf_vmm_upgrade *u, struct hf_error *error)
{
	return hf_vmm_upgrade_write_note(u, HF_VMM_UPGRADE_RUNNING, &u->note_running, error);
}

/* The state that the new one has is the guest's. */
static void go_over(struct hf_vmm_upgrade *u)
{
	struct hf_error e = {0};
	int r = 0;

	/* Somebody paused it, or let it run, while the new QEMU started. */
	if (u->noted_running != u->reg.guest.was_running) {
		r = compose_run(u, &e);
		if (r == 0)
			r = note_pause(u, &e);
	}
	if (r == 0)
		r = let_run(u, &e);
	if (r < 0)
		hf_vmm_upgrade_undo(u, &e);
}

static void on_verified(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_vmm_upgrade *u = data;

	/* One that has ended doesn't run. */
	if (error && hf_vmm_pid(u->old))
		hf_vmm_upgrade_undo(u, error);
	else
		go_over(u);
}

/*
 * One of the two is done: the guest is let run when both are. Who stood still for long is asked
 * whether that is still so; of the others it is enough what QEMU said by itself.
 */
static void on_moved(struct hf_vmm_upgrade *u)
{
	int r;

	if (!u->saved || !u->loaded)
		return;
	u->step = HF_VMM_UPGRADE_STEP_RESUMING;
	if (!u->old_gone && (u->beside.taps || hf_vmm_check_stands(u->old, NULL) < 0)) {
		r = hf_vmm_verify_saved(
			u->old, u->reg.guest.policies.save_timeout_ns, on_verified, u);
		if (r < 0)
			hf_vmm_upgrade_undo_errno(u, r, "can't ask its old QEMU");
	} else {
		go_over(u);
	}
}

static void on_loaded(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_vmm_upgrade *u = data;

	/* Also out of a save that is still under way, which the way back ends. */
	if (hf_vmm_upgrade_broke_off(u, error))
		return;
	u->loaded = true;
	on_moved(u);
}

static void on_saved(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_vmm_upgrade *u = data;
	struct hf_error e = {0};

	if (!error && hf_fault(HF_FAULT_VMM_SAVED, &e) < 0)
		error = &e;
	if (error && !u->cause.err)
		u->cause = *error;
	/* What it waits for does not come any more. When it is gone is when the way back begins. */
	if (u->cause.err && u->new_begun && !u->loaded && u->step == HF_VMM_UPGRADE_STEP_MOVING) {
		hf_vmm_cancel(u->new, &u->cause);
		return;
	}
	if (hf_vmm_upgrade_broke_off(u, NULL))
		return;
	u->saved = true;
	/* It has all that it needs. */
	if (!u->loaded)
		hf_vmm_limit(u->new, u->reg.guest.policies.resume_timeout_ns);
	on_moved(u);
}

/* The old one is saving into a socket, or is about to. */
static int load_new(struct hf_vmm_upgrade *u)
{
	const struct hf_policy *p = &u->reg.guest.policies;
	int r = hf_vmm_load(u->new, p->save_timeout_ns + p->resume_timeout_ns, on_loaded, u);

	if (r < 0)
		hf_vmm_upgrade_undo_errno(u, r, "can't load it");
	return r;
}

static int save_old(struct hf_vmm_upgrade *u, hf_vmm_paused_fn paused)
{
	int r = hf_vmm_save_into(
		u->old, u->new, u->reg.guest.policies.save_timeout_ns, paused, on_saved, u);

	if (r < 0)
		hf_error_set(&u->cause, r, HF_ERR_FAILED, NULL, "can't start to save it: %s",
			strerror(-r));
	return r;
}

void hf_vmm_upgrade_on_started(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_vmm_upgrade *u = data;
	bool moving = u->step == HF_VMM_UPGRADE_STEP_MOVING;
	struct hf_error e = {0};
	int r = 0;

	if (!error && !u->cause.err) {
		r = hf_fault(HF_FAULT_VMM_STARTED, &e);
		/* Nothing is loaded into the memory of one that runs. */
		if (r == 0 && moving)
			r = hf_vmm_check_stands(u->old, &e);
		if (r == 0)
			r = compose_run(u, &e);
		if (r == 0 && !moving)
			r = note_pause(u, &e);
		if (r == 0 && !moving)
			r = hf_fault(HF_FAULT_VMM_PAUSE, &e);
	}
	if (hf_vmm_upgrade_broke_off(u, r < 0 ? &e : error))
		return;
	u->step = HF_VMM_UPGRADE_STEP_MOVING;
	if (load_new(u) == 0 && !moving && save_old(u, NULL) < 0)
		hf_vmm_cancel(u->new, &u->cause);
}

/* ---- a guest with taps: the pause comes first ---- */

static void on_paused(struct hf_vmm *vmm, void *data)
{
	struct hf_vmm_upgrade *u = data;
	const struct hf_policy *p = &u->reg.guest.policies;
	struct hf_error e = {0};
	int r;

	if (hf_vmm_upgrade_broke_off(u, NULL))
		return;
	r = hf_taps_read(&u->taps, &e);
	u->taps_read = r == 0;
	/* Now with them, and with what QEMU has said of its running. */
	if (r == 0)
		r = note_pause(u, &e);
	if (r < 0) {
		hf_vmm_upgrade_undo(u, &e);
		return;
	}
	/* It may have more to say than the socket holds, and nobody listens until the new one does.
	 */
	hf_vmm_limit(u->old, p->save_timeout_ns + p->resume_timeout_ns);
	hf_vmm_upgrade_start_new(u);
}

void hf_vmm_upgrade_pause_first(struct hf_vmm_upgrade *u)
{
	struct hf_error e = {0};
	int r = note_pause(u, &e);

	if (r == 0)
		r = hf_fault(HF_FAULT_VMM_PAUSE, &e);
	if (hf_vmm_upgrade_broke_off(u, r < 0 ? &e : NULL))
		return;
	hf_agent_progress(u->agent, hf_vmm_upgrade_name(u),
		"pausing it, as QEMU %s takes its taps over when it starts", u->result.to);
	u->step = HF_VMM_UPGRADE_STEP_MOVING;
	if (save_old(u, on_paused) < 0)
		hf_vmm_upgrade_broke_off(u, NULL);
}
