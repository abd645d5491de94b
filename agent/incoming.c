/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/incoming-internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/arrival.h"
#include "agent/libvirt-gate.h"
#include "agent/log.h"
#include "agent/resume-journal.h"
#include "common/fault.h"
#include "common/fd.h"
#include "common/worker.h"

#define ADOPT_TIMEOUT_NS (20 * HF_NSEC_PER_SEC)

static const char *const step_names[] = {
	[HF_IN_IDLE] = "idle",
	[HF_IN_RETRIEVING] = "retrieving",
	[HF_IN_WAITING] = "waiting",
	[HF_IN_LOADING] = "loading",
	[HF_IN_RESUMING] = "resuming",
	[HF_IN_CHECKING] = "checking",
	[HF_IN_FINISHING] = "finishing",
	[HF_IN_COLD_BOOTING] = "cold-booting",
	[HF_IN_RESUMED] = "resumed",
	[HF_IN_COLD_BOOTED] = "cold-booted",
	[HF_IN_HELD] = "held",
	[HF_IN_RELEASING] = "releasing",
	[HF_IN_RELEASED] = "released",
};
static_assert(HF_ARRAY_SIZE(step_names) == HF_IN_N_, "every step has its name");

static void pass(struct hf_incoming *in)
{
	if (in->has_passed)
		return;
	in->has_passed = true;
	in->passed(in, in->data);
}

static void hold(struct hf_incoming *in, const struct hf_error *error)
{
	in->step = HF_IN_HELD;
	hf_incoming_open_gate(in);
	if (error != &in->error)
		in->error = *error;
	hf_error_guest(&in->error, in->guest->name);
	if (!in->error.remedy[0])
		snprintf(in->error.remedy, sizeof(in->error.remedy),
			"its RAM is kept %s; see holdfastd's log and the guest's, then retry, dump "
			"or release it",
			hf_incoming_is_image(in) && !in->ran_in ? "in its image"
								: "until the next reboot");
	pass(in);
	/* The QEMU that it may run in is the one to go on with; else the next try is its own's. */
	if (in->own_vmm && !in->ran_in)
		hf_incoming_own_vmm_again(in);
	in->done(in, &in->error, in->data);
}

static void hold_errno(struct hf_incoming *in, int err, const char *what)
{
	struct hf_error e = {0};

	hf_error_set(&e, err, HF_ERR_DEGRADED, NULL, "%s: %s", what, strerror(-err));
	hold(in, &e);
}

void hf_incoming_close_fds(struct hf_incoming *in)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(in->ram_fds); i++)
		hf_close(&in->ram_fds[i]);
	for (size_t i = 0; i < HF_ARRAY_SIZE(in->state_fds); i++)
		hf_close(&in->state_fds[i]);
}

static int finish(void *data)
{
	struct hf_incoming *in = data;
	int r = hf_fault(HF_FAULT_FINISH_SESSION, &in->error);

	if (r == 0 && in->session)
		r = hf_session_finish(in->session, &in->error);
	if (r == 0)
		in->session = NULL;
	return r;
}

static void on_finished(void *data, int result)
{
	struct hf_incoming *in = data;

	if (result < 0) {
		/* It runs; only the kernel's bookkeeping of it could not be ended. */
		hf_error_prefix(&in->error, "it %s, but its session can't be finished",
			in->released ? "was released" : "runs");
		hold(in, &in->error);
		return;
	}
	/* Leaves the guest's monitor to whoever comes next. */
	hf_vmm_free(in->vmm);
	in->vmm = NULL;
	hf_incoming_open_gate(in);
	if (in->released)
		hf_libvirt_gate_unguard(in->guest);
	in->step = in->released ? HF_IN_RELEASED : in->afresh ? HF_IN_COLD_BOOTED : HF_IN_RESUMED;
	hf_error_clear(&in->error);
	if (in->afresh) {
		in->error = in->why;
		hf_log(LOG_WARNING, in->guest->uuid,
			"%s was started afresh, what it had in memory is given up",
			in->guest->name);
	}
	pass(in);
	in->done(in, NULL, in->data);
}

static void start_finish(struct hf_incoming *in)
{
	int r;

	in->step = HF_IN_FINISHING;
	hf_error_clear(&in->error);
	r = hf_worker_run(in->agent->event, finish, on_finished, in);
	if (r < 0)
		hold_errno(in, r, "can't start a thread");
}

static uint64_t blackout_ns(const struct hf_incoming *in)
{
	const struct hf_manifest *m =
		in->agent->arrival ? hf_arrival_manifest(in->agent->arrival) : NULL;
	uint64_t from = in->guest->tsc_pause, to = in->stamps.resumed;

	if (m && to)
		to += (uint64_t)hf_arrival_tsc_shift(in->agent->arrival);

	return m && m->tsc_hz && from && to > from ? hf_tsc_to_ns(to - from, m->tsc_hz) : 0;
}

