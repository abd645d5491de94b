/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config.h"

#include <assert.h>
#include <fnmatch.h>
#include <ini.h>
#include <stdarg.h>
#include <string.h>

#include "vmm-glue/registration.h"

/* How closely a section names a guest: the higher, the later it is laid over the others. */
enum rank { RANK_DEFAULTS, RANK_PATTERN, RANK_NAME, RANK_UUID, RANK_N_ };

struct section {
	enum rank rank;
	char *pattern; /* NULL with RANK_DEFAULTS */
	size_t file;   /* number of the file it is in */
	struct hf_policy policy;
	unsigned int lines[HF_POLICY_N_]; /* where each was given */
};

struct hf_config {
	struct hf_config_host host;
	struct section *sections;
	size_t n_sections;
	size_t n_files;
	struct hf_config_problem *problems;
	size_t n_problems;
	size_t n_all_problems;
};

struct hf_config *hf_config_new(void)
{
	return calloc(1, sizeof(struct hf_config));
}

void hf_config_free(struct hf_config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_sections; i++) {
		free(c->sections[i].pattern);
		hf_policy_clear(&c->sections[i].policy);
	}
	for (size_t i = 0; i < c->n_problems; i++)
		free(c->problems[i].file);
	free(c->sections);
	free(c->problems);
	free(c);
}

void hf_config_add_problem(struct hf_config *c, const char *file, unsigned int line,
	const char *remedy, const char *fmt, ...)
{
	struct hf_config_problem *grown, *p;
	va_list ap;

	c->n_all_problems++;
	if (c->n_problems == HF_CONFIG_MAX_PROBLEMS)
		return;
	grown = reallocarray(c->problems, c->n_problems + 1, sizeof(*grown));
	if (!grown)
		return;
	c->problems = grown;
	p = &grown[c->n_problems];
	*p = (struct hf_config_problem){.file = strdup(file), .line = line};
	if (!p->file)
		return;
	snprintf(p->remedy, sizeof(p->remedy), "%s", remedy ? remedy : "");
	va_start(ap, fmt);
	vsnprintf(p->message, sizeof(p->message), fmt, ap);
	va_end(ap);
	c->n_problems++;
}

const struct hf_config_problem *hf_config_problems(
	const struct hf_config *c, size_t *ret_n, size_t *ret_total)
{
	*ret_n = c->n_problems;
	if (ret_total)
		*ret_total = c->n_all_problems;
	return c->problems;
}

/* ---- parsing ---- */

/*
 * inih takes the lines apart; which lines it gets to see is decided here. It neither tells line
 * numbers, nor of lines that it cuts, nor of what follows a `;` in a value, which it drops.
 */
struct parser {
	struct hf_config *config;
	const char *file;
	const char *data;
	size_t size, pos;
	unsigned int line;
	bool expects;	 /* the line that inih has is a setting, which it didn't report yet */
	bool skipping;	 /* in a section that is wrong */
	bool in_section; /* after any section's head */
	size_t section;	 /* number of the section the line is in */
	bool in_host;	 /* or in [host] */
	unsigned int host_lines[2];
	int err;
};

#define PROBLEM(p, remedy, ...) \
	hf_config_add_problem((p)->config, (p)->file, (p)->line, remedy, __VA_ARGS__)

static bool is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static void strip(const char **s, size_t *n)
{
	while (*n > 0 && is_blank(**s)) {
		(*s)++;
		(*n)--;
	}
	while (*n > 0 && is_blank((*s)[*n - 1]))
		(*n)--;
}

static enum rank rank_of(const char *pattern)
{
	char uuid[HF_UUID_CHARS];

	return hf_uuid_parse(pattern, uuid)	 ? RANK_UUID
	       : strpbrk(pattern, "*?[") != NULL ? RANK_PATTERN
						 : RANK_NAME;
}

