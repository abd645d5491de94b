/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What clang's analyzer has to be told, as it sees one file at a time.
 *
 * Included before every file by `make lint-tidy`, never compiled into anything. errno is positive
 * wherever it is read, and so -errno is an error; hf_error_set() returns what it is given, which is
 * negative.
 */
#pragma once

#include <errno.h>

#include "common/error.h"

static inline int *hf_lint_errno(void)
{
	int *location = __errno_location();

	if (*location <= 0)
		__builtin_unreachable();
	return location;
}
#undef errno
#define errno (*hf_lint_errno())

static inline int hf_lint_negative(int err)
{
	if (err >= 0)
		__builtin_unreachable();
	return err;
}
#define hf_error_set(e, err, ...) hf_lint_negative((hf_error_set)((e), (err), __VA_ARGS__))
