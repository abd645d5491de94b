/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Device states of arbitrary bytes: what is taken from them lies in them.
 */
#include <stdint.h>
#include <stdlib.h>

#include "vmm-glue/cpu-notes.h"
#include "vmm-glue/layout.h"
#include "vmm-glue/vmdesc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(const struct hf_vmdesc *d, const char *device, const char *field,
	const char *member, const uint8_t *data, size_t size)
{
	struct hf_vmdesc_section s;
	const uint8_t *p;
	uint64_t number;
	size_t n;

	if (hf_vmdesc_find(d, device, 0, &s) < 0)
		return;
	if (s.data < data || s.size > size || s.data > data + size - s.size)
		abort();
	for (size_t i = 0; i < 3; i++) {
		if (hf_vmdesc_bytes(&s, field, i, &p, &n) == 0 &&
			(p < s.data || n > s.size || p > s.data + s.size - n))
			abort();
		hf_vmdesc_number(&s, field, i, member, &number);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char *argv[] = {(char *)"qemu-system-x86_64", NULL};
	struct hf_manifest_ram ram = {.id = (char *)"pc.ram", .size = 4ULL << 30};
	struct hf_manifest_guest guest = {.argv = argv,
		.n_argv = 1,
		.ram = &ram,
		.n_ram = 1,
		.machine = (char *)"pc-q35-7.2"};
	struct hf_core_notes notes = {0};
	struct hf_layout layout;
	struct hf_vmdesc *d;
	uint64_t sum = 0;
	size_t n = 0;

	if (hf_vmdesc_parse(data, size, &d) < 0)
		return 0;
	look(d, "cpu", "env.segs", "base", data, size);
	look(d, "timer", "cpu_ticks_offset", NULL, data, size);
	if (hf_cpu_notes_add(d, &notes, &n) == 0 ? n == 0 || notes.size == 0 : notes.size != 0)
		abort();
	hf_core_notes_clear(&notes);
	if (hf_layout_get(&guest, d, &layout) < 0)
		abort();
	for (size_t i = 0; i < layout.n_ranges; i++)
		sum += layout.ranges[i].size;
	if (sum != ram.size)
		abort();
	hf_vmdesc_free(d);
	return 0;
}