/* Whatever comes out: it runs, and nothing of it stays reserved. */
static void on_checked(const struct hf_health_result *result, void *data)
{
	struct hf_incoming *in = data;
	const struct hf_manifest_guest *g = in->guest;
	struct hf_health_remark remark = {0};

	in->health = *result;
	in->gate = hf_health_free(in->gate);
	if (in->health.clock_message[0] && in->health.clock == HF_HEALTH_CLOCK_LAGS)
		hf_log(LOG_NOTICE, g->uuid, "%s: its clock lags by the blackout: %s", g->name,
			in->health.clock_message);
	if (in->health.unhealthy) {
		hf_log(LOG_ERR, g->uuid, "%s runs, but is not well: %s", g->name,
			in->health.message);
		remark.agent_answered = g->agent_answered;
		remark.blackout_ns = blackout_ns(in);
		snprintf(remark.message, sizeof(remark.message), "%s", in->health.message);
		hf_health_note(g->uuid, hf_vmm_pid(in->vmm), &remark);
	}
	start_finish(in);
}

/* One that was started afresh has only begun to boot; one that is paused can't answer. */
static void check_health(struct hf_incoming *in)
{
	hf_health_forget(in->guest->uuid);
	in->health = (struct hf_health_result){0};
	in->step = HF_IN_CHECKING;
	if (in->afresh || !in->guest->was_running ||
		hf_health_start(in->agent, in->vmm, in->guest, blackout_ns(in), on_checked, in,
			&in->gate) < 0)
		start_finish(in);
}

static void on_resumed(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_incoming *in = data;

	if (error) {
		hold(in, error);
		return;
	}
	/* Of its start; not told then, because until now the guest stood still. */
	if (hf_vmm_get_warning(vmm)[0])
		hf_log(LOG_WARNING, in->guest->uuid, "%s: %s", in->guest->name,
			hf_vmm_get_warning(vmm));
	in->stamps = *hf_vmm_get_stamps(vmm);
	hf_libvirt_gate_unguard(in->guest);
	pass(in);
	in->runs = true;
	/* QEMU has its own hold on the RAM now. */
	hf_incoming_close_fds(in);
	check_health(in);
}

static int resume(struct hf_incoming *in)
{
	int r;

	in->step = HF_IN_RESUMING;
	r = hf_fault(HF_FAULT_RESUME, NULL);
	return r < 0 ? r
		     : hf_vmm_resume(
			       in->vmm, in->guest->policies.resume_timeout_ns, on_resumed, in);
}

static void resume_or_hold(struct hf_incoming *in)
{
	int r = resume(in);

	if (r < 0)
		hold_errno(in, r, "can't resume it");
}

static void set_ran_in(struct hf_incoming *in, pid_t pid)
{
	in->ran_in = pid;
	if (hf_pid_start_time(pid, &in->ran_in_start) < 0)
		in->ran_in_start = 0;
}

/* ---- a guest that can't be loaded ---- */

/*
 * Before anything can come of the new QEMU: whoever comes after this agent must not start another,
 * on the same disks. So one that can't be noted isn't wanted.
 */
static int on_spawned_afresh(struct hf_vmm *vmm, void *data, struct hf_error *error)
{
	struct hf_incoming *in = data;
	int r = hf_resume_journal_write(in->guest->uuid, hf_vmm_pid(vmm), true, error);

	if (r == 0)
		r = hf_session_spend(in->session, error);
	if (r == 0)
		set_ran_in(in, hf_vmm_pid(vmm));
	return r;
}

static void hold_after_all(struct hf_incoming *in, const struct hf_error *error)
{
	struct hf_error e = in->why;

	in->afresh = false;
	in->ran_in = 0;
	hf_resume_journal_remove(in->guest->uuid);
	hf_log(LOG_ERR, in->guest->uuid, "%s can't be started afresh, either: %s", in->guest->name,
		error->message);
	hold(in, &e);
}

static void on_started_afresh(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_incoming *in = data;

	if (error)
		hold_after_all(in, error);
	else
		resume_or_hold(in);
}

/* It never ran in this kernel. Its RAM stays as it is until the new QEMU runs. */
static void start_afresh(struct hf_incoming *in, const struct hf_error *error)
{
	struct hf_error e = {0};
	int r;

	in->why = *error;
	in->afresh = true;
	in->step = HF_IN_COLD_BOOTING;
	hf_log(LOG_WARNING, in->guest->uuid,
		"%s can't be brought back: %s. Starting it afresh, as is its policy",
		in->guest->name, error->message);
	pass(in);
	r = hf_vmm_cold_boot(in->vmm, in->guest->policies.resume_timeout_ns, on_spawned_afresh,
		on_started_afresh, in);
	if (r < 0) {
		hf_error_set(&e, r, HF_ERR_FAILED, NULL, "%s", strerror(-r));
		hold_after_all(in, &e);
	}
}

