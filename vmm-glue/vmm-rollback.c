/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Making a guest as it was before the save.
 *
 * Whatever commands of the save were sent may have been carried out, answered or not: so nothing is
 * concluded from missing answers. First QEMU's migration has to be over (only then does it take
 * `cont` and settings), then everything the save may have changed is set back at once, and at last
 * QEMU is asked whether the guest runs. Each step is harmless where there is nothing to undo.
 *
 * A halt goes the same way as far as the end of the migration, and leaves the guest paused there:
 * it can still be rolled back.
 *
 * A paused guest can end up in `postmigrate` in place of `paused`: QEMU knows no way back without
 * running it. It is just as paused, and `cont` works.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vmm-glue/cmdline.h"
#include "vmm-glue/vmm-internal.h"

/* bytes a second: DEFAULT_MIGRATE_MAX_BANDWIDTH, migration/options.c */
#define QEMU_DEFAULT_BANDWIDTH (128u << 20)
#define RECONNECT_USEC 50000u

static void ask_migration(struct hf_vmm *vmm);
static void ask_status(struct hf_vmm *vmm);

static void on_final_status(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_status status;
	bool as_before;

	if (!hf_vmm_take_status(vmm, err, ret, error, &status))
		return;
	as_before = status.running == vmm->guest->was_running;
	if (as_before && vmm->restore_error.err) {
		/* It runs, but a setting stayed that would lose RAM in a later migration. */
		hf_vmm_fail(vmm, &vmm->restore_error);
		return;
	}
	if (!as_before) {
		hf_vmm_poll_later(vmm, ask_status);
		return;
	}
	vmm->save_begun = vmm->migrate_sent = vmm->downtime_changed = false;
	hf_vmm_end(vmm);
}

static void ask_status(struct hf_vmm *vmm)
{
	vmm->waiting =
		vmm->guest->was_running ? "let the guest run again" : "leave the guest paused";
	HF_VMM_SEND(vmm, on_final_status, hf_qmp_query_status);
}

static void on_cont(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	if (err < 0 && err != -ECONNRESET)
		hf_vmm_fail(vmm, error);
}

static void on_restored(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	/* Told only once the guest is known to run: that comes first. */
	if (err < 0 && err != -ECONNRESET && !vmm->restore_error.err)
		vmm->restore_error = *error;
}

/* QEMU takes settings again. The guest first: every command before it would lengthen its pause. */
static void restore(struct hf_vmm *vmm)
{
	const struct hf_qmp_migrate_parameters params = {
		.has_max_bandwidth = true,
		.max_bandwidth = vmm->old_max_bandwidth,
		.has_downtime_limit = vmm->downtime_changed,
		.downtime_limit_ms = vmm->old_downtime_ms,
	};

	vmm->waiting = "let the guest run again";
	vmm->restore_error = (struct hf_error){0};
	/* `suspended` is a run state of its own, from which `stop` took it as well. */
	if (vmm->guest->was_running || strcmp(vmm->guest->status, "suspended") == 0) {
		if (HF_VMM_SEND(vmm, on_cont, hf_qmp_cont) < 0)
			return;
	}
	if (hf_vmm_send_caps(vmm, vmm->old_ignore_shared, vmm->old_events, on_restored) < 0 ||
		HF_VMM_SEND(vmm, on_restored, hf_qmp_migrate_set_parameters, &params) < 0)
		return;
	/* Only there when `migrate` never took it: an error means just that. */
	if (HF_VMM_SEND(vmm, NULL, hf_qmp_closefd, HF_VMM_GETFD_NAME) == 0)
		ask_status(vmm);
}

static void on_halted(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_status status;

	if (!hf_vmm_take_status(vmm, err, ret, error, &status))
		return;
	/* Neither one that runs on, nor one that switched itself off or stopped for an error of its
	 * disks: that isn't for anybody to start anew. */
	if (status.running ||
		(status.state != HF_QMP_RUN_PAUSED && status.state != HF_QMP_RUN_POSTMIGRATE &&
			status.state != HF_QMP_RUN_PRELAUNCH))
		hf_vmm_failf(vmm, -EBUSY, NULL, "its run state is `%s`, it is not just paused",
			status.name);
	else if (vmm->n_replies > 0)
		hf_vmm_failf(vmm, -EPROTO, NULL, "QEMU did not answer `stop`");
	else
		hf_vmm_end(vmm);
}

static void on_stopped(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	if (hf_vmm_check_reply(vmm, err, error))
		vmm->n_replies--;
}

/*
 * Once more, though the save began with it: `stop` ends with bdrv_drain_all() and bdrv_flush_all(),
 * whether the guest still runs or not, and a migration that failed has taken the disks back.
 */
static void halt(struct hf_vmm *vmm)
{
	vmm->waiting = "write the guest's disks out";
	vmm->n_replies = 1;
	if (HF_VMM_SEND(vmm, on_stopped, hf_qmp_stop) == 0)
		HF_VMM_SEND(vmm, on_halted, hf_qmp_query_status);
}

