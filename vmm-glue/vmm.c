/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The frame around a guest's operations: start, time-out, end, and the loss of QEMU.
 *
 * See vmm.h for what the operations do, vmm-internal.h for how they end.
 */
#include "vmm-glue/cmdline.h"
#include "vmm-glue/vmm-internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define POLL_FIRST_USEC 500u
#define POLL_MAX_USEC 10000u
#define STREAM_SOCKET_BYTES (2 << 20)

static void destroy(struct hf_vmm *vmm)
{
	hf_sink_release(&vmm->load_sink);
	hf_vmm_forget_fresh(vmm);
	hf_vmm_forget_roms(vmm);
	free(vmm->virtio);
	sd_event_unref(vmm->event);
	free(vmm);
}

static void stop_timers(struct hf_vmm *vmm)
{
	vmm->deadline = sd_event_source_disable_unref(vmm->deadline);
	vmm->poll = sd_event_source_disable_unref(vmm->poll);
	vmm->poll_fn = NULL;
}

static void cancel_stream(struct hf_vmm *vmm)
{
	if (!vmm->streaming)
		return;
	hf_stream_cancel(vmm->stream);
	hf_ram_receiver_cancel(vmm->receiver);
}

static void deliver(struct hf_vmm *vmm, struct hf_vmm_op *slot)
{
	struct hf_vmm_op op = *slot;

	*slot = (struct hf_vmm_op){0};
	if (op.done)
		op.done(vmm, op.error.err ? &op.error : NULL, op.data);
}

static int on_settle(sd_event_source *source, void *data)
{
	struct hf_vmm *vmm = data;

	vmm->in_callback++;
	if (vmm->overrun.kind)
		deliver(vmm, &vmm->overrun);
	if (!vmm->freed && vmm->op.ended)
		deliver(vmm, &vmm->op);
	if (!vmm->freed && vmm->gone_due) {
		vmm->gone_due = false;
		if (vmm->gone)
			vmm->gone(vmm, &vmm->gone_error, vmm->gone_data);
	}
	if (--vmm->in_callback == 0 && vmm->freed && !vmm->streaming)
		destroy(vmm);
	return 0;
}

int hf_vmm_new(sd_event *event, struct hf_manifest_guest *guest, struct hf_stream_ring *ring,
	hf_vmm_gone_fn gone, void *data, struct hf_vmm **ret)
{
	struct hf_vmm *vmm = calloc(1, sizeof(*vmm));
	int r;

	if (!vmm)
		return -ENOMEM;
	*vmm = (struct hf_vmm){
		.event = sd_event_ref(event),
		.guest = guest,
		.ring = ring,
		.gone = gone,
		.gone_data = data,
		.stream_fd = -EBADF,
		.load_fd = -EBADF,
	};
	for (size_t i = 0; i < HF_ARRAY_SIZE(vmm->fresh_fds); i++)
		vmm->fresh_fds[i] = -EBADF;
	r = sd_event_add_defer(event, &vmm->settle, on_settle, vmm);
	if (r >= 0)
		r = sd_event_source_set_enabled(vmm->settle, SD_EVENT_OFF);
	if (r < 0) {
		vmm->settle = sd_event_source_disable_unref(vmm->settle);
		destroy(vmm);
		return r;
	}
	*ret = vmm;
	return 0;
}

void hf_vmm_free(struct hf_vmm *vmm)
{
	if (!vmm || vmm->freed)
		return;
	vmm->freed = true;
	stop_timers(vmm);
	vmm->settle = sd_event_source_disable_unref(vmm->settle);
	vmm->qmp = hf_qmp_free(vmm->qmp);
	hf_close(&vmm->stream_fd);
	hf_close(&vmm->load_fd);
	hf_vmm_drop_loader(vmm);
	/* A half-loaded QEMU must not stay on the guest's RAM: nobody would know of it. */
	if (vmm->child && (hf_vmm_starting(vmm) || vmm->beside || vmm->killing))
		hf_child_kill(vmm->child);
	hf_child_release(TAKE_PTR(vmm->child));
	cancel_stream(vmm);
	if (vmm->in_callback == 0 && !vmm->streaming)
		destroy(vmm);
}

void hf_vmm_freep(struct hf_vmm **vmm)
{
	hf_vmm_free(*vmm);
}

const struct hf_vmm_probe *hf_vmm_get_probe(const struct hf_vmm *vmm)
{
	return &vmm->probe;
}

