/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/kernel-image.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "memfd-preserve/little-endian.h"

#define TRAILER_BYTES 4 /* the unpacked size, little-endian, behind what is packed */
#define NO_KERNEL "not a kernel image"

static const char *const kind_names[] = {
	[HF_KERNEL_BZIMAGE] = "bzImage",
	[HF_KERNEL_UKI] = "unified kernel image",
	[HF_KERNEL_ELF] = "ELF",
};

const char *hf_kernel_kind_name(enum hf_kernel_kind kind)
{
	return kind_names[kind];
}

const char *hf_kernel_image_no_kexec(const struct hf_kernel_image *image)
{
	const struct hf_boot_header *h = &image->boot;

	if (image->kind == HF_KERNEL_UKI)
		return "it is a unified kernel image, and kexec takes the bzImage it was made of";
	if (image->kind != HF_KERNEL_BZIMAGE)
		return "it is an ELF file, and kexec takes a bzImage";
	if (!h->loaded_high || !h->kernel_64)
		return "it is no 64-bit kernel";
	if (!h->above_4g)
		return "it can't be moved in memory: CONFIG_RELOCATABLE is off";
	return NULL;
}

/* A part of the file that is read in order, and where its bytes go. */
struct stream {
	int fd;
	uint64_t at;
	uint64_t end;
	struct hf_kernel_scan *scan;
	bool is_elf; /* of what was unpacked */
	bool any;
};

/* Fewer bytes than asked for only at the end of the file. Return: bytes, or -errno. */
static ssize_t read_at(int fd, void *buf, size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(fd, (char *)buf + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int cannot_read(struct hf_error *e, ssize_t r)
{
	return hf_error_set(
		e, (int)r, HF_ERR_NOT_READY, NULL, "can't be read: %s", strerror((int)-r));
}

/* Sizes were compared with the file's before: if there is less now, somebody writes to it. */
static int became_shorter(struct hf_error *e)
{
	return hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY, "try again when it is complete",
		NO_KERNEL ": it became shorter while it was read");
}

static ssize_t stream_read(void *buf, size_t room, void *data)
{
	struct stream *s = data;
	size_t n = (size_t)HF_MIN((uint64_t)room, s->end - s->at);
	ssize_t r = n > 0 ? read_at(s->fd, buf, n, s->at) : 0;

	if (r > 0)
		s->at += (uint64_t)r;
	return r;
}

static int stream_write(const void *bytes, size_t size, void *data)
{
	struct stream *s = data;

	if (!s->any)
		s->is_elf = hf_compression_detect(bytes, size) == HF_COMPRESSION_NONE;
	s->any = true;
	return hf_kernel_scan_feed(s->scan, bytes, size);
}

/* ---- the built-in configuration ---- */

struct config {
	const uint8_t *gz;
	size_t gz_left;
	char *text;
	size_t size;
};

static ssize_t config_read(void *buf, size_t room, void *data)
{
	struct config *c = data;
	size_t n = HF_MIN(room, c->gz_left);

	memcpy(buf, c->gz, n);
	c->gz += n;
	c->gz_left -= n;
	return (ssize_t)n;
}

static int config_write(const void *bytes, size_t size, void *data)
{
	struct config *c = data;
	char *p = realloc(c->text, c->size + size + 1);

	if (!p)
		return -ENOMEM;
	memcpy(p + c->size, bytes, size);
	c->text = p;
	c->size += size;
	c->text[c->size] = 0;
	return 0;
}

/* A configuration that can't be unpacked is none: nothing but advice depends on it. */
static char *unpack_config(const struct hf_kernel_strings *strings)
{
	struct config c = {.gz = strings->config_gz, .gz_left = strings->config_gz_bytes};
	const struct hf_decompress d = {
		.format = HF_COMPRESSION_GZIP,
		.max_bytes = HF_KERNEL_MAX_CONFIG_BYTES,
		.read = config_read,
		.write = config_write,
		.data = &c,
	};
	uint64_t n;

	if (!c.gz || hf_decompress_run(&d, &n, NULL) < 0 || n == 0 || strlen(c.text) != n) {
		free(c.text);
		return NULL;
	}
	return c.text;
}

/* ---- the kernel ---- */

static int read_trailer(int fd, uint64_t end, uint64_t *ret_bytes, struct hf_error *e)
{
	uint8_t t[TRAILER_BYTES];
	ssize_t n = read_at(fd, t, sizeof(t), end - sizeof(t));

	if (n < 0)
		return cannot_read(e, n);
	if (n < TRAILER_BYTES)
		return became_shorter(e);
	*ret_bytes = hf_le32(t);
	return 0;
}

static int unpack_error(const struct stream *s, int r, struct hf_error *e)
{
	struct stat st;

	if (r == -EBADMSG && fstat(s->fd, &st) == 0 && (uint64_t)st.st_size < s->end)
		return became_shorter(e);
	if (!e)
		return r;
	snprintf(e->name, sizeof(e->name), "%s", HF_ERR_NOT_READY);
	if (r == -EBADMSG || r == -EFBIG) {
		snprintf(e->remedy, sizeof(e->remedy), "copy or install it again");
		hf_error_prefix(e, NO_KERNEL);
	} else {
		hf_error_prefix(e, "can't look into it");
	}
	return r;
}

/* Unpacks the stream, and scans it. */
static int run_stream(
	struct stream *s, uint64_t max_bytes, struct hf_kernel_image *image, struct hf_error *e)
{
	const struct hf_decompress d = {
		.format = image->compression,
		.max_bytes = max_bytes,
		.read = stream_read,
		.write = stream_write,
		.data = s,
	};
	int r = hf_decompress_run(&d, &image->kernel_bytes, e);

	if (r < 0)
		return unpack_error(s, r, e);
	if (!s->is_elf)
		return hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY, NULL,
			NO_KERNEL ": what is packed in it is no kernel");
	if (hf_kernel_scan_end(s->scan, &image->strings) < 0)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	return 0;
}

