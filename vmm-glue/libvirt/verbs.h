/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the verbs of holdfast-libvirt share.
 *
 *  holdfast-libvirt.c  main: the table of verbs
 *  connect.c           libvirt's connection and its errors
 *  show.c              what goes to a person: differences of texts, errors
 *  domain-xml.c        pure: what has to be changed in a domain's XML
 *  host-files.c        pure: the files that a host gets
 *  VERB.c              one verb each
 *
 * A program of its own, so that nothing else of holdfast loads libvirt's library: what runs in a
 * blackout doesn't wait for it, and hosts without libvirt don't need it. One thread; a verb runs
 * once and the program ends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

/* Exit codes, as those of `holdfast`: see holdfast(1). */
enum hf_libvirt_exit {
	HF_LIBVIRT_OK = 0,
	HF_LIBVIRT_FAILED = 1,
	HF_LIBVIRT_TO_DO = 1, /* of --check: something would be changed */
	HF_LIBVIRT_USAGE = 2,
	HF_LIBVIRT_NOT_READY = 3,
	HF_LIBVIRT_NOT_PERMITTED = 4,
};

/**
 * struct hf_libvirt_verb - one verb.
 * @name:  as typed
 * @usage: its arguments, for the synopsis
 * @help:  what --help says below the synopsis
 * @run:   does it; @argv[0] is the verb. Return: an exit code.
 */
struct hf_libvirt_verb {
	const char *name;
	const char *usage;
	const char *help;
	int (*run)(const struct hf_libvirt_verb *verb, int argc, char **argv);
};

extern const struct hf_libvirt_verb hf_libvirt_verb_enable, hf_libvirt_verb_list,
	hf_libvirt_verb_monitor, hf_libvirt_verb_save, hf_libvirt_verb_setup, hf_libvirt_verb_start;

/* ---- connect.c ---- */

#define HF_LIBVIRT_URI "qemu:///system"

/* Longer than libvirt needs: before it takes a definition it may run each QEMU there is. */
#define HF_LIBVIRT_PATIENCE_S 180

struct _virConnect;

/**
 * hf_libvirt_connect() - Connect to libvirt's QEMU driver.
 * @uri: NULL for HF_LIBVIRT_URI
 * @ret: the connection, the caller's to close
 *
 * libvirt's calls have no time-out of their own. From here on the program ends with a sentence when
 * hf_libvirt_patience() was not called for HF_LIBVIRT_PATIENCE_S. Return: 0 or -errno.
 */
int hf_libvirt_connect(const char *uri, struct _virConnect **ret, struct hf_error *e);

/** hf_libvirt_patience() - Libvirt has answered: give the next call all of its time. */
void hf_libvirt_patience(void);

/** hf_libvirt_no_hurry() - Nothing is asked of it now. */
void hf_libvirt_no_hurry(void);

/** hf_libvirt_error() - Fill an error from libvirt's last one. Return: a negative errno. */
int hf_libvirt_error(struct hf_error *e, const char *what);

/* ---- show.c ---- */

/** hf_libvirt_clean() - Make a text harmless for a terminal, in place: control characters go. */
void hf_libvirt_clean(char *text);

/**
 * hf_libvirt_show_diff() - Print a unified diff on stdout.
 * @old_label: "/dev/null" where there is nothing yet
 * @before:    text
 * @after:     text
 *
 * Return: 0, or -errno: then it was not shown, and what it shows must not be done.
 */
int hf_libvirt_show_diff(const char *old_label, const char *new_label, const char *before,
	const char *after, struct hf_error *e);

/** hf_libvirt_fail() - Print an error with its remedy on stderr. Return: the exit code for it. */
int hf_libvirt_fail(const struct hf_error *e);

/** hf_libvirt_usage_error() - Say what is wrong with the command line. Return: an exit code. */
int hf_libvirt_usage_error(const struct hf_libvirt_verb *verb, const char *fmt, ...)
	HF_PRINTF(2, 3);

/** hf_libvirt_show_help() - Print what --help of a verb says. Return: an exit code. */
int hf_libvirt_show_help(const struct hf_libvirt_verb *verb);
