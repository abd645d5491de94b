/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/jump.h"

#include <stdio.h>
#include <string.h>

#include "common/fd.h"

/* The kernel appends " (deleted)" to the link when the file was replaced or removed: the path
 * without that is where the package manager put the next version. */
static void installed_path(char *path, size_t size)
{
	static const char deleted[] = " (deleted)";
	ssize_t n = readlink("/proc/self/exe", path, size - 1);

	if (n <= 0) {
		snprintf(path, size, "/proc/self/exe");
		return;
	}
	path[n] = 0;
	if ((size_t)n > strlen(deleted) && strcmp(path + n - strlen(deleted), deleted) == 0)
		path[n - strlen(deleted)] = 0;
	if (access(path, X_OK) < 0)
		snprintf(path, size, "/proc/self/exe");
}

int hf_jump_execve(struct hf_agent *agent, struct hf_error *error)
{
	char path[4096];

	installed_path(path, sizeof(path));
	execve(path, agent->argv, environ);
	return hf_error_set(error, -errno, HF_ERR_FAILED, NULL, "can't execute %s anew: %s", path,
		strerror(errno));
}
