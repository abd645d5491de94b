/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What tests of images have in common: a folder, memfds, saving and loading in one line.
 */
#pragma once

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/fd.h"
#include "memfd-preserve/image.h"

#define KIB 1024ULL
#define MIB (1024ULL * KIB)
#define CHUNK (64 * KIB)

static char folder[256];
static struct hf_image_engine *engine;
static uint8_t kek[HF_IMAGE_KEY_BYTES] = {1, 2, 3};
static struct hf_image_keys keys;
static struct hf_error error;
static bool map_huge; /* load `huge` blocks by mapping them, whatever the host has */
static const uint8_t guest[HF_IMAGE_UUID_BYTES] = {0x11, 0x22};
static const uint8_t machine[HF_IMAGE_UUID_BYTES] = {0x33, 0x44};

static int rig_setup(void **state)
{
	const char *tmp = getenv("TMPDIR");
	snprintf(folder, sizeof(folder), "%s/hf-image-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(folder))
		return -1;
	keys = hf_image_kek(kek);
	if (hf_image_engine_new(&engine, &error) < 0) {
		fprintf(stderr, "%s: %s\n", error.message, error.remedy);
		return -1;
	}
	return 0;
}

static int rig_teardown(void **state)
{
	char command[300];

	hf_image_engine_free(engine);
	engine = NULL;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

/* A memfd, and a view of it. */
struct ram {
	int fd;
	uint64_t size;
	uint8_t *map;
};

static inline struct ram ram_new(uint64_t size)
{
	struct ram ram = {.fd = -EBADF, .size = size};

	assert_int_equal(hf_memfd_new("ram", size, &ram.fd), 0);
	ram.map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ram.fd, 0);
	assert_true(ram.map != MAP_FAILED);
	return ram;
}

static inline void ram_free(struct ram *ram)
{
	munmap(ram->map, ram->size);
	hf_close(&ram->fd);
}

/* Words that are different everywhere, and none of them zero. */
static inline void scribble(void *at, uint64_t bytes, uint64_t seed)
{
	uint64_t *p = at;

	for (uint64_t i = 0; i < bytes / 8; i++) {
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		p[i] = seed | 1;
	}
}

static inline struct hf_image_block block_of(const struct ram *ram, uint64_t token)
{
	struct hf_image_block b = {.token = token, .size = ram->size, .fd = ram->fd};

	snprintf(b.id, sizeof(b.id), "ram%llu", (unsigned long long)token);
	return b;
}

static inline struct hf_image_save_config save_config(
	const struct hf_image_block *blocks, size_t n, bool encrypted)
{
	struct hf_image_save_config config = {
		.folder = folder,
		.name = "image",
		.keys = encrypted ? &keys : NULL,
		.plaintext = !encrypted,
		.blocks = blocks,
		.n_blocks = n,
	};

	memcpy(config.guest, guest, sizeof(guest));
	memcpy(config.machine, machine, sizeof(machine));
	return config;
}

static inline struct hf_image_load_config load_config(bool encrypted)
{
	struct hf_image_load_config config = {
		.folder = folder,
		.name = "image",
		.guest = guest,
		.keys = encrypted ? &keys : NULL,
		.plaintext = !encrypted,
		.map_anyway = map_huge,
	};

	memcpy(config.machine, machine, sizeof(machine));
	return config;
}

/* A call that has to succeed; it gets &error for its error. */
#define must(call) \
	do { \
		if ((call) < 0) \
			fail_msg("%s:%d: %s", __FILE__, __LINE__, error.message); \
	} while (0)

static inline struct hf_image_save *save_begin(const struct hf_image_save_config *config)
{
	struct hf_image_save *s = NULL;

	must(hf_image_save_begin(engine, config, &s, &error));
	return s;
}

/* Save in one pass. */
static inline void save_all(const struct hf_image_save_config *config)
{
	struct hf_image_save *s = save_begin(config);

	must(hf_image_save_pass(s, true, NULL, &error));
	must(hf_image_save_commit(s, &error));
	hf_image_save_close(s);
}

static inline void check_same(const struct ram *ram, const struct hf_image_block *b)
{
	uint8_t *got = mmap(NULL, b->size, PROT_READ, MAP_SHARED, b->fd, 0);

	assert_true(got != MAP_FAILED);
	assert_int_equal(b->size, ram->size);
	if (memcmp(got, ram->map, b->size) != 0)
		for (uint64_t i = 0; i < b->size; i++)
			if (got[i] != ram->map[i])
				fail_msg("byte %llu of token %llu is 0x%02x instead of 0x%02x",
					(unsigned long long)i, (unsigned long long)b->token, got[i],
					ram->map[i]);
	munmap(got, b->size);
}

static inline void load_and_check(
	bool encrypted, const struct ram *rams, size_t n, struct hf_image_stats *ret_stats)
{
	struct hf_image_load_config config = load_config(encrypted);
	struct hf_image_loaded l = {0};

	must(hf_image_load(engine, &config, NULL, &l, &error));
	assert_int_equal(l.n_blocks, n);
	for (size_t i = 0; i < n; i++)
		check_same(&rams[i], &l.blocks[i]);
	if (ret_stats)
		*ret_stats = l.stats;
	hf_image_loaded_release(&l);
}

static inline bool image_exists(void)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/image", folder);
	return access(path, F_OK) == 0;
}

static inline void image_remove(void)
{
	must(hf_image_remove(folder, "image", &error));
}
