/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Will the QEMU that is installed now load what the running one saves?
 *
 * Pure. After the jump there is no way back for a guest whose state is refused, so what is known
 * not to work has to be known before. Most pairs of versions understand each other, and what is not
 * known is said, not refused.
 */
#pragma once

#include "common/error.h"
#include "vmm-glue/installed.h"
#include "vmm-glue/vmm.h"

enum hf_compat {
	HF_COMPAT_SAME,	     /* the same build, as far as it says */
	HF_COMPAT_DIFFERENT, /* another one, or it isn't known which */
	HF_COMPAT_BROKEN,    /* known not to work */
};

/**
 * hf_compat_judge() - Compare a guest's QEMU with the one that would be started.
 * @running:   what the guest's QEMU says
 * @installed: of hf_installed_get(); NULL: nothing is known
 * @ret_why:   unless they are the same: a sentence with both versions, and what to do about it
 *
 * Broken is a program that can't be run; one without the guest's machine type; and one that refuses
 * the size of the guest's virtqueues (see vmm-virtio.c).
 */
enum hf_compat hf_compat_judge(const struct hf_vmm_probe *running,
	const struct hf_installed_vmm *installed, struct hf_error *ret_why);
