/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Whom an adoption is about: the guest as it is registered, or as its process shows it.
 */
#pragma once

#include "agent/adopt.h"
#include "vmm-glue/registration.h"

/**
 * hf_adopt_describe() - The guest as it will be: its command line, RAM blocks and policies.
 * @reg:              of its process now; empty before, cleared by the caller, on failure too
 * @ret_private_path: of its new QEMU's monitor; freed by the caller
 *
 * Return: 0 or -errno, @error filled: -EALREADY there is nothing to do for this guest.
 */
int hf_adopt_describe(const struct hf_adopt_request *request, struct hf_registration *reg,
	char **ret_private_path, struct hf_error *error);
