/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/policy.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

const char *const hf_policy_not_eligible_names[] = {
	[HF_NOT_ELIGIBLE_REFUSE] = "refuse",
	[HF_NOT_ELIGIBLE_ADOPT] = "adopt",
	[HF_NOT_ELIGIBLE_SHUTDOWN] = "shutdown",
	[HF_NOT_ELIGIBLE_MANAGED_SAVE] = "managed-save",
	NULL,
};
const char *const hf_policy_save_failure_names[] = {
	[HF_SAVE_FAILURE_ROLLBACK] = "rollback",
	[HF_SAVE_FAILURE_COLD_BOOT] = "cold-boot",
	NULL,
};
const char *const hf_policy_resume_failure_names[] = {
	[HF_RESUME_FAILURE_HOLD] = "hold",
	[HF_RESUME_FAILURE_COLD_BOOT] = "cold-boot",
	NULL,
};
const char *const hf_policy_clock_names[] = {
	[HF_CLOCK_CATCH_UP] = "catch-up",
	[HF_CLOCK_FROZEN] = "frozen",
	NULL,
};

enum kind { KIND_CHOICE, KIND_TIMEOUT, KIND_NUMBER, KIND_COMMAND };

struct key {
	const char *name;
	enum kind kind;
	size_t offset;
	const char *const *choices; /* of KIND_CHOICE */
	uint64_t preset;
};

#define CHOICE(text, member, names, value) \
	{ \
		.name = (text), .kind = KIND_CHOICE, .offset = offsetof(struct hf_policy, member), \
		.choices = (names), .preset = (value) \
	}
#define TIMEOUT(text, member, seconds) \
	{ \
		.name = (text), .kind = KIND_TIMEOUT, \
		.offset = offsetof(struct hf_policy, member), .preset = (seconds)*HF_NSEC_PER_SEC \
	}

static const struct key keys[] = {
	[HF_POLICY_NOT_ELIGIBLE] = CHOICE(
		"not-eligible", not_eligible, hf_policy_not_eligible_names, HF_NOT_ELIGIBLE_REFUSE),
	[HF_POLICY_SAVE_FAILURE] = CHOICE("save-failure", save_failure,
		hf_policy_save_failure_names, HF_SAVE_FAILURE_ROLLBACK),
	[HF_POLICY_RESUME_FAILURE] = CHOICE("resume-failure", resume_failure,
		hf_policy_resume_failure_names, HF_RESUME_FAILURE_HOLD),
	[HF_POLICY_ATTACH_TIMEOUT] = TIMEOUT("attach-timeout", attach_timeout_ns, 10),
	[HF_POLICY_SAVE_TIMEOUT] = TIMEOUT("save-timeout", save_timeout_ns, 30),
	[HF_POLICY_ROLLBACK_TIMEOUT] = TIMEOUT("rollback-timeout", rollback_timeout_ns, 30),
	[HF_POLICY_RESUME_TIMEOUT] = TIMEOUT("resume-timeout", resume_timeout_ns, 60),
	[HF_POLICY_SHUTDOWN_TIMEOUT] = TIMEOUT("shutdown-timeout", shutdown_timeout_ns, 120),
	[HF_POLICY_PRIORITY] = {.name = "priority",
		.kind = KIND_NUMBER,
		.offset = offsetof(struct hf_policy, priority),
		.preset = 50},
	[HF_POLICY_CLOCK] = CHOICE("clock", clock, hf_policy_clock_names, HF_CLOCK_CATCH_UP),
	[HF_POLICY_HEALTH_COMMAND] = {.name = "health-command",
		.kind = KIND_COMMAND,
		.offset = offsetof(struct hf_policy, health_command)},
};
static_assert(HF_ARRAY_SIZE(keys) == HF_POLICY_N_, "every key has its line");
static_assert(HF_POLICY_N_ <= 32, "`given` has a bit for each");

static void *member(const struct hf_policy *p, const struct key *k)
{
	return (char *)(uintptr_t)p + k->offset;
}

/* ---- times ---- */

