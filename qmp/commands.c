/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: QMP commands: what is sent.
 *
 * Argument objects are built here and consumed by hf_qmp_command(). A failed allocation of any part
 * drops the whole object, so that no command goes out with an argument missing.
 */
#include "qmp/commands.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

/* Adds a member, consuming @value. A former failure, an absent value or a full memory ends in NULL.
 */
static struct json_object *with(struct json_object *obj, const char *key, struct json_object *value)
{
	if (obj && value && json_object_object_add(obj, key, value) == 0)
		return obj;
	json_object_put(value);
	json_object_put(obj);
	return NULL;
}

static struct json_object *with_string(struct json_object *obj, const char *key, const char *value)
{
	return with(obj, key, json_object_new_string(value));
}

static struct json_object *with_u64(struct json_object *obj, const char *key, uint64_t value)
{
	return with(obj, key, json_object_new_uint64(value));
}

static struct json_object *with_bool(struct json_object *obj, const char *key, bool value)
{
	return with(obj, key, json_object_new_boolean(value));
}

static int send_args(struct hf_qmp *q, const char *name, struct json_object *args, int fd,
	uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id)
{
	if (!args)
		return -ENOMEM;
	return hf_qmp_command(q, name, args, fd, timeout_ns, fn, data, ret_id);
}

#define PLAIN_COMMAND(function, command) \
	int function(struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, \
		uint64_t *ret_id) \
	{ \
		return hf_qmp_command(q, command, NULL, -EBADF, timeout_ns, fn, data, ret_id); \
	}

PLAIN_COMMAND(hf_qmp_query_status, "query-status")
PLAIN_COMMAND(hf_qmp_stop, "stop")
PLAIN_COMMAND(hf_qmp_cont, "cont")
PLAIN_COMMAND(hf_qmp_quit, "quit")
PLAIN_COMMAND(hf_qmp_system_powerdown, "system_powerdown")
PLAIN_COMMAND(hf_qmp_query_kvm, "query-kvm")
PLAIN_COMMAND(hf_qmp_query_version, "query-version")
PLAIN_COMMAND(hf_qmp_query_name, "query-name")
PLAIN_COMMAND(hf_qmp_query_uuid, "query-uuid")
PLAIN_COMMAND(hf_qmp_query_migrate, "query-migrate")
PLAIN_COMMAND(hf_qmp_migrate_cancel, "migrate_cancel")
PLAIN_COMMAND(hf_qmp_query_migrate_capabilities, "query-migrate-capabilities")
PLAIN_COMMAND(hf_qmp_query_migrate_parameters, "query-migrate-parameters")
PLAIN_COMMAND(hf_qmp_query_memdev, "query-memdev")
PLAIN_COMMAND(hf_qmp_query_balloon, "query-balloon")
PLAIN_COMMAND(hf_qmp_query_chardev, "query-chardev")
PLAIN_COMMAND(hf_qmp_query_block, "query-block")
PLAIN_COMMAND(hf_qmp_query_virtio, "x-query-virtio")

int hf_qmp_migrate(struct hf_qmp *q, const char *uri, uint64_t timeout_ns, hf_qmp_reply_fn fn,
	void *data, uint64_t *ret_id)
{
	struct json_object *args = with_string(json_object_new_object(), "uri", uri);

	return send_args(q, "migrate", args, -EBADF, timeout_ns, fn, data, ret_id);
}

int hf_qmp_migrate_incoming(struct hf_qmp *q, const char *uri, uint64_t timeout_ns,
	hf_qmp_reply_fn fn, void *data, uint64_t *ret_id)
{
	struct json_object *args;

	if (!hf_qmp_get_version(q)->major)
		return -EAGAIN;
	args = with_string(json_object_new_object(), "uri", uri);
	if (hf_qmp_at_least(q, 9, 1))
		args = with_bool(args, "exit-on-error", false);
	return send_args(q, "migrate-incoming", args, -EBADF, timeout_ns, fn, data, ret_id);
}

