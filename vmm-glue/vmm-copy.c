/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Copying a guest's RAM out of its QEMU while it runs.
 *
 * The same on QEMU 7.2, 10.0 and 11.1: an ordinary pre-copy migration into a socketpair, with no
 * capability that changes the stream. QEMU sends all pages, then those written meanwhile, round
 * after round, until it reckons that the rest goes within the downtime limit; then it stops the
 * guest by itself, sends the rest and the devices, and comes to rest in `postmigrate`.
 *
 * Emulated CPUs (TCG) lose track of what they write: between noting a page as written and storing
 * to it, a CPU may be overtaken by the collection of those notes, and QEMU then doesn't see what
 * that CPU writes there later. A copy made of such a guest while it ran had stale pages, with
 * QEMU 7.2 and without holdfast's doing: so it is paused first, and not copied otherwise.
 *
 * Whether the guest runs is asked all the time: who is in charge of it may pause it during a copy
 * of many minutes, and it must not run again for that reason.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "vmm-glue/ram-stream.h"
#include "vmm-glue/vmm-internal.h"

#define PROGRESS_USEC 100000u
#define SOCKET_BYTES (4 << 20)
/* About 2 s, for QEMU to notice that nobody reads any more. */
#define PATIENT_POLLS 200

static void ask_outcome(struct hf_vmm *vmm);

static bool is_resting_place(enum hf_qmp_run_state state)
{
	return state == HF_QMP_RUN_FINISH_MIGRATE || state == HF_QMP_RUN_POSTMIGRATE;
}

static void succeed(struct hf_vmm *vmm)
{
	vmm->guest->tsc_saved = hf_tsc_now();
	if (vmm->guest->tsc_paused == 0)
		vmm->guest->tsc_paused = vmm->guest->tsc_saved;
	vmm->guest->tsc_pause = vmm->guest->tsc_paused;
	hf_vmm_end(vmm);
}

/* Return: whether the answer could be used; else the operation has failed. */
static bool take_status(struct hf_vmm *vmm, int err, struct json_object *ret,
	const struct hf_error *error, struct hf_qmp_status *status)
{
	if (!hf_vmm_take_status(vmm, err, ret, error, status))
		return false;
	/* Where it comes to rest after the copy says nothing of the guest, unless it was there. */
	if (vmm->status_known && (vmm->pause_first || is_resting_place(status->state)))
		return true;
	vmm->guest->was_running = status->running;
	vmm->status_known = true;
	if (hf_manifest_set(&vmm->guest->status, status->name) == 0)
		return true;
	hf_vmm_failf(vmm, -ENOMEM, NULL, "out of memory");
	return false;
}

static void on_first_status(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_qmp_status status;

	take_status(data, err, ret, error, &status);
}

static void on_status(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_status status;

	if (!take_status(vmm, err, ret, error, &status))
		return;
	if (vmm->migration_completed && vmm->stream_ok && status.state == HF_QMP_RUN_POSTMIGRATE)
		succeed(vmm);
	else if (vmm->migration_completed || !vmm->streaming)
		hf_vmm_poll_later(vmm, ask_outcome);
	else
		hf_vmm_poll_after(vmm, PROGRESS_USEC, ask_outcome);
}

static void tell_progress(struct hf_vmm *vmm, const struct hf_qmp_migration *m)
{
	const struct hf_vmm_progress p = {
		.sent_bytes = m->ram_transferred_bytes,
		.remaining_bytes = m->ram_remaining_bytes,
		.total_bytes = m->ram_total_bytes,
		.dirty_bytes_per_s = m->ram_dirty_pages_per_s * HF_RAM_STREAM_PAGE,
		.rounds = m->ram_rounds,
	};

	if (vmm->progress && m->has_ram)
		vmm->progress(vmm->op.data, &p);
}

