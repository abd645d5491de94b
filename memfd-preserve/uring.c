/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/uring.h"

#include <errno.h>
#include <string.h>

int hf_uring_setup_error(int r, const char *what, struct hf_error *e)
{
	if (r == -ENOSYS)
		return hf_error_set(e, r, HF_ERR_NOT_READY,
			"use a kernel built with CONFIG_IO_URING",
			"the running kernel has no io_uring");
	if (r == -EPERM || r == -EACCES)
		return hf_error_set(e, -EPERM, HF_ERR_NOT_READY,
			"set kernel.io_uring_disabled to 0 or 1, and allow io_uring in the unit's "
			"SystemCallFilter",
			"io_uring is disabled on this host");
	return hf_error_set(
		e, r, HF_ERR_NOT_READY, NULL, "%s can't be set up: %s", what, strerror(-r));
}
