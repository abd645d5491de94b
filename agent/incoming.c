/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/incoming.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/log.h"
#include "agent/resume-journal.h"
#include "common/fd.h"
#include "common/worker.h"
#include "vmm-glue/ram-users.h"

#define RESPAWN_TIMEOUT_NS (60 * HF_NSEC_PER_SEC)
#define RESUME_TIMEOUT_NS (20 * HF_NSEC_PER_SEC)
#define ADOPT_TIMEOUT_NS (20 * HF_NSEC_PER_SEC)
#define END_TIMEOUT_NS (10 * HF_NSEC_PER_SEC)

static const char *const step_names[] = {
	[HF_IN_IDLE] = "idle",
	[HF_IN_RETRIEVING] = "retrieving",
	[HF_IN_LOADING] = "loading",
	[HF_IN_RESUMING] = "resuming",
	[HF_IN_FINISHING] = "finishing",
	[HF_IN_RESUMED] = "resumed",
	[HF_IN_HELD] = "held",
};
static_assert(HF_ARRAY_SIZE(step_names) == HF_IN_N_, "every step has its name");

struct hf_incoming {
	struct hf_agent *agent;
	struct hf_manifest_guest *guest;
	hf_incoming_done_fn done;
	void *data;
	enum hf_incoming_step step;
	struct hf_session *session;
	int ram_fds[HF_MANIFEST_MAX_RAM];
	int state_fds[HF_MANIFEST_MAX_CHUNKS];
	struct hf_vmm *vmm;
	struct hf_vmm_stamps stamps;
	/* What an agent before this one did, when that died: */
	bool over;    /* the guest ran, and its session is finished */
	pid_t ran_in; /* the guest was let run in this process, or 0 */
	uint64_t ran_in_start;
	bool was_running; /* and status: before the update, which an attach overwrites */
	char *status;
	size_t n_ended; /* QEMUs that had its RAM but never ran it */
	uint64_t retrieve_ns;
	struct hf_error error;
};

static void hold(struct hf_incoming *in, const struct hf_error *error)
{
	in->step = HF_IN_HELD;
	if (error != &in->error)
		in->error = *error;
	hf_error_guest(&in->error, in->guest->name);
	if (!in->error.remedy[0])
		snprintf(in->error.remedy, sizeof(in->error.remedy),
			hf_agent_is_luo(in->agent) && in->session
				? "its RAM is kept until the next reboot; see holdfastd's log and "
				  "the guest's; holdfastd tries again when it is killed and started"
				: "its RAM is held as long as holdfastd runs: don't stop it; see "
				  "its log and the guest's");
	in->done(in, &in->error, in->data);
}

static void hold_errno(struct hf_incoming *in, int err, const char *what)
{
	struct hf_error e = {0};

	hf_error_set(&e, err, HF_ERR_DEGRADED, NULL, "%s: %s", what, strerror(-err));
	hold(in, &e);
}

static void close_fds(struct hf_incoming *in)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(in->ram_fds); i++)
		hf_close(&in->ram_fds[i]);
	for (size_t i = 0; i < HF_ARRAY_SIZE(in->state_fds); i++)
		hf_close(&in->state_fds[i]);
}

static int finish(void *data)
{
	struct hf_incoming *in = data;
	int r = in->session ? hf_session_finish(in->session, &in->error) : 0;

	if (r == 0)
		in->session = NULL;
	return r;
}

static void on_finished(void *data, int result)
{
	struct hf_incoming *in = data;

	if (result < 0) {
		/* It runs; only the kernel's bookkeeping of it could not be ended. */
		hf_error_prefix(&in->error, "it runs, but its session can't be finished");
		hold(in, &in->error);
		return;
	}
	/* Leaves the guest's monitor to whoever comes next. */
	hf_vmm_free(in->vmm);
	in->vmm = NULL;
	in->step = HF_IN_RESUMED;
	in->done(in, NULL, in->data);
}

