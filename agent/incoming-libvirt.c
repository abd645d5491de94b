/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What is different for a guest of libvirt's on its way in.
 */
#include "agent/incoming-internal.h"
#include "agent/libvirt-gate.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/libvirt.h"

bool hf_incoming_wants_gate(const struct hf_incoming *in)
{
	return hf_guest_is_libvirt(in->guest) && !in->gated && (in->retried || in->agent->again);
}

void hf_incoming_open_gate(struct hf_incoming *in)
{
	if (in->gated)
		hf_libvirt_gate_open(in->agent);
	in->gated = false;
}

int hf_incoming_check_libvirt(const struct hf_incoming *in, struct hf_error *error)
{
	pid_t pid = hf_guest_is_libvirt(in->guest) ? hf_libvirt_pid(in->guest) : 0;

	if (!pid)
		return 0;
	return hf_error_set(error, -EBUSY, HF_ERR_STATE,
		"release its old memory, or shut the domain down and retry",
		"libvirt has started the domain afresh, as process %d", (int)pid);
}
