/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What spawn.c and spawner.c share: the process that was started.
 */
#pragma once

#include <signal.h>

#include "vmm-glue/limits.h"
#include "vmm-glue/spawn.h"

#define HF_SPAWN_MAX_FDS 64

struct hf_child {
	sd_event_source *source;
	pid_t pid;
	int pidfd;
	int conn;	     /* to the spawner, which has to reap it and tells how it ended */
	int stderr_fd;	     /* for reading, or -EBADF */
	off_t stderr_offset; /* what was there before it started */
	bool ours;	     /* we have to reap it */
	bool exited;
	bool have_status;
	siginfo_t status;
	struct hf_limits_missed missed;
	hf_child_exit_fn on_exit;
	void *data;
};