static void on_resumed(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_incoming *in = data;
	int r;

	if (error) {
		hold(in, error);
		return;
	}
	/* Of its start; not told then, because until now the guest stood still. */
	if (hf_vmm_get_warning(vmm)[0])
		hf_log(LOG_WARNING, in->guest->uuid, "%s: %s", in->guest->name,
			hf_vmm_get_warning(vmm));
	in->step = HF_IN_FINISHING;
	in->stamps = *hf_vmm_get_stamps(vmm);
	/* QEMU has its own hold on the RAM now. */
	close_fds(in);
	hf_error_clear(&in->error);
	r = hf_worker_run(in->agent->event, finish, on_finished, in);
	if (r < 0)
		hold_errno(in, r, "can't start a thread");
}

static void resume(struct hf_incoming *in)
{
	int r;

	in->step = HF_IN_RESUMING;
	r = hf_vmm_resume(in->vmm, RESUME_TIMEOUT_NS, on_resumed, in);
	if (r < 0)
		hold_errno(in, r, "can't resume it");
}

static void on_loaded(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_incoming *in = data;
	struct hf_error e = {0};

	if (error) {
		hold(in, error);
		return;
	}
	/* From here on nobody may load it again. That it can't be noted keeps no guest waiting. */
	if (hf_resume_journal_write(in->guest->uuid, hf_vmm_pid(vmm), &e) < 0)
		hf_log(LOG_WARNING, in->guest->uuid, "%s: %s", in->guest->name, e.message);
	resume(in);
}

/* ---- a guest that ran already ---- */

static void on_adopted(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_incoming *in = data;
	struct hf_error e = {0};

	in->guest->was_running = in->was_running;
	hf_manifest_set(&in->guest->status, in->status);
	if (error || hf_vmm_adopt(vmm, in->ram_fds, &e) < 0) {
		hold(in, error ? error : &e);
		return;
	}
	hf_log(LOG_NOTICE, in->guest->uuid, "%s was let run by an agent that died: taken over",
		in->guest->name);
	resume(in);
}

static void adopt(struct hf_incoming *in)
{
	int r;

	in->step = HF_IN_RESUMING;
	in->was_running = in->guest->was_running;
	hf_manifest_set(&in->status, in->guest->status);
	r = hf_vmm_attach(in->vmm, in->ran_in, in->ran_in_start, ADOPT_TIMEOUT_NS, on_adopted, in);
	if (r < 0)
		hold_errno(in, r, "can't take its QEMU over");
}

static int retrieve_fd(
	struct hf_incoming *in, uint64_t token, const char *what, uint64_t size, int *ret_fd)
{
	struct hf_inode inode;
	uint64_t have = 0;
	int r;

	r = hf_session_retrieve(in->session, token, ret_fd, &in->error);
	if (r == 0)
		r = hf_fd_inode(*ret_fd, &inode, &have);
	if (r == 0 && have < size)
		r = hf_error_set(&in->error, -EBADMSG, HF_ERR_DEGRADED, NULL,
			"it came back with %llu bytes, the manifest says %llu",
			(unsigned long long)have, (unsigned long long)size);
	if (r < 0)
		hf_error_prefix(&in->error, "%s", what);
	return r;
}

static int retrieve_files(struct hf_incoming *in)
{
	struct hf_manifest_guest *g = in->guest;
	int r = 0;

	for (size_t i = 0; r == 0 && i < g->n_ram; i++)
		r = retrieve_fd(in, g->ram[i].token, g->ram[i].id, g->ram[i].size, &in->ram_fds[i]);
	for (size_t i = 0; r == 0 && i < g->n_state; i++)
		r = retrieve_fd(in, g->state[i].token, "device state", g->state[i].length,
			&in->state_fds[i]);
	return r;
}

