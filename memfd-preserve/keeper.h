/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A process that keeps sessions, so that a dying agent takes no guest along.
 *
 * The last reference to a retrieved session must not go before its guest runs (luo.h). Sessions can
 * be retrieved only once, so that an agent which dies with them leaves nothing for the next. The
 * keeper retrieves them in its stead, hands out duplicates, and keeps its own until told to drop
 * them. With the `hold` carrier, where guests live in nothing but files, it keeps those files: the
 * agent puts them there before the QEMUs end, and its next self gets them from there.
 *
 * It is a child of the agent that outlives it, with nothing open but its socket and what it keeps,
 * and ends when that is nothing and nobody is connected.
 *
 * Messages are records on a SOCK_SEQPACKET socket: a request, then its answer, each with a file
 * where there is one (docs/FORMATS.md). The socket is for the user that the keeper runs as.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

struct hf_keeper;

/**
 * hf_keeper_retrieve_fn - Gets a session from the kernel, in the keeper's process.
 *
 * Return: 0 with an fd, or -errno; hf_luo_session_retrieve() but for its time-out.
 */
typedef int (*hf_keeper_retrieve_fn)(const char *device, const char *name, int *ret_fd);

/**
 * hf_keeper_open() - Connect to the keeper, or start one.
 * @path:      of its socket
 * @device:    for @retrieve
 * @retrieve:  NULL when there is no kernel to get sessions from
 * @ret_found: whether one was there: an agent before this one did not get to the end
 *
 * The keeper is forked; with @retrieve call it before there are threads. Return: 0; -EPERM when the
 * socket is somebody else's; -errno.
 */
int hf_keeper_open(const char *path, const char *device, hf_keeper_retrieve_fn retrieve,
	struct hf_keeper **ret, bool *ret_found, struct hf_error *error);

/**
 * hf_keeper_retrieve() - Get a session. Thread-safe.
 * @ret_fd: owned by the caller
 *
 * A session that is kept can be had again and again. Return: 0; -EALREADY when it was dropped
 * before; -EPIPE or -ECONNRESET when the keeper is gone; what its retrieve function returned.
 */
int hf_keeper_retrieve(struct hf_keeper *k, const char *name, int *ret_fd);

/**
 * hf_keeper_put() - Have it keep a file as one of a session. Thread-safe.
 * @fd: stays the caller's
 *
 * A session of that name which was dropped begins anew. Return: 0; -EEXIST when the token is in use
 * there, or the same file is kept already; -errno.
 */
int hf_keeper_put(struct hf_keeper *k, const char *name, uint64_t token, int fd);

/** hf_keeper_get() - Get a file that was put. Thread-safe. Return: 0; -ENOENT; -errno. */
int hf_keeper_get(struct hf_keeper *k, const char *name, uint64_t token, int *ret_fd);

/** hf_keeper_look() - Is a session kept? Return: 0; -ENOENT; -EALREADY it was dropped; -errno. */
int hf_keeper_look(struct hf_keeper *k, const char *name);

/** hf_keeper_drop() - Have it close a session that is finished. Thread-safe. 0 or -errno. */
int hf_keeper_drop(struct hf_keeper *k, const char *name);

/** hf_keeper_clear() - Have it close and forget everything. Thread-safe. 0 or -errno. */
int hf_keeper_clear(struct hf_keeper *k);

/** hf_keeper_pid() - The keeper's process. */
pid_t hf_keeper_pid(const struct hf_keeper *k);

/** hf_keeper_close() - Disconnect. What it keeps, it keeps. NULL is fine. */
void hf_keeper_close(struct hf_keeper *k);
