/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Bringing files into the page cache before the VMMs ask for them.
 *
 * After the jump the page cache is empty, and a VMM that starts reads its binary, libraries, ROMs
 * and firmware one page fault at a time. The old agent notes which files these are; the new one
 * reads them all at once, deep queue, while sessions are being retrieved.
 *
 * A list owns its strings. The reading runs in a thread of its own with its own io_uring; it only
 * ever helps: a file that is gone or unreadable is skipped and counted.
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/error.h"

#define HF_READAHEAD_MAX_FILES 4096
/* Larger files than this are not what a VMM starts from. */
#define HF_READAHEAD_MAX_FILE_BYTES (64ULL << 20)

struct hf_readahead_file {
	char *path;
	uint64_t size;
	uint64_t dev, ino; /* 0 when unknown (a list from a manifest) */
};

/* Zero-initialise; released with hf_readahead_clear(). */
struct hf_readahead_list {
	struct hf_readahead_file *files;
	size_t n_files;
	uint64_t bytes; /* sum of the sizes */
};

/** hf_readahead_clear() - Free what a list owns and make it empty. */
void hf_readahead_clear(struct hf_readahead_list *list);

/** hf_readahead_add() - Append a path as it is (from a manifest). 0, -ENOMEM or -EFBIG (full). */
int hf_readahead_add(struct hf_readahead_list *list, const char *path, uint64_t size);

/**
 * hf_readahead_collect() - Append the files a process has mapped or open for reading.
 * @pid:   a VMM
 * @extra: more paths, NULL-terminated, or NULL
 *
 * From /proc/PID/maps and /proc/PID/fd: regular files up to HF_READAHEAD_MAX_FILE_BYTES that the
 * path still leads to. Not memfds, not what is unlinked or in /dev, /proc, /sys, and nothing that
 * the process has open for writing: disk images are the guest's. Files already in the list are not
 * added again, so that one list serves all guests.
 * Return: 0 (also when full), -ESRCH no such process, -ENOMEM, other -errno.
 */
int hf_readahead_collect(pid_t pid, const char *const *extra, struct hf_readahead_list *list);

struct hf_readahead_result {
	uint64_t bytes;	  /* of the files read whole */
	uint64_t ns;	  /* from start to end */
	size_t n_files;	  /* read whole */
	size_t n_skipped; /* gone, unreadable or not regular */
	int err;	  /* 0, -ECANCELED, or why it did not run at all */
};

/**
 * hf_readahead_run() - Read all files of a list into the page cache; blocks.
 * @stop: ends early when it becomes non-zero; may be NULL
 *
 * Memory: some 20 KiB whatever the list. Without io_uring one file after the other is hinted at.
 * Return: 0 or -errno, the same as in @ret.
 */
int hf_readahead_run(const struct hf_readahead_list *list, const atomic_int *stop,
	struct hf_readahead_result *ret);

struct hf_readahead;

/**
 * hf_readahead_start() - hf_readahead_run() in a thread.
 * @list: its contents are moved out, the list is empty then (on failure too)
 * @done: called once, on the loop
 * @ret:  handle for hf_readahead_stop(), gone once @done is called; may be NULL
 *
 * Return: 0, or -errno; then @done is not called.
 */
int hf_readahead_start(sd_event *event, struct hf_readahead_list *list,
	void (*done)(void *data, const struct hf_readahead_result *result), void *data,
	struct hf_readahead **ret);

/** hf_readahead_stop() - Ask for an early end; @done comes as always. NULL is fine. */
void hf_readahead_stop(struct hf_readahead *ra);