static const struct {
	const char *name;
	uint64_t ns;
} units[] = {
	/* Those that are written come first, the largest in front. */
	{"h", 3600 * HF_NSEC_PER_SEC},
	{"min", 60 * HF_NSEC_PER_SEC},
	{"s", HF_NSEC_PER_SEC},
	{"ms", HF_NSEC_PER_MSEC},
	{"", HF_NSEC_PER_SEC},
	{"sec", HF_NSEC_PER_SEC},
	{"second", HF_NSEC_PER_SEC},
	{"seconds", HF_NSEC_PER_SEC},
	{"m", 60 * HF_NSEC_PER_SEC},
	{"minute", 60 * HF_NSEC_PER_SEC},
	{"minutes", 60 * HF_NSEC_PER_SEC},
	{"hr", 3600 * HF_NSEC_PER_SEC},
	{"hour", 3600 * HF_NSEC_PER_SEC},
	{"hours", 3600 * HF_NSEC_PER_SEC},
	{"msec", HF_NSEC_PER_MSEC},
};
#define N_WRITTEN_UNITS 4

static const char *skip_blanks(const char *s)
{
	while (*s == ' ' || *s == '\t')
		s++;
	return s;
}

/* One number with its unit. Return: what follows, or NULL. */
static const char *parse_part(const char *s, uint64_t *ret_ns, int *ret_err)
{
	uint64_t n = 0, ns;
	size_t len = 0;

	*ret_err = -EINVAL;
	if (!isdigit((unsigned char)*s))
		return NULL;
	for (; isdigit((unsigned char)*s); s++) {
		if (n > UINT64_MAX / 100) {
			*ret_err = -ERANGE;
			return NULL;
		}
		n = n * 10 + (uint64_t)(*s - '0');
	}
	s = skip_blanks(s);
	while (isalpha((unsigned char)s[len]))
		len++;
	for (size_t i = 0; i < HF_ARRAY_SIZE(units); i++) {
		if (strlen(units[i].name) != len || strncmp(units[i].name, s, len) != 0)
			continue;
		if (__builtin_mul_overflow(n, units[i].ns, &ns) ||
			__builtin_add_overflow(*ret_ns, ns, ret_ns)) {
			*ret_err = -ERANGE;
			return NULL;
		}
		return skip_blanks(s + len);
	}
	return NULL;
}

int hf_duration_parse(const char *text, uint64_t *ret_ns)
{
	const char *s = skip_blanks(text);
	uint64_t ns = 0;
	int err = -EINVAL;

	do {
		s = parse_part(s, &ns, &err);
		if (!s)
			return err;
	} while (*s);
	*ret_ns = ns;
	return 0;
}

void hf_duration_format(uint64_t ns, char *buf, size_t size)
{
	size_t at = 0;

	for (size_t i = 0; i < N_WRITTEN_UNITS && at < size; i++) {
		uint64_t n = ns / units[i].ns;

		if (n == 0 && (i + 1 < N_WRITTEN_UNITS || at > 0))
			continue;
		at += (size_t)snprintf(buf + at, size - at, "%s%llu%s", at ? " " : "",
			(unsigned long long)n, units[i].name);
		ns -= n * units[i].ns;
	}
}

/* ---- names ---- */

/* How many letters have to be changed, put in or taken out to get from one to the other. */
static size_t distance(const char *a, const char *b)
{
	size_t row[64], n = strlen(b);

	if (strlen(a) >= HF_ARRAY_SIZE(row) || n >= HF_ARRAY_SIZE(row))
		return SIZE_MAX;
	for (size_t k = 0; k <= n; k++)
		row[k] = k;
	for (size_t i = 0; a[i]; i++) {
		size_t corner = row[0];

		row[0] = i + 1;
		for (size_t k = 0; k < n; k++) {
			size_t above = row[k + 1];
			size_t least = HF_MIN(above, row[k]) + 1;
			size_t changed = corner + (a[i] != b[k]);

			row[k + 1] = HF_MIN(least, changed);
			corner = above;
		}
	}
	return row[n];
}

static const char *nearest(const char *name)
{
	size_t best = HF_MAX(strlen(name) / 2, (size_t)2);
	const char *found = NULL;

	for (size_t i = 0; i < HF_POLICY_N_; i++) {
		size_t d = distance(name, keys[i].name);

		if (d <= best && (!found || d < best)) {
			best = d;
			found = keys[i].name;
		}
	}
	return found;
}

