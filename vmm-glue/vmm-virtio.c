/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Does a running QEMU make virtqueues larger than its devices ask for?
 *
 * Debian's QEMU 10.0.13 does: all virtqueues of all devices, on any bus and with any version of the
 * machine type, have 1024 entries. Their sizes are in the device state, and QEMU 11.1.3 refuses
 * those that are larger than it makes them itself ("VQ 0 vring.num 1024 exceeds allocated max 8"),
 * while 7.2 and 10.0 load them. Nothing else about the guest tells: so QEMU is asked, for one queue
 * of each device, as the fault is in all or in none.
 *
 * A guest's driver may make a queue smaller, and a guest that was loaded has the sizes that it was
 * saved with, but only until the device's next reset, which may come at any time until the guest is
 * paused. So the larger one of the queue's size now and that after a reset counts.
 */
#include <stdio.h>
#include <string.h>

#include "vmm-glue/vmm-internal.h"

#define MAX_DEVICES 256
/* No device that can be migrated has a larger queue unless it was told to. */
#define MAX_ENTRIES 256

/* Devices that can be told to have larger queues, where they say so, and one that has that size. */
static const struct {
	const char *device;
	const char *property;
	unsigned int queue;
} sized[] = {
	{"virtio-blk", "queue-size", 0},
	{"virtio-net", "tx_queue_size", 1},
	{"virtio-scsi", "virtqueue_size", 0},
};

static void ask_next(struct hf_vmm *vmm);

static size_t find_sized(const struct hf_qmp_virtio_device *d)
{
	size_t i = 0;

	while (i < HF_ARRAY_SIZE(sized) && strcmp(sized[i].device, d->name) != 0)
		i++;
	return i;
}

/* A reply of any kind goes on; after a lost connection nothing does. */
static bool is_over(int err)
{
	return err == -ECONNRESET;
}

static void judge(struct hf_vmm *vmm, uint64_t asked_for)
{
	const struct hf_qmp_virtio_device *d = &vmm->virtio[vmm->next_virtio];
	uint64_t entries = HF_MAX(vmm->virtqueue.num, vmm->virtqueue.num_default);

	if (entries > asked_for && entries > vmm->probe.odd_queue_entries) {
		vmm->probe.odd_queue_entries = entries;
		snprintf(vmm->probe.odd_queue_device, sizeof(vmm->probe.odd_queue_device), "%.*s",
			(int)sizeof(vmm->probe.odd_queue_device) - 1, d->name);
	}
}

static void on_size(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	uint64_t asked_for = MAX_ENTRIES;

	if (is_over(err))
		return;
	if (err == 0)
		hf_qmp_parse_number(ret, &asked_for);
	judge(vmm, asked_for);
	vmm->next_virtio++;
	ask_next(vmm);
}

static void on_queue(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	const struct hf_qmp_virtio_device *d = &vmm->virtio[vmm->next_virtio];
	size_t i = find_sized(d);

	if (is_over(err))
		return;
	if (err == 0 && hf_qmp_parse_virtqueue(ret, &vmm->virtqueue) == 0) {
		if (i < HF_ARRAY_SIZE(sized)) {
			HF_VMM_SEND(vmm, on_size, hf_qmp_qom_get, d->path, sized[i].property);
			return;
		}
		judge(vmm, MAX_ENTRIES);
	}
	vmm->next_virtio++;
	ask_next(vmm);
}

static void ask_next(struct hf_vmm *vmm)
{
	const struct hf_qmp_virtio_device *d;
	size_t i;

	if (!vmm->virtio || vmm->next_virtio == vmm->n_virtio) {
		free(TAKE_PTR(vmm->virtio));
		vmm->virtio_done(vmm);
		return;
	}
	d = &vmm->virtio[vmm->next_virtio];
	i = find_sized(d);
	HF_VMM_SEND(vmm, on_queue, hf_qmp_query_virtqueue, d->path,
		i < HF_ARRAY_SIZE(sized) ? sized[i].queue : 0);
}

static void on_devices(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	if (is_over(err))
		return;
	vmm->virtio = calloc(MAX_DEVICES, sizeof(*vmm->virtio));
	if (err != 0 || !vmm->virtio ||
		hf_qmp_parse_virtio_devices(ret, vmm->virtio, MAX_DEVICES, &vmm->n_virtio) < 0)
		vmm->n_virtio = 0;
	for (size_t i = 0; i < vmm->n_virtio; i++)
		if (strcmp(vmm->virtio[i].name, "virtio-balloon") == 0)
			snprintf(vmm->balloon_path, sizeof(vmm->balloon_path), "%s",
				vmm->virtio[i].path);
	ask_next(vmm);
}

int hf_vmm_ask_virtio(struct hf_vmm *vmm, void (*done)(struct hf_vmm *vmm))
{
	free(TAKE_PTR(vmm->virtio));
	vmm->n_virtio = vmm->next_virtio = 0;
	vmm->virtio_done = done;
	vmm->balloon_path[0] = 0;
	vmm->probe.odd_queue_entries = 0;
	vmm->probe.odd_queue_device[0] = 0;
	return HF_VMM_SEND(vmm, on_devices, hf_qmp_query_virtio);
}
