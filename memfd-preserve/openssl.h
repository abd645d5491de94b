/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: OpenSSL's libcrypto, loaded when an image is encrypted first.
 *
 * Linked, it would be loaded by every start of the agent: megabytes to read and relocate in each
 * blackout, for updates that encrypt nothing. Its ABI is that of version 3 (libcrypto.so.3).
 */
#pragma once

#include <openssl/evp.h>

#define HF_OPENSSL_FUNCTIONS(F) \
	F(EVP_CIPHER_CTX_new) \
	F(EVP_CIPHER_CTX_free) \
	F(EVP_CIPHER_CTX_reset) \
	F(EVP_CIPHER_CTX_ctrl) \
	F(EVP_CipherInit_ex) \
	F(EVP_EncryptInit_ex) \
	F(EVP_EncryptUpdate) \
	F(EVP_EncryptFinal_ex) \
	F(EVP_DecryptInit_ex) \
	F(EVP_DecryptUpdate) \
	F(EVP_DecryptFinal_ex) \
	F(EVP_aes_256_gcm)

/** struct hf_openssl - its functions under their own names; all NULL before hf_openssl_load(). */
struct hf_openssl {
#define HF_OPENSSL_MEMBER(name) __typeof__(&name) name;
	HF_OPENSSL_FUNCTIONS(HF_OPENSSL_MEMBER)
#undef HF_OPENSSL_MEMBER
};

extern struct hf_openssl hf_openssl;

/** hf_openssl_load() - Load it, once. Any thread. Return: 0; -ENOPKG when it isn't installed. */
int hf_openssl_load(void);
