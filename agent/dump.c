/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/dump.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "memfd-preserve/elf-core.h"
#include "vmm-glue/cpu-notes.h"
#include "vmm-glue/layout.h"

#define PAGE 4096u

static void HF_PRINTF(2, 3) missing(struct hf_dump *d, const char *fmt, ...)
{
	va_list ap;

	if (d->n_missing == HF_DUMP_MAX_MISSING)
		return;
	va_start(ap, fmt);
	vsnprintf(d->missing[d->n_missing++], sizeof(d->missing[0]), fmt, ap);
	va_end(ap);
}

/* ---- the device state ---- */

/* Its chunks, one behind the other. */
struct state {
	uint8_t *data;
	size_t size;
	size_t mapped;
};

static void unmap_state(struct state *s)
{
	if (s->mapped > 0)
		munmap(s->data, s->mapped);
	*s = (struct state){0};
}

static int map_state(const struct hf_manifest_guest *g, const int *fds, struct state *ret)
{
	uint64_t size = 0, at = 0;
	void *data;

	for (size_t i = 0; i < g->n_state; i++) {
		/* Nothing may lie between two of them. */
		if (i + 1 < g->n_state && g->state[i].length % PAGE != 0)
			return -EBADMSG;
		if (__builtin_add_overflow(size, g->state[i].length, &size))
			return -EBADMSG;
	}
	if (size == 0 || size > SIZE_MAX / 2)
		return -ENODATA;
	data = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (data == MAP_FAILED)
		return -errno;
	*ret = (struct state){.data = data, .size = size, .mapped = size};
	for (size_t i = 0; i < g->n_state; i++) {
		uint64_t have = 0, length = g->state[i].length;

		/* Behind a file's end there is only SIGBUS. */
		if (hf_fd_inode(fds[i], &(struct hf_inode){0}, &have) < 0 || have < length)
			return -EBADMSG;
		if (length > 0 && mmap(ret->data + at, length, PROT_READ, MAP_SHARED | MAP_FIXED,
					  fds[i], 0) == MAP_FAILED)
			return -errno;
		at += length;
	}
	return 0;
}

static const char *why_not(int r)
{
	switch (r) {
	case -ENODATA:
		return "it has no description of itself";
	case -ENOENT:
		return "it has no vCPU of a known kind";
	case -ENOTUNIQ:
		return "more than one place in it looks like a vCPU";
	case -EBADMSG:
		return "it makes no sense";
	default:
		return strerror(-r);
	}
}

/* ---- the parts ---- */

static void add_segments(struct hf_dump *d, const int *ram, const struct hf_layout *layout,
	struct hf_core_segment *segments)
{
	for (size_t i = 0; i < layout->n_ranges; i++) {
		const struct hf_layout_range *range = &layout->ranges[i];

		segments[i] = (struct hf_core_segment){
			.fd = ram[range->block],
			.offset = range->offset,
			.size = range->size,
			.address = range->address,
		};
		d->ram_bytes += range->size;
	}
	if (layout->unknown[0])
		missing(d, "addresses: %s. They are offsets in its RAM instead", layout->unknown);
}

static int write_parts(
	struct hf_dump *d, int out, const int *ram, const struct hf_vmdesc *desc, bool ran)
{
	const struct hf_manifest_guest *g = hf_incoming_guest(d->in);
	struct hf_core_segment segments[HF_LAYOUT_MAX_RANGES];
	struct hf_core_notes notes = {0};
	struct hf_layout layout;
	struct hf_core core = {
		.segments = segments,
		.notes = &notes,
		.done_bytes = &d->done_bytes,
		.cancel = &d->cancel,
	};
	int r = hf_layout_get(g, desc, &layout);

	if (r < 0)
		return hf_error_set(&d->error, r, HF_ERR_FAILED, NULL, "out of memory");
	add_segments(d, ram, &layout, segments);
	core.n_segments = layout.n_ranges;
	if (ran) {
		missing(d, "registers: it was let run after its device state was saved");
	} else if (desc) {
		r = hf_cpu_notes_add(desc, &notes, &d->n_cpus);
		if (r < 0)
			missing(d, "registers: its device state can't be read: %s", why_not(r));
	}
	r = hf_core_write(out, &core, &d->data_bytes, &d->error);
	hf_core_notes_clear(&notes);
	return r;
}

static int write_core(struct hf_dump *d, int out, const int *ram, const int *state_fds, bool ran)
{
	cleanup_vmdesc struct hf_vmdesc *desc = NULL;
	struct state state = {0};
	int r = -ENODATA;

	if (state_fds)
		r = map_state(hf_incoming_guest(d->in), state_fds, &state);
	if (r == 0)
		r = hf_vmdesc_parse(state.data, state.size, &desc);
	if (r < 0 && !ran)
		missing(d, "registers: its device state can't be read: %s",
			hf_incoming_guest(d->in)->not_saved ? "it could not be saved"
			: state_fds			    ? why_not(r)
							    : "it could not be retrieved");
	r = write_parts(d, out, ram, desc, ran);
	unmap_state(&state);
	return r;
}

/* ---- the file ---- */

static int create(struct hf_dump *d, int *ret_folder, const char **ret_name, int *ret_fd)
{
	cleanup_close int folder = -EBADF;
	const char *slash = strrchr(d->path, '/');
	char dir[4096];
	int fd;

	if (!slash)
		return hf_error_set(&d->error, -EINVAL, HF_ERR_INVALID, NULL,
			"`%.200s` is not an absolute path", d->path);
	if (snprintf(dir, sizeof(dir), "%.*s/", (int)(slash - d->path), d->path) >=
		(int)sizeof(dir))
		return hf_error_set(
			&d->error, -ENAMETOOLONG, HF_ERR_INVALID, NULL, "the path is too long");
	folder = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		return hf_error_set(&d->error, -errno, HF_ERR_INVALID, NULL, "%.200s: %s", dir,
			strerror(errno));
	fd = openat(folder, slash + 1, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return hf_error_set(&d->error, -errno, HF_ERR_INVALID,
			errno == EEXIST ? "remove it first, or take another name" : NULL,
			"%.200s: %s", d->path, strerror(errno));
	*ret_folder = TAKE_FD(folder);
	*ret_name = slash + 1;
	*ret_fd = fd;
	return 0;
}

/* Only what was made here, whatever has that name by now. */
static void undo_create(int folder, const char *name, int fd)
{
	struct stat ours, theirs;

	if (fstat(fd, &ours) == 0 && fstatat(folder, name, &theirs, AT_SYMLINK_NOFOLLOW) == 0 &&
		ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino)
		unlinkat(folder, name, 0);
}

int hf_dump_run(struct hf_dump *d)
{
	cleanup_close int folder = -EBADF, fd = -EBADF;
	const int *ram = NULL, *state_fds = NULL;
	const char *name = "";
	bool ran = false;
	int r;

	r = hf_incoming_open_files(d->in, &ram, &state_fds, &ran, &d->error);
	if (r == 0)
		r = create(d, &folder, &name, &fd);
	if (r < 0)
		return r;
	r = write_core(d, fd, ram, state_fds, ran);
	if (r < 0)
		undo_create(folder, name, fd);
	return r;
}
