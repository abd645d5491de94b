/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The parser of ram-stream.h.
 *
 * The stream is a sequence of *items* of known length, each of them at most a page: what one says
 * decides what the next one is. Formats are those of QEMU's migration/savevm.c and migration/ram.c,
 * the same in 7.2, 10.0 and 11.1 as far as they may occur here:
 *
 *   stream   magic u32, version u32, [7 length u32 name], parts, devices
 *   part     1 id u32, length u8, name, instance u32, version u32, records, footer
 *            2 or 3 (the last), id u32, records, footer
 *            8 command u16, length u16, data
 *   footer   0x7e id u32
 *   record   address and flags u64; of a page unless it continues: length u8, block name; then
 *            the page, or a zero byte
 *
 * A record that *continues* means the block of the record before it. Records are passed on or kept
 * back by block, so one that is passed on still follows one of its own block.
 */
#include "vmm-glue/ram-stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"

#define FILE_MAGIC 0x5145564du
#define FILE_VERSION 3u
#define RAM_VERSION 4u

#define TYPE_START 0x01
#define TYPE_PART 0x02
#define TYPE_END 0x03
#define TYPE_FULL 0x04
#define TYPE_CONFIGURATION 0x07
#define TYPE_COMMAND 0x08
#define TYPE_FOOTER 0x7e

/* From 10.0 on: no more rounds. For the one who loads, without data. */
#define COMMAND_SWITCHOVER 11u

#define FLAG_ZERO 0x002u
#define FLAG_MEM_SIZE 0x004u
#define FLAG_PAGE 0x008u
#define FLAG_EOS 0x010u
#define FLAG_CONTINUE 0x020u
#define FLAGS_MASK ((uint64_t)HF_RAM_STREAM_PAGE - 1)

#define MAX_NAME 255
#define MAX_TOTAL (UINT64_C(1) << 52)

#define REMEDY "look for a newer holdfast, or shut the guest down for the update"

struct block {
	char name[MAX_NAME + 1];
	uint64_t size;
	int wanted; /* index, or -1 */
};

typedef int (*item_fn)(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e);

struct hf_ram_stream {
	const struct hf_ram_stream_ops *ops;
	void *data;
	struct hf_ram_stream_block *wanted;
	size_t n_wanted, n_found;
	struct block *blocks;
	size_t n_blocks;

	item_fn next; /* NULL: all that follows is passed on */
	size_t need;  /* bytes of the next item */
	size_t have;  /* of them in @item */
	uint8_t item[HF_RAM_STREAM_PAGE];
	int failed;

	bool configured; /* that place has passed */
	bool started;	 /* the section ram */
	uint8_t type;	 /* of the part it is in */
	uint32_t section;
	uint64_t listed; /* bytes of blocks that are still to be listed */
	bool has_list;
	const struct block *block; /* of the last record, NULL: none yet */
	uint64_t address;
	uint32_t flags;
	uint8_t held[8 + 1 + MAX_NAME]; /* of a record, until it is known whose it is */
	size_t n_held;
	bool tail; /* the devices have begun */
};

static int on_type(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e);
static int on_record(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e);

static uint16_t be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)be16(p) << 16 | be16(p + 2);
}

static uint64_t be64(const uint8_t *p)
{
	return (uint64_t)be32(p) << 32 | be32(p + 4);
}

static int expect(struct hf_ram_stream *s, item_fn next, size_t need)
{
	s->next = next;
	s->need = need;
	return 0;
}

/* Passes the item on; then @next. */
static int pass(struct hf_ram_stream *s, const uint8_t *item, item_fn next, size_t need)
{
	size_t size = s->need;

	expect(s, next, need);
	return s->ops->pass(s->data, item, size);
}

