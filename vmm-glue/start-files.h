/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The files that QEMU reads when it starts and closes again.
 *
 * Firmware, option ROMs, kernels: neither the descriptors nor the mappings of a running QEMU have
 * them, but the next one will read them while the guest stands still. Their names come from the
 * command line and from QEMU's lists of ROMs, where most have no folder. QEMU looks for such a file
 * in its own folder, and then in its data folders: those of `-L`, and those built in, which the
 * installed QEMU knows (see installed.h).
 *
 * Nothing of this is needed for a guest to start: what is not found is left out.
 */
#pragma once

#include <stddef.h>

#include "memfd-preserve/manifest.h"

#define HF_START_FILES_MAX 512

/* Zero-initialise; released with hf_start_files_clear(). Both arrays are NULL-terminated, or NULL
 * when empty. */
struct hf_start_files {
	char **paths;	/* absolute, of files that are there */
	char **missing; /* names that lead nowhere */
	size_t n_paths, n_missing;
};

/** hf_start_files_clear() - Free what is in it. */
void hf_start_files_clear(struct hf_start_files *files);

/**
 * hf_start_files_find() - Where the files are.
 * @guest:     its command line and folder
 * @roms:      names that QEMU gave, NULL-terminated; NULL: none
 * @data_dirs: where it looks for them, NULL-terminated; NULL: only where the command line says
 *
 * At most HF_START_FILES_MAX of each: what is more is left out. Return: 0 or -ENOMEM.
 */
int hf_start_files_find(const struct hf_manifest_guest *guest, char *const *roms,
	char *const *data_dirs, struct hf_start_files *ret);
