/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The envelope around the manifest's tree. For manifest-*.c and their tests only.
 *
 * This interface is a contract between builds of holdfast: docs/FORMATS.md. All little-endian.
 */
#pragma once

#include <assert.h>
#include <stdint.h>

#include "memfd-preserve/manifest.h"

#define HF_MANIFEST_MAGIC "HOLDFAST" /* 8 bytes, no NUL */
#define HF_MANIFEST_FORMAT 1
#define HF_MANIFEST_COMPATIBLE "holdfast,manifest-v1"

struct hf_manifest_header {
	uint8_t magic[8];
	uint32_t format;       /* HF_MANIFEST_FORMAT */
	uint32_t header_bytes; /* HF_MANIFEST_HEADER_BYTES */
	uint64_t tree_bytes;   /* of the flattened device tree that follows */
	uint64_t xxh3;	       /* XXH3-64, seed 0, of header and tree with this field 0 */
	uint8_t reserved[32];  /* zero */
};

static_assert(sizeof(struct hf_manifest_header) == HF_MANIFEST_HEADER_BYTES, "on the wire");
