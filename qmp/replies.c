/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: QMP replies: JSON of an untrusted peer into C structs.
 *
 * Everything here is pure. Each parser fills a local struct and hands it out only when the whole
 * reply was good. Members that some QEMU versions lack are optional; members that all have are not.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "qmp/commands.h"
#include "qmp/internal.h"

static const char *const run_state_names[] = {
	[HF_QMP_RUN_UNKNOWN] = "unknown",
	[HF_QMP_RUN_DEBUG] = "debug",
	[HF_QMP_RUN_INMIGRATE] = "inmigrate",
	[HF_QMP_RUN_INTERNAL_ERROR] = "internal-error",
	[HF_QMP_RUN_IO_ERROR] = "io-error",
	[HF_QMP_RUN_PAUSED] = "paused",
	[HF_QMP_RUN_POSTMIGRATE] = "postmigrate",
	[HF_QMP_RUN_PRELAUNCH] = "prelaunch",
	[HF_QMP_RUN_FINISH_MIGRATE] = "finish-migrate",
	[HF_QMP_RUN_RESTORE_VM] = "restore-vm",
	[HF_QMP_RUN_RUNNING] = "running",
	[HF_QMP_RUN_SAVE_VM] = "save-vm",
	[HF_QMP_RUN_SHUTDOWN] = "shutdown",
	[HF_QMP_RUN_SUSPENDED] = "suspended",
	[HF_QMP_RUN_WATCHDOG] = "watchdog",
	[HF_QMP_RUN_GUEST_PANICKED] = "guest-panicked",
	[HF_QMP_RUN_COLO] = "colo",
};
_Static_assert(HF_ARRAY_SIZE(run_state_names) == _HF_QMP_RUN_MAX, "a run state without a name");

static const char *const migration_status_names[] = {
	[HF_QMP_MIGRATION_UNKNOWN] = "unknown",
	[HF_QMP_MIGRATION_NONE] = "none",
	[HF_QMP_MIGRATION_SETUP] = "setup",
	[HF_QMP_MIGRATION_CANCELLING] = "cancelling",
	[HF_QMP_MIGRATION_CANCELLED] = "cancelled",
	[HF_QMP_MIGRATION_ACTIVE] = "active",
	[HF_QMP_MIGRATION_POSTCOPY_DEVICE] = "postcopy-device",
	[HF_QMP_MIGRATION_POSTCOPY_ACTIVE] = "postcopy-active",
	[HF_QMP_MIGRATION_POSTCOPY_PAUSED] = "postcopy-paused",
	[HF_QMP_MIGRATION_POSTCOPY_RECOVER_SETUP] = "postcopy-recover-setup",
	[HF_QMP_MIGRATION_POSTCOPY_RECOVER] = "postcopy-recover",
	[HF_QMP_MIGRATION_COMPLETED] = "completed",
	[HF_QMP_MIGRATION_FAILING] = "failing",
	[HF_QMP_MIGRATION_FAILED] = "failed",
	[HF_QMP_MIGRATION_COLO] = "colo",
	[HF_QMP_MIGRATION_PRE_SWITCHOVER] = "pre-switchover",
	[HF_QMP_MIGRATION_DEVICE] = "device",
	[HF_QMP_MIGRATION_WAIT_UNPLUG] = "wait-unplug",
};
_Static_assert(HF_ARRAY_SIZE(migration_status_names) == _HF_QMP_MIGRATION_MAX,
	"a migration status without a name");

/* Index of a word in a table whose entry 0 stands for all others. */
static size_t look_up(const char *const *names, size_t n, const char *name)
{
	size_t i;

	for (i = 1; name && i < n; i++)
		if (!strcmp(names[i], name))
			return i;
	return 0;
}

enum hf_qmp_run_state hf_qmp_run_state_parse(const char *name)
{
	return look_up(run_state_names, HF_ARRAY_SIZE(run_state_names), name);
}

const char *hf_qmp_run_state_name(enum hf_qmp_run_state state)
{
	return run_state_names[(size_t)state < _HF_QMP_RUN_MAX ? state : HF_QMP_RUN_UNKNOWN];
}