const struct hf_vmm_stamps *hf_vmm_get_stamps(const struct hf_vmm *vmm)
{
	return &vmm->stamps;
}

const char *hf_vmm_get_warning(const struct hf_vmm *vmm)
{
	return vmm->warning;
}

pid_t hf_vmm_pid(const struct hf_vmm *vmm)
{
	return vmm->child && !hf_child_exited(vmm->child) ? hf_child_pid(vmm->child) : 0;
}

pid_t hf_vmm_monitor_pid(const struct hf_vmm *vmm)
{
	return vmm->qmp ? hf_qmp_peer_pid(vmm->qmp) : 0;
}

/* ---- operations ---- */

static int on_deadline(sd_event_source *source, uint64_t usec, void *data)
{
	struct hf_vmm *vmm = data;

	hf_vmm_failf(vmm, -ETIMEDOUT, NULL, "QEMU did not %s within %" PRIu64 " ms",
		vmm->waiting ? vmm->waiting : "finish",
		(uint64_t)(vmm->op.timeout_ns / HF_NSEC_PER_MSEC));
	return 0;
}

int hf_vmm_begin(struct hf_vmm *vmm, enum hf_vmm_op_kind kind, uint64_t timeout_ns,
	hf_vmm_done_fn done, void *data)
{
	int r;

	if (vmm->op.kind != HF_VMM_OP_NONE || vmm->freed)
		return -EBUSY;
	stop_timers(vmm);
	r = sd_event_add_time_relative(vmm->event, &vmm->deadline, CLOCK_MONOTONIC,
		timeout_ns / HF_NSEC_PER_USEC, 1000, on_deadline, vmm);
	if (r < 0)
		return r;
	vmm->op = (struct hf_vmm_op){
		.kind = kind,
		.done = done,
		.data = data,
		.timeout_ns = timeout_ns,
	};
	vmm->waiting = NULL;
	vmm->n_polls = 0;
	return 0;
}

bool hf_vmm_in(const struct hf_vmm *vmm, enum hf_vmm_op_kind kind)
{
	return vmm->op.kind == kind && !vmm->op.ended;
}

void hf_vmm_settle(struct hf_vmm *vmm)
{
	if (vmm->streaming || vmm->killing || vmm->freed)
		return;
	if (vmm->overrun.kind || vmm->op.ended || vmm->gone_due)
		sd_event_source_set_enabled(vmm->settle, SD_EVENT_ONESHOT);
}

static void close_operation(struct hf_vmm *vmm)
{
	vmm->op.ended = true;
	stop_timers(vmm);
	hf_vmm_drop_loader(vmm);
	hf_vmm_forget_commands(vmm);
	hf_close(&vmm->stream_fd);
	cancel_stream(vmm);
}

void hf_vmm_end(struct hf_vmm *vmm)
{
	if (vmm->op.kind == HF_VMM_OP_NONE || vmm->op.ended)
		return;
	close_operation(vmm);
	hf_vmm_settle(vmm);
}

/* A state that one QEMU saved and another one refuses: the first is what the operator needs. */
static void blame_version(const struct hf_vmm *vmm, struct hf_error *e)
{
	const uint32_t *saved = vmm->guest->qemu_version;
	const struct hf_qmp_version *v = vmm->qmp ? hf_qmp_get_version(vmm->qmp) : NULL;

	if (!v || v->major == 0 || saved[0] == 0 ||
		(v->major == saved[0] && v->minor == saved[1] && v->micro == saved[2]))
		return;
	snprintf(e->remedy, sizeof(e->remedy),
		"QEMU %u.%u.%u saved the guest and %u.%u.%u can't load it: install the former "
		"again",
		saved[0], saved[1], saved[2], v->major, v->minor, v->micro);
}

/* What to do, where nobody has said so yet. */
static void add_remedy(const struct hf_vmm *vmm, struct hf_error *e)
{
	if (e->remedy[0])
		return;
	if (e->err == -ETIMEDOUT && hf_vmm_pid(vmm))
		snprintf(e->remedy, sizeof(e->remedy), "look what QEMU is doing: process %d",
			(int)hf_vmm_pid(vmm));
	else if (hf_vmm_starting(vmm) || hf_vmm_in(vmm, HF_VMM_OP_ROLLBACK))
		return;
	else if (e->err == -ECONNRESET)
		snprintf(e->remedy, sizeof(e->remedy), "see QEMU's log, and try again");
	else if (e->err == -EBADMSG || e->err == -EMSGSIZE)
		snprintf(e->remedy, sizeof(e->remedy),
			"see who listens on its monitor: it has to be the guest's QEMU");
}

