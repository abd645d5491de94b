/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vmm-glue/cmdline-internal.h"

#define MIB (1ULL << 20)
#define DEFAULT_MEMORY_BYTES (128 * MIB) /* of every x86 machine */
#define MEMORY_ALIGN 8192		 /* machine_set_mem() in QEMU rounds up to it */
#define RAM_ALIGN 4096

#define REMEDY_LIBVIRT \
	"`holdfast libvirt enable` gives the domain memory that can be preserved, from its next " \
	"start on"
#define REMEDY_RAM \
	"leave the RAM to -m, or use memory-backend-ram or memory-backend-memfd without hugetlb"

void hf_cmdline_refuse(struct hf_cmdline_parse *p, const char *remedy, const char *fmt, ...)
{
	struct hf_cmdline *plan = p->plan;
	va_list ap;

	if (plan->reason[0])
		return;
	va_start(ap, fmt);
	vsnprintf(plan->reason, sizeof(plan->reason), fmt, ap);
	va_end(ap);
	snprintf(plan->remedy, sizeof(plan->remedy), "%s", remedy);
}

static int set_string(char **field, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

/* A whole value that can't be read is no failure: QEMU will say what is wrong with it. */
static int parse_value(struct hf_cmdline_parse *p, const struct hf_option *o, const char *implied,
	struct hf_params *ret)
{
	int r = hf_params_parse(o->value, implied, ret);

	if (r != -EBADMSG)
		return r;
	hf_cmdline_refuse(p, "write it in the plain key=value form",
		"the value of -%s can't be read", o->name);
	return 1;
}

static int add_ram(struct hf_cmdline_parse *p, const char *id, uint64_t size, int arg)
{
	struct hf_cmdline *plan = p->plan;
	struct hf_cmdline_ram *ram;
	char *copy;

	if (plan->n_ram >= HF_MANIFEST_MAX_RAM) {
		hf_cmdline_refuse(p, "use fewer, larger memory objects",
			"it has more than %d memory objects", HF_MANIFEST_MAX_RAM);
		return 0;
	}
	for (size_t i = 0; i < plan->n_ram; i++)
		if (strcmp(plan->ram[i].id, id) == 0) {
			hf_cmdline_refuse(p, "give every memory object an id of its own",
				"two memory objects have the id %.64s", id);
			return 0;
		}
	copy = strdup(id);
	ram = copy ? realloc(plan->ram, (plan->n_ram + 1) * sizeof(*ram)) : NULL;
	if (!ram) {
		free(copy);
		return -ENOMEM;
	}
	plan->ram = ram;
	plan->ram[plan->n_ram++] = (struct hf_cmdline_ram){.id = copy, .size = size, .arg = arg};
	return 0;
}

/* Files that the user names can't be swapped for others: who knows who else has them open. */
static void refuse_file(struct hf_cmdline_parse *p, const struct hf_params *v, const char *id)
{
	const char *path = hf_params_get(v, "mem-path");

	if (hf_params_is_on(v, "discard-data"))
		hf_cmdline_refuse(p, REMEDY_RAM,
			"RAM %.64s has discard-data=on: QEMU wipes it when it ends", id);
	else if (hf_params_is_on(v, "readonly") || hf_params_is_on(v, "rom"))
		hf_cmdline_refuse(p, REMEDY_RAM, "RAM %.64s is a read-only file", id);
	else if (path && (strstr(path, "hugepages") || strstr(path, "hugetlb")))
		hf_cmdline_refuse(p, REMEDY_RAM,
			"RAM %.64s is on hugetlbfs (%.200s), which can't be preserved", id, path);
	else if (!hf_params_is_on(v, "share"))
		hf_cmdline_refuse(p, REMEDY_RAM, "RAM %.64s is a private copy of the file %.200s",
			id, path ?: "?");
	else
		hf_cmdline_refuse(p, REMEDY_RAM,
			"RAM %.64s is the file %.200s, which others may use too", id, path ?: "?");
}

/* What file system it is on is seen where the file is opened. */
static bool is_plain_shared_file(const struct hf_params *v)
{
	const char *path = hf_params_get(v, "mem-path");

	return hf_params_is_on(v, "share") && path && !strstr(path, "hugepages") &&
	       !strstr(path, "hugetlb") && !hf_params_is_on(v, "discard-data") &&
	       !hf_params_is_on(v, "readonly") && !hf_params_is_on(v, "rom") &&
	       !hf_params_is_on(v, "pmem") && !hf_params_get(v, "offset");
}

/* QEMU shares them unless it is told otherwise. */
static bool is_shared_memfd(const struct hf_params *v, const char *kind)
{
	return strcmp(kind, "memfd") == 0 &&
	       (!hf_params_get(v, "share") || hf_params_is_on(v, "share"));
}

static int on_memory_object(struct hf_cmdline_parse *p, const struct hf_option *o,
	const struct hf_params *v, const char *kind)
{
	const char *id = v->json ? hf_params_get(v, "id") : hf_params_get_first(v, "id");
	const char *size = NULL;
	uint64_t bytes = 0;
	bool readable = false;

	if (!id || !*id) {
		hf_cmdline_refuse(p, "give it id=", "a memory object has no id");
		return 0;
	}
	if (hf_params_is_on(v, "prealloc"))
		p->plan->prealloc = true;
	if (strcmp(kind, "file") == 0 && !(p->plan->libvirt && is_plain_shared_file(v))) {
		refuse_file(p, v, id);
		return 0;
	}
	if (p->plan->libvirt && strcmp(kind, "file") != 0 && !is_shared_memfd(v, kind)) {
		hf_cmdline_refuse(p, REMEDY_LIBVIRT,
			"RAM %.64s is memory that nobody else can open (memory-backend-%.64s)", id,
			kind);
		return 0;
	}
	if (strcmp(kind, "file") != 0 && strcmp(kind, "ram") != 0 && strcmp(kind, "memfd") != 0 &&
		strcmp(kind, "shm") != 0) {
		hf_cmdline_refuse(p, REMEDY_RAM,
			"RAM %.64s is of type memory-backend-%.64s, which can't be preserved", id,
			kind);
		return 0;
	}
	if (hf_params_is_on(v, "hugetlb")) {
		hf_cmdline_refuse(p,
			p->plan->libvirt
				? "remove <hugepages/> from <memoryBacking>, then start "
				  "the domain anew"
				: "leave hugetlb out: RAM gets transparent huge pages where "
				  "/sys/kernel/mm/transparent_hugepage/shmem_enabled allows",
			"RAM %.64s is on hugetlb pages, which the kernel can't preserve", id);
		return 0;
	}
	for (size_t i = 0; i < v->n; i++)
		if (strcmp(v->v[i].key, "size") == 0) {
			size = v->v[i].value;
			/* In JSON a size is a number and nothing else. */
			readable = v->json != v->v[i].is_string;
		}
	if (!readable || hf_size_parse(size, 1, &bytes) < 0 || bytes == 0 ||
		bytes > INT64_MAX / 2) {
		hf_cmdline_refuse(p, "give it size= in bytes or with a suffix (2G)",
			"the size of RAM %.64s can't be read", id);
		return 0;
	}
	return add_ram(p, id, (bytes + RAM_ALIGN - 1) & ~(RAM_ALIGN - 1ULL), (int)o->value_arg);
}

static int on_object(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	static const char prefix[] = "memory-backend-";
	cleanup_params struct hf_params v = {0};
	const char *type;
	int r;

	r = parse_value(p, o, "qom-type", &v);
	if (r)
		return HF_MIN(r, 0);
	type = hf_params_get(&v, "qom-type");
	if (!type || strncmp(type, prefix, strlen(prefix)) != 0)
		return hf_cmdline_device(p, o);
	return on_memory_object(p, o, &v, type + strlen(prefix));
}

static int on_memory(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	cleanup_params struct hf_params v = {0};
	const char *size;
	int r;

	r = parse_value(p, o, "size", &v);
	if (r)
		return HF_MIN(r, 0);
	size = hf_params_get(&v, "size");
	/* A bare number counts MiB, and that goes by the last digit: 0x400 is 1 GiB. */
	if (size && hf_size_parse(size, MIB, &p->m_bytes) < 0)
		hf_cmdline_refuse(
			p, "write it as in -m 2G", "the memory size %.64s can't be read", size);
	return 0;
}

static bool list_has(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *s = list; s; s = strchr(s, ':') ? strchr(s, ':') + 1 : NULL)
		if (strncmp(s, word, len) == 0 && (!s[len] || s[len] == ':'))
			return true;
	return false;
}

