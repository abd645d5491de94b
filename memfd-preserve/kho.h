/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Looking at what the kernel itself hands over.
 *
 * With debugfs the kernel shows KHO's trees: `out/` what it will hand over, `in/` what it was
 * given. In each, `fdt` is the root tree and `sub_fdts/NAME` one blob a user of KHO. A blob may be
 * another tree, or a plain C structure of that user (LUO's since luo-v5): those are shown by size,
 * leading `compatible` string and first bytes.
 *
 * Everything here only reads. The parsers take bytes, do no I/O and limit depth, counts and
 * lengths. Facts: Linux 7.3.4, kernel/liveupdate/kexec_handover_debugfs.c, include/linux/kho/abi/.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

#define HF_KHO_DEBUGFS "/sys/kernel/debug/kho"

struct json_object;

/**
 * hf_kho_fdt_to_json() - Convert a flattened device tree.
 * @ret_json: `{"properties": {NAME: {…}}, "nodes": {NAME: {…}}}`, put by the caller
 *
 * A property shows as `{"strings": […]}` when it is text, `{"u32": n}` or `{"u64": n}` when it is 4
 * or 8 bytes long (the kernel stores KHO's integers in its own byte order, not in big-endian as
 * trees do otherwise), and always its length in `size`; other bytes as `hex`, cut after 64.
 * Return: 0; -EBADMSG not a sound tree, or beyond the limits; -ENOMEM.
 */
int hf_kho_fdt_to_json(
	const void *data, size_t size, struct json_object **ret_json, struct hf_error *e);

/**
 * hf_kho_blob_to_json() - Convert what lies in sub_fdts/NAME, tree or not.
 * @name: the file's name: the kernel's own structures are told by it
 *
 * Return: 0 (whatever the bytes are) or -ENOMEM.
 */
int hf_kho_blob_to_json(
	const char *name, const void *data, size_t size, struct json_object **ret_json);

/**
 * hf_kho_blob_compatible() - The ABI string of a blob.
 * @ret:  `compatible` of a tree's root, or the string a structure begins with; "" when there is
 * none
 * @room: size of @ret, at least 1
 *
 * Return: 0 or -ENOENT.
 */
int hf_kho_blob_compatible(const void *data, size_t size, char *ret, size_t room);

/**
 * hf_kho_blob_memfd() - The format of memfds, if LUO's blob has it anywhere.
 * @ret:  "memfd-v2", or "" when it is not there
 * @room: size of @ret, at least 1
 */
void hf_kho_blob_memfd(const void *data, size_t size, char *ret, size_t room);

/**
 * hf_kho_inspect() - Everything in the debugfs folder, for `holdfast inspect kho`.
 * @root:     HF_KHO_DEBUGFS, or another folder in tests
 * @ret_json: `{"out": {"fdt": …, "sub_fdts": {…}, "scratch_phys": […],
 *            "scratch_len": […]}, "in": {…}}`; a side that the kernel doesn't have is absent
 *            (`in`, when it was not started by a kexec)
 *
 * Return: 0; -ENOENT no such folder (KHO off, or debugfs not mounted: the remedy says which);
 * -EACCES; -EBADMSG; -ENOMEM.
 */
int hf_kho_inspect(const char *root, struct json_object **ret_json, struct hf_error *e);

/* The strings that name one kernel's formats: the target's must be the same. "" when not found. */
struct hf_kho_abi {
	char kho[32];	/* "kho-v4" */
	char luo[32];	/* "luo-v5" */
	char memfd[32]; /* "memfd-v2" */
};

/**
 * hf_kho_running_abi() - Formats of the running kernel, from out/.
 *
 * That of memfds is there only if LUO's data shows it, which that of luo-v5 does not.
 * Return and parameters as hf_kho_inspect().
 */
int hf_kho_running_abi(const char *root, struct hf_kho_abi *ret_abi, struct hf_error *e);
