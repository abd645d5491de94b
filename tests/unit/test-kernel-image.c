/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Kernel images of every kind and packing, and what is none. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "memfd-preserve/kernel-image.h"
#include "tests/unit/kernel-sample.h"

#define CONFIG \
	"# a comment\nCONFIG_TUN=y\nCONFIG_BRIDGE=m\n# CONFIG_KVM_AMD is not set\nCONFIG_X=n\n"

static const struct sample_options whole = {"kho-v4", "luo-v5", "memfd-v2", CONFIG, .noise = 90000};

static int look(
	const struct sample *s, uint64_t max, struct hf_kernel_image *ret, struct hf_error *e)
{
	cleanup_close int fd = sample_fd(s);
	int r;

	lseek(fd, 3, SEEK_SET);
	r = hf_kernel_image_read(fd, max, ret, e);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 3);
	return r;
}

static void expect_whole(const struct hf_kernel_image *image)
{
	assert_string_equal(image->release, "7.3.4");
	assert_string_equal(image->strings.banner, SAMPLE_BANNER);
	assert_int_equal(image->strings.formats[HF_KERNEL_KHO].n, 1);
	assert_string_equal(image->strings.formats[HF_KERNEL_KHO].names[0], "kho-v4");
	assert_string_equal(image->strings.formats[HF_KERNEL_LUO].names[0], "luo-v5");
	assert_string_equal(image->strings.formats[HF_KERNEL_MEMFD].names[0], "memfd-v2");
	assert_string_equal(image->config, CONFIG);
	assert_null(image->strings.config_gz);
	assert_true(image->kernel_bytes > 4 * whole.noise);
}

static void test_every_packing(void **state)
{
	static const enum hf_compression all[] = {HF_COMPRESSION_NONE, HF_COMPRESSION_GZIP,
		HF_COMPRESSION_BZIP2, HF_COMPRESSION_LZMA, HF_COMPRESSION_XZ, HF_COMPRESSION_LZ4,
		HF_COMPRESSION_ZSTD};

	for (size_t i = 0; i < HF_ARRAY_SIZE(all); i++) {
		struct sample s = sample_bzimage(all[i], &whole);
		struct hf_kernel_image image;

		assert_int_equal(look(&s, HF_KERNEL_MAX_BYTES, &image, NULL), 0);
		assert_int_equal(image.kind, HF_KERNEL_BZIMAGE);
		assert_int_equal(image.compression, all[i]);
		assert_int_equal(image.file_bytes, s.size);
		assert_string_equal(image.boot.version, SAMPLE_VERSION);
		expect_whole(&image);
		hf_kernel_image_clear(&image);
		hf_kernel_image_clear(&image);
		sample_free(&s);
	}
}

static void test_elf(void **state)
{
	struct sample s = sample_vmlinux(&whole);
	struct sample other = {0};
	struct hf_kernel_image image;
	struct hf_error e;

	assert_int_equal(look(&s, HF_KERNEL_MAX_BYTES, &image, NULL), 0);
	assert_int_equal(image.kind, HF_KERNEL_ELF);
	expect_whole(&image);
	hf_kernel_image_clear(&image);
	sample_free(&s);
	sample_add(&other, "\177ELF\2\1\1", 7);
	sample_add_noise(&other, 1000);
	assert_int_equal(look(&other, HF_KERNEL_MAX_BYTES, &image, &e), -EBADMSG);
	assert_string_equal(e.message, "not a kernel image: it is an ELF file, but not of Linux");
	sample_free(&other);
}

