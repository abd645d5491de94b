/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/update-internal.h"

#include <stdio.h>
#include <string.h>

#include "agent/freeze-note.h"
#include "agent/jump.h"
#include "agent/kexec.h"
#include "agent/libvirt-gate.h"
#include "agent/log.h"
#include "agent/prepared-note.h"
#include "agent/report.h"
#include "agent/saved-domains.h"
#include "agent/vmm-upgrade-request.h"
#include "common/fault.h"
#include "common/worker.h"
#include "vmm-glue/disks.h"

/* Guests run while this goes on, but nothing else can be done with the host. */
#define SYNC_TIMEOUT_NS (300 * HF_NSEC_PER_SEC)
#define DOMAINS_TIMEOUT_NS (10 * HF_NSEC_PER_SEC)

static int advance(sd_event_source *s, void *userdata);
static void start_undo(struct hf_update *u);

/* ---- counting what is under way ---- */

void hf_update_failed(struct hf_update *u, const struct hf_error *error)
{
	struct hf_error *first = u->stage >= STAGE_TAKE_BACK ? &u->undo : &u->cause;

	hf_log(LOG_ERR, NULL, "%s%s%s", error->guest, error->guest[0] ? ": " : "", error->message);
	if (!first->err)
		*first = *error;
}

void hf_update_one_done(struct hf_update *u)
{
	if (--u->pending == 0)
		sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
}

static void on_guest_done(struct hf_outgoing *out, const struct hf_error *error, void *data)
{
	struct hf_update *u = data;

	if (error && u->stage == STAGE_QUIT) {
		/* Others have quit already, so there is no way back; and as long as this QEMU lives
		 * its RAM must not get a second one. It was killed: it will go. */
		hf_agent_progress(u->agent, error->guest, "still waiting: %s", error->message);
		hf_outgoing_quit(out);
		return;
	}
	if (error)
		hf_update_failed(u, error);
	else if (hf_outgoing_get_step(out) == HF_OUT_NOT_SAVED)
		hf_agent_progress(u->agent, hf_outgoing_guest(out)->name,
			"can't be saved, and will be started afresh: %s",
			hf_outgoing_guest(out)->not_saved);
	else
		hf_agent_progress(u->agent, hf_outgoing_guest(out)->name, "%s",
			u->stage != STAGE_UNDO_GUESTS
				? hf_outgoing_step_name(hf_outgoing_get_step(out))
			: hf_outgoing_is_gone(out) ? "has ended"
						   : "as before");
	hf_update_one_done(u);
}

static void on_guest_gone(struct hf_outgoing *out, const struct hf_error *error, void *data)
{
	struct hf_update *u = data;

	/* The service manager ends what still runs before it jumps. All of the guest is preserved.
	 */
	if (u->stage == STAGE_HANDED_OVER)
		return;
	hf_update_abort(u->agent, error, NULL, NULL);
}

static const struct hf_update_ops update_ops = {
	.advance = advance,
	.guest_done = on_guest_done,
	.guest_gone = on_guest_gone,
};

void hf_update_all_guests(struct hf_update *u, void (*start)(struct hf_outgoing *out))
{
	/* Counted before any starts: a chain may end at once. */
	u->pending += u->n_guests;
	for (size_t i = 0; i < u->n_guests; i++)
		start(u->guests[i]);
	/* With none there is nothing to wait for. */
	if (u->n_guests == 0)
		sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
}

/*
 * Saves the guests with the lowest priority of those that run: who matters most stands still last.
 * Return: false when all are saved.
 */
static bool save_next(struct hf_update *u)
{
	uint32_t lowest = UINT32_MAX;
	size_t n = 0;

	for (size_t i = 0; i < u->n_guests; i++) {
		uint32_t priority = hf_outgoing_guest(u->guests[i])->policies.priority;

		if (hf_outgoing_get_step(u->guests[i]) != HF_OUT_PREPARED || priority > lowest)
			continue;
		n = priority < lowest ? 1 : n + 1;
		lowest = priority;
	}
	/* As in hf_update_all_guests(): counted first. */
	u->pending += n;
	for (size_t i = 0; i < u->n_guests && n > 0; i++) {
		if (hf_outgoing_get_step(u->guests[i]) == HF_OUT_PREPARED &&
			hf_outgoing_guest(u->guests[i])->policies.priority == lowest)
			hf_outgoing_save(u->guests[i]);
	}
	return n > 0;
}

