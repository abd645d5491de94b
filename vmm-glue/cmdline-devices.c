/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "vmm-glue/cmdline-internal.h"

/* Of the kernel, drivers/net/tun.c. */
#define MAX_TAP_QUEUES 256
#define MAX_FD 100000 /* of a number that libvirt gives: it counts upwards from its own */

/* Descriptors that whoever started QEMU left open for it: nobody is there to do so again. */
static void refuse_fd(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	hf_cmdline_refuse(p, "let QEMU open it itself, by name or path",
		"-%s uses a file descriptor that was handed to QEMU", o->name);
}

static bool is_fd_path(const char *s)
{
	return hf_has_prefix(s, "/dev/fd/") || hf_has_prefix(s, "/dev/fdset/") ||
	       hf_has_prefix(s, "/proc/self/fd/") || hf_has_prefix(s, "/proc/thread-self/fd/");
}

static bool is_fd_key(const char *key)
{
	static const char *const keys[] = {
		"fd", "fds", "vhostfd", "vhostfds", "sock_fd", "sock-fds", "socket_fd"};
	const char *last = strrchr(key, '.') ? strrchr(key, '.') + 1 : key;

	for (size_t i = 0; i < HF_ARRAY_SIZE(keys); i++)
		if (strcmp(last, keys[i]) == 0)
			return true;
	return false;
}

static int add_fd(struct hf_cmdline_parse *p, const struct hf_option *o,
	enum hf_manifest_fd_kind kind, const char *id, const char *number, const char **ret_end)
{
	struct hf_cmdline *plan = p->plan;
	struct hf_cmdline_fd *fds;
	char *end, *copy;
	long n = strtol(number, &end, 10);

	*ret_end = end;
	if (!isdigit((unsigned char)*number) || n < 3 || n > MAX_FD || !id ||
		plan->n_fds == HF_MANIFEST_MAX_FDS) {
		refuse_fd(p, o);
		return 0;
	}
	copy = strdup(id);
	fds = copy ? reallocarray(plan->fds, plan->n_fds + 1, sizeof(*fds)) : NULL;
	if (!fds) {
		free(copy);
		return -ENOMEM;
	}
	plan->fds = fds;
	fds[plan->n_fds++] =
		(struct hf_cmdline_fd){.fd = (int)n, .kind = kind, .id = copy, .set = -1};
	return 0;
}

/* ---- files of consoles ---- */

#define FDSET "/dev/fdset/"

static struct hf_cmdline_fd *file_of_set(struct hf_cmdline *plan, const char *set)
{
	char *end;
	long n = strtol(set, &end, 10);

	if (!isdigit((unsigned char)*set) || *end)
		return NULL;
	for (size_t i = 0; i < plan->n_fds; i++)
		if (plan->fds[i].kind == HF_FD_FILE && plan->fds[i].set == n)
			return &plan->fds[i];
	return NULL;
}

/* libvirt hands over what a console writes to as a set of one, which a chardev then names. */
static int on_add_fd(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	cleanup_params struct hf_params v = {0};
	const char *set, *fd, *end = "";
	int r;

	r = p->plan->libvirt ? hf_params_parse(o->value, NULL, &v) : -EBADMSG;
	if (r == -ENOMEM)
		return r;
	set = r == 0 ? hf_params_get(&v, "set") : NULL;
	fd = r == 0 ? hf_params_get(&v, "fd") : NULL;
	if (!set || !fd || !hf_params_get(&v, "opaque") || v.n != 3 ||
		!isdigit((unsigned char)*set) || strlen(set) > 6 ||
		set[strspn(set, "0123456789")] || file_of_set(p->plan, set)) {
		refuse_fd(p, o);
		return 0;
	}
	r = add_fd(p, o, HF_FD_FILE, hf_params_get(&v, "opaque"), fd, &end);
	if (r < 0 || p->plan->reason[0])
		return r;
	p->plan->fds[p->plan->n_fds - 1].set = atoi(set);
	if (*end)
		refuse_fd(p, o);
	return 0;
}

