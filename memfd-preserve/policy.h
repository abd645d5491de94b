/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What is to be done for a guest when something doesn't go well, and how long to wait for it.
 *
 * One table of keys (policy.c) is behind everything that reads, writes or shows a policy: the
 * configuration files, `holdfast-vmm --policy`, the manifest and the Guests method.
 *
 * A struct hf_policy always has a value for every key; `given` says which of them somebody asked
 * for, so that policies can be laid over each other. It owns its strings: hf_policy_clear(). The
 * parsers are pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum hf_policy_key {
	HF_POLICY_NOT_ELIGIBLE,
	HF_POLICY_SAVE_FAILURE,
	HF_POLICY_RESUME_FAILURE,
	HF_POLICY_ATTACH_TIMEOUT,
	HF_POLICY_SAVE_TIMEOUT,
	HF_POLICY_ROLLBACK_TIMEOUT,
	HF_POLICY_RESUME_TIMEOUT,
	HF_POLICY_SHUTDOWN_TIMEOUT,
	HF_POLICY_PRIORITY,
	HF_POLICY_CLOCK,
	HF_POLICY_HEALTH_COMMAND,
	HF_POLICY_N_,
};

/* A guest that can't be preserved: refuse the update, adopt the guest, shut it down, or have
 * libvirt save it to disk. */
enum hf_not_eligible {
	HF_NOT_ELIGIBLE_REFUSE,
	HF_NOT_ELIGIBLE_ADOPT,
	HF_NOT_ELIGIBLE_SHUTDOWN,
	HF_NOT_ELIGIBLE_MANAGED_SAVE,
};
/* A guest that can't be saved: undo the whole update, or give up its memory and boot it anew. */
enum hf_save_failure { HF_SAVE_FAILURE_ROLLBACK, HF_SAVE_FAILURE_COLD_BOOT };
/* A guest that can't be brought back after the jump: keep its RAM, or give it up and boot anew. */
enum hf_resume_failure { HF_RESUME_FAILURE_HOLD, HF_RESUME_FAILURE_COLD_BOOT };
/* The guest's wall clock after the blackout. */
enum hf_clock_policy { HF_CLOCK_CATCH_UP, HF_CLOCK_FROZEN };

#define HF_POLICY_PRIORITY_MAX 100
#define HF_POLICY_MIN_TIMEOUT_NS (100 * HF_NSEC_PER_MSEC)
#define HF_POLICY_MAX_TIMEOUT_NS (3600 * HF_NSEC_PER_SEC)
#define HF_POLICY_COMMAND_MAX 1024 /* bytes of health-command, its NUL included */
#define HF_POLICY_TEXT_MAX 1100	   /* bytes of any value as text */

struct hf_policy {
	uint32_t given;		 /* a bit for each enum hf_policy_key */
	uint32_t not_eligible;	 /* enum hf_not_eligible */
	uint32_t save_failure;	 /* enum hf_save_failure */
	uint32_t resume_failure; /* enum hf_resume_failure */
	uint32_t clock;		 /* enum hf_clock_policy */
	uint32_t priority; /* 0 to HF_POLICY_PRIORITY_MAX; higher: paused last, resumed first */
	uint64_t attach_timeout_ns;
	uint64_t save_timeout_ns;
	uint64_t rollback_timeout_ns;
	uint64_t resume_timeout_ns;
	uint64_t shutdown_timeout_ns;
	char *health_command; /* absolute path and arguments, or NULL */
};

/* Names of the values of each enumeration, in its order, ended by NULL. */
extern const char *const hf_policy_not_eligible_names[];
extern const char *const hf_policy_save_failure_names[];
extern const char *const hf_policy_resume_failure_names[];
extern const char *const hf_policy_clock_names[];

/** hf_policy_init() - The built-in defaults, nothing given. */
void hf_policy_init(struct hf_policy *p);

/** hf_policy_clear() - Free what it owns, and make it the defaults again. */
void hf_policy_clear(struct hf_policy *p);
#define cleanup_policy HF_CLEANUP(hf_policy_clear)

/** hf_policy_key_name() - As it is written in files: "resume-timeout". Static string. */
const char *hf_policy_key_name(enum hf_policy_key key);

/** hf_policy_find_key() - Return: the key with this name, or -ENOENT. */
int hf_policy_find_key(const char *name);

/**
 * hf_policy_set() - Give a key a value.
 * @key:   its name
 * @value: as text
 *
 * Return: 0; -EINVAL, with a sentence on what is wrong and a remedy with what would be right;
 * -ENOMEM. On failure nothing has changed.
 */
int hf_policy_set(struct hf_policy *p, const char *key, const char *value, struct hf_error *error);

/** hf_policy_assign() - The same from one text KEY=VALUE; a key that was given already is refused.
 */
int hf_policy_assign(struct hf_policy *p, const char *text, struct hf_error *error);

/** hf_policy_overlay() - Take over what is given in another one. Return: 0 or -ENOMEM. */
int hf_policy_overlay(struct hf_policy *p, const struct hf_policy *over);

/** hf_policy_repair() - Put the default for every value that can't be: of another build, say. */
void hf_policy_repair(struct hf_policy *p);

/** hf_policy_format() - A value as text that hf_policy_set() takes. */
void hf_policy_format(const struct hf_policy *p, enum hf_policy_key key, char *buf, size_t size);

/**
 * hf_duration_parse() - A time as systemd writes them: `500ms`, `5s`, `2min 30s`, `1h`, `5`.
 *
 * Return: 0; -EINVAL when it is none; -ERANGE when it doesn't fit.
 */
int hf_duration_parse(const char *text, uint64_t *ret_ns);

/** hf_duration_format() - The shortest such text, down to milliseconds. */
void hf_duration_format(uint64_t ns, char *buf, size_t size);
