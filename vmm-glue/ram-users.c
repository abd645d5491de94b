/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/ram-users.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

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

static int end_process(const char *name, const struct hf_inode *files, size_t n,
	uint64_t timeout_ns, struct hf_error *e)
{
	pid_t pid = (pid_t)strtol(name, NULL, 10);
	cleanup_close int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int r;

	/* The number may mean another process by now: look again through what can't change. */
	if (fd < 0 || !has_open(name, files, n))
		return 0;
	if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL,
			"can't end process %d, which has its RAM: %s", (int)pid, strerror(errno));
	do
		r = poll(&p, 1, (int)(timeout_ns / HF_NSEC_PER_MSEC));
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return hf_error_set(e, -ETIMEDOUT, HF_ERR_FAILED, NULL,
			"process %d has its RAM and does not end", (int)pid);
	return r < 0 ? hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "poll: %s", strerror(errno))
		     : 1;
}

int hf_ram_users_end(const struct hf_inode *files, size_t n_files, pid_t spare, uint64_t timeout_ns,
	size_t *ret_n, struct hf_error *e)
{
	char self[24], spared[24];
	struct dirent *d;
	size_t n = 0;
	DIR *proc;
	int r = 0;

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
	if (ret_n)
		*ret_n = n;
	return r < 0 ? r : 0;
}