void hf_vmm_fail(struct hf_vmm *vmm, const struct hf_error *error)
{
	struct hf_error e = *error;

	if (vmm->op.kind == HF_VMM_OP_NONE || vmm->op.ended)
		return;
	if (e.err >= 0)
		e.err = -EIO;
	hf_error_guest(&e, vmm->guest->name);
	add_remedy(vmm, &e);
	if (vmm->op.kind == HF_VMM_OP_ROLLBACK) {
		snprintf(e.name, sizeof(e.name), "%s", HF_ERR_DEGRADED);
		if (!e.remedy[0])
			snprintf(e.remedy, sizeof(e.remedy),
				"look at the guest with its own monitor; `cont` makes it run");
	} else if (hf_vmm_starting(vmm)) {
		hf_vmm_forget_fresh(vmm);
		/* From migrate-incoming on the load may have written to guest RAM. */
		if (vmm->incoming_sent) {
			e.err = -EUCLEAN;
			blame_version(vmm, &e);
		}
		if (vmm->child && !hf_child_exited(vmm->child) && hf_child_kill(vmm->child) == 0)
			vmm->killing = true;
		hf_vmm_drop_monitor(vmm);
		vmm->lost = true;
	}
	vmm->op.error = e;
	close_operation(vmm);
	hf_vmm_settle(vmm);
}

