/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Loading the AppArmor profile of a guest's QEMU.
 *
 * When an update is prepared that is done for the first time, while the guest runs: what can't be
 * loaded then could not be after the jump, and AppArmor's parser keeps in its cache what it
 * compiled. The profile in the kernel is replaced by the same one.
 */
#include <string.h>

#include "vmm-glue/confinement.h"
#include "vmm-glue/vmm-internal.h"

void hf_vmm_want_profile(struct hf_vmm *vmm)
{
	vmm->want_profile = true;
}

void hf_vmm_drop_loader(struct hf_vmm *vmm)
{
	if (vmm->loader)
		hf_child_kill(vmm->loader);
	hf_child_release(TAKE_PTR(vmm->loader));
}

static void on_loader_exit(struct hf_child *child, void *data)
{
	struct hf_vmm *vmm = data;
	char how[400];

	if (!hf_child_succeeded(child)) {
		hf_child_describe(child, how, sizeof(how));
		hf_vmm_failf(vmm, -EIO, "start the domain anew; `apparmor_parser -r` says more",
			"AppArmor's parser can't load the profile of its QEMU, %s: %s",
			vmm->guest->apparmor, how);
		return;
	}
	hf_child_release(TAKE_PTR(vmm->loader));
	vmm->profile_loaded = true;
	vmm->then_loaded(vmm);
}

int hf_vmm_load_profile(struct hf_vmm *vmm, void (*then)(struct hf_vmm *vmm), struct hf_error *e)
{
	char log[512];
	int r;

	if (!vmm->guest->apparmor || vmm->profile_loaded)
		return 0;
	vmm->then_loaded = then;
	vmm->waiting = "get its profile loaded by AppArmor's parser";
	r = hf_libvirt_log_path(vmm->guest, log, sizeof(log));
	if (r == 0)
		r = hf_confinement_load(vmm->event, vmm->guest->apparmor, log, on_loader_exit, vmm,
			&vmm->loader, e);
	return r < 0 ? r : 1;
}
