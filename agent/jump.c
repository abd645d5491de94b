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
	cleanup_free char *held = NULL;
	cleanup_free char **env = NULL;
	char path[4096];
	size_t n = 0, out = 0;
	int r;

	while (environ[n])
		n++;
	env = calloc(n + 2, sizeof(*env));
	if (!env)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	installed_path(path, sizeof(path));
	r = hf_carrier_hold_export(agent->carrier, &held, error);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (strncmp(environ[i], HF_HOLD_ENV "=", strlen(HF_HOLD_ENV) + 1) != 0)
			env[out++] = environ[i];
	}
	env[out++] = held;
	execve(path, agent->argv, env);
	r = -errno;
	hf_carrier_hold_unexport(agent->carrier);
	return hf_error_set(
		error, r, HF_ERR_FAILED, NULL, "can't execute %s anew: %s", path, strerror(-r));
}
