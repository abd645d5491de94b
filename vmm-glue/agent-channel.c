/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/agent-channel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/cmdline-internal.h"
#include "vmm-glue/traits.h"

static int refuse(struct hf_error *error, const char *why)
{
	return hf_error_set(error, -EOPNOTSUPP, HF_ERR_FAILED, NULL,
		"the channel of its guest agent is no UNIX socket that its QEMU listens on: %s",
		why);
}

/* Of a socket that QEMU was given as a descriptor. */
static const char *inherited_path(const struct hf_params *v, const struct hf_manifest_guest *guest)
{
	const char *fd = hf_params_get(v, "fd");

	for (size_t i = 0; fd && i < guest->n_fds; i++)
		if (guest->fds[i].kind == HF_FD_LISTEN && guest->fds[i].fd == atoi(fd))
			return guest->fds[i].path;
	return NULL;
}

/* Values as QEMU takes them: `server` alone and `server=on` are the same. */
static int take_socket(const struct hf_params *v, const struct hf_manifest_guest *guest,
	struct hf_agent_channel *ret, struct hf_error *error)
{
	const char *backend = hf_params_get(v, "backend"), *path = hf_params_get(v, "path");
	const char *cwd = guest->cwd;
	size_t n;

	if (!backend || strcmp(backend, "socket") != 0)
		return refuse(error, backend ? backend : "it has no kind");
	if (!path)
		path = inherited_path(v, guest);
	if (!path || !path[0])
		return refuse(error, "it has no path");
	if (!hf_params_is_on(v, "server"))
		return refuse(error, "QEMU is the one that connects");
	if (hf_params_is_on(v, "abstract") || hf_params_is_on(v, "telnet") ||
		hf_params_is_on(v, "tn3270") || hf_params_is_on(v, "websocket") ||
		hf_params_get(v, "tls-creds"))
		return refuse(error, "it is of another kind");
	if (path[0] != '/' && (!cwd || cwd[0] != '/'))
		return refuse(error, "its folder isn't known");
	n = (size_t)snprintf(ret->path, sizeof(ret->path), "%s%s%s", path[0] == '/' ? "" : cwd,
		path[0] == '/' ? "" : "/", path);
	return n < sizeof(ret->path) ? 0 : refuse(error, "its path is too long");
}

int hf_agent_channel_find(
	const struct hf_manifest_guest *guest, struct hf_agent_channel *ret, struct hf_error *error)
{
	struct hf_agent_channel c = {0};
	struct hf_option o;
	struct hf_traits t;
	size_t pos = 1;
	int r;

	hf_traits_find(guest->argv, guest->n_argv, &t);
	if (!t.agent_chardev[0])
		return hf_error_set(
			error, -ENODEV, HF_ERR_FAILED, NULL, "it has no channel for a guest agent");
	snprintf(c.label, sizeof(c.label), "%s", t.agent_chardev);
	while (hf_option_next(guest->argv, guest->n_argv, &pos, &o)) {
		cleanup_params struct hf_params v = {0};
		const char *id;

		if (o.kind != HF_OPTION_CHARDEV || hf_params_parse(o.value, "backend", &v) < 0)
			continue;
		id = hf_params_get_first(&v, "id");
		if (!id || strcmp(id, c.label) != 0)
			continue;
		r = take_socket(&v, guest, &c, error);
		if (r == 0)
			*ret = c;
		return r;
	}
	return refuse(error, "its chardev is not on the command line");
}
