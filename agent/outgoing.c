/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/outgoing.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/health.h"
#include "agent/log.h"
#include "agent/state-room.h"
#include "common/fault.h"
#include "common/fd.h"
#include "common/worker.h"
#include "memfd-preserve/fill.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/guest-disks.h"
#include "vmm-glue/libvirt.h"

#define QUIT_TIMEOUT_NS (20 * HF_NSEC_PER_SEC)
/* So often a guest's memory is copied at most while it runs; so little may be left to change. */
#define COPY_PASSES 4
#define ENOUGH_BYTES (16u << 20)

static const char *const step_names[] = {
	[HF_OUT_IDLE] = "idle",
	[HF_OUT_ATTACHING] = "attaching",
	[HF_OUT_PRESERVING] = "preserving",
	[HF_OUT_PREPARED] = "prepared",
	[HF_OUT_SAVING] = "saving",
	[HF_OUT_SAVED] = "saved",
	[HF_OUT_NOT_SAVED] = "not-saved",
	[HF_OUT_SEALING] = "sealing",
	[HF_OUT_QUITTING] = "quitting",
	[HF_OUT_QUIT] = "quit",
	[HF_OUT_UNDOING] = "undoing",
	[HF_OUT_FAILED] = "failed",
};
static_assert(HF_ARRAY_SIZE(step_names) == HF_OUT_N_, "every step has its name");

struct hf_outgoing {
	struct hf_agent *agent;
	struct hf_carrier *carrier;
	const struct hf_registration *reg;
	struct hf_manifest_guest *guest;
	hf_outgoing_done_fn done;
	hf_outgoing_gone_fn gone;
	void *data;
	enum hf_outgoing_step step;
	enum hf_outgoing_step saved; /* what it was before it was sealed */
	struct hf_vmm *vmm;
	struct hf_session *session;
	int ram_fds[HF_MANIFEST_MAX_RAM];
	struct hf_state_room room;
	struct hf_error error; /* of the worker, or of the undo */
	bool vmm_gone;
	struct hf_health *probe; /* of its guest agent, while it is asked */
};

/* Ends the chain under way. The callback may free @out: nothing of it is touched afterwards. */
static void end_chain(
	struct hf_outgoing *out, enum hf_outgoing_step step, const struct hf_error *error)
{
	struct hf_error e;

	// NOLINTNEXTLINE(clang-analyzer-core.NullDereference): worker callbacks have their data
	out->step = error ? HF_OUT_FAILED : step;
	if (!error) {
		out->done(out, NULL, out->data);
		return;
	}
	e = *error;
	hf_error_guest(&e, out->guest->name);
	out->done(out, &e, out->data);
}

static void fail_chain(struct hf_outgoing *out, int err, const char *what)
{
	struct hf_error e = {0};

	hf_error_set(&e, err, HF_ERR_FAILED, NULL, "%s: %s", what, strerror(-err));
	end_chain(out, HF_OUT_FAILED, &e);
}

static bool in_chain(const struct hf_outgoing *out)
{
	return out->step == HF_OUT_ATTACHING || out->step == HF_OUT_PRESERVING ||
	       out->step == HF_OUT_SAVING || out->step == HF_OUT_SEALING ||
	       out->step == HF_OUT_QUITTING || out->step == HF_OUT_UNDOING;
}

static void on_vmm_gone(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_outgoing *out = data;
	struct hf_error e = *error;

	out->vmm_gone = true;
	/* In a chain the step under way fails by itself: one report is enough. */
	if (in_chain(out))
		return;
	hf_error_guest(&e, out->guest->name);
	out->gone(out, &e, out->data);
}

/* ---- prepare ---- */

static int grow_state(void *data, struct hf_sink *sink, struct hf_error *error)
{
	struct hf_outgoing *out = data;

	return hf_state_room_grow(&out->room, error);
}

/* The guest runs on meanwhile: once more as long as that leaves clearly less for the blackout. */
static int copy_ahead(struct hf_outgoing *out)
{
	uint64_t changed = 0, before;
	int r = hf_session_copy(out->session, &changed, &out->error);

	for (int i = 1; r == 0 && i < COPY_PASSES && changed > ENOUGH_BYTES; i++) {
		before = changed;
		r = hf_session_copy(out->session, &changed, &out->error);
		if (changed > before / 2)
			break;
	}
	return r;
}

