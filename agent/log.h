/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the agent says about itself: the journal where there is one, else standard error.
 *
 * Journal entries carry UPDATE_ID=, PHASE= and GUEST_UUID= where they apply, so that
 * `journalctl UPDATE_ID=…` tells the story of one update.
 */
#pragma once

#include <syslog.h>

#include "common/cleanup.h"

/** hf_log_context() - Fields for all that follows: the update's id (or "") and the host state. */
void hf_log_context(const char *update_id, const char *phase);

/**
 * hf_log() - Log one line.
 * @priority:   LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG
 * @guest_uuid: whom it is about, or NULL
 */
void hf_log(int priority, const char *guest_uuid, const char *fmt, ...) HF_PRINTF(3, 4);

/** hf_log_debug_on() - Log LOG_DEBUG lines too. */
void hf_log_debug_on(void);
