/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/openssl.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

struct hf_openssl hf_openssl;

static bool loaded;

static void load(void)
{
	struct hf_openssl found;
	void *library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);

	if (!library)
		return;
#define FIND(name) \
	found.name = (__typeof__(found.name))dlsym(library, #name); \
	if (!found.name) \
		return;
	HF_OPENSSL_FUNCTIONS(FIND)
#undef FIND
	hf_openssl = found;
	loaded = true;
}

int hf_openssl_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return loaded ? 0 : -ENOPKG;
}