/* The section of this file with that pattern, a new one if there is none. */
static int enter_section(struct parser *p, const char *pattern)
{
	struct hf_config *c = p->config;
	struct section *grown, *s;

	p->in_host = false;
	for (size_t i = 0; i < c->n_sections; i++) {
		s = &c->sections[i];
		if (s->file == c->n_files && !s->pattern == !pattern &&
			(!pattern || strcmp(s->pattern, pattern) == 0)) {
			p->section = i;
			return 0;
		}
	}
	if (c->n_sections == HF_CONFIG_MAX_SECTIONS) {
		PROBLEM(p, NULL, "there are more than %d sections", HF_CONFIG_MAX_SECTIONS);
		return -E2BIG;
	}
	grown = reallocarray(c->sections, c->n_sections + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	c->sections = grown;
	s = &grown[c->n_sections];
	*s = (struct section){.file = c->n_files, .rank = RANK_DEFAULTS};
	hf_policy_init(&s->policy);
	if (pattern) {
		s->rank = rank_of(pattern);
		s->pattern = strdup(pattern);
		if (!s->pattern)
			return -ENOMEM;
	}
	p->section = c->n_sections++;
	return 0;
}

static int enter_guest(struct parser *p, const char *text, size_t n)
{
	char pattern[128];

	strip(&text, &n);
	if (n == 0 || n >= sizeof(pattern)) {
		PROBLEM(p, "[guest NAME], [guest PATTERN] with * or ?, or [guest UUID]",
			n ? "the guest's name is too long" : "the guest's name is missing");
		return -EINVAL;
	}
	memcpy(pattern, text, n);
	pattern[n] = 0;
	return enter_section(p, pattern);
}

static int enter_host(struct parser *p)
{
	p->in_host = true;
	return 0;
}

/* A line in brackets. */
static void take_head(struct parser *p, const char *s, size_t n)
{
	const char *end = memrchr(s, ']', n);
	size_t len = end ? (size_t)(end - s) - 1 : 0;
	const char *text = s + 1;
	int r = -EINVAL;

	p->in_section = true;
	if (!end) {
		PROBLEM(p, "[defaults] or [guest PATTERN]", "`]` is missing");
	} else if (end != s + n - 1) {
		PROBLEM(p, "put it on a line of its own", "there is something behind the section");
	} else {
		strip(&text, &len);
		if (len == strlen("defaults") && memcmp(text, "defaults", len) == 0)
			r = enter_section(p, NULL);
		else if (len == strlen("host") && memcmp(text, "host", len) == 0)
			r = enter_host(p);
		else if (len >= 5 && memcmp(text, "guest", 5) == 0 &&
			 (len == 5 || is_blank(text[5])))
			r = enter_guest(p, text + 5, len - 5);
		else
			PROBLEM(p, "there are [host], [defaults] and [guest PATTERN]",
				"there is no section [%.*s]", (int)HF_MIN(len, (size_t)64), text);
	}
	if (r == -ENOMEM)
		p->err = r;
	p->skipping = r < 0;
}

/* A line that is to be a setting. Return: whether inih may have it. */
static bool take_setting(struct parser *p, const char *s, size_t n, size_t room)
{
	if (p->skipping)
		return false;
	if (!p->in_section) {
		p->skipping = true;
		PROBLEM(p, "put [defaults] above it", "this is in no section");
		return false;
	}
	/* Its newline and NUL need room, too. */
	if (n + 2 > room) {
		PROBLEM(p, "put a long command into a script", "the line is longer than %zu bytes",
			room - 2);
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		if (s[i] == ';' && i > 0 && is_blank(s[i - 1])) {
			PROBLEM(p, "put a comment on a line of its own",
				"a value can't have ` ;` in it");
			return false;
		}
	}
	return true;
}

static void finish_line(struct parser *p)
{
	if (p->expects)
		PROBLEM(p, "KEY=VALUE", "this is neither a section nor a setting");
	p->expects = false;
}

/* ini_reader */
static char *next_setting(char *buf, int room, void *stream)
{
	struct parser *p = stream;

	finish_line(p);
	while (p->pos < p->size && p->err == 0) {
		const char *s = p->data + p->pos, *end = memchr(s, '\n', p->size - p->pos);
		size_t n = end ? (size_t)(end - s) : p->size - p->pos;

		p->pos += n + (end ? 1 : 0);
		if (p->line++ == 0 && n >= 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0) {
			s += 3;
			n -= 3;
		}
		strip(&s, &n);
		if (n == 0 || *s == '#' || *s == ';')
			continue;
		if (memchr(s, 0, n)) {
			PROBLEM(p, NULL, "there is a NUL byte in the line");
		} else if (*s == '[') {
			take_head(p, s, n);
		} else if (take_setting(p, s, n, (size_t)room)) {
			memcpy(buf, s, n);
			memcpy(buf + n, "\n", 2);
			p->expects = true;
			return buf;
		}
	}
	return NULL;
}

static const char *const carrier_names[] = {
	[HF_CONFIG_CARRIER_OWN] = "own",
	[HF_CONFIG_CARRIER_AUTO] = "auto",
	[HF_CONFIG_CARRIER_IMAGE] = "image",
};

static void set_host(struct parser *p, const char *name, const char *value)
{
	struct hf_config_host *host = &p->config->host;
	bool carrier = strcmp(name, "carrier") == 0;
	unsigned int *line = &p->host_lines[carrier];
	size_t i = 0;

	if (!carrier && strcmp(name, "plaintext-images") != 0) {
		PROBLEM(p, "[host] has carrier= and plaintext-images=", "there is no key `%.64s`",
			name);
		return;
	}
	if (*line)
		PROBLEM(p, "remove one of them", "%s was given in line %u already", name, *line);
	*line = p->line;
	if (carrier) {
		while (i < HF_ARRAY_SIZE(carrier_names) && strcmp(value, carrier_names[i]) != 0)
			i++;
		if (i == HF_ARRAY_SIZE(carrier_names))
			PROBLEM(p, "own, auto or image", "carrier can't be `%.64s`", value);
		else
			host->carrier = (enum hf_config_carrier)i;
	} else if (strcmp(value, "yes") == 0 || strcmp(value, "no") == 0) {
		host->plaintext = value[0] == 'y';
	} else {
		PROBLEM(p, "yes or no", "plaintext-images can't be `%.64s`", value);
	}
}

/* ini_handler. Its section is not the one: see next_setting(). */
static int on_setting(void *user, const char *section, const char *name, const char *value)
{
	struct parser *p = user;
	struct hf_error e = {0};
	struct section *s;
	int key, r;

	if (!name)
		return 1;
	p->expects = false;
	if (p->in_host) {
		set_host(p, name, value ? value : "");
		return 1;
	}
	s = &p->config->sections[p->section];
	key = hf_policy_find_key(name);
	if (key >= 0 && s->lines[key]) {
		PROBLEM(p, "remove one of them", "%s was given in line %u already", name,
			s->lines[key]);
		return 1;
	}
	r = hf_policy_set(&s->policy, name, value ? value : "", &e);
	if (r == -ENOMEM)
		p->err = r;
	else if (r < 0)
		PROBLEM(p, e.remedy, "%s", e.message);
	if (key >= 0)
		s->lines[key] = p->line;
	return 1;
}

int hf_config_parse(struct hf_config *c, const char *file, const void *data, size_t size)
{
	struct parser p = {.config = c, .file = file, .data = data, .size = size};
	int r;

	c->n_files++;
	if (size > HF_CONFIG_MAX_BYTES) {
		hf_config_add_problem(
			c, file, 0, NULL, "the file is larger than %u bytes", HF_CONFIG_MAX_BYTES);
		return 0;
	}
	/* What it returns is a line of those it saw; finish_line() knows better. */
	r = ini_parse_stream(next_setting, &p, on_setting, &p);
	finish_line(&p);
	return r == -2 ? -ENOMEM : p.err;
}

/* ---- what is in effect ---- */

static bool matches(const struct section *s, const struct hf_manifest_guest *g)
{
	switch (s->rank) {
	case RANK_DEFAULTS:
		return true;
	case RANK_PATTERN:
		return g->name && fnmatch(s->pattern, g->name, 0) == 0;
	case RANK_NAME:
		return g->name && strcmp(s->pattern, g->name) == 0;
	case RANK_UUID:
		return strcasecmp(s->pattern, g->uuid) == 0;
	case RANK_N_:
		break;
	}
	return false;
}

static int overlay_rank(const struct hf_config *c, enum rank rank,
	const struct hf_manifest_guest *g, struct hf_policy *p)
{
	for (size_t i = 0; i < c->n_sections; i++) {
		const struct section *s = &c->sections[i];

		if (s->rank == rank && (!g || matches(s, g)) &&
			hf_policy_overlay(p, &s->policy) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int overlay_launcher(
	const struct hf_manifest_guest *g, struct hf_policy *p, struct hf_error *error)
{
	cleanup_policy struct hf_policy given;
	int r = 0;

	hf_policy_init(&given);
	for (size_t i = 0; r == 0 && i < g->n_settings; i++)
		r = hf_policy_assign(&given, g->settings[i], error);
	return r < 0 ? r : hf_policy_overlay(p, &given);
}

int hf_config_policy(const struct hf_config *c, const struct hf_manifest_guest *g,
	struct hf_policy *ret, struct hf_error *error)
{
	int bad, r;

	hf_policy_init(ret);
	r = overlay_rank(c, RANK_DEFAULTS, g, ret);
	bad = overlay_launcher(g, ret, error);
	for (enum rank rank = RANK_PATTERN; r == 0 && rank < RANK_N_; rank++)
		r = overlay_rank(c, rank, g, ret);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "out of memory");
	if (bad < 0)
		hf_error_prefix(error, "a policy that it was started with");
	return bad;
}

const struct hf_config_host *hf_config_host(const struct hf_config *c)
{
	return &c->host;
}

/* ---- showing ---- */

static void print_policy(const struct hf_policy *p, bool all, FILE *out)
{
	char text[HF_POLICY_TEXT_MAX];

	for (int i = 0; i < HF_POLICY_N_; i++) {
		if (!all && !(p->given & 1u << i))
			continue;
		hf_policy_format(p, i, text, sizeof(text));
		fprintf(out, "%s=%s\n", hf_policy_key_name(i), text);
	}
}

void hf_config_print(const struct hf_config *c, FILE *out)
{
	cleanup_policy struct hf_policy defaults;

	hf_policy_init(&defaults);
	overlay_rank(c, RANK_DEFAULTS, NULL, &defaults);
	fprintf(out, "[host]\ncarrier=%s\nplaintext-images=%s\n\n", carrier_names[c->host.carrier],
		c->host.plaintext ? "yes" : "no");
	fprintf(out, "[defaults]\n");
	print_policy(&defaults, true, out);
	/* As they are laid over each other: what comes later counts. */
	for (enum rank rank = RANK_PATTERN; rank < RANK_N_; rank++) {
		for (size_t i = 0; i < c->n_sections; i++) {
			const struct section *s = &c->sections[i];

			if (s->rank != rank || !s->policy.given)
				continue;
			fprintf(out, "\n[guest %s]\n", s->pattern);
			print_policy(&s->policy, false, out);
		}
	}
}

void hf_config_print_problems(const struct hf_config *c, FILE *out)
{
	for (size_t i = 0; i < c->n_problems; i++) {
		const struct hf_config_problem *p = &c->problems[i];
		char line[16] = "";

		if (p->line)
			snprintf(line, sizeof(line), "%u:", p->line);
		fprintf(out, "%s:%s %s%s%s%s\n", p->file, line, p->message,
			p->remedy[0] ? " (" : "", p->remedy, p->remedy[0] ? ")" : "");
	}
	if (c->n_all_problems > c->n_problems)
		fprintf(out, "and %zu more\n", c->n_all_problems - c->n_problems);
}
