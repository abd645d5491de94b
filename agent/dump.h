/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The memory of a held guest as an ELF core, for debuggers.
 *
 * Put together from its RAM's files, where its machine has them (vmm-glue/layout.h), and the
 * registers in its device state (vmm-glue/cpu-notes.h). Nothing of the guest is written to, mapped
 * for writing or given away.
 *
 * The file is made anew, for its owner alone, by the agent; so the path is for those who may do
 * anything on the host.
 */
#pragma once

#include <stdatomic.h>

#include "agent/incoming.h"

/* How many sentences of what is missing there are at most. */
#define HF_DUMP_MAX_MISSING 4

/** struct hf_dump - one dump, and what came of it. */
struct hf_dump {
	struct hf_incoming *in;	     /* since hf_incoming_begin_dump() */
	const char *path;	     /* absolute */
	atomic_bool cancel;	     /* for others to set */
	_Atomic uint64_t done_bytes; /* for others to read */
	/* Results: */
	uint64_t ram_bytes;
	uint64_t data_bytes;
	size_t n_cpus;
	char missing[HF_DUMP_MAX_MISSING][256];
	size_t n_missing;
	struct hf_error error;
};

/**
 * hf_dump_run() - Write it. For a worker: blocks for as long as the memory is large.
 *
 * On failure the file is removed again. Return: 0; -ECANCELED; -EEXIST there is such a file;
 * -errno; with the dump's error filled.
 */
int hf_dump_run(struct hf_dump *dump);
