/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A note that an update is prepared, for what comes at the end of a shutdown.
 *
 * A shutdown may itself be what undoes an update: it stops a guest, say. The kexec at its end must
 * not be made then, for it would end the other guests. So the note stays when an update is undone,
 * or lost with the agent, without anybody having asked for that; `holdfast shutdown kexec` looks
 * for it.
 */
#pragma once

#include "common/error.h"

#define HF_PREPARED_NOTE "prepared" /* in the runtime folder */

/** hf_prepared_note_write() - An update is prepared. Return: 0 or -errno, @error filled. */
int hf_prepared_note_write(const char *update_id, struct hf_error *error);

/** hf_prepared_note_remove() - It was undone on request. */
void hf_prepared_note_remove(void);
