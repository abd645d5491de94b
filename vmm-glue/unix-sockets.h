/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Which Unix sockets with a path somebody listens at, as /proc/net/unix of this process'
 * network namespace shows it (unix_seq_show(), net/unix/af_unix.c).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** hf_unix_table_read() - Read the table, which the caller frees. Return: 0 or -errno. */
int hf_unix_table_read(char **ret_table);

/**
 * hf_unix_listener_path() - The path that a listening socket is bound to. Pure.
 * @table: of hf_unix_table_read()
 * @inode: as in `socket:[INODE]`
 *
 * Return: 0; -ENOENT none has that inode, listens, and has a path; -ENAMETOOLONG.
 */
int hf_unix_listener_path(const char *table, uint64_t inode, char *ret, size_t size);

/**
 * hf_unix_listens() - Does somebody listen at this absolute path, as it was bound?
 *
 * A socket has its name before that, and a connection made in between is refused. What can't be
 * read is no.
 */
bool hf_unix_listens(const char *path);
