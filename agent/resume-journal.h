/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Which guests were let run in this kernel, for an agent that comes after a dead one.
 *
 * One file a guest under /run/holdfast/resumed, written before `cont` is sent. From then on the
 * guest may have run, and its device state in the session is of the past: it must not be loaded
 * again. Removed when every guest of the arrival has been dealt with.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

/** hf_resume_journal_write() - Note that a guest is about to run in process @pid. 0 or -errno. */
int hf_resume_journal_write(const char *uuid, pid_t pid, struct hf_error *error);

/**
 * hf_resume_journal_read() - Was a guest let run, and where?
 * @ret_start_ticks: start time of the process, which tells it from a later one of that number
 *
 * Return: 0; -ENOENT when it was not; -EBADMSG when what is there makes no sense; -errno.
 */
int hf_resume_journal_read(const char *uuid, pid_t *ret_pid, uint64_t *ret_start_ticks);

/** hf_resume_journal_remove() - Forget one. */
void hf_resume_journal_remove(const char *uuid);

/** hf_resume_journal_clear() - Forget all: the arrival is over, even if its agent died meanwhile.
 */
void hf_resume_journal_clear(void);
