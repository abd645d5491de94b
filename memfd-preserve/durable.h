/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Folders whose names say what may be done with what is in them: changes are on disk for good
 * when these functions return.
 */
#pragma once

#include "common/error.h"

/** hf_durable_failed() - Fill an error: can't @what @path. Return: @r, negative. */
int hf_durable_failed(struct hf_error *e, int r, const char *what, const char *path);

/** hf_durable_sync_folder() - Names in a folder are on disk. Return: 0 or -errno. */
int hf_durable_sync_folder(const char *path, struct hf_error *e);

/**
 * hf_durable_rename() - Rename, on disk.
 * @folder: that both are in, or below
 *
 * Return: 0; -errno, after which it may have the one name or the other.
 */
int hf_durable_rename(const char *folder, const char *from, const char *to, struct hf_error *e);

/**
 * hf_remove_tree() - Remove a folder, the files in it, and folders in it down to @depth.
 *
 * Goes on after errors. Links are removed, not followed. Return: 0, also when there was none;
 * -errno.
 */
int hf_remove_tree(const char *path, int depth);
