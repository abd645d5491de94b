/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What an operator decides for a held guest: once more, given up, dumped.
 */
#include <stdio.h>
#include <string.h>

#include "agent/incoming-internal.h"
#include "agent/libvirt-gate.h"
#include "agent/resume-journal.h"
#include "common/fd.h"
#include "common/worker.h"

static int no_thread(int r, struct hf_error *error)
{
	return hf_error_set(
		error, r, HF_ERR_FAILED, "try again", "can't start a thread: %s", strerror(-r));
}

int hf_incoming_may_act(const struct hf_incoming *in, struct hf_error *error)
{
	hf_error_clear(error);
	if (in->dumping)
		hf_error_set(error, -EBUSY, HF_ERR_BUSY, "try again when that is over",
			"its memory is being written to a file");
	else if (in->step == HF_IN_RESUMED)
		hf_error_set(error, -EPERM, HF_ERR_STATE, NULL, "it is not held: it was resumed");
	else if (in->step == HF_IN_RELEASED)
		hf_error_set(error, -EPERM, HF_ERR_STATE, NULL, "it was released: it is gone");
	else if (in->step != HF_IN_HELD)
		hf_error_set(error, -EBUSY, HF_ERR_BUSY, "see `holdfast status`, and try again",
			"it is under way (%s)", hf_incoming_step_name(in->step));
	return error->err;
}

static int take_other_vmm(struct hf_incoming *in, const char *vmm, struct hf_error *error)
{
	char *copy;
	int r;

	if (in->ran_in)
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, "retry it without --qemu",
			"it ran on this kernel already, as process %d: another QEMU can't have it",
			(int)in->ran_in);
	/* Before it can run there: an agent after this one has to know. */
	r = hf_resume_journal_set_vmm(in->guest->uuid, vmm, error);
	if (r < 0)
		return r;
	copy = strdup(vmm);
	if (!copy)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	in->own_vmm = in->guest->vmm;
	in->guest->vmm = copy;
	return 0;
}

/* A new hand on the guest: what the attempt before left in the old one must not count. */
static int renew_vmm(struct hf_incoming *in, struct hf_error *error)
{
	struct hf_vmm *vmm = NULL;
	int r = hf_vmm_new(in->agent->event, in->guest, in->agent->ring, NULL, NULL, &vmm);

	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "out of memory");
	/* Its QEMU, if there is one, lives on: it is taken over, or ended by its RAM's files. */
	hf_vmm_free(in->vmm);
	in->vmm = vmm;
	return 0;
}

void hf_incoming_own_vmm_again(struct hf_incoming *in)
{
	free(in->guest->vmm);
	in->guest->vmm = TAKE_PTR(in->own_vmm);
	hf_resume_journal_set_vmm(in->guest->uuid, NULL, NULL);
}

int hf_incoming_retry(
	struct hf_incoming *in, const struct hf_retry_how *how, struct hf_error *error)
{
	struct hf_error held_for = in->error;
	int r = hf_incoming_may_act(in, error);

	if (r == 0 && !in->runs)
		r = renew_vmm(in, error);
	if (r == 0 && how->vmm && !in->runs)
		r = take_other_vmm(in, how->vmm, error);
	if (r < 0)
		return r;
	in->retried = true;
	in->ignore_disks = how->ignore_disks;
	in->n_ended = 0;
	hf_error_clear(&in->error);
	r = hf_incoming_again(in);
	if (r < 0) {
		in->step = HF_IN_HELD;
		if (in->own_vmm)
			hf_incoming_own_vmm_again(in);
		in->error = held_for;
		return no_thread(r, error);
	}
	return 0;
}

bool hf_incoming_process_lives(const struct hf_incoming *in)
{
	uint64_t ticks = 0;

	return in->ran_in && hf_pid_start_time(in->ran_in, &ticks) == 0 &&
	       ticks == in->ran_in_start;
}

static int refuse_living(const struct hf_incoming *in, struct hf_error *error)
{
	return hf_error_set(error, -EBUSY, HF_ERR_STATE,
		"retry it, which takes that process over; or end the process first",
		"it was let run as process %d, which is still there", (int)in->ran_in);
}

