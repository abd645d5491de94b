/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/target.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"

#define CMDLINE_MAX_BYTES 2048 /* COMMAND_LINE_SIZE of x86 */

static bool has_word(const char *line, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = line; (p = strstr(p, word)); p += n) {
		if ((p == line || p[-1] == ' ') && (p[n] == 0 || p[n] == ' '))
			return true;
	}
	return false;
}

static int add_word(char *line, size_t room, const char *word, size_t n)
{
	size_t have = strlen(line);

	if (n == 0)
		return 0;
	if (have + n + 2 > room)
		return -E2BIG;
	snprintf(line + have, room - have, "%s%.*s", have ? " " : "", (int)n, word);
	return 0;
}

static bool is_loader_word(const char *word, size_t n)
{
	return (n >= 11 && strncmp(word, "BOOT_IMAGE=", 11) == 0) ||
	       (n >= 7 && strncmp(word, "initrd=", 7) == 0);
}

char *hf_target_cmdline(
	bool in_memory, const char *running, const char *append, const char *cmdline)
{
	static const char *const needed[] = {"kho=on", "liveupdate=on"};
	const char *from = cmdline ? cmdline : running;
	size_t room = strlen(from) + (append ? strlen(append) : 0) + 64;
	char *line = calloc(1, room);

	if (!line)
		return NULL;
	for (const char *p = from; *p;) {
		size_t n = strcspn(p, " \t\n");

		if (cmdline || !is_loader_word(p, n))
			add_word(line, room, p, n);
		p += n;
		p += strspn(p, " \t\n");
	}
	if (append && !cmdline)
		add_word(line, room, append, strlen(append));
	for (size_t i = 0; in_memory && i < HF_ARRAY_SIZE(needed); i++) {
		if (!has_word(line, needed[i]))
			add_word(line, room, needed[i], strlen(needed[i]));
	}
	return line;
}

int hf_target_open_file(const char *path, const char *what, int *ret_fd, struct hf_error *error)
{
	cleanup_close int fd = -EBADF;
	struct stat st;
	int r;

	r = hf_file_open_regular(path, &fd, &st);
	if (r == -EINVAL || (r == 0 && st.st_size == 0))
		return hf_error_set(error, -EINVAL, HF_ERR_NOT_READY,
			"give the path of the image itself", "%s %s is not a file with contents",
			what, path);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_NOT_READY,
			"give the path of a file root can read", "can't open %s %s: %s", what, path,
			strerror(-r));
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int look_into(struct hf_target *t, struct hf_error *error)
{
	int r;

	if (fstat(t->kernel_fd, &t->kernel_stat) < 0)
		return hf_error_set(error, -errno, HF_ERR_FAILED, NULL, "can't look at %s: %s",
			t->kernel, strerror(errno));
	r = hf_kernel_image_read(t->kernel_fd, HF_KERNEL_MAX_BYTES, &t->image, error);
	if (r < 0) {
		hf_error_prefix(error, "%s", t->kernel);
		return r;
	}
	if (t->image.config)
		t->config = TAKE_PTR(t->image.config);
	else
		t->config = hf_kernel_config_beside(t->kernel, t->image.release, &t->config_path);
	return 0;
}

static int settle_cmdline(
	bool in_memory, const char *append, const char *cmdline, char **ret, struct hf_error *error)
{
	cleanup_free char *running = NULL;
	char *line;
	int r;

	r = hf_file_read("/proc/cmdline", 65536, &running, NULL);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't read /proc/cmdline: %s",
			strerror(-r));
	line = hf_target_cmdline(in_memory, running, append, cmdline);
	if (!line)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	if (strlen(line) >= CMDLINE_MAX_BYTES) {
		free(line);
		return hf_error_set(error, -E2BIG, HF_ERR_INVALID, "shorten it",
			"the kernel command line has more than %d bytes", CMDLINE_MAX_BYTES - 1);
	}
	*ret = line;
	return 0;
}

static int copy_paths(
	struct hf_target *t, const char *kernel, const char *initrd, struct hf_error *error)
{
	t->kernel = strdup(kernel);
	t->initrd = initrd ? strdup(initrd) : NULL;
	if (!t->kernel || (initrd && !t->initrd))
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	return 0;
}

int hf_target_new(bool in_memory, const char *kernel, const char *initrd, const char *append,
	const char *cmdline, struct hf_target *ret, struct hf_error *error)
{
	struct hf_target t = HF_TARGET_NONE;
	cleanup_close int initrd_fd = -EBADF;
	int r;

	if (append && cmdline)
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, "give one of the two",
			"append and cmdline exclude each other");
	r = copy_paths(&t, kernel, initrd, error);
	/* What is quick comes first. */
	if (r == 0)
		r = hf_target_open_file(kernel, "kernel", &t.kernel_fd, error);
	if (r == 0 && initrd)
		r = hf_target_open_file(initrd, "initrd", &initrd_fd, error);
	if (r == 0)
		r = settle_cmdline(in_memory, append, cmdline, &t.cmdline, error);
	if (r == 0)
		r = look_into(&t, error);
	if (r < 0) {
		hf_target_clear(&t);
		return r;
	}
	*ret = t;
	return 0;
}

void hf_target_clear(struct hf_target *t)
{
	free(t->kernel);
	free(t->initrd);
	free(t->cmdline);
	free(t->config);
	free(t->config_path);
	hf_close(&t->kernel_fd);
	hf_kernel_image_clear(&t->image);
	*t = HF_TARGET_NONE;
}

int hf_target_check_unchanged(const struct hf_target *t, struct hf_error *error)
{
	const struct stat *then = &t->kernel_stat;
	struct stat now;

	if (fstat(t->kernel_fd, &now) < 0)
		return hf_error_set(error, -errno, HF_ERR_FAILED, NULL, "can't look at %s: %s",
			t->kernel, strerror(errno));
	/* A write sets both times, and nobody can set ctime back. */
	if (now.st_size != then->st_size || now.st_ctim.tv_sec != then->st_ctim.tv_sec ||
		now.st_ctim.tv_nsec != then->st_ctim.tv_nsec ||
		now.st_mtim.tv_sec != then->st_mtim.tv_sec ||
		now.st_mtim.tv_nsec != then->st_mtim.tv_nsec)
		return hf_error_set(error, -ESTALE, HF_ERR_NOT_READY,
			"try again when nobody writes to it",
			"%s was changed after it was looked into", t->kernel);
	return 0;
}