/* Was the guest let run by an agent that died? What it was saved with is then of the past. */
static int look_back(struct hf_incoming *in)
{
	uint64_t ticks = 0;
	int r = hf_resume_journal_read(in->guest->uuid, &in->ran_in, &in->ran_in_start);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return hf_error_set(&in->error, r, HF_ERR_DEGRADED, NULL,
			"whether it ran on this kernel already can't be read: %s", strerror(-r));
	if (in->over)
		return 0;
	if (hf_pid_start_time(in->ran_in, &ticks) < 0 || ticks != in->ran_in_start)
		return hf_error_set(&in->error, -ESRCH, HF_ERR_DEGRADED, NULL,
			"it ran on this kernel already, as process %d, which has ended since: it "
			"is not put back to what it was before",
			(int)in->ran_in);
	return 0;
}

/* A QEMU of an agent that died: it never ran the guest, and two must not have its RAM. */
static int end_others(struct hf_incoming *in)
{
	struct hf_inode files[HF_MANIFEST_MAX_RAM];
	size_t n = in->guest->n_ram;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = hf_fd_inode(in->ram_fds[i], &files[i], NULL);
	if (r < 0)
		return hf_error_set(
			&in->error, r, HF_ERR_DEGRADED, NULL, "its RAM: %s", strerror(-r));
	return hf_ram_users_end(files, n, END_TIMEOUT_NS, &in->n_ended, &in->error);
}

/* In a worker: the kernel takes time in proportion to RAM here. */
static int retrieve(void *data)
{
	struct hf_incoming *in = data;
	bool again = in->agent->again;
	uint64_t begin = hf_agent_now_ns();
	int r = hf_carrier_session_retrieve(
		in->agent->carrier, in->guest->session, &in->session, &in->error);

	in->over = again && r == -EALREADY;
	if (again && (r == 0 || in->over)) {
		r = look_back(in);
		if (r == 0 && in->over && !in->ran_in)
			return in->error.err;
		if (r == 0)
			hf_error_clear(&in->error);
		if (r == 0 && in->over)
			return 0;
	}
	if (r == 0)
		r = retrieve_files(in);
	if (r == 0 && again && !in->ran_in)
		r = end_others(in);
	in->retrieve_ns = hf_agent_now_ns() - begin;
	return r;
}

static void respawn(struct hf_incoming *in)
{
	int r;

	in->step = HF_IN_LOADING;
	r = hf_vmm_respawn(in->vmm, in->ram_fds, in->state_fds, RESPAWN_TIMEOUT_NS, on_loaded, in);
	if (r < 0)
		hold_errno(in, r, "can't start its QEMU");
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
	if (in->ran_in) {
		adopt(in);
		return;
	}
	if (in->n_ended > 0)
		hf_log(LOG_NOTICE, in->guest->uuid,
			"%s: ended the QEMU that an agent which died had begun to load",
			in->guest->name);
	respawn(in);
}

void hf_incoming_start_with(struct hf_incoming *in, int *ram_fds, int *state_fds)
{
	for (size_t i = 0; i < in->guest->n_ram; i++)
		in->ram_fds[i] = TAKE_FD(ram_fds[i]);
	for (size_t i = 0; i < in->guest->n_state; i++)
		in->state_fds[i] = TAKE_FD(state_fds[i]);
	respawn(in);
}

void hf_incoming_start(struct hf_incoming *in)
{
	int r;

	in->step = HF_IN_RETRIEVING;
	r = hf_worker_run(in->agent->event, retrieve, on_retrieved, in);
	if (r < 0)
		hold_errno(in, r, "can't start a thread");
}

int hf_incoming_new(struct hf_agent *agent, struct hf_manifest_guest *guest,
	hf_incoming_done_fn done, void *data, struct hf_incoming **ret)
{
	struct hf_incoming *in = calloc(1, sizeof(*in));
	int r;

	if (!in)
		return -ENOMEM;
	*in = (struct hf_incoming){.agent = agent, .guest = guest, .done = done, .data = data};
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
	hf_vmm_free(in->vmm);
	/* A held guest keeps its session to the end of the process. */
	if (in->session)
		hf_session_detach(in->session);
	else
		close_fds(in);
	free(in->status);
	free(in);
}

enum hf_incoming_step hf_incoming_get_step(const struct hf_incoming *in)
{
	return in->step;
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