static void not_loaded(struct hf_incoming *in, const struct hf_error *error)
{
	if (in->guest->policies.resume_failure == HF_RESUME_FAILURE_COLD_BOOT)
		start_afresh(in, error);
	else
		hold(in, error);
}

/* In a worker: the disk may be slow. */
static int spend(void *data)
{
	struct hf_incoming *in = data;
	int r = hf_fault(HF_FAULT_SPEND, &in->error);

	return r == 0 ? hf_session_spend(in->session, &in->error) : r;
}

static void on_spent(void *data, int result)
{
	struct hf_incoming *in = data;
	int r = result < 0 ? result : resume(in);

	if (r == 0)
		return;
	/* Nothing was sent. One that was only loaded did not run, and may be loaded again. */
	if (!in->adopting) {
		in->ran_in = 0;
		hf_resume_journal_remove(in->guest->uuid);
	}
	if (result < 0)
		hold(in, &in->error);
	else
		hold_errno(in, r, "can't resume it");
}

/* Where it can outlive this kernel, what it came from must be known there as used. */
static void spend_and_resume(struct hf_incoming *in)
{
	hf_error_clear(&in->error);
	if (!hf_incoming_is_image(in))
		on_spent(in, 0);
	else if (hf_worker_run(in->agent->event, spend, on_spent, in) < 0)
		on_spent(in, spend(in));
}

static void on_loaded(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_incoming *in = data;
	struct hf_error e = {0};

	if (error) {
		not_loaded(in, error);
		return;
	}
	/* From here on nobody may load it again. One that is let run without a note would be, by an
	 * agent that comes after this one's death: its memory would be of two times. */
	if (hf_fault(HF_FAULT_RESUME_JOURNAL, &e) < 0 ||
		hf_resume_journal_write(in->guest->uuid, hf_vmm_pid(vmm), false, &e) < 0) {
		hold(in, &e);
		return;
	}
	set_ran_in(in, hf_vmm_pid(vmm));
	spend_and_resume(in);
}

/* ---- a guest that ran already ---- */

static void on_adopted(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_incoming *in = data;
	struct hf_error e = {0};

	in->guest->was_running = in->was_running;
	hf_manifest_set(&in->guest->status, in->status);
	if (!error && in->afresh)
		hf_vmm_adopt_fresh(vmm, &e);
	else if (!error)
		hf_vmm_adopt(vmm, in->ram_fds, &e);
	if (error || e.err) {
		hold(in, error ? error : &e);
		return;
	}
	hf_log(LOG_NOTICE, in->guest->uuid, "%s was let run before%s: taken over", in->guest->name,
		in->retried ? "" : " by an agent that died");
	spend_and_resume(in);
}

static void adopt(struct hf_incoming *in)
{
	int r;

	in->step = HF_IN_RESUMING;
	in->adopting = true;
	/* That is what the next update has to start. */
	if (in->ran_vmm) {
		free(in->guest->vmm);
		in->guest->vmm = TAKE_PTR(in->ran_vmm);
	}
	in->was_running = in->guest->was_running;
	hf_manifest_set(&in->status, in->guest->status);
	/* libvirt's daemon waits until its guests run. */
	hf_vmm_use_own_monitor(in->vmm);
	r = hf_fault(HF_FAULT_TAKE_OVER, NULL);
	if (r == 0)
		r = hf_vmm_attach(
			in->vmm, in->ran_in, in->ran_in_start, ADOPT_TIMEOUT_NS, on_adopted, in);
	if (r < 0)
		hold_errno(in, r, "can't take its QEMU over");
}

static void load(struct hf_incoming *in);

static void on_gate_closed(const struct hf_error *error, void *data)
{
	struct hf_incoming *in = data;

	in->gated = !error;
	if (error)
		hold(in, error);
	else
		load(in);
}

static void load(struct hf_incoming *in)
{
	struct hf_error e = {0};
	int r;

	if (hf_incoming_wants_gate(in)) {
		in->step = HF_IN_LOADING;
		r = hf_libvirt_gate_close(in->agent, on_gate_closed, in);
		if (r < 0)
			hold_errno(in, r, "libvirt's daemon can't be stopped for it");
		return;
	}
	if (hf_incoming_check_libvirt(in, &e) < 0) {
		hold(in, &e);
		return;
	}
	/* Its save-failure was asked by the agent before the jump: there is nothing to load. */
	if (in->guest->not_saved) {
		start_afresh(in, &in->why);
		return;
	}
	in->step = HF_IN_LOADING;
	r = hf_fault(HF_FAULT_RESPAWN, NULL);
	if (r == 0)
		r = hf_vmm_respawn(in->vmm, in->ram_fds, in->state_fds,
			in->guest->policies.resume_timeout_ns, on_loaded, in);
	if (r < 0) {
		hf_error_set(
			&e, r, HF_ERR_DEGRADED, NULL, "can't start its QEMU: %s", strerror(-r));
		not_loaded(in, &e);
	}
}

