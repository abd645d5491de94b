/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Pausing a guest and saving its device state: the first half of the blackout.
 *
 * The same on QEMU 7.2, 10.0 and 11.1: `stop`, then an ordinary migration into a socketpair with
 * x-ignore-shared on, so that RAM in shared files stays out of the stream. All commands leave in
 * one go; QEMU works them off in order. The other end of the socketpair is read into the sink at
 * once, or is that of the QEMU which loads the state.
 *
 * Straight into another QEMU the guest need not stand still for all of that: QEMU sends what little
 * RAM is not shared (firmware, a display's) while it runs, and stops it by itself when only the
 * devices are left. Not with emulated CPUs, of whose writes QEMU may miss some. Two QEMUs have the
 * guest's RAM then while it runs, so none of it may come by the stream: the loading one refuses a
 * stream that was begun without x-ignore-shared, and pages of a block that it has from a shared
 * file itself ("received capability is off", "should not be migrated").
 *
 * A stream that ended is no proof of a complete one: QEMU has to say `completed`, and, where nobody
 * else says that all of it came, to have come to rest in `postmigrate`, where it neither runs nor
 * touches the guest's RAM or disks any more.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fault.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/inherited.h"
#include "vmm-glue/vmm-internal.h"

/* A fifth of a second at most: what a console said is worth no more of a blackout. */
#define WRITTEN_RETRY_USEC 2000
#define WRITTEN_RETRIES 100

#define MORE_ROOM "free memory of the host, or start holdfastd with a larger --state-bytes"

static void ask_outcome(struct hf_vmm *vmm);

/* virtlogd reads at once; a kernel that ends would take what it has not read yet. */
static void end_when_written(struct hf_vmm *vmm)
{
	if (vmm->n_waits > 0 &&
		hf_inherited_is_being_written(vmm->guest, hf_child_pid(vmm->child))) {
		vmm->n_waits--;
		hf_vmm_poll_after(vmm, WRITTEN_RETRY_USEC, end_when_written);
		return;
	}
	hf_vmm_end(vmm);
}

static void succeed(struct hf_vmm *vmm)
{
	struct hf_manifest_guest *guest = vmm->guest;

	guest->tsc_saved = hf_tsc_now();
	/* It was paused already. */
	if (guest->tsc_paused == 0)
		guest->tsc_pause = guest->tsc_paused = guest->tsc_saved;
	guest->state_length = vmm->result.length;
	guest->state_xxh3 = vmm->result.xxh3;
	vmm->n_waits = WRITTEN_RETRIES;
	end_when_written(vmm);
}

static void on_final_status(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_status status;

	if (!hf_vmm_take_status(vmm, err, ret, error, &status))
		return;
	if (vmm->migration_completed && status.state == HF_QMP_RUN_POSTMIGRATE &&
		vmm->n_replies == 0)
		succeed(vmm);
	else
		hf_vmm_poll_later(vmm, ask_outcome);
}

/* RAM that went through the stream would be restored twice over, and cost the blackout its size. */
static bool ram_in_stream(const struct hf_vmm *vmm, const struct hf_qmp_migration *m)
{
	uint64_t smallest = UINT64_MAX;

	for (size_t i = 0; i < vmm->guest->n_ram; i++)
		smallest = HF_MIN(smallest, vmm->guest->ram[i].size);
	return vmm->guest->n_ram > 0 && m->has_ram &&
	       m->ram_total_bytes >= vmm->other_ram_bytes + smallest;
}

static void on_outcome(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_migration m;

	if (!hf_vmm_take_migration(vmm, err, ret, error, &m))
		return;
	if (m.status == HF_QMP_MIGRATION_COMPLETED && vmm->stream_ok) {
		if (ram_in_stream(vmm, &m)) {
			vmm->refused = true;
			hf_vmm_failf(vmm, -EOPNOTSUPP, "start the guest with holdfast-vmm",
				"QEMU put the guest's RAM into its device state: the RAM is no "
				"shared memory-backend-file");
		}
		vmm->migration_completed = true;
		return;
	}
	if (!hf_qmp_migration_over(m.status) && m.status != HF_QMP_MIGRATION_NONE)
		return; /* asked again after query-status's answer */
	/* Where our end of the stream broke, QEMU only says that its socket did. And one that was
	 * cancelled was so by somebody. */
	vmm->refused = m.status == HF_QMP_MIGRATION_FAILED && !vmm->stream_error.err;
	if (m.error_desc[0])
		hf_vmm_failf(vmm, -EREMOTEIO, NULL, "QEMU can't save its device state: %s",
			m.error_desc);
	else if (vmm->stream_error.err)
		hf_vmm_fail(vmm, &vmm->stream_error);
	else
		hf_vmm_failf(vmm, -EREMOTEIO, "see QEMU's log",
			"saving the device state ended as `%s`",
			hf_qmp_migration_status_name(m.status));
}

static void ask_outcome(struct hf_vmm *vmm)
{
	vmm->waiting = "finish saving its device state";
	if (HF_VMM_SEND(vmm, on_outcome, hf_qmp_query_migrate) < 0)
		return;
	HF_VMM_SEND(vmm, on_final_status, hf_qmp_query_status);
}

void hf_vmm_save_on_stream(struct hf_vmm *vmm)
{
	if (vmm->result.err == -ENOSPC) {
		/* QEMU would only say that its socket broke. */
		hf_vmm_failf(vmm, -ENOSPC,
			vmm->stream_error.remedy[0] ? vmm->stream_error.remedy : MORE_ROOM,
			"the device state is larger than the %" PRIu64 " bytes there is room for "
			"(measured before: at most %" PRIu64 "): %s",
			hf_sink_length(vmm->sink), vmm->probe.state_estimate_bytes,
			vmm->stream_error.message[0] ? vmm->stream_error.message : "no more room");
		return;
	}
	if (!vmm->poll)
		ask_outcome(vmm);
}

/*
 * Into another QEMU: once this one says `completed` it never lets the guest run again by itself,
 * and the other one says whether it got everything. Any more questions would lengthen the blackout.
 */
static void succeed_if_answered(struct hf_vmm *vmm)
{
	if (!vmm->sink && vmm->migration_completed && vmm->n_replies == 0)
		succeed(vmm);
}

static void on_devices(struct hf_vmm *vmm, const char *why)
{
	vmm->n_replies--;
	if (why[0])
		hf_vmm_failf(vmm, -ESTALE,
			"put its devices back as they were, or start the guest anew with them",
			"%s, while the update was prepared", why);
	else
		succeed_if_answered(vmm);
}

static void on_why_stopped(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_status status;

	if (!hf_vmm_take_status(vmm, err, ret, error, &status))
		return;
	vmm->n_replies--;
	/* QEMU's own stop leads to other states than somebody's. */
	if (status.state == HF_QMP_RUN_PAUSED)
		vmm->guest->was_running = false;
	succeed_if_answered(vmm);
}

static void on_stop_event(struct hf_vmm *vmm)
{
	struct hf_manifest_guest *guest = vmm->guest;

	if (guest->tsc_paused == 0)
		guest->tsc_paused = hf_tsc_now();
	/* One that runs until QEMU stops it may be paused by somebody before. */
	if (vmm->live) {
		guest->tsc_pause = guest->tsc_paused;
		vmm->n_replies++;
		HF_VMM_SEND(vmm, on_why_stopped, hf_qmp_query_status);
	}
}

static int woken(struct hf_error *e)
{
	return hf_error_set(e, -EBUSY, HF_ERR_FAILED, "leave it alone meanwhile, and start again",
		"somebody let it run or reset it while it was to stand still");
}

static void fail_woken(struct hf_vmm *vmm)
{
	struct hf_error e = {0};

	woken(&e);
	hf_vmm_fail(vmm, &e);
}

/* The same the other way round. One that was paused for another QEMU must not go on in this one. */
static void on_resume_event(struct hf_vmm *vmm)
{
	if (vmm->live) {
		vmm->guest->tsc_paused = 0;
		vmm->guest->was_running = true;
	} else if (!vmm->sink && vmm->guest->tsc_paused) {
		vmm->guest->was_running = true;
		fail_woken(vmm);
	}
}

void hf_vmm_save_on_event(struct hf_vmm *vmm, const char *name, struct json_object *data)
{
	enum hf_qmp_migration_status status;

	if (strcmp(name, "STOP") == 0)
		on_stop_event(vmm);
	else if (strcmp(name, "RESUME") == 0)
		on_resume_event(vmm);
	if (strcmp(name, "MIGRATION") != 0 || hf_qmp_parse_migration_event(data, &status) < 0)
		return;
	/* Success is looked for when the stream has ended, if it comes here; a failure is asked for
	 * its cause now. */
	if (status == HF_QMP_MIGRATION_FAILED || status == HF_QMP_MIGRATION_CANCELLED) {
		ask_outcome(vmm);
	} else if (status == HF_QMP_MIGRATION_COMPLETED && !vmm->sink) {
		vmm->migration_completed = true;
		/* While the other one loads: before, QEMU would answer it in place of saving. */
		if (vmm->live || hf_vmm_ask_devices(vmm, on_devices) == 0)
			succeed_if_answered(vmm);
	}
}

/* ---- the commands, in order ---- */

static void on_first_status(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_status status;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	if (hf_qmp_parse_status(ret, &status) < 0 ||
		hf_manifest_set(&vmm->guest->status, status.name) < 0) {
		hf_vmm_failf(vmm, -EBADMSG, NULL, "QEMU's answer to query-status makes no sense");
		return;
	}
	vmm->guest->was_running = status.running;
	vmm->status_known = true;
	vmm->n_replies--;
	vmm->waiting = "take its migration settings";
}

static void on_stopped(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	vmm->n_replies--;
	/* A guest that was paused already gives no STOP event. */
	if (vmm->guest->tsc_paused == 0)
		vmm->guest->tsc_paused = hf_tsc_now();
	vmm->waiting = "start to save its device state";
	if (vmm->paused)
		vmm->paused(vmm, vmm->op.data);
}

static void on_set(struct hf_qmp *q, int err, struct json_object *ret, const struct hf_error *error,
	void *data)
{
	struct hf_vmm *vmm = data;

	if (hf_vmm_check_reply(vmm, err, error))
		vmm->n_replies--;
}

static void on_getfd(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	vmm->n_replies--;
	vmm->waiting = vmm->live ? "start to save its device state" : "pause the guest";
}

static void on_migrate(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_error e = {0};

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	vmm->n_replies--;
	vmm->waiting = "finish saving its device state";
	/* Stands for a QEMU that can't. */
	if (hf_fault(HF_FAULT_SAVE_STATE, &e) < 0) {
		vmm->refused = true;
		hf_vmm_fail(vmm, &e);
	}
}

/*
 * query-status first: it tells whether the guest ran at that very moment, which an operator may
 * have changed since attach. Settings before the pause, which they would lengthen. `stop` leaves
 * one that doesn't run as it is. Devices last: those may have been plugged in or out since, too,
 * and from `migrate` on QEMU refuses that.
 */
static void submit(struct hf_vmm *vmm, int fd)
{
	const struct hf_qmp_migrate_parameters params = {.has_max_bandwidth = true};

	vmm->waiting = "say whether the guest runs";
	vmm->n_replies = vmm->live ? 7 : 8;
	if (HF_VMM_SEND(vmm, on_first_status, hf_qmp_query_status) < 0 ||
		HF_VMM_SEND(vmm, on_set, hf_qmp_migrate_set_parameters, &params) < 0 ||
		hf_vmm_send_caps(vmm, true, true, on_set) < 0 ||
		HF_VMM_SEND(vmm, on_getfd, hf_qmp_getfd, HF_VMM_GETFD_NAME, fd) < 0 ||
		(!vmm->live && HF_VMM_SEND(vmm, on_stopped, hf_qmp_stop) < 0))
		return;
	vmm->migrate_sent = true;
	if (HF_VMM_SEND(vmm, on_migrate, hf_qmp_migrate, "fd:" HF_VMM_GETFD_NAME) == 0 &&
		(vmm->sink || vmm->live))
		hf_vmm_ask_devices(vmm, on_devices);
}

static int grow(void *data, struct hf_sink *sink, struct hf_error *e)
{
	struct hf_vmm *vmm = data;

	if (!hf_vmm_in(vmm, HF_VMM_OP_SAVE))
		return hf_error_set(e, -ECANCELED, HF_ERR_FAILED, NULL, "the save has ended");
	if (!vmm->grow)
		return hf_error_set(e, -ENOSPC, HF_ERR_FAILED, NULL, "no more room");
	return vmm->grow(vmm->op.data, sink, e);
}

/* Return: QEMU's end of the socket that is read into the sink, or -errno. */
static int begin_stream(struct hf_vmm *vmm, struct hf_error *e)
{
	int pair[2];
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return hf_error_set(
			e, -errno, HF_ERR_FAILED, NULL, "can't make a socket: %s", strerror(errno));
	hf_vmm_widen(pair[1]);
	r = hf_stream_save(
		vmm->ring, pair[0], vmm->sink, grow, hf_vmm_on_stream_done, vmm, &vmm->stream, e);
	if (r < 0) {
		close(pair[1]);
		return r;
	}
	vmm->streaming = true;
	return pair[1];
}

static void begin(struct hf_vmm *vmm)
{
	cleanup_close int theirs = -EBADF;
	struct hf_error e = {0};

	/* As libvirt describes it running: it sees the pause, too. */
	if (hf_guest_is_libvirt(vmm->guest) && hf_libvirt_read_status(vmm->guest, &e) < 0) {
		hf_vmm_fail(vmm, &e);
		return;
	}
	theirs = vmm->sink ? begin_stream(vmm, &e) : TAKE_FD(vmm->stream_fd);
	if (theirs < 0) {
		hf_vmm_fail(vmm, &e);
		return;
	}
	vmm->save_begun = true;
	vmm->guest->tsc_pause = hf_tsc_now();
	submit(vmm, theirs);
}

static void on_kvm(struct hf_qmp *q, int err, struct json_object *ret, const struct hf_error *error,
	void *data)
{
	struct hf_vmm *vmm = data;

	if (hf_vmm_take_kvm(vmm, err, ret, error, &vmm->live))
		begin(vmm);
}

/*
 * Paused, and with its bandwidth set free, a migration of somebody else's would come to its end at
 * once, and a rollback would let the guest run here beside the one that runs there.
 */
static void on_free(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_migration m;

	if (!hf_vmm_take_migration(vmm, err, ret, error, &m))
		return;
	if (m.status != HF_QMP_MIGRATION_NONE && !hf_qmp_migration_over(m.status))
		hf_vmm_failf(vmm, -EBUSY, "wait until that is over, or abort it",
			"somebody else is migrating or saving it");
	else if (vmm->sink || vmm->paused)
		begin(vmm);
	else
		HF_VMM_SEND(vmm, on_kvm, hf_qmp_query_kvm);
}

/* Return: 0 the operation is under way, or has failed by itself; -errno there is none. */
static int start(struct hf_vmm *vmm, struct hf_sink *sink, uint64_t timeout_ns, hf_vmm_done_fn done,
	void *data)
{
	struct hf_error e = {0};
	int r;

	if (!vmm->attached)
		return -ENOTCONN;
	r = hf_vmm_begin(vmm, HF_VMM_OP_SAVE, timeout_ns, done, data);
	if (r < 0)
		return r;
	vmm->sink = sink;
	vmm->migration_completed = vmm->status_known = vmm->refused = vmm->live = false;
	vmm->woken = false;
	/* One that is another QEMU's to read is that one's to judge. */
	vmm->stream_ok = !sink;
	vmm->result = (struct hf_stream_result){0};
	vmm->stream_error = (struct hf_error){0};
	vmm->guest->tsc_paused = vmm->guest->tsc_saved = 0;
	vmm->waiting = "say whether it is being migrated";
	/* libvirt's daemon was ended by an orderly shutdown since. */
	if (hf_guest_is_libvirt(vmm->guest) && !hf_libvirt_has_daemon())
		hf_vmm_drop_monitor(vmm);
	if (!vmm->qmp && hf_vmm_connect(vmm, timeout_ns, &e) < 0)
		hf_vmm_fail(vmm, &e);
	else
		HF_VMM_SEND(vmm, on_free, hf_qmp_query_migrate);
	return 0;
}

int hf_vmm_save(struct hf_vmm *vmm, struct hf_sink *sink, hf_stream_grow_fn grow_fn,
	uint64_t timeout_ns, hf_vmm_done_fn done, void *data)
{
	vmm->grow = grow_fn;
	vmm->paused = NULL;
	return start(vmm, sink, timeout_ns, done, data);
}

int hf_vmm_save_into(struct hf_vmm *vmm, struct hf_vmm *beside, uint64_t timeout_ns,
	hf_vmm_paused_fn paused, hf_vmm_done_fn done, void *data)
{
	struct hf_error e = {0};
	int r = paused ? hf_vmm_make_stream(beside, &e) : 0;

	if (r < 0)
		return r;
	vmm->paused = paused;
	r = beside->load_fd < 0 ? -EALREADY : start(vmm, NULL, timeout_ns, done, data);
	/* Nothing of it has run yet but for a command that asks. */
	if (r == 0)
		vmm->stream_fd = TAKE_FD(beside->load_fd);
	return r;
}

bool hf_vmm_save_refused(const struct hf_vmm *vmm)
{
	return vmm->refused && !vmm->lost;
}

/* ---- and then ---- */

void hf_vmm_saved_on_event(struct hf_vmm *vmm, const char *name)
{
	bool resumed = strcmp(name, "RESUME") == 0;

	/* A rollback lets it run itself. */
	if (!vmm->save_begun || vmm->sink || hf_vmm_in(vmm, HF_VMM_OP_ROLLBACK) ||
		(!resumed && strcmp(name, "RESET") != 0))
		return;
	vmm->woken = true;
	if (resumed)
		vmm->guest->was_running = true;
}

int hf_vmm_check_stands(const struct hf_vmm *vmm, struct hf_error *e)
{
	return vmm->woken ? woken(e) : 0;
}

static void on_verified(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_status status;

	if (!hf_vmm_take_status(vmm, err, ret, error, &status))
		return;
	/* Events of before this answer have come before it. */
	if (vmm->woken || status.running)
		fail_woken(vmm);
	else
		hf_vmm_end(vmm);
}

int hf_vmm_verify_saved(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data)
{
	int r;

	if (!vmm->save_begun || vmm->lost || !vmm->qmp)
		return -ENOTCONN;
	r = hf_vmm_begin(vmm, HF_VMM_OP_VERIFY, timeout_ns, done, data);
	if (r < 0)
		return r;
	vmm->waiting = "say whether the guest still stands still";
	HF_VMM_SEND(vmm, on_verified, hf_qmp_query_status);
	return 0;
}