static void on_accelerator(struct hf_cmdline_parse *p, const char *list)
{
	if (list_has(list, "kvm"))
		p->plan->kvm = true;
	if (list_has(list, "xen"))
		hf_cmdline_refuse(p, "use KVM", "its RAM belongs to Xen");
}

static int on_machine(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	cleanup_params struct hf_params v = {0};
	int r;

	r = parse_value(p, o, "type", &v);
	if (r)
		return HF_MIN(r, 0);
	for (size_t i = 0; i < v.n && r == 0; i++) {
		char *key = v.v[i].key;
		const char *value = v.v[i].value;

		/* QEMU takes an underscore for a dash here. */
		for (char *c = key; *c; c++)
			if (*c == '_')
				*c = '-';
		if (strcmp(key, "type") == 0) {
			r = set_string(&p->plan->machine, value);
		} else if (strcmp(key, "memory-backend") == 0) {
			p->has_backend = true;
		} else if (strcmp(key, "memory.size") == 0) {
			if (hf_size_parse(value, 1, &p->machine_memory_bytes) < 0)
				hf_cmdline_refuse(p, "write it as in -m 2G",
					"the memory size %.64s can't be read", value);
		} else if (strcmp(key, "accel") == 0) {
			on_accelerator(p, value);
		} else if (strcmp(key, "confidential-guest-support") == 0 ||
			   strcmp(key, "memory-encryption") == 0) {
			hf_cmdline_refuse(p,
				"shut it down for the update, or move it to another host",
				"it is a confidential guest: the host can't keep its RAM");
		} else if (strncmp(key, "sgx-epc", 7) == 0) {
			hf_cmdline_refuse(p, "run it without SGX",
				"it has SGX enclave memory, which can't be preserved");
		}
	}
	return r;
}

