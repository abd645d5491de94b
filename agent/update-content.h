/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What an update on its way out is made of. Only update.c and update-content.c include this.
 *
 * update.c is the course of an update: stages, what is under way, who is answered. This is its
 * content: the guests taken into it, the target, the manifest; made, prepared, written, given up.
 */
#pragma once

#include "agent/outgoing.h"
#include "agent/update.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/libvirt.h"

enum hf_update_stage {
	STAGE_PREPARE,	   /* guests preserve, the host loads the target */
	STAGE_PREPARED,	   /* waiting for commit */
	STAGE_SYNC,	   /* write back what is dirty while guests still run */
	STAGE_SAVE,	   /* blackout: guests pause and save */
	STAGE_SEAL,	   /* image only: what memory is not on disk yet */
	STAGE_SEAL_HOST,   /* image only: the manifest, and all of it is the next agent's */
	STAGE_SETTLE,	   /* write back the rest, remount read-only what can be */
	STAGE_HANDED_OVER, /* all is written, the jump is systemd's */
	STAGE_GATE,	   /* without a jump: libvirt's daemon out of the way */
	STAGE_QUIT,	   /* without a jump: end the old QEMUs */
	STAGE_TAKE_BACK,   /* image only: before any guest runs again */
	STAGE_UNDO_GUESTS, /* guests back to how they ran */
	STAGE_UNDO_HOST,   /* manifest and target given up */
};

struct hf_update {
	struct hf_agent *agent;
	enum hf_update_stage stage;
	bool commit; /* go on when prepared */
	struct hf_way way;
	size_t pending; /* chains and workers under way */
	sd_event_source *advance;
	struct hf_error cause; /* the first failure; set means undo */
	struct hf_error undo;  /* the first failure of the undo */
	struct hf_target target;
	struct hf_manifest *manifest;
	struct hf_registration *regs;
	size_t n_regs;
	struct hf_outgoing **guests;
	size_t n_guests;
	struct hf_session *session; /* the manifest's */
	int manifest_fd;
	uint8_t *manifest_map;
	size_t manifest_capacity;
	bool asked; /* to be undone: by a person, or by stopping the agent */
	bool target_loaded;
	bool hand_over;		   /* the jump is systemd's */
	sd_event_source *patience; /* how long that may take */
	bool keep_loaded;	   /* as in struct hf_update_request */
	bool noted;		   /* the freeze note is on disk */
	bool settled;
	bool handed_over;		 /* the next agent has it all */
	bool gated;			 /* libvirt's daemon is kept away */
	struct hf_libvirt_call *domains; /* the last look for libvirt's */
	sd_event_source *late;		 /* when the host's worker is given up */
	struct hf_error host_error;	 /* of the host's worker */
	struct hf_varlink_call *owner;
	struct hf_varlink_call *aborters[8];
	size_t n_aborters;
};

/** struct hf_update_ops - what update.c wants to hear about. */
struct hf_update_ops {
	sd_event_handler_t advance;
	hf_outgoing_done_fn guest_done;
	hf_outgoing_gone_fn guest_gone;
};

/**
 * hf_update_new() - Take every registered guest and the target into an update. Touches neither.
 *
 * Refuses when a guest can't be preserved: that guest would be lost in the jump.
 */
int hf_update_new(struct hf_agent *agent, const struct hf_update_request *request,
	const struct hf_update_ops *ops, struct hf_update **ret, struct hf_error *error);

/** hf_update_free() - Only when nothing of it is under way and everything is undone. */
void hf_update_free(struct hf_update *u);

/** hf_update_prepare_host() - Load the target, preserve the manifest's memfd. In a worker: @data is
 * the update. */
int hf_update_prepare_host(void *data);

/**
 * hf_update_load() - Load the target again, right before guests are paused. In a worker: @data is
 * the update.
 *
 * While an update is prepared its target is only loaded on request: whoever else jumps into a
 * loaded kernel
 * (`kexec -e`) takes the preserved RAM along, but not the state of guests' devices, and so loses
 * them. With nothing loaded that is refused by the kernel. `systemctl kexec` is refused then, too,
 * by systemctl itself. Return: 0 or -errno, also when it was loaded already.
 */
int hf_update_load(void *data);

/** hf_update_undo_host() - Undo of hf_update_prepare_host(), from wherever it got. In a worker. */
int hf_update_undo_host(void *data);

/** hf_update_collect_readahead() - Note the files the VMMs start from. Nothing may fail for lack of
 * it. */
void hf_update_collect_readahead(struct hf_update *u);

/** hf_update_check_same_guests() - Refuse with the name of a guest that was started since prepare.
 */
int hf_update_check_same_guests(struct hf_update *u, struct hf_error *error);

/**
 * hf_update_is_without_libvirt() - Has an orderly shutdown ended libvirt's daemon?
 * @error: set where a domain runs that is not of this update; nobody can start one any more
 */
bool hf_update_is_without_libvirt(const struct hf_update *u, struct hf_error *error);

/** hf_update_guard() - Keep libvirt from starting any of its domains afresh. Return: 0 or -errno.
 */
int hf_update_guard(struct hf_update *u, struct hf_error *error);

/** hf_update_unguard() - Undo of that. */
void hf_update_unguard(struct hf_update *u);

/** hf_update_write_manifest() - Write it, with the last stamps, into its preserved memfd. */
int hf_update_write_manifest(struct hf_update *u, struct hf_error *error);
