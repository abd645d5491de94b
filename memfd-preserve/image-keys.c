/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Keys of images wrapped by a key: nonce, encrypted key, tag.
 *
 * Nonces are random, of 96 bits, so that one key may wrap 2^32 others. The image's uuid is
 * authenticated with it: a wrapped key fits its own image only.
 */
#include <string.h>

#include "memfd-preserve/image.h"
#include "memfd-preserve/openssl.h"

#define NONCE_BYTES 12
#define BLOB_BYTES (NONCE_BYTES + HF_IMAGE_KEY_BYTES + HF_IMAGE_CHECK_BYTES)

static int no_openssl(struct hf_error *e)
{
	return hf_error_set(e, -ENOPKG, HF_ERR_NOT_READY, "install it (Debian: libssl3)",
		"images can't be encrypted without OpenSSL's libcrypto.so.3");
}

static int wrap(void *data, const uint8_t image[HF_IMAGE_UUID_BYTES],
	const uint8_t key[HF_IMAGE_KEY_BYTES], void *blob, size_t *size, struct hf_error *e)
{
	EVP_CIPHER_CTX *ctx;
	uint8_t *out = blob;
	bool ok;
	int n;

	if (hf_openssl_load() < 0)
		return no_openssl(e);
	ctx = hf_openssl.EVP_CIPHER_CTX_new();
	ok = ctx && *size >= BLOB_BYTES && hf_image_random(out, NONCE_BYTES) == 0;

	ok = ok &&
	     hf_openssl.EVP_EncryptInit_ex(ctx, hf_openssl.EVP_aes_256_gcm(), NULL, data, out) ==
		     1 &&
	     hf_openssl.EVP_EncryptUpdate(ctx, NULL, &n, image, HF_IMAGE_UUID_BYTES) == 1 &&
	     hf_openssl.EVP_EncryptUpdate(ctx, out + NONCE_BYTES, &n, key, HF_IMAGE_KEY_BYTES) ==
		     1 &&
	     hf_openssl.EVP_EncryptFinal_ex(ctx, out + NONCE_BYTES + HF_IMAGE_KEY_BYTES, &n) == 1 &&
	     hf_openssl.EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, HF_IMAGE_CHECK_BYTES,
		     out + NONCE_BYTES + HF_IMAGE_KEY_BYTES) == 1;
	hf_openssl.EVP_CIPHER_CTX_free(ctx);
	if (!ok)
		return hf_error_set(
			e, -EIO, HF_ERR_FAILED, NULL, "the image's key could not be wrapped");
	*size = BLOB_BYTES;
	return 0;
}

static int unwrap(void *data, const uint8_t image[HF_IMAGE_UUID_BYTES], const void *blob,
	size_t size, uint8_t key[HF_IMAGE_KEY_BYTES], struct hf_error *e)
{
	EVP_CIPHER_CTX *ctx;
	uint8_t copy[BLOB_BYTES], nothing[16];
	bool ok;
	int n;

	if (hf_openssl_load() < 0)
		return no_openssl(e);
	ctx = hf_openssl.EVP_CIPHER_CTX_new();
	ok = ctx && size == sizeof(copy);

	if (ok)
		memcpy(copy, blob, sizeof(copy));
	ok = ok &&
	     hf_openssl.EVP_DecryptInit_ex(ctx, hf_openssl.EVP_aes_256_gcm(), NULL, data, copy) ==
		     1 &&
	     hf_openssl.EVP_DecryptUpdate(ctx, NULL, &n, image, HF_IMAGE_UUID_BYTES) == 1 &&
	     hf_openssl.EVP_DecryptUpdate(ctx, key, &n, copy + NONCE_BYTES, HF_IMAGE_KEY_BYTES) ==
		     1 &&
	     hf_openssl.EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, HF_IMAGE_CHECK_BYTES,
		     copy + NONCE_BYTES + HF_IMAGE_KEY_BYTES) == 1 &&
	     hf_openssl.EVP_DecryptFinal_ex(ctx, nothing, &n) == 1;
	hf_openssl.EVP_CIPHER_CTX_free(ctx);
	if (!ok)
		return hf_error_set(e, -ENOKEY, HF_ERR_NOT_READY,
			"give the key that the image was saved with",
			"the image's key can't be unwrapped: another key wrapped it, or it is "
			"damaged");
	return 0;
}

struct hf_image_keys hf_image_kek(const uint8_t kek[HF_IMAGE_KEY_BYTES])
{
	return (struct hf_image_keys){
		.kind = "kek", .wrap = wrap, .unwrap = unwrap, .data = (void *)kek};
}
