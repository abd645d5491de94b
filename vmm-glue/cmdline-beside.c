/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/cmdline-beside.h"

#include <stdio.h>
#include <string.h>

#include "vmm-glue/cmdline-internal.h"

#define REMEDY \
	"shut it down and start it on the new QEMU, or replace QEMU by an update of a holdfastd " \
	"that was started with --carrier hold, which ends the old one first"

static bool is_one_of(const char *s, const char *const *words)
{
	for (; *words; words++)
		if (strcmp(s, *words) == 0)
			return true;
	return false;
}

static int refuse(struct hf_error *e, const char *option, const char *value, const char *why)
{
	return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, REMEDY,
		"no second QEMU can be started beside the one that runs, as %s: -%s %.160s", why,
		option, value);
}

static int add_path(struct hf_beside_paths *paths, const char *path, size_t length)
{
	char *copy = strndup(path, length);
	char **v = copy ? reallocarray(paths->v, paths->n + 1, sizeof(*v)) : NULL;

	if (!v) {
		free(copy);
		return -ENOMEM;
	}
	paths->v = v;
	v[paths->n++] = copy;
	return 0;
}

/* What stands in front of the first comma that isn't doubled. */
static size_t first_part(const char *s)
{
	size_t n = 0;

	while (s[n] && (s[n] != ',' || s[n + 1] == ','))
		n += s[n] == ',' ? 2 : 1;
	return n;
}

/* unix:PATH[,server=on,…] */
static int on_unix(
	const struct hf_option *o, const char *s, struct hf_beside_paths *paths, struct hf_error *e)
{
	cleanup_params struct hf_params v = {0};
	const char *path;
	int r;

	r = hf_params_parse(s + strlen("unix:"), "path", &v);
	if (r < 0)
		return r == -EBADMSG ? refuse(e, o->name, o->value, "this can't be read") : r;
	path = hf_params_get(&v, "path");
	if (!path || !path[0] || !hf_params_is_on(&v, "server"))
		return refuse(e, o->name, o->value, "whoever it connects to has one client");
	return add_path(paths, path, strlen(path));
}

/* -serial, -monitor and the like. */
static int on_stream(const struct hf_option *o, struct hf_beside_paths *paths, struct hf_error *e)
{
	static const char *const words[] = {
		"none", "null", "vc", "pty", "stdio", "msmouse", "con:", NULL};
	const char *s = hf_has_prefix(o->value, "mon:") ? o->value + 4 : o->value;
	char word[16];

	snprintf(word, sizeof(word), "%.*s", (int)HF_MIN(first_part(s), sizeof(word) - 1), s);
	if (is_one_of(word, words) || hf_has_prefix(s, "vc:") || hf_has_prefix(s, "file:") ||
		hf_has_prefix(s, "chardev:"))
		return 0;
	if (hf_has_prefix(s, "unix:"))
		return on_unix(o, s, paths, e);
	return refuse(e, o->name, o->value, "a port or device has one user");
}

static int on_chardev(const struct hf_option *o, const struct hf_params *v,
	struct hf_beside_paths *paths, struct hf_error *e)
{
	static const char *const words[] = {"null", "file", "ringbuf", "memory", "vc", "pty",
		"stdio", "msmouse", "mux", "hub", "qemu-vdagent", "testdev", NULL};
	const char *backend = hf_params_get(v, "backend"), *path = hf_params_get(v, "path");

	if (!backend || is_one_of(backend, words))
		return 0;
	if (strcmp(backend, "socket") != 0)
		return refuse(e, o->name, o->value, "a port or device has one user");
	if (!path)
		return refuse(e, o->name, o->value, "a port has one user");
	if (!hf_params_is_on(v, "server"))
		return refuse(e, o->name, o->value, "whoever it connects to has one client");
	if (hf_params_is_on(v, "abstract"))
		return refuse(e, o->name, o->value, "an abstract socket has one user");
	return add_path(paths, path, strlen(path));
}

/* Found by its name among the descriptors of the QEMU that runs. */
static int on_tap(const struct hf_option *o, const struct hf_params *v,
	struct hf_beside_paths *paths, struct hf_error *e)
{
	static const char *const handed[] = {"fd", "fds", "vhostfd", "vhostfds", NULL};
	const char *ifname = hf_params_get(v, "ifname"), *queues = hf_params_get(v, "queues");

	for (size_t i = 0; handed[i]; i++)
		if (hf_params_get(v, handed[i]))
			return refuse(e, o->name, o->value, "its descriptor came from elsewhere");
	if (!ifname || !ifname[0] || strchr(ifname, '%') || hf_params_get(v, "helper") ||
		hf_params_get(v, "br"))
		return refuse(e, o->name, o->value, "the name of its tap is not known");
	if (queues && strcmp(queues, "1") != 0)
		return refuse(e, o->name, o->value, "each queue of a tap has one user");
	paths->taps = true;
	return 0;
}

