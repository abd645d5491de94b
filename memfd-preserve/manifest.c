/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The manifest as a structure: making, changing and freeing it.
 */
#include "memfd-preserve/manifest.h"

#include <string.h>

#include "memfd-preserve/manifest-schema.h"

int hf_manifest_new(struct hf_manifest **ret_manifest)
{
	struct hf_manifest *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->version = HF_MANIFEST_VERSION;
	m->min_reader_version = HF_MANIFEST_MIN_READER;
	*ret_manifest = m;
	return 0;
}

void hf_manifest_free(struct hf_manifest *m)
{
	if (!m)
		return;
	hf_manifest_schema_clear(&hf_manifest_schema_root, m);
	free(m);
}

int hf_manifest_add_guest(struct hf_manifest *m, struct hf_manifest_guest **ret_guest)
{
	struct hf_manifest_guest *g;

	if (m->n_guests >= HF_MANIFEST_MAX_GUESTS)
		return -EFBIG;
	g = hf_manifest_schema_append(&hf_manifest_schema_root.lists[ROOT_GUESTS], m);
	if (!g)
		return -ENOMEM;
	*ret_guest = g;
	return 0;
}

void hf_manifest_clear_guest(struct hf_manifest_guest *guest)
{
	hf_manifest_schema_clear(&hf_manifest_schema_guest, guest);
	*guest = (struct hf_manifest_guest){0};
}

void hf_manifest_remove_guest(struct hf_manifest *m, struct hf_manifest_guest *guest)
{
	for (size_t i = 0; i < m->n_guests; i++) {
		if (m->guests[i] != guest)
			continue;
		hf_manifest_clear_guest(guest);
		free(guest);
		m->n_guests--;
		memmove(&m->guests[i], &m->guests[i + 1], (m->n_guests - i) * sizeof(*m->guests));
		return;
	}
}

struct hf_manifest_guest *hf_manifest_find_guest(const struct hf_manifest *m, const char *id)
{
	for (size_t i = 0; i < m->n_guests; i++)
		if (strcasecmp(m->guests[i]->uuid, id) == 0)
			return m->guests[i];
	for (size_t i = 0; i < m->n_guests; i++)
		if (m->guests[i]->name && strcmp(m->guests[i]->name, id) == 0)
			return m->guests[i];
	return NULL;
}

int hf_manifest_set(char **field, const char *value)
{
	char *copy = NULL;

	if (value) {
		copy = strdup(value);
		if (!copy)
			return -ENOMEM;
	}
	free(*field);
	*field = copy;
	return 0;
}

static void free_strings(char **strings, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(strings[i]);
	free(strings);
}

int hf_manifest_set_strings(char ***field, size_t *ret_n, const char *const *values, size_t n)
{
	char **copy;

	if (n > HF_MANIFEST_MAX_STRINGS)
		return -EFBIG;
	copy = calloc(n + 1, sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		copy[i] = strdup(values[i]);
		if (!copy[i]) {
			free_strings(copy, i);
			return -ENOMEM;
		}
	}
	free_strings(*field, *field ? *ret_n : 0);
	*field = copy;
	*ret_n = n;
	return 0;
}

struct hf_manifest_ram *hf_manifest_add_ram(struct hf_manifest_guest *g)
{
	return hf_manifest_schema_append(&hf_manifest_schema_guest.lists[GUEST_RAM], g);
}

struct hf_manifest_chunk *hf_manifest_add_chunk(struct hf_manifest_guest *g)
{
	return hf_manifest_schema_append(&hf_manifest_schema_guest.lists[GUEST_STATE], g);
}

struct hf_manifest_fd *hf_manifest_add_fd(struct hf_manifest_guest *g)
{
	return hf_manifest_schema_append(&hf_manifest_schema_guest.lists[GUEST_FDS], g);
}

struct hf_manifest_folder *hf_manifest_add_folder(struct hf_manifest_guest *g)
{
	return hf_manifest_schema_append(&hf_manifest_schema_guest.lists[GUEST_FOLDERS], g);
}

struct hf_manifest_helper *hf_manifest_add_helper(struct hf_manifest_guest *g)
{
	return hf_manifest_schema_append(&hf_manifest_schema_guest.lists[GUEST_HELPERS], g);
}

struct hf_manifest_disk *hf_manifest_add_disk(struct hf_manifest_guest *g)
{
	return hf_manifest_schema_append(&hf_manifest_schema_guest.lists[GUEST_DISKS], g);
}

void hf_manifest_forget_disks(struct hf_manifest_guest *g)
{
	hf_manifest_schema_empty(&hf_manifest_schema_guest.lists[GUEST_DISKS], g);
}

void hf_manifest_forget_inherited(struct hf_manifest_guest *g)
{
	hf_manifest_schema_empty(&hf_manifest_schema_guest.lists[GUEST_FDS], g);
	hf_manifest_schema_empty(&hf_manifest_schema_guest.lists[GUEST_FOLDERS], g);
	hf_manifest_schema_empty(&hf_manifest_schema_guest.lists[GUEST_HELPERS], g);
	hf_manifest_set(&g->apparmor, NULL);
	g->inherits = false;
}

struct hf_manifest_net *hf_manifest_add_net(struct hf_manifest_guest *g)
{
	return hf_manifest_schema_append(&hf_manifest_schema_guest.lists[GUEST_NET], g);
}

struct hf_manifest_file *hf_manifest_add_file(struct hf_manifest *m)
{
	return hf_manifest_schema_append(&hf_manifest_schema_root.lists[ROOT_READAHEAD], m);
}
