/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Which guests were let run in this kernel, for an agent that comes after a dead one.
 *
 * One file a guest under /run/holdfast/resumed, written before `cont` is sent. From then on the
 * guest may have run, and its device state in the session is of the past: it must not be loaded
 * again. A guest that is started afresh is in it from the birth of its QEMU: it has other memory,
 * by which it could be found, but the same disks. Removed when every guest of the arrival has been
 * dealt with.
 *
 * Beside it lie what an operator decided for a held guest: that its memory is given up, written
 * before it is, and the QEMU that it is tried with in place of its own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

/**
 * hf_resume_journal_write() - Note that a guest is about to run in process @pid.
 * @afresh: by a cold boot, and not with the memory it had
 *
 * Return: 0 or -errno.
 */
int hf_resume_journal_write(const char *uuid, pid_t pid, bool afresh, struct hf_error *error);

/**
 * hf_resume_journal_read() - Was a guest let run, and where?
 * @ret_start_ticks: start time of the process, which tells it from a later one of that number
 * @ret_afresh:      as it was written; false in what older agents wrote
 *
 * Return: 0; -ENOENT when it was not; -EBADMSG when what is there makes no sense; -errno.
 */
int hf_resume_journal_read(
	const char *uuid, pid_t *ret_pid, uint64_t *ret_start_ticks, bool *ret_afresh);

/**
 * hf_resume_journal_parse() - The contents of such a note. Pure.
 * @data: its bytes, no NUL needed
 *
 * Return: 0; -EBADMSG when they make no sense, with nothing set; -ENOMEM.
 */
int hf_resume_journal_parse(
	const void *data, size_t size, pid_t *ret_pid, uint64_t *ret_start_ticks, bool *ret_afresh);

/** hf_resume_journal_release() - Note that a guest is about to be given up. 0 or -errno. */
int hf_resume_journal_release(const char *uuid, struct hf_error *error);

/** hf_resume_journal_unrelease() - It could not be given up after all. */
void hf_resume_journal_unrelease(const char *uuid);

/** hf_resume_journal_released() - Was a guest given up, or about to be? */
bool hf_resume_journal_released(const char *uuid);

/**
 * hf_resume_journal_set_vmm() - Note that a guest is tried with another VMM binary.
 * @vmm: its path; NULL: with its own again
 *
 * Return: 0 or -errno.
 */
int hf_resume_journal_set_vmm(const char *uuid, const char *vmm, struct hf_error *error);

/**
 * hf_resume_journal_get_vmm() - The VMM binary noted for a guest.
 * @ret: its path, owned by the caller
 *
 * Return: 0; -ENOENT when there is none; -EBADMSG when what is there makes no sense; -errno.
 */
int hf_resume_journal_get_vmm(const char *uuid, char **ret);

/** hf_resume_journal_parse_vmm() - The contents of that note, likewise pure. */
int hf_resume_journal_parse_vmm(const void *data, size_t size, char **ret);

/** hf_resume_journal_remove() - Forget one. */
void hf_resume_journal_remove(const char *uuid);

/** hf_resume_journal_clear() - Forget all, what a dead agent had half written included. */
void hf_resume_journal_clear(void);
