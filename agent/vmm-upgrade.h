/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Replacing a guest's QEMU by the one that is installed now, with its RAM in place.
 *
 * The new QEMU starts on the guest's RAM files while the guest runs in the old one:
 *
 *   attach -> check -> start the new one beside the old -> pause -> save and load -> let it run
 *          -> end the old one
 *
 * Only from the pause to "let it run" the guest stands still, and nothing in between depends on its
 * RAM's size, nor, without taps, on how long a QEMU takes to start. Up to there everything can be
 * undone, and is if anything fails, the caller cancels, or this process dies: the new QEMU is ended
 * first, and then the guest goes on in the old one, which was paused all the time. From there on
 * the old one must never run again, as it shares the RAM; it is ended, by this agent or the next.
 * Which of the two is the guest is said by a note: vmm-upgrade-note.h.
 *
 * A guest with taps is paused before the new one starts, which is handed the old one's (taps.h):
 *
 *   attach -> check -> pause and save -> start the new one, load -> let it run -> end the old one
 *
 * It stands still as long as a QEMU takes to start, then. What else a host has once (TCP ports, …)
 * two QEMUs can't both have: such guests are refused, see cmdline-beside.h. Everything is on the
 * loop's thread.
 */
#pragma once

#include <sys/types.h>

#include "agent/agent.h"
#include "vmm-glue/registration.h"

struct hf_vmm_upgrade;

enum hf_vmm_upgrade_outcome {
	HF_VMM_UPGRADE_REPLACED,
	HF_VMM_UPGRADE_CURRENT, /* there was nothing to do */
	HF_VMM_UPGRADE_WOULD,	/* a dry run: it would be replaced */
	HF_VMM_UPGRADE_FAILED,	/* refused, undone or worse: see the error */
	HF_VMM_UPGRADE_OUTCOMES_
};

/** struct hf_vmm_upgrade_how - borrowed for the call. */
struct hf_vmm_upgrade_how {
	const char
		*qemu; /* absolute path of the program it is to have from now on; NULL: its own */
	bool force;    /* also when it runs the installed one already */
	bool dry_run;
};

/** struct hf_vmm_upgrade_result - what came of one guest. Borrowed. */
struct hf_vmm_upgrade_result {
	enum hf_vmm_upgrade_outcome outcome;
	const char *uuid, *name;
	pid_t pid;	   /* of the QEMU it runs in, as far as known */
	char from[160];	   /* version of the old QEMU, "" when it isn't known */
	char to[160];	   /* of the new one */
	bool stood_still;  /* the next are meant */
	uint64_t pause_ns; /* the five phases of the blackout */
	uint64_t save_ns;
	uint64_t start_ns; /* of the new QEMU, as far as it was waited for */
	uint64_t load_ns;
	uint64_t resume_ns;
	uint64_t blackout_ns; /* all of them */
};

/** Called once, from the loop, never from within a call. @error: of HF_VMM_UPGRADE_FAILED. */
typedef void (*hf_vmm_upgrade_fn)(void *data, struct hf_vmm_upgrade *u,
	const struct hf_vmm_upgrade_result *result, const struct hf_error *error);

/**
 * hf_vmm_upgrade_start() - Begin with one guest.
 * @reg:  of it; taken, and cleared
 * @done: called in any case when 0 was returned; frees with hf_vmm_upgrade_free()
 *
 * The caller sees to it that nothing else is done with the guest. Return: 0 or -errno.
 */
int hf_vmm_upgrade_start(struct hf_agent *agent, struct hf_registration *reg,
	const struct hf_vmm_upgrade_how *how, hf_vmm_upgrade_fn done, void *data,
	struct hf_vmm_upgrade **ret);

/** hf_vmm_upgrade_cancel() - Undo it, if there is still a way back; the end comes as usual. */
void hf_vmm_upgrade_cancel(struct hf_vmm_upgrade *u, const struct hf_error *cause);

/** hf_vmm_upgrade_free() - After @done only. NULL is fine. */
void hf_vmm_upgrade_free(struct hf_vmm_upgrade *u);

/** hf_vmm_upgrade_step() - Its step's name. */
const char *hf_vmm_upgrade_step(const struct hf_vmm_upgrade *u);

/** hf_vmm_upgrade_uuid() - Whom it is about. */
const char *hf_vmm_upgrade_uuid(const struct hf_vmm_upgrade *u);
