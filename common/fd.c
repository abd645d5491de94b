/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define MAX_PASSED_FDS 16

int hf_fd_read_full(int fd, void *buf, size_t size)
{
	char *p = buf;

	while (size > 0) {
		ssize_t n = read(fd, p, size);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0)
			return -EBADMSG;
		p += n;
		size -= n;
	}
	return 0;
}

int hf_fd_write_full(int fd, const void *buf, size_t size)
{
	const char *p = buf;

	while (size > 0) {
		ssize_t n = send(fd, p, size, MSG_NOSIGNAL);

		if (n < 0 && errno == ENOTSOCK)
			n = write(fd, p, size);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		p += n;
		size -= n;
	}
	return 0;
}

int hf_file_read(const char *path, size_t max, char **ret_data, size_t *ret_size)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : hf_fd_read_all(fd, max, ret_data, ret_size);
}

int hf_file_open_regular(const char *path, int *ret_fd, struct stat *ret_st)
{
	cleanup_close int place = open(path, O_PATH | O_CLOEXEC);
	char again[64];
	struct stat st;
	int fd;

	if (place < 0 || fstat(place, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	snprintf(again, sizeof(again), "/proc/self/fd/%d", place);
	fd = open(again, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ret_st)
		*ret_st = st;
	*ret_fd = fd;
	return 0;
}

int hf_fd_read_all(int fd, size_t max, char **ret_data, size_t *ret_size)
{
	cleanup_free char *data = NULL;
	size_t size = 0, room = 0;

	/* Files of /proc and /sys have no size to go by: read until the end. */
	for (;;) {
		ssize_t n;

		if (size + 1 >= room) {
			char *p;

			room = room ? room * 2 : 4096;
			p = realloc(data, room);
			if (!p)
				return -ENOMEM;
			data = p;
		}
		n = read(fd, data + size, room - size - 1);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0)
			break;
		size += n;
		if (size > max)
			return -EFBIG;
	}
	data[size] = 0;
	*ret_data = TAKE_PTR(data);
	if (ret_size)
		*ret_size = size;
	return 0;
}

int hf_file_write_atomic(const char *path, const void *data, size_t size, mode_t mode)
{
	cleanup_close int fd = -EBADF;
	char tmp[4096];
	int r;

	if (snprintf(tmp, sizeof(tmp), "%s.XXXXXX", path) >= (int)sizeof(tmp))
		return -ENAMETOOLONG;
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = hf_fd_write_full(fd, data, size);
	if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(tmp, path) < 0))
		r = -errno;
	if (r < 0)
		unlink(tmp);
	return r;
}

int hf_mkdir_p(const char *path, mode_t mode)
{
	char part[4096];

	if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
		return -ENAMETOOLONG;
	for (char *p = part + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(part, mode) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(part, mode) < 0 && errno != EEXIST ? -errno : 0;
}

int hf_mkdir_p_public(const char *path)
{
	mode_t mask = umask(0);
	int r = hf_mkdir_p(path, 0755);

	umask(mask);
	return r;
}

int hf_memfd_new(const char *name, uint64_t size, int *ret_fd)
{
	cleanup_close int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int hf_fd_send(int sock, const void *data, size_t size, const int *fds, size_t n_fds)
{
	union {
		char buf[CMSG_SPACE(MAX_PASSED_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = (void *)data, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (n_fds > MAX_PASSED_FDS || size == 0)
		return -EINVAL;
	if (n_fds > 0) {
		struct cmsghdr *c;

		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	/* The fds went with the first byte; what is left is plain data. */
	return hf_fd_write_full(sock, (const char *)data + n, size - n);
}

static void collect_fds(struct msghdr *msg, int *fds, size_t room, size_t *ret_n)
{
	size_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (n < room)
				fds[n++] = fd;
			else
				close(fd);
		}
	}
	*ret_n = n;
}

ssize_t hf_fd_recv(int sock, void *data, size_t size, int *fds, size_t *n_fds)
{
	union {
		char buf[CMSG_SPACE(MAX_PASSED_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = data, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	ssize_t n;

	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	collect_fds(&msg, fds, *n_fds, n_fds);
	return n;
}

int hf_fd_inode(int fd, struct hf_inode *ret, uint64_t *ret_size)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	*ret = (struct hf_inode){.dev = st.st_dev, .ino = st.st_ino};
	if (ret_size)
		*ret_size = st.st_size;
	return 0;
}

int hf_fd_cloexec(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFD);

	if (flags < 0)
		return -errno;
	flags = on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC;
	return fcntl(fd, F_SETFD, flags) < 0 ? -errno : 0;
}

int hf_pid_start_time(pid_t pid, uint64_t *ret_ticks)
{
	cleanup_free char *stat = NULL;
	unsigned long long ticks;
	char path[64];
	char *p;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	r = hf_file_read(path, 8192, &stat, NULL);
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	/* Field 2 is the command in parentheses and may hold anything: count from its last ')'. */
	p = strrchr(stat, ')'); // NOLINT(clang-analyzer-core.NonNullParamChecker): was read
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (!p || sscanf(p, "%llu", &ticks) != 1)
		return -EBADMSG;
	*ret_ticks = ticks;
	return 0;
}

int hf_pid_get_fd(pid_t pid, uint64_t start_ticks, int fd, int *ret_fd)
{
	cleanup_close int pidfd = -EBADF;
	cleanup_close int got = -EBADF;
	uint64_t ticks;
	int r;

	pidfd = syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return -errno;
	/* Checked after the pidfd is open: from here on the process can't be swapped for another.
	 */
	r = hf_pid_start_time(pid, &ticks);
	if (r < 0)
		return r;
	if (ticks != start_ticks)
		return -ESTALE;
	got = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (got < 0)
		return -errno;
	r = hf_fd_cloexec(got, true);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(got);
	return 0;
}