void hf_update_in_worker(
	struct hf_update *u, int (*run)(void *data), void (*done)(void *data, int result))
{
	int r;

	u->pending++;
	r = hf_worker_run(u->agent->event, run, done, u);
	if (r < 0) {
		hf_error_set(&u->host_error, r, HF_ERR_FAILED, NULL, "can't start a thread: %s",
			strerror(-r));
		done(u, r);
	}
}

void hf_update_on_host_done(void *data, int result)
{
	struct hf_update *u = data;

	if (result < 0)
		hf_update_failed(u, &u->host_error);
	hf_update_one_done(u);
}

static void on_disks_done(void *data, int result)
{
	struct hf_update *u = data;

	u->late = sd_event_source_disable_unref(u->late);
	hf_update_on_host_done(u, result);
}

/*
 * A disk that hangs must not keep guests paused. The worker can't be called back: guests go on now,
 * and the rest of the undo waits for it.
 */
static int on_late(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct hf_update *u = userdata;
	struct hf_error e = {0};

	hf_error_set(&e, -ETIMEDOUT, HF_ERR_FAILED,
		"look for a disk or a network file system that hangs",
		"writing the host's file systems back takes too long");
	hf_update_failed(u, &e);
	start_undo(u);
	return 0;
}

void hf_update_disks_in_worker(struct hf_update *u, int (*run)(void *data), uint64_t timeout_ns)
{
	struct hf_error e = {0};
	int r;

	r = sd_event_add_time_relative(
		u->agent->event, &u->late, CLOCK_MONOTONIC, timeout_ns / 1000, 0, on_late, u);
	if (r < 0) {
		hf_error_set(&e, r, HF_ERR_FAILED, NULL, "can't set a timer: %s", strerror(-r));
		hf_update_failed(u, &e);
	}
	hf_update_in_worker(u, run, on_disks_done);
}

/* ---- prepare ---- */

static void on_owner_gone(struct hf_varlink_call *call, void *userdata)
{
	struct hf_update *u = userdata;
	struct hf_error e = {0};

	hf_error_set(&e, -ECONNRESET, HF_ERR_ROLLED_BACK, "start again",
		"the client that asked for the update went away");
	hf_update_abort(u->agent, &e, NULL, NULL);
}

static void set_owner(struct hf_update *u, struct hf_varlink_call *call)
{
	u->owner = hf_varlink_call_ref(call);
	hf_varlink_call_on_gone(call, on_owner_gone, u);
	if (hf_varlink_call_wants_more(call))
		hf_agent_watch(u->agent, call);
}

void hf_update_drop_owner(struct hf_update *u)
{
	if (!u->owner)
		return;
	hf_varlink_call_on_gone(u->owner, NULL, NULL);
	hf_agent_unwatch(u->agent, u->owner);
	u->owner = hf_varlink_call_unref(u->owner);
}

static void answer_prepared(struct hf_update *u)
{
	struct json_object *params = json_object_new_object();

	hf_json_add_string(params, "update_id", u->agent->update_id);
	hf_varlink_call_reply(u->owner, params);
	hf_update_drop_owner(u);
}

static int check_state(
	const struct hf_agent *agent, enum hf_state_event event, struct hf_error *error)
{
	enum hf_state next;

	if (event == HF_EVENT_PREPARE && agent->adopt)
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY, "try again when that is over",
			"a guest is being adopted");
	if (event == HF_EVENT_PREPARE && hf_vmm_upgrades_busy(agent, error) < 0)
		return -EBUSY;
	if (event == HF_EVENT_PREPARE && agent->recheck)
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY, "try again when that is over",
			"an unhealthy guest is being looked at again");
	if (hf_state_next(agent->state, event, &next) == 0)
		return 0;
	if (agent->state == HF_STATE_PREPARED || agent->state == HF_STATE_NORMAL)
		return hf_error_set(error, -EPERM, HF_ERR_STATE,
			agent->state == HF_STATE_PREPARED
				? "commit or abort the prepared update first"
				: "prepare an update first",
			"the host is in state `%s`", hf_state_name(agent->state));
	if (agent->state == HF_STATE_DEGRADED)
		return hf_error_set(error, -EPERM, HF_ERR_DEGRADED, "see `holdfast status`",
			"some guest needs an operator first");
	return hf_error_set(error, -EBUSY, HF_ERR_BUSY, "try again when it is over",
		"another update is under way (state `%s`)", hf_state_name(agent->state));
}

