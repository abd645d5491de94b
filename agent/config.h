/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The configuration: policies for all guests, and for single ones.
 *
 * Files in the format of holdfast.conf(5), each laid over those before it:
 *
 *   /usr/lib/holdfast/holdfast.conf < /etc/holdfast/holdfast.conf < /etc/holdfast/holdfast.conf.d/
 *
 * Parsing is strict, collects every problem with its file and line, and does no I/O
 * (hf_config_parse()). What is right in a broken configuration stays usable, but nobody begins an
 * update with one; guests that come over bring their policies along and don't need it.
 *
 * Read anew whenever it is needed: it has no life of its own in the agent.
 */
#pragma once

#include <stdio.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"

#define HF_CONFIG_VENDOR_FILE "/usr/lib/holdfast/holdfast.conf"
#define HF_CONFIG_DIR "/etc/holdfast" /* $HOLDFAST_CONFIG_DIR replaces it */
#define HF_CONFIG_MAX_BYTES (1u << 20)
#define HF_CONFIG_MAX_SECTIONS 4096
#define HF_CONFIG_MAX_PROBLEMS 64
#define HF_CONFIG_MAX_FILES 1024

/** struct hf_config_problem - something that is wrong, and what would be right. */
struct hf_config_problem {
	char *file;
	unsigned int line; /* 0: the file as a whole */
	char message[256];
	char remedy[256]; /* or "" */
};

/* The way of guests' memory where a request doesn't say one. */
enum hf_config_carrier {
	HF_CONFIG_CARRIER_OWN,	/* the agent's: luo or hold */
	HF_CONFIG_CARRIER_AUTO, /* image where that won't do */
	HF_CONFIG_CARRIER_IMAGE,
};

/** struct hf_config_host - what is for the host as a whole. */
struct hf_config_host {
	enum hf_config_carrier carrier;
	bool plaintext; /* images need not be encrypted */
};

struct hf_config;

/** hf_config_new() - An empty one: the built-in defaults. NULL without memory. */
struct hf_config *hf_config_new(void);
void hf_config_free(struct hf_config *config);

static inline void hf_cleanup_config_freep(struct hf_config **p)
{
	hf_config_free(*p);
}
#define cleanup_config HF_CLEANUP(hf_cleanup_config_freep)

/**
 * hf_config_parse() - Lay one more file over what there is. Pure.
 * @file: its name, for problems
 * @data: its contents, no NUL needed
 *
 * Return: 0, also when there are problems; -ENOMEM.
 */
int hf_config_parse(struct hf_config *config, const char *file, const void *data, size_t size);

/** hf_config_add_problem() - Add one. Those beyond HF_CONFIG_MAX_PROBLEMS are only counted. */
void hf_config_add_problem(struct hf_config *config, const char *file, unsigned int line,
	const char *remedy, const char *fmt, ...) HF_PRINTF(5, 6);

/** hf_config_problems() - What is wrong, borrowed. @ret_total: with those that were only counted.
 */
const struct hf_config_problem *hf_config_problems(
	const struct hf_config *config, size_t *ret_n, size_t *ret_total);

/**
 * hf_config_read() - Read files that are there. A file that can't be read is a problem.
 * @vendor: the first file, or NULL
 * @dir:    folder of holdfast.conf and holdfast.conf.d
 *
 * Return: 0 or -ENOMEM.
 */
int hf_config_read(struct hf_config *config, const char *vendor, const char *dir);

/** hf_config_load() - A new one from the usual places. NULL without memory. */
struct hf_config *hf_config_load(void);

/**
 * hf_config_give_policy() - Give a guest the policy in effect for it, by what hf_config_load() has.
 * @guest: with its uuid, name, and the settings of its launcher
 *
 * What can't be understood is left out: to complain of it is `check`'s.
 */
void hf_config_give_policy(struct hf_manifest_guest *guest);

/**
 * hf_config_policy() - The policy in effect for a guest.
 * @guest: its uuid, name, and the settings of its launcher
 * @ret:   set in any case, to be cleared by the caller
 *
 * Sections for the guest go before its launcher's settings, and those before [defaults]; of the
 * sections a UUID goes before a name, and a name before a pattern. Return: 0; -EINVAL when the
 * launcher's settings can't be understood, with them left out; -ENOMEM.
 */
int hf_config_policy(const struct hf_config *config, const struct hf_manifest_guest *guest,
	struct hf_policy *ret, struct hf_error *error);

/** hf_config_host() - What is in effect for the host. Borrowed. */
const struct hf_config_host *hf_config_host(const struct hf_config *config);

/** hf_config_print() - The settings in effect, in the format of the files. */
void hf_config_print(const struct hf_config *config, FILE *out);

/** hf_config_print_problems() - One line each. */
void hf_config_print_problems(const struct hf_config *config, FILE *out);
