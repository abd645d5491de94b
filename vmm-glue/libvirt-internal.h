/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the files of libvirt.h share. Nobody else includes this.
 */
#pragma once

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