/* A chardev that writes to such a set: both have to have the name of the same device. */
static void on_fdset(struct hf_cmdline_parse *p, const struct hf_option *o,
	const struct hf_params *v, const struct hf_param *param)
{
	const char *id = hf_params_get_first(v, "id"), *type = hf_params_get(v, "backend");
	bool log = strcmp(param->key, "logfile") == 0;
	struct hf_cmdline_fd *f = NULL;
	char opaque[256];

	if (p->plan->libvirt && o->kind == HF_OPTION_CHARDEV && !v->json && id && type &&
		hf_has_prefix(id, "char") && hf_has_prefix(param->value, FDSET) &&
		hf_params_is_on(v, log ? "logappend" : "append") &&
		(log || (strcmp(param->key, "path") == 0 && strcmp(type, "file") == 0)))
		f = file_of_set(p->plan, param->value + strlen(FDSET));
	/* Only then is `id` known to be longer than that. */
	if (f)
		snprintf(opaque, sizeof(opaque), "%.200s-%s", id + strlen("char"),
			log ? "log" : "source");
	if (!f || f->used || strcmp(f->id, opaque) != 0)
		refuse_fd(p, o);
	else
		f->used = true;
}

void hf_cmdline_check_files(struct hf_cmdline_parse *p)
{
	const struct hf_option o = {.name = "add-fd"};

	for (size_t i = 0; i < p->plan->n_fds; i++)
		if (p->plan->fds[i].kind == HF_FD_FILE && !p->plan->fds[i].used)
			refuse_fd(p, &o);
}

/* ---- other descriptors ---- */

/* What libvirt hands to QEMU, as far as it can be made anew: sockets that listen, queues of taps.
 */
static int libvirt_fd(struct hf_cmdline_parse *p, const struct hf_option *o,
	const struct hf_params *v, const struct hf_param *param)
{
	const char *key = param->key,
		   *id = v->json ? hf_params_get(v, "id") : hf_params_get_first(v, "id");
	const char *type = hf_params_get(v, o->kind == HF_OPTION_CHARDEV ? "backend" : "type");
	enum hf_manifest_fd_kind kind;
	const char *s = param->value;
	int r;

	if (o->kind == HF_OPTION_CHARDEV && type && strcmp(type, "socket") == 0 &&
		strcmp(key, "fd") == 0 && hf_params_is_on(v, "server")) {
		kind = HF_FD_LISTEN;
	} else if (o->kind == HF_OPTION_NETDEV && type && strcmp(type, "tap") == 0 &&
		   (strcmp(key, "fd") == 0 || strcmp(key, "fds") == 0)) {
		kind = HF_FD_TAP;
	} else if (o->kind == HF_OPTION_NETDEV && type && strcmp(type, "tap") == 0 &&
		   (strcmp(key, "vhostfd") == 0 || strcmp(key, "vhostfds") == 0)) {
		kind = HF_FD_VHOST;
	} else {
		refuse_fd(p, o);
		return 0;
	}
	for (;;) {
		r = add_fd(p, o, kind, id, s, &s);
		if (r < 0 || *s != ':')
			break;
		s++;
	}
	if (r == 0 && *s)
		refuse_fd(p, o);
	return r;
}

static int scan_fds(
	struct hf_cmdline_parse *p, const struct hf_option *o, const struct hf_params *v)
{
	int r = 0;

	for (size_t i = 0; i < v->n; i++) {
		const char *key = v->v[i].key;
		size_t len = strlen(key);

		if (is_fd_key(key) && p->plan->libvirt)
			r = libvirt_fd(p, o, v, &v->v[i]);
		else if (hf_has_prefix(v->v[i].value, FDSET))
			on_fdset(p, o, v, &v->v[i]);
		else if (is_fd_key(key) || is_fd_path(v->v[i].value))
			refuse_fd(p, o);
		if (r < 0)
			return r;
		/* Socket addresses of netdevs and block devices: addr.type=fd,addr.str=7. */
		if (len > 5 && strcmp(key + len - 5, ".type") == 0 &&
			strcmp(v->v[i].value, "fd") == 0)
			refuse_fd(p, o);
	}
	return 0;
}

