/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Encryption of images: AES-256-GCM by OpenSSL, with a key of its own for each image.
 *
 * A nonce is made of what is encrypted, the number of the chunk and the generation of its contents.
 * A chunk is encrypted once in a generation, so no nonce comes twice under a key, as long as a key
 * is of one image only. Additional data (header, tables, index) have a nonce of their own.
 *
 * The key lies in a locked page that is left out of core dumps, and is cleansed before it goes.
 * OpenSSL's contexts have it expanded in ordinary memory, for as long as there is work on the
 * image.
 *
 * Keys may be shared by threads, ciphers not.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "memfd-preserve/image-format.h"

#define HF_IMAGE_KEY_BYTES 32

struct hf_image_key {
	uint64_t serial; /* tells keys of this process apart */
	uint8_t bytes[HF_IMAGE_KEY_BYTES];
};

struct hf_image_cipher;

/** hf_image_random() - Random bytes from the kernel. Return: 0 or -errno. */
int hf_image_random(void *data, size_t size);

/** hf_image_key_new() - Room for a key, in locked memory, zero. */
int hf_image_key_new(struct hf_image_key **ret, struct hf_error *e);

/** hf_image_key_free() - Cleanse and free. NULL is fine. */
void hf_image_key_free(struct hf_image_key *key);

/** hf_image_cipher_new() - A cipher without a key. Return: 0 or -ENOMEM. */
int hf_image_cipher_new(struct hf_image_cipher **ret);

/** hf_image_cipher_free() - Cleanse and free. NULL is fine. */
void hf_image_cipher_free(struct hf_image_cipher *c);

/** hf_image_cipher_forget() - Cleanse the key that it has. */
void hf_image_cipher_forget(struct hf_image_cipher *c);

/** hf_image_cipher_use() - Give it a key, unless it has that one. Return: 0 or -EIO. */
int hf_image_cipher_use(struct hf_image_cipher *c, const struct hf_image_key *key);

/**
 * hf_image_seal() - Encrypt a chunk in place.
 * @chunk:      its number in the image
 * @generation: never the same for two contents of one chunk
 *
 * Return: 0 or -EIO.
 */
int hf_image_seal(struct hf_image_cipher *c, uint32_t chunk, uint32_t generation, void *data,
	size_t size, uint8_t ret_tag[HF_IMAGE_CHECK_BYTES]);

/**
 * hf_image_unseal() - Decrypt a chunk.
 * @out: may be @in. Not to be trusted unless 0 is returned
 *
 * Return: 0; -EBADMSG when it is not what was encrypted; -EIO.
 */
int hf_image_unseal(struct hf_image_cipher *c, uint32_t chunk, uint32_t generation, const void *in,
	void *out, size_t size, const uint8_t tag[HF_IMAGE_CHECK_BYTES]);

/** hf_image_sign_begin() - Begin the tag over header, tables, index and commit record. 0 or -EIO.
 */
int hf_image_sign_begin(struct hf_image_cipher *c);

/** hf_image_sign_add() - Add bytes to it. Return: 0 or -EIO. */
int hf_image_sign_add(struct hf_image_cipher *c, const void *data, size_t size);

/** hf_image_sign_end() - The tag. Return: 0 or -EIO. */
int hf_image_sign_end(struct hf_image_cipher *c, uint8_t ret_tag[HF_IMAGE_CHECK_BYTES]);
