/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/adopt-policy.h"

#include "vmm-glue/cmdline.h"

bool hf_adopt_possible(const struct hf_registration *reg, struct hf_error *error)
{
	const struct hf_manifest_guest *g = &reg->guest;
	cleanup_free char **argv = NULL;
	size_t n = 0;
	int r;

	if (!reg->reason[0])
		r = hf_error_set(error, -EALREADY, HF_ERR_STATE, NULL,
			"it is not its RAM that is in the way");
	else if (!g->qmp_path)
		r = hf_error_set(error, -ENOTCONN, HF_ERR_NOT_READY,
			"shut it down, or start it anew with holdfast-vmm",
			"holdfast has no monitor of this guest");
	else
		r = hf_cmdline_adopt((const char *const *)g->argv, g->n_argv, &argv, &n, error);
	return r == 0;
}