enum hf_qmp_migration_status hf_qmp_migration_status_parse(const char *name)
{
	return look_up(migration_status_names, HF_ARRAY_SIZE(migration_status_names), name);
}

const char *hf_qmp_migration_status_name(enum hf_qmp_migration_status status)
{
	if ((size_t)status >= _HF_QMP_MIGRATION_MAX)
		status = HF_QMP_MIGRATION_UNKNOWN;
	return migration_status_names[status];
}

bool hf_qmp_migration_over(enum hf_qmp_migration_status status)
{
	return status == HF_QMP_MIGRATION_COMPLETED || status == HF_QMP_MIGRATION_FAILED ||
	       status == HF_QMP_MIGRATION_CANCELLED;
}

/* ---- members: 0, -ENOENT when absent, -EBADMSG when of the wrong kind ---- */

static int get_member(
	struct json_object *obj, const char *key, enum json_type type, struct json_object **ret)
{
	struct json_object *v;

	/* Anything but an object has no members. */
	if (!json_object_object_get_ex(obj, key, &v))
		return -ENOENT;
	if (!json_object_is_type(v, type))
		return -EBADMSG;
	*ret = v;
	return 0;
}

int hf_qmp_parse_number(struct json_object *ret, uint64_t *ret_number)
{
	/* Also says no to what json-c clamps: it reads 0 from a negative number. */
	if (!json_object_is_type(ret, json_type_int) || json_object_get_int64(ret) < 0)
		return -EBADMSG;
	*ret_number = json_object_get_uint64(ret);
	return 0;
}

static int get_u64(struct json_object *obj, const char *key, uint64_t *ret)
{
	struct json_object *v;
	int r = get_member(obj, key, json_type_int, &v);

	return r < 0 ? r : hf_qmp_parse_number(v, ret);
}

static int get_bool(struct json_object *obj, const char *key, bool *ret)
{
	struct json_object *v;
	int r = get_member(obj, key, json_type_boolean, &v);

	if (r >= 0)
		*ret = json_object_get_boolean(v);
	return r;
}

static int get_string(struct json_object *obj, const char *key, const char **ret)
{
	struct json_object *v;
	int r = get_member(obj, key, json_type_string, &v);

	if (r < 0)
		return r;
	if (strlen(json_object_get_string(v)) != (size_t)json_object_get_string_len(v))
		return -EBADMSG;
	*ret = json_object_get_string(v);
	return 0;
}

