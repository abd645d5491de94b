/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Writes memory as an ELF core file, the form that debuggers read.
 *
 * The memory is read with read(2) from files of its own, never mapped and never written to: a hole
 * in it stays a hole. So do pages of zeros in the core, which is as long as the memory but needs
 * room only for what is not zero. What is needed besides is one buffer.
 *
 * The ELF header is written last: a core that was not finished is none.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define HF_CORE_MAX_SEGMENTS 256
#define HF_CORE_MAX_NOTE_BYTES (16u << 20)

/** struct hf_core_segment - memory at consecutive addresses. */
struct hf_core_segment {
	int fd;		 /* the file it is in; only opened anew, its position is left alone */
	uint64_t offset; /* in that file */
	uint64_t size;
	uint64_t address; /* physical; the core says it is the virtual one, too, as QEMU does */
};

/** struct hf_core_notes - notes for a core, one behind the other. Freed with hf_core_notes_clear().
 */
struct hf_core_notes {
	uint8_t *data;
	size_t size;
};

/**
 * hf_core_notes_add() - Append a note.
 *
 * Return: 0; -EFBIG above HF_CORE_MAX_NOTE_BYTES; -ENOMEM.
 */
int hf_core_notes_add(struct hf_core_notes *notes, const char *name, uint32_t type,
	const void *contents, size_t size);
void hf_core_notes_clear(struct hf_core_notes *notes);

/** struct hf_core - what goes into a core. Borrowed. */
struct hf_core {
	const struct hf_core_segment *segments;
	size_t n_segments;
	const struct hf_core_notes *notes;
	_Atomic uint64_t *done_bytes; /* memory dealt with so far; for others to read */
	const atomic_bool *cancel;    /* set by others: -ECANCELED */
};

/**
 * hf_core_write() - Write an x86-64 core.
 * @out:            empty file, written to at any position
 * @ret_data_bytes: how much of the memory was not zero; may be NULL
 *
 * Blocks for as long as the memory is large; the file is on disk when it returns.
 * Return: 0; -ECANCELED; -errno with @error filled.
 */
int hf_core_write(
	int out, const struct hf_core *core, uint64_t *ret_data_bytes, struct hf_error *error);
