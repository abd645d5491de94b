/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/image-file.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "memfd-preserve/image.h"

int hf_image_folder_open(const char *folder, const char *name, int *ret_fd, struct hf_error *e)
{
	cleanup_close int fd = -EBADF;
	struct stat st;

	if (!name[0] || name[0] == '.' || strchr(name, '/') || strlen(name) > NAME_MAX)
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID, NULL,
			"an image can't have the name `%.64s`", name);
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		int r = -errno;

		return hf_error_set(e, r, HF_ERR_NOT_READY, "make it, with mode 0700",
			"the folder of images, %s: %s", folder, strerror(-r));
	}
	if (st.st_uid != geteuid() || st.st_mode & 077)
		return hf_error_set(e, -EPERM, HF_ERR_NOT_READY,
			"give it to root and set its mode to 0700",
			"the folder of images, %s, is open to others: it belongs to user %u and "
			"has mode %04o",
			folder, (unsigned int)st.st_uid, (unsigned int)st.st_mode & 07777);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Past the page cache, if the file system can. */
static bool set_direct(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && fcntl(fd, F_SETFL, flags | O_DIRECT) == 0;
}

static void set_buffered(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0)
		fcntl(fd, F_SETFL, flags & ~O_DIRECT);
}

int hf_image_file_make(int folder, const char *name, bool buffered, int *ret_fd, bool *ret_direct,
	struct hf_error *e)
{
	cleanup_close int fd =
		openat(folder, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	void *page = NULL;
	int r;

	if (fd < 0) {
		r = -errno;
		return hf_error_set(e, r, HF_ERR_FAILED,
			r == -EEXIST ? "remove it if it is of no use any more" : NULL,
			"making the image %s: %s", name, strerror(-r));
	}
	r = hf_image_pages_new(HF_IMAGE_PAGE_BYTES, &page, e);
	if (r < 0)
		goto remove;
	*ret_direct = !buffered && set_direct(fd);
	/* Some file systems take the flag and then want what we don't have. */
	if (*ret_direct && pwrite(fd, page, HF_IMAGE_PAGE_BYTES, 0) < 0 && errno == EINVAL) {
		set_buffered(fd);
		*ret_direct = false;
	}
	hf_image_pages_free(page, HF_IMAGE_PAGE_BYTES);
	if (fchmod(fd, 0600) < 0 || fsync(folder) < 0) {
		r = hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "making the image %s: %s", name,
			strerror(errno));
		goto remove;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
remove:
	unlinkat(folder, name, 0);
	return r;
}

int hf_image_file_open(int folder, const char *name, bool buffered, int *ret_fd, bool *ret_direct,
	uint64_t *ret_size, struct hf_error *e)
{
	cleanup_close int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	void *page = NULL;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0) {
		r = -errno;
		return hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "opening the image %s: %s", name, strerror(-r));
	}
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077)
		return hf_error_set(e, -EPERM, HF_ERR_FAILED,
			"find out who wrote it before you believe what is in it",
			"the image %s is not a file of this user alone", name);
	r = hf_image_pages_new(HF_IMAGE_PAGE_BYTES, &page, e);
	if (r < 0)
		return r;
	*ret_direct = !buffered && set_direct(fd);
	if (*ret_direct && pread(fd, page, HF_IMAGE_PAGE_BYTES, 0) < 0 && errno == EINVAL) {
		set_buffered(fd);
		*ret_direct = false;
	}
	hf_image_pages_free(page, HF_IMAGE_PAGE_BYTES);
	*ret_size = (uint64_t)st.st_size;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int hf_image_pages_new(size_t bytes, void **ret, struct hf_error *e)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	*ret = p;
	return 0;
}

void hf_image_pages_free(void *pages, size_t bytes)
{
	if (pages)
		munmap(pages, bytes);
}

int hf_image_write(int fd, const void *data, size_t bytes, uint64_t offset, struct hf_error *e)
{
	const uint8_t *p = data;

	while (bytes > 0) {
		ssize_t n = pwrite(fd, p, bytes, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int r = n < 0 ? -errno : -ENOSPC;

			return hf_error_set(e, r, HF_ERR_FAILED,
				r == -ENOSPC ? "make room on the file system of the images"
					     : "look at the kernel's log for the disk",
				"writing the image at offset %llu: %s", (unsigned long long)offset,
				strerror(-r));
		}
		p += n;
		offset += (uint64_t)n;
		bytes -= (size_t)n;
	}
	return 0;
}

int hf_image_read(int fd, void *data, size_t bytes, uint64_t offset, struct hf_error *e)
{
	uint8_t *p = data;

	while (bytes > 0) {
		ssize_t n = pread(fd, p, bytes, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return hf_error_set(e, -errno, HF_ERR_FAILED,
				"look at the kernel's log for the disk",
				"reading the image at offset %llu: %s", (unsigned long long)offset,
				strerror(errno));
		if (n == 0)
			return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL,
				"the image is damaged: it is cut short at offset %llu",
				(unsigned long long)offset);
		p += n;
		offset += (uint64_t)n;
		bytes -= (size_t)n;
	}
	return 0;
}
