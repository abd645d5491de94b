/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The freeze note: what the next agent needs if this one dies in the blackout before the jump.
 *
 * Guests stand paused then, intact in their QEMUs, and nobody knows which of them ran. So before
 * the first pause their uuids are written to the runtime folder (a tmpfs: the note is gone after
 * the jump, as it should be), and an agent that starts and finds the note lets those run again that
 * ran, and takes the settings of the save back in all of them.
 */
#pragma once

#include <json-c/json.h>

#include "agent/agent.h"
#include "memfd-preserve/manifest.h"

/** hf_freeze_note_write() - Note the guests that run now. @manifest: all that are about to be
 * paused. */
int hf_freeze_note_write(const struct hf_manifest *manifest, struct hf_error *error);

/** hf_freeze_note_remove() - The blackout is over, one way or the other. Return: 0 or -errno. */
int hf_freeze_note_remove(void);

/** hf_freeze_note_exists() - Is there one? In doubt there is. */
bool hf_freeze_note_exists(void);

/**
 * hf_freeze_note_parse() - The contents of a note. Pure.
 * @data: its bytes, no NUL needed
 * @ret:  the note, for hf_freeze_note_has(); owned by the caller
 *
 * Return: 0; -EBADMSG when it makes no sense; -ENOMEM.
 */
int hf_freeze_note_parse(const void *data, size_t size, struct json_object **ret);

/** hf_freeze_note_has() - Is a guest in one of its lists: "guests", which ran, or "paused"? */
bool hf_freeze_note_has(struct json_object *note, const char *list, const char *uuid);

/**
 * hf_freeze_note_recover() - Let guests run again that a dead agent left paused.
 *
 * Asynchronous; the note is removed when every guest in it was dealt with. Without a note nothing
 * happens. Call it at start, when no manifest came over.
 */
void hf_freeze_note_recover(struct hf_agent *agent);
