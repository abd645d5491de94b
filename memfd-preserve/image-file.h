/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Folders and files of images. For image-*.c only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

/**
 * hf_image_folder_open() - Open the folder of images.
 *
 * Return: 0; -EPERM when it is another user's or open to others; -EINVAL a @name that is none;
 * other -errno.
 */
int hf_image_folder_open(const char *folder, const char *name, int *ret_fd, struct hf_error *e);

/** hf_image_file_make() - Make the file. @ret_direct: whether it is past the page cache. */
int hf_image_file_make(int folder, const char *name, bool buffered, int *ret_fd, bool *ret_direct,
	struct hf_error *e);

/** hf_image_file_open() - Open an image for reading. -EPERM when others can get at it. */
int hf_image_file_open(int folder, const char *name, bool buffered, int *ret_fd, bool *ret_direct,
	uint64_t *ret_size, struct hf_error *e);

/** hf_image_pages_new() - Memory for direct I/O, zero. Freed with hf_image_pages_free(). */
int hf_image_pages_new(size_t bytes, void **ret, struct hf_error *e);

/** hf_image_pages_free() - Free it. NULL is fine. */
void hf_image_pages_free(void *pages, size_t bytes);

/** hf_image_write() - Write whole pages. */
int hf_image_write(int fd, const void *data, size_t bytes, uint64_t offset, struct hf_error *e);

/** hf_image_read() - Read whole pages. -EBADMSG when the file ends before. */
int hf_image_read(int fd, void *data, size_t bytes, uint64_t offset, struct hf_error *e);