static void test_uki(void **state)
{
	struct sample kernel = sample_bzimage(HF_COMPRESSION_ZSTD, &whole);
	const struct sample_section sections[] = {{".osrel", "ID=x", 4}, {".uname", "7.3.4-a\n", 8},
		{".cmdline", "quiet", 5}, {".linux", kernel.data, kernel.size},
		{".initrd", "cpio", 4}, {0}};
	const struct sample_section bare[] = {{".linux", kernel.data, kernel.size}, {0}};
	const struct sample_section none[] = {{".text", "code", 4}, {0}};
	struct sample s = sample_pe(sections);
	struct hf_kernel_image image;
	struct hf_error e;

	assert_int_equal(look(&s, HF_KERNEL_MAX_BYTES, &image, NULL), 0);
	assert_int_equal(image.kind, HF_KERNEL_UKI);
	expect_whole(&image);
	assert_string_equal(image.uki_uname, "7.3.4-a");
	assert_true(image.uki_cmdline && image.uki_initrd);
	hf_kernel_image_clear(&image);
	sample_free(&s);

	s = sample_pe(bare);
	assert_int_equal(look(&s, HF_KERNEL_MAX_BYTES, &image, NULL), 0);
	assert_string_equal(image.uki_uname, "");
	assert_false(image.uki_cmdline || image.uki_initrd);
	hf_kernel_image_clear(&image);
	/* Its section is whole, the image in it promises more. */
	sample_put32(s.data + 512 + 0x1f4, 0x100000);
	assert_int_equal(look(&s, HF_KERNEL_MAX_BYTES, &image, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "not a kernel image: it is cut"));
	sample_free(&s);

	s = sample_pe(none);
	assert_int_equal(look(&s, HF_KERNEL_MAX_BYTES, &image, &e), -EBADMSG);
	assert_string_equal(
		e.message, "not a kernel image: it is an EFI program without a kernel in it");
	sample_free(&s);
	sample_free(&kernel);
}

static void test_without_strings(void **state)
{
	const struct sample_options o = {.kho = "kho-v4", .noise = 5000};
	struct sample s = sample_bzimage(HF_COMPRESSION_XZ, &o);
	struct hf_kernel_image image;

	assert_int_equal(look(&s, HF_KERNEL_MAX_BYTES, &image, NULL), 0);
	assert_int_equal(image.strings.formats[HF_KERNEL_KHO].n, 1);
	assert_int_equal(image.strings.formats[HF_KERNEL_LUO].n, 0);
	assert_int_equal(image.strings.formats[HF_KERNEL_MEMFD].n, 0);
	assert_null(image.config);
	hf_kernel_image_clear(&image);
	sample_free(&s);
}

/* The banner's release stands in when the header has none. */
static void test_release(void **state)
{
	struct sample s = sample_bzimage(HF_COMPRESSION_GZIP, &whole);
	struct hf_kernel_image image;

	sample_put16(s.data + 0x20e, 0);
	assert_int_equal(look(&s, HF_KERNEL_MAX_BYTES, &image, NULL), 0);
	assert_string_equal(image.boot.version, "");
	assert_string_equal(image.release, "7.3.4");
	hf_kernel_image_clear(&image);
	sample_free(&s);
}

static void expect_refused(const struct sample *s, uint64_t max, int err, const char *says)
{
	struct hf_kernel_image image;
	struct hf_error e = {0};

	assert_int_equal(look(s, max, &image, &e), err);
	if (!strstr(e.message, says))
		fail_msg("`%s` does not say `%s`", e.message, says);
	assert_string_equal(e.name, HF_ERR_NOT_READY);
}

static void test_what_is_none(void **state)
{
	static const char text[] = "root:x:0:0:root:/root:/bin/bash\n";
	struct sample s = {0}, payload = {0};

	expect_refused(&s, 1 << 20, -EBADMSG, "not a kernel image: it is neither");
	sample_add(&s, text, sizeof(text));
	expect_refused(&s, 1 << 20, -EBADMSG, "not a kernel image: it is neither");
	sample_free(&s);
	sample_add(&s, "MZ", 2);
	sample_add_noise(&s, 1000);
	expect_refused(&s, 1 << 20, -EBADMSG, "not a kernel image: it is no EFI program");
	sample_free(&s);

	sample_add(&payload, "hello, there is no kernel", 25);
	s = sample_bzimage_around(&payload);
	expect_refused(&s, 1 << 20, -EOPNOTSUPP, "packed in an unknown way");
	sample_free(&s);
	memcpy(payload.data, "\211LZO\0\r\n\32\n", 9);
	s = sample_bzimage_around(&payload);
	expect_refused(&s, 1 << 20, -EOPNOTSUPP, "can't look into it: it is packed with lzo");
	sample_free(&s);
	/* Whole, and packed as a kernel is, but something else. */
	s = sample_bzimage_of(HF_COMPRESSION_XZ, &payload);
	expect_refused(&s, 1 << 20, -EBADMSG, "what is packed in it is no kernel");
	sample_free(&s);
	payload.size = 3;
	s = sample_bzimage_around(&payload);
	expect_refused(&s, 1 << 20, -EBADMSG, "not a kernel image: there is nothing in it");
	sample_free(&s);
	sample_free(&payload);
}

