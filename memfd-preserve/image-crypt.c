/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/image-crypt.h"

#include <endian.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "memfd-preserve/openssl.h"

#define NONCE_BYTES 12
/* The first number of a nonce. */
#define OF_CHUNK 0
#define OF_SIGNATURE 1

struct hf_image_cipher {
	EVP_CIPHER_CTX *ctx; /* made with its first key: plain images need no libcrypto */
	uint64_t serial;     /* of the key it has; 0: none */
};

int hf_image_random(void *data, size_t size)
{
	uint8_t *p = data;

	while (size > 0) {
		ssize_t n = getrandom(p, size, 0);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			p += n;
			size -= (size_t)n;
		}
	}
	return 0;
}

int hf_image_key_new(struct hf_image_key **ret, struct hf_error *e)
{
	static atomic_uint_fast64_t serials;
	struct hf_image_key *key = mmap(
		NULL, sizeof(*key), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r;

	if (key == MAP_FAILED)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "out of memory");
	if (mlock(key, sizeof(*key)) < 0) {
		r = -errno;
		munmap(key, sizeof(*key));
		return hf_error_set(e, r, HF_ERR_NOT_READY, "raise LimitMEMLOCK= of the unit",
			"the memory for an image's key can't be locked: %s", strerror(-r));
	}
	madvise(key, sizeof(*key), MADV_DONTDUMP);
	madvise(key, sizeof(*key), MADV_WIPEONFORK);
	key->serial = ++serials;
	*ret = key;
	return 0;
}

void hf_image_key_free(struct hf_image_key *key)
{
	if (!key)
		return;
	explicit_bzero(key, sizeof(*key));
	munmap(key, sizeof(*key));
}

int hf_image_cipher_new(struct hf_image_cipher **ret)
{
	struct hf_image_cipher *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	*ret = c;
	return 0;
}

void hf_image_cipher_free(struct hf_image_cipher *c)
{
	if (!c)
		return;
	if (c->ctx)
		hf_openssl.EVP_CIPHER_CTX_free(c->ctx);
	free(c);
}

void hf_image_cipher_forget(struct hf_image_cipher *c)
{
	if (c->serial)
		hf_openssl.EVP_CIPHER_CTX_reset(c->ctx);
	c->serial = 0;
}

int hf_image_cipher_use(struct hf_image_cipher *c, const struct hf_image_key *key)
{
	if (c->serial == key->serial)
		return 0;
	hf_image_cipher_forget(c);
	if (!c->ctx && hf_openssl_load() == 0)
		c->ctx = hf_openssl.EVP_CIPHER_CTX_new();
	if (!c->ctx)
		return -EIO;
	if (hf_openssl.EVP_EncryptInit_ex(
		    c->ctx, hf_openssl.EVP_aes_256_gcm(), NULL, key->bytes, NULL) != 1)
		return -EIO;
	c->serial = key->serial;
	return 0;
}

/* Begin a message; the key stays as it was set. */
static bool start(
	struct hf_image_cipher *c, uint32_t of, uint32_t number, uint32_t generation, int encrypt)
{
	uint32_t nonce[] = {htole32(of), htole32(number), htole32(generation)};

	_Static_assert(sizeof(nonce) == NONCE_BYTES, "what GCM takes as it is");
	return hf_openssl.EVP_CipherInit_ex(
		       c->ctx, NULL, NULL, NULL, (const uint8_t *)nonce, encrypt) == 1;
}

static bool get_tag(struct hf_image_cipher *c, uint8_t *tag)
{
	uint8_t nothing[16];
	int n;

	return hf_openssl.EVP_EncryptFinal_ex(c->ctx, nothing, &n) == 1 &&
	       hf_openssl.EVP_CIPHER_CTX_ctrl(
		       c->ctx, EVP_CTRL_AEAD_GET_TAG, HF_IMAGE_CHECK_BYTES, tag) == 1;
}

int hf_image_seal(struct hf_image_cipher *c, uint32_t chunk, uint32_t generation, void *data,
	size_t size, uint8_t ret_tag[HF_IMAGE_CHECK_BYTES])
{
	int n;

	if (!start(c, OF_CHUNK, chunk, generation, 1) ||
		hf_openssl.EVP_EncryptUpdate(c->ctx, data, &n, data, (int)size) != 1 ||
		!get_tag(c, ret_tag))
		return -EIO;
	return 0;
}

int hf_image_unseal(struct hf_image_cipher *c, uint32_t chunk, uint32_t generation, const void *in,
	void *out, size_t size, const uint8_t tag[HF_IMAGE_CHECK_BYTES])
{
	uint8_t expected[HF_IMAGE_CHECK_BYTES], nothing[16];
	int n;

	memcpy(expected, tag, sizeof(expected));
	if (!start(c, OF_CHUNK, chunk, generation, 0) ||
		hf_openssl.EVP_DecryptUpdate(c->ctx, out, &n, in, (int)size) != 1 ||
		hf_openssl.EVP_CIPHER_CTX_ctrl(
			c->ctx, EVP_CTRL_AEAD_SET_TAG, sizeof(expected), expected) != 1)
		return -EIO;
	return hf_openssl.EVP_DecryptFinal_ex(c->ctx, nothing, &n) == 1 ? 0 : -EBADMSG;
}

int hf_image_sign_begin(struct hf_image_cipher *c)
{
	return start(c, OF_SIGNATURE, 0, 0, 1) ? 0 : -EIO;
}

int hf_image_sign_add(struct hf_image_cipher *c, const void *data, size_t size)
{
	int n;

	return hf_openssl.EVP_EncryptUpdate(c->ctx, NULL, &n, data, (int)size) == 1 ? 0 : -EIO;
}

int hf_image_sign_end(struct hf_image_cipher *c, uint8_t ret_tag[HF_IMAGE_CHECK_BYTES])
{
	return get_tag(c, ret_tag) ? 0 : -EIO;
}
