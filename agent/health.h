/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Is a guest that was resumed well, and is its clock right? The gate at the end of its way in.
 *
 * The guest runs already, and whatever comes out here, it goes on running: what the gate protects
 * is the claim that it came over well. A guest that is not is reported as unhealthy.
 *
 *  1. If its agent (qemu-ga) answered when the update was prepared, it has to answer again.
 *  2. By the same way its wall clock is set, under the policy clock=catch-up.
 *  3. Its health-command has to exit with 0.
 *
 * All of it is bounded in time, and no other guest waits for it. The command runs without a
 * shell, as root, or as the guest's user where its launcher gave it, in a process group of its own
 * that is killed when its time is over.
 */
#pragma once

#include "agent/agent.h"
#include "memfd-preserve/manifest.h"
#include "vmm-glue/vmm.h"

enum hf_health_clock {
	HF_HEALTH_CLOCK_NONE, /* the guest doesn't run, or was started afresh */
	HF_HEALTH_CLOCK_CAUGHT_UP,
	HF_HEALTH_CLOCK_LAGS,
	HF_HEALTH_CLOCK_FROZEN, /* lags, as is its policy */
};

/** hf_health_clock_name() - "caught-up", "lags", "frozen"; NULL for none. */
const char *hf_health_clock_name(enum hf_health_clock clock);

/** struct hf_health_result - what came out. */
struct hf_health_result {
	bool unhealthy;
	char message[512]; /* why */
	enum hf_health_clock clock;
	int64_t lag_ns;		 /* by how much it lags, as far as is known */
	char clock_message[512]; /* why it does */
};

struct hf_health;
typedef void (*hf_health_done_fn)(const struct hf_health_result *result, void *data);

/**
 * hf_health_start() - Put a guest through the gate.
 * @vmm:         its QEMU, resumed; borrowed until the end
 * @guest:       its description; borrowed until the end
 * @blackout_ns: for how long it stood still
 * @done:        called once, from the loop; @result is borrowed for the call
 * @ret:         for hf_health_free(), which is allowed in @done
 *
 * Return: 0, or -errno (then @done isn't called).
 */
int hf_health_start(struct hf_agent *agent, struct hf_vmm *vmm,
	const struct hf_manifest_guest *guest, uint64_t blackout_ns, hf_health_done_fn done,
	void *data, struct hf_health **ret);

/** hf_health_free() - End it; no callback runs afterwards. NULL is fine. Return: NULL. */
struct hf_health *hf_health_free(struct hf_health *h);

/** typedef hf_health_probe_fn - @answers: whether the guest's agent does. */
typedef void (*hf_health_probe_fn)(bool answers, void *data);

/**
 * hf_health_probe() - Before the update: does its agent answer?
 *
 * Takes a second at most. Otherwise as hf_health_start().
 */
int hf_health_probe(struct hf_agent *agent, struct hf_vmm *vmm,
	const struct hf_manifest_guest *guest, hf_health_probe_fn done, void *data,
	struct hf_health **ret);

/**
 * hf_health_split() - A command's words, split at blanks and tabs: there is no quoting.
 * @ret: NULL-terminated, in one allocation: free() it
 *
 * Return: 0, -EINVAL when there is none, -ENOMEM.
 */
int hf_health_split(const char *command, char ***ret);

/* ---- what is remembered of an unhealthy guest, until its process ends or it is well again ---- */

/** struct hf_health_remark - what there is to know to look at it again (recheck.h). */
struct hf_health_remark {
	char message[512];    /* why it is unhealthy */
	bool agent_answered;  /* before the update */
	uint64_t blackout_ns; /* for how long it stood still in it */
};

/** hf_health_note() - Remember it, of the guest in this process. A failure is logged. */
void hf_health_note(const char *uuid, pid_t pid, const struct hf_health_remark *remark);

/** hf_health_forget() - It is well, or another update begins. */
void hf_health_forget(const char *uuid);

/** hf_health_parse_note() - The contents of such a note; pure. Return: as hf_health_noted(). */
int hf_health_parse_note(const void *data, size_t size, pid_t pid, struct hf_health_remark *ret);

/** hf_health_noted() - What was noted of the guest in this process. Return: 0 or -ENOENT. */
int hf_health_noted(const char *uuid, pid_t pid, struct hf_health_remark *ret);
