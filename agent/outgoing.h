/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: One guest on its way out: attach, preserve, save; and back.
 *
 * Each function starts a chain of steps and returns; the chain ends in exactly one call of the
 * callback given to hf_outgoing_new(). One chain at a time per guest.
 *
 *   prepare: attach to QEMU -> look for blockers -> open RAM -> session -> preserve RAM and state
 *            memfd
 *   save:    pause -> device state into the state memfd; or, when QEMU refuses that and the guest's
 *            save-failure says so, see that it stands still, its disks written out (not-saved)
 *   seal:    the rest of its memory into the image (image carrier only)
 *   quit:    end the saved QEMU (where there is no jump)
 *   undo:    roll QEMU back -> discard the session. Works from any point, also after a failure.
 *
 * A guest that is not saved keeps its QEMU like the others, until the jump or their common end: up
 * to there everything can be undone, and then it runs on with all it had. So its QEMU is not told
 * to quit at once, which would give its memory up for an update that may yet be rolled back.
 */
#pragma once

#include "agent/agent.h"
#include "vmm-glue/registration.h"
#include "vmm-glue/vmm.h"

#define HF_TOKEN_RAM 0x100   /* + index of the RAM block */
#define HF_TOKEN_STATE 0x200 /* + index of the chunk of device state */

enum hf_outgoing_step {
	HF_OUT_IDLE,
	HF_OUT_ATTACHING,
	HF_OUT_PRESERVING,
	HF_OUT_PREPARED,
	HF_OUT_SAVING,
	HF_OUT_SAVED,
	HF_OUT_NOT_SAVED, /* it can't be, and is to be started afresh: its policy */
	HF_OUT_SEALING,
	HF_OUT_QUITTING,
	HF_OUT_QUIT,
	HF_OUT_UNDOING,
	HF_OUT_FAILED,
	HF_OUT_N_,
};

struct hf_outgoing;

/** Called when a chain ended. @error NULL: it went well. */
typedef void (*hf_outgoing_done_fn)(
	struct hf_outgoing *out, const struct hf_error *error, void *data);

/** Called when QEMU went away while no chain was under way. */
typedef void (*hf_outgoing_gone_fn)(
	struct hf_outgoing *out, const struct hf_error *error, void *data);

/**
 * hf_outgoing_new() - Take a guest into an update.
 * @carrier: that gets its memory across
 * @reg:   its registration, borrowed until hf_outgoing_free()
 * @guest: its description in the manifest, borrowed likewise
 */
int hf_outgoing_new(struct hf_agent *agent, struct hf_carrier *carrier,
	const struct hf_registration *reg, struct hf_manifest_guest *guest,
	hf_outgoing_done_fn done, hf_outgoing_gone_fn gone, void *data, struct hf_outgoing **ret);

/** hf_outgoing_is_gone() - Has its QEMU ended? */
bool hf_outgoing_is_gone(const struct hf_outgoing *out);

/** hf_outgoing_free() - Only when no chain is under way and the session is discarded or jumps. */
void hf_outgoing_free(struct hf_outgoing *out);

/**
 * hf_outgoing_prepare() - Start a chain; these five are the ones above, in their order.
 *
 * The callback may come before they return, when a chain can't even begin. A failure leaves the
 * guest as far as it got: undo it. An undo that fails has discarded the session all the same. A
 * quit that failed may be begun again.
 */
void hf_outgoing_prepare(struct hf_outgoing *out);
void hf_outgoing_save(struct hf_outgoing *out);
void hf_outgoing_seal(struct hf_outgoing *out);
void hf_outgoing_quit(struct hf_outgoing *out);
void hf_outgoing_undo(struct hf_outgoing *out);

/** hf_outgoing_leave_libvirt() - See hf_vmm_leave_libvirt(). Between chains. */
void hf_outgoing_leave_libvirt(struct hf_outgoing *out);

/** hf_outgoing_get_step() - Where it is. */
enum hf_outgoing_step hf_outgoing_get_step(const struct hf_outgoing *out);

/** hf_outgoing_step_name() - A step's name on the Varlink interface. */
const char *hf_outgoing_step_name(enum hf_outgoing_step step);

/** hf_outgoing_guest() - Its description in the manifest. Borrowed. */
const struct hf_manifest_guest *hf_outgoing_guest(const struct hf_outgoing *out);

/** hf_outgoing_pid() - Its QEMU; 0 when there is none (yet, or any more). */
pid_t hf_outgoing_pid(const struct hf_outgoing *out);

/** hf_outgoing_roms() - As hf_vmm_get_roms(), once it is prepared. */
char *const *hf_outgoing_roms(const struct hf_outgoing *out);
