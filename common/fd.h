/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: File descriptors: whole reads and writes, passing over sockets, memfds, identity.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/cleanup.h"

struct stat;

/** hf_fd_read_full() - Read exactly @size bytes. Return: 0, -EBADMSG on early end, or -errno. */
int hf_fd_read_full(int fd, void *buf, size_t size);

/** hf_fd_write_full() - Write exactly @size bytes (sockets without SIGPIPE). Return: 0 or -errno.
 */
int hf_fd_write_full(int fd, const void *buf, size_t size);

/**
 * hf_file_read() - Read a whole file, /proc and /sys included.
 * @path:     path
 * @max:      refuse a larger file with -EFBIG
 * @ret_data: NUL-terminated contents (the NUL is not counted), owned by the caller
 * @ret_size: its size, may be NULL
 */
int hf_file_read(const char *path, size_t max, char **ret_data, size_t *ret_size);

/**
 * hf_file_open_regular() - Open a file for reading, but nothing else than a file.
 * @ret_st: may be NULL
 *
 * What lies at a path that somebody without rights chose is looked at before it is opened: merely
 * opening a device can do something (a watchdog reboots the host when it is closed again), and a
 * pipe may be waited for. Return: 0; -EINVAL when it is no regular file; -errno.
 */
int hf_file_open_regular(const char *path, int *ret_fd, struct stat *ret_st);

/** hf_fd_read_all() - The same of an open file, from where it is to its end. */
int hf_fd_read_all(int fd, size_t max, char **ret_data, size_t *ret_size);

/**
 * hf_file_write_atomic() - Replace a file: temporary file in the same folder, fsync, rename.
 * @path: path
 * @mode: permissions
 *
 * Readers see the old or the new contents, never a part. Return: 0 or -errno.
 */
int hf_file_write_atomic(const char *path, const void *data, size_t size, mode_t mode);

/** hf_mkdir_p() - Make a folder and its parents. An existing one is fine. Return: 0 or -errno. */
int hf_mkdir_p(const char *path, mode_t mode);

/**
 * hf_mkdir_p_public() - The same, with what it makes open to all for reading: mode 0755.
 *
 * Whatever the umask is, which is changed for the moment, for the whole process. Return: 0 or
 * -errno.
 */
int hf_mkdir_p_public(const char *path);

/**
 * hf_memfd_new() - Make a memfd of a size, close-on-exec.
 * @name:   shown in /proc as /memfd:NAME
 * @size:   bytes
 * @ret_fd: the fd, owned by the caller
 */
int hf_memfd_new(const char *name, uint64_t size, int *ret_fd);

/** hf_fd_send() - Send bytes with up to 16 fds (SCM_RIGHTS). Fds stay the caller's. 0 or -errno. */
int hf_fd_send(int sock, const void *data, size_t size, const int *fds, size_t n_fds);

/**
 * hf_fd_recv() - Receive bytes with fds, all close-on-exec.
 * @n_fds: in: room in @fds; out: how many came. More than there is room for are closed.
 *
 * Return: bytes received (0: end), or -errno.
 */
ssize_t hf_fd_recv(int sock, void *data, size_t size, int *fds, size_t *n_fds);

/** struct hf_inode - what tells two open files apart. */
struct hf_inode {
	uint64_t dev;
	uint64_t ino;
};

/** hf_fd_inode() - Identity and size of an open file. @ret_size may be NULL. */
int hf_fd_inode(int fd, struct hf_inode *ret, uint64_t *ret_size);

static inline bool hf_inode_equal(const struct hf_inode *a, const struct hf_inode *b)
{
	return a->dev == b->dev && a->ino == b->ino;
}

/** hf_fd_cloexec() - Set or clear close-on-exec. Return: 0 or -errno. */
int hf_fd_cloexec(int fd, bool on);

/**
 * hf_pid_start_time() - When a process started, in clock ticks since boot (field 22 of
 * /proc/PID/stat).
 *
 * With the pid it names a process for good: pids are reused, pairs are not. Return: 0 or -errno
 * (-ESRCH when there is no such process).
 */
int hf_pid_start_time(pid_t pid, uint64_t *ret_ticks);

/**
 * hf_pid_get_fd() - Duplicate a descriptor of another process (pidfd_getfd(2), needs ptrace
 * rights).
 * @pid:    process
 * @start_ticks: its start time; -ESTALE when the process is another one now
 * @fd:     number of the descriptor there
 * @ret_fd: the duplicate, close-on-exec, owned by the caller
 */
int hf_pid_get_fd(pid_t pid, uint64_t start_ticks, int fd, int *ret_fd);