static int on_numa(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	cleanup_params struct hf_params v = {0};
	int r;

	r = parse_value(p, o, "type", &v);
	if (r)
		return HF_MIN(r, 0);
	if (hf_params_get(&v, "memdev"))
		p->has_memdev = true;
	return 0;
}

static int on_name(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	cleanup_params struct hf_params v = {0};
	int r;

	r = hf_params_parse(o->value, "guest", &v);
	if (r == -ENOMEM)
		return r;
	return hf_params_get(&v, "guest") ? set_string(&p->plan->name, hf_params_get(&v, "guest"))
					  : 0;
}

static int on_option(struct hf_cmdline_parse *p, const struct hf_option *o)
{
	struct hf_cmdline *plan = p->plan;

	switch (o->kind) {
	case HF_OPTION_MEMORY:
		return on_memory(p, o);
	case HF_OPTION_MACHINE:
		return on_machine(p, o);
	case HF_OPTION_OBJECT:
		return on_object(p, o);
	case HF_OPTION_NUMA:
		return on_numa(p, o);
	case HF_OPTION_NAME:
		return on_name(p, o);
	case HF_OPTION_UUID:
		return set_string(&plan->uuid, o->value);
	case HF_OPTION_ENABLE_KVM:
		plan->kvm = true;
		return 0;
	case HF_OPTION_S:
		plan->paused = !plan->libvirt;
		return 0;
	case HF_OPTION_MEM_PREALLOC:
		plan->prealloc = true;
		return 0;
	case HF_OPTION_MEM_PATH:
		hf_cmdline_refuse(
			p, REMEDY_RAM, "its RAM is in files under %.200s (-mem-path)", o->value);
		return 0;
	case HF_OPTION_PROBE:
		plan->kind = HF_CMDLINE_PROBE;
		return 0;
	case HF_OPTION_UNKNOWN:
		hf_cmdline_refuse(p, "leave the option out, or use a newer holdfast",
			"holdfast doesn't know what %.100s does", plan->argv[o->arg]);
		return 0;
	case HF_OPTION_MISSING:
		hf_cmdline_refuse(p, "complete the command line", "%.100s lacks its value",
			plan->argv[o->arg]);
		return 0;
	case HF_OPTION_ACCEL: {
		cleanup_params struct hf_params v = {0};
		int r = parse_value(p, o, "accel", &v);

		if (r == 0 && hf_params_get(&v, "accel"))
			on_accelerator(p, hf_params_get(&v, "accel"));
		return HF_MIN(r, 0);
	}
	default:
		return hf_cmdline_device(p, o);
	}
}

