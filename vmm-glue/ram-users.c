/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/ram-users.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXEC_MS 500

static bool is_number(const char *s)
{
	return isdigit((unsigned char)*s) && s[strspn(s, "0123456789")] == 0;
}

static bool is_one_of(int folder, const char *name, const struct hf_inode *files, size_t n)
{
	struct stat st;

	/* Through the link of /proc/PID/fd, to the file itself. */
	if (fstatat(folder, name, &st, 0) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (files[i].dev == st.st_dev && files[i].ino == st.st_ino)
			return true;
	return false;
}

static bool has_open(const char *pid, const struct hf_inode *files, size_t n)
{
	char path[64];
	struct dirent *d;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (d = readdir(dir)))
		found = is_number(d->d_name) && is_one_of(dirfd(dir), d->d_name, files, n);
	closedir(dir);
	return found;
}

static pid_t parent_of(pid_t pid)
{
	cleanup_free char *text = NULL;
	char path[64], *p;
	int parent = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (hf_file_read(path, 4096, &text, NULL) < 0)
		return 0;
	/* Behind the program's name, which may hold anything. */
	p = strrchr(text, ')');
	return p && sscanf(p, ") %*c %d", &parent) == 1 ? parent : 0;
}

static bool runs_our_program(pid_t pid)
{
	char link[64], exe[PATH_MAX], ours[PATH_MAX];
	ssize_t n, m;

	snprintf(link, sizeof(link), "/proc/%d/exe", (int)pid);
	n = readlink(link, exe, sizeof(exe));
	m = readlink("/proc/self/exe", ours, sizeof(ours));
	return n > 0 && n == m && memcmp(exe, ours, (size_t)n) == 0;
}

/*
 * Does a process have the files for itself? A child of this one that is about to become another
 * guest's QEMU has all that we have open, until execve(2) has closed it, a moment after it has
 * become another program. A dead agent's child is nobody's any more, and not waited for.
 */
static bool uses(pid_t pid, const char *name, const struct hf_inode *files, size_t n)
{
	for (int ms = 0; has_open(name, files, n); ms++) {
		if (parent_of(pid) != getpid() || ms == EXEC_MS)
			return true;
		if (runs_our_program(pid))
			return false;
		usleep(1000);
	}
	return false;
}

/* Return: 1 when it has ended, or -errno. */
static int kill_and_wait(
	int fd, pid_t pid, const char *what, uint64_t timeout_ns, struct hf_error *e)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int r;

	if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL,
			"can't end process %d, which %s: %s", (int)pid, what, strerror(errno));
	do
		r = poll(&p, 1, (int)(timeout_ns / HF_NSEC_PER_MSEC));
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return hf_error_set(e, -ETIMEDOUT, HF_ERR_FAILED, NULL,
			"process %d %s and does not end", (int)pid, what);
	return r < 0 ? hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "poll: %s", strerror(errno))
		     : 1;
}

static int end_process(const char *name, const struct hf_inode *files, size_t n,
	uint64_t timeout_ns, struct hf_error *e)
{
	pid_t pid = (pid_t)strtol(name, NULL, 10);
	cleanup_close int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	/* The number may mean another process by now: look again through what can't change. */
	if (fd < 0 || !uses(pid, name, files, n))
		return 0;
	return kill_and_wait(fd, pid, "has its RAM", timeout_ns, e);
}

int hf_ram_users_end_former(
	pid_t pid, uint64_t start_ticks, uint64_t timeout_ns, struct hf_error *e)
{
	cleanup_close int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	uint64_t ticks = 0;

	if (fd < 0 && errno != ESRCH)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL,
			"can't see whether process %d lives: %s", (int)pid, strerror(errno));
	/* Read when the number can't come to mean another one unseen. */
	if (fd < 0 || hf_pid_start_time(pid, &ticks) < 0 || ticks != start_ticks)
		return 0;
	return kill_and_wait(fd, pid, "was its QEMU", timeout_ns, e);
}

/* One look at all processes. Return: how many were ended, or -errno. */
static int end_once(const struct hf_inode *files, size_t n_files, pid_t spare, uint64_t timeout_ns,
	struct hf_error *e)
{
	char self[24], spared[24];
	struct dirent *d;
	int r = 0, n = 0;
	DIR *proc;

	snprintf(self, sizeof(self), "%d", (int)getpid());
	snprintf(spared, sizeof(spared), "%d", (int)spare);
	proc = opendir("/proc");
	if (!proc)
		return hf_error_set(
			e, -errno, HF_ERR_FAILED, NULL, "can't read /proc: %s", strerror(errno));
	while (r >= 0 && (d = readdir(proc))) {
		if (!is_number(d->d_name) || strcmp(d->d_name, self) == 0 ||
			strcmp(d->d_name, spared) == 0 || !has_open(d->d_name, files, n_files))
			continue;
		r = end_process(d->d_name, files, n_files, timeout_ns, e);
		n += r > 0;
	}
	closedir(proc);
	return r < 0 ? r : n;
}

int hf_ram_users_end(const struct hf_inode *files, size_t n_files, pid_t spare, uint64_t timeout_ns,
	size_t *ret_n, struct hf_error *e)
{
	size_t n = 0;
	int r;

	/* One that was ended may have left a child that was not there yet when its turn came. */
	do {
		r = end_once(files, n_files, spare, timeout_ns, e);
		n += r > 0 ? (size_t)r : 0;
	} while (r > 0);
	if (ret_n)
		*ret_n = n;
	return r;
}
