/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: AppArmor profiles that libvirt confines its QEMUs by.
 *
 * libvirt writes a profile for each domain, /etc/apparmor.d/libvirt/libvirt-UUID, when it starts
 * it, and has its process change into it before it executes QEMU. The file outlives the kernel;
 * that it is loaded does not. A new QEMU gets the same profile in the same way: loaded by
 * AppArmor's own parser, which keeps what it compiled in its cache, and entered between fork and
 * exec (hf_spawn_spec.apparmor).
 *
 * No other security module is known: what another one confines is refused.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/apparmor.h"
#include "common/error.h"
#include "vmm-glue/spawn.h"

/**
 * hf_confinement_read() - The profile of a running process.
 * @ret: the caller's; NULL for a process that isn't confined
 *
 * Return: 0; -EOPNOTSUPP it is confined by something else than a profile of libvirt's, which the
 * sentence names; -errno.
 */
int hf_confinement_read(pid_t pid, char **ret, struct hf_error *error);

/**
 * hf_confinement_parse() - The same from what the kernel says: pure.
 * @apparmor: of /proc/PID/attr/apparmor/current; NULL: there is no AppArmor
 * @current:  of /proc/PID/attr/current; NULL: there is no security module with labels
 *
 * Return: 0, *ret as above; -EOPNOTSUPP; -ENOMEM.
 */
int hf_confinement_parse(
	const char *apparmor, const char *current, char **ret, struct hf_error *error);

/**
 * hf_confinement_check_host() - Do profiles allow what a QEMU needs that is started by holdfast?
 *
 * Return: 0; -ENOENT `holdfast libvirt setup` was not done.
 */
int hf_confinement_check_host(struct hf_error *error);

/**
 * hf_confinement_load() - Have a profile loaded into the kernel, anew if it is there.
 * @log_path: takes what the parser has to say; may be NULL
 * @ret:      its process. It has done so when that has succeeded; hf_child_describe() has the rest.
 *
 * Return: 0; -ENOENT there is no such profile or no parser; -errno.
 */
int hf_confinement_load(sd_event *event, const char *profile, const char *log_path,
	hf_child_exit_fn on_exit, void *data, struct hf_child **ret, struct hf_error *error);
