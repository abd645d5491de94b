/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the next agent needs if this one dies while it replaces a guest's QEMU.
 *
 * One file a guest under /run/holdfast/vmm-upgrade. There may be two QEMUs on the guest's RAM then,
 * and **the note's phase says which one is the guest**:
 *
 *   starting  the old one, which was not touched: whatever else has the RAM is ended
 *   pausing   the old one, which may stand paused or saved: likewise, its taps are set as they
 *             were, and it is let run again
 *   running   the new one, which may have run: the old one is ended, and must never run again
 *
 * The change to `running` is the point of no return. It is written before the new one is told to
 * let the guest run, and has everything that is needed to take that one over.
 */
#pragma once

#include "vmm-glue/registration.h"
#include "vmm-glue/taps.h"

enum hf_vmm_upgrade_phase {
	HF_VMM_UPGRADE_STARTING,
	HF_VMM_UPGRADE_PAUSING,
	HF_VMM_UPGRADE_RUNNING,
	HF_VMM_UPGRADE_PHASES_
};

/** struct hf_vmm_upgrade_note - its contents. Zero-initialise. */
struct hf_vmm_upgrade_note {
	enum hf_vmm_upgrade_phase phase;
	bool was_running;
	char uuid[HF_UUID_CHARS];
	pid_t old_pid;
	uint64_t old_start_ticks;
	struct hf_inode ram[HF_MANIFEST_MAX_RAM];
	size_t n_ram;
	struct hf_taps taps; /* what was set of them; no descriptors */
	/* The guest in its new QEMU, from `pausing` on; in the other phase only its name, its RAM
	 * and what it was started with mean something. */
	struct hf_registration reg;
};

/**
 * hf_vmm_upgrade_note_format() - The text of a note.
 * @ret: owned by the caller
 */
int hf_vmm_upgrade_note_format(
	const struct hf_vmm_upgrade_note *note, char **ret, struct hf_error *error);

/** hf_vmm_upgrade_note_write() - Put a text in the place of a guest's note. 0 or -errno. */
int hf_vmm_upgrade_note_write(const char *uuid, const char *text, struct hf_error *error);

/**
 * hf_vmm_upgrade_note_parse() - The contents of one. Pure.
 * @data: its bytes, no NUL needed
 * @ret:  hf_vmm_upgrade_note_clear() it, on success only
 *
 * Return: 0; -EBADMSG when they make no sense; -ENOMEM.
 */
int hf_vmm_upgrade_note_parse(const void *data, size_t size, struct hf_vmm_upgrade_note *ret);
void hf_vmm_upgrade_note_clear(struct hf_vmm_upgrade_note *note);

/** hf_vmm_upgrade_note_remove() - It is known which of the two there is. Return: 0 or -errno. */
int hf_vmm_upgrade_note_remove(const char *uuid);

/**
 * hf_vmm_upgrade_note_list() - The guests that there are notes of.
 * @ret: free() it
 *
 * Return: how many, or -errno.
 */
int hf_vmm_upgrade_note_list(char (**ret)[HF_UUID_CHARS]);

/** hf_vmm_upgrade_note_read() - Read one. Return: 0; -EBADMSG; -errno. */
int hf_vmm_upgrade_note_read(const char *uuid, struct hf_vmm_upgrade_note *ret);

struct hf_agent;

/**
 * hf_vmm_upgrade_recover() - See to the guests of an agent that died.
 *
 * Asynchronous; a note goes when its guest was dealt with. What can't be is logged, and tried again
 * by the next agent. Call it at start, when no manifest came over.
 */
void hf_vmm_upgrade_recover(struct hf_agent *agent);
