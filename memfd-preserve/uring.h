/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What all users of io_uring here have in common.
 */
#pragma once

#include "common/error.h"

/**
 * hf_uring_setup_error() - Say why io_uring can't be had, and how it can be switched on.
 * @r:    the negative error of setting it up
 * @what: what can't be set up without it
 *
 * Return: -ENOSYS or -EPERM when it is off on this host; else @r.
 */
int hf_uring_setup_error(int r, const char *what, struct hf_error *e);
