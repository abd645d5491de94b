/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What a VMM is started with besides RAM: sockets, taps, folders, and processes it connects
 * to.
 *
 * A VMM that libvirt started has descriptors that libvirt opened, and connects to processes that
 * libvirt started before. Before the pause all of that is looked up in the running process and
 * noted in the guest's manifest entry; before its VMM starts again it is made anew, under the same
 * numbers and paths. What isn't understood is refused while the guest still runs.
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/spawn.h"

/**
 * hf_inherited_collect() - Note what a running VMM has, in place of what was noted before.
 * @plan: of its command line
 *
 * Also by what it is confined. Taps are also noted in guest->net. Does nothing for a plan that
 * isn't libvirt's. Return: 0; -EOPNOTSUPP something that can't be made anew, named; -errno.
 */
int hf_inherited_collect(const struct hf_cmdline *plan, pid_t pid, struct hf_manifest_guest *guest,
	struct hf_error *error);

/**
 * hf_inherited_is_being_written() - Is what its consoles said still on the way to their files?
 *
 * Of a VMM that stands still, and writes to virtlogd's pipes.
 */
bool hf_inherited_is_being_written(const struct hf_manifest_guest *guest, pid_t pid);

/** hf_inherited_first_free() - The lowest number above all that the VMM inherits, 3 or more. */
int hf_inherited_first_free(const struct hf_manifest_guest *guest);

/**
 * hf_inherited_start() - Make the folders, and start the processes that the VMM connects to.
 *
 * One whose socket is there already is not started once more: call it again until it says 0.
 * Return: 0 all of them listen; -EAGAIN not yet; other -errno.
 */
int hf_inherited_start(
	sd_event *event, const struct hf_manifest_guest *guest, bool again, struct hf_error *error);

/**
 * hf_inherited_open() - Make the descriptors.
 * @ret:    room for guest->n_fds; ascending by number. All the caller's on success, none on
 * failure.
 * @missed: @size bytes for what it gets /dev/null instead of, "" when there is nothing
 *
 * Taps have to be there: hf_net_restore().
 */
int hf_inherited_open(const struct hf_manifest_guest *guest, struct hf_spawn_fd *ret, char *missed,
	size_t size, struct hf_error *error);

/** hf_inherited_close() - Close what hf_inherited_open() made. */
void hf_inherited_close(struct hf_spawn_fd *fds, size_t n);
