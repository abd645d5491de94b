/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/layout.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vmm-glue/cmdline-internal.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)
#define HIGH_RAM (4 * GIB) /* where it goes on */
/* From here on QEMU moves it elsewhere for some CPUs. */
#define HIGH_RAM_MAX 0xfd00000000ULL
#define CMOS_UNIT 65536ULL
#define MAX_NODES 128

struct finding {
	const struct hf_manifest_guest *guest;
	struct hf_layout *layout;
	const char *nodes[MAX_NODES]; /* memdev of each NUMA node, borrowed from memdevs */
	struct hf_params kept[MAX_NODES];
	size_t n_kept;
	size_t n_nodes;
	bool has_memdev;
	uint64_t max_below; /* max-ram-below-4g=, 0: not given */
	size_t order[HF_MANIFEST_MAX_RAM];
};

static void HF_PRINTF(2, 3) unknown(struct finding *f, const char *fmt, ...)
{
	va_list ap;

	if (f->layout->unknown[0])
		return;
	va_start(ap, fmt);
	vsnprintf(f->layout->unknown, sizeof(f->layout->unknown), fmt, ap);
	va_end(ap);
}

/* ---- the command line ---- */

static int on_machine(struct finding *f, const struct hf_option *o)
{
	cleanup_params struct hf_params v = {0};
	int r = hf_params_parse(o->value, "type", &v);

	for (size_t i = 0; r == 0 && i < v.n; i++) {
		for (char *c = v.v[i].key; *c; c++)
			if (*c == '_')
				*c = '-';
		if (strcmp(v.v[i].key, "max-ram-below-4g") == 0 &&
			hf_size_parse(v.v[i].value, 1, &f->max_below) < 0)
			unknown(f, "max-ram-below-4g of its machine can't be read");
	}
	return r == -ENOMEM ? r : 0;
}

static int on_numa(struct finding *f, const struct hf_option *o)
{
	struct hf_params v = {0};
	int r = hf_params_parse(o->value, "type", &v);
	const char *type = r == 0 ? hf_params_get(&v, "type") : NULL;
	const char *id = r == 0 ? hf_params_get(&v, "nodeid") : NULL;
	const char *memdev = r == 0 ? hf_params_get(&v, "memdev") : NULL;
	uint64_t number = f->n_nodes;

	if (r < 0 || !type || strcmp(type, "node") != 0) {
		hf_params_clear(&v);
		return r == -ENOMEM ? r : 0;
	}
	if ((id && hf_size_parse(id, 1, &number) < 0) || number >= MAX_NODES ||
		f->n_kept == MAX_NODES) {
		unknown(f, "its NUMA nodes have numbers that can't be read");
		hf_params_clear(&v);
		return 0;
	}
	f->n_nodes++;
	f->has_memdev |= memdev != NULL;
	f->nodes[number] = memdev;
	f->kept[f->n_kept++] = v;
	return 0;
}

static int read_argv(struct finding *f)
{
	const struct hf_manifest_guest *g = f->guest;
	struct hf_option o;
	size_t pos = 1;
	int r = 0;

	while (r == 0 && hf_option_next(g->argv, g->n_argv, &pos, &o)) {
		if (o.kind == HF_OPTION_MACHINE)
			r = on_machine(f, &o);
		else if (o.kind == HF_OPTION_NUMA)
			r = on_numa(f, &o);
	}
	return r;
}

/* Which block comes first, and so on: NUMA nodes have theirs in the order of their numbers. */
static void order_blocks(struct finding *f)
{
	const struct hf_manifest_guest *g = f->guest;
	size_t n = 0;

	if (!f->has_memdev && g->n_ram == 1)
		return;
	for (size_t node = 0; f->has_memdev && node < MAX_NODES; node++) {
		size_t i = 0;

		if (!f->nodes[node])
			continue;
		while (i < g->n_ram && strcmp(g->ram[i].id, f->nodes[node]) != 0)
			i++;
		if (i == g->n_ram || n == g->n_ram) {
			unknown(f, "its NUMA nodes have other memory than was preserved");
			return;
		}
		f->order[n++] = i;
	}
	if (n != g->n_ram)
		unknown(f, "it has memory modules, whose addresses are not known");
}

