/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A new QEMU beside the one that runs the guest, on the same memory.
 *
 * Everything that takes long happens while the guest runs in the old one: the start, its greeting,
 * settings, and `migrate-incoming` on the socket that the device state will come through. The load
 * then begins with the state's first bytes.
 *
 * Until those the new QEMU leaves the RAM alone: with `-incoming` its machine's reset does, as does
 * whatever maps the file.
 *
 * With taps it is started when the guest stands still (see taps.h), and the state may be waiting in
 * the socket by then: `migrate-incoming` is a part of the load.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "vmm-glue/vmm-internal.h"

static void on_prepared(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	if (!hf_vmm_check_reply(vmm, err, error) || --vmm->n_replies > 0)
		return;
	/* From now on its end is news. */
	vmm->attached = vmm->beside = true;
	hf_vmm_end(vmm);
}

int hf_vmm_make_stream(struct hf_vmm *vmm, struct hf_error *e)
{
	int pair[2];

	/* The other one may have had its end already. */
	if (vmm->stream_fd >= 0)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return hf_error_set(
			e, -errno, HF_ERR_FAILED, NULL, "can't make a socket: %s", strerror(errno));
	hf_vmm_widen(pair[0]);
	vmm->load_fd = pair[0];
	vmm->stream_fd = pair[1];
	return 0;
}

void hf_vmm_beside_on_ready(struct hf_vmm *vmm)
{
	vmm->stamps.ready = hf_tsc_now();
	vmm->waiting = "make ready to load";
	vmm->n_replies = vmm->taps ? 2 : 3;
	if (hf_vmm_send_caps(vmm, true, true, on_prepared) < 0 ||
		HF_VMM_SEND(vmm, on_prepared, hf_qmp_getfd, HF_VMM_GETFD_NAME, vmm->stream_fd) < 0)
		return;
	/* The load begins with the first bytes on the socket. Those that wait there would be loaded
	 * before anybody listens to what QEMU says of it. */
	if (!vmm->taps)
		HF_VMM_SEND(vmm, on_prepared, hf_qmp_migrate_incoming, "fd:" HF_VMM_GETFD_NAME);
}

int hf_vmm_start_beside(struct hf_vmm *vmm, const int *ram_fds, const struct hf_taps *taps,
	uint64_t timeout_ns, hf_vmm_done_fn done, void *data)
{
	struct hf_error e = {0};
	int r;

	r = hf_vmm_begin_start(vmm, HF_VMM_OP_START, timeout_ns, done, data);
	if (r < 0)
		return r;
	vmm->taps = taps;
	if (hf_vmm_check_ram(vmm, ram_fds, &e) < 0 || hf_vmm_make_stream(vmm, &e) < 0)
		hf_vmm_fail(vmm, &e);
	else
		hf_vmm_start_new(vmm);
	return 0;
}

static void on_incoming(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	hf_vmm_check_reply(data, err, error);
}

int hf_vmm_load(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data)
{
	int r;

	if (!vmm->beside || !vmm->qmp || vmm->lost)
		return -ENOTCONN;
	r = hf_vmm_begin(vmm, HF_VMM_OP_LOAD, timeout_ns, done, data);
	if (r < 0)
		return r;
	vmm->waiting = "load its device state";
	vmm->incoming_sent = true;
	if (vmm->taps)
		HF_VMM_SEND(vmm, on_incoming, hf_qmp_migrate_incoming, "fd:" HF_VMM_GETFD_NAME);
	return 0;
}
