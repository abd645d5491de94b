/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What an adoption has somebody else keep: the guest's files, before its old QEMU ends.
 *
 * They go to a keeper of their own (keeper.h), at a socket of their own, whatever the agent's
 * carrier is: first RAM and device state, last a manifest of that one guest. An agent that finds
 * the manifest there finds all of the guest. Which of the two copies *is* the guest, the one there
 * or the one in the old QEMU, is said by the freeze note (freeze-note.h), and by nothing else:
 *
 *   there is one   the old QEMU: whatever the keeper has is dropped, and the guest runs on
 *   there is none  the keeper's: what is left of the old QEMU is ended, and a new one started
 *
 * So the removal of the note is the point of no return, and until then the copy is dropped *before*
 * the guest is let run again.
 *
 * agent->kept is the carrier with that keeper, from the beginning of an adoption to the end of its
 * arrival, and NULL otherwise. Everything is on the loop's thread, and blocks only for the keeper.
 */
#pragma once

#include "agent/agent.h"
#include "memfd-preserve/manifest.h"

/**
 * hf_adopt_keep_find() - At start: is there a keeper of an agent that died?
 *
 * Then agent->kept is set. Return: 0, whether there is one or not; -errno when that can't be told.
 * Then the agent must not go on: it would let a guest run that the keeper has as well.
 */
int hf_adopt_keep_find(struct hf_agent *agent, struct hf_error *error);

/**
 * hf_adopt_keep_start() - Have a keeper for an adoption that begins. It is empty.
 *
 * Return: 0 and agent->kept is set; -EBUSY when one keeps a guest already; other -errno.
 */
int hf_adopt_keep_start(struct hf_agent *agent, struct hf_error *error);

/**
 * hf_adopt_keep_guest() - Give it the guest.
 * @manifest:  of that one guest; gets what only now is known
 * @ram_fds:   one per guest->ram[], the caller's
 * @state_fds: one per guest->state[], the caller's
 *
 * Return: 0; -errno, and the keeper has nothing.
 */
int hf_adopt_keep_guest(struct hf_agent *agent, struct hf_manifest *manifest, const int *ram_fds,
	const int *state_fds, struct hf_error *error);

/** hf_adopt_keep_drop() - Drop what the keeper has: the guest is elsewhere. IRREVERSIBLE. */
void hf_adopt_keep_drop(struct hf_agent *agent);

/** hf_adopt_keep_end() - The same, and the keeper ends. Without one, nothing happens. */
void hf_adopt_keep_end(struct hf_agent *agent);