static void on_device(struct hf_cmdline_parse *p, const struct hf_params *v)
{
	const char *driver = hf_params_get(v, "driver");

	if (!driver)
		return;
	if (hf_has_prefix(driver, "vfio-") || hf_has_prefix(driver, "x-vfio-") ||
		strcmp(driver, "iommufd") == 0)
		hf_cmdline_refuse(p, "use virtio devices",
			"it has a host device passed through (%.64s)", driver);
	else if (hf_has_prefix(driver, "vhost-vdpa") || hf_has_prefix(driver, "vhost-user-") ||
		 hf_has_prefix(driver, "vhost-user."))
		hf_cmdline_refuse(p, "use the virtio device that QEMU or the kernel runs itself",
			"its device %.64s is run by another process or by hardware, which doesn't "
			"cross",
			driver);
	else if (hf_has_prefix(driver, "virtio-mem"))
		/* QEMU 7.2 throws the RAM away when the device is made, also with -incoming. */
		hf_cmdline_refuse(p, "use pc-dimm",
			"its device %.64s may empty its RAM when a new QEMU starts", driver);
	else if (strcmp(driver, "isa-serial") == 0 || strcmp(driver, "xen-console") == 0)
		p->default_serial = false;
}

static int copy_param(const struct hf_params *v, const char *key, char **ret)
{
	const char *value = hf_params_get(v, key);

	if (!value)
		return 0;
	*ret = strdup(value);
	return *ret ? 0 : -ENOMEM;
}

/* Numbers are decimal, octal or hexadecimal to QEMU. Return: 0 for what is none, or too many. */
static uint32_t parse_queues(const char *text)
{
	unsigned long long n;
	char *end;

	/* strtoull() would take spaces and a sign; what is beyond its range is out of ours too. */
	if (!isdigit((unsigned char)*text))
		return 0;
	n = strtoull(text, &end, 0);
	return *end || n > MAX_TAP_QUEUES ? 0 : (uint32_t)n;
}

static int on_tap(struct hf_cmdline_parse *p, const struct hf_params *v, bool bridge)
{
	struct hf_cmdline *plan = p->plan;
	struct hf_cmdline_tap *t;
	const char *queues = hf_params_get(v, "queues");
	int r;

	t = realloc(plan->taps, (plan->n_taps + 1) * sizeof(*t));
	if (!t)
		return -ENOMEM;
	plan->taps = t;
	t += plan->n_taps++;
	*t = (struct hf_cmdline_tap){.queues = queues ? parse_queues(queues) : 1};
	if (t->queues == 0) {
		hf_cmdline_refuse(p, "give it 1 to 256 queues, or leave queues= out",
			"a tap can't have queues=%.64s", queues);
		t->queues = 1;
	}
	t->helper_used = bridge || hf_params_get(v, "helper");
	if (hf_params_get_first(v, "id") && !(t->id = strdup(hf_params_get_first(v, "id"))))
		return -ENOMEM;
	r = copy_param(v, "ifname", &t->ifname);
	if (r == 0)
		r = copy_param(v, "script", &t->script);
	if (r == 0)
		r = copy_param(v, "downscript", &t->downscript);
	if (r == 0)
		r = copy_param(v, "br", &t->bridge);
	if (r == 0)
		r = copy_param(v, "helper", &t->helper);
	return r;
}

static int on_netdev(
	struct hf_cmdline_parse *p, const struct hf_option *o, const struct hf_params *v)
{
	const char *type = hf_params_get(v, "type");

	if (!type)
		return 0;
	if (strcmp(type, "vhost-user") == 0 || strcmp(type, "vhost-vdpa") == 0 ||
		hf_params_is_on(v, "vhost-user"))
		hf_cmdline_refuse(p, "use a tap",
			"-%s %s is run by another process or by hardware, which doesn't cross",
			o->name, type);
	else if (p->plan->libvirt && strcmp(type, "tap") == 0)
		return 0; /* its queues are descriptors, and have its name */
	else if (strcmp(type, "tap") == 0 || strcmp(type, "bridge") == 0)
		return on_tap(p, v, strcmp(type, "bridge") == 0);
	return 0;
}