int hf_update_may_prepare(const struct hf_agent *agent, struct hf_error *error)
{
	if (agent->shutting_down)
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY, "try again when it is over",
			"guests are being shut down for another update");
	if (hf_saved_domains_busy(agent))
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY,
			"try again when it is over; see `holdfast status`",
			"domains are being saved for another update, or started again after one");
	if (agent->state == HF_STATE_NORMAL && !agent->adopt && hf_freeze_note_exists())
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY,
			"see `holdfast guests` and the agent's log; holdfastd tries again when it "
			"is restarted",
			"guests that an agent which died had paused don't all run again yet");
	return check_state(agent, HF_EVENT_PREPARE, error);
}

int hf_update_prepare(struct hf_agent *agent, const struct hf_update_request *request,
	struct hf_varlink_call *call, struct hf_error *error)
{
	struct hf_update *u = NULL;
	int r = check_state(agent, HF_EVENT_PREPARE, error);

	if (r < 0)
		return r;
	r = hf_update_new(agent, request, &update_ops, &u, error);
	if (r < 0)
		return r;
	agent->update = u;
	set_owner(u, call);
	hf_agent_event(agent, HF_EVENT_PREPARE);
	hf_agent_progress(agent, NULL, "preparing %zu guests", u->n_guests);
	u->stage = STAGE_PREPARE;
	hf_update_all_guests(u, hf_outgoing_prepare);
	hf_update_in_worker(u, hf_update_prepare_host, hf_update_on_host_done);
	return 0;
}

/* Return: false when it has to be undone. */
static bool finish_prepare(struct hf_update *u)
{
	struct hf_error e = {0};

	hf_fault(HF_FAULT_PREPARED, NULL);
	/* /var may be away when an orderly shutdown comes to the commit. */
	if ((u->keep_loaded && hf_update_guard(u, &e) < 0) ||
		hf_prepared_note_write(u->agent->update_id, &e) < 0) {
		hf_update_failed(u, &e);
		return false;
	}
	u->manifest->tsc_prepared = hf_tsc_now();
	hf_agent_event(u->agent, HF_EVENT_ALL_PREPARED);
	hf_agent_progress(u->agent, NULL, "prepared");
	u->stage = STAGE_PREPARED;
	return true;
}

/* ---- commit ---- */

static int sync_and_load(void *data)
{
	hf_fault(HF_FAULT_SYNC, NULL);
	sync();
	return hf_update_load(data);
}

static void on_domains(const struct hf_error *error, void *data)
{
	struct hf_update *u = data;
	struct hf_error e = {0};

	u->domains = hf_libvirt_call_free(u->domains);
	if (error)
		hf_update_failed(u, error);
	else if (hf_update_check_same_guests(u, &e) < 0)
		hf_update_failed(u, &e);
	hf_update_one_done(u);
}