int hf_qmp_migrate_set_capabilities(struct hf_qmp *q, const struct hf_qmp_capability *caps,
	size_t n_caps, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id)
{
	struct json_object *list = json_object_new_array();
	size_t i;

	for (i = 0; list && i < n_caps; i++) {
		struct json_object *cap;

		cap = with_string(json_object_new_object(), "capability", caps[i].name);
		cap = with_bool(cap, "state", caps[i].on);
		if (!cap || json_object_array_add(list, cap) < 0) {
			json_object_put(cap);
			json_object_put(list);
			list = NULL;
		}
	}
	return send_args(q, "migrate-set-capabilities",
		with(json_object_new_object(), "capabilities", list), -EBADF, timeout_ns, fn, data,
		ret_id);
}

int hf_qmp_migrate_set_parameters(struct hf_qmp *q, const struct hf_qmp_migrate_parameters *p,
	uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id)
{
	struct json_object *args = json_object_new_object();

	if (p->has_max_bandwidth)
		args = with_u64(args, "max-bandwidth", p->max_bandwidth);
	if (p->has_downtime_limit)
		args = with_u64(args, "downtime-limit", p->downtime_limit_ms);
	if (p->mode[0])
		args = with_string(args, "mode", p->mode);
	return send_args(q, "migrate-set-parameters", args, -EBADF, timeout_ns, fn, data, ret_id);
}

int hf_qmp_getfd(struct hf_qmp *q, const char *name, int fd, uint64_t timeout_ns,
	hf_qmp_reply_fn fn, void *data, uint64_t *ret_id)
{
	struct json_object *args = with_string(json_object_new_object(), "fdname", name);

	if (fd < 0) {
		json_object_put(args);
		return -EBADF;
	}
	return send_args(q, "getfd", args, fd, timeout_ns, fn, data, ret_id);
}

int hf_qmp_closefd(struct hf_qmp *q, const char *name, uint64_t timeout_ns, hf_qmp_reply_fn fn,
	void *data, uint64_t *ret_id)
{
	struct json_object *args = with_string(json_object_new_object(), "fdname", name);

	return send_args(q, "closefd", args, -EBADF, timeout_ns, fn, data, ret_id);
}

int hf_qmp_announce_self(struct hf_qmp *q, const struct hf_qmp_announce *a, uint64_t timeout_ns,
	hf_qmp_reply_fn fn, void *data, uint64_t *ret_id)
{
	static const struct hf_qmp_announce habit = {
		.initial_ms = 50,
		.max_ms = 550,
		.rounds = 5,
		.step_ms = 100,
	};
	struct json_object *args = json_object_new_object();

	if (!a)
		a = &habit;
	args = with_u64(args, "initial", a->initial_ms);
	args = with_u64(args, "max", a->max_ms);
	args = with_u64(args, "rounds", a->rounds);
	args = with_u64(args, "step", a->step_ms);
	return send_args(q, "announce-self", args, -EBADF, timeout_ns, fn, data, ret_id);
}

int hf_qmp_human_command(struct hf_qmp *q, const char *line, uint64_t timeout_ns,
	hf_qmp_reply_fn fn, void *data, uint64_t *ret_id)
{
	struct json_object *args = with_string(json_object_new_object(), "command-line", line);

	return send_args(q, "human-monitor-command", args, -EBADF, timeout_ns, fn, data, ret_id);
}

int hf_qmp_qom_get(struct hf_qmp *q, const char *path, const char *property, uint64_t timeout_ns,
	hf_qmp_reply_fn fn, void *data, uint64_t *ret_id)
{
	struct json_object *args = with_string(json_object_new_object(), "path", path);

	args = with_string(args, "property", property);
	return send_args(q, "qom-get", args, -EBADF, timeout_ns, fn, data, ret_id);
}

int hf_qmp_qom_list(struct hf_qmp *q, const char *path, uint64_t timeout_ns, hf_qmp_reply_fn fn,
	void *data, uint64_t *ret_id)
{
	struct json_object *args = with_string(json_object_new_object(), "path", path);

	return send_args(q, "qom-list", args, -EBADF, timeout_ns, fn, data, ret_id);
}

int hf_qmp_query_virtqueue(struct hf_qmp *q, const char *path, unsigned int queue,
	uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id)
{
	struct json_object *args = with_string(json_object_new_object(), "path", path);

	args = with_u64(args, "queue", queue);
	return send_args(
		q, "x-query-virtio-queue-status", args, -EBADF, timeout_ns, fn, data, ret_id);
}
