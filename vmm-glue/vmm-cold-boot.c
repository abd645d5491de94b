/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A guest whose memory can't be brought back, started afresh: new memfds, nothing loaded.
 *
 * As holdfast-vmm would start it, with a -S more: the caller notes that it exists before it lets it
 * run, so that no other agent comes to start the same guest once more. The guest's old RAM is not
 * touched; giving it up is the caller's, when the new QEMU runs.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/vmm-internal.h"

/* As the manifest has them, which is what the command line gives: the start compares both. */
static int make_ram(struct hf_vmm *vmm, struct hf_error *e)
{
	char name[256];
	int r = 0;

	for (size_t i = 0; r == 0 && i < vmm->guest->n_ram; i++) {
		const struct hf_manifest_ram *ram = &vmm->guest->ram[i];

		snprintf(name, sizeof(name), "holdfast:%.200s", ram->id);
		r = hf_memfd_new(name, ram->size, &vmm->fresh_fds[i]);
		if (r == 0)
			r = hf_fd_inode(vmm->fresh_fds[i], &vmm->ram_inodes[i], NULL);
		if (r < 0)
			return hf_error_set(e, r, HF_ERR_FAILED, "free memory",
				"can't make the memfd of RAM block %s: %s", ram->id, strerror(-r));
		vmm->ram_fds[i] = vmm->fresh_fds[i];
	}
	return 0;
}

/* Whether the user wants it to run: -S is on their command line or not. */
static int plan_running(struct hf_vmm *vmm, struct hf_error *e)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	int r = hf_cmdline_of_guest(vmm->guest, &plan, e);

	if (r == 0)
		vmm->guest->was_running = !plan->paused;
	return r;
}

void hf_vmm_forget_fresh(struct hf_vmm *vmm)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(vmm->fresh_fds); i++)
		hf_close(&vmm->fresh_fds[i]);
}

static void on_status(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_status status;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	if (hf_qmp_parse_status(ret, &status) < 0 || status.running ||
		hf_manifest_set(&vmm->guest->status, status.name) < 0) {
		hf_vmm_failf(vmm, -EPROTO, NULL, "QEMU did not wait with the start of the guest");
		return;
	}
	/* The new QEMU has its RAM, and hf_vmm_resume() may let it run. */
	hf_vmm_forget_fresh(vmm);
	vmm->migration_completed = true;
	hf_vmm_end(vmm);
}

void hf_vmm_cold_boot_on_ready(struct hf_vmm *vmm)
{
	const struct hf_qmp_version *v = hf_qmp_get_version(vmm->qmp);

	vmm->stamps.ready = hf_tsc_now();
	vmm->guest->qemu_version[0] = v->major;
	vmm->guest->qemu_version[1] = v->minor;
	vmm->guest->qemu_version[2] = v->micro;
	vmm->waiting = "say how it is";
	HF_VMM_SEND(vmm, on_status, hf_qmp_query_status);
}

int hf_vmm_cold_boot(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_spawned_fn spawned,
	hf_vmm_done_fn done, void *data)
{
	struct hf_error e = {0};
	int r;

	r = hf_vmm_begin_start(vmm, HF_VMM_OP_COLD_BOOT, timeout_ns, done, data);
	if (r < 0)
		return r;
	hf_vmm_forget_fresh(vmm);
	vmm->spawned = spawned;
	r = plan_running(vmm, &e);
	if (r == 0)
		r = make_ram(vmm, &e);
	if (r < 0)
		hf_vmm_fail(vmm, &e);
	else
		hf_vmm_start_new(vmm);
	return 0;
}

int hf_vmm_adopt_fresh(struct hf_vmm *vmm, struct hf_error *e)
{
	int r;

	if (!vmm->attached)
		return hf_error_set(e, -ENOTCONN, HF_ERR_FAILED, NULL, "its QEMU isn't attached");
	for (size_t i = 0; i < vmm->guest->n_ram; i++) {
		int number = hf_vmm_ram_number(vmm, i);
		char path[64];
		struct stat st;

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)hf_vmm_pid(vmm), number);
		if (stat(path, &st) < 0)
			return hf_error_set(e, -errno, HF_ERR_FAILED, NULL,
				"the file of RAM block %s can't be found: %s",
				vmm->guest->ram[i].id, strerror(errno));
		vmm->guest->ram[i].fd = number;
		vmm->ram_inodes[i] = (struct hf_inode){.dev = st.st_dev, .ino = st.st_ino};
	}
	r = plan_running(vmm, e);
	if (r < 0)
		return r;
	vmm->migration_completed = true;
	return 0;
}
