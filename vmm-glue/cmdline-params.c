/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/cmdline-params.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"

/* QEMU's own objects nest three deep at most (addresses of netdevs). */
#define JSON_DEPTH 8
#define MAX_PARAMS 1024

void hf_params_clear(struct hf_params *p)
{
	for (size_t i = 0; i < p->n; i++) {
		free(p->v[i].key);
		free(p->v[i].value);
	}
	free(p->v);
	*p = (struct hf_params){0};
}

/* Takes key and value, also on failure. */
static int add_param(struct hf_params *p, char *key, char *value, struct hf_param **ret)
{
	struct hf_param *v;

	if (!key || !value)
		goto fail;
	if ((p->n & (p->n - 1)) == 0) {
		v = realloc(p->v, (p->n ? p->n * 2 : 1) * sizeof(*v));
		if (!v)
			goto fail;
		p->v = v;
	}
	v = &p->v[p->n++];
	*v = (struct hf_param){.key = key, .value = value, .is_string = true};
	*ret = v;
	return 0;
fail:
	free(key);
	free(value);
	return -ENOMEM;
}

/* A value up to the next single comma, with double ones made single. */
static const char *scan_value(const char *s, char **ret)
{
	size_t n = 0;
	const char *end = s;
	char *value;

	while (*end && (*end != ',' || end[1] == ','))
		end += *end == ',' ? 2 : 1;
	value = malloc(end - s + 1);
	if (value) {
		for (const char *c = s; c < end; c++) {
			value[n++] = *c;
			if (*c == ',')
				c++;
		}
		value[n] = 0;
	}
	*ret = value;
	return end;
}

static int parse_list(const char *text, const char *implied, struct hf_params *p)
{
	const char *s = text;

	while (*s) {
		size_t len = strcspn(s, "=,");
		char *key = NULL, *value = NULL;
		bool is_switch = false;
		struct hf_param *param;
		const char *end;
		int r;

		if (s[len] == '=') {
			key = strndup(s, len);
			end = scan_value(s + len + 1, &value);
		} else if (implied) {
			key = strdup(implied);
			end = scan_value(s, &value);
		} else {
			bool no = strncmp(s, "no", HF_MIN(len, 2)) == 0 && len >= 2;

			is_switch = true;
			key = strndup(no ? s + 2 : s, no ? len - 2 : len);
			value = strdup(no ? "off" : "on");
			end = s + len;
		}
		r = add_param(p, key, value, &param);
		if (r < 0)
			return r;
		param->start = s - text;
		param->length = end - s;
		param->is_switch = is_switch;
		implied = NULL;
		if (p->n > MAX_PARAMS)
			return -EBADMSG;
		s = *end == ',' ? end + 1 : end;
	}
	return 0;
}

static int flatten(struct json_object *value, const char *path, struct hf_params *p)
{
	struct hf_param *param;
	char sub[512];
	int r = 0;

	if (p->n >= MAX_PARAMS)
		return -EBADMSG;
	if (json_object_is_type(value, json_type_object)) {
		json_object_object_foreach (value, key, child) {
			if (snprintf(sub, sizeof(sub), "%s%s%s", path, *path ? "." : "", key) >=
				(int)sizeof(sub))
				return -EBADMSG;
			r = flatten(child, sub, p);
			if (r < 0)
				return r;
		}
		return 0;
	}
	if (json_object_is_type(value, json_type_array)) {
		for (size_t i = 0; r == 0 && i < json_object_array_length(value); i++) {
			if (snprintf(sub, sizeof(sub), "%s.%zu", path, i) >= (int)sizeof(sub))
				return -EBADMSG;
			r = flatten(json_object_array_get_idx(value, i), sub, p);
		}
		return r;
	}
	if (json_object_is_type(value, json_type_boolean)) {
		r = add_param(p, strdup(path),
			strdup(json_object_get_boolean(value) ? "on" : "off"), &param);
	} else {
		const char *text = value ? json_object_get_string(value) : "";

		/* A NUL inside would make QEMU and us read two different strings. */
		if (json_object_is_type(value, json_type_string) &&
			strlen(text) != (size_t)json_object_get_string_len(value))
			return -EBADMSG;
		r = add_param(p, strdup(path), text ? strdup(text) : NULL, &param);
	}
	if (r == 0)
		param->is_string = json_object_is_type(value, json_type_string);
	return r;
}

int hf_params_parse(const char *text, const char *implied, struct hf_params *ret)
{
	cleanup_json struct json_object *obj = NULL;
	struct hf_params p = {0};
	int r;

	*ret = p;
	if (*text == '{') {
		p.json = true;
		r = hf_json_parse(text, strlen(text), JSON_DEPTH, &obj);
		if (r == 0)
			r = flatten(obj, "", &p);
	} else {
		r = parse_list(text, implied, &p);
	}
	if (r < 0) {
		hf_params_clear(&p);
		return r;
	}
	*ret = p;
	return 0;
}

const char *hf_params_get(const struct hf_params *p, const char *key)
{
	for (size_t i = p->n; i > 0; i--)
		if (strcmp(p->v[i - 1].key, key) == 0)
			return p->v[i - 1].value;
	return NULL;
}

const char *hf_params_get_first(const struct hf_params *p, const char *key)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->v[i].key, key) == 0)
			return p->v[i].value;
	return NULL;
}

bool hf_params_is_on(const struct hf_params *p, const char *key)
{
	const char *v = hf_params_get(p, key);

	return v && (strcmp(v, "on") == 0 || strcmp(v, "yes") == 0 || strcmp(v, "true") == 0 ||
			    strcmp(v, "y") == 0);
}

static uint64_t suffix_factor(char c)
{
	static const char letters[] = "bkmgtpe";
	const char *at = c ? strchr(letters, tolower((unsigned char)c)) : NULL;

	return at ? 1ULL << (10 * (at - letters)) : 0;
}

int hf_size_parse(const char *text, uint64_t unit, uint64_t *ret)
{
	unsigned __int128 whole, part;
	uint64_t fraction = 0; /* in units of 2^-64 */
	unsigned long long n;
	char *end;

	/* strtoull() would take spaces and a sign. */
	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
		if (!isxdigit((unsigned char)text[2]))
			return -EINVAL;
		n = strtoull(text, &end, 16);
	} else {
		n = strtoull(text, &end, 10);
		if (*end == '.') {
			double scale = 0.1, f = 0;

			for (end++; isdigit((unsigned char)*end); end++, scale /= 10)
				f += (*end - '0') * scale;
			fraction = f < 1 ? (uint64_t)(f * 0x1p64) : 0;
		}
	}
	if (errno)
		return -ERANGE;
	if (suffix_factor(*end))
		unit = suffix_factor(*end++);
	if (*end)
		return -EINVAL;
	if (unit == 1 && fraction)
		return -EINVAL;
	part = (unsigned __int128)fraction * unit;
	whole = (unsigned __int128)n * unit + (uint64_t)(part >> 64) + ((uint64_t)part >> 63);
	if (whole > UINT64_MAX)
		return -ERANGE;
	*ret = (uint64_t)whole;
	return 0;
}