int hf_incoming_may_release(const struct hf_incoming *in, struct hf_error *error)
{
	int r = hf_incoming_may_act(in, error);

	if (r == 0 && in->runs)
		r = hf_error_set(error, -EPERM, HF_ERR_STATE, "retry it",
			"it runs: only its session could not be finished");
	if (r == 0 && hf_incoming_process_lives(in))
		r = refuse_living(in, error);
	return r;
}

/* In a worker: it waits for processes, and giving memory back takes time. */
static int release(void *data)
{
	struct hf_incoming *in = data;
	struct hf_error e = {0};
	int r;

	hf_error_clear(&in->release_error);
	r = hf_incoming_open_session(in, &e);
	/* Nothing came over, or it was finished before: there is nothing to give up. */
	if (r == -ENOENT || r == -EALREADY)
		r = 0;
	if (r == 0)
		r = hf_incoming_read_journal(in, &e);
	if (r == 0 && hf_incoming_process_lives(in))
		r = refuse_living(in, &e);
	if (r == 0 && !in->ran_in)
		r = hf_incoming_end_others(in, &e);
	/* The next agent, if it comes to that, goes on with it. */
	if (r == 0)
		r = hf_resume_journal_release(in->guest->uuid, &e);
	if (r == 0 && in->session) {
		r = hf_session_finish(in->session, &e);
		if (r == 0)
			in->session = NULL;
		else
			hf_resume_journal_unrelease(in->guest->uuid);
	}
	if (r == 0)
		hf_incoming_close_fds(in);
	else
		in->release_error = e;
	return r;
}

static void on_released(void *data, int result)
{
	struct hf_incoming *in = data;

	if (result < 0) {
		/* Why it is held is as it was. */
		in->step = HF_IN_HELD;
		hf_error_prefix(&in->release_error, "can't release it");
		hf_error_guest(&in->release_error, in->guest->name);
		in->done(in, &in->release_error, in->data);
		return;
	}
	hf_vmm_free(in->vmm);
	in->vmm = NULL;
	hf_libvirt_gate_unguard(in->guest);
	in->step = HF_IN_RELEASED;
	in->done(in, NULL, in->data);
}

int hf_incoming_release(struct hf_incoming *in, struct hf_error *error)
{
	int r = hf_incoming_may_release(in, error);

	if (r < 0)
		return r;
	in->step = HF_IN_RELEASING;
	r = hf_worker_run(in->agent->event, release, on_released, in);
	if (r < 0) {
		in->step = HF_IN_HELD;
		return no_thread(r, error);
	}
	return 0;
}

int hf_incoming_begin_dump(struct hf_incoming *in, struct hf_error *error)
{
	int r = hf_incoming_may_act(in, error);

	if (r == 0 && (in->runs || hf_incoming_process_lives(in)))
		r = hf_error_set(error, -EBUSY, HF_ERR_STATE,
			"dump it with dump-guest-memory of its QEMU; or retry it",
			"it was let run as process %d, which has its memory", (int)in->ran_in);
	in->dumping = r == 0;
	return r;
}

void hf_incoming_end_dump(struct hf_incoming *in)
{
	in->dumping = false;
}

int hf_incoming_open_files(struct hf_incoming *in, const int **ret_ram, const int **ret_state,
	bool *ret_ran, struct hf_error *error)
{
	int r = hf_incoming_open_session(in, error);

	if (r == 0)
		r = hf_incoming_read_journal(in, error);
	if (r == 0 && hf_incoming_process_lives(in))
		r = refuse_living(in, error);
	if (r < 0)
		return r;
	r = hf_incoming_retrieve_files(in, error);
	*ret_state = r == 0 ? in->state_fds : NULL;
	/* What debuggers need most is the RAM. */
	for (size_t i = 0; r < 0 && i < in->guest->n_ram; i++)
		if (in->ram_fds[i] < 0)
			return r;
	*ret_ram = in->ram_fds;
	*ret_ran = in->ran_in != 0;
	hf_error_clear(error);
	return 0;
}