/* ---- the hole ---- */

/* By the machine type. Return: how much RAM is below the hole, or 0. */
static uint64_t below_by_type(const struct finding *f, uint64_t total)
{
	const char *type = f->guest->machine ? f->guest->machine : "";
	uint64_t below;

	if (strncmp(type, "pc-q35-", 7) == 0) {
		below = total >= 0xb0000000 ? 0x80000000 : 0xb0000000;
		if (f->max_below)
			below = HF_MIN(below, f->max_below);
	} else if (strncmp(type, "pc-i440fx-", 10) == 0) {
		below = f->max_below ? f->max_below : 0xe0000000;
		if (total >= below)
			below = HF_MIN(below, 0xc0000000);
	} else if (strcmp(type, "isapc") == 0 || strcmp(type, "microvm") == 0) {
		/* Up to here all versions agree. */
		below = 0xc0000000;
		if (total > below || f->max_below)
			return 0;
	} else {
		return 0;
	}
	return HF_MIN(below, total);
}

/* By what the firmware was told. Return: as above. */
static uint64_t below_by_cmos(const struct hf_vmdesc *d, uint64_t total)
{
	struct hf_vmdesc_section rtc;
	const uint8_t *cmos;
	uint64_t below, above;
	size_t size;

	if (!d || hf_vmdesc_find(d, "mc146818rtc", 0, &rtc) < 0 ||
		hf_vmdesc_bytes(&rtc, "cmos_data", 0, &cmos, &size) < 0 || size < 128)
		return 0;
	below = (cmos[0x34] | (uint64_t)cmos[0x35] << 8) * CMOS_UNIT + 16 * MIB;
	above = (cmos[0x5b] | (uint64_t)cmos[0x5c] << 8 | (uint64_t)cmos[0x5d] << 16) * CMOS_UNIT;
	return above > 0 && below + above == total ? below : 0;
}

/* ---- ranges ---- */

static void add_range(
	struct hf_layout *l, size_t block, uint64_t offset, uint64_t size, uint64_t address)
{
	l->ranges[l->n_ranges++] = (struct hf_layout_range){
		.block = block,
		.offset = offset,
		.size = size,
		.address = address,
	};
}

static void place(struct finding *f, uint64_t below)
{
	uint64_t at = 0;

	for (size_t i = 0; i < f->guest->n_ram; i++) {
		size_t block = f->order[i];
		uint64_t size = f->guest->ram[block].size;
		uint64_t low = at < below ? HF_MIN(size, below - at) : 0;

		if (low > 0)
			add_range(f->layout, block, 0, low, at);
		if (low < size)
			add_range(f->layout, block, low, size - low, HIGH_RAM + (at + low - below));
		at += size;
	}
}

int hf_layout_get(
	const struct hf_manifest_guest *guest, const struct hf_vmdesc *d, struct hf_layout *ret)
{
	struct finding f = {.guest = guest, .layout = ret};
	uint64_t total = 0, below, told;
	int r;

	*ret = (struct hf_layout){0};
	for (size_t i = 0; i < guest->n_ram && i < HF_MANIFEST_MAX_RAM; i++) {
		f.order[i] = i;
		total += guest->ram[i].size;
	}
	r = read_argv(&f);
	if (r == 0)
		order_blocks(&f);
	below = below_by_type(&f, total);
	told = below_by_cmos(d, total);
	if (told > 0)
		below = told;
	if (below == 0)
		unknown(&f, "where machines of type %.60s have their RAM is not known",
			guest->machine ? guest->machine : "(none)");
	else if (total - below > HIGH_RAM_MAX - HIGH_RAM)
		unknown(&f, "where guests of this size have their RAM depends on their CPU");
	if (ret->unknown[0]) {
		for (size_t i = 0; i < guest->n_ram; i++)
			f.order[i] = i;
		below = total;
	}
	if (r == 0)
		place(&f, below);
	for (size_t i = 0; i < f.n_kept; i++)
		hf_params_clear(&f.kept[i]);
	return r;
}
