/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The ways out of this kernel, or, where there is no jump, of this process.
 */
#include "agent/update-internal.h"

#include <stdio.h>
#include <string.h>

#include "agent/jump.h"
#include "agent/kexec.h"
#include "agent/libvirt-gate.h"
#include "agent/log.h"
#include "common/fault.h"
#include "vmm-glue/disks.h"

/* How long the service manager may take from the last of the services to the jump. */
#define PATIENCE_S 120u

/* Guests stand still. */
#define SETTLE_TIMEOUT_NS (10 * HF_NSEC_PER_SEC)

static void start_gate(struct hf_update *u);

static int settle(void *data)
{
	struct hf_error e = {0};

	hf_fault(HF_FAULT_SETTLE, NULL);
	/* A jump without is a jump after a power failure, as far as file systems are concerned. */
	if (hf_disks_settle(true, &e) < 0) {
		hf_log(LOG_WARNING, NULL, "disks are synced only: %s", e.message);
		sync();
	}
	hf_fault(HF_FAULT_SETTLED, NULL);
	return 0;
}

/*
 * With images everything is on disk before file systems may be made read-only. In a worker: the
 * manifest is small, but the disk may be slow.
 */
static int seal_host(void *data)
{
	struct hf_update *u = data;
	struct hf_error *e = &u->host_error;
	int r = hf_libvirt_check_known(u->manifest->guests, u->manifest->n_guests, e);

	if (r == 0)
		r = hf_update_write_manifest(u, e);
	if (r == 0)
		r = hf_session_seal(u->session, e);
	if (r == 0)
		r = hf_fault(HF_FAULT_HAND_OVER, e);
	if (r < 0)
		return r;
	/* It may have been, also when it says that it failed. */
	u->handed_over = true;
	return hf_carrier_hand_over(u->way.carrier, HF_MANIFEST_SESSION, e);
}

void hf_update_seal_host(struct hf_update *u)
{
	u->stage = STAGE_SEAL_HOST;
	hf_update_in_worker(u, seal_host, hf_update_on_host_done);
}

void hf_update_leave(struct hf_update *u)
{
	if (u->way.leaves) {
		u->stage = STAGE_SETTLE;
		u->settled = true;
		hf_update_disks_in_worker(u, settle, SETTLE_TIMEOUT_NS);
	} else {
		start_gate(u);
	}
}

/* The last thing this kernel does. Returns only if there was no jump: then everything is undone. */
void hf_update_jump(struct hf_update *u)
{
	struct hf_error e = {0};

	hf_agent_progress(u->agent, NULL, "jumping");
	hf_varlink_server_flush(u->agent->server, 100 * HF_NSEC_PER_MSEC);
	if ((u->handed_over ||
		    (hf_libvirt_check_known(u->manifest->guests, u->manifest->n_guests, &e) == 0 &&
			    hf_update_write_manifest(u, &e) == 0)) &&
		hf_fault(HF_FAULT_JUMP, &e) == 0) {
		if (u->way.reboot)
			hf_kexec_reboot(&e);
		else
			hf_kexec_jump(&e);
	}
	hf_update_failed(u, &e);
	sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
}

/* The service manager has not jumped. Its QEMUs may be gone: then there is no way back. */
static int on_patience_over(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct hf_update *u = userdata;
	struct hf_error e = {0};

	for (size_t i = 0; i < u->n_guests; i++) {
		if (hf_outgoing_is_gone(u->guests[i])) {
			hf_log(LOG_ERR, NULL,
				"the jump does not come, and QEMUs were ended for it: going on "
				"waiting");
			return 0;
		}
	}
	hf_error_set(&e, -ETIMEDOUT, HF_ERR_ROLLED_BACK, "look why the host does not jump",
		"the jump that was left to the service manager did not come within %u s",
		PATIENCE_S);
	hf_update_abort(u->agent, &e, NULL, NULL);
	return 0;
}

/* From here on this process only has to live, with the sessions open. */
void hf_update_hand_over(struct hf_update *u)
{
	struct hf_error e = {0};
	int r = sd_event_add_time_relative(u->agent->event, &u->patience, CLOCK_MONOTONIC,
		PATIENCE_S * HF_USEC_PER_SEC, 0, on_patience_over, u);

	if (r < 0)
		hf_error_set(&e, r, HF_ERR_FAILED, NULL, "timer: %s", strerror(-r));
	else if (!u->handed_over)
		r = hf_update_write_manifest(u, &e);
	if (r < 0) {
		hf_update_failed(u, &e);
		sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
		return;
	}
	u->stage = STAGE_HANDED_OVER;
	hf_agent_progress(u->agent, NULL, "guests are saved; the jump is the service manager's");
	hf_varlink_call_reply(u->owner, NULL);
	hf_update_drop_owner(u);
}

/*
 * The old QEMUs are gone and the guests live in our fds alone: there is nothing to undo any more,
 * only to try again.
 */
void hf_update_jump_execve(struct hf_update *u)
{
	struct hf_error e = {0};

	hf_varlink_server_flush(u->agent->server, 100 * HF_NSEC_PER_MSEC);
	if (hf_fault(HF_FAULT_EXECVE, &e) == 0)
		hf_jump_execve(u->agent, &e);
	hf_agent_progress(u->agent, NULL, "guests are held, trying again: %s", e.message);
	sleep(1);
	sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
}

/*
 * The manifest has to be whole, and all of it in the keeper's hands, before the first QEMU ends:
 * after that there is no way back, and only the next agent to go on, if this one dies.
 */
void hf_update_quit(struct hf_update *u)
{
	struct hf_error e = {0};

	hf_agent_progress(u->agent, NULL, "jumping");
	if (!u->handed_over &&
		(hf_update_write_manifest(u, &e) < 0 || hf_fault(HF_FAULT_HAND_OVER, &e) < 0 ||
			hf_carrier_hand_over(u->way.carrier, HF_MANIFEST_SESSION, &e) < 0)) {
		hf_update_failed(u, &e);
		sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
		return;
	}
	u->stage = STAGE_QUIT;
	hf_update_all_guests(u, hf_outgoing_quit);
}

static void on_gate_closed(const struct hf_error *error, void *data)
{
	struct hf_update *u = data;

	u->gated = !error;
	if (error)
		hf_update_failed(u, error);
	hf_update_one_done(u);
}

/* libvirt's daemon must not see its domains' QEMUs end: see libvirt-gate.h. */
static void start_gate(struct hf_update *u)
{
	struct hf_error e = {0};
	bool any = false;
	int r;

	for (size_t i = 0; i < u->n_guests; i++) {
		any = any || hf_guest_is_libvirt(hf_outgoing_guest(u->guests[i]));
		hf_outgoing_leave_libvirt(u->guests[i]);
	}
	u->stage = STAGE_GATE;
	u->pending++;
	if (!any) {
		hf_update_one_done(u);
		return;
	}
	r = hf_libvirt_gate_close(u->agent, on_gate_closed, u);
	if (r < 0) {
		hf_error_set(&e, r, HF_ERR_FAILED, NULL, "out of memory");
		on_gate_closed(&e, u);
	}
}
