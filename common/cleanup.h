/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Scope-bound clean-up, and the few macros every file needs.
 *
 * A variable marked with one of the cleanup attributes owns what it holds until TAKE_FD() or
 * TAKE_PTR() moves it out. LUO session fds are the exception of the whole project: closing one
 * destroys what it preserves, so they never carry an attribute (see memfd-preserve/luo.h).
 */
#pragma once

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define HF_CLEANUP(fn) __attribute__((cleanup(fn)))
#define HF_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define HF_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define HF_MIN(a, b) ((a) < (b) ? (a) : (b))
#define HF_MAX(a, b) ((a) > (b) ? (a) : (b))

#define HF_NSEC_PER_USEC 1000ULL
#define HF_NSEC_PER_MSEC 1000000ULL
#define HF_NSEC_PER_SEC 1000000000ULL
#define HF_USEC_PER_SEC 1000000ULL

static inline void hf_cleanup_closep(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void hf_cleanup_freep(void *p)
{
	free(*(void **)p);
}

/* An int that is closed, or a pointer that is freed, when it goes out of scope. */
#define cleanup_close HF_CLEANUP(hf_cleanup_closep)
#define cleanup_free HF_CLEANUP(hf_cleanup_freep)

#define TAKE_FD(fd) \
	({ \
		int *hf_take_p_ = &(fd); \
		int hf_take_v_ = *hf_take_p_; \
		*hf_take_p_ = -EBADF; \
		hf_take_v_; \
	})

#define TAKE_PTR(p) \
	({ \
		__typeof__(p) *hf_take_p_ = &(p); \
		__typeof__(p) hf_take_v_ = *hf_take_p_; \
		*hf_take_p_ = NULL; \
		hf_take_v_; \
	})

/* Closes *fd if open, marks it closed, keeps errno. */
static inline void hf_close(int *fd)
{
	hf_cleanup_closep(fd);
	*fd = -EBADF;
}
