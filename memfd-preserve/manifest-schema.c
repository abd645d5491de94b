/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/manifest-schema.h"

#include <ctype.h>
#include <string.h>

#define F(s, prop, kind, member) \
	{ \
		.name = (prop), .type = (kind), .offset = offsetof(struct s, member) \
	}
#define F_NEEDED(s, prop, kind, member) \
	{ \
		.name = (prop), .type = (kind), .needed = true, \
		.offset = offsetof(struct s, member) \
	}
/* Older readers, which refuse it, can read all manifests in which it isn't set. */
#define F_REQUIRED_BOOL(s, prop, member) \
	{ \
		.name = HF_MANIFEST_REQUIRED prop, .type = FIELD_BOOL, .only_set = true, \
		.offset = offsetof(struct s, member) \
	}
#define F_REQUIRED(s, prop, kind, member) F(s, HF_MANIFEST_REQUIRED prop, kind, member)
#define F_ARRAY(s, prop, kind, member, limit) \
	{ \
		.name = (prop), .type = (kind), .offset = offsetof(struct s, member), \
		.count_offset = offsetof(struct s, n_##member), .max = (limit) \
	}

#define F_LIMITS(prop, member, limit) \
	{ \
		.name = (prop), .type = FIELD_U64S, \
		.offset = offsetof(struct hf_manifest_guest, limits.member), \
		.count_offset = offsetof(struct hf_manifest_guest, limits.n_##member), \
		.max = (limit) \
	}

#define F_CHOICE(prop, member, values) \
	{ \
		.name = (prop), .type = FIELD_CHOICE, \
		.offset = offsetof(struct hf_manifest_guest, policies.member), .names = (values) \
	}

static const struct field file_fields[] = {
	F_NEEDED(hf_manifest_file, "path", FIELD_STRING, path),
	F_NEEDED(hf_manifest_file, "size", FIELD_U64, size),
};

static const struct field stdio_fields[] = {
	F(hf_manifest_stdio, "kind", FIELD_U32, kind),
	F(hf_manifest_stdio, "open-flags", FIELD_U32, open_flags),
	F(hf_manifest_stdio, "path", FIELD_STRING, path),
};

static const struct field ram_fields[] = {
	F_NEEDED(hf_manifest_ram, "id", FIELD_STRING, id),
	F_NEEDED(hf_manifest_ram, "token", FIELD_U64, token),
	F_NEEDED(hf_manifest_ram, "size", FIELD_U64, size),
	F_NEEDED(hf_manifest_ram, "fd", FIELD_I32, fd),
};

static const struct field chunk_fields[] = {
	F_NEEDED(hf_manifest_chunk, "token", FIELD_U64, token),
	F_NEEDED(hf_manifest_chunk, "length", FIELD_U64, length),
	F_NEEDED(hf_manifest_chunk, "capacity", FIELD_U64, capacity),
};

static const struct field net_fields[] = {
	F_NEEDED(hf_manifest_net, "id", FIELD_STRING, id),
	F_NEEDED(hf_manifest_net, "ifname", FIELD_STRING, ifname),
	F(hf_manifest_net, "bridge", FIELD_STRING, bridge),
	F(hf_manifest_net, "mac", FIELD_STRING, mac),
	F(hf_manifest_net, "mtu", FIELD_U32, mtu),
	F(hf_manifest_net, "queues", FIELD_U32, queues),
	F(hf_manifest_net, "flags", FIELD_U32, flags),
	F(hf_manifest_net, "fd", FIELD_I32, fd),
};

static const struct field fd_fields[] = {
	F_NEEDED(hf_manifest_fd, "fd", FIELD_I32, fd),
	F_NEEDED(hf_manifest_fd, "kind", FIELD_U32, kind),
	F(hf_manifest_fd, "path", FIELD_STRING, path),
	F(hf_manifest_fd, "mode", FIELD_U32, mode),
	F(hf_manifest_fd, "uid", FIELD_U32, uid),
	F(hf_manifest_fd, "gid", FIELD_U32, gid),
};

static const struct field folder_fields[] = {
	F_NEEDED(hf_manifest_folder, "path", FIELD_STRING, path),
	F(hf_manifest_folder, "mode", FIELD_U32, mode),
	F(hf_manifest_folder, "uid", FIELD_U32, uid),
	F(hf_manifest_folder, "gid", FIELD_U32, gid),
};

static const struct field helper_fields[] = {
	F_ARRAY(hf_manifest_helper, "argv", FIELD_STRINGS, argv, HF_MANIFEST_MAX_STRINGS),
	F(hf_manifest_helper, "uid", FIELD_U32, uid),
	F(hf_manifest_helper, "gid", FIELD_U32, gid),
	F_ARRAY(hf_manifest_helper, "groups", FIELD_U32S, groups, HF_MANIFEST_MAX_GROUPS),
	F(hf_manifest_helper, "socket", FIELD_STRING, socket),
	F(hf_manifest_helper, "socket-mode", FIELD_U32, socket_mode),
	F(hf_manifest_helper, "socket-uid", FIELD_U32, socket_uid),
	F(hf_manifest_helper, "socket-gid", FIELD_U32, socket_gid),
	F_REQUIRED(hf_manifest_helper, "apparmor", FIELD_STRING, apparmor),
};

static const struct field disk_fields[] = {
	F_NEEDED(hf_manifest_disk, "path", FIELD_STRING, path),
	F(hf_manifest_disk, "size", FIELD_U64, size),
	F(hf_manifest_disk, "mtime-ns", FIELD_U64, mtime_ns),
};

static const struct field guest_fields[] = {
	F_NEEDED(hf_manifest_guest, "uuid", FIELD_UUID, uuid),
	F_NEEDED(hf_manifest_guest, "name", FIELD_STRING, name),
	F_NEEDED(hf_manifest_guest, "manager", FIELD_STRING, manager),
	F(hf_manifest_guest, "policy", FIELD_STRING, policy),
	F_NEEDED(hf_manifest_guest, "session", FIELD_STRING, session),
	F(hf_manifest_guest, "status", FIELD_STRING, status),
	F_NEEDED(hf_manifest_guest, "was-running", FIELD_BOOL, was_running),
	F(hf_manifest_guest, "agent-answered", FIELD_BOOL, agent_answered),
	F_NEEDED(hf_manifest_guest, "vmm", FIELD_STRING, vmm),
	F_ARRAY(hf_manifest_guest, "argv", FIELD_STRINGS, argv, HF_MANIFEST_MAX_STRINGS),
	F_ARRAY(hf_manifest_guest, "environment", FIELD_STRINGS, env, HF_MANIFEST_MAX_STRINGS),
	F(hf_manifest_guest, "cwd", FIELD_STRING, cwd),
	F(hf_manifest_guest, "uid", FIELD_U32, uid),
	F(hf_manifest_guest, "gid", FIELD_U32, gid),
	F_ARRAY(hf_manifest_guest, "groups", FIELD_U32S, groups, HF_MANIFEST_MAX_GROUPS),
	F(hf_manifest_guest, "umask", FIELD_U32, umask),
	F_LIMITS("limits", rlimits, HF_MANIFEST_MAX_RLIMITS),
	F_LIMITS("cpus", cpus, HF_MANIFEST_MAX_CPUS),
	F(hf_manifest_guest, "nice", FIELD_I32, limits.nice),
	F(hf_manifest_guest, "oom-score-adj", FIELD_I32, limits.oom_score_adj),
	F(hf_manifest_guest, "qmp-path", FIELD_STRING, qmp_path),
	F(hf_manifest_guest, "machine", FIELD_STRING, machine),
	F(hf_manifest_guest, "qemu-version", FIELD_VERSION, qemu_version),
	F(hf_manifest_guest, "state-length", FIELD_U64, state_length),
	F(hf_manifest_guest, "state-xxh3", FIELD_HASH, state_xxh3),
	F(hf_manifest_guest, "not-saved", FIELD_STRING, not_saved),
	F_REQUIRED_BOOL(hf_manifest_guest, "ram-copied", ram_copied),
	F_REQUIRED_BOOL(hf_manifest_guest, "inherits", inherits),
	F_REQUIRED(hf_manifest_guest, "apparmor", FIELD_STRING, apparmor),
	F(hf_manifest_guest, "libvirt-status", FIELD_STRING, libvirt_status),
	F(hf_manifest_guest, "adopted-pid", FIELD_U32, adopted_pid),
	F(hf_manifest_guest, "adopted-start-ticks", FIELD_U64, adopted_start_ticks),
	F(hf_manifest_guest, "tsc-pause", FIELD_U64, tsc_pause),
	F(hf_manifest_guest, "tsc-paused", FIELD_U64, tsc_paused),
	F(hf_manifest_guest, "tsc-saved", FIELD_U64, tsc_saved),
	F(hf_manifest_guest, "preserve-ns", FIELD_U64, preserve_ns),
	F_CHOICE("not-eligible", not_eligible, hf_policy_not_eligible_names),
	F_CHOICE("save-failure", save_failure, hf_policy_save_failure_names),
	F_CHOICE("resume-failure", resume_failure, hf_policy_resume_failure_names),
	F(hf_manifest_guest, "attach-timeout-ns", FIELD_U64, policies.attach_timeout_ns),
	F(hf_manifest_guest, "save-timeout-ns", FIELD_U64, policies.save_timeout_ns),
	F(hf_manifest_guest, "rollback-timeout-ns", FIELD_U64, policies.rollback_timeout_ns),
	F(hf_manifest_guest, "resume-timeout-ns", FIELD_U64, policies.resume_timeout_ns),
	F(hf_manifest_guest, "shutdown-timeout-ns", FIELD_U64, policies.shutdown_timeout_ns),
	F(hf_manifest_guest, "priority", FIELD_U32, policies.priority),
	F_CHOICE("clock", clock, hf_policy_clock_names),
	F(hf_manifest_guest, "health-command", FIELD_STRING, policies.health_command),
	F_ARRAY(hf_manifest_guest, "settings", FIELD_STRINGS, settings, HF_MANIFEST_MAX_SETTINGS),
};

static const struct field root_fields[] = {
	F_NEEDED(hf_manifest, "update-id", FIELD_UUID, update_id),
	F(hf_manifest, "boot-id", FIELD_UUID, boot_id),
	F_NEEDED(hf_manifest, "writer", FIELD_STRING, writer),
	F_NEEDED(hf_manifest, "carrier", FIELD_STRING, carrier),
	F(hf_manifest, "from-kernel", FIELD_STRING, from_kernel),
	F(hf_manifest, "target-kernel", FIELD_STRING, target_kernel),
	F(hf_manifest, "target-initrd", FIELD_STRING, target_initrd),
	F(hf_manifest, "target-cmdline", FIELD_STRING, target_cmdline),
	F(hf_manifest, "tsc-hz", FIELD_U64, tsc_hz),
	F(hf_manifest, "tsc-prepare", FIELD_U64, tsc_prepare),
	F(hf_manifest, "tsc-prepared", FIELD_U64, tsc_prepared),
	F(hf_manifest, "tsc-commit", FIELD_U64, tsc_commit),
	F(hf_manifest, "tsc-jump", FIELD_U64, tsc_jump),
	F(hf_manifest, "clock-tsc", FIELD_U64, clock_tsc),
	F(hf_manifest, "clock-ns", FIELD_U64, clock_ns),
	F(hf_manifest, "clock-width", FIELD_U64, clock_width),
};

static void init_net(void *object)
{
	((struct hf_manifest_net *)object)->fd = -1;
}

static void init_guest(void *object)
{
	struct hf_manifest_guest *g = object;
	struct hf_manifest_limits *l = &g->limits;

	hf_policy_init(&g->policies);
	l->nice = l->oom_score_adj = HF_MANIFEST_UNKNOWN;
}

#define TYPE(what, s, array) \
	.noun = (what), .size = sizeof(struct s), .fields = (array), \
	.n_fields = HF_ARRAY_SIZE(array)

static const struct node_type file_type = {TYPE("read-ahead file", hf_manifest_file, file_fields)};
static const struct node_type stdio_type = {TYPE("stream", hf_manifest_stdio, stdio_fields)};
static const struct node_type ram_type = {TYPE("RAM block", hf_manifest_ram, ram_fields)};
static const struct node_type chunk_type = {TYPE("chunk", hf_manifest_chunk, chunk_fields)};
static const struct node_type net_type = {
	TYPE("tap", hf_manifest_net, net_fields),
	.init = init_net,
};

static const struct node_type fd_type = {TYPE("descriptor", hf_manifest_fd, fd_fields)};
static const struct node_type folder_type = {TYPE("folder", hf_manifest_folder, folder_fields)};
static const struct node_type helper_type = {TYPE("helper", hf_manifest_helper, helper_fields)};
static const struct node_type disk_type = {TYPE("disk", hf_manifest_disk, disk_fields)};

#define LIST(s, node, entry, member, limit, of) \
	{ \
		.container = (node), .item = (entry), .offset = offsetof(struct s, member), \
		.count_offset = offsetof(struct s, n_##member), .max = (limit), .type = (of) \
	}

static const struct list guest_lists[] = {
	[GUEST_STDIO] = {.container = "stdio",
		.item = "stream",
		.offset = offsetof(struct hf_manifest_guest, stdio),
		.max = 3,
		.fixed = 3,
		.type = &stdio_type},
	[GUEST_RAM] = LIST(hf_manifest_guest, "ram", "block", ram, HF_MANIFEST_MAX_RAM, &ram_type),
	[GUEST_STATE] = LIST(
		hf_manifest_guest, "state", "chunk", state, HF_MANIFEST_MAX_CHUNKS, &chunk_type),
	[GUEST_NET] = LIST(hf_manifest_guest, "net", "tap", net, HF_MANIFEST_MAX_NETS, &net_type),
	[GUEST_FDS] = LIST(
		hf_manifest_guest, "descriptors", "descriptor", fds, HF_MANIFEST_MAX_FDS, &fd_type),
	[GUEST_FOLDERS] = LIST(hf_manifest_guest, "folders", "folder", folders,
		HF_MANIFEST_MAX_FOLDERS, &folder_type),
	[GUEST_HELPERS] = LIST(hf_manifest_guest, "helpers", "helper", helpers,
		HF_MANIFEST_MAX_HELPERS, &helper_type),
	[GUEST_DISKS] =
		LIST(hf_manifest_guest, "disks", "disk", disks, HF_MANIFEST_MAX_DISKS, &disk_type),
};

const struct node_type hf_manifest_schema_guest = {
	TYPE("guest", hf_manifest_guest, guest_fields),
	.lists = guest_lists,
	.n_lists = HF_ARRAY_SIZE(guest_lists),
	.init = init_guest,
};

static const struct list root_lists[] = {
	[ROOT_READAHEAD] = LIST(
		hf_manifest, "readahead", "file", readahead, HF_MANIFEST_MAX_FILES, &file_type),
	[ROOT_GUESTS] = {.container = "guests",
		.item = "guest",
		.offset = offsetof(struct hf_manifest, guests),
		.count_offset = offsetof(struct hf_manifest, n_guests),
		.max = HF_MANIFEST_MAX_GUESTS,
		.pointers = true,
		.type = &hf_manifest_schema_guest},
};

const struct node_type hf_manifest_schema_root = {
	TYPE("manifest", hf_manifest, root_fields),
	.lists = root_lists,
	.n_lists = HF_ARRAY_SIZE(root_lists),
};

bool hf_manifest_uuid_valid(const char *s, size_t len)
{
	if (len != HF_UUID_CHARS - 1)
		return false;
	for (size_t i = 0; i < len; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return false;
	}
	return true;
}

size_t hf_manifest_schema_count(const struct list *list, const void *owner)
{
	return list->fixed ? list->fixed : *(size_t *)field_at(owner, list->count_offset);
}

const void *hf_manifest_schema_at(const struct list *list, const void *owner, size_t i)
{
	const char *array =
		list->fixed ? field_at(owner, list->offset) : field_pointer(owner, list->offset);

	return list->pointers ? field_pointer(array, i * sizeof(void *))
			      : array + i * list->type->size;
}

void *hf_manifest_schema_append(const struct list *list, void *owner)
{
	size_t *n = field_at(owner, list->count_offset);
	size_t size = list->pointers ? sizeof(void *) : list->type->size;
	void *grown = reallocarray(field_pointer(owner, list->offset), *n + 1, size);
	void *object;

	if (!grown)
		return NULL;
	field_set_pointer(owner, list->offset, grown);
	object = (char *)grown + *n * size;
	if (list->pointers) {
		void *target = malloc(list->type->size);

		if (!target)
			return NULL;
		field_set_pointer(object, 0, target);
		object = target;
	}
	memset(object, 0, list->type->size);
	if (list->type->init)
		list->type->init(object);
	++*n;
	return object;
}

static void clear_field(const struct field *f, void *object)
{
	if (f->type == FIELD_STRINGS) {
		size_t n = *(size_t *)field_at(object, f->count_offset);
		char **strings = field_pointer(object, f->offset);

		for (size_t i = 0; strings && i < n; i++)
			free(strings[i]);
	}
	if (f->type == FIELD_STRING || f->type == FIELD_STRINGS || f->type == FIELD_U32S ||
		f->type == FIELD_U64S)
		free(field_pointer(object, f->offset));
}

static void clear_list(const struct list *list, void *owner)
{
	size_t n = hf_manifest_schema_count(list, owner);

	for (size_t k = 0; k < n; k++) {
		void *item = field_at(hf_manifest_schema_at(list, owner, k), 0);

		hf_manifest_schema_clear(list->type, item);
		if (list->pointers)
			free(item);
	}
	if (!list->fixed)
		free(field_pointer(owner, list->offset));
}

void hf_manifest_schema_empty(const struct list *list, void *owner)
{
	clear_list(list, owner);
	field_set_pointer(owner, list->offset, NULL);
	*(size_t *)field_at(owner, list->count_offset) = 0;
}

void hf_manifest_schema_clear(const struct node_type *type, void *object)
{
	for (size_t i = 0; i < type->n_fields; i++)
		clear_field(&type->fields[i], object);
	for (size_t i = 0; i < type->n_lists; i++)
		clear_list(&type->lists[i], object);
	memset(object, 0, type->size);
}
