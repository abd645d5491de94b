/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The manifest's fields as tables. For manifest*.c only.
 *
 * Writing, reading, freeing and showing all walk these tables, so that a new field is one member in
 * manifest.h, one line in manifest-schema.c and one in docs/FORMATS.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "memfd-preserve/manifest.h"

enum field_type {
	FIELD_STRING, /* char *, NULL: absent */
	FIELD_UUID,   /* char[HF_UUID_CHARS], "": absent */
	FIELD_BOOL,   /* bool, on the wire u32 0 or 1 */
	FIELD_U32,
	FIELD_I32, /* on the wire u32, two's complement */
	FIELD_U64,
	FIELD_CHOICE,  /* u32, on the wire the name; a name that isn't known: as if absent */
	FIELD_HASH,    /* u64 that people read in hexadecimal */
	FIELD_STRINGS, /* char **, and a size_t count */
	FIELD_U32S,    /* u32 *, and a size_t count */
	FIELD_U64S,    /* u64 *, and a size_t count */
	FIELD_VERSION, /* u32[3] */
};

struct field {
	const char *name; /* property name */
	enum field_type type;
	bool needed;   /* neither written nor read without it */
	bool only_set; /* a bool that is written when it is true: readers must know it then */
	size_t offset;
	size_t count_offset;	  /* of the types with a count */
	size_t max;		  /* of the types with a count: most entries */
	const char *const *names; /* of FIELD_CHOICE, ended by NULL */
};

struct node_type;

/* A node with one child node an entry: `container/item@N`. */
struct list {
	const char *container;
	const char *item; /* without @N */
	size_t offset;	  /* of the array, or of the pointer to it */
	size_t count_offset;
	size_t max;
	bool pointers; /* array of pointers to objects, not of objects */
	size_t fixed;  /* not 0: an embedded array of so many, each always written */
	const struct node_type *type;
};

struct node_type {
	const char *noun; /* in error sentences */
	size_t size;	  /* of the C structure */
	const struct field *fields;
	size_t n_fields;
	const struct list *lists;
	size_t n_lists;
	void (*init)(void *object); /* defaults other than zero, or NULL */
};

extern const struct node_type hf_manifest_schema_root;
extern const struct node_type hf_manifest_schema_guest;

/** hf_manifest_schema_clear() - Free everything an object of a type owns, and zero it. */
void hf_manifest_schema_clear(const struct node_type *type, void *object);

/**
 * hf_manifest_schema_append() - Append a zeroed, initialised object to a list.
 * @owner: object that has the list
 *
 * Return: the object, NULL when there is no memory.
 */
void *hf_manifest_schema_append(const struct list *list, void *owner);

/** hf_manifest_schema_empty() - Free every entry of a list, and the list. Not of a fixed one. */
void hf_manifest_schema_empty(const struct list *list, void *owner);

/** hf_manifest_uuid_valid() - Whether it is 36 characters of 8-4-4-4-12 hexadecimal digits. */
bool hf_manifest_uuid_valid(const char *s, size_t len);

/** hf_manifest_schema_at() - The object at index @i of a list, which has to be there. Borrowed. */
const void *hf_manifest_schema_at(const struct list *list, const void *owner, size_t i);

/** hf_manifest_schema_count() - How many objects there are in a list. */
size_t hf_manifest_schema_count(const struct list *list, const void *owner);

/* Lists that manifest.c appends to. */
enum root_list { ROOT_READAHEAD, ROOT_GUESTS };
enum guest_list {
	GUEST_STDIO,
	GUEST_RAM,
	GUEST_STATE,
	GUEST_NET,
	GUEST_FDS,
	GUEST_FOLDERS,
	GUEST_HELPERS,
	GUEST_DISKS,
};

static inline void *field_at(const void *object, size_t offset)
{
	return (char *)(uintptr_t)object + offset;
}

/* Pointers of any type, moved without breaking the aliasing rules. */
static inline void *field_pointer(const void *object, size_t offset)
{
	void *p;

	memcpy(&p, (const char *)object + offset, sizeof(p));
	return p;
}

static inline void field_set_pointer(void *object, size_t offset, void *p)
{
	memcpy((char *)object + offset, &p, sizeof(p));
}
