/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/traits.h"

#include <stdio.h>
#include <string.h>

#include "vmm-glue/cmdline-internal.h"

#define AGENT_PORT "org.qemu.guest_agent.0"

/* The first of a kind counts. */
static void take(char *field, const char *value)
{
	if (!field[0])
		snprintf(field, HF_TRAIT_BYTES, "%.*s", HF_TRAIT_BYTES - 1, value);
}

static void on_device(struct hf_traits *t, const struct hf_params *v)
{
	const char *driver = hf_params_get(v, "driver");
	const char *name = hf_params_get(v, "name");
	const char *chardev = hf_params_get(v, "chardev");

	if (!driver)
		return;
	if (hf_has_prefix(driver, "vfio-") || hf_has_prefix(driver, "x-vfio-"))
		take(t->vfio, driver);
	else if (hf_has_prefix(driver, "virtio-mem"))
		take(t->virtio_mem, driver);
	else if (strcmp(driver, "virtserialport") == 0 && name && strcmp(name, AGENT_PORT) == 0)
		take(t->agent_chardev, chardev ? chardev : "");
}

static bool on_hugetlbfs(const char *path)
{
	return path && (strstr(path, "hugepages") || strstr(path, "hugetlb"));
}

static void on_object(struct hf_traits *t, const struct hf_params *v)
{
	const char *type = hf_params_get(v, "qom-type");
	const char *id = v->json ? hf_params_get(v, "id") : hf_params_get_first(v, "id");

	if (!type || !hf_has_prefix(type, "memory-backend-"))
		return;
	if (!id)
		id = "?";
	if (hf_params_is_on(v, "hugetlb") || on_hugetlbfs(hf_params_get(v, "mem-path")))
		take(t->hugetlb, id);
	if (hf_params_is_on(v, "discard-data"))
		take(t->discard_data, id);
}

/* The last -machine that names a type counts. */
static void on_machine(struct hf_traits *t, const struct hf_params *v)
{
	const char *type = hf_params_get(v, "type");

	if (!type)
		return;
	snprintf(t->machine, sizeof(t->machine), "%.*s", HF_TRAIT_BYTES - 1, type);
	t->machine_alias = strcmp(type, "pc") == 0 || strcmp(type, "q35") == 0;
}

static void on_cpu(struct hf_traits *t, const char *value)
{
	size_t n = strcspn(value, ",");
	bool follows = (n == 4 && memcmp(value, "host", n) == 0) ||
		       (n == 3 && memcmp(value, "max", n) == 0);

	snprintf(t->cpu, sizeof(t->cpu), "%.*s", follows ? (int)n : 0, value);
}

static const char *implied_key(enum hf_option_kind kind)
{
	return kind == HF_OPTION_DEVICE ? "driver" : kind == HF_OPTION_OBJECT ? "qom-type" : "type";
}

void hf_traits_find(char *const *argv, size_t n, struct hf_traits *ret)
{
	struct hf_traits t = {.machine_alias = true};
	struct hf_option o;
	size_t pos = 1;

	while (hf_option_next(argv, n, &pos, &o)) {
		cleanup_params struct hf_params v = {0};

		if (o.kind == HF_OPTION_MEM_PATH && on_hugetlbfs(o.value))
			take(t.hugetlb, o.value);
		if (o.kind == HF_OPTION_PLAIN && strcmp(o.name, "cpu") == 0)
			on_cpu(&t, o.value);
		if (o.kind != HF_OPTION_DEVICE && o.kind != HF_OPTION_OBJECT &&
			o.kind != HF_OPTION_MACHINE)
			continue;
		if (hf_params_parse(o.value, implied_key(o.kind), &v) < 0)
			continue;
		if (o.kind == HF_OPTION_DEVICE)
			on_device(&t, &v);
		else if (o.kind == HF_OPTION_OBJECT)
			on_object(&t, &v);
		else
			on_machine(&t, &v);
	}
	*ret = t;
}