static void on_run_state(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_status status;

	if (!hf_vmm_take_status(vmm, err, ret, error, &status))
		return;
	/* A migration that is over still winds up for a moment, in which `cont` is refused. */
	if (!vmm->migration_completed || status.state == HF_QMP_RUN_FINISH_MIGRATE)
		hf_vmm_poll_later(vmm, ask_migration);
	else if (hf_vmm_in(vmm, HF_VMM_OP_HALT))
		halt(vmm);
	else
		restore(vmm);
}

static void on_migration(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_migration m;

	if (!hf_vmm_take_migration(vmm, err, ret, error, &m))
		return;
	vmm->migration_completed =
		m.status == HF_QMP_MIGRATION_NONE || hf_qmp_migration_over(m.status);
}

static void ask_migration(struct hf_vmm *vmm)
{
	vmm->waiting = "end the migration under way";
	if (HF_VMM_SEND(vmm, on_migration, hf_qmp_query_migrate) < 0)
		return;
	HF_VMM_SEND(vmm, on_run_state, hf_qmp_query_status);
}

/* Ends the operation under way with -ECANCELED; its callback comes first. */
static void overrun(struct hf_vmm *vmm)
{
	struct hf_error e = {0};

	if (!vmm->op.kind)
		return;
	hf_error_set(&e, -ECANCELED, HF_ERR_FAILED, NULL, "it was rolled back");
	hf_vmm_fail(vmm, &e);
	vmm->overrun = vmm->op;
	vmm->op = (struct hf_vmm_op){0};
}

static void connect_anew(struct hf_vmm *vmm)
{
	struct hf_error e = {0};

	vmm->waiting = "answer on its monitor";
	if (hf_vmm_connect(vmm, vmm->op.timeout_ns, &e) < 0)
		hf_vmm_rollback_anew(vmm);
	else if (!vmm->migrate_sent || HF_VMM_SEND(vmm, NULL, hf_qmp_migrate_cancel) == 0)
		ask_migration(vmm);
}

/* Until the rollback's time is over. */
void hf_vmm_rollback_anew(struct hf_vmm *vmm)
{
	hf_vmm_poll_after(vmm, RECONNECT_USEC, connect_anew);
}

int hf_vmm_rollback(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data)
{
	int r;

	/* One more while the first one's outcome is still due would lose a callback. */
	if (vmm->op.kind == HF_VMM_OP_ROLLBACK || vmm->overrun.kind)
		return -EBUSY;
	overrun(vmm);
	r = hf_vmm_begin(vmm, HF_VMM_OP_ROLLBACK, timeout_ns, done, data);
	if (r < 0)
		return r;
	/* One that was lost before the save changed anything can't be made as it was, either. */
	if (!vmm->save_begun && !(vmm->lost && vmm->attached)) {
		hf_vmm_end(vmm);
		return 0;
	}
	if (vmm->lost || (!vmm->qmp && !hf_guest_is_libvirt(vmm->guest))) {
		hf_vmm_failf(vmm, -ECONNRESET, "see QEMU's log", "its QEMU went away");
		return 0;
	}
	/* Asked for by the save, answered or not: see on_first_status(). */
	if (!vmm->status_known)
		vmm->guest->was_running = vmm->probe.running;
	/* libvirt's daemon was stopped, or ended. */
	if (!vmm->qmp)
		connect_anew(vmm);
	else if (!vmm->migrate_sent || HF_VMM_SEND(vmm, NULL, hf_qmp_migrate_cancel) == 0)
		ask_migration(vmm);
	hf_vmm_settle(vmm);
	return 0;
}

int hf_vmm_halt(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data)
{
	int r;

	/* Without query-status's answer nobody knows how to roll it back later. */
	if (!vmm->save_begun || !vmm->status_known)
		return -EINVAL;
	if (vmm->lost || !vmm->qmp)
		return -ENOTCONN;
	r = hf_vmm_begin(vmm, HF_VMM_OP_HALT, timeout_ns, done, data);
	if (r < 0)
		return r;
	if (!vmm->migrate_sent || HF_VMM_SEND(vmm, NULL, hf_qmp_migrate_cancel) == 0)
		ask_migration(vmm);
	return 0;
}

int hf_vmm_recover(
	struct hf_vmm *vmm, bool was_running, uint64_t timeout_ns, hf_vmm_done_fn done, void *data)
{
	if (!vmm->attached)
		return -ENOTCONN;
	/* What the dead agent changed, and what it would have changed back. Which bandwidth the
	 * user had set died with it: QEMU's own default is the one that keeps working. */
	vmm->save_begun = vmm->migrate_sent = vmm->status_known = true;
	vmm->guest->was_running = was_running;
	vmm->old_ignore_shared = false;
	/* libvirt has it on for good. */
	vmm->old_events = hf_guest_is_libvirt(vmm->guest);
	vmm->old_max_bandwidth = QEMU_DEFAULT_BANDWIDTH;
	return hf_vmm_rollback(vmm, timeout_ns, done, data);
}
