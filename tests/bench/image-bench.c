/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: How long it takes to save memory to an image and to load it again. For tests/bench/image.py.
 *
 *   image-bench FOLDER RAM-FILE plain|encrypted
 *
 * RAM-FILE is on a tmpfs and stands for a guest's memory. One JSON object on stdout, times in
 * seconds. Between the first pass and the final one a hundredth of the memory is changed.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "common/cleanup.h"
#include "memfd-preserve/image.h"

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int fail(const char *what, const struct hf_error *e)
{
	fprintf(stderr, "image-bench: %s: %s\n", what, e->message);
	return 1;
}

/* One page in a hundred, in the pieces in which guests write: some at a time. */
static int dirty(int fd, uint64_t size)
{
	uint8_t *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return -errno;
	for (uint64_t at = 0; at + 4096 <= size; at += 6400 * 1024ULL)
		for (uint64_t page = 0; page < 16 && at + page * 4096 < size; page++)
			if (map[at + page * 4096])
				map[at + page * 4096 + 1]++;
	munmap(map, size);
	return 0;
}

/* Memory that the machine has in its hands, for what is loaded next; see image.py. */
static int warm_up(uint64_t size)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r;

	if (map == MAP_FAILED)
		return -errno;
	madvise(map, size, MADV_HUGEPAGE);
	r = madvise(map, size, MADV_POPULATE_WRITE);
	munmap(map, size);
	return r;
}

static int save(struct hf_image_engine *engine, struct hf_image_save_config *config, int fd,
	struct hf_image_stats *stats, struct hf_error *e)
{
	struct hf_image_save *s;
	double t[5], cpu = cpu_s();
	int r;

	t[0] = now_s();
	r = hf_image_save_begin(engine, config, &s, e);
	if (r < 0)
		return r;
	r = hf_image_save_pass(s, false, NULL, e);
	t[1] = now_s();
	cpu = cpu_s() - cpu;
	if (r == 0)
		r = dirty(fd, config->blocks[0].size);
	t[2] = now_s();
	if (r == 0)
		r = hf_image_save_pass(s, true, NULL, e);
	t[3] = now_s();
	if (r == 0)
		r = hf_image_save_commit(s, e);
	t[4] = now_s();
	if (r == 0)
		printf("\"save\": %.6f, \"save_cpu\": %.6f, \"final\": %.6f, \"commit\": %.6f, ",
			t[1] - t[0], cpu, t[3] - t[2], t[4] - t[3]);
	hf_image_save_stats(s, stats);
	hf_image_save_close(s);
	return r;
}

int main(int argc, char **argv)
{
	static const uint8_t kek[HF_IMAGE_KEY_BYTES] = {1};
	struct hf_image_keys keys = hf_image_kek(kek);
	bool encrypted = argc == 4 && strcmp(argv[3], "encrypted") == 0;
	struct hf_image_block block = {.token = 1, .huge = true, .id = "ram"};
	struct hf_image_save_config config = {.name = "bench-image",
		.keys = encrypted ? &keys : NULL,
		.plaintext = !encrypted,
		.blocks = &block,
		.n_blocks = 1};
	struct hf_image_load_config load = {
		.name = "bench-image", .keys = config.keys, .plaintext = config.plaintext};
	struct hf_image_engine *engine;
	struct hf_image_loaded loaded;
	struct hf_image_stats stats;
	struct hf_error e = {0};
	struct stat st;
	double begin, cpu;

	if (argc != 4) {
		fprintf(stderr, "usage: image-bench FOLDER RAM-FILE plain|encrypted\n");
		return 2;
	}
	config.folder = load.folder = argv[1];
	block.fd = open(argv[2], O_RDWR | O_CLOEXEC);
	if (block.fd < 0 || fstat(block.fd, &st) < 0) {
		perror(argv[2]);
		return 1;
	}
	block.size = (uint64_t)st.st_size;
	if (hf_image_engine_new(&engine, &e) < 0)
		return fail("starting", &e);
	hf_image_remove(argv[1], "bench-image", NULL);
	printf("{");
	if (save(engine, &config, block.fd, &stats, &e) < 0)
		return fail("saving", &e);
	if (warm_up(block.size) < 0) {
		perror("memory for the load");
		return 1;
	}
	begin = now_s();
	cpu = cpu_s();
	if (hf_image_load(engine, &load, NULL, &loaded, &e) < 0)
		return fail("loading", &e);
	printf("\"load\": %.6f, \"load_cpu\": %.6f, \"file_bytes\": %llu, \"data_bytes\": %llu, "
	       "\"changed_bytes\": %llu, \"direct\": %s}\n",
		now_s() - begin, cpu_s() - cpu, (unsigned long long)stats.file_bytes,
		(unsigned long long)(stats.data_chunks * stats.chunk_bytes),
		(unsigned long long)(stats.changed_chunks * stats.chunk_bytes),
		stats.direct ? "true" : "false");
	hf_image_loaded_release(&loaded);
	hf_image_remove(argv[1], "bench-image", NULL);
	hf_image_engine_free(engine);
	return 0;
}