void hf_incoming_go(struct hf_incoming *in)
{
	in->may_load = true;
	if (in->step == HF_IN_WAITING)
		load(in);
}

static void on_retrieved(void *data, int result)
{
	struct hf_incoming *in = data;

	if (result < 0) {
		hold(in, &in->error);
		return;
	}
	if (in->over) {
		on_finished(in, 0);
		return;
	}
	if (in->released) {
		/* The agent that died had no more than begun. */
		start_finish(in);
		return;
	}
	if (in->ran_in) {
		adopt(in);
		return;
	}
	if (in->n_ended > 0)
		hf_log(LOG_NOTICE, in->guest->uuid, "%s: ended a QEMU that had begun to load it",
			in->guest->name);
	in->step = HF_IN_WAITING;
	if (in->may_load)
		load(in);
}

int hf_incoming_again(struct hf_incoming *in)
{
	in->step = in->runs ? HF_IN_FINISHING : HF_IN_RETRIEVING;
	return hf_worker_run(in->agent->event, in->runs ? finish : hf_incoming_retrieve,
		in->runs ? on_finished : on_retrieved, in);
}

void hf_incoming_start(struct hf_incoming *in)
{
	int r = hf_incoming_again(in);

	if (r < 0)
		hold_errno(in, r, "can't start a thread");
}

int hf_incoming_new(struct hf_agent *agent, struct hf_carrier *carrier,
	struct hf_manifest_guest *guest, hf_incoming_passed_fn passed, hf_incoming_done_fn done,
	void *data, struct hf_incoming **ret)
{
	struct hf_incoming *in = calloc(1, sizeof(*in));
	int r;

	if (!in)
		return -ENOMEM;
	*in = (struct hf_incoming){
		.agent = agent,
		.carrier = carrier,
		.guest = guest,
		.passed = passed,
		.done = done,
		.data = data,
	};
	if (guest->not_saved)
		hf_error_set(&in->why, -ENODATA, HF_ERR_DEGRADED, NULL,
			"its devices could not be saved before the jump: %s", guest->not_saved);
	/* Another build wrote them: a time that can't be must not strand the guest. */
	hf_policy_repair(&guest->policies);
	for (size_t i = 0; i < HF_ARRAY_SIZE(in->ram_fds); i++)
		in->ram_fds[i] = -EBADF;
	for (size_t i = 0; i < HF_ARRAY_SIZE(in->state_fds); i++)
		in->state_fds[i] = -EBADF;
	r = hf_vmm_new(agent->event, guest, agent->ring, NULL, NULL, &in->vmm);
	if (r < 0) {
		free(in);
		return r;
	}
	*ret = in;
	return 0;
}

void hf_incoming_free(struct hf_incoming *in)
{
	if (!in)
		return;
	hf_health_free(in->gate);
	hf_libvirt_gate_forget(in->agent, in);
	hf_vmm_free(in->vmm);
	/* A held guest keeps its session to the end of the process. */
	if (in->session)
		hf_session_detach(in->session);
	else
		hf_incoming_close_fds(in);
	free(in->ran_vmm);
	free(in->own_vmm);
	free(in->status);
	free(in);
}

enum hf_incoming_step hf_incoming_get_step(const struct hf_incoming *in)
{
	return in->step;
}

bool hf_incoming_has_passed(const struct hf_incoming *in)
{
	return in->has_passed;
}

bool hf_incoming_is_up(const struct hf_incoming *in)
{
	return in->step == HF_IN_RESUMED || in->step == HF_IN_COLD_BOOTED;
}

const char *hf_incoming_step_name(enum hf_incoming_step step)
{
	return step_names[step];
}

const struct hf_manifest_guest *hf_incoming_guest(const struct hf_incoming *in)
{
	return in->guest;
}

const struct hf_vmm_stamps *hf_incoming_stamps(const struct hf_incoming *in)
{
	return in->vmm ? hf_vmm_get_stamps(in->vmm) : &in->stamps;
}

uint64_t hf_incoming_retrieve_ns(const struct hf_incoming *in)
{
	return in->retrieve_ns;
}

const struct hf_error *hf_incoming_error(const struct hf_incoming *in)
{
	return &in->error;
}

const struct hf_health_result *hf_incoming_health(const struct hf_incoming *in)
{
	return &in->health;
}
