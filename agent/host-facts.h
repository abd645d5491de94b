/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the files of the running host say that an update depends on.
 *
 * hf_host_facts_read() only reads, below a root folder that tests replace, and judges nothing:
 * that is check-host.c's. It looks at every process and waits up to half a second for whoever has
 * /dev/liveupdate, so it runs in a worker. What can't be found out is left empty, and says so.
 *
 * A struct hf_host_facts is plain values: copy it as you like.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

#define HF_IMAGE_FOLDER "images" /* in the state folder */

#define HF_HOST_MAX_HOLDERS 4
#define HF_HOST_MAX_SCRATCH 64

/** struct hf_host_holder - a process that has a file open. */
struct hf_host_holder {
	pid_t pid;
	char comm[32];
};

/** struct hf_host_range - memory, in bytes. */
struct hf_host_range {
	uint64_t start;
	uint64_t size;
};

/** struct hf_host_limit - the smallest of a control group and those above it. */
struct hf_host_limit {
	uint64_t bytes; /* UINT64_MAX: none */
	char group[256];
};

/** struct hf_host_space - room in a folder's file system. */
struct hf_host_space {
	bool known;
	bool read_only;
	uint64_t free_bytes;
};

enum hf_lockdown {
	HF_LOCKDOWN_UNKNOWN, /* securityfs is not mounted, or the kernel has none */
	HF_LOCKDOWN_NONE,
	HF_LOCKDOWN_INTEGRITY,
	HF_LOCKDOWN_CONFIDENTIALITY,
};

struct hf_host_facts {
	struct hf_error luo;   /* unset: the kernel has a Live Update Orchestrator */
	struct hf_error kexec; /* unset: this process may load a kernel */

	/* Who else has /dev/liveupdate open, and had it for a while. */
	struct hf_host_holder holders[HF_HOST_MAX_HOLDERS];
	size_t n_holders;

	enum hf_lockdown lockdown;
	bool config_known; /* the next two are meant */
	bool kexec_sig;
	bool kexec_sig_force;

	/* KHO's scratch areas, in the kernel's order; none where it does not show them. */
	struct hf_host_range scratch[HF_HOST_MAX_SCRATCH];
	size_t n_scratch;

	uint64_t mem_total, mem_available; /* 0 when not known */
	uint64_t swap_used;

	char shmem_huge[32];	/* "advise", or "" when not known */
	char shmem_huge_2m[32]; /* the same of 2 MiB folios alone, where the kernel has that */

	struct hf_host_limit memory_max, memory_high;

	char init[32];	      /* what process 1 calls itself, or "" */
	unsigned int systemd; /* its version when it is systemd, or 0 */

	struct hf_host_space state_dir, run_dir, image_dir;
};

/**
 * hf_host_facts_read() - Look. Blocks.
 * @root:      in front of /proc, /sys, /dev and /boot; "" for the host itself
 * @state_dir: folder for reports, taken as it is
 * @run_dir:   folder for what lives until the next boot, taken as it is
 */
void hf_host_facts_read(
	const char *root, const char *state_dir, const char *run_dir, struct hf_host_facts *ret);
