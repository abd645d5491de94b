/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What update.c, the course of an update, and update-leave.c, its last steps, have of each
 * other.
 */
#pragma once

#include "agent/update-content.h"

/* ---- update.c ---- */

/** hf_update_failed() - Something under way did not work: all is undone when the rest has ended. */
void hf_update_failed(struct hf_update *u, const struct hf_error *error);

/** hf_update_one_done() - One of what is counted in @pending has ended. */
void hf_update_one_done(struct hf_update *u);

/** hf_update_all_guests() - Start a chain of every guest; counted. */
void hf_update_all_guests(struct hf_update *u, void (*start)(struct hf_outgoing *out));

/** hf_update_in_worker() - Run something that may block; counted. @data of both is the update. */
void hf_update_in_worker(
	struct hf_update *u, int (*run)(void *data), void (*done)(void *data, int result));

/** hf_update_on_host_done() - For that: what went wrong is in @host_error. */
void hf_update_on_host_done(void *data, int result);

/** hf_update_disks_in_worker() - The same for disks, which may hang: undone when it takes longer.
 */
void hf_update_disks_in_worker(struct hf_update *u, int (*run)(void *data), uint64_t timeout_ns);

/** hf_update_drop_owner() - Who asked for the update was answered. */
void hf_update_drop_owner(struct hf_update *u);

/* ---- update-leave.c ---- */

/** hf_update_seal_host() - Images of all guests are complete: the manifest's, and hand them over.
 */
void hf_update_seal_host(struct hf_update *u);

/** hf_update_leave() - All guests are saved: settle disks, or have libvirt's daemon stopped. */
void hf_update_leave(struct hf_update *u);

/** hf_update_jump() - The last thing this kernel does. Returns only where there was no jump. */
void hf_update_jump(struct hf_update *u);

/** hf_update_hand_over() - Everything but the jump is done, which is the service manager's. */
void hf_update_hand_over(struct hf_update *u);

/** hf_update_quit() - End the old QEMUs: without a jump. */
void hf_update_quit(struct hf_update *u);

/** hf_update_jump_execve() - All have ended: become the next agent. */
void hf_update_jump_execve(struct hf_update *u);