/* The receiver gave up, or found too little: whatever QEMU says, there is no copy. */
static void fail_received(struct hf_vmm *vmm, const struct hf_qmp_migration *m)
{
	/* A stream that just ended was ended by QEMU. */
	if (vmm->stream_error.err == -EBADMSG && m->error_desc[0])
		hf_vmm_failf(vmm, -EREMOTEIO, NULL, "QEMU can't send its RAM: %s", m->error_desc);
	else
		hf_vmm_fail(vmm, &vmm->stream_error);
}

static void on_migration(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_migration m;
	bool over;

	if (!hf_vmm_take_migration(vmm, err, ret, error, &m))
		return;
	over = m.status != HF_QMP_MIGRATION_NONE && hf_qmp_migration_over(m.status);
	if (m.status == HF_QMP_MIGRATION_COMPLETED)
		vmm->migration_completed = true;
	if (vmm->stream_error.err && (over || vmm->n_polls > PATIENT_POLLS))
		fail_received(vmm, &m);
	else if (over && !vmm->migration_completed)
		hf_vmm_failf(vmm, -EREMOTEIO, "see QEMU's log", "copying its RAM ended as `%s`%s%s",
			hf_qmp_migration_status_name(m.status), m.error_desc[0] ? ": " : "",
			m.error_desc);
	else
		tell_progress(vmm, &m); /* last: it may end the operation */
}

static void ask_outcome(struct hf_vmm *vmm)
{
	if (HF_VMM_SEND(vmm, on_migration, hf_qmp_query_migrate) == 0)
		HF_VMM_SEND(vmm, on_status, hf_qmp_query_status);
}

static void on_received(void *data, const struct hf_error *error)
{
	struct hf_vmm *vmm = data;

	if (!hf_vmm_stream_over(vmm))
		return;
	if (!hf_vmm_in(vmm, HF_VMM_OP_COPY)) {
		hf_vmm_settle(vmm);
		return;
	}
	vmm->stream_ok = !error;
	if (error)
		vmm->stream_error = *error;
	vmm->waiting = "come to rest after the copy of its RAM";
	vmm->n_polls = 0;
	ask_outcome(vmm);
}

void hf_vmm_copy_on_event(struct hf_vmm *vmm, const char *name, struct json_object *data)
{
	enum hf_qmp_migration_status status;

	/* The last one counts: it may have been paused and resumed during the copy. */
	if (strcmp(name, "STOP") == 0)
		vmm->guest->tsc_paused = hf_tsc_now();
	else if (strcmp(name, "RESUME") == 0)
		vmm->guest->tsc_paused = 0;
	if (strcmp(name, "RESUME") == 0 && vmm->emulated) {
		hf_vmm_failf(vmm, -EBUSY, "leave it paused until it is adopted",
			"somebody let it run during the copy, in which emulated CPUs must not");
		return;
	}
	if (vmm->migrate_sent && strcmp(name, "MIGRATION") == 0 &&
		hf_qmp_parse_migration_event(data, &status) == 0 && hf_qmp_migration_over(status))
		ask_outcome(vmm);
}

/* ---- the commands, in order ---- */

static void on_set(struct hf_qmp *q, int err, struct json_object *ret, const struct hf_error *error,
	void *data)
{
	hf_vmm_check_reply(data, err, error);
}

static void on_migrate(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	vmm->waiting = vmm->pause_first ? "get done with the copy of its RAM"
					: "get done with the copy of its RAM: it is written to "
					  "faster than it can be copied";
	ask_outcome(vmm);
}

static void submit(struct hf_vmm *vmm)
{
	const struct hf_qmp_migrate_parameters params = {
		.has_max_bandwidth = true,
		.has_downtime_limit = true,
		.downtime_limit_ms = vmm->new_downtime_ms,
	};
	cleanup_close int fd = TAKE_FD(vmm->stream_fd);

	vmm->waiting = "begin to copy its RAM";
	vmm->downtime_changed = true;
	if (vmm->pause_first && HF_VMM_SEND(vmm, on_set, hf_qmp_stop) < 0)
		return;
	if (HF_VMM_SEND(vmm, on_set, hf_qmp_migrate_set_parameters, &params) < 0 ||
		hf_vmm_send_caps(vmm, false, true, on_set) < 0 ||
		HF_VMM_SEND(vmm, on_set, hf_qmp_getfd, HF_VMM_GETFD_NAME, fd) < 0)
		return;
	vmm->migrate_sent = true;
	HF_VMM_SEND(vmm, on_migrate, hf_qmp_migrate, "fd:" HF_VMM_GETFD_NAME);
}

