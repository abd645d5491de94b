/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What a running QEMU says of its balloon, its guest agent's channel and its disks.
 *
 * It is of interest to whoever reads a check, and nothing fails for lack of it. All of it is what
 * QEMU has at hand: the guest is not asked for anything.
 */
#include <stdio.h>
#include <string.h>

#include "vmm-glue/traits.h"
#include "vmm-glue/vmm-internal.h"

#define MAX_LISTED 256

void hf_vmm_want_details(struct hf_vmm *vmm)
{
	vmm->want_details = true;
}

/* A reply of any kind goes on; after a lost connection nothing does. */
static void answered(struct hf_vmm *vmm, int err)
{
	if (err != -ECONNRESET)
		vmm->details_done(vmm);
}

static void on_balloon(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	if (err == 0 && hf_qmp_parse_balloon(ret, &vmm->probe.balloon_bytes) == 0)
		vmm->probe.balloon = true;
	answered(vmm, err);
}

static void on_chardevs(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	cleanup_free struct hf_qmp_chardev *devs = calloc(MAX_LISTED, sizeof(*devs));
	struct hf_vmm *vmm = data;
	struct hf_traits t;
	size_t n = 0;

	if (err == 0 && devs && hf_qmp_parse_chardevs(ret, devs, MAX_LISTED, &n) == 0) {
		vmm->probe.agent_known = true;
		hf_traits_find(vmm->guest->argv, vmm->guest->n_argv, &t);
		for (size_t i = 0; i < n; i++) {
			if (!t.agent_chardev[0] || strcmp(devs[i].label, t.agent_chardev) != 0)
				continue;
			vmm->probe.agent_channel = true;
			vmm->probe.agent_open = devs[i].frontend_open;
		}
	}
	answered(vmm, err);
}

static void on_blocks(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	cleanup_free struct hf_qmp_block *blocks = calloc(MAX_LISTED, sizeof(*blocks));
	struct hf_vmm *vmm = data;
	size_t n = 0;

	if (err == 0 && blocks)
		hf_qmp_parse_blocks(ret, blocks, MAX_LISTED, &n);
	for (size_t i = 0; i < n; i++) {
		const char *name = blocks[i].device[0] ? blocks[i].device : blocks[i].qdev;

		if (!blocks[i].inserted || !blocks[i].no_flush)
			continue;
		if (vmm->probe.n_no_flush++ == 0)
			snprintf(vmm->probe.no_flush_disk, sizeof(vmm->probe.no_flush_disk), "%.*s",
				(int)sizeof(vmm->probe.no_flush_disk) - 1, name);
	}
	answered(vmm, err);
}

int hf_vmm_ask_details(struct hf_vmm *vmm, void (*done)(struct hf_vmm *vmm))
{
	int r;

	vmm->details_done = done;
	r = HF_VMM_SEND(vmm, on_balloon, hf_qmp_query_balloon);
	if (r == 0)
		r = HF_VMM_SEND(vmm, on_chardevs, hf_qmp_query_chardev);
	return r < 0 ? r : HF_VMM_SEND(vmm, on_blocks, hf_qmp_query_block);
}

static void on_reporting(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	if (err == 0)
		hf_qmp_parse_bool(ret, &vmm->probe.free_page_reporting);
	answered(vmm, err);
}

int hf_vmm_ask_reporting(struct hf_vmm *vmm, void (*done)(struct hf_vmm *vmm))
{
	vmm->details_done = done;
	return HF_VMM_SEND(
		vmm, on_reporting, hf_qmp_qom_get, vmm->balloon_path, "free-page-reporting");
}
