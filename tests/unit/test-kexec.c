/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The target: command line rule, image header, and refusals. Nothing is ever loaded here. */
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

#include "agent/kexec.h"
#include "common/fd.h"

static void expect_cmdline(
	const char *running, const char *append, const char *cmdline, const char *want)
{
	char *line = hf_target_cmdline(running, append, cmdline);

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

static void make_image(unsigned char *p, size_t size, const char *version)
{
	memset(p, 0, size);
	p[0x1fe] = 0x55;
	p[0x1ff] = 0xaa;
	memcpy(p + 0x202, "HdrS", 4);
	if (version) {
		p[0x20e] = 0x00;
		p[0x20f] = 0x01; /* 0x100 + 0x200 = 0x300 */
		strcpy((char *)p + 0x300, version);
	}
}

static void test_image_version(void **state)
{
	unsigned char image[0x400];
	char version[64];

	make_image(image, sizeof(image), "7.3.4 (me@there) #1 SMP");
	assert_int_equal(hf_target_image_version(image, sizeof(image), version), 0);
	assert_string_equal(version, "7.3.4");
	make_image(image, sizeof(image), NULL);
	assert_int_equal(hf_target_image_version(image, sizeof(image), version), -ENODATA);
	image[0x202] = 'X';
	assert_int_equal(hf_target_image_version(image, sizeof(image), version), -EBADMSG);
	make_image(image, sizeof(image), "7");
	/* Cut anywhere: refused or without version, never read past the end. */
	for (size_t n = 0; n < sizeof(image); n++) {
		unsigned char *cut = malloc(n ? n : 1);

		memcpy(cut, image, n);
		assert_true(hf_target_image_version(cut, n, version) <= 0);
		free(cut);
	}
	/* A version that never ends. */
	make_image(image, sizeof(image), NULL);
	image[0x20e] = 1;
	memset(image + 0x201 + 0, 'a', 1);
	memset(image + 0x260, 'a', sizeof(image) - 0x260);
	image[0x20e] = 0x60;
	memcpy(image + 0x202, "HdrS", 4);
	assert_int_equal(hf_target_image_version(image, sizeof(image), version), -ENODATA);
}

static void test_target_refusals(void **state)
{
	struct hf_target t = {0};
	struct hf_error e = {0};
	char path[] = "/tmp/hf-test-kernel-XXXXXX";
	unsigned char image[0x400];
	int fd;

	assert_int_equal(hf_target_new("/nonexistent/vmlinuz", NULL, NULL, NULL, &t, &e), -ENOENT);
	assert_string_equal(e.name, HF_ERR_NOT_READY);
	assert_non_null(strstr(e.message, "/nonexistent/vmlinuz"));
	assert_true(hf_target_new("/tmp", NULL, NULL, NULL, &t, &e) < 0);
	assert_true(hf_target_new("/etc/passwd", NULL, NULL, NULL, &t, &e) < 0);
	assert_non_null(strstr(e.message, "not a Linux kernel image"));
	assert_non_null(strstr(e.remedy, "bzImage"));
	assert_int_equal(hf_target_new("/etc/passwd", NULL, "a", "b", &t, &e), -EINVAL);
	assert_string_equal(e.name, HF_ERR_INVALID);

	make_image(image, sizeof(image), "7.3.4 x");
	fd = mkostemp(path, O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(hf_fd_write_full(fd, image, sizeof(image)), 0);
	assert_int_equal(ftruncate(fd, 5 * 512), 0); /* the boot sector and 4 more, by its header */
	close(fd);
	assert_int_equal(hf_target_new(path, NULL, "x=1", NULL, &t, &e), 0);
	assert_string_equal(t.version, "7.3.4");
	assert_non_null(strstr(t.cmdline, "kho=on"));
	assert_null(t.initrd);
	hf_target_clear(&t);
	assert_int_equal(hf_target_new(path, "/nonexistent/initrd", NULL, NULL, &t, &e), -ENOENT);
	assert_non_null(strstr(e.message, "initrd"));
	/* A header that promises more than the file has: 4 + 1 sectors and 0x10000 * 16 bytes. */
	image[0x1f6] = 1;
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(hf_fd_write_full(fd, image, sizeof(image)), 0);
	assert_int_equal(hf_target_new(path, NULL, NULL, NULL, &t, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "is cut: it has 1024 bytes, and should have 1051136"));
	assert_int_equal(ftruncate(fd, 1051136), 0);
	assert_int_equal(hf_target_new(path, NULL, NULL, NULL, &t, &e), 0);
	hf_target_clear(&t);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cmdline),
		cmocka_unit_test(test_image_version),
		cmocka_unit_test(test_target_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
