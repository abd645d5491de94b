/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Which files are taken for read-ahead, and that they are in the page cache afterwards.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/fd.h"
#include "memfd-preserve/readahead.h"

static char dir[] = "/var/tmp/hf-test-readahead-XXXXXX";

static int setup(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command) == 0 ? 0 : -1;
}

static char *path_of(const char *name)
{
	static char path[4][256];
	static unsigned int next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static void make_file(const char *name, size_t size)
{
	char *data = malloc(size + 1);

	memset(data, 'x', size);
	assert_int_equal(hf_file_write_atomic(path_of(name), data, size, 0600), 0);
	free(data);
}

static bool listed(const struct hf_readahead_list *list, const char *path)
{
	struct stat st, other;

	assert_int_equal(stat(path, &st), 0);
	for (size_t i = 0; i < list->n_files; i++)
		if (stat(list->files[i].path, &other) == 0 && other.st_ino == st.st_ino &&
			other.st_dev == st.st_dev)
			return true;
	return false;
}

static double cached_share(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	cleanup_free unsigned char *pages = NULL;
	size_t n, in = 0;
	struct stat st;
	void *map;

	assert_int_equal(fstat(fd, &st), 0);
	n = ((size_t)st.st_size + 4095) / 4096;
	pages = malloc(n);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(mincore(map, (size_t)st.st_size, pages), 0);
	for (size_t i = 0; i < n; i++)
		in += pages[i] & 1;
	munmap(map, (size_t)st.st_size);
	close(fd);
	return (double)in / (double)n;
}

static void evict(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_int_equal(fsync(fd), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	close(fd);
}

static void test_collect(void **state)
{
	struct hf_readahead_list list = {.n_files = 0};
	cleanup_free char *extra_path = strdup(path_of("extra"));
	const char *extra[] = {extra_path, "/nowhere/rom.bin", "relative", "/dev/null", NULL};
	int ro, rw, ro_of_rw, gone, large, memfd = -1, empty;
	size_t n;

	make_file("rom", 5000);
	make_file("disk", 5000);
	make_file("gone", 5000);
	make_file("extra", 5000);
	make_file("empty", 0);
	make_file("large", 10);
	assert_int_equal(truncate(path_of("large"), (off_t)HF_READAHEAD_MAX_FILE_BYTES + 1), 0);
	ro = open(path_of("rom"), O_RDONLY | O_CLOEXEC);
	rw = open(path_of("disk"), O_RDWR | O_CLOEXEC);
	ro_of_rw = open(path_of("disk"), O_RDONLY | O_CLOEXEC);
	gone = open(path_of("gone"), O_RDONLY | O_CLOEXEC);
	large = open(path_of("large"), O_RDONLY | O_CLOEXEC);
	empty = open(path_of("empty"), O_RDONLY | O_CLOEXEC);
	unlink(path_of("gone"));
	assert_int_equal(hf_memfd_new("ram", 4096, &memfd), 0);

	assert_int_equal(hf_readahead_collect(getpid(), extra, &list), 0);
	assert_true(listed(&list, "/proc/self/exe"));
	assert_true(listed(&list, path_of("rom")));
	assert_true(listed(&list, path_of("extra")));
	assert_false(listed(&list, path_of("disk")));
	assert_false(listed(&list, path_of("large")));
	assert_false(listed(&list, path_of("empty")));
	for (size_t i = 0; i < list.n_files; i++) {
		assert_int_equal(list.files[i].path[0], '/');
		assert_null(strstr(list.files[i].path, "(deleted)"));
		assert_null(strstr(list.files[i].path, "memfd:"));
	}
	/* The same again adds nothing. */
	n = list.n_files;
	assert_int_equal(hf_readahead_collect(getpid(), extra, &list), 0);
	assert_int_equal(list.n_files, n);
	assert_true(list.bytes > 10000);
	hf_readahead_clear(&list);
	assert_int_equal(list.n_files, 0);
	assert_int_equal(hf_readahead_collect(0x3ffffff0, NULL, &list), -ESRCH);
	close(ro);
	close(rw);
	close(ro_of_rw);
	close(gone);
	close(large);
	close(empty);
	close(memfd);
}

static void add_files(struct hf_readahead_list *list)
{
	for (int i = 0; i < 200; i++) {
		char name[32];

		snprintf(name, sizeof(name), "file%d", i);
		make_file(name, i == 0 ? 9000000 : (size_t)i * 1000);
		if (i == 0)
			evict(path_of(name));
		assert_int_equal(hf_readahead_add(list, path_of(name), 0), 0);
	}
	assert_int_equal(hf_readahead_add(list, path_of("none"), 7), 0);
	assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
	assert_int_equal(hf_readahead_add(list, path_of("fifo"), 7), 0);
	assert_int_equal(hf_readahead_add(list, dir, 7), 0);
}

static void test_run(void **state)
{
	struct hf_readahead_list list = {.n_files = 0};
	struct hf_readahead_result result;
	struct hf_inode inode;
	bool cold;

	add_files(&list);
	/* Some file systems (tmpfs) have nothing but the cache. */
	cold = cached_share(path_of("file0")) < 0.5;
	assert_int_equal(hf_readahead_run(&list, NULL, &result), 0);
	print_message("%zu files, %llu bytes in %llu us%s\n", result.n_files,
		(unsigned long long)result.bytes, (unsigned long long)result.ns / 1000,
		cold ? "" : " (the cache could not be emptied)");
	assert_int_equal(result.n_files, 200);
	assert_int_equal(result.n_skipped, 3);
	assert_int_equal(result.bytes, 9000000 + 1000 * 199 * 200 / 2);
	assert_true(result.ns > 0);
	for (int i = 0; i < 200 && cached_share(path_of("file0")) < 1; i++)
		usleep(10000); /* earlier ranges than the last may still be under way */
	assert_true(cached_share(path_of("file0")) >= 1);
	/* No descriptor is left behind. */
	for (int fd = 3; fd < 1024; fd++) {
		char link[64], target[256] = "";

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		if (hf_fd_inode(fd, &inode, NULL) == 0 && readlink(link, target, 255) > 0)
			assert_null(strstr(target, dir));
	}
	hf_readahead_clear(&list);
}

static void test_stopped(void **state)
{
	struct hf_readahead_list list = {.n_files = 0};
	struct hf_readahead_result result;
	atomic_int stop = 1;

	make_file("rom", 5000);
	assert_int_equal(hf_readahead_add(&list, path_of("rom"), 5000), 0);
	assert_int_equal(hf_readahead_run(&list, &stop, &result), -ECANCELED);
	assert_int_equal(result.bytes, 0);
	hf_readahead_clear(&list);
	/* Nothing to do. */
	assert_int_equal(hf_readahead_run(&list, NULL, &result), 0);
	assert_int_equal(result.n_files, 0);
}

static void on_done(void *data, const struct hf_readahead_result *result)
{
	*(struct hf_readahead_result *)data = *result;
}

static void test_worker(void **state)
{
	struct hf_readahead_list list = {.n_files = 0};
	struct hf_readahead_result result = {.err = 1};
	struct hf_readahead *ra = NULL;
	sd_event *event = NULL;

	assert_int_equal(sd_event_new(&event), 0);
	make_file("rom", 5000);
	assert_int_equal(hf_readahead_add(&list, path_of("rom"), 5000), 0);
	assert_int_equal(hf_readahead_start(event, &list, on_done, &result, &ra), 0);
	assert_int_equal(list.n_files, 0); /* moved */
	while (result.err == 1)
		assert_true(sd_event_run(event, 5000000) > 0);
	assert_int_equal(result.err, 0);
	assert_int_equal(result.bytes, 5000);
	assert_int_equal(hf_readahead_add(&list, path_of("rom"), 5000), 0);
	result.err = 1;
	assert_int_equal(hf_readahead_start(event, &list, on_done, &result, &ra), 0);
	hf_readahead_stop(ra);
	while (result.err == 1)
		assert_true(sd_event_run(event, 5000000) > 0);
	assert_true(result.err == 0 || result.err == -ECANCELED);
	hf_readahead_stop(NULL);
	sd_event_unref(event);
}

static void test_full(void **state)
{
	struct hf_readahead_list list = {.n_files = 0};

	for (int i = 0; i < HF_READAHEAD_MAX_FILES; i++)
		assert_int_equal(hf_readahead_add(&list, "/x", 1), 0);
	assert_int_equal(hf_readahead_add(&list, "/x", 1), -EFBIG);
	assert_int_equal(hf_readahead_collect(getpid(), NULL, &list), 0);
	hf_readahead_clear(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_collect),
		cmocka_unit_test(test_run),
		cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_worker),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
