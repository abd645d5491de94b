/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Configurations of kernels, as text (see kernel-image.h).
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "memfd-preserve/kernel-image.h"

bool hf_kernel_config_has(const char *config, const char *option)
{
	size_t n = strlen(option);

	for (const char *line = config; line && *line;) {
		const char *next = strchr(line, '\n');

		if (strncmp(line, option, n) == 0 && line[n] == '=' &&
			(line[n + 1] == 'y' || line[n + 1] == 'm'))
			return true;
		line = next ? next + 1 : NULL;
	}
	return false;
}

static char *read_text(const char *path)
{
	cleanup_close int fd = -EBADF;
	cleanup_free char *text = NULL;
	struct stat st;

	if (hf_file_open_regular(path, &fd, &st) < 0 || st.st_size > HF_KERNEL_MAX_CONFIG_BYTES)
		return NULL;
	text = calloc(1, (size_t)st.st_size + 1);
	if (!text || hf_fd_read_full(fd, text, (size_t)st.st_size) < 0 ||
		strlen(text) != (size_t)st.st_size)
		return NULL;
	return TAKE_PTR(text);
}

char *hf_kernel_config_beside(const char *path, const char *release, char **ret_path)
{
	cleanup_free char *beside = NULL, *real = NULL;
	const char *slash;
	char *text;

	/* The release comes out of the image: it must not lead anywhere else. */
	if (!release[0] || strchr(release, '/'))
		return NULL;
	/* /vmlinuz is often a link into /boot. */
	real = realpath(path, NULL);
	path = real ? real : path;
	slash = strrchr(path, '/');
	if (asprintf(&beside, "%.*sconfig-%s", slash ? (int)(slash + 1 - path) : 0, path, release) <
		0) {
		beside = NULL;
		return NULL;
	}
	text = read_text(beside);
	if (text)
		*ret_path = TAKE_PTR(beside);
	return text;
}