/* What is packed says behind itself how much it will be: no more than that is unpacked. */
static int run_packed(
	struct stream *s, uint64_t max_bytes, struct hf_kernel_image *image, struct hf_error *e)
{
	uint64_t promised = 0;
	int r;

	if (s->end - s->at <= TRAILER_BYTES)
		return hf_error_set(
			e, -EBADMSG, HF_ERR_NOT_READY, NULL, NO_KERNEL ": there is nothing in it");
	if (!hf_compression_can(image->compression))
		return run_stream(s, 0, image, e); /* says why */
	r = read_trailer(s->fd, s->end, &promised, e);
	if (r < 0)
		return r;
	if (promised > max_bytes)
		return hf_error_set(e, -EFBIG, HF_ERR_NOT_READY, NULL,
			NO_KERNEL ": it would unpack to %llu MiB, and no kernel has more than %llu",
			(unsigned long long)promised >> 20, (unsigned long long)max_bytes >> 20);
	/* gzip's own last word is the size. */
	if (image->compression != HF_COMPRESSION_GZIP)
		s->end -= TRAILER_BYTES;
	r = run_stream(s, promised, image, e);
	if (r == 0 && image->kernel_bytes != promised)
		r = hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY, "copy or install it again",
			NO_KERNEL ": it unpacks to %llu bytes, and should to %llu",
			(unsigned long long)image->kernel_bytes, (unsigned long long)promised);
	return r;
}

static int look_inside(int fd, uint64_t at, uint64_t bytes, uint64_t max_bytes,
	struct hf_kernel_image *image, struct hf_error *e)
{
	struct stream s = {.fd = fd, .at = at, .end = at + bytes};
	uint8_t magic[8];
	ssize_t n = read_at(fd, magic, HF_MIN(sizeof(magic), bytes), at);
	int r;

	if (n < 0)
		return cannot_read(e, n);
	/* As long as its header says when that was read, and not any more. */
	if ((size_t)n < HF_MIN(sizeof(magic), bytes))
		return hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY, "copy or install it again",
			NO_KERNEL ": it is cut");
	image->compression = hf_compression_detect(magic, (size_t)n);
	r = hf_kernel_scan_new(&s.scan);
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "out of memory");
	if (image->compression == HF_COMPRESSION_NONE)
		r = run_stream(&s, max_bytes, image, e);
	else
		r = run_packed(&s, max_bytes, image, e);
	hf_kernel_scan_free(s.scan);
	if (r < 0)
		return r;
	image->config = unpack_config(&image->strings);
	free(image->strings.config_gz);
	image->strings.config_gz = NULL;
	image->strings.config_gz_bytes = 0;
	return 0;
}

/* ---- what is around it ---- */

static int read_head(
	int fd, uint64_t at, uint64_t bytes, uint8_t *head, size_t *ret_n, struct hf_error *e)
{
	ssize_t n = read_at(fd, head, (size_t)HF_MIN(bytes, (uint64_t)HF_BOOT_HEAD_BYTES), at);

	if (n < 0)
		return cannot_read(e, n);
	*ret_n = (size_t)n;
	return 0;
}

/* The first word of a text. */
static void copy_release(char ret[HF_KERNEL_RELEASE_BYTES], const char *text)
{
	size_t n = strcspn(text, " \t\r\n");

	snprintf(ret, HF_KERNEL_RELEASE_BYTES, "%.*s",
		(int)HF_MIN(n, (size_t)HF_KERNEL_RELEASE_BYTES - 1), text);
}

static void settle_release(struct hf_kernel_image *image)
{
	const char *banner = image->strings.banner;

	if (image->boot.version[0])
		copy_release(image->release, image->boot.version);
	else if (banner[0])
		copy_release(image->release, banner + strlen("Linux version "));
	else
		copy_release(image->release, image->uki_uname);
}

