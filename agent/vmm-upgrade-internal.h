/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What vmm-upgrade.c, which looks and starts, and vmm-upgrade-blackout.c, which has the pause,
 * what comes after it and every way back, share.
 */
#pragma once

#include "agent/vmm-upgrade-note.h"
#include "agent/vmm-upgrade.h"
#include "vmm-glue/cmdline-beside.h"
#include "vmm-glue/taps.h"
#include "vmm-glue/vmm.h"

enum hf_vmm_upgrade_step {
	HF_VMM_UPGRADE_STEP_CHECKING,
	HF_VMM_UPGRADE_STEP_STARTING,
	HF_VMM_UPGRADE_STEP_MOVING,
	HF_VMM_UPGRADE_STEP_RESUMING,
	HF_VMM_UPGRADE_STEP_QUITTING,
	HF_VMM_UPGRADE_STEP_UNDOING,
	HF_VMM_UPGRADE_STEP_N_
};

struct hf_vmm_upgrade {
	struct hf_agent *agent;
	hf_vmm_upgrade_fn done;
	void *data;
	bool force, dry_run;
	enum hf_vmm_upgrade_step step;
	struct hf_registration reg; /* its guest is the one both QEMUs are described by */
	char *old_reg;		    /* as it was registered, for when that has to be put back */
	bool unregistered;
	char *new_qmp_path;
	struct hf_beside_paths beside;
	struct hf_vmm *old, *new;
	bool old_gone; /* it ended by itself */
	bool noted;
	bool aside;	    /* the sockets are */
	bool new_begun;	    /* the new QEMU was begun to be started */
	bool taps_read;	    /* what is set of them, for a way back */
	bool saved, loaded; /* the guest, in the old one and in the new one */
	/* Texts of notes, as there is no time to make them when they are needed. */
	char *note_pausing, *note_running;
	bool noted_running; /* whether the guest ran, as they say */
	bool no_return;	    /* the second one may be written */
	int ram_fds[HF_MANIFEST_MAX_RAM];
	struct hf_taps taps;
	struct hf_error cause;	/* of the undo */
	struct hf_error damage; /* behind the point of no return */
	sd_event_source *begin;
	struct hf_vmm_upgrade_result result;
};

/** hf_vmm_upgrade_name() - The guest's, for people. */
static inline const char *hf_vmm_upgrade_name(const struct hf_vmm_upgrade *u)
{
	return u->reg.guest.name;
}

/** hf_vmm_upgrade_end() - The last of one guest: @u belongs to its owner again, who may free it. */
void hf_vmm_upgrade_end(struct hf_vmm_upgrade *u, enum hf_vmm_upgrade_outcome outcome,
	const struct hf_error *error);

/**
 * hf_vmm_upgrade_write_note() - Note a phase.
 * @ret_text: gets the text of the note, in place of its being written; may be NULL
 */
int hf_vmm_upgrade_write_note(struct hf_vmm_upgrade *u, enum hf_vmm_upgrade_phase phase,
	char **ret_text, struct hf_error *error);

/** hf_vmm_upgrade_undo() - Go back, from wherever. Nothing is under way with the new QEMU, if there
 * is one. */
void hf_vmm_upgrade_undo(struct hf_vmm_upgrade *u, const struct hf_error *cause);
void hf_vmm_upgrade_undo_errno(struct hf_vmm_upgrade *u, int err, const char *what);

/**
 * hf_vmm_upgrade_start_new() - Start the new QEMU, with what it takes over from the old one.
 *
 * Return: 0; -errno when that is being undone.
 */
int hf_vmm_upgrade_start_new(struct hf_vmm_upgrade *u);

/** hf_vmm_upgrade_pause_first() - Pause the guest, then start the new QEMU and move it there. */
void hf_vmm_upgrade_pause_first(struct hf_vmm_upgrade *u);

/**
 * hf_vmm_upgrade_broke_off() - At the end of an operation: is that the last?
 * @error: of the operation, or NULL
 *
 * Return: true when it is being undone, now or already.
 */
bool hf_vmm_upgrade_broke_off(struct hf_vmm_upgrade *u, const struct hf_error *error);

/* Callbacks of the two QEMUs. */
void hf_vmm_upgrade_old_gone(struct hf_vmm *vmm, const struct hf_error *error, void *data);
void hf_vmm_upgrade_new_gone(struct hf_vmm *vmm, const struct hf_error *error, void *data);
void hf_vmm_upgrade_on_started(struct hf_vmm *vmm, const struct hf_error *error, void *data);
