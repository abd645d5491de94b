/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Filling holes: nothing that was there changes, and what can be filled is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "memfd-preserve/fill.h"

#define MIB (1ULL << 20)

static void test_fill(void **state)
{
	const uint64_t size = 9 * MIB; /* the last window is not whole */
	char page[4096];
	struct stat st;
	int fd = -EBADF;

	memset(page, 0x5a, sizeof(page));
	assert_int_equal(hf_memfd_new("t", size, &fd), 0);
	assert_int_equal(pwrite(fd, page, sizeof(page), 3 * MIB), sizeof(page));
	assert_int_equal(hf_memfd_fill(fd, size), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, size);
	assert_true((uint64_t)st.st_blocks * 512 >= 8 * MIB);
	/* No hole before the last, partial window. */
	assert_true(lseek(fd, 0, SEEK_HOLE) >= (off_t)(8 * MIB));
	for (uint64_t at = 0; at < size; at += sizeof(page)) {
		char got[4096];

		assert_int_equal(pread(fd, got, sizeof(got), (off_t)at), sizeof(got));
		memset(page, at == 3 * MIB ? 0x5a : 0, sizeof(page));
		assert_memory_equal(got, page, sizeof(page));
	}
	/* Nothing left to do. */
	assert_int_equal(hf_memfd_fill(fd, size), 0);
	close(fd);
}

static void test_errors(void **state)
{
	int fd = -EBADF;

	assert_int_equal(hf_memfd_fill(-EBADF, MIB), -EBADF);
	assert_int_equal(hf_memfd_new("t", 4096, &fd), 0);
	assert_int_equal(hf_memfd_fill(fd, 4096), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
