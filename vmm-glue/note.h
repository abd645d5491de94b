/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Notes: small files in the runtime folder, of one process for the one that comes after it.
 *
 * A note is whole or not there: it is replaced by a rename. The folder is a tmpfs, so that no note
 * outlives its kernel.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

/** hf_note_path() - Where a note is, or would be. @name: below the runtime folder. */
void hf_note_path(const char *name, char *path, size_t size);

/**
 * hf_note_write() - Write one, for root only.
 * @text: its contents; NULL: there was no memory for them
 *
 * Return: 0 or -errno, @error filled.
 */
int hf_note_write(const char *name, const char *text, struct hf_error *error);

/**
 * hf_note_read() - Read one.
 * @ret: NUL-terminated contents, owned by the caller
 *
 * Return: 0; -ENOENT when there is none; -EFBIG above @max bytes; -errno.
 */
int hf_note_read(const char *name, size_t max, char **ret, size_t *ret_size);

/** hf_note_look() - Look for one, whatever it says. Return: 0; -ENOENT when there is none; -errno.
 */
int hf_note_look(const char *name);

/** hf_note_is_there() - Is there one? In doubt there is none. */
bool hf_note_is_there(const char *name);

/** hf_note_remove() - See that there is none. Return: 0 or -errno. */
int hf_note_remove(const char *name);
