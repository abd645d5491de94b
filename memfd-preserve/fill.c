/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/fill.h"

#include <sys/mman.h>

#include "common/cleanup.h"

#define WINDOW (2ULL << 20)

/* One window of the file, mapped where a whole large page fits. */
static int fill_window(int fd, uint64_t offset, void *at)
{
	void *map =
		mmap(at, WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)offset);

	if (map == MAP_FAILED)
		return -errno;
	/* Refused where large pages are off: then the kernel's own filling is as good. */
	if (madvise(map, WINDOW, MADV_HUGEPAGE) < 0 ||
		madvise(map, WINDOW, MADV_POPULATE_WRITE) < 0)
		return -errno;
	return 0;
}

static int fill_holes(int fd, uint64_t size, void *at)
{
	uint64_t offset = 0;
	int r = 0;

	while (r == 0) {
		off_t hole = lseek(fd, (off_t)offset, SEEK_HOLE);

		if (hole < 0)
			return errno == ENXIO ? 0 : -errno;
		offset = (uint64_t)hole & ~(WINDOW - 1);
		/* The end of the file counts as a hole; what doesn't fill a window is left to the
		 * kernel. */
		if (offset + WINDOW > size)
			return 0;
		r = fill_window(fd, offset, at);
		offset += WINDOW;
	}
	return r;
}

int hf_memfd_fill(int fd, uint64_t size)
{
	uint8_t *room = mmap(
		NULL, 2 * WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int r;

	if (room == MAP_FAILED)
		return -errno;
	r = fill_holes(
		fd, size, (void *)(((uintptr_t)room + WINDOW - 1) & ~(uintptr_t)(WINDOW - 1)));
	munmap(room, 2 * WINDOW);
	return r;
}
