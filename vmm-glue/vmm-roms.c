/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Which ROM files did a running QEMU load?
 *
 * It has two lists: `info roms` has the firmware and the ROMs that QEMU itself places, and
 * `info qtree`, among all else, those that PCI devices have in their expansion ROM. What a guest is
 * started from is good to know, but nothing fails for lack of it.
 */
#include <stdio.h>
#include <string.h>

#include "vmm-glue/vmm-internal.h"

#define MAX_ROMS 128

void hf_vmm_want_roms(struct hf_vmm *vmm)
{
	vmm->want_roms = true;
}

char *const *hf_vmm_get_roms(const struct hf_vmm *vmm)
{
	return vmm->roms;
}

void hf_vmm_forget_roms(struct hf_vmm *vmm)
{
	for (size_t i = 0; i < vmm->n_roms; i++)
		free(vmm->roms[i]);
	free(TAKE_PTR(vmm->roms));
	vmm->n_roms = 0;
}

static void add(struct hf_vmm *vmm, const char *name)
{
	char **p, *copy;

	for (size_t i = 0; i < vmm->n_roms; i++)
		if (strcmp(vmm->roms[i], name) == 0)
			return;
	copy = strdup(name);
	p = copy ? reallocarray(vmm->roms, vmm->n_roms + 2, sizeof(*p)) : NULL;
	if (!p) {
		free(copy);
		return;
	}
	p[vmm->n_roms++] = copy;
	p[vmm->n_roms] = NULL;
	vmm->roms = p;
}

static void take_roms(struct hf_vmm *vmm, const char *text, size_t size)
{
	cleanup_free struct hf_qmp_rom *roms = calloc(MAX_ROMS, sizeof(*roms));
	size_t n;

	if (!roms || hf_qmp_parse_roms(text, size, roms, MAX_ROMS, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		/* An unpacked kernel is there in parts: hw/elf_ops.h.inc. */
		char *part = strstr(roms[i].name, " ELF program header segment ");

		if (part)
			*part = 0;
		/* What has the same name on both sides was made and not loaded: ACPI tables. */
		if (strcmp(roms[i].name, roms[i].fw_path) != 0)
			add(vmm, roms[i].name);
	}
}

static void take_romfiles(struct hf_vmm *vmm, const char *text, size_t size)
{
	cleanup_free struct hf_qmp_romfile *files = calloc(MAX_ROMS, sizeof(*files));
	size_t n;

	if (!files || hf_qmp_parse_romfiles(text, size, files, MAX_ROMS, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		add(vmm, files[i].name);
}

static void answered(struct hf_vmm *vmm, int err, struct json_object *ret,
	void (*take)(struct hf_vmm *vmm, const char *text, size_t size))
{
	const char *text;
	size_t size;

	if (err == -ECONNRESET)
		return;
	if (err == 0 && hf_qmp_parse_text(ret, &text, &size) == 0)
		take(vmm, text, size);
	vmm->roms_done(vmm);
}

static void on_roms(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	answered(data, err, ret, take_roms);
}

static void on_qtree(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	answered(data, err, ret, take_romfiles);
}

int hf_vmm_ask_roms(struct hf_vmm *vmm, void (*done)(struct hf_vmm *vmm))
{
	int r;

	hf_vmm_forget_roms(vmm);
	vmm->roms_done = done;
	r = HF_VMM_SEND(vmm, on_roms, hf_qmp_human_command, "info roms");
	return r < 0 ? r : HF_VMM_SEND(vmm, on_qtree, hf_qmp_human_command, "info qtree");
}
