/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Little-endian numbers at any address, aligned or not.
 */
#pragma once

#include <stdint.h>

/** hf_le16() - The two bytes at @p. */
static inline uint16_t hf_le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

/** hf_le32() - The four bytes at @p. */
static inline uint32_t hf_le32(const uint8_t *p)
{
	return hf_le16(p) | (uint32_t)hf_le16(p + 2) << 16;
}

/** hf_le64() - The eight bytes at @p. */
static inline uint64_t hf_le64(const uint8_t *p)
{
	return hf_le32(p) | (uint64_t)hf_le32(p + 4) << 32;
}
