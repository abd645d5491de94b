/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "vmm-glue/cmdline-internal.h"

#define CANONICAL "x-use-canonical-path-for-ramblock-id"
#define FILE_BACKEND "memory-backend-file"
/*
 * QEMU maps a file at any page boundary. Then no 2 MiB page of the file can be mapped whole, and
 * the kernel doesn't even allocate one: preserve, retrieve and the new kernel's boot would handle
 * 512 times as many folios.
 */
#define HUGE_ALIGN 2097152

/* A growing text; after a failure it stays failed. */
struct text {
	char *s;
	size_t n, room;
	bool failed;
};

static void text_add(struct text *t, const char *s, size_t n)
{
	if (!t->failed && t->n + n + 1 > t->room) {
		size_t room = (t->n + n + 1) * 2;
		char *p = realloc(t->s, room);

		if (p) {
			t->s = p;
			t->room = room;
		} else {
			t->failed = true;
		}
	}
	if (t->failed)
		return;
	memcpy(t->s + t->n, s, n);
	t->n += n;
	t->s[t->n] = 0;
}

static void text_puts(struct text *t, const char *s)
{
	text_add(t, s, strlen(s));
}

static void HF_PRINTF(2, 3) text_printf(struct text *t, const char *fmt, ...)
{
	char buf[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	if (n < 0 || n >= (int)sizeof(buf))
		t->failed = true;
	else
		text_add(t, buf, n);
}

/* A value within a list: commas doubled. */
static void text_value(struct text *t, const char *value)
{
	for (const char *s = value; *s; s++)
		text_add(t, *s == ',' ? ",," : s, *s == ',' ? 2 : 1);
}

/* The new argv: strings behind each other, split at the end. */
struct args {
	struct text text;
	size_t n;
};

static void args_add(struct args *a, const char *s)
{
	text_add(&a->text, s, strlen(s) + 1);
	a->n++;
}

static int args_finish(struct args *a, char ***ret_argv, size_t *ret_n)
{
	char **argv = NULL;
	char *s;

	if (!a->text.failed)
		argv = malloc((a->n + 1) * sizeof(*argv) + a->text.n);
	if (!argv)
		return -ENOMEM;
	s = (char *)(argv + a->n + 1);
	memcpy(s, a->text.s, a->text.n);
	for (size_t i = 0; i < a->n; i++) {
		argv[i] = s;
		s += strlen(s) + 1;
	}
	argv[a->n] = NULL;
	*ret_argv = argv;
	if (ret_n)
		*ret_n = a->n;
	return 0;
}

bool hf_cmdline_replaced(const char *key)
{
	static const char *const keys[] = {
		"qom-type", "share", "mem-path", "discard-data", "hugetlb", "hugetlbsize", "seal"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i], key) == 0)
			return true;
	return false;
}

/*
 * With machine types up to 3.1, memory-backend-file and -memfd name their RAMBlock after the
 * object's full path ("/objects/m0") and the others after its id alone. So an object that was
 * neither must say that it wants the id.
 */
static bool needs_plain_name(const struct hf_params *v)
{
	const char *type = hf_params_get(v, "qom-type");

	return type && strcmp(type, "memory-backend-memfd") != 0 &&
	       strcmp(type, FILE_BACKEND) != 0 && !hf_params_get(v, CANONICAL);
}

/* What is left out of a list: of its keys those, and one more. */
struct without {
	bool (*key)(const char *key);
	const char *also; /* or NULL */
};

static bool is_without(const struct without *w, const char *key)
{
	return w->key(key) || (w->also && strcmp(w->also, key) == 0);
}

static void keep_list(
	const struct hf_params *v, const char *original, const struct without *w, struct text *out)
{
	for (size_t i = 0; i < v->n; i++) {
		const struct hf_param *part = &v->v[i];

		if (is_without(w, part->key))
			continue;
		text_puts(out, ",");
		text_add(out, original + part->start, part->length);
	}
}

/* Likewise of an object, to one that has some already. */
static int keep_json(const char *original, const struct without *w, struct json_object *out)
{
	cleanup_json struct json_object *in = NULL;
	int r = hf_json_parse(original, strlen(original), 8, &in);

	if (r < 0 || !out)
		return r < 0 ? r : -ENOMEM;
	json_object_object_foreach (in, key, value) {
		if (!is_without(w, key))
			hf_json_add(out, key, json_object_get(value));
	}
	return 0;
}