static void test_no_file(void **state)
{
	struct hf_kernel_image image;
	struct hf_error e;
	int fds[2];
	int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_int_equal(hf_kernel_image_read(dir, 1 << 20, &image, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "no regular file"));
	close(dir);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(hf_kernel_image_read(fds[0], 1 << 20, &image, &e), -EBADMSG);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(hf_kernel_image_read(-EBADF, 1 << 20, &image, &e), -EBADF);
}

static void test_damaged(void **state)
{
	static const enum hf_compression packed[] = {HF_COMPRESSION_GZIP, HF_COMPRESSION_BZIP2,
		HF_COMPRESSION_LZMA, HF_COMPRESSION_XZ, HF_COMPRESSION_LZ4, HF_COMPRESSION_ZSTD};

	for (size_t i = 0; i < HF_ARRAY_SIZE(packed); i++) {
		struct sample s = sample_bzimage(packed[i], &whole);
		size_t payload = SAMPLE_SETUP_BYTES + SAMPLE_PAYLOAD_OFFSET;
		uint8_t *length = s.data + 0x24c;
		uint32_t bytes = length[0] | length[1] << 8 | (uint32_t)length[2] << 16;
		struct sample cut = {.data = s.data, .size = s.size - 600};
		uint8_t saved[4];

		expect_refused(
			&cut, HF_KERNEL_MAX_BYTES, -EBADMSG, "not a kernel image: it is cut");
		/* Header and size were made to fit: then what is packed is cut. */
		sample_put32(length, bytes / 2);
		memcpy(saved, s.data + payload + bytes / 2 - 4, 4);
		memcpy(s.data + payload + bytes / 2 - 4, s.data + payload + bytes - 4, 4);
		expect_refused(&s, HF_KERNEL_MAX_BYTES, -EBADMSG, "data is c");
		memcpy(s.data + payload + bytes / 2 - 4, saved, 4);
		sample_put32(length, bytes);
		/* The size behind what is packed is another one. */
		s.data[payload + bytes - 4]++;
		expect_refused(&s, HF_KERNEL_MAX_BYTES, -EBADMSG, "not a kernel image: it");
		s.data[payload + bytes - 4]--;
		memset(s.data + payload + bytes / 2, 0xff, bytes / 3);
		if (packed[i] == HF_COMPRESSION_LZ4)
			s.data[payload + 4]--;
		expect_refused(&s, HF_KERNEL_MAX_BYTES, -EBADMSG, "data is corrupt");
		sample_free(&s);
	}
}

struct cutter {
	int fd;
	off_t size;
	useconds_t after;
};

static void *cut(void *data)
{
	struct cutter *c = data;

	usleep(c->after);
	if (ftruncate(c->fd, c->size) < 0)
		abort();
	return NULL;
}

