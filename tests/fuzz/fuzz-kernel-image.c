/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Kernel images of arbitrary bytes; and the scanner, which has to find the same in any pieces.
 */
#include <stdint.h>
#include <string.h>

#include "common/fd.h"
#include "memfd-preserve/kernel-image.h"

/* Enough for the corpus; what may be unpacked decides how long a run takes. */
#define MAX_BYTES (4u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_image(const uint8_t *data, size_t size)
{
	struct hf_kernel_image image;
	struct hf_error e = {0};
	int fd = -EBADF;

	if (hf_memfd_new("fuzz", 0, &fd) < 0 || hf_fd_write_full(fd, data, size) < 0)
		abort();
	if (hf_kernel_image_read(fd, MAX_BYTES, &image, &e) == 0) {
		if (image.kernel_bytes > MAX_BYTES || image.strings.config_gz ||
			strlen(image.release) >= sizeof(image.release) ||
			strlen(image.strings.banner) >= sizeof(image.strings.banner))
			abort();
		if (image.config)
			hf_kernel_config_has(image.config, "CONFIG_TUN");
		hf_kernel_image_clear(&image);
	} else if (!e.message[0] || !e.name[0]) {
		abort();
	}
	close(fd);
}

static void scan(const uint8_t *data, size_t size, size_t piece, struct hf_kernel_strings *ret)
{
	struct hf_kernel_scan *s;

	if (hf_kernel_scan_new(&s) < 0)
		abort();
	for (size_t at = 0; at < size; at += piece) {
		if (hf_kernel_scan_feed(s, data + at, HF_MIN(piece, size - at)) < 0)
			abort();
	}
	if (hf_kernel_scan_end(s, ret) < 0)
		abort();
	hf_kernel_scan_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hf_kernel_strings whole, pieces;

	read_image(data, size);
	scan(data, size, size + 1, &whole);
	scan(data, size, size % 61 + 1, &pieces);
	if (memcmp(whole.formats, pieces.formats, sizeof(whole.formats)) != 0 ||
		strcmp(whole.banner, pieces.banner) != 0 ||
		whole.config_gz_bytes != pieces.config_gz_bytes ||
		(whole.config_gz_bytes > 0 &&
			memcmp(whole.config_gz, pieces.config_gz, whole.config_gz_bytes) != 0))
		abort();
	free(whole.config_gz);
	free(pieces.config_gz);
	return 0;
}