const char *hf_policy_key_name(enum hf_policy_key key)
{
	return keys[key].name;
}

int hf_policy_find_key(const char *name)
{
	for (int i = 0; i < HF_POLICY_N_; i++) {
		if (strcmp(keys[i].name, name) == 0)
			return i;
	}
	return -ENOENT;
}

static int unknown_key(const char *name, struct hf_error *error)
{
	char remedy[sizeof(error->remedy)];
	const char *near = nearest(name);
	size_t at = 0;

	if (near) {
		snprintf(remedy, sizeof(remedy), "did you mean `%s`?", near);
	} else {
		at = (size_t)snprintf(remedy, sizeof(remedy), "there are");
		for (size_t i = 0; i < HF_POLICY_N_ && at < sizeof(remedy); i++)
			at += (size_t)snprintf(remedy + at, sizeof(remedy) - at, "%s %s",
				i ? "," : "", keys[i].name);
	}
	return hf_error_set(
		error, -EINVAL, HF_ERR_INVALID, remedy, "there is no setting `%.64s`", name);
}

/* ---- values ---- */

static void right_value(const struct key *k, char *buf, size_t size)
{
	size_t at = 0;

	switch (k->kind) {
	case KIND_CHOICE:
		for (size_t i = 0; k->choices[i] && at < size; i++)
			at += (size_t)snprintf(buf + at, size - at, "%s%s",
				i == 0		    ? ""
				: k->choices[i + 1] ? ", "
						    : " or ",
				k->choices[i]);
		break;
	case KIND_TIMEOUT:
		snprintf(buf, size, "a time from 100ms to 1h, such as 500ms, 5s or 2min");
		break;
	case KIND_NUMBER:
		snprintf(buf, size, "a number from 0 to %d", HF_POLICY_PRIORITY_MAX);
		break;
	case KIND_COMMAND:
		snprintf(buf, size, "an absolute path with arguments, or nothing");
		break;
	}
}

static bool timeout_valid(uint64_t ns)
{
	return ns >= HF_POLICY_MIN_TIMEOUT_NS && ns <= HF_POLICY_MAX_TIMEOUT_NS;
}

static int set_choice(const struct key *k, const char *value, uint32_t *ret)
{
	for (uint32_t i = 0; k->choices[i]; i++) {
		if (strcmp(k->choices[i], value) == 0) {
			*ret = i;
			return 0;
		}
	}
	return -EINVAL;
}

static int set_timeout(const char *value, uint64_t *ret)
{
	uint64_t ns = 0;

	if (hf_duration_parse(value, &ns) < 0 || !timeout_valid(ns))
		return -EINVAL;
	*ret = ns;
	return 0;
}

static int set_number(const char *value, uint32_t *ret)
{
	size_t digits = strspn(value, "0123456789");
	unsigned long n;

	if (digits == 0 || digits > 3 || value[digits])
		return -EINVAL;
	n = strtoul(value, NULL, 10);
	if (n > HF_POLICY_PRIORITY_MAX)
		return -EINVAL;
	*ret = (uint32_t)n;
	return 0;
}

static bool command_valid(const char *value)
{
	if (value[0] != '/' || strlen(value) >= HF_POLICY_COMMAND_MAX)
		return false;
	for (const char *s = value; *s; s++) {
		if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
			return false;
	}
	return true;
}

static int set_command(struct hf_policy *p, const char *value)
{
	char *copy = NULL;

	if (value[0] && !command_valid(value))
		return -EINVAL;
	if (value[0] && !(copy = strdup(value)))
		return -ENOMEM;
	free(p->health_command);
	p->health_command = copy;
	return 0;
}

