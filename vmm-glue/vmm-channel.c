/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Whether anybody has a character device, and whether the guest has its end open.
 */
#include <stdio.h>
#include <string.h>

#include "vmm-glue/vmm-internal.h"

#define MAX_LISTED 256
#define TIMEOUT_NS (5 * HF_NSEC_PER_SEC)
/* What QEMU puts in front of a socket that nobody is connected to. */
#define FREE_PREFIX "disconnected:"

static void on_chardevs(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	cleanup_free struct hf_qmp_chardev *devs = calloc(MAX_LISTED, sizeof(*devs));
	struct hf_vmm_channel c = {0};
	struct hf_vmm *vmm = data;
	hf_vmm_channel_fn done = vmm->channel_done;
	size_t n = 0;

	vmm->channel_done = NULL;
	if (err == 0 && devs)
		hf_qmp_parse_chardevs(ret, devs, MAX_LISTED, &n);
	for (size_t i = 0; i < n; i++) {
		if (strcmp(devs[i].label, vmm->channel_label) != 0)
			continue;
		c.known = true;
		c.taken = strncmp(devs[i].filename, FREE_PREFIX, strlen(FREE_PREFIX)) != 0;
		c.open = devs[i].frontend_open;
	}
	if (done)
		done(vmm, &c, vmm->channel_data);
}

void hf_vmm_forget_channel(struct hf_vmm *vmm)
{
	vmm->channel_done = NULL;
}

int hf_vmm_ask_channel(struct hf_vmm *vmm, const char *label, hf_vmm_channel_fn done, void *data)
{
	if (!vmm->qmp)
		return -ENOTCONN;
	snprintf(vmm->channel_label, sizeof(vmm->channel_label), "%s", label);
	vmm->channel_done = done;
	vmm->channel_data = data;
	return hf_qmp_query_chardev(vmm->qmp, TIMEOUT_NS, on_chardevs, vmm, NULL);
}