static int HF_PRINTF(3, 4) unknown(struct hf_error *e, int err, const char *fmt, ...)
{
	char what[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return hf_error_set(e, err, HF_ERR_FAILED, REMEDY,
		"QEMU's migration stream has something unexpected: %s", what);
}

/* ---- blocks ---- */

static struct block *find_block(struct hf_ram_stream *s, const uint8_t *name, size_t length)
{
	for (size_t i = 0; i < s->n_blocks; i++)
		if (strlen(s->blocks[i].name) == length &&
			memcmp(s->blocks[i].name, name, length) == 0)
			return &s->blocks[i];
	return NULL;
}

/* Return: index of the wanted block that is called this, or -1. */
static int find_wanted(const struct hf_ram_stream *s, const char *name)
{
	static const char prefix[] = "/objects/";
	const char *id =
		strncmp(name, prefix, sizeof(prefix) - 1) == 0 ? name + sizeof(prefix) - 1 : NULL;

	for (size_t i = 0; i < s->n_wanted; i++)
		if (strcmp(s->wanted[i].id, name) == 0 || (id && strcmp(s->wanted[i].id, id) == 0))
			return (int)i;
	return -1;
}

static int take_block(struct hf_ram_stream *s, const struct block *b, struct hf_error *e)
{
	const struct hf_ram_stream_block *w = b->wanted < 0 ? NULL : &s->wanted[b->wanted];
	struct block *p;

	for (size_t i = 0; w && i < s->n_blocks; i++)
		if (s->blocks[i].wanted == b->wanted)
			return unknown(e, -EBADMSG, "RAM block %.64s twice", w->id);
	if (w && w->size != b->size)
		return hf_error_set(e, -ESTALE, HF_ERR_FAILED,
			"write the size of the RAM as it is on QEMU's command line",
			"RAM block %.64s has %llu bytes, its command line says %llu", w->id,
			(unsigned long long)b->size, (unsigned long long)w->size);
	p = realloc(s->blocks, (s->n_blocks + 1) * sizeof(*p));
	if (!p)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	s->blocks = p;
	p[s->n_blocks++] = *b;
	s->n_found += w != NULL;
	return 0;
}

static int on_listed_length(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e);

static int on_listed(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	struct block b = {.wanted = -1};
	size_t length = s->need - 8;
	int r;

	memcpy(b.name, item, length);
	b.size = be64(item + length);
	if (strlen(b.name) != length || find_block(s, item, length))
		return unknown(e, -EBADMSG, "a RAM block without a name of its own");
	if (b.size == 0 || b.size % HF_RAM_STREAM_PAGE != 0 || b.size > s->listed)
		return unknown(e, -EBADMSG, "RAM block %.64s has %llu bytes", b.name,
			(unsigned long long)b.size);
	if (s->n_blocks == HF_RAM_STREAM_MAX_BLOCKS)
		return unknown(e, -EBADMSG, "more than %d RAM blocks", HF_RAM_STREAM_MAX_BLOCKS);
	b.wanted = find_wanted(s, b.name);
	r = take_block(s, &b, e);
	if (r < 0)
		return r;
	s->listed -= b.size;
	if (s->listed > 0)
		return pass(s, item, on_listed_length, 1);
	if (s->n_found != s->n_wanted)
		return hf_error_set(e, -ESTALE, HF_ERR_FAILED,
			"start the guest anew with holdfast-vmm",
			"QEMU has %zu of the %zu RAM blocks that its command line says", s->n_found,
			s->n_wanted);
	return pass(s, item, on_record, 8);
}

static int on_listed_length(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	if (item[0] == 0)
		return unknown(e, -EBADMSG, "a RAM block without a name");
	return pass(s, item, on_listed, item[0] + 8u);
}

/* ---- records ---- */

static int pass_held(struct hf_ram_stream *s)
{
	return s->ops->pass(s->data, s->held, s->n_held);
}

static int on_page(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	int r;

	if (s->block->wanted >= 0) {
		expect(s, on_record, 8);
		return s->ops->page(s->data, (size_t)s->block->wanted, s->address, item);
	}
	r = pass_held(s);
	return r < 0 ? r : pass(s, item, on_record, 8);
}

static int on_zero(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	int r;

	if (item[0] != 0)
		return unknown(e, -EPROTONOSUPPORT, "a page filled with %u", item[0]);
	if (s->block->wanted >= 0) {
		expect(s, on_record, 8);
		return s->ops->zero(s->data, (size_t)s->block->wanted, s->address);
	}
	r = pass_held(s);
	return r < 0 ? r : pass(s, item, on_record, 8);
}

static int expect_payload(struct hf_ram_stream *s, struct hf_error *e)
{
	if (s->address >= s->block->size)
		return unknown(
			e, -EBADMSG, "a page beyond the end of RAM block %.64s", s->block->name);
	return s->flags & FLAG_PAGE ? expect(s, on_page, HF_RAM_STREAM_PAGE)
				    : expect(s, on_zero, 1);
}

static void hold(struct hf_ram_stream *s, const uint8_t *item)
{
	memcpy(s->held + s->n_held, item, s->need);
	s->n_held += s->need;
}

static int on_page_block(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	s->block = find_block(s, item, s->need);
	if (!s->block)
		return unknown(e, -EBADMSG, "a page of a RAM block that wasn't listed");
	hold(s, item);
	return expect_payload(s, e);
}

static int on_page_length(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	if (item[0] == 0)
		return unknown(e, -EBADMSG, "a page of a RAM block without a name");
	hold(s, item);
	return expect(s, on_page_block, item[0]);
}

static int on_footer(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	if (item[0] != TYPE_FOOTER || be32(item + 1) != s->section)
		return unknown(e, -EPROTONOSUPPORT, "a part of the RAM without its end mark");
	/* Behind the last part come the devices: of no interest. */
	return pass(s, item, s->type == TYPE_END ? NULL : on_type, 1);
}

static int on_record(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	uint64_t address = be64(item) & ~FLAGS_MASK;
	uint32_t flags = be64(item) & FLAGS_MASK;
	uint32_t kind = flags & ~FLAG_CONTINUE;

	if (flags == FLAG_EOS && address == 0 && s->has_list)
		return pass(s, item, on_footer, 5);
	if (flags == FLAG_MEM_SIZE && !s->has_list && address > 0 && address <= MAX_TOTAL) {
		s->has_list = true;
		s->listed = address;
		return pass(s, item, on_listed_length, 1);
	}
	if ((kind != FLAG_ZERO && kind != FLAG_PAGE) || !s->has_list || s->type == TYPE_START)
		return unknown(e, -EPROTONOSUPPORT, "flags 0x%x in the RAM", flags);
	s->address = address;
	s->flags = flags;
	s->n_held = 0;
	hold(s, item);
	if (!(flags & FLAG_CONTINUE))
		return expect(s, on_page_length, 1);
	if (!s->block)
		return unknown(e, -EBADMSG, "a page without a RAM block");
	return expect_payload(s, e);
}

/* ---- sections ---- */

static int on_part(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	if (be32(item) != s->section)
		return unknown(e, -EPROTONOSUPPORT, "a part of something else than RAM");
	return pass(s, item, on_record, 8);
}

static int on_section_name(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	size_t length = s->need - 8;

	if (length != 3 || memcmp(item, "ram", 3) != 0)
		return unknown(e, -EPROTONOSUPPORT, "`%.*s` is sent in rounds, like RAM",
			(int)HF_MIN(strnlen((const char *)item, length), (size_t)64), item);
	if (be32(item + length) != 0 || be32(item + length + 4) != RAM_VERSION)
		return unknown(e, -EPROTONOSUPPORT, "another format of RAM");
	s->started = true;
	return pass(s, item, on_record, 8);
}

static int on_section(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	s->section = be32(item);
	return pass(s, item, on_section_name, item[4] + 8u);
}

static int on_command(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	if (be16(item) != COMMAND_SWITCHOVER || be16(item + 2) != 0)
		return unknown(e, -EPROTONOSUPPORT, "command %u", be16(item));
	return pass(s, item, on_type, 1);
}

static int on_configuration_name(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	return pass(s, item, on_type, 1);
}

static int on_configuration(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	uint32_t length = be32(item);

	if (length == 0 || length > MAX_NAME)
		return unknown(e, -EBADMSG, "a machine type of %u letters", length);
	return pass(s, item, on_configuration_name, length);
}

static int on_type(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	bool configured = s->configured;

	s->configured = true;
	s->type = item[0];
	switch (item[0]) {
	case TYPE_CONFIGURATION:
		if (!configured)
			return pass(s, item, on_configuration, 4);
		break;
	case TYPE_START:
		if (!s->started)
			return pass(s, item, on_section, 5);
		break;
	case TYPE_PART:
	case TYPE_END:
		if (s->started)
			return pass(s, item, on_part, 4);
		break;
	case TYPE_COMMAND:
		return pass(s, item, on_command, 4);
	case TYPE_FULL:
		return unknown(e, -EPROTONOSUPPORT, "a device comes before the RAM is complete");
	default:
		break;
	}
	return unknown(e, -EPROTONOSUPPORT, "a section of type %u", item[0]);
}

static int on_file(struct hf_ram_stream *s, const uint8_t *item, struct hf_error *e)
{
	if (be32(item) != FILE_MAGIC || be32(item + 4) != FILE_VERSION)
		return unknown(e, -EPROTONOSUPPORT, "it is no stream of version %u", FILE_VERSION);
	return pass(s, item, on_type, 1);
}

/* ---- the whole ---- */

int hf_ram_stream_new(const struct hf_ram_stream_block *blocks, size_t n_blocks,
	const struct hf_ram_stream_ops *ops, void *data, struct hf_ram_stream **ret)
{
	struct hf_ram_stream *s;

	if (n_blocks == 0 || n_blocks > HF_RAM_STREAM_MAX_BLOCKS)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->ops = ops;
	s->data = data;
	s->wanted = calloc(n_blocks, sizeof(*s->wanted));
	for (; s->wanted && s->n_wanted < n_blocks; s->n_wanted++) {
		s->wanted[s->n_wanted].size = blocks[s->n_wanted].size;
		s->wanted[s->n_wanted].id = strdup(blocks[s->n_wanted].id);
		if (!s->wanted[s->n_wanted].id)
			break;
	}
	if (s->n_wanted < n_blocks) {
		hf_ram_stream_free(s);
		return -ENOMEM;
	}
	expect(s, on_file, 8);
	*ret = s;
	return 0;
}

static int feed_tail(struct hf_ram_stream *s, const uint8_t *bytes, size_t size)
{
	s->tail = true;
	return s->ops->pass(s->data, bytes, size);
}

static int feed(struct hf_ram_stream *s, const uint8_t *bytes, size_t size, struct hf_error *e)
{
	int r = 0;

	while (size > 0 && s->next && r == 0) {
		const uint8_t *item = bytes;
		size_t n = HF_MIN(s->need - s->have, size);

		/* Most pages lie whole in what came: no need to put them together. */
		if (n < s->need) {
			memcpy(s->item + s->have, bytes, n);
			item = s->item;
		}
		bytes += n;
		size -= n;
		s->have += n;
		if (s->have < s->need)
			break;
		s->have = 0;
		r = s->next(s, item, e);
	}
	return r == 0 && size > 0 ? feed_tail(s, bytes, size) : r;
}

int hf_ram_stream_feed(
	struct hf_ram_stream *s, const uint8_t *bytes, size_t size, struct hf_error *error)
{
	if (s->failed)
		return hf_error_set(
			error, s->failed, HF_ERR_FAILED, NULL, "the stream broke before");
	s->failed = feed(s, bytes, size, error);
	return s->failed;
}

int hf_ram_stream_end(struct hf_ram_stream *s, struct hf_error *error)
{
	if (s->failed || !s->tail)
		return hf_error_set(error, -EBADMSG, HF_ERR_FAILED, "see QEMU's log",
			"QEMU's migration stream ended early");
	return 0;
}

void hf_ram_stream_free(struct hf_ram_stream *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n_wanted; i++)
		free((char *)s->wanted[i].id);
	free(s->wanted);
	free(s->blocks);
	free(s);
}