/* Somebody cuts the file, at one moment or another: an answer, and no signal. */
static void test_cut_meanwhile(void **state)
{
	const struct sample_options o = {"kho-v4", "luo-v5", "memfd-v2", .noise = 1 << 20};
	struct sample s = sample_bzimage(HF_COMPRESSION_GZIP, &o);
	int failed = 0;

	for (useconds_t after = 0; after < 40000; after += 1000) {
		struct cutter c = {.fd = sample_fd(&s), .size = 3000, .after = after};
		struct hf_kernel_image image;
		struct hf_error e = {0};
		pthread_t thread;
		int r;

		assert_int_equal(pthread_create(&thread, NULL, cut, &c), 0);
		r = hf_kernel_image_read(c.fd, HF_KERNEL_MAX_BYTES, &image, &e);
		if (r < 0 && (r != -EBADMSG || strncmp(e.message, "not a kernel image: ", 20) != 0))
			fail_msg("%d: %s", r, e.message);
		failed += r < 0;
		if (r == 0)
			hf_kernel_image_clear(&image);
		pthread_join(thread, NULL);
		close(c.fd);
	}
	assert_true(failed > 0);
	sample_free(&s);
}

/* Neither what it says nor what it is may be larger than allowed. */
static void test_bombs(void **state)
{
	struct sample zeros = {.data = calloc(1, 24 << 20), .size = 24 << 20};

	assert_non_null(zeros.data);
	memcpy(zeros.data, "\177ELF\2\1\1", 7);
	for (enum hf_compression c = HF_COMPRESSION_NONE; c <= HF_COMPRESSION_ZSTD; c++) {
		struct sample s;
		size_t end;

		if (c == HF_COMPRESSION_LZO)
			continue;
		s = sample_bzimage_of(c, &zeros);
		expect_refused(&s, 1 << 20, -EFBIG, "not a kernel image: it");
		if (c == HF_COMPRESSION_NONE) {
			sample_free(&s);
			continue;
		}
		/* One that says it were small. */
		end = SAMPLE_SETUP_BYTES + SAMPLE_PAYLOAD_OFFSET + s.data[0x24c] +
		      ((size_t)s.data[0x24d] << 8) + ((size_t)s.data[0x24e] << 16);
		sample_put32(s.data + end - 4, 1000);
		expect_refused(&s, HF_KERNEL_MAX_BYTES, -EFBIG, "unpacks to more than 1000 bytes");
		sample_put32(s.data + end - 4, 0xffffffff);
		expect_refused(&s, HF_KERNEL_MAX_BYTES, -EFBIG, "no kernel has more than 1024");
		sample_free(&s);
	}
	sample_free(&zeros);
}

static void test_config_that_is_none(void **state)
{
	struct sample_options o = whole;
	struct sample vmlinux, s;
	struct hf_kernel_image image;
	char *large = malloc(HF_KERNEL_MAX_CONFIG_BYTES + 10);
	uint8_t *gz;

	/* Damaged: the kernel is none the worse for it. */
	vmlinux = sample_vmlinux(&o);
	gz = memmem(vmlinux.data, vmlinux.size, "IKCFG_ST", 8);
	memset(gz + 8 + 12, 0xff, 10);
	s = sample_bzimage_of(HF_COMPRESSION_GZIP, &vmlinux);
	assert_int_equal(look(&s, HF_KERNEL_MAX_BYTES, &image, NULL), 0);
	assert_null(image.config);
	assert_string_equal(image.release, "7.3.4");
	hf_kernel_image_clear(&image);
	sample_free(&vmlinux);
	sample_free(&s);
	/* A bomb in the kernel. */
	assert_non_null(large);
	memset(large, '#', HF_KERNEL_MAX_CONFIG_BYTES + 9);
	large[HF_KERNEL_MAX_CONFIG_BYTES + 9] = 0;
	o.config = large;
	s = sample_bzimage(HF_COMPRESSION_ZSTD, &o);
	assert_int_equal(look(&s, HF_KERNEL_MAX_BYTES, &image, NULL), 0);
	assert_null(image.config);
	hf_kernel_image_clear(&image);
	sample_free(&s);
	free(large);
}

