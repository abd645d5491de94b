/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Text of the human monitor.
 *
 * Some facts QEMU tells people only: which RAM blocks there are, and which ROM files it loaded.
 * Their formats are no contract, so the parsers take what 7.2 to 11.1 print, tolerate columns that
 * are added at the end, and refuse the rest rather than guess.
 */
#include <errno.h>
#include <stdlib.h>
#include <stdbool.h>
#include <string.h>

#include "qmp/commands.h"
#include "qmp/internal.h"

void hf_qmp_copy_text(char *dst, size_t size, const char *src)
{
	size_t i, n = strlen(src);

	if (n >= size) {
		n = size - 1;
		/* Back to the first byte of a character: 10xxxxxx are the others. */
		while (n && ((unsigned char)src[n] & 0xc0) == 0x80)
			n--;
	}
	for (i = 0; i < n; i++)
		dst[i] = (unsigned char)src[i] < ' ' || src[i] == 0x7f ? ' ' : src[i];
	dst[n] = '\0';
}

/* A piece of text: not NUL-terminated. */
struct span {
	const char *p;
	size_t n;
};

/* Takes the next line off, without its line end. False at the end. */
static bool next_line(struct span *text, struct span *ret)
{
	const char *nl;

	if (!text->n)
		return false;
	nl = memchr(text->p, '\n', text->n);
	ret->p = text->p;
	ret->n = nl ? (size_t)(nl - text->p) : text->n;
	text->p += ret->n + !!nl;
	text->n -= ret->n + !!nl;
	while (ret->n && (ret->p[ret->n - 1] == '\r' || ret->p[ret->n - 1] == ' '))
		ret->n--;
	return true;
}

/* Takes the next word off. False when there is none. */
static bool next_word(struct span *line, struct span *ret)
{
	while (line->n && *line->p == ' ') {
		line->p++;
		line->n--;
	}
	ret->p = line->p;
	ret->n = 0;
	while (line->n && *line->p != ' ') {
		line->p++;
		line->n--;
		ret->n++;
	}
	return ret->n > 0;
}

static bool starts_with(struct span s, const char *prefix)
{
	size_t n = strlen(prefix);

	return s.n >= n && !memcmp(s.p, prefix, n);
}

static bool equals(struct span s, const char *text)
{
	return s.n == strlen(text) && !memcmp(s.p, text, s.n);
}

static int copy_name(struct span s, char *buf, size_t size)
{
	size_t i;

	if (!s.n || s.n >= size)
		return -EBADMSG;
	for (i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
			return -EBADMSG;
	memcpy(buf, s.p, s.n);
	buf[s.n] = '\0';
	return 0;
}

/* A number with nothing behind it. */
static int parse_u64(struct span s, int base, uint64_t *ret)
{
	char buf[32], *end;
	unsigned long long v;

	if (!s.n || s.n >= sizeof(buf))
		return -EBADMSG;
	// NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): a span with bytes has a place
	memcpy(buf, s.p, s.n);
	buf[s.n] = '\0';
	/* strtoull() would take a sign and white space. */
	if (buf[0] < '0' || buf[0] > '9')
		return -EBADMSG;
	errno = 0;
	v = strtoull(buf, &end, base);
	if (errno || *end || end == buf)
		return -EBADMSG;
	*ret = v;
	return 0;
}

static int unit_bytes(struct span s, uint64_t *ret)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	size_t i;

	for (i = 0; i < HF_ARRAY_SIZE(units); i++) {
		if (equals(s, units[i])) {
			*ret = 1ULL << (10 * i);
			return 0;
		}
	}
	return -EBADMSG;
}

/*
 * `NAME  4 KiB  0xOFFSET 0xUSED 0xTOTAL`, more columns from 8.2 on. A name may have blanks in it,
 * so the line is read from its first hexadecimal number back.
 */
static int parse_ramblock(struct span line, struct hf_qmp_ramblock *ret)
{
	struct hf_qmp_ramblock b = {0};
	struct span word, number = {0}, unit = {0}, name = {0};
	uint64_t count, bytes;
	int r;

	while (next_word(&line, &word) && !starts_with(word, "0x")) {
		if (!name.p)
			name.p = word.p;
		/* Two words back is where the name ends. */
		if (number.n)
			name.n = (size_t)(number.p + number.n - name.p);
		number = unit;
		unit = word;
	}
	if (!word.n || !number.n || !name.n)
		return -EBADMSG;
	r = copy_name(name, b.name, sizeof(b.name));
	if (r >= 0)
		r = parse_u64(number, 10, &count);
	if (r >= 0)
		r = unit_bytes(unit, &bytes);
	if (r < 0)
		return r;
	if (!count || count > UINT64_MAX / bytes)
		return -EBADMSG;
	b.page_bytes = count * bytes;
	r = parse_u64(word, 16, &b.offset);
	if (r >= 0)
		r = next_word(&line, &word) ? parse_u64(word, 16, &b.used_bytes) : -EBADMSG;
	if (r >= 0)
		r = next_word(&line, &word) ? parse_u64(word, 16, &b.total_bytes) : -EBADMSG;
	if (r < 0)
		return r;
	*ret = b;
	return 0;
}

