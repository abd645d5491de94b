/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/kernel-scan.h"

#include <string.h>

#include "common/cleanup.h"

/*
 * Bytes are looked at where they lie in a window, once what follows them is there as well: as much
 * as the longest string may take. The byte before has to be there, too.
 */
#define WINDOW_BYTES (64 * 1024)
#define AHEAD_BYTES HF_KERNEL_BANNER_BYTES

#define BANNER "Linux version "
#define CONFIG_BEGIN "IKCFG_ST\037\213\010" /* the mark, and how gzip begins */
#define CONFIG_MARK_BYTES 8
#define CONFIG_END "IKCFG_ED"
#define MAX_DIGITS 6

static const char *const family_names[] = {
	[HF_KERNEL_KHO] = "kho", [HF_KERNEL_LUO] = "luo", [HF_KERNEL_MEMFD] = "memfd"};

static const char *const family_prefixes[] = {
	[HF_KERNEL_KHO] = "kho-v", [HF_KERNEL_LUO] = "luo-v", [HF_KERNEL_MEMFD] = "memfd-v"};

struct hf_kernel_scan {
	struct hf_kernel_strings found;
	uint8_t window[WINDOW_BYTES];
	size_t size; /* bytes in the window */
	size_t at;   /* the first one not looked at */
	bool in_config;
	bool config_whole;
	size_t config_room;
};

const char *hf_kernel_family_name(enum hf_kernel_family family)
{
	return family_names[family];
}

bool hf_kernel_formats_has(const struct hf_kernel_formats *formats, const char *name)
{
	for (size_t i = 0; i < formats->n; i++) {
		if (strcmp(formats->names[i], name) == 0)
			return true;
	}
	return false;
}

int hf_kernel_scan_new(struct hf_kernel_scan **ret)
{
	struct hf_kernel_scan *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	*ret = s;
	return 0;
}

void hf_kernel_scan_free(struct hf_kernel_scan *s)
{
	if (s)
		free(s->found.config_gz);
	free(s);
}

/* Not those of ctype.h: what is found must not depend on the locale. */
static bool is_printable(uint8_t c)
{
	return c >= ' ' && c < 0x7f;
}

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static bool starts(const uint8_t *p, size_t left, const char *text, size_t n)
{
	return left >= n && memcmp(p, text, n) == 0;
}

static void look_for_format(struct hf_kernel_scan *s, enum hf_kernel_family family, size_t left)
{
	const uint8_t *p = s->window + s->at;
	struct hf_kernel_formats *f = &s->found.formats[family];
	size_t prefix = strlen(family_prefixes[family]), n = prefix;

	if (!starts(p, left, family_prefixes[family], prefix))
		return;
	/* The end of a longer string is none. */
	if (s->at > 0 && (is_printable(p[-1]) || p[-1] == '\n' || p[-1] == '\t'))
		return;
	while (n < left && is_digit(p[n]))
		n++;
	if (n == prefix || n > prefix + MAX_DIGITS || n == left || p[n] != 0)
		return;
	if (f->n < HF_KERNEL_MAX_FORMATS && !hf_kernel_formats_has(f, (const char *)p))
		memcpy(f->names[f->n++], p, n + 1);
}

/* There may be two, an early one without number and date of the build: the longer one says more. */
static void look_for_banner(struct hf_kernel_scan *s, size_t left)
{
	const uint8_t *p = s->window + s->at;
	size_t n = strlen(BANNER);

	if (!starts(p, left, BANNER, n) || n == left || !is_digit(p[n]))
		return;
	while (n < left && n < HF_KERNEL_BANNER_BYTES - 1 && is_printable(p[n]))
		n++;
	if (n > strlen(s->found.banner)) {
		memcpy(s->found.banner, p, n);
		s->found.banner[n] = 0;
	}
}

static void drop_config(struct hf_kernel_scan *s)
{
	free(s->found.config_gz);
	s->found.config_gz = NULL;
	s->found.config_gz_bytes = 0;
	s->config_room = 0;
	s->in_config = false;
}

static int add_to_config(struct hf_kernel_scan *s, uint8_t byte)
{
	struct hf_kernel_strings *f = &s->found;

	if (f->config_gz_bytes == HF_KERNEL_MAX_CONFIG_GZ_BYTES) {
		drop_config(s); /* no configuration is that large: it was none */
		return 0;
	}
	if (!f->config_gz || f->config_gz_bytes == s->config_room) {
		size_t room = s->config_room ? s->config_room * 2 : 64 * 1024;
		uint8_t *p = realloc(f->config_gz, room);

		if (!p)
			return -ENOMEM;
		f->config_gz = p;
		s->config_room = room;
	}
	f->config_gz[f->config_gz_bytes++] = byte;
	return 0;
}

/* The bytes are collected one by one on the way: other strings are looked for all the same. */
static int look_for_config(struct hf_kernel_scan *s, size_t left)
{
	const uint8_t *p = s->window + s->at;
	bool begins = !s->in_config && !s->config_whole &&
		      starts(p, left, CONFIG_BEGIN, strlen(CONFIG_BEGIN));

	if (begins)
		s->in_config = true;
	if (!s->in_config)
		return 0;
	if (s->found.config_gz && starts(p, left, CONFIG_END, strlen(CONFIG_END))) {
		/* The mark at the begin was collected with the rest. */
		s->found.config_gz_bytes -= CONFIG_MARK_BYTES;
		memmove(s->found.config_gz, s->found.config_gz + CONFIG_MARK_BYTES,
			s->found.config_gz_bytes);
		s->in_config = false;
		s->config_whole = true;
		return 0;
	}
	return add_to_config(s, *p);
}

/* Looks at everything that has @ahead bytes behind it, then makes room. */
static int look(struct hf_kernel_scan *s, size_t ahead)
{
	size_t keep_from;
	int r = 0;

	for (; r == 0 && s->at + ahead < s->size; s->at++) {
		size_t left = s->size - s->at;

		switch (s->window[s->at]) {
		case 'k':
			look_for_format(s, HF_KERNEL_KHO, left);
			break;
		case 'l':
			look_for_format(s, HF_KERNEL_LUO, left);
			break;
		case 'm':
			look_for_format(s, HF_KERNEL_MEMFD, left);
			break;
		case 'L':
			look_for_banner(s, left);
			break;
		default:
			break;
		}
		if (s->in_config || s->window[s->at] == CONFIG_BEGIN[0])
			r = look_for_config(s, left);
	}
	keep_from = s->at > 0 ? s->at - 1 : 0;
	memmove(s->window, s->window + keep_from, s->size - keep_from);
	s->size -= keep_from;
	s->at -= keep_from;
	return r;
}

int hf_kernel_scan_feed(struct hf_kernel_scan *s, const void *bytes, size_t size)
{
	const uint8_t *p = bytes;

	while (size > 0) {
		size_t n = HF_MIN(size, WINDOW_BYTES - s->size);
		int r;

		memcpy(s->window + s->size, p, n);
		s->size += n;
		p += n;
		size -= n;
		r = look(s, AHEAD_BYTES);
		if (r < 0)
			return r;
	}
	return 0;
}

int hf_kernel_scan_end(struct hf_kernel_scan *s, struct hf_kernel_strings *ret)
{
	int r = look(s, 0);

	if (r < 0)
		return r;
	if (!s->config_whole)
		drop_config(s);
	*ret = s->found;
	s->found.config_gz = NULL;
	return 0;
}