static void text_json(struct text *t, struct json_object *o)
{
	text_puts(t, json_object_to_json_string_ext(
			     o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
			     ?: "");
}

static void rewrite_list(
	const struct hf_params *v, const char *original, int fd, bool no_prealloc, struct text *out)
{
	const struct without w = {hf_cmdline_replaced, no_prealloc ? "prealloc" : NULL};

	text_puts(out, FILE_BACKEND);
	keep_list(v, original, &w, out);
	text_printf(out, ",share=on,mem-path=/proc/self/fd/%d", fd);
	if (!hf_params_get(v, "align"))
		text_printf(out, ",align=%d", HUGE_ALIGN);
	if (needs_plain_name(v))
		text_puts(out, "," CANONICAL "=off");
	if (no_prealloc)
		text_puts(out, ",prealloc=off");
}

static int rewrite_json(
	const struct hf_params *v, const char *original, int fd, bool no_prealloc, struct text *out)
{
	const struct without w = {hf_cmdline_replaced, no_prealloc ? "prealloc" : NULL};
	cleanup_json struct json_object *obj = json_object_new_object();
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	hf_json_add_string(obj, "qom-type", FILE_BACKEND);
	r = keep_json(original, &w, obj);
	if (r < 0)
		return r;
	hf_json_add_bool(obj, "share", true);
	hf_json_add_string(obj, "mem-path", path);
	if (!hf_params_get(v, "align"))
		hf_json_add_int(obj, "align", HUGE_ALIGN);
	if (needs_plain_name(v))
		hf_json_add_bool(obj, CANONICAL, false);
	if (no_prealloc)
		hf_json_add_bool(obj, "prealloc", false);
	text_json(out, obj);
	return 0;
}

/* What an option's value was made into, if @r says that it was. Takes the text. */
static int add_rewritten(struct args *a, int r, struct text *out)
{
	if (r == 0 && (out->failed || !out->n))
		r = -ENOMEM;
	if (r == 0)
		args_add(a, out->s);
	free(out->s);
	return r == -EBADMSG ? -EINVAL : r;
}

/* The value of a memory object's -object, with the memfd in the place of what it had. */
static int add_object(struct args *a, const char *original, int fd, bool no_prealloc)
{
	cleanup_params struct hf_params v = {0};
	struct text out = {0};
	int r;

	r = hf_params_parse(original, "qom-type", &v);
	if (r == 0 && v.json)
		r = rewrite_json(&v, original, fd, no_prealloc, &out);
	else if (r == 0)
		rewrite_list(&v, original, fd, no_prealloc, &out);
	return add_rewritten(a, r, &out);
}

/* What QEMU doesn't take beside fd=: net_init_tap(), net/tap.c. */
static bool is_tap_opening(const char *key)
{
	static const char *const keys[] = {
		"type", "ifname", "script", "downscript", "vnet_hdr", "queues"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i], key) == 0)
			return true;
	return false;
}

/* The value of a -netdev that is a tap, with a descriptor in the place of its name. */
static int add_tap(struct args *a, const struct hf_params *v, const char *original, int fd)
{
	const struct without w = {is_tap_opening, NULL};
	cleanup_json struct json_object *obj = NULL;
	struct text out = {0};
	char number[16];
	int r = 0;

	snprintf(number, sizeof(number), "%d", fd);
	if (v->json) {
		obj = json_object_new_object();
		hf_json_add_string(obj, "type", "tap");
		hf_json_add_string(obj, "fd", number);
		r = keep_json(original, &w, obj);
		if (r == 0)
			text_json(&out, obj);
	} else {
		text_puts(&out, "tap");
		keep_list(v, original, &w, &out);
		text_puts(&out, ",fd=");
		text_puts(&out, number);
	}
	return add_rewritten(a, r, &out);
}

/* The value of a -netdev as it is, or with the next of the descriptors. */
static int add_netdev(struct args *a, const char *original, const int **tap_fds)
{
	cleanup_params struct hf_params v = {0};
	const char *type;
	int r = hf_params_parse(original, "type", &v);

	if (r < 0)
		return r == -EBADMSG ? -EINVAL : r;
	type = hf_params_get(&v, "type");
	if (type && strcmp(type, "tap") == 0)
		return add_tap(a, &v, original, *(*tap_fds)++);
	args_add(a, original);
	return 0;
}

