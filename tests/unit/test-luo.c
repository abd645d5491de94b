/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What holdfast says on hosts without live update, which most test machines are.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/fd.h"
#include "memfd-preserve/luo.h"

static char dir[] = "/tmp/hf-test-luo-XXXXXX";

static int setup(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/misc", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/cmdline", dir);
	unlink(path);
	return rmdir(dir);
}

static void write_proc(const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(hf_file_write_atomic(path, text, strlen(text), 0600), 0);
}

static void expect_remedy(const char *cmdline, const char *remedy)
{
	struct hf_error e = {0};

	write_proc("cmdline", cmdline);
	assert_int_equal(hf_luo_check("/nowhere/liveupdate", dir, &e), -ENODEV);
	assert_string_equal(e.name, HF_ERR_NOT_READY);
	assert_non_null(strstr(e.message, "live update"));
	if (!strstr(e.remedy, remedy))
		fail_msg("`%s` lacks `%s`", e.remedy, remedy);
}

static void test_absent(void **state)
{
	write_proc("misc", "227 mcelog\n144 nvram\n");
	expect_remedy("quiet root=/dev/vda\n", "kho=on liveupdate=on");
	expect_remedy("quiet kho=on\n", "add liveupdate=on");
	expect_remedy("kho=on liveupdate=off", "add liveupdate=on");
	expect_remedy("liveupdate=1 kho=off", "add kho=on");
	expect_remedy("kho=on liveupdate=on\n", "CONFIG_LIVEUPDATE");
	expect_remedy("kho=on liveupdate=on liveupdate=off\n", "add liveupdate=on");
	expect_remedy("xkho=on liveupdates=on\n", "kho=on liveupdate=on");
}

static void test_node_missing(void **state)
{
	struct hf_error e = {0};

	write_proc("misc", "227 mcelog\n125 liveupdate\n");
	assert_int_equal(hf_luo_check("/nowhere/liveupdate", dir, &e), -ENOENT);
	assert_non_null(strstr(e.remedy, "devtmpfs"));
}

static void test_calls_without_device(void **state)
{
	int fd = -1;
	char name[HF_LUO_NAME_BYTES];

	assert_int_equal(hf_luo_session_create("/nowhere/x", "a", 0, &fd), -ENOENT);
	assert_int_equal(hf_luo_session_retrieve("/nowhere/x", "a", 0, &fd), -ENOENT);
	assert_int_equal(hf_luo_session_create("/nowhere/x", "", 0, &fd), -EINVAL);
	assert_int_equal(hf_luo_session_retrieve("/nowhere/x", "", 0, &fd), -EINVAL);
	/* Files that know none of the ioctls. */
	assert_int_equal(hf_luo_session_create("/dev/null", "a", 0, &fd), -ENOTTY);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_int_equal(hf_luo_preserve(fd, 1, 0), -ENOTTY);
	assert_int_equal(hf_luo_retrieve(fd, 1, &fd), -ENOTTY);
	assert_int_equal(hf_luo_finish(fd), -ENOTTY);
	assert_int_equal(hf_luo_get_name(fd, name), -ENOTTY);
	close(fd);
}

/* Whatever this machine is, there is an answer, and with an error there is a sentence. */
static void test_this_host(void **state)
{
	struct hf_error e = {0};
	int r = hf_luo_available(&e);

	if (r < 0) {
		assert_int_equal(e.err, r);
		assert_true(e.message[0] != 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_node_missing),
		cmocka_unit_test(test_calls_without_device),
		cmocka_unit_test(test_this_host),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
