/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What holdfast-vmm does between its own command line and QEMU's.
 *
 * It makes the memfds, describes the guest and this process in a registration, builds QEMU's
 * command line and becomes QEMU. The agent takes no part and need not run.
 */
#pragma once

#include "vmm-glue/cmdline.h"
#include "vmm-glue/registration.h"

/** struct hf_launch_options - the launcher's own options; NULL where not given. */
struct hf_launch_options {
	const char *name;
	const char *uuid;
	const struct hf_policy *policy;
	const char *const *settings; /* what @policy was made of: KEY=VALUE */
	size_t n_settings;
};

/** struct hf_launch - a guest about to start. Released with hf_launch_clear(). */
struct hf_launch {
	struct hf_registration reg;
	int ram_fds[HF_MANIFEST_MAX_RAM]; /* close-on-exec until hf_launch_exec() */
	char **argv;			  /* QEMU's; one allocation */
};

/**
 * hf_launch_prepare() - Everything up to the exec.
 * @plan:    QEMU's command line, a guest. Where it can't be preserved (plan->reason), argv is the
 *           user's and no memfd is made; a monitor is added where its RAM could be moved later, or
 *           if the guest is to be shut down for an update.
 * @options: the launcher's own
 * @ret:     the launch, on failure too: clear it always
 *
 * Return: 0; -EINVAL a name or uuid that can't be; other -errno.
 */
int hf_launch_prepare(const struct hf_cmdline *plan, const struct hf_launch_options *options,
	struct hf_launch *ret, struct hf_error *error);

/**
 * hf_launch_exec() - Let the memfds through and become QEMU.
 *
 * Returns only on failure: -errno.
 */
int hf_launch_exec(struct hf_launch *launch);

/** hf_launch_clear() - Close the memfds, free what is in it. Once more does nothing. */
void hf_launch_clear(struct hf_launch *launch);