static void test_kexec(void **state)
{
	struct sample s = sample_bzimage(HF_COMPRESSION_GZIP, &whole);
	struct hf_kernel_image image;

	assert_int_equal(look(&s, HF_KERNEL_MAX_BYTES, &image, NULL), 0);
	assert_null(hf_kernel_image_no_kexec(&image));
	image.kind = HF_KERNEL_UKI;
	assert_non_null(strstr(hf_kernel_image_no_kexec(&image), "unified kernel image"));
	image.kind = HF_KERNEL_ELF;
	assert_non_null(strstr(hf_kernel_image_no_kexec(&image), "ELF"));
	image.kind = HF_KERNEL_BZIMAGE;
	image.boot.above_4g = false;
	assert_non_null(strstr(hf_kernel_image_no_kexec(&image), "CONFIG_RELOCATABLE"));
	image.boot.kernel_64 = false;
	assert_non_null(strstr(hf_kernel_image_no_kexec(&image), "no 64-bit kernel"));
	image.boot.kernel_64 = image.boot.above_4g = true;
	image.boot.loaded_high = false;
	assert_non_null(hf_kernel_image_no_kexec(&image));
	hf_kernel_image_clear(&image);
	sample_free(&s);
}

static void test_config_options(void **state)
{
	assert_true(hf_kernel_config_has(CONFIG, "CONFIG_TUN"));
	assert_true(hf_kernel_config_has(CONFIG, "CONFIG_BRIDGE"));
	assert_false(hf_kernel_config_has(CONFIG, "CONFIG_KVM_AMD"));
	assert_false(hf_kernel_config_has(CONFIG, "CONFIG_X"));
	assert_false(hf_kernel_config_has(CONFIG, "CONFIG_T"));
	assert_false(hf_kernel_config_has(CONFIG, "CONFIG_TUNNEL"));
	assert_false(hf_kernel_config_has("", "CONFIG_TUN"));
	assert_true(hf_kernel_config_has("CONFIG_TUN=y", "CONFIG_TUN"));
	assert_false(hf_kernel_config_has("CONFIG_TUN=", "CONFIG_TUN"));
}

static void test_config_beside(void **state)
{
	char dir[] = "/tmp/hf-test-kernel-XXXXXX", image[64], config[64], link[64];
	char *path = NULL, *text;

	assert_non_null(mkdtemp(dir));
	snprintf(image, sizeof(image), "%s/vmlinuz-7.3.4", dir);
	snprintf(config, sizeof(config), "%s/config-7.3.4", dir);
	assert_null(hf_kernel_config_beside(image, "7.3.4", &path));
	assert_int_equal(hf_file_write_atomic(config, CONFIG, strlen(CONFIG), 0644), 0);
	text = hf_kernel_config_beside(image, "7.3.4", &path);
	assert_string_equal(text, CONFIG);
	assert_string_equal(path, config);
	free(text);
	free(path);
	path = NULL;
	/* By way of a link from elsewhere. */
	snprintf(link, sizeof(link), "%s-link", dir);
	assert_int_equal(hf_file_write_atomic(image, "", 0, 0644), 0);
	assert_int_equal(symlink(image, link), 0);
	text = hf_kernel_config_beside(link, "7.3.4", &path);
	assert_string_equal(text, CONFIG);
	free(text);
	free(path);
	path = NULL;
	unlink(link);
	unlink(image);
	assert_null(hf_kernel_config_beside(image, "7.3.5", &path));
	assert_null(hf_kernel_config_beside(image, "", &path));
	assert_null(hf_kernel_config_beside(image, "/../config-7.3.4", &path));
	/* Something else of that name is not waited for. */
	unlink(config);
	assert_int_equal(mkfifo(config, 0600), 0);
	assert_null(hf_kernel_config_beside(image, "7.3.4", &path));
	unlink(config);
	assert_int_equal(hf_file_write_atomic(config, "a\0b", 3, 0644), 0);
	assert_null(hf_kernel_config_beside(image, "7.3.4", &path));
	assert_null(path);
	unlink(config);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_packing),
		cmocka_unit_test(test_elf),
		cmocka_unit_test(test_uki),
		cmocka_unit_test(test_without_strings),
		cmocka_unit_test(test_release),
		cmocka_unit_test(test_what_is_none),
		cmocka_unit_test(test_no_file),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_cut_meanwhile),
		cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_config_that_is_none),
		cmocka_unit_test(test_kexec),
		cmocka_unit_test(test_config_options),
		cmocka_unit_test(test_config_beside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
