/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Adopting a guest: its RAM is moved to memfds that can be preserved, while it runs.
 *
 * For guests whose QEMU has the RAM where no carrier can take it: private memory, files, hugetlb
 * pages. Two QEMUs for one guest would fight over its ports, taps, disks and pid file, so there is
 * never a second one: the agent itself is the far end of an ordinary pre-copy migration
 * (ram-receive.h). When QEMU has sent the last page and the devices, a keeper gets all of it
 * (adopt-keep.h), QEMU is ended, and a new one starts on the memfds, as an arriving guest's does
 * (arrival.h):
 *
 *   attach -> check -> copy, the guest runs -> its last round, it stands still -> hand over
 *          -> end the old QEMU -> start the new one -> load -> let it run
 *
 * Up to the end of the old QEMU everything can be undone, and is undone if anything fails, the
 * caller cancels, or this process dies: then QEMU's migration fails and the guest runs on; if it
 * stood still already, the next agent finds the freeze note. Behind that point there is no way
 * back, only forward: from the keeper, and if this process dies, by the next agent. The host is
 * `resuming`, and a guest that can't be started is *held*.
 *
 * One at a time, and not while an update is under way. Everything is on the loop's thread.
 */
#pragma once

#include <sys/types.h>

#include "agent/agent.h"
#include "vmm-glue/vmm.h"

#define HF_ADOPT_DOWNTIME_MS 300
#define HF_ADOPT_TIMEOUT_NS (600 * 1000000000ULL)

struct hf_adopt;

/** struct hf_adopt_request - whom; borrowed for the call. */
struct hf_adopt_request {
	const char *guest;    /* name or uuid of a registered guest, or NULL and @pid */
	pid_t pid;	      /* of a QEMU that holdfast doesn't know, or 0 */
	const char *qmp_path; /* its monitor, that nobody uses; NULL: the guest's private one */
	const char *name;     /* for one by @pid; NULL: as on its command line */
	bool paused;	      /* pause it for the whole copy: a must where CPUs are emulated */
	uint64_t downtime_ms; /* 0: HF_ADOPT_DOWNTIME_MS */
	uint64_t timeout_ns;  /* for the copy; 0: HF_ADOPT_TIMEOUT_NS */
};

/** struct hf_adopt_result - what came of it; borrowed. */
struct hf_adopt_result {
	const char *uuid;
	const char *name;
	pid_t pid;	      /* of the new QEMU; 0 when it failed */
	uint64_t blackout_ns; /* for which it stood still; 0 when it was paused anyway */
	struct hf_vmm_progress copy;
};

/** struct hf_adopt_ops - who is told. */
struct hf_adopt_ops {
	/* Now and then during the copy. May be NULL. */
	void (*progress)(void *data, const struct hf_vmm_progress *progress);
	/* At the end, once, never from within a call. @error NULL: it is adopted. */
	void (*done)(
		void *data, const struct hf_adopt_result *result, const struct hf_error *error);
};

/**
 * hf_adopt_start() - Begin.
 * @ops:  borrowed until done
 * @data: for @ops
 *
 * Return: 0 when ops->done will be called; else -errno, nothing begun and @error says why:
 * -EALREADY there is nothing to do for this guest.
 */
int hf_adopt_start(struct hf_agent *agent, const struct hf_adopt_request *request,
	const struct hf_adopt_ops *ops, void *data, struct hf_error *error);

/**
 * hf_adopt_cancel() - Undo it, if there is still a way back; the end comes as usual.
 * @cause: what ops->done is to be told
 */
void hf_adopt_cancel(struct hf_adopt *a, const struct hf_error *cause);

/** hf_adopt_guest_step() - Where a guest is: its step's name; NULL when it isn't this one. */
const char *hf_adopt_guest_step(const struct hf_adopt *a, const char *uuid);