/* What is on changes the stream, or whom QEMU waits for: all but these. */
static bool is_harmless(const char *capability)
{
	static const char *const names[] = {"events", "auto-converge", "x-ignore-shared"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(names); i++)
		if (strcmp(names[i], capability) == 0)
			return true;
	return false;
}

static void on_capabilities(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	const char *name;
	size_t pos = 0;
	int r;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	while ((r = hf_qmp_next_capability(ret, &pos, &name)) == 0) {
		if (is_harmless(name))
			continue;
		hf_vmm_failf(vmm, -EOPNOTSUPP, "switch it off with migrate-set-capabilities",
			"its QEMU has the migration capability %.64s on", name);
		return;
	}
	if (r == -ENOENT)
		submit(vmm);
	else
		hf_vmm_failf(
			vmm, r, NULL, "QEMU's answer to query-migrate-capabilities makes no sense");
}

static void on_kvm(struct hf_qmp *q, int err, struct json_object *ret, const struct hf_error *error,
	void *data)
{
	struct hf_vmm *vmm = data;
	bool enabled;

	if (!hf_vmm_take_kvm(vmm, err, ret, error, &enabled))
		return;
	vmm->emulated = !enabled;
	if (vmm->emulated && !vmm->pause_first && vmm->guest->was_running)
		hf_vmm_failf(vmm, -EOPNOTSUPP, "have it paused for the copy (--paused)",
			"its CPUs are emulated (TCG), and what they write during a copy may be "
			"missed");
	else
		HF_VMM_SEND(vmm, on_capabilities, hf_qmp_query_migrate_capabilities);
}

/* Between the processes it is two copies anyway: this only saves turns. */
static void enlarge(int sock)
{
	const int bytes = SOCKET_BYTES;

	if (setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

int hf_vmm_copy(struct hf_vmm *vmm, struct hf_ram_receiver *receiver, bool paused,
	uint64_t downtime_ms, uint64_t timeout_ns, hf_vmm_progress_fn progress, hf_vmm_done_fn done,
	void *data)
{
	int pair[2];
	int r;

	if (!vmm->attached)
		return -ENOTCONN;
	r = hf_vmm_begin(vmm, HF_VMM_OP_COPY, timeout_ns, done, data);
	if (r < 0)
		return r;
	vmm->progress = progress;
	vmm->new_downtime_ms = downtime_ms;
	vmm->pause_first = paused;
	vmm->emulated = false;
	vmm->stream_ok = vmm->migration_completed = vmm->status_known = false;
	vmm->stream_error = (struct hf_error){0};
	vmm->guest->tsc_paused = vmm->guest->tsc_saved = 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		hf_vmm_failf(vmm, -errno, NULL, "can't make a socket: %s", strerror(errno));
		return 0;
	}
	vmm->stream_fd = pair[1];
	enlarge(pair[1]);
	r = hf_ram_receiver_start(receiver, vmm->event, pair[0], on_received, vmm);
	if (r < 0) {
		hf_vmm_failf(vmm, r, NULL, "can't start a thread: %s", strerror(-r));
		return 0;
	}
	vmm->receiver = receiver;
	vmm->streaming = true;
	vmm->save_begun = true;
	vmm->waiting = "say how it is set up";
	if (HF_VMM_SEND(vmm, on_first_status, hf_qmp_query_status) == 0)
		HF_VMM_SEND(vmm, on_kvm, hf_qmp_query_kvm);
	return 0;
}