int hf_qmp_parse_ramblocks(
	const char *text, size_t size, struct hf_qmp_ramblock *blocks, size_t max, size_t *ret_n)
{
	struct span all = {text, size}, line;
	size_t n = 0;
	int r;

	/* The head line. */
	if (!next_line(&all, &line) || !memmem(line.p, line.n, "Block Name", 10))
		return -EBADMSG;
	while (next_line(&all, &line)) {
		if (!line.n)
			continue;
		if (n == max)
			return -ENOBUFS;
		r = parse_ramblock(line, &blocks[n]);
		if (r < 0)
			return r;
		n++;
	}
	*ret_n = n;
	return 0;
}

/*
 * Three kinds of lines, all with ` size=0x… ` and ` name="…"` at the end:
 *   addr=HEX size=HEX mem=rom name="FILE"     mapped ROM
 *   fw=PATH size=HEX name="FILE"              in fw_cfg
 *   /rom@PATH size=HEX name="FILE"            in fw_cfg, with a RAM block of its own
 */
static int parse_rom(struct span line, struct hf_qmp_rom *ret)
{
	static const char key[] = " name=\"";
	struct hf_qmp_rom rom = {0};
	struct span word, name;
	bool first = true, sized = false;
	int r = 0;

	name.p = memmem(line.p, line.n, key, strlen(key));
	if (!name.p || line.p[line.n - 1] != '"')
		return -EBADMSG;
	name.n = (size_t)(line.p + line.n - name.p);
	line.n -= name.n;
	if (name.n < sizeof(key))
		return -EBADMSG;
	name.p += strlen(key);
	name.n -= sizeof(key);
	r = copy_name(name, rom.name, sizeof(rom.name));
	for (; r >= 0 && next_word(&line, &word); first = false) {
		struct span rest = word;

		if (starts_with(word, "size=")) {
			rest.p += 5;
			rest.n -= 5;
			r = parse_u64(rest, 16, &rom.size_bytes);
			sized = true;
		} else if (first && (starts_with(word, "fw=") || starts_with(word, "/rom@"))) {
			size_t skip = *word.p == '/' ? 5 : 3;

			rest.p += skip;
			rest.n -= skip;
			r = copy_name(rest, rom.fw_path, sizeof(rom.fw_path));
		}
	}
	if (r >= 0 && !sized)
		r = -EBADMSG;
	if (r < 0)
		return r;
	*ret = rom;
	return 0;
}

int hf_qmp_parse_roms(
	const char *text, size_t size, struct hf_qmp_rom *roms, size_t max, size_t *ret_n)
{
	struct span all = {text, size}, line;
	size_t n = 0;
	int r;

	while (next_line(&all, &line)) {
		if (!line.n)
			continue;
		if (n == max)
			return -ENOBUFS;
		r = parse_rom(line, &roms[n]);
		if (r < 0)
			return r;
		n++;
	}
	*ret_n = n;
	return 0;
}

static bool is_listed(const struct hf_qmp_romfile *files, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(files[i].name, name))
			return true;
	return false;
}

/* Lines of `  romfile = "FILE"` among all properties of all devices; "" is a device without one. */
int hf_qmp_parse_romfiles(
	const char *text, size_t size, struct hf_qmp_romfile *files, size_t max, size_t *ret_n)
{
	struct span all = {text, size}, line, word;
	struct hf_qmp_romfile file;
	size_t n = 0;
	int r;

	while (next_line(&all, &line)) {
		if (!next_word(&line, &word) || !equals(word, "romfile") ||
			!next_word(&line, &word) || !equals(word, "="))
			continue;
		while (line.n && *line.p == ' ') {
			line.p++;
			line.n--;
		}
		if (line.n < 2 || line.p[0] != '"' || line.p[line.n - 1] != '"')
			return -EBADMSG;
		if (line.n == 2)
			continue;
		r = copy_name((struct span){line.p + 1, line.n - 2}, file.name, sizeof(file.name));
		if (r < 0)
			return r;
		if (is_listed(files, n, file.name))
			continue;
		if (n == max)
			return -ENOBUFS;
		files[n++] = file;
	}
	*ret_n = n;
	return 0;
}