/* In a worker: the kernel takes time in proportion to RAM here. */
static int preserve(void *data)
{
	struct hf_outgoing *out = data;
	uint64_t state_bytes = out->agent->state_bytes;
	uint64_t begin = hf_agent_now_ns();
	int r;

	if (state_bytes == 0)
		state_bytes = hf_vmm_get_probe(out->vmm)->state_estimate_bytes;
	r = hf_fault(HF_FAULT_CREATE_SESSION, &out->error);
	if (r == 0)
		r = hf_carrier_session_create(
			out->carrier, out->guest->session, &out->session, &out->error);
	/* The kernel preserves no file of a tmpfs that still has a name; and libvirt might give the
	 * same name to a domain that somebody boots afresh while this memory is held. */
	if (r == 0 && hf_guest_is_libvirt(out->guest))
		r = hf_libvirt_release_ram(out->guest, out->ram_fds, &out->error);
	for (size_t i = 0; r == 0 && i < out->guest->n_ram; i++) {
		struct hf_manifest_ram *ram = &out->guest->ram[i];

		ram->token = HF_TOKEN_RAM + i;
		/* Holes that could not be filled here the kernel fills, only with smaller folios.
		 */
		if (hf_carrier_kind(out->carrier) == HF_CARRIER_LUO)
			hf_memfd_fill(out->ram_fds[i], ram->size);
		r = hf_fault(HF_FAULT_PRESERVE_RAM, &out->error);
		if (r == 0)
			r = hf_session_preserve(
				out->session, ram->token, out->ram_fds[i], &out->error);
		if (r < 0)
			hf_error_prefix(&out->error, "RAM block %s", ram->id);
	}
	if (r == 0)
		r = copy_ahead(out);
	/* In memory it can only get to where nobody has started it yet. */
	if (r == 0 && hf_carrier_kind(out->carrier) == HF_CARRIER_IMAGE &&
		hf_guest_disks_collect(out->guest, out->reg->pid) < 0)
		r = hf_error_set(&out->error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	out->guest->preserve_ns = hf_agent_now_ns() - begin;
	if (r == 0)
		r = hf_fault(HF_FAULT_PRESERVE_STATE, &out->error);
	out->room.session = out->session;
	if (r == 0)
		r = hf_state_room_add(&out->room, state_bytes, &out->error);
	return r;
}

static void end_prepare(struct hf_outgoing *out)
{
	struct hf_error e = {0};

	if (out->vmm_gone) {
		/* QEMU died while the kernel was busy with its RAM. */
		hf_error_set(&e, -ECONNRESET, HF_ERR_FAILED, "prepare again",
			"its QEMU went away while its RAM was being preserved");
		end_chain(out, HF_OUT_FAILED, &e);
	} else {
		end_chain(out, HF_OUT_PREPARED, NULL);
	}
}

static void on_probed(bool answers, void *data)
{
	struct hf_outgoing *out = data;

	out->guest->agent_answered = answers;
	out->probe = hf_health_free(out->probe);
	end_prepare(out);
}

static void on_preserved(void *data, int result)
{
	struct hf_outgoing *out = data;

	if (result < 0) {
		end_chain(out, HF_OUT_FAILED, &out->error);
		return;
	}
	/* Afterwards it is to answer if it does now. A paused guest can't. */
	if (out->vmm_gone || !out->guest->was_running ||
		hf_health_probe(out->agent, out->vmm, out->guest, on_probed, out, &out->probe) < 0)
		end_prepare(out);
}

/*
 * AppArmor lets nobody open a file that has lost its name, which files of a tmpfs do when they are
 * preserved. After a jump they are memfds, which it doesn't look at.
 */
static int check_confined_ram(const struct hf_outgoing *out, struct hf_error *error)
{
	char link[64], target[64];

	if (!out->guest->apparmor || hf_carrier_kind(out->carrier) != HF_CARRIER_HOLD)
		return 0;
	for (size_t i = 0; i < out->guest->n_ram; i++) {
		ssize_t n;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", out->ram_fds[i]);
		n = readlink(link, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = 0;
		if (strncmp(target, "/memfd:", 7) != 0)
			return hf_error_set(error, -EOPNOTSUPP, HF_ERR_NOT_READY,
				"replace its QEMU by a change of the kernel, or shut it down for "
				"it",
				"AppArmor confines its QEMU, and would not let another one on this "
				"kernel open its memory, which is in a file of a tmpfs");
	}
	return 0;
}

static void on_attached(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_outgoing *out = data;
	struct hf_registration reg = *out->reg;
	struct hf_error e = {0};
	int r;

	if (error) {
		end_chain(out, HF_OUT_FAILED, error);
		return;
	}
	if (hf_vmm_get_warning(vmm)[0])
		hf_log(LOG_WARNING, out->guest->uuid, "%s: %s", out->guest->name,
			hf_vmm_get_warning(vmm));
	/* The description has moved from the registration into the manifest: borrow it back. */
	reg.guest = *out->guest;
	out->guest->was_running = hf_vmm_get_probe(vmm)->running;
	r = hf_vmm_probe_check(hf_vmm_get_probe(vmm), &e);
	if (r == 0)
		r = hf_fault(HF_FAULT_OPEN_RAM, &e);
	if (r == 0)
		r = hf_registration_open_ram(&reg, out->ram_fds, &e);
	if (r == 0)
		r = check_confined_ram(out, &e);
	if (r < 0) {
		end_chain(out, HF_OUT_FAILED, &e);
		return;
	}
	out->step = HF_OUT_PRESERVING;
	hf_error_clear(&out->error);
	r = hf_worker_run(out->agent->event, preserve, on_preserved, out);
	if (r < 0)
		fail_chain(out, r, "can't start a thread");
}

void hf_outgoing_prepare(struct hf_outgoing *out)
{
	int r;

	out->step = HF_OUT_ATTACHING;
	hf_vmm_want_roms(out->vmm);
	hf_vmm_want_profile(out->vmm);
	r = hf_fault(HF_FAULT_ATTACH, NULL);
	if (r == 0)
		r = hf_vmm_attach(out->vmm, out->reg->pid, out->reg->start_ticks,
			out->guest->policies.attach_timeout_ns, on_attached, out);
	if (r < 0)
		fail_chain(out, r, "can't attach to its QEMU");
}

/* ---- save, quit ---- */

/* What there is of its device state makes no sense. A reader that doesn't know better holds it. */
static void note_not_saved(struct hf_outgoing *out)
{
	struct hf_manifest_guest *g = out->guest;

	if (hf_manifest_set(&g->not_saved, out->error.message) < 0) {
		fail_chain(out, -ENOMEM, "it can't be left without its device state");
		return;
	}
	for (size_t i = 0; i < g->n_state; i++)
		g->state[i].length = 0;
	g->state_length = g->state_xxh3 = 0;
	hf_log(LOG_WARNING, g->uuid,
		"%s can't be saved: %s. It will be started afresh after the jump, as is its "
		"policy: what it has in memory will be lost",
		g->name, out->error.message);
	end_chain(out, HF_OUT_NOT_SAVED, NULL);
}

static void on_halted(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_outgoing *out = data;

	if (!error) {
		note_not_saved(out);
		return;
	}
	hf_log(LOG_ERR, out->guest->uuid,
		"%s can't be started afresh, either, as it is not known to stand still: %s",
		out->guest->name, error->message);
	end_chain(out, HF_OUT_FAILED, &out->error);
}

/*
 * Only what QEMU itself says of this guest counts. A time-out, and what the agent lacks, are the
 * host's: they may go by, and would restart one guest after the other. A QEMU that ended can't be
 * told from a guest that switched itself off.
 */
static bool may_go_without_state(const struct hf_outgoing *out)
{
	return out->guest->policies.save_failure == HF_SAVE_FAILURE_COLD_BOOT &&
	       hf_vmm_save_refused(out->vmm);
}

static void on_saved(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_outgoing *out = data;
	struct hf_error e = {0};

	if (error && may_go_without_state(out)) {
		out->error = *error;
		if (hf_vmm_halt(vmm, out->guest->policies.rollback_timeout_ns, on_halted, out) == 0)
			return;
	}
	if (!error && hf_fault(HF_FAULT_SAVED, &e) < 0)
		error = &e;
	hf_state_room_filled(&out->room);
	end_chain(out, HF_OUT_SAVED, error);
}

void hf_outgoing_save(struct hf_outgoing *out)
{
	int r;

	out->step = HF_OUT_SAVING;
	r = hf_fault(HF_FAULT_SAVE, NULL);
	if (r == 0)
		r = hf_vmm_save(out->vmm, &out->room.sink, grow_state,
			out->guest->policies.save_timeout_ns, on_saved, out);
	if (r < 0)
		fail_chain(out, r, "can't start to save");
}

/* In a worker: it takes as long as the rest of the guest's memory takes to read, and to write. */
static int seal(void *data)
{
	struct hf_outgoing *out = data;
	int r = hf_fault(HF_FAULT_SEAL, &out->error);

	if (r == 0)
		r = hf_session_seal(out->session, &out->error);
	if (r == 0)
		hf_guest_disks_stamp(out->guest);
	return r;
}

static void on_sealed(void *data, int result)
{
	struct hf_outgoing *out = data;

	end_chain(out, out->saved, result < 0 ? &out->error : NULL);
}

void hf_outgoing_seal(struct hf_outgoing *out)
{
	int r;

	out->saved = out->step;
	out->step = HF_OUT_SEALING;
	hf_error_clear(&out->error);
	r = hf_worker_run(out->agent->event, seal, on_sealed, out);
	if (r < 0)
		fail_chain(out, r, "can't start a thread");
}

static void on_quit(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_outgoing *out = data;

	if (!error && hf_guest_is_libvirt(out->guest))
		hf_libvirt_withdraw(out->guest);
	end_chain(out, HF_OUT_QUIT, error);
}

void hf_outgoing_quit(struct hf_outgoing *out)
{
	int r;

	out->step = HF_OUT_QUITTING;
	r = hf_fault(HF_FAULT_QUIT, NULL);
	if (r == 0)
		r = hf_vmm_quit(out->vmm, QUIT_TIMEOUT_NS, on_quit, out);
	if (r < 0)
		fail_chain(out, r, "can't end its QEMU");
}

/* ---- undo ---- */

static int discard(void *data)
{
	struct hf_outgoing *out = data;

	hf_fault(HF_FAULT_UNDO_SESSION, NULL);
	hf_session_discard(out->session);
	out->session = NULL;
	return 0;
}

static void on_discarded(void *data, int result)
{
	struct hf_outgoing *out = data;

	end_chain(out, HF_OUT_IDLE, out->error.err ? &out->error : NULL);
}

static void undo_session(struct hf_outgoing *out)
{
	if (hf_worker_run(out->agent->event, discard, on_discarded, out) < 0) {
		/* No thread to be had: the loop blocks for once, but nothing stays preserved. */
		discard(out);
		on_discarded(out, 0);
	}
}

static void on_rolled_back(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_outgoing *out = data;

	if (error)
		out->error = *error;
	undo_session(out);
}

void hf_outgoing_undo(struct hf_outgoing *out)
{
	int r;

	out->step = HF_OUT_UNDOING;
	hf_error_clear(&out->error);
	if (out->vmm_gone) {
		/* The guest ended by itself: nothing of it is left to roll back. */
		undo_session(out);
		return;
	}
	/* The guest first: it may stand paused, and its session's undo takes time. */
	r = hf_fault(HF_FAULT_UNDO_GUEST, NULL);
	if (r == 0)
		r = hf_vmm_rollback(
			out->vmm, out->guest->policies.rollback_timeout_ns, on_rolled_back, out);
	if (r < 0) {
		hf_error_set(&out->error, r, HF_ERR_DEGRADED, "look at it with its own monitor",
			"can't roll it back: %s", strerror(-r));
		undo_session(out);
	}
}

/* ---- life ---- */

int hf_outgoing_new(struct hf_agent *agent, struct hf_carrier *carrier,
	const struct hf_registration *reg, struct hf_manifest_guest *guest,
	hf_outgoing_done_fn done, hf_outgoing_gone_fn gone, void *data, struct hf_outgoing **ret)
{
	struct hf_outgoing *out = calloc(1, sizeof(*out));
	int r;

	if (!out)
		return -ENOMEM;
	*out = (struct hf_outgoing){
		.agent = agent,
		.carrier = carrier,
		.reg = reg,
		.guest = guest,
		.room = {.guest = guest},
		.done = done,
		.gone = gone,
		.data = data,
	};
	for (size_t i = 0; i < HF_ARRAY_SIZE(out->ram_fds); i++)
		out->ram_fds[i] = -EBADF;
	r = hf_vmm_new(agent->event, guest, agent->ring, on_vmm_gone, out, &out->vmm);
	if (r < 0) {
		free(out);
		return r;
	}
	*ret = out;
	return 0;
}

void hf_outgoing_free(struct hf_outgoing *out)
{
	if (!out)
		return;
	hf_health_free(out->probe);
	hf_vmm_free(out->vmm);
	hf_state_room_release(&out->room);
	for (size_t i = 0; i < HF_ARRAY_SIZE(out->ram_fds); i++)
		hf_close(&out->ram_fds[i]);
	hf_session_discard(out->session);
	free(out);
}

enum hf_outgoing_step hf_outgoing_get_step(const struct hf_outgoing *out)
{
	return out->step;
}

const char *hf_outgoing_step_name(enum hf_outgoing_step step)
{
	return step_names[step];
}

const struct hf_manifest_guest *hf_outgoing_guest(const struct hf_outgoing *out)
{
	return out->guest;
}

bool hf_outgoing_is_gone(const struct hf_outgoing *out)
{
	return out->vmm_gone;
}

void hf_outgoing_leave_libvirt(struct hf_outgoing *out)
{
	hf_vmm_leave_libvirt(out->vmm);
}

pid_t hf_outgoing_pid(const struct hf_outgoing *out)
{
	return hf_vmm_pid(out->vmm);
}

char *const *hf_outgoing_roms(const struct hf_outgoing *out)
{
	return hf_vmm_get_roms(out->vmm);
}
