/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The target: command line rule, looking into it, refusals. Nothing is ever loaded here. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

#include "agent/target.h"
#include "common/fd.h"
#include "tests/unit/kernel-sample.h"

static void expect_cmdline(
	const char *running, const char *append, const char *cmdline, const char *want)
{
	char *line = hf_target_cmdline(true, running, append, cmdline);

	assert_string_equal(line, want);
	free(line);
}

static void test_cmdline(void **state)
{
	expect_cmdline("root=/dev/vda kho=on liveupdate=on\n", NULL, NULL,
		"root=/dev/vda kho=on liveupdate=on");
	expect_cmdline("BOOT_IMAGE=/boot/vmlinuz root=/dev/vda  quiet initrd=/i.img\n", NULL, NULL,
		"root=/dev/vda quiet kho=on liveupdate=on");
	expect_cmdline("root=x kho=on\n", "debug", NULL, "root=x kho=on debug liveupdate=on");
	/* A word that only contains the parameter is not the parameter. */
	expect_cmdline("xkho=on kho=only\n", NULL, NULL, "xkho=on kho=only kho=on liveupdate=on");
	expect_cmdline("root=x\n", NULL, "BOOT_IMAGE=kept init=/bin/sh",
		"BOOT_IMAGE=kept init=/bin/sh kho=on liveupdate=on");
	expect_cmdline("", NULL, NULL, "kho=on liveupdate=on");
}

static char dir[] = "/tmp/hf-test-target-XXXXXX";

static void write_sample(const char *path, const struct sample *s)
{
	assert_int_equal(hf_file_write_atomic(path, s->data, s->size, 0644), 0);
}

static const struct sample_options whole = {"kho-v4", "luo-v5", "memfd-v2", .noise = 2000};

static void test_target(void **state)
{
	struct sample s = sample_bzimage(HF_COMPRESSION_XZ, &whole);
	struct hf_target t = HF_TARGET_NONE;
	struct hf_error e = {0};
	char path[64], config[64];

	snprintf(path, sizeof(path), "%s/vmlinuz-7.3.4", dir);
	snprintf(config, sizeof(config), "%s/config-7.3.4", dir);
	write_sample(path, &s);
	assert_int_equal(hf_target_new(true, path, NULL, "x=1", NULL, &t, &e), 0);
	assert_string_equal(t.kernel, path);
	assert_string_equal(t.image.release, "7.3.4");
	assert_string_equal(t.image.strings.formats[HF_KERNEL_LUO].names[0], "luo-v5");
	assert_non_null(strstr(t.cmdline, "x=1"));
	assert_non_null(strstr(t.cmdline, "kho=on"));
	assert_null(t.initrd);
	assert_null(t.config);
	assert_true(t.kernel_fd >= 0);
	hf_target_clear(&t);
	assert_int_equal(t.kernel_fd, -EBADF);
	assert_null(t.kernel);

	assert_int_equal(hf_file_write_atomic(config, "CONFIG_TUN=y\n", 13, 0644), 0);
	assert_int_equal(hf_target_new(true, path, path, NULL, "a=b", &t, &e), 0);
	assert_string_equal(t.initrd, path);
	assert_string_equal(t.cmdline, "a=b kho=on liveupdate=on");
	assert_string_equal(t.config, "CONFIG_TUN=y\n");
	assert_string_equal(t.config_path, config);
	hf_target_clear(&t);
	unlink(path);
	unlink(config);
	sample_free(&s);
}

/* Opening a device as root can do something: what is no file isn't opened to find out. */
static void test_device_is_not_opened(void **state)
{
	struct hf_target t = HF_TARGET_NONE;
	cleanup_close int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	struct hf_error e = {0};
	char path[64], link[64], events[1024];

	snprintf(path, sizeof(path), "%s/device", dir);
	snprintf(link, sizeof(link), "%s/link", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(symlink(path, link), 0);
	assert_true(inotify_add_watch(watch, path, IN_OPEN) >= 0);
	assert_int_equal(hf_target_new(true, path, NULL, NULL, NULL, &t, &e), -EINVAL);
	assert_int_equal(hf_target_new(true, link, NULL, NULL, NULL, &t, &e), -EINVAL);
	assert_int_equal(read(watch, events, sizeof(events)), -1);
	assert_int_equal(errno, EAGAIN);
	/* It would have been noticed. */
	close(open(path, O_RDONLY | O_NONBLOCK));
	assert_true(read(watch, events, sizeof(events)) > 0);
	unlink(path);
	unlink(link);
}

static void test_refusals(void **state)
{
	struct sample s = sample_bzimage(HF_COMPRESSION_GZIP, &whole);
	struct hf_target t = HF_TARGET_NONE;
	struct hf_error e = {0};
	char path[64], says[256];

	assert_int_equal(
		hf_target_new(true, "/nonexistent/vmlinuz", NULL, NULL, NULL, &t, &e), -ENOENT);
	assert_string_equal(e.name, HF_ERR_NOT_READY);
	assert_non_null(strstr(e.message, "/nonexistent/vmlinuz"));
	assert_true(hf_target_new(true, "/tmp", NULL, NULL, NULL, &t, &e) < 0);
	assert_int_equal(hf_target_new(true, "/etc/passwd", NULL, NULL, NULL, &t, &e), -EBADMSG);
	assert_string_equal(e.name, HF_ERR_NOT_READY);
	assert_non_null(strstr(e.message, "/etc/passwd: not a kernel image: "));
	assert_non_null(strstr(e.remedy, "bzImage"));
	assert_int_equal(hf_target_new(true, "/etc/passwd", NULL, "a", "b", &t, &e), -EINVAL);
	assert_string_equal(e.name, HF_ERR_INVALID);

	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(hf_target_new(true, path, NULL, NULL, NULL, &t, &e), -EINVAL);
	unlink(path);
	snprintf(path, sizeof(path), "%s/image", dir);
	write_sample(path, &s);
	assert_int_equal(
		hf_target_new(true, path, "/nonexistent/initrd", NULL, NULL, &t, &e), -ENOENT);
	assert_non_null(strstr(e.message, "initrd"));
	/* kexec_file_load(2) would take a cut image without a word. */
	assert_int_equal(truncate(path, (off_t)s.size - 1), 0);
	assert_int_equal(hf_target_new(true, path, NULL, NULL, NULL, &t, &e), -EBADMSG);
	snprintf(says, sizeof(says),
		"%s: not a kernel image: it is cut: it has %zu bytes, and should have %zu", path,
		s.size - 1, s.size);
	assert_string_equal(e.message, says);
	assert_null(t.kernel);
	unlink(path);
	sample_free(&s);
}

/* What is loaded is what was looked into. */
static void test_changed_meanwhile(void **state)
{
	struct sample s = sample_bzimage(HF_COMPRESSION_GZIP, &whole);
	struct hf_target t = HF_TARGET_NONE;
	struct hf_error e = {0};
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/image", dir);
	write_sample(path, &s);
	assert_int_equal(hf_target_new(true, path, NULL, NULL, NULL, &t, &e), 0);
	assert_int_equal(hf_target_check_unchanged(&t, &e), 0);
	usleep(20000); /* coarse clocks of file systems */
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "x", 1, 100), 1);
	close(fd);
	assert_int_equal(hf_target_check_unchanged(&t, &e), -ESTALE);
	assert_non_null(strstr(e.message, "was changed after it was looked into"));
	hf_target_clear(&t);
	unlink(path);
	sample_free(&s);
}

static int setup(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cmdline),
		cmocka_unit_test(test_target),
		cmocka_unit_test(test_device_is_not_opened),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_changed_meanwhile),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