static const struct hf_cmdline_ram *ram_of_arg(const struct hf_cmdline *plan, size_t arg)
{
	for (size_t i = 0; i < plan->n_ram; i++)
		if (plan->ram[i].arg == (int)arg)
			return &plan->ram[i];
	return NULL;
}

/* Strings that were put together, as one argument. Takes the text. */
static void add_text(struct args *a, const char *option, struct text *t)
{
	args_add(a, option);
	if (t->failed || !t->s)
		a->text.failed = true;
	else
		args_add(a, t->s);
	free(t->s);
	*t = (struct text){0};
}

static void add_default_ram(struct args *a, const struct hf_cmdline *plan,
	const struct hf_cmdline_how *how, bool no_prealloc)
{
	struct text t = {0};
	const struct hf_cmdline_ram *ram = NULL;

	for (size_t i = 0; i < plan->n_ram; i++)
		if (plan->ram[i].arg < 0)
			ram = &plan->ram[i];
	if (ram) {
		text_printf(&t,
			FILE_BACKEND ",id=%s,size=%llu,share=on,mem-path=/proc/self/fd/%d,align=%d",
			ram->id, (unsigned long long)ram->size, how->ram_fds[ram - plan->ram],
			HUGE_ALIGN);
		text_puts(&t, "," CANONICAL "=off");
		if (no_prealloc)
			text_puts(&t, ",prealloc=off");
		add_text(a, "-object", &t);
	}
	/* A further -machine merges with the user's, key by key. */
	if (ram || how->machine_type) {
		if (how->machine_type) {
			text_puts(&t, "type=");
			text_value(&t, how->machine_type);
		}
		if (ram) {
			text_puts(&t, how->machine_type ? ",memory-backend=" : "memory-backend=");
			text_puts(&t, ram->id);
		}
		add_text(a, "-machine", &t);
	}
}

/*
 * Any monitor on the command line takes away the one QEMU makes by itself, so that one is added
 * too; first, for it keeps its name that way. -qmp and not -mon, which QEMU 11 warns about.
 */
static void add_monitor(struct args *a, const struct hf_cmdline *plan, const char *path)
{
	struct text t = {0};

	if (plan->default_monitor && plan->nographic && plan->default_serial) {
		args_add(a, "-serial");
		args_add(a, "mon:stdio");
	} else if (plan->default_monitor) {
		args_add(a, "-monitor");
		args_add(a, plan->nographic ? "stdio" : "vc");
	}
	text_puts(&t, "unix:");
	text_value(&t, path);
	text_puts(&t, ",server=on,wait=off");
	add_text(a, "-qmp", &t);
}

int hf_cmdline_build(const struct hf_cmdline *plan, const struct hf_cmdline_how *how,
	char ***ret_argv, size_t *ret_n, struct hf_error *e)
{
	bool no_prealloc = how->respawn && plan->prealloc;
	const int *tap_fds = how->tap_fds;
	struct args a = {0};
	struct hf_option o;
	size_t pos = 1;
	int r = 0;

	args_add(&a, plan->argv[0]);
	while (r == 0 && hf_option_next(plan->argv, plan->n_argv, &pos, &o)) {
		const struct hf_cmdline_ram *ram =
			how->monitor_only ? NULL : ram_of_arg(plan, o.value_arg);

		if (how->respawn && (o.kind == HF_OPTION_LOADVM || o.kind == HF_OPTION_INCOMING))
			continue;
		args_add(&a, plan->argv[o.arg]);
		if (ram)
			r = add_object(&a, o.value, how->ram_fds[ram - plan->ram], no_prealloc);
		else if (tap_fds && o.kind == HF_OPTION_NETDEV)
			r = add_netdev(&a, o.value, &tap_fds);
		else if (o.value_arg != o.arg)
			args_add(&a, o.value);
	}
	if (!how->monitor_only)
		add_default_ram(&a, plan, how, no_prealloc);
	if (how->qmp_path)
		add_monitor(&a, plan, how->qmp_path);
	if (how->respawn) {
		args_add(&a, "-incoming");
		args_add(&a, "defer");
		args_add(&a, "-S");
	}
	if (r == 0)
		r = args_finish(&a, ret_argv, ret_n);
	free(a.text.s);
	if (r < 0)
		hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "writing the command line: %s", strerror(-r));
	return r;
}
