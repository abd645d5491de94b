/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "vmm-glue/libvirt/verbs.h"

#define MAX_DIFF_BYTES (16U << 20)

void hf_libvirt_clean(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		if ((*p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7f)
			*p = '?';
		/* U+0080 to U+009F, which some terminals obey, too. */
		else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
			p[0] = p[1] = '?';
	}
}

static int text_fd(const char *text, int *ret)
{
	cleanup_close int fd = -EBADF;
	int r = hf_memfd_new("holdfast-diff", 0, &fd);

	if (r == 0)
		r = hf_fd_write_full(fd, text, strlen(text));
	if (r == 0)
		*ret = TAKE_FD(fd);
	return r;
}

/* In the child. diff opens the two files anew, from their beginning. */
static _Noreturn void become_diff(
	int out, int before, int after, const char *old_label, const char *new_label)
{
	char paths[2][64];

	snprintf(paths[0], sizeof(paths[0]), "/proc/self/fd/%d", before);
	snprintf(paths[1], sizeof(paths[1]), "/proc/self/fd/%d", after);
	if (hf_fd_cloexec(before, false) == 0 && hf_fd_cloexec(after, false) == 0 &&
		dup2(out, STDOUT_FILENO) >= 0)
		execlp("diff", "diff", "-u", "--label", old_label, "--label", new_label, paths[0],
			paths[1], NULL);
	_exit(127);
}

static int run_diff(
	int before, int after, const char *old_label, const char *new_label, char **ret_text)
{
	cleanup_close int in = -EBADF, out = -EBADF;
	cleanup_free char *text = NULL;
	int pair[2], status, r;
	pid_t pid;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	in = pair[0];
	out = pair[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		become_diff(out, before, after, old_label, new_label);
	hf_close(&out);
	r = hf_fd_read_all(in, MAX_DIFF_BYTES, &text, NULL);
	hf_close(&in); /* a diff that is not read to its end must not wait for ever */
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (r < 0)
		return r;
	/* 1: they differ. */
	if (!WIFEXITED(status) || WEXITSTATUS(status) > 1)
		return WIFEXITED(status) && WEXITSTATUS(status) == 127 ? -ENOENT : -EIO;
	*ret_text = TAKE_PTR(text);
	return 0;
}

int hf_libvirt_show_diff(const char *old_label, const char *new_label, const char *before,
	const char *after, struct hf_error *e)
{
	cleanup_close int before_fd = -EBADF, after_fd = -EBADF;
	cleanup_free char *text = NULL;
	int r;

	fflush(stdout);
	r = text_fd(before, &before_fd);
	if (r == 0)
		r = text_fd(after, &after_fd);
	if (r == 0)
		r = run_diff(before_fd, after_fd, old_label, new_label, &text);
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, "install diff (package diffutils)",
			"can't show what would be changed in %s: %s", new_label, strerror(-r));
	hf_libvirt_clean(text);
	fputs(text, stdout);
	return 0;
}

int hf_libvirt_fail(const struct hf_error *e)
{
	struct hf_error copy = *e;

	fflush(stdout);
	hf_libvirt_clean(copy.guest);
	hf_libvirt_clean(copy.message);
	fprintf(stderr, "holdfast: %s%s%s\n", copy.guest, copy.guest[0] ? ": " : "", copy.message);
	if (copy.remedy[0])
		fprintf(stderr, "  %s\n", copy.remedy);
	if (strcmp(e->name, HF_ERR_INVALID) == 0)
		return HF_LIBVIRT_USAGE;
	if (strcmp(e->name, HF_ERR_NOT_READY) == 0)
		return HF_LIBVIRT_NOT_READY;
	if (strcmp(e->name, HF_ERR_NOT_PERMITTED) == 0)
		return HF_LIBVIRT_NOT_PERMITTED;
	return HF_LIBVIRT_FAILED;
}

int hf_libvirt_usage_error(const struct hf_libvirt_verb *verb, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "holdfast libvirt %s: ", verb->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n  See: holdfast libvirt %s --help\n", verb->name);
	return HF_LIBVIRT_USAGE;
}

int hf_libvirt_show_help(const struct hf_libvirt_verb *verb)
{
	printf("usage: holdfast libvirt %s %s\n\n%s", verb->name, verb->usage, verb->help);
	return HF_LIBVIRT_OK;
}