/* `help` or `?` as a part of the value: QEMU prints a list and ends. */
static bool asks_for_help(const struct hf_option *o)
{
	static const char *const words[] = {"help", "?", "model=help", "type=help"};

	if (!(o->flags & HF_OPTION_HAS_HELP) || o->kind == HF_OPTION_MISSING)
		return false;
	for (const char *s = o->value; s; s = strchr(s, ',') ? strchr(s, ',') + 1 : NULL)
		for (size_t i = 0; i < HF_ARRAY_SIZE(words); i++) {
			size_t len = strlen(words[i]);

			if (strncmp(s, words[i], len) == 0 && (!s[len] || s[len] == ','))
				return true;
		}
	return false;
}

/* What the machine calls its RAM when nobody names it. NULL: not a machine that is known here. */
static const char *default_ram_id(const struct hf_cmdline *plan)
{
	const char *program =
		strrchr(plan->argv[0], '/') ? strrchr(plan->argv[0], '/') + 1 : plan->argv[0];
	const char *type = plan->machine;

	if (strncmp(program, "qemu-system-", 12) == 0 &&
		strcmp(program, "qemu-system-x86_64") != 0 &&
		strcmp(program, "qemu-system-i386") != 0)
		return NULL;
	if (!type || strcmp(type, "pc") == 0 || strcmp(type, "q35") == 0 ||
		strcmp(type, "isapc") == 0 || strncmp(type, "pc-", 3) == 0)
		return "pc.ram";
	return strcmp(type, "microvm") == 0 ? "microvm.ram" : NULL;
}

static int finish(struct hf_cmdline_parse *p)
{
	struct hf_cmdline *plan = p->plan;
	const char *id = default_ram_id(plan);
	uint64_t bytes = p->m_bytes ?: p->machine_memory_bytes ?: DEFAULT_MEMORY_BYTES;

	plan->default_serial = p->default_serial && !p->no_defaults;
	plan->default_monitor = p->default_monitor && !p->no_defaults;
	if (p->display_stdio ||
		(plan->nographic && (plan->default_serial || plan->default_monitor)))
		plan->stdio = true;
	if (plan->machine && strcmp(plan->machine, "none") == 0)
		plan->kind = HF_CMDLINE_PROBE;
	if (bytes > INT64_MAX / 2) {
		hf_cmdline_refuse(
			p, "write it as in -m 2G", "its memory size is beyond all bounds");
		bytes = DEFAULT_MEMORY_BYTES;
	}
	plan->memory_bytes = (bytes + MEMORY_ALIGN - 1) & ~(MEMORY_ALIGN - 1ULL);
	if (plan->kind == HF_CMDLINE_PROBE)
		return 0;
	hf_cmdline_check_files(p);
	if (!id) {
		if (plan->machine)
			hf_cmdline_refuse(p, "use pc, q35, isapc or microvm",
				"its machine type %.64s isn't known to keep its RAM",
				plan->machine);
		else
			hf_cmdline_refuse(p, "use qemu-system-x86_64",
				"its QEMU, %.100s, isn't one for x86", plan->argv[0]);
		return 0;
	}
	if (p->has_backend || p->has_memdev)
		return 0;
	if (plan->libvirt) {
		hf_cmdline_refuse(
			p, REMEDY_LIBVIRT, "its RAM is private memory, which nobody else can open");
		return 0;
	}
	plan->default_ram = true;
	return add_ram(p, id, plan->memory_bytes, -1);
}