/* The last look before the blackout: a guest that was started meanwhile would be lost. */
static void look_for_domains(struct hf_update *u)
{
	struct hf_error e = {0};

	u->pending++;
	if (hf_update_is_without_libvirt(u, &e))
		on_domains(e.err ? &e : NULL, u);
	else if (hf_libvirt_refresh(
			 u->agent->event, DOMAINS_TIMEOUT_NS, on_domains, u, &u->domains) < 0) {
		hf_error_set(&e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
		on_domains(&e, u);
	}
}

static void start_commit(struct hf_update *u)
{
	struct hf_error e = {0};
	int r;

	hf_agent_event(u->agent, HF_EVENT_COMMIT);
	u->manifest->tsc_commit = hf_tsc_now();
	r = hf_fault(HF_FAULT_FREEZE_NOTE, &e);
	if (r == 0)
		r = hf_freeze_note_write(u->manifest, &e);
	u->noted = r == 0;
	u->stage = STAGE_SYNC;
	if (r == 0)
		r = hf_update_guard(u, &e);
	if (r < 0)
		hf_update_failed(u, &e);
	look_for_domains(u);
	hf_update_disks_in_worker(u, sync_and_load, SYNC_TIMEOUT_NS);
}

int hf_update_commit(struct hf_agent *agent, bool hand_over, struct hf_varlink_call *call,
	struct hf_error *error)
{
	struct hf_update *u = agent->update;
	int r;

	r = check_state(agent, HF_EVENT_COMMIT, error);
	if (r == 0 && hand_over && !u->way.leaves)
		r = hf_error_set(error, -EOPNOTSUPP, HF_ERR_INVALID, NULL,
			"there is no jump of the host with the carrier `%s`",
			hf_carrier_name(u->way.carrier));
	if (r == 0 && hand_over && hf_way_on_disk(&u->way))
		r = hf_error_set(error, -EOPNOTSUPP, HF_ERR_INVALID, "commit without `hand_over`",
			"an orderly shutdown has unmounted the disks by the time that images are "
			"completed");
	if (r == 0)
		r = hf_update_check_same_guests(u, error);
	if (r < 0)
		return r;
	u->hand_over = hand_over;
	set_owner(u, call);
	start_commit(u);
	return 0;
}

/* ---- undo ---- */

static void answer_all(struct hf_update *u)
{
	struct hf_error e = u->undo.err ? u->undo : u->cause;

	/* Nothing that failed here has cost a guest anything, unless the undo failed too. */
	snprintf(e.name, sizeof(e.name), "%s", u->undo.err ? HF_ERR_DEGRADED : HF_ERR_ROLLED_BACK);
	if (u->owner)
		hf_varlink_call_error(u->owner, &e, NULL);
	hf_update_drop_owner(u);
	for (size_t i = 0; i < u->n_aborters; i++) {
		if (u->undo.err)
			hf_varlink_call_error(u->aborters[i], &e, NULL);
		else
			hf_varlink_call_reply(u->aborters[i], NULL);
		hf_varlink_call_unref(u->aborters[i]);
	}
	u->n_aborters = 0;
}

static void undo_guests(struct hf_update *u)
{
	u->stage = STAGE_UNDO_GUESTS;
	hf_update_all_guests(u, hf_outgoing_undo);
}

/* In a worker. Images that nobody takes back would bring the guests up once more, later. */
static int take_back(void *data)
{
	struct hf_update *u = data;
	int r = 0;

	if (u->settled)
		r = hf_disks_settle(false, &u->host_error);
	u->settled = r < 0;
	if (hf_carrier_take_back(u->way.carrier, HF_MANIFEST_SESSION, &u->host_error) < 0) {
		hf_error_prefix(&u->host_error, "its images can't be taken back");
		snprintf(u->host_error.remedy, sizeof(u->host_error.remedy),
			"remove them before the host is booted again: guests would be brought up "
			"from them as they were now");
		return u->host_error.err;
	}
	u->handed_over = false;
	return r;
}

static void start_undo(struct hf_update *u)
{
	hf_agent_event(u->agent, HF_EVENT_ABORT);
	hf_agent_progress(u->agent, u->cause.guest[0] ? u->cause.guest : NULL, "rolling back: %s",
		u->cause.message);
	if (!u->handed_over) {
		undo_guests(u);
		return;
	}
	u->stage = STAGE_TAKE_BACK;
	hf_update_in_worker(u, take_back, hf_update_on_host_done);
}

static void finish_undo(struct hf_update *u)
{
	struct hf_agent *agent = u->agent;

	hf_update_unguard(u);
	if (u->gated)
		hf_libvirt_gate_open(agent);
	hf_fault(HF_FAULT_UNDO_NOTE, NULL);
	/* With a guest that does not run the note stays: the next agent lets it. */
	if (u->noted && !u->undo.err)
		hf_freeze_note_remove();
	/* Undone because somebody said so: whoever ends the host now means to end the guests. */
	if (u->asked && !u->undo.err)
		hf_prepared_note_remove();
	hf_agent_event(agent, u->undo.err ? HF_EVENT_UNDO_FAILED : HF_EVENT_UNDONE);
	hf_agent_progress(agent, NULL, "%s: %s",
		u->undo.err ? "rolled back, but a guest needs you"
			    : "rolled back, guests run as before",
		u->undo.err ? u->undo.message : u->cause.message);
	hf_report_rolled_back(agent, u->manifest, u->undo.err ? &u->undo : &u->cause);
	answer_all(u);
	hf_update_free(u);
}

/* ---- from stage to stage ---- */

static int advance(sd_event_source *s, void *userdata)
{
	struct hf_update *u = userdata;

	if (u->pending > 0)
		return 0;
	if (u->cause.err && u->stage < STAGE_TAKE_BACK) {
		start_undo(u);
		return 0;
	}
	switch (u->stage) {
	case STAGE_PREPARE:
		hf_update_collect_readahead(u);
		if (!finish_prepare(u))
			start_undo(u);
		else if (u->commit)
			start_commit(u);
		else
			answer_prepared(u);
		break;
	case STAGE_PREPARED:
		break;
	case STAGE_SYNC:
		u->stage = STAGE_SAVE;
		if (!save_next(u))
			sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
		break;
	case STAGE_SAVE:
		if (save_next(u))
			break;
		if (hf_way_on_disk(&u->way)) {
			u->stage = STAGE_SEAL;
			hf_update_all_guests(u, hf_outgoing_seal);
		} else {
			hf_update_leave(u);
		}
		break;
	case STAGE_SEAL:
		hf_update_seal_host(u);
		break;
	case STAGE_SEAL_HOST:
		hf_update_leave(u);
		break;
	case STAGE_GATE:
		hf_update_quit(u);
		break;
	case STAGE_SETTLE:
		if (u->hand_over)
			hf_update_hand_over(u);
		else
			hf_update_jump(u);
		break;
	case STAGE_HANDED_OVER:
		break;
	case STAGE_QUIT:
		hf_update_jump_execve(u);
		break;
	case STAGE_TAKE_BACK:
		undo_guests(u);
		break;
	case STAGE_UNDO_GUESTS:
		u->stage = STAGE_UNDO_HOST;
		hf_update_in_worker(u, hf_update_undo_host, hf_update_on_host_done);
		break;
	case STAGE_UNDO_HOST:
		finish_undo(u);
		break;
	}
	return 0;
}

int hf_update_abort(struct hf_agent *agent, const struct hf_error *cause,
	struct hf_varlink_call *call, struct hf_error *error)
{
	struct hf_update *u = agent->update;
	struct hf_error asked = {0};

	if (!u || u->stage == STAGE_QUIT)
		return hf_error_set(
			error, -EPERM, HF_ERR_STATE, NULL, "there is no update that can be undone");
	if (call && u->n_aborters == HF_ARRAY_SIZE(u->aborters))
		return hf_error_set(
			error, -EBUSY, HF_ERR_BUSY, NULL, "too many callers wait for the undo");
	if (call)
		u->aborters[u->n_aborters++] = hf_varlink_call_ref(call);
	if (!cause) {
		hf_error_set(&asked, -ECANCELED, HF_ERR_ROLLED_BACK, NULL, "aborted on request");
		cause = &asked;
	}
	if (u->stage < STAGE_TAKE_BACK && !u->cause.err) {
		u->asked = cause == &asked || agent->stopping;
		hf_update_failed(u, cause);
	}
	/* What is under way comes to its end first; with nothing under way the undo starts now. */
	if (u->pending == 0)
		sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
	return 0;
}

const char *hf_update_guest_step(const struct hf_update *update, const char *uuid)
{
	for (size_t i = 0; i < update->n_guests; i++) {
		if (strcmp(hf_outgoing_guest(update->guests[i])->uuid, uuid) == 0)
			return hf_outgoing_step_name(hf_outgoing_get_step(update->guests[i]));
	}
	return NULL;
}

bool hf_update_is_orderly(const struct hf_update *update)
{
	return update->keep_loaded;
}

bool hf_update_is_handed_over(const struct hf_update *update)
{
	return update->stage == STAGE_HANDED_OVER;
}

const struct hf_manifest *hf_update_manifest(const struct hf_update *update)
{
	return update->manifest;
}
