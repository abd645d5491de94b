/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Which files of a process count as a guest's disks, and what counts as a change of one.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/cleanup.h"
#include "common/fd.h"
#include "vmm-glue/guest-disks.h"

#define SIZE 8192

struct world {
	char folder[256], disk[300];
	int fd;
	struct hf_manifest *manifest;
	struct hf_manifest_guest *guest;
};

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	char cwd[200];

	/* Not in TMPDIR, which may be in memory. */
	assert_non_null(w);
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	snprintf(w->folder, sizeof(w->folder), "%s/build/test-guest-disks-XXXXXX", cwd);
	assert_non_null(mkdtemp(w->folder));
	snprintf(w->disk, sizeof(w->disk), "%s/disk.img", w->folder);
	w->fd = open(w->disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(w->fd >= 0);
	assert_int_equal(ftruncate(w->fd, SIZE), 0);
	assert_int_equal(hf_manifest_new(&w->manifest), 0);
	assert_int_equal(hf_manifest_add_guest(w->manifest, &w->guest), 0);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	hf_close(&w->fd);
	unlink(w->disk);
	assert_int_equal(rmdir(w->folder), 0);
	hf_manifest_free(w->manifest);
	free(w);
	return 0;
}

static bool has(const struct hf_manifest_guest *g, const char *path)
{
	for (size_t i = 0; i < g->n_disks; i++)
		if (strcmp(g->disks[i].path, path) == 0)
			return true;
	return false;
}

static void test_which(void **state)
{
	struct world *w = *state;
	char log[300], gone[300];
	int again = open(w->disk, O_RDWR | O_CLOEXEC), logfd, gonefd, ram;

	snprintf(log, sizeof(log), "%s/console.log", w->folder);
	snprintf(gone, sizeof(gone), "%s/gone", w->folder);
	logfd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	gonefd = open(gone, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(hf_memfd_new("ram", 4096, &ram), 0);
	assert_true(again >= 0 && logfd >= 0 && gonefd >= 0);
	assert_int_equal(unlink(gone), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(hf_guest_disks_collect(w->guest, getpid()), 0);
		assert_int_equal(w->guest->n_disks, 1);
		assert_true(has(w->guest, w->disk));
	}
	hf_close(&again);
	hf_close(&logfd);
	hf_close(&gonefd);
	hf_close(&ram);
	assert_int_equal(unlink(log), 0);
	hf_close(&w->fd);
	assert_int_equal(hf_guest_disks_collect(w->guest, getpid()), 0);
	assert_int_equal(w->guest->n_disks, 0);
	/* Only read, it is nobody's to spoil. */
	w->fd = open(w->disk, O_RDONLY | O_CLOEXEC);
	assert_int_equal(hf_guest_disks_collect(w->guest, getpid()), 0);
	assert_int_equal(w->guest->n_disks, 0);
}

static void test_shared(void **state)
{
	static const char *const shared[] = {
		"qemu", "-device", "virtio-blk-pci,drive=d,share-rw=on"};
	static const char *const own[] = {"qemu", "-device", "virtio-blk-pci,drive=d,share-rw=off"};
	struct world *w = *state;
	struct hf_manifest_guest *g = w->guest;

	assert_int_equal(hf_manifest_set_strings(&g->argv, &g->n_argv, shared, 3), 0);
	assert_int_equal(hf_guest_disks_collect(g, getpid()), 0);
	assert_int_equal(g->n_disks, 0);
	assert_int_equal(hf_manifest_set_strings(&g->argv, &g->n_argv, own, 3), 0);
	assert_int_equal(hf_guest_disks_collect(g, getpid()), 0);
	assert_int_equal(g->n_disks, 1);
}

static void set_mtime(const struct world *w, int64_t from_now_ns, uint64_t base_ns)
{
	uint64_t ns = base_ns + (uint64_t)from_now_ns;
	struct timespec times[2] = {
		{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)(ns / HF_NSEC_PER_SEC),
						 .tv_nsec = (long)(ns % HF_NSEC_PER_SEC)}};

	assert_int_equal(utimensat(AT_FDCWD, w->disk, times, 0), 0);
}

static void test_change(void **state)
{
	struct world *w = *state;
	const uint64_t then = 1790000000ull * HF_NSEC_PER_SEC + 123456789;
	static const struct {
		int64_t ns;
		int result;
	} moved[] = {{0, 0}, {-123456789, 0}, {-1123456789, 0}, {-1999999999, 0}, {1, -ESTALE},
		{1000000000, -ESTALE}, {-2000000000, -ESTALE}};
	struct hf_error e = {0};

	set_mtime(w, 0, then);
	assert_int_equal(hf_guest_disks_collect(w->guest, getpid()), 0);
	/* One that was never saved has nothing to compare. */
	assert_int_equal(hf_guest_disks_check(w->guest, &e), 0);
	hf_guest_disks_stamp(w->guest);
	assert_true(w->guest->disks[0].mtime_ns == then);
	assert_int_equal(w->guest->disks[0].size, SIZE);
	for (size_t i = 0; i < HF_ARRAY_SIZE(moved); i++) {
		set_mtime(w, moved[i].ns, then);
		if (hf_guest_disks_check(w->guest, &e) != moved[i].result)
			fail_msg("%lld ns", (long long)moved[i].ns);
	}
	assert_non_null(strstr(e.message, w->disk));
	assert_non_null(strstr(e.remedy, "--ignore-disks"));
	set_mtime(w, 0, then);
	assert_int_equal(hf_guest_disks_check(w->guest, &e), 0);
	assert_int_equal(ftruncate(w->fd, SIZE + 512), 0);
	set_mtime(w, 0, then);
	assert_int_equal(hf_guest_disks_check(w->guest, &e), -ESTALE);
	/* As a guest does it. */
	assert_int_equal(ftruncate(w->fd, SIZE), 0);
	hf_guest_disks_stamp(w->guest);
	assert_int_equal(hf_guest_disks_check(w->guest, &e), 0);
	usleep(20000);
	assert_int_equal(pwrite(w->fd, "x", 1, 0), 1);
	assert_int_equal(hf_guest_disks_check(w->guest, &e), -ESTALE);
	assert_int_equal(unlink(w->disk), 0);
	assert_int_equal(hf_guest_disks_check(w->guest, &e), 0);
	/* Its absence when it was saved is no state to compare with. */
	hf_guest_disks_stamp(w->guest);
	assert_int_equal(w->guest->disks[0].mtime_ns, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_which, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_shared, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_change, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
