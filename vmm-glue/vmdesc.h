/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Looking into device state by QEMU's own description of it.
 *
 * A migration stream of QEMU ends with a JSON text that names every device in it, its fields in
 * order and their sizes. It has no positions: a device's section is found by its header, and is
 * believed only if its size is what the description says, its footer is there, and no other place
 * in the stream looks the same (a guest can have such bytes in its video memory).
 *
 * Pure: bytes in, numbers out; both the stream and the description are untrusted. No I/O, no
 * threads. The stream is borrowed and must stay as long as the struct hf_vmdesc.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/cleanup.h"

/* A description is some KiB for each device; a guest with hundreds of them has a few MiB. */
#define HF_VMDESC_MAX_BYTES (16u << 20)
#define HF_VMDESC_MAX_DEVICES 16384

struct hf_vmdesc;
struct json_object;

/** struct hf_vmdesc_section - the contents of one device. Borrowed from the struct hf_vmdesc. */
struct hf_vmdesc_section {
	const uint8_t *data;
	size_t size;
	struct json_object *fields;
};

/**
 * hf_vmdesc_parse() - Read the description at the end of a stream.
 * @stream: the whole of it
 * @ret:    freed with hf_vmdesc_free()
 *
 * Return: 0; -ENODATA when there is no description; -EBADMSG when it makes no sense; -ENOMEM.
 */
int hf_vmdesc_parse(const void *stream, size_t size, struct hf_vmdesc **ret);

/** hf_vmdesc_free() - NULL is fine. */
void hf_vmdesc_free(struct hf_vmdesc *d);
static inline void hf_cleanup_vmdesc_freep(struct hf_vmdesc **p)
{
	hf_vmdesc_free(*p);
}
#define cleanup_vmdesc HF_CLEANUP(hf_cleanup_vmdesc_freep)

/** hf_vmdesc_count() - How many devices of this name there are, "cpu" for example. */
size_t hf_vmdesc_count(const struct hf_vmdesc *d, const char *device);

/**
 * hf_vmdesc_find() - Find the contents of a device.
 * @nth: of those with this name, in the order of the stream
 *
 * Return: 0; -ENOENT no such device, or not where it should be; -EBADMSG its description makes no
 * sense; -ENOTUNIQ more than one place looks like it.
 */
int hf_vmdesc_find(
	const struct hf_vmdesc *d, const char *device, size_t nth, struct hf_vmdesc_section *ret);

/**
 * hf_vmdesc_bytes() - A field, or one element of it.
 * @index: in an array; 0 for what is none
 *
 * Return: 0; -ENOENT; -EBADMSG.
 */
int hf_vmdesc_bytes(const struct hf_vmdesc_section *s, const char *field, size_t index,
	const uint8_t **ret, size_t *ret_size);

/**
 * hf_vmdesc_number() - A number of 1, 2, 4 or 8 bytes.
 * @member: of a field that is a structure; NULL: the field itself
 *
 * Return: 0; -ENOENT; -EBADMSG, also when it has another size.
 */
int hf_vmdesc_number(const struct hf_vmdesc_section *s, const char *field, size_t index,
	const char *member, uint64_t *ret);
