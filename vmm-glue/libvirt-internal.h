/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the files of libvirt.h share. Nobody else includes this.
 */
#pragma once

#include "common/fd.h"
#include "vmm-glue/libvirt.h"

struct json_object;

/**
 * hf_libvirt_register() - Bring the registrations in line with libvirt's list of domains.
 * @domains: what `holdfast-libvirt list` answered, borrowed; NULL: there are none
 *
 * A domain that can't be described is registered as one that can't come along, with the reason; if
 * even that can't be done it is an error, because it would be lost without a word. Return: 0 or
 * -errno, @error filled.
 */
int hf_libvirt_register(struct json_object *domains, struct hf_error *error);

/**
 * hf_libvirt_find_memfd() - Which open file of a QEMU is the memfd of one of its memory objects?
 * @address: where QEMU has that memory, by its own word; 0: not known
 * @ret_fd:  the lowest number under which it has the file open
 *
 * All of them have the same name, and may have the same size. So it is the one that is mapped at
 * @address, or, without an address, the only one there is. Return: 0; -ENOENT there is none there;
 * -ENOTUNIQ there are several, and no address; -errno.
 */
int hf_libvirt_find_memfd(
	pid_t pid, uint64_t address, int *ret_fd, struct hf_inode *ret_inode, bool *ret_shmem);

/**
 * hf_libvirt_parse_map() - A line of /proc/PID/maps: pure.
 *
 * Return: is @address in it, and is it a shared mapping that can be written to?
 */
bool hf_libvirt_parse_map(const char *line, uint64_t address, struct hf_inode *ret);