static int read_bzimage(int fd, uint64_t at, uint64_t bytes, const uint8_t *head, size_t n,
	uint64_t max_bytes, struct hf_kernel_image *image, struct hf_error *e)
{
	int r = hf_boot_parse(head, n, bytes, &image->boot, e);

	if (r < 0) {
		hf_error_prefix(e, NO_KERNEL);
		return r;
	}
	return look_inside(fd, at + image->boot.payload_offset, image->boot.payload_bytes,
		max_bytes, image, e);
}

/* A section's text, as far as there is room; "" when it can't be read. */
static void read_uname(int fd, const struct hf_pe_section *section, char *ret)
{
	char text[HF_KERNEL_RELEASE_BYTES] = "";
	ssize_t n = read_at(fd, text, HF_MIN(section->bytes, sizeof(text) - 1), section->offset);

	text[HF_MAX(n, (ssize_t)0)] = 0;
	for (char *p = text; *p; p++) {
		if (*p <= ' ' || *p > '~')
			*p = 0;
		if (!*p)
			break;
	}
	copy_release(ret, text);
}

static int read_uki(int fd, uint8_t *head, size_t n, uint64_t max_bytes,
	struct hf_kernel_image *image, struct hf_error *e)
{
	struct hf_pe_section kernel = {0}, uname = {0}, cmdline = {0}, initrd = {0};
	int r = hf_pe_find(head, n, image->file_bytes, ".linux", &kernel, e);

	if (r == 0)
		r = hf_pe_find(head, n, image->file_bytes, ".uname", &uname, e);
	if (r == 0)
		r = hf_pe_find(head, n, image->file_bytes, ".cmdline", &cmdline, e);
	if (r == 0)
		r = hf_pe_find(head, n, image->file_bytes, ".initrd", &initrd, e);
	if (r == 0 && kernel.bytes == 0)
		r = hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY, NULL,
			"it is an EFI program without a kernel in it");
	if (r < 0) {
		hf_error_prefix(e, NO_KERNEL);
		return r;
	}
	image->kind = HF_KERNEL_UKI;
	image->uki_cmdline = cmdline.bytes > 0;
	image->uki_initrd = initrd.bytes > 0;
	read_uname(fd, &uname, image->uki_uname);
	r = read_head(fd, kernel.offset, kernel.bytes, head, &n, e);
	if (r < 0)
		return r;
	return read_bzimage(fd, kernel.offset, kernel.bytes, head, n, max_bytes, image, e);
}

static int read_any(int fd, uint8_t *head, uint64_t max_bytes, struct hf_kernel_image *image,
	struct hf_error *e)
{
	size_t n = 0;
	int r = read_head(fd, 0, image->file_bytes, head, &n, e);

	if (r < 0)
		return r;
	/* A bzImage that EFI can start is an EFI program, too: look for the boot sector first. */
	if (hf_boot_is_bzimage(head, n)) {
		image->kind = HF_KERNEL_BZIMAGE;
		return read_bzimage(fd, 0, image->file_bytes, head, n, max_bytes, image, e);
	}
	if (hf_compression_detect(head, n) == HF_COMPRESSION_NONE) {
		image->kind = HF_KERNEL_ELF;
		r = look_inside(fd, 0, image->file_bytes, max_bytes, image, e);
		if (r == 0 && !image->strings.banner[0])
			r = hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY, NULL,
				NO_KERNEL ": it is an ELF file, but not of Linux");
		return r;
	}
	if (hf_pe_is(head, n))
		return read_uki(fd, head, n, max_bytes, image, e);
	return hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY,
		"give a bzImage, as distributions install it as /boot/vmlinuz-*",
		NO_KERNEL ": it is neither a bzImage nor an EFI program nor an ELF file");
}

int hf_kernel_image_read(
	int fd, uint64_t max_bytes, struct hf_kernel_image *ret, struct hf_error *e)
{
	struct hf_kernel_image image = {0};
	cleanup_free uint8_t *head = malloc(HF_BOOT_HEAD_BYTES);
	struct stat st;
	int r;

	if (!head)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	if (fstat(fd, &st) < 0)
		return cannot_read(e, -errno);
	if (!S_ISREG(st.st_mode))
		return hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY,
			"give the path of the image itself", NO_KERNEL ": it is no regular file");
	image.file_bytes = (uint64_t)st.st_size;
	r = read_any(fd, head, max_bytes, &image, e);
	if (r < 0) {
		hf_kernel_image_clear(&image);
		return r;
	}
	settle_release(&image);
	*ret = image;
	return 0;
}

void hf_kernel_image_clear(struct hf_kernel_image *image)
{
	free(image->strings.config_gz);
	free(image->config);
	*image = (struct hf_kernel_image){0};
}