int hf_policy_set(struct hf_policy *p, const char *name, const char *value, struct hf_error *error)
{
	int key = hf_policy_find_key(name), r = -EINVAL;
	char right[160] = "";
	const struct key *k;

	if (key < 0)
		return unknown_key(name, error);
	k = &keys[key];
	switch (k->kind) {
	case KIND_CHOICE:
		r = set_choice(k, value, member(p, k));
		break;
	case KIND_TIMEOUT:
		r = set_timeout(value, member(p, k));
		break;
	case KIND_NUMBER:
		r = set_number(value, member(p, k));
		break;
	case KIND_COMMAND:
		r = set_command(p, value);
		break;
	}
	if (r == -ENOMEM)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "out of memory");
	if (r < 0) {
		right_value(k, right, sizeof(right));
		return hf_error_set(error, r, HF_ERR_INVALID, right, "`%.64s` is no value of %s",
			value, k->name);
	}
	p->given |= 1u << key;
	return 0;
}

int hf_policy_assign(struct hf_policy *p, const char *text, struct hf_error *error)
{
	const char *equals = strchr(text, '=');
	cleanup_free char *name = NULL;
	int key;

	if (!equals)
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID,
			"KEY=VALUE, such as not-eligible=refuse", "`%.64s` is no setting", text);
	name = strndup(text, (size_t)(equals - text));
	if (!name)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	key = hf_policy_find_key(name);
	if (key >= 0 && p->given & 1u << key)
		return hf_error_set(
			error, -EINVAL, HF_ERR_INVALID, "give it once", "%s is given twice", name);
	return hf_policy_set(p, name, equals + 1, error);
}

/* ---- the whole ---- */

void hf_policy_init(struct hf_policy *p)
{
	*p = (struct hf_policy){0};
	for (size_t i = 0; i < HF_POLICY_N_; i++) {
		if (keys[i].kind == KIND_TIMEOUT)
			*(uint64_t *)member(p, &keys[i]) = keys[i].preset;
		else if (keys[i].kind != KIND_COMMAND)
			*(uint32_t *)member(p, &keys[i]) = (uint32_t)keys[i].preset;
	}
}

void hf_policy_clear(struct hf_policy *p)
{
	free(p->health_command);
	hf_policy_init(p);
}

int hf_policy_overlay(struct hf_policy *p, const struct hf_policy *over)
{
	for (size_t i = 0; i < HF_POLICY_N_; i++) {
		const struct key *k = &keys[i];

		if (!(over->given & 1u << i))
			continue;
		if (k->kind == KIND_COMMAND) {
			if (set_command(p, over->health_command ? over->health_command : "") < 0)
				return -ENOMEM;
		} else if (k->kind == KIND_TIMEOUT) {
			*(uint64_t *)member(p, k) = *(const uint64_t *)member(over, k);
		} else {
			*(uint32_t *)member(p, k) = *(const uint32_t *)member(over, k);
		}
		p->given |= 1u << i;
	}
	return 0;
}

static uint32_t n_choices(const struct key *k)
{
	uint32_t n = 0;

	while (k->choices[n])
		n++;
	return n;
}

void hf_policy_repair(struct hf_policy *p)
{
	for (size_t i = 0; i < HF_POLICY_N_; i++) {
		const struct key *k = &keys[i];
		uint32_t *number = member(p, k);
		uint64_t *ns = member(p, k);

		if ((k->kind == KIND_CHOICE && *number >= n_choices(k)) ||
			(k->kind == KIND_NUMBER && *number > HF_POLICY_PRIORITY_MAX))
			*number = (uint32_t)k->preset;
		else if (k->kind == KIND_TIMEOUT && !timeout_valid(*ns))
			*ns = k->preset;
		else if (k->kind == KIND_COMMAND && p->health_command &&
			 !command_valid(p->health_command))
			p->health_command = (free(p->health_command), NULL);
	}
}

void hf_policy_format(const struct hf_policy *p, enum hf_policy_key key, char *buf, size_t size)
{
	const struct key *k = &keys[key];

	switch (k->kind) {
	case KIND_CHOICE:
		snprintf(buf, size, "%s", k->choices[*(const uint32_t *)member(p, k)]);
		break;
	case KIND_TIMEOUT:
		hf_duration_format(*(const uint64_t *)member(p, k), buf, size);
		break;
	case KIND_NUMBER:
		snprintf(buf, size, "%u", *(const uint32_t *)member(p, k));
		break;
	case KIND_COMMAND:
		snprintf(buf, size, "%s", p->health_command ? p->health_command : "");
		break;
	}
}