/* Whom QEMU connects to has to be there. */
static int on_libvirt_chardev(struct hf_cmdline_parse *p, const struct hf_params *v)
{
	struct hf_cmdline *plan = p->plan;
	const char *backend = hf_params_get(v, "backend"), *path = hf_params_get(v, "path");
	char **sockets, *copy;

	if (!backend || strcmp(backend, "socket") != 0 || !path || hf_params_is_on(v, "server"))
		return 0;
	if (plan->n_sockets == HF_MANIFEST_MAX_HELPERS) {
		hf_cmdline_refuse(p, "use fewer", "QEMU connects to more than %d sockets",
			HF_MANIFEST_MAX_HELPERS);
		return 0;
	}
	copy = strdup(path);
	sockets = copy ? reallocarray(plan->sockets, plan->n_sockets + 1, sizeof(*sockets)) : NULL;
	if (!sockets) {
		free(copy);
		return -ENOMEM;
	}
	plan->sockets = sockets;
	sockets[plan->n_sockets++] = copy;
	return 0;
}

/* -serial, -monitor and the like: the old syntax, not a list. */
static void on_stream(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	const char *s = o->value;
	bool is_serial = strcmp(o->name, "serial") == 0;

	if (o->kind == HF_OPTION_MONITOR)
		p->default_monitor = false;
	if (is_serial)
		p->default_serial = false;
	if (hf_has_prefix(s, "mon:")) {
		s += 4;
		/* QEMU looks for the monitor in these two only. */
		if (is_serial || strcmp(o->name, "parallel") == 0)
			p->default_monitor = false;
	}
	if (hf_has_prefix(s, "stdio") && (!s[5] || s[5] == ','))
		p->plan->stdio = true;
}

/* -set group.id.arg=value reaches into other options. */
static void on_set(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	char key[256];

	snprintf(key, sizeof(key), "%.*s", (int)strcspn(o->value, "="), o->value);
	if (!hf_has_prefix(key, "device.") || is_fd_key(key) || strstr(key, "memdev"))
		hf_cmdline_refuse(p, "write it into the option itself",
			"-set %.100s changes another option", key);
}

static void on_global(
	struct hf_cmdline_parse *p, const struct hf_option *o, const struct hf_params *v)
{
	const char *driver = hf_params_get(v, "driver") ?: o->value;

	if (hf_has_prefix(driver, "memory-backend"))
		hf_cmdline_refuse(p, "write it into each -object",
			"-global %.100s changes how RAM is made", o->value);
	if (hf_has_prefix(driver, "isa-serial") || hf_has_prefix(driver, "xen-console"))
		p->default_serial = false;
}

static void on_tpm(struct hf_cmdline_parse *p, const struct hf_params *v)
{
	const char *type = hf_params_get(v, "type");

	/* libvirt's is swtpm, which the chardev leads to; its state is in the device state. */
	if (type && !(p->plan->libvirt && strcmp(type, "emulator") == 0))
		hf_cmdline_refuse(p, "run it without a TPM",
			"its TPM (%.64s) is run by another process or by hardware, which doesn't "
			"cross",
			type);
}

static const char *implied_key(enum hf_option_kind kind)
{
	switch (kind) {
	case HF_OPTION_DEVICE:
		return "driver";
	case HF_OPTION_CHARDEV:
		return "backend";
	case HF_OPTION_OBJECT:
		return "qom-type";
	case HF_OPTION_FSDEV:
		return "fsdriver";
	case HF_OPTION_NETDEV:
	case HF_OPTION_NET:
	case HF_OPTION_TPMDEV:
	case HF_OPTION_DISPLAY:
		return "type";
	default:
		return NULL;
	}
}

