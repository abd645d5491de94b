/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Fuzzes the parsers of QMP replies: any JSON value goes to each of them.
 *
 * A parser that accepts must have filled all it promises: that is what is looked at behind it.
 */
#include <json-c/json.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qmp/commands.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define N 8

static void must_be_text(const char *s, size_t size)
{
	size_t i;

	for (i = 0; i < size && s[i]; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			abort();
	if (i == size)
		abort();
}
#define TEXT(field) must_be_text(field, sizeof(field))

static void check_lists(struct json_object *v)
{
	struct hf_qmp_memdev memdevs[N];
	struct hf_qmp_chardev chardevs[N];
	struct hf_qmp_virtio_device devices[N];
	struct hf_qmp_block blocks[N];
	size_t i, n, pos = 0;
	const char *name;
	bool on;

	memset(memdevs, 0xff, sizeof(memdevs));
	memset(chardevs, 0xff, sizeof(chardevs));
	if (hf_qmp_parse_memdevs(v, memdevs, N, &n) == 0)
		for (i = 0; i < n; i++)
			TEXT(memdevs[i].id);
	if (hf_qmp_parse_chardevs(v, chardevs, N, &n) == 0) {
		for (i = 0; i < n; i++) {
			TEXT(chardevs[i].label);
			TEXT(chardevs[i].filename);
		}
	}
	memset(devices, 0xff, sizeof(devices));
	if (hf_qmp_parse_virtio_devices(v, devices, N, &n) == 0) {
		for (i = 0; i < n; i++) {
			TEXT(devices[i].name);
			TEXT(devices[i].path);
		}
	}
	memset(blocks, 0xff, sizeof(blocks));
	if (hf_qmp_parse_blocks(v, blocks, N, &n) == 0) {
		for (i = 0; i < n; i++) {
			TEXT(blocks[i].device);
			TEXT(blocks[i].qdev);
		}
	}
	hf_qmp_parse_bool(v, &on);
	hf_qmp_parse_capability(v, "x-ignore-shared", &on);
	hf_qmp_parse_kvm(v, &on);
	while (hf_qmp_next_capability(v, &pos, &name) == 0)
		n += strlen(name);
}

static void check_migration(struct json_object *v)
{
	struct hf_qmp_migrate_parameters params;
	struct hf_qmp_migration m;
	enum hf_qmp_migration_status status;
	size_t i;

	if (hf_qmp_parse_migration(v, &m) == 0) {
		TEXT(m.error_desc);
		for (i = 0; i < m.n_blockers && i < HF_QMP_MAX_BLOCKERS; i++)
			TEXT(m.blockers[i]);
		if (!hf_qmp_migration_status_name(m.status))
			abort();
	}
	if (hf_qmp_parse_migration_event(v, &status) == 0)
		hf_qmp_migration_over(status);
	if (hf_qmp_parse_migrate_parameters(v, &params) == 0)
		TEXT(params.mode);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_tokener *tok = json_tokener_new();
	struct json_object *v = json_tokener_parse_ex(tok, (const char *)data, (int)size);
	struct hf_qmp_status status;
	struct hf_qmp_version version;
	char name[32], uuid[37];
	const char *text;
	struct hf_qmp_virtqueue queue;
	uint64_t actual;
	size_t n;

	if (hf_qmp_parse_status(v, &status) == 0) {
		TEXT(status.name);
		if (!hf_qmp_run_state_name(status.state))
			abort();
	}
	if (hf_qmp_parse_version(v, &version) == 0)
		TEXT(version.package);
	if (hf_qmp_parse_name(v, name, sizeof(name)) == 0)
		TEXT(name);
	if (hf_qmp_parse_uuid(v, uuid) == 0 && strlen(uuid) != 36)
		abort();
	hf_qmp_parse_balloon(v, &actual);
	hf_qmp_parse_number(v, &actual);
	hf_qmp_parse_virtqueue(v, &queue);
	if (hf_qmp_parse_text(v, &text, &n) == 0 && text[n])
		abort();
	check_migration(v);
	check_lists(v);
	json_object_put(v);
	json_tokener_free(tok);
	return 0;
}