/* A name: whole or not at all. */
static int get_name(struct json_object *obj, const char *key, char *buf, size_t size)
{
	const char *s, *c;
	int r = get_string(obj, key, &s);

	if (r < 0)
		return r;
	if (strlen(s) >= size)
		return -EBADMSG;
	for (c = s; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return -EBADMSG;
	memcpy(buf, s, (size_t)(c - s) + 1);
	return 0;
}

/* Text for people. */
static int get_text(struct json_object *obj, const char *key, char *buf, size_t size)
{
	const char *s;
	int r = get_string(obj, key, &s);

	if (r >= 0)
		hf_qmp_copy_text(buf, size, s);
	return r;
}

/* A member that all versions have: its absence is as bad as a wrong kind. */
static int required(int r)
{
	return r == -ENOENT ? -EBADMSG : r;
}

/* A member that not all have. */
static int optional(int r)
{
	return r == -ENOENT ? 0 : r;
}

/* ---- replies ---- */

int hf_qmp_parse_status(struct json_object *ret, struct hf_qmp_status *ret_status)
{
	struct hf_qmp_status s = {0};
	int r = required(get_name(ret, "status", s.name, sizeof(s.name)));

	if (r >= 0)
		r = required(get_bool(ret, "running", &s.running));
	if (r < 0)
		return r;
	s.state = hf_qmp_run_state_parse(s.name);
	*ret_status = s;
	return 0;
}

static int get_number(struct json_object *obj, const char *key, unsigned int *ret)
{
	uint64_t v;
	int r = required(get_u64(obj, key, &v));

	if (r < 0)
		return r;
	if (v > 9999)
		return -EBADMSG;
	*ret = (unsigned int)v;
	return 0;
}

int hf_qmp_parse_version(struct json_object *ret, struct hf_qmp_version *ret_version)
{
	struct hf_qmp_version v = {0};
	struct json_object *qemu;
	int r = required(get_member(ret, "qemu", json_type_object, &qemu));

	if (r >= 0)
		r = get_number(qemu, "major", &v.major);
	if (r >= 0)
		r = get_number(qemu, "minor", &v.minor);
	if (r >= 0)
		r = get_number(qemu, "micro", &v.micro);
	if (r >= 0)
		r = optional(get_text(ret, "package", v.package, sizeof(v.package)));
	if (r < 0)
		return r;
	*ret_version = v;
	return 0;
}

int hf_qmp_parse_name(struct json_object *ret, char *buf, size_t size)
{
	int r;

	if (!size || !json_object_is_type(ret, json_type_object))
		return -EBADMSG;
	r = get_name(ret, "name", buf, size);
	if (r == -ENOENT)
		buf[0] = '\0';
	return optional(r);
}

int hf_qmp_parse_uuid(struct json_object *ret, char buf[static 37])
{
	char text[37];
	size_t i;
	int r = required(get_name(ret, "UUID", text, sizeof(text)));

	if (r < 0)
		return r;
	for (i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		char c = text[i];

		if (c >= 'A' && c <= 'F')
			c = (char)(c - 'A' + 'a');
		if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return -EBADMSG;
		text[i] = c;
	}
	memcpy(buf, text, sizeof(text));
	return 0;
}

int hf_qmp_parse_kvm(struct json_object *ret, bool *ret_enabled)
{
	if (!json_object_is_type(ret, json_type_object))
		return -EBADMSG;
	return required(get_bool(ret, "enabled", ret_enabled));
}

int hf_qmp_parse_migration_event(struct json_object *data, enum hf_qmp_migration_status *ret_status)
{
	char name[64];
	int r = required(get_name(data, "status", name, sizeof(name)));

	if (r >= 0)
		*ret_status = hf_qmp_migration_status_parse(name);
	return r;
}

static int parse_ram(struct json_object *ret, struct hf_qmp_migration *m)
{
	struct json_object *ram;
	int r = get_member(ret, "ram", json_type_object, &ram);

	if (r < 0)
		return optional(r);
	m->has_ram = true;
	r = required(get_u64(ram, "total", &m->ram_total_bytes));
	if (r >= 0)
		r = required(get_u64(ram, "remaining", &m->ram_remaining_bytes));
	if (r >= 0)
		r = required(get_u64(ram, "transferred", &m->ram_transferred_bytes));
	if (r >= 0)
		r = required(get_u64(ram, "normal-bytes", &m->ram_normal_bytes));
	if (r >= 0)
		r = required(get_u64(ram, "duplicate", &m->ram_duplicate_pages));
	if (r >= 0)
		r = optional(get_u64(ram, "dirty-pages-rate", &m->ram_dirty_pages_per_s));
	if (r >= 0)
		r = optional(get_u64(ram, "dirty-sync-count", &m->ram_rounds));
	return r;
}

static int parse_blockers(struct json_object *ret, struct hf_qmp_migration *m)
{
	struct json_object *list;
	size_t i;
	int r = get_member(ret, "blocked-reasons", json_type_array, &list);

	if (r < 0)
		return optional(r);
	m->n_blockers = json_object_array_length(list);
	for (i = 0; i < HF_MIN(m->n_blockers, (size_t)HF_QMP_MAX_BLOCKERS); i++) {
		struct json_object *reason = json_object_array_get_idx(list, i);

		if (!json_object_is_type(reason, json_type_string))
			return -EBADMSG;
		hf_qmp_copy_text(
			m->blockers[i], sizeof(m->blockers[i]), json_object_get_string(reason));
	}
	return 0;
}

int hf_qmp_parse_migration(struct json_object *ret, struct hf_qmp_migration *ret_migration)
{
	struct hf_qmp_migration m = {.status = HF_QMP_MIGRATION_NONE};
	char name[64];
	int r;

	if (!json_object_is_type(ret, json_type_object))
		return -EBADMSG;
	r = get_name(ret, "status", name, sizeof(name));
	if (r >= 0)
		m.status = hf_qmp_migration_status_parse(name);
	r = optional(r);
	if (r >= 0)
		r = optional(get_text(ret, "error-desc", m.error_desc, sizeof(m.error_desc)));
	if (r >= 0)
		r = parse_ram(ret, &m);
	if (r >= 0)
		r = optional(get_u64(ret, "total-time", &m.total_time_ms));
	if (r >= 0)
		r = optional(get_u64(ret, "downtime", &m.downtime_ms));
	if (r >= 0)
		r = optional(get_u64(ret, "setup-time", &m.setup_time_ms));
	if (r >= 0)
		r = parse_blockers(ret, &m);
	if (r < 0)
		return r;
	*ret_migration = m;
	return 0;
}

int hf_qmp_parse_capability(struct json_object *ret, const char *name, bool *ret_on)
{
	size_t i, n;

	if (!json_object_is_type(ret, json_type_array))
		return -EBADMSG;
	n = json_object_array_length(ret);
	for (i = 0; i < n; i++) {
		struct json_object *cap = json_object_array_get_idx(ret, i);
		const char *s;
		int r = required(get_string(cap, "capability", &s));

		if (r < 0)
			return r;
		if (!strcmp(s, name))
			return required(get_bool(cap, "state", ret_on));
	}
	return -ENOENT;
}

int hf_qmp_next_capability(struct json_object *ret, size_t *pos, const char **ret_name)
{
	if (!json_object_is_type(ret, json_type_array))
		return -EBADMSG;
	while (*pos < json_object_array_length(ret)) {
		struct json_object *cap = json_object_array_get_idx(ret, (*pos)++);
		bool on = false;
		int r = required(get_string(cap, "capability", ret_name));

		if (r >= 0)
			r = required(get_bool(cap, "state", &on));
		if (r < 0 || on)
			return r;
	}
	return -ENOENT;
}

int hf_qmp_parse_migrate_parameters(
	struct json_object *ret, struct hf_qmp_migrate_parameters *ret_params)
{
	struct hf_qmp_migrate_parameters p = {0};
	int r;

	if (!json_object_is_type(ret, json_type_object))
		return -EBADMSG;
	r = get_u64(ret, "max-bandwidth", &p.max_bandwidth);
	p.has_max_bandwidth = r >= 0;
	if (optional(r) < 0)
		return r;
	r = get_u64(ret, "downtime-limit", &p.downtime_limit_ms);
	p.has_downtime_limit = r >= 0;
	if (optional(r) < 0)
		return r;
	r = optional(get_name(ret, "mode", p.mode, sizeof(p.mode)));
	if (r < 0)
		return r;
	*ret_params = p;
	return 0;
}

int hf_qmp_parse_text(struct json_object *ret, const char **ret_text, size_t *ret_size)
{
	if (!json_object_is_type(ret, json_type_string))
		return -EBADMSG;
	*ret_text = json_object_get_string(ret);
	*ret_size = (size_t)json_object_get_string_len(ret);
	return 0;
}

/* Length of an array reply that must fit @max. */
static int list_length(struct json_object *ret, size_t max, size_t *ret_n)
{
	if (!json_object_is_type(ret, json_type_array))
		return -EBADMSG;
	if (json_object_array_length(ret) > max)
		return -ENOBUFS;
	*ret_n = json_object_array_length(ret);
	return 0;
}

int hf_qmp_parse_memdevs(
	struct json_object *ret, struct hf_qmp_memdev *devs, size_t max, size_t *ret_n)
{
	size_t i, n;
	int r = list_length(ret, max, &n);

	for (i = 0; r >= 0 && i < n; i++) {
		struct json_object *o = json_object_array_get_idx(ret, i);
		struct hf_qmp_memdev *d = &devs[i];

		*d = (struct hf_qmp_memdev){0};
		r = optional(get_name(o, "id", d->id, sizeof(d->id)));
		if (r >= 0)
			r = required(get_u64(o, "size", &d->size_bytes));
		/* Since 6.1: without it, sharing would have to be guessed. */
		if (r >= 0)
			r = required(get_bool(o, "share", &d->share));
		if (r >= 0)
			r = required(get_bool(o, "merge", &d->merge));
		if (r >= 0)
			r = required(get_bool(o, "dump", &d->dump));
		if (r >= 0)
			r = required(get_bool(o, "prealloc", &d->prealloc));
	}
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

int hf_qmp_parse_balloon(struct json_object *ret, uint64_t *ret_actual_bytes)
{
	return required(get_u64(ret, "actual", ret_actual_bytes));
}

int hf_qmp_parse_chardevs(
	struct json_object *ret, struct hf_qmp_chardev *devs, size_t max, size_t *ret_n)
{
	size_t i, n;
	int r = list_length(ret, max, &n);

	for (i = 0; r >= 0 && i < n; i++) {
		struct json_object *o = json_object_array_get_idx(ret, i);
		struct hf_qmp_chardev *d = &devs[i];

		*d = (struct hf_qmp_chardev){0};
		r = required(get_name(o, "label", d->label, sizeof(d->label)));
		if (r >= 0)
			r = required(get_text(o, "filename", d->filename, sizeof(d->filename)));
		if (r >= 0)
			r = required(get_bool(o, "frontend-open", &d->frontend_open));
	}
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

static int parse_cache(struct json_object *inserted, struct hf_qmp_block *b)
{
	struct json_object *cache = NULL;
	int r = required(get_member(inserted, "cache", json_type_object, &cache));

	b->inserted = true;
	if (r >= 0)
		r = required(get_bool(cache, "writeback", &b->writeback));
	if (r >= 0)
		r = required(get_bool(cache, "direct", &b->direct));
	if (r >= 0)
		r = required(get_bool(cache, "no-flush", &b->no_flush));
	return r;
}

int hf_qmp_parse_blocks(
	struct json_object *ret, struct hf_qmp_block *blocks, size_t max, size_t *ret_n)
{
	size_t i, n;
	int r = list_length(ret, max, &n);

	for (i = 0; r >= 0 && i < n; i++) {
		struct json_object *o = json_object_array_get_idx(ret, i), *inserted = NULL;
		struct hf_qmp_block *b = &blocks[i];

		*b = (struct hf_qmp_block){0};
		r = required(get_name(o, "device", b->device, sizeof(b->device)));
		if (r >= 0)
			r = optional(get_name(o, "qdev", b->qdev, sizeof(b->qdev)));
		if (r >= 0)
			r = optional(get_member(o, "inserted", json_type_object, &inserted));
		if (r >= 0 && inserted)
			r = parse_cache(inserted, b);
	}
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

int hf_qmp_parse_bool(struct json_object *ret, bool *ret_value)
{
	if (!json_object_is_type(ret, json_type_boolean))
		return -EBADMSG;
	*ret_value = json_object_get_boolean(ret);
	return 0;
}

int hf_qmp_parse_virtio_devices(
	struct json_object *ret, struct hf_qmp_virtio_device *devs, size_t max, size_t *ret_n)
{
	size_t i, n;
	int r = list_length(ret, max, &n);

	for (i = 0; r >= 0 && i < n; i++) {
		struct json_object *o = json_object_array_get_idx(ret, i);
		struct hf_qmp_virtio_device *d = &devs[i];

		*d = (struct hf_qmp_virtio_device){0};
		r = required(get_name(o, "name", d->name, sizeof(d->name)));
		if (r >= 0)
			r = required(get_name(o, "path", d->path, sizeof(d->path)));
	}
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

int hf_qmp_parse_virtqueue(struct json_object *ret, struct hf_qmp_virtqueue *ret_queue)
{
	struct hf_qmp_virtqueue v = {0};
	int r = required(get_u64(ret, "vring-num", &v.num));

	if (r >= 0)
		r = required(get_u64(ret, "vring-num-default", &v.num_default));
	if (r < 0)
		return r;
	*ret_queue = v;
	return 0;
}
