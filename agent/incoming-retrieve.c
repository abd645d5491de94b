/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What there is of a guest that comes in: its files, and what an agent before this one did
 * with it.
 */
#include "agent/incoming-internal.h"

#include <string.h>

#include "agent/resume-journal.h"
#include "common/fault.h"
#include "common/fd.h"
#include "vmm-glue/guest-disks.h"
#include "vmm-glue/ram-users.h"
#include "vmm-glue/registration.h"

#define END_TIMEOUT_NS (10 * HF_NSEC_PER_SEC)

bool hf_incoming_is_image(const struct hf_incoming *in)
{
	return hf_carrier_kind(in->carrier) == HF_CARRIER_IMAGE;
}

static int retrieve_fd(struct hf_incoming *in, uint64_t token, const char *what, uint64_t size,
	int *ret_fd, struct hf_error *error)
{
	struct hf_inode inode;
	uint64_t have = 0;
	int r;

	r = hf_session_retrieve(in->session, token, ret_fd, error);
	if (r == 0)
		r = hf_fd_inode(*ret_fd, &inode, &have);
	if (r == 0 && have < size)
		r = hf_error_set(error, -EBADMSG, HF_ERR_DEGRADED, NULL,
			"it came back with %llu bytes, the manifest says %llu",
			(unsigned long long)have, (unsigned long long)size);
	if (r < 0)
		hf_error_prefix(error, "%s", what);
	return r;
}

int hf_incoming_retrieve_files(struct hf_incoming *in, struct hf_error *error)
{
	struct hf_manifest_guest *g = in->guest;
	int r = hf_fault(HF_FAULT_RETRIEVE_FILES, error);

	/* What an attempt before this one got stays open. */
	for (size_t i = 0; r == 0 && i < g->n_ram; i++)
		if (in->ram_fds[i] < 0)
			r = retrieve_fd(in, g->ram[i].token, g->ram[i].id, g->ram[i].size,
				&in->ram_fds[i], error);
	for (size_t i = 0; r == 0 && i < g->n_state; i++)
		if (in->state_fds[i] < 0)
			r = retrieve_fd(in, g->state[i].token, "device state", g->state[i].length,
				&in->state_fds[i], error);
	return r;
}

/* What the agent that died noted of the guest. */
int hf_incoming_read_journal(struct hf_incoming *in, struct hf_error *error)
{
	const char *uuid = in->guest->uuid;
	int r;

	if (!in->agent->again || in->looked)
		return 0;
	r = hf_resume_journal_read(uuid, &in->ran_in, &in->ran_in_start, &in->afresh);

	in->released = hf_resume_journal_released(uuid);
	if (r < 0 && r != -ENOENT)
		return hf_error_set(error, r, HF_ERR_DEGRADED,
			"see whether a QEMU of it runs; if none does, remove its file under "
			"`resumed` in holdfastd's runtime folder and retry it",
			"whether it ran on this kernel already can't be read: %s", strerror(-r));
	in->looked = true;
	if (r == -ENOENT)
		return 0;
	hf_resume_journal_get_vmm(uuid, &in->ran_vmm);
	return 0;
}

/* Was the guest let run before? What it was saved with is then of the past. */
static int look_back(struct hf_incoming *in)
{
	int r = hf_incoming_read_journal(in, &in->error);

	if (r < 0 || in->over || in->released || !in->ran_in)
		return r;
	if (!hf_incoming_process_lives(in))
		return hf_error_set(&in->error, -ESRCH, HF_ERR_DEGRADED,
			"dump its memory if you want to look into it, then release it",
			"it ran on this kernel already, as process %d, which has ended since: it "
			"is not put back to what it was before",
			(int)in->ran_in);
	return 0;
}

/*
 * A QEMU of an agent that died: it never ran the guest, and two must not have its RAM. And the one
 * that the guest was adopted from, where an agent died before that had ended: it has other RAM, but
 * the same disks and ports.
 */
int hf_incoming_end_others(struct hf_incoming *in, struct hf_error *error)
{
	struct hf_inode files[HF_MANIFEST_MAX_RAM];
	size_t n = 0;
	int r = hf_fault(HF_FAULT_END_OTHERS, error);

	if (r == 0 && in->guest->adopted_pid)
		r = hf_ram_users_end_former((pid_t)in->guest->adopted_pid,
			in->guest->adopted_start_ticks, END_TIMEOUT_NS, error);
	r = r > 0 ? 0 : r;
	for (size_t i = 0; r == 0 && i < in->guest->n_ram; i++) {
		if (in->ram_fds[i] < 0)
			continue;
		r = hf_fd_inode(in->ram_fds[i], &files[n++], NULL);
		if (r < 0)
			hf_error_set(error, r, HF_ERR_DEGRADED, NULL, "its RAM: %s", strerror(-r));
	}
	if (r < 0)
		return r;
	return hf_ram_users_end(
		files, n, hf_carrier_keeper(in->carrier), END_TIMEOUT_NS, &in->n_ended, error);
}

/*
 * Started afresh on this kernel, before it was looked for: it has the disks, and other memory. Only
 * this agent, and those before it, bring it up from what was saved.
 */
static int check_not_started(struct hf_incoming *in, struct hf_error *error)
{
	cleanup_registration struct hf_registration reg = {0};
	struct hf_error e = {0};
	char path[256];

	if (hf_registration_path(in->guest->uuid, path, sizeof(path)) < 0 ||
		hf_registration_read(path, &reg, &e) < 0 || !hf_registration_alive(&reg))
		return 0;
	return hf_error_set(error, -EEXIST, HF_ERR_DEGRADED,
		"release this memory, which is of the past; or end that process, if nothing of "
		"its disks has changed, and retry it",
		"it was started afresh meanwhile, as process %d", (int)reg.pid);
}

int hf_incoming_open_session(struct hf_incoming *in, struct hf_error *error)
{
	if (in->session)
		return 0;
	return hf_carrier_session_retrieve(in->carrier, in->guest->session, &in->session, error);
}

int hf_incoming_retrieve(void *data)
{
	struct hf_incoming *in = data;
	bool again = in->agent->again || in->retried;
	uint64_t begin = hf_agent_now_ns();
	int r = hf_fault(HF_FAULT_RETRIEVE_SESSION, &in->error);

	if (r == 0)
		r = hf_incoming_open_session(in, &in->error);
	in->over = r == -EALREADY && (in->agent->again || hf_incoming_is_image(in));
	if ((again && r == 0) || in->over) {
		r = look_back(in);
		if (r == 0 && in->over && !in->ran_in && !in->released && !hf_incoming_is_image(in))
			return in->error.err;
		if (r == 0)
			hf_error_clear(&in->error);
		if (r == 0 && (in->over || in->released))
			return 0;
	}
	if (r == 0)
		r = hf_incoming_retrieve_files(in, &in->error);
	if (r == 0 && (again || hf_incoming_is_image(in)) && !in->ran_in)
		r = hf_incoming_end_others(in, &in->error);
	if (r == 0 && !in->ran_in)
		r = check_not_started(in, &in->error);
	if (r == 0 && !in->ran_in && !in->ignore_disks)
		r = hf_guest_disks_check(in->guest, &in->error);
	in->retrieve_ns = hf_agent_now_ns() - begin;
	return r;
}
