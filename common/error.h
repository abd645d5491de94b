/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Errors that carry what a person needs.
 *
 * Functions return 0 or -errno. Where a bare errno would leave an operator guessing, they also
 * fill a struct hf_error: a stable name (program's view), a sentence (person's view) and what to
 * do about it. The struct owns no memory, so that reporting an error can't fail for lack of it.
 *
 * Fixed meanings of errno in this project: EBADMSG malformed, EPROTONOSUPPORT too new, ENODEV
 * absent, EBUSY owned by another, ESTALE not the same thing any more, ETIMEDOUT no answer in time.
 */
#pragma once

#include "common/cleanup.h"

/* Stable names: they appear as Varlink errors `org.holdfast.Host.<name>`. */
#define HF_ERR_INVALID "InvalidArgument"    /* the request itself is wrong */
#define HF_ERR_NOT_READY "HostNotReady"	    /* host, kernel image or a guest can't do it */
#define HF_ERR_NOT_PERMITTED "NotPermitted" /* the caller may not */
#define HF_ERR_BUSY "Busy"		    /* try again later */
#define HF_ERR_NO_GUEST "NoSuchGuest"	    /* unknown guest */
#define HF_ERR_STATE "WrongState"	    /* not in this host state */
#define HF_ERR_ROLLED_BACK "RolledBack"	    /* it failed, guests run as before */
#define HF_ERR_DEGRADED "Degraded"	    /* some guest needs an operator */
#define HF_ERR_FAILED "Failed"		    /* anything else */

struct hf_error {
	int err;	   /* -errno, 0 when unset */
	char name[32];	   /* one of HF_ERR_* */
	char guest[64];	   /* the guest's name, or "" */
	char message[512]; /* a sentence for people, no full stop needed */
	char remedy[256];  /* what to do about it, or "" */
};

/**
 * hf_error_set() - Fill an error.
 * @e:      error to fill, may be NULL (then only @err is returned)
 * @err:    negative errno
 * @name:   one of HF_ERR_*
 * @remedy: what the operator can do, or NULL
 * @fmt:    printf format of the sentence
 *
 * An error already set is replaced, and so is the guest it was about. Return: @err.
 */
int hf_error_set(struct hf_error *e, int err, const char *name, const char *remedy, const char *fmt,
	...) HF_PRINTF(5, 6);

/**
 * hf_error_prefix() - Put context in front of the sentence of an error that is set.
 * @e:   error, may be NULL
 * @fmt: printf format of the context; ": " is added
 *
 * Return: the error's -errno, 0 when it is unset or NULL.
 */
int hf_error_prefix(struct hf_error *e, const char *fmt, ...) HF_PRINTF(2, 3);

/** hf_error_guest() - Record which guest an error is about. @e may be NULL. */
void hf_error_guest(struct hf_error *e, const char *guest);

static inline void hf_error_clear(struct hf_error *e)
{
	if (e)
		*e = (struct hf_error){0};
}