static int on_net(const struct hf_option *o, const struct hf_params *v,
	struct hf_beside_paths *paths, struct hf_error *e)
{
	static const char *const words[] = {"user", "nic", "none", "hubport", NULL};
	const char *type = hf_params_get(v, "type");

	if (type && o->kind == HF_OPTION_NETDEV && strcmp(type, "tap") == 0)
		return on_tap(o, v, paths, e);
	if (type && !is_one_of(type, words))
		return refuse(e, o->name, o->value, "a network backend has one user");
	if (hf_params_get(v, "hostfwd"))
		return refuse(e, o->name, o->value, "a port has one user");
	return 0;
}

static int on_device(const struct hf_option *o, const struct hf_params *v, struct hf_error *e)
{
	const char *driver = hf_params_get(v, "driver");

	if (driver && (hf_has_prefix(driver, "vhost-") || hf_has_prefix(driver, "usb-host") ||
			      hf_has_prefix(driver, "u2f-passthru") ||
			      hf_has_prefix(driver, "virtio-input-host")))
		return refuse(e, o->name, o->value, "a device of the host has one user");
	return 0;
}

static int on_plain(const struct hf_option *o, struct hf_beside_paths *paths, struct hf_error *e)
{
	if (strcmp(o->name, "pidfile") == 0)
		return refuse(e, o->name, o->value, "QEMU locks that file");
	if (strcmp(o->name, "s") == 0 || strcmp(o->name, "spice") == 0)
		return refuse(e, o->name, o->value, "a port has one user");
	if (strcmp(o->name, "usbdevice") == 0 && hf_has_prefix(o->value, "host"))
		return refuse(e, o->name, o->value, "a device of the host has one user");
	if (strcmp(o->name, "vnc") != 0 || hf_has_prefix(o->value, "none"))
		return 0;
	if (!hf_has_prefix(o->value, "unix:"))
		return refuse(e, o->name, o->value, "a port has one user");
	return add_path(paths, o->value + strlen("unix:"), first_part(o->value) - strlen("unix:"));
}

static int on_params(const struct hf_option *o, struct hf_beside_paths *paths, struct hf_error *e)
{
	cleanup_params struct hf_params v = {0};
	const char *implied = o->kind == HF_OPTION_DEVICE    ? "driver"
			      : o->kind == HF_OPTION_CHARDEV ? "backend"
			      : o->kind == HF_OPTION_OBJECT  ? "qom-type"
							     : "type";
	const char *type;
	int r = hf_params_parse(o->value, implied, &v);

	if (r < 0)
		return r == -EBADMSG ? refuse(e, o->name, o->value, "this can't be read") : r;
	type = hf_params_get(&v, implied);
	switch (o->kind) {
	case HF_OPTION_CHARDEV:
		return on_chardev(o, &v, paths, e);
	case HF_OPTION_NET:
	case HF_OPTION_NETDEV:
		return on_net(o, &v, paths, e);
	case HF_OPTION_DEVICE:
		return on_device(o, &v, e);
	case HF_OPTION_OBJECT:
		return type && strcmp(type, "input-linux") == 0
			       ? refuse(e, o->name, o->value, "a device of the host has one user")
			       : 0;
	case HF_OPTION_DISPLAY:
		/* -display vnc=:1 */
		return hf_params_get(&v, "vnc") || (type && strcmp(type, "spice-app") == 0)
			       ? refuse(e, o->name, o->value, "a port has one user")
			       : 0;
	default: /* drives */
		type = hf_params_get(&v, "driver");
		return type && strcmp(type, "nvme") == 0
			       ? refuse(e, o->name, o->value, "a device of the host has one user")
			       : 0;
	}
}

static int on_option(const struct hf_option *o, struct hf_beside_paths *paths, struct hf_error *e)
{
	switch (o->kind) {
	case HF_OPTION_PLAIN:
		return on_plain(o, paths, e);
	case HF_OPTION_MONITOR:
	case HF_OPTION_CHARSTREAM:
		return on_stream(o, paths, e);
	case HF_OPTION_CHARDEV:
	case HF_OPTION_DEVICE:
	case HF_OPTION_DISPLAY:
	case HF_OPTION_DRIVE:
	case HF_OPTION_NET:
	case HF_OPTION_NETDEV:
	case HF_OPTION_OBJECT:
		return on_params(o, paths, e);
	default:
		return 0;
	}
}

int hf_cmdline_beside(
	const struct hf_cmdline *plan, struct hf_beside_paths *paths, struct hf_error *e)
{
	struct hf_option o;
	size_t pos = 1;
	int r = 0;

	while (r == 0 && hf_option_next(plan->argv, plan->n_argv, &pos, &o))
		r = on_option(&o, paths, e);
	if (r == -ENOMEM)
		hf_error_set(e, r, HF_ERR_FAILED, NULL, "out of memory");
	return r;
}

void hf_beside_paths_clear(struct hf_beside_paths *paths)
{
	for (size_t i = 0; i < paths->n; i++)
		free(paths->v[i]);
	free(paths->v);
	*paths = (struct hf_beside_paths){0};
}