/* Options that are fatal, or say one thing, whatever their value. Return: handled. */
static bool on_simple(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	switch (o->kind) {
	case HF_OPTION_DAEMONIZE:
		p->plan->daemonize = true;
		hf_cmdline_refuse(p, "let a service manager run it in the background",
			"-daemonize gives QEMU another process id than it was started with");
		return true;
	case HF_OPTION_INCOMING:
		/* A domain that was restored or migrated here; it is over, or QEMU says so. */
		if (p->plan->libvirt)
			return true;
		hf_cmdline_refuse(p, "start it anew without -incoming when you can",
			"it was started to receive a migration (-incoming)");
		return true;
	case HF_OPTION_PRECONFIG:
		hf_cmdline_refuse(p, "put everything on the command line",
			"-preconfig leaves its configuration to somebody else");
		return true;
	case HF_OPTION_READCONFIG:
		hf_cmdline_refuse(p, "put what it contains on the command line",
			"-readconfig takes options from the file %.200s", o->value);
		return true;
	case HF_OPTION_SNAPSHOT:
		hf_cmdline_refuse(p, "give it a disk overlay of its own",
			"-snapshot keeps what it writes in files that end with QEMU");
		return true;
	case HF_OPTION_XEN:
		hf_cmdline_refuse(p, "use KVM", "its RAM belongs to Xen");
		return true;
	case HF_OPTION_MON:
		p->default_monitor = false;
		return true;
	case HF_OPTION_NODEFAULTS:
		p->no_defaults = true;
		return true;
	case HF_OPTION_NOGRAPHIC:
		p->plan->nographic = true;
		return true;
	case HF_OPTION_MONITOR:
	case HF_OPTION_CHARSTREAM:
		on_stream(p, o);
		return true;
	case HF_OPTION_SET:
		on_set(p, o);
		return true;
	case HF_OPTION_LOADVM:
		return true;
	default:
		return false;
	}
}

int hf_cmdline_device(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	cleanup_params struct hf_params v = {0};
	int r;

	if (on_simple(p, o))
		return 0;
	if (o->kind == HF_OPTION_ADD_FD)
		return on_add_fd(p, o);
	if (o->kind == HF_OPTION_PLAIN || o->kind == HF_OPTION_IMAGE) {
		if (is_fd_path(o->kind == HF_OPTION_IMAGE ? o->name : o->value))
			refuse_fd(p, o);
		return 0;
	}
	r = hf_params_parse(o->value, implied_key(o->kind), &v);
	if (r == -EBADMSG) {
		hf_cmdline_refuse(p, "write it in the plain key=value form",
			"the value of -%s can't be read", o->name);
		return 0;
	}
	if (r < 0)
		return r;
	r = scan_fds(p, o, &v);
	if (r < 0)
		return r;
	switch (o->kind) {
	case HF_OPTION_DEVICE:
		on_device(p, &v);
		break;
	case HF_OPTION_NETDEV:
	case HF_OPTION_NET:
		return on_netdev(p, o, &v);
	case HF_OPTION_CHARDEV:
		if (hf_params_get(&v, "backend") &&
			strcmp(hf_params_get(&v, "backend"), "stdio") == 0)
			p->plan->stdio = true;
		if (p->plan->libvirt)
			return on_libvirt_chardev(p, &v);
		break;
	case HF_OPTION_DISPLAY:
		if (hf_params_get(&v, "type") && strcmp(hf_params_get(&v, "type"), "curses") == 0)
			p->display_stdio = true;
		break;
	case HF_OPTION_DRIVE:
		if (hf_params_is_on(&v, "snapshot"))
			hf_cmdline_refuse(p, "give it a disk overlay of its own",
				"a drive with snapshot=on keeps what is written in a file that "
				"ends "
				"with QEMU");
		break;
	case HF_OPTION_OVERCOMMIT:
		p->plan->mem_lock = hf_params_get(&v, "mem-lock") &&
				    strcmp(hf_params_get(&v, "mem-lock"), "off") != 0;
		break;
	case HF_OPTION_GLOBAL:
		on_global(p, o, &v);
		break;
	case HF_OPTION_TPMDEV:
		on_tpm(p, &v);
		break;
	default:
		break;
	}
	return 0;
}