static int copy_argv(struct hf_cmdline *plan, const char *const *argv, size_t n)
{
	plan->argv = calloc(n + 1, sizeof(*plan->argv));
	if (!plan->argv)
		return -ENOMEM;
	for (; plan->n_argv < n; plan->n_argv++) {
		if (strlen(argv[plan->n_argv]) >= HF_MANIFEST_MAX_STRING)
			return -EFBIG;
		plan->argv[plan->n_argv] = strdup(argv[plan->n_argv]);
		if (!plan->argv[plan->n_argv])
			return -ENOMEM;
	}
	return 0;
}

static int parse(const char *const *argv, size_t n, bool libvirt, struct hf_cmdline **ret,
	struct hf_error *e)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	struct hf_cmdline_parse p = {.default_serial = true, .default_monitor = true};
	struct hf_option o;
	size_t pos = 1;
	int r;

	if (n == 0)
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID, NULL, "the command line is empty");
	plan = calloc(1, sizeof(*plan));
	if (!plan)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	p.plan = plan;
	plan->libvirt = libvirt;
	r = n > HF_MANIFEST_MAX_STRINGS ? -EFBIG : copy_argv(plan, argv, n);
	while (r == 0 && hf_option_next(plan->argv, n, &pos, &o)) {
		if (asks_for_help(&o))
			plan->kind = HF_CMDLINE_PROBE;
		r = on_option(&p, &o);
	}
	if (r == 0)
		r = finish(&p);
	if (r == -EFBIG)
		return hf_error_set(e, r, HF_ERR_INVALID, "put long lists into files",
			"the command line is too long: more than %d arguments, or one of more than "
			"%u "
			"bytes",
			HF_MANIFEST_MAX_STRINGS, HF_MANIFEST_MAX_STRING);
	if (r < 0)
		return hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "reading the command line: %s", strerror(-r));
	*ret = TAKE_PTR(plan);
	return 0;
}

int hf_cmdline_parse(const char *const *argv, size_t n, struct hf_cmdline **ret, struct hf_error *e)
{
	return parse(argv, n, false, ret, e);
}

int hf_cmdline_parse_libvirt(
	const char *const *argv, size_t n, struct hf_cmdline **ret, struct hf_error *e)
{
	return parse(argv, n, true, ret, e);
}

bool hf_guest_is_libvirt(const struct hf_manifest_guest *guest)
{
	return guest->manager && strcmp(guest->manager, "libvirt") == 0;
}

int hf_cmdline_of_guest(
	const struct hf_manifest_guest *guest, struct hf_cmdline **ret, struct hf_error *e)
{
	return parse((const char *const *)guest->argv, guest->n_argv, hf_guest_is_libvirt(guest),
		ret, e);
}

void hf_cmdline_free(struct hf_cmdline *plan)
{
	if (!plan)
		return;
	for (size_t i = 0; i < plan->n_argv; i++)
		free(plan->argv[i]);
	for (size_t i = 0; i < plan->n_ram; i++)
		free(plan->ram[i].id);
	for (size_t i = 0; i < plan->n_taps; i++) {
		free(plan->taps[i].id);
		free(plan->taps[i].ifname);
		free(plan->taps[i].script);
		free(plan->taps[i].downscript);
		free(plan->taps[i].bridge);
		free(plan->taps[i].helper);
	}
	for (size_t i = 0; i < plan->n_fds; i++)
		free(plan->fds[i].id);
	for (size_t i = 0; i < plan->n_sockets; i++)
		free(plan->sockets[i]);
	free(plan->fds);
	free(plan->sockets);
	free(plan->argv);
	free(plan->ram);
	free(plan->taps);
	free(plan->name);
	free(plan->uuid);
	free(plan->machine);
	free(plan);
}
