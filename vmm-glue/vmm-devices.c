/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Does a running QEMU have the devices that its command line says, and no others?
 *
 * A respawned QEMU gets the command line of the guest's start. A device that was plugged in since
 * would be missing from it, and QEMU refuses a stream with the state of a device that it doesn't
 * have: after the jump, when there is no way back. So it has to be found out before.
 *
 * QEMU keeps what `-device` and `device_add` made in /machine/peripheral (by id) and
 * /machine/peripheral-anon (those without); built-in devices are elsewhere.
 */
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "vmm-glue/cmdline-internal.h"
#include "vmm-glue/cmdline-params.h"
#include "vmm-glue/vmm-internal.h"

static bool is_child(struct json_object *entry, const char **ret_name)
{
	const char *type = hf_json_get_string(entry, "type", "");

	*ret_name = hf_json_get_string(entry, "name", "");
	return strncmp(type, "child<", 6) == 0;
}

/* Calls @fn with the id of every device that argv makes, NULL for one without. */
static int for_each_device(
	const struct hf_manifest_guest *guest, void (*fn)(const char *id, void *data), void *data)
{
	struct hf_option o;
	size_t pos = 1;

	while (hf_option_next(guest->argv, guest->n_argv, &pos, &o)) {
		cleanup_params struct hf_params p = {0};
		const char *interface;
		int r;

		if (strcmp(o.name, "virtfs") == 0) {
			fn(NULL, data);
			continue;
		}
		if (strcmp(o.name, "device") != 0 && strcmp(o.name, "drive") != 0)
			continue;
		r = hf_params_parse(o.value, o.name[1] == 'e' ? "driver" : NULL, &p);
		if (r < 0)
			return r;
		interface = hf_params_get(&p, "if");
		if (strcmp(o.name, "device") == 0)
			fn(hf_params_get_first(&p, "id"), data);
		else if (interface && strcmp(interface, "virtio") == 0)
			fn(NULL, data);
	}
	return 0;
}

struct search {
	const char *name;
	struct json_object *children;
	size_t n_without_id;
	bool found;
	char missing[64];
};

static void look_for_name(const char *id, void *data)
{
	struct search *s = data;

	s->found |= id && strcmp(id, s->name) == 0;
}

static void look_for_child(const char *id, void *data)
{
	struct search *s = data;
	const char *name;

	s->n_without_id += !id;
	if (!id)
		return;
	for (size_t i = 0; i < hf_json_array_size(s->children); i++)
		if (is_child(json_object_array_get_idx(s->children, i), &name) &&
			strcmp(name, id) == 0)
			return;
	snprintf(s->missing, sizeof(s->missing), "%.*s", (int)sizeof(s->missing) - 1, id);
}

int hf_vmm_compare_named(const struct hf_manifest_guest *guest, struct json_object *children,
	char *ret_why, size_t size)
{
	struct search s = {.children = children};
	int r;

	ret_why[0] = 0;
	if (!json_object_is_type(children, json_type_array))
		return -EBADMSG;
	r = for_each_device(guest, look_for_child, &s);
	if (r < 0)
		return r;
	if (s.missing[0])
		snprintf(ret_why, size, "device %s of its command line was unplugged", s.missing);
	for (size_t i = 0; i < hf_json_array_size(children); i++) {
		s.found = false;
		if (!is_child(json_object_array_get_idx(children, i), &s.name))
			continue;
		r = for_each_device(guest, look_for_name, &s);
		if (r < 0)
			return r;
		if (!s.found)
			snprintf(ret_why, size, "device %.64s was plugged in after its start",
				s.name);
	}
	return 0;
}

int hf_vmm_compare_anonymous(const struct hf_manifest_guest *guest, struct json_object *children,
	char *ret_why, size_t size)
{
	struct search s = {0};
	const char *name;
	size_t n = 0;
	int r;

	ret_why[0] = 0;
	if (!json_object_is_type(children, json_type_array))
		return -EBADMSG;
	r = for_each_device(guest, look_for_child, &s);
	if (r < 0)
		return r;
	for (size_t i = 0; i < hf_json_array_size(children); i++)
		n += is_child(json_object_array_get_idx(children, i), &name);
	/* They have no names to compare, so only their number tells. */
	if (n != s.n_without_id)
		snprintf(ret_why, size,
			"it has %zu devices without id, its command line has %zu: one was plugged "
			"in "
			"or out",
			n, s.n_without_id);
	return 0;
}

static void on_devices(struct hf_vmm *vmm, int err, struct json_object *ret,
	const struct hf_error *error,
	int (*compare)(const struct hf_manifest_guest *guest, struct json_object *children,
		char *ret_why, size_t size))
{
	char why[160];
	int r;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	r = compare(vmm->guest, ret, why, sizeof(why));
	if (r < 0)
		hf_vmm_failf(
			vmm, r, NULL, "QEMU's answer to qom-list makes no sense: %s", strerror(-r));
	else
		vmm->devices_answered(vmm, why);
}

static void on_named(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	on_devices(data, err, ret, error, hf_vmm_compare_named);
}

static void on_anonymous(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	on_devices(data, err, ret, error, hf_vmm_compare_anonymous);
}

int hf_vmm_ask_devices(struct hf_vmm *vmm, void (*answered)(struct hf_vmm *vmm, const char *why))
{
	int r;

	vmm->devices_answered = answered;
	r = HF_VMM_SEND(vmm, on_named, hf_qmp_qom_list, "/machine/peripheral");
	if (r < 0)
		return r;
	return HF_VMM_SEND(vmm, on_anonymous, hf_qmp_qom_list, "/machine/peripheral-anon");
}