void hf_vmm_failf(struct hf_vmm *vmm, int err, const char *remedy, const char *fmt, ...)
{
	struct hf_error e = {0};
	char message[sizeof(e.message)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	hf_error_set(&e, err, HF_ERR_FAILED, remedy, "%s", message);
	hf_vmm_fail(vmm, &e);
}

void hf_vmm_limit(struct hf_vmm *vmm, uint64_t timeout_ns)
{
	if (vmm->deadline && sd_event_source_set_time_relative(
				     vmm->deadline, timeout_ns / HF_NSEC_PER_USEC) >= 0)
		vmm->op.timeout_ns = timeout_ns;
}

void hf_vmm_cancel(struct hf_vmm *vmm, const struct hf_error *cause)
{
	hf_vmm_fail(vmm, cause);
}

/* ---- commands ---- */

int hf_vmm_sent(struct hf_vmm *vmm, int r, uint64_t id)
{
	/* A monitor that was just lost says why in its closed callback, which is on its way. */
	if (r == -ENOTCONN && !vmm->lost)
		return r;
	if (r < 0) {
		hf_vmm_failf(vmm, r, NULL, "can't send a command to QEMU: %s", strerror(-r));
		return r;
	}
	/* No step has this many outstanding: what falls out was answered long ago. */
	if (vmm->n_tracked == HF_VMM_MAX_TRACKED) {
		memmove(vmm->tracked, vmm->tracked + 1,
			(HF_VMM_MAX_TRACKED - 1) * sizeof(vmm->tracked[0]));
		vmm->n_tracked--;
	}
	vmm->tracked[vmm->n_tracked++] = id;
	return 0;
}

int hf_vmm_send_caps(struct hf_vmm *vmm, bool ignore_shared, bool events, hf_qmp_reply_fn fn)
{
	const struct hf_qmp_capability caps[] = {
		{"x-ignore-shared", ignore_shared}, {"events", events}};

	return HF_VMM_SEND(vmm, fn, hf_qmp_migrate_set_capabilities, caps, HF_ARRAY_SIZE(caps));
}

void hf_vmm_forget_commands(struct hf_vmm *vmm)
{
	for (size_t i = 0; vmm->qmp && i < vmm->n_tracked; i++)
		hf_qmp_cancel(vmm->qmp, vmm->tracked[i]);
	vmm->n_tracked = 0;
}

bool hf_vmm_check_reply(struct hf_vmm *vmm, int err, const struct hf_error *error)
{
	if (err == 0)
		return true;
	/* What QEMU refuses is a fact about the guest; a time-out or lack of memory is one of the
	 * host. */
	if ((err == -EREMOTEIO || err == -EOPNOTSUPP) && hf_vmm_in(vmm, HF_VMM_OP_SAVE))
		vmm->refused = true;
	/* A lost connection is told once, with its cause, by the closed callback. */
	if (err != -ECONNRESET)
		hf_vmm_fail(vmm, error);
	return false;
}

bool hf_vmm_take_status(struct hf_vmm *vmm, int err, struct json_object *ret,
	const struct hf_error *error, struct hf_qmp_status *status)
{
	if (!hf_vmm_check_reply(vmm, err, error))
		return false;
	if (hf_qmp_parse_status(ret, status) == 0)
		return true;
	hf_vmm_failf(vmm, -EBADMSG, NULL, "QEMU's answer to query-status makes no sense");
	return false;
}

bool hf_vmm_take_migration(struct hf_vmm *vmm, int err, struct json_object *ret,
	const struct hf_error *error, struct hf_qmp_migration *migration)
{
	if (!hf_vmm_check_reply(vmm, err, error))
		return false;
	if (hf_qmp_parse_migration(ret, migration) == 0)
		return true;
	hf_vmm_failf(vmm, -EBADMSG, NULL, "QEMU's answer to query-migrate makes no sense");
	return false;
}

bool hf_vmm_take_kvm(struct hf_vmm *vmm, int err, struct json_object *ret,
	const struct hf_error *error, bool *enabled)
{
	*enabled = false;
	if (!hf_vmm_check_reply(vmm, err, error))
		return false;
	if (hf_qmp_parse_kvm(ret, enabled) == 0)
		return true;
	hf_vmm_failf(vmm, -EBADMSG, NULL, "QEMU's answer to query-kvm makes no sense");
	return false;
}

static int on_poll(sd_event_source *source, uint64_t usec, void *data)
{
	struct hf_vmm *vmm = data;
	void (*fn)(struct hf_vmm * vmm) = vmm->poll_fn;

	vmm->poll_fn = NULL;
	vmm->poll = sd_event_source_disable_unref(vmm->poll);
	if (fn)
		fn(vmm);
	return 0;
}

void hf_vmm_poll_after(struct hf_vmm *vmm, uint64_t usec, void (*fn)(struct hf_vmm *vmm))
{
	int r;

	vmm->poll = sd_event_source_disable_unref(vmm->poll);
	vmm->poll_fn = fn;
	r = sd_event_add_time_relative(
		vmm->event, &vmm->poll, CLOCK_MONOTONIC, usec, 1, on_poll, vmm);
	if (r < 0)
		hf_vmm_failf(vmm, r, NULL, "can't set a timer: %s", strerror(-r));
}

void hf_vmm_poll_later(struct hf_vmm *vmm, void (*fn)(struct hf_vmm *vmm))
{
	uint64_t usec = (uint64_t)POLL_FIRST_USEC << HF_MIN(vmm->n_polls, 10u);

	vmm->n_polls++;
	hf_vmm_poll_after(vmm, HF_MIN(usec, (uint64_t)POLL_MAX_USEC), fn);
}

void hf_vmm_widen(int fd)
{
	const int bytes = STREAM_SOCKET_BYTES;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* ---- QEMU's own moves ---- */

void hf_vmm_drop_monitor(struct hf_vmm *vmm)
{
	hf_vmm_forget_commands(vmm);
	vmm->qmp = hf_qmp_free(vmm->qmp);
}

void hf_vmm_lose(struct hf_vmm *vmm, const struct hf_error *reason)
{
	if (vmm->lost)
		return;
	vmm->lost = true;
	if (hf_vmm_starting(vmm)) {
		hf_vmm_respawn_on_lost(vmm, reason);
		return;
	}
	if (vmm->attached) {
		vmm->gone_due = true;
		vmm->gone_error = *reason;
		hf_error_guest(&vmm->gone_error, vmm->guest->name);
		add_remedy(vmm, &vmm->gone_error);
	}
	hf_vmm_fail(vmm, reason);
	hf_vmm_settle(vmm);
}

void hf_vmm_on_child_exit(struct hf_child *child, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_error e = {0};
	char how[480];

	if (vmm->killing) {
		vmm->killing = false;
		hf_vmm_settle(vmm);
		return;
	}
	if (hf_vmm_in(vmm, HF_VMM_OP_QUIT)) {
		vmm->lost = true;
		hf_vmm_end(vmm);
		return;
	}
	hf_child_describe(child, how, sizeof(how));
	hf_error_set(&e, -ECONNRESET, HF_ERR_FAILED, "see QEMU's log", "its QEMU %s", how);
	if (hf_vmm_starting(vmm))
		hf_vmm_fail(vmm, &e);
	else
		hf_vmm_lose(vmm, &e);
}

static void on_qmp_ready(struct hf_qmp *q, void *userdata)
{
	struct hf_vmm *vmm = userdata;

	if (hf_vmm_in(vmm, HF_VMM_OP_RESPAWN))
		hf_vmm_respawn_on_ready(vmm);
	else if (hf_vmm_in(vmm, HF_VMM_OP_ATTACH))
		hf_vmm_attach_on_ready(vmm);
	else if (hf_vmm_in(vmm, HF_VMM_OP_COLD_BOOT))
		hf_vmm_cold_boot_on_ready(vmm);
	else if (hf_vmm_in(vmm, HF_VMM_OP_START))
		hf_vmm_beside_on_ready(vmm);
}

static void on_qmp_event(struct hf_qmp *q, const char *name, struct json_object *data,
	uint64_t timestamp_us, void *userdata)
{
	struct hf_vmm *vmm = userdata;

	if (hf_vmm_in(vmm, HF_VMM_OP_SAVE))
		hf_vmm_save_on_event(vmm, name, data);
	else if (hf_vmm_in(vmm, HF_VMM_OP_COPY))
		hf_vmm_copy_on_event(vmm, name, data);
	else if (hf_vmm_loading(vmm))
		hf_vmm_respawn_on_event(vmm, name, data);
	else if (hf_vmm_in(vmm, HF_VMM_OP_RESUME) && strcmp(name, "RESUME") == 0 &&
		 vmm->stamps.resumed == 0)
		vmm->stamps.resumed = hf_tsc_now();
	else
		hf_vmm_saved_on_event(vmm, name);
}

static bool through_libvirt(const struct hf_vmm *vmm)
{
	return hf_guest_is_libvirt(vmm->guest) && vmm->attached && !hf_vmm_starting(vmm) &&
	       vmm->child && !hf_child_exited(vmm->child);
}

/*
 * libvirt's daemon ended, or the program that stands between: QEMU is as it was. Who wants
 * something of it connects again, to whoever is there then.
 */
static void lose_libvirt(struct hf_vmm *vmm, const struct hf_error *reason)
{
	struct hf_error e = *reason;

	hf_vmm_drop_monitor(vmm);
	if (hf_vmm_in(vmm, HF_VMM_OP_ROLLBACK)) {
		hf_vmm_rollback_anew(vmm);
		return;
	}
	hf_error_prefix(&e, "its monitor was lost");
	hf_vmm_fail(vmm, &e);
}

static void on_qmp_closed(struct hf_qmp *q, int err, const struct hf_error *reason, void *userdata)
{
	struct hf_vmm *vmm = userdata;
	struct hf_error e = *reason;

	/* While QEMU quits, its exit counts, not its silence. */
	if (hf_vmm_in(vmm, HF_VMM_OP_QUIT))
		return;
	if (through_libvirt(vmm)) {
		lose_libvirt(vmm, &e);
		return;
	}
	if (vmm->attached || (hf_vmm_in(vmm, HF_VMM_OP_ATTACH) && e.err == -ECONNRESET))
		hf_error_prefix(&e, "its QEMU went away");
	hf_vmm_lose(vmm, &e);
}

const struct hf_qmp_ops hf_vmm_qmp_ops = {
	.ready = on_qmp_ready,
	.event = on_qmp_event,
	.closed = on_qmp_closed,
};

bool hf_vmm_stream_over(struct hf_vmm *vmm)
{
	vmm->streaming = false;
	vmm->stream = NULL;
	vmm->receiver = NULL;
	if (vmm->freed && vmm->in_callback == 0)
		destroy(vmm);
	else if (!vmm->freed)
		return true;
	return false;
}

void hf_vmm_on_stream_done(void *data, const struct hf_stream_result *result)
{
	struct hf_vmm *vmm = data;

	if (!hf_vmm_stream_over(vmm))
		return;
	vmm->result = *result;
	vmm->stream_ok = result->err == 0;
	vmm->stream_error = result->error;
	if (hf_vmm_in(vmm, HF_VMM_OP_SAVE))
		hf_vmm_save_on_stream(vmm);
	else if (hf_vmm_loading(vmm))
		hf_vmm_respawn_on_stream(vmm);
	else
		hf_vmm_settle(vmm);
}
