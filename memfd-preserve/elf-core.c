/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/elf-core.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE 4096u
#define BUFFER (1u << 20)

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

int hf_core_notes_add(struct hf_core_notes *notes, const char *name, uint32_t type,
	const void *contents, size_t size)
{
	const Elf64_Nhdr header = {
		.n_namesz = (Elf64_Word)strlen(name) + 1,
		.n_descsz = (Elf64_Word)size,
		.n_type = type,
	};
	size_t name_bytes = round_up(header.n_namesz, 4);
	size_t more = sizeof(header) + name_bytes + round_up(size, 4);
	uint8_t *data;

	if (size > HF_CORE_MAX_NOTE_BYTES || more > HF_CORE_MAX_NOTE_BYTES - notes->size)
		return -EFBIG;
	data = realloc(notes->data, notes->size + more);
	if (!data)
		return -ENOMEM;
	notes->data = data;
	data += notes->size;
	memset(data, 0, more);
	memcpy(data, &header, sizeof(header));
	memcpy(data + sizeof(header), name, header.n_namesz);
	memcpy(data + sizeof(header) + name_bytes, contents, size);
	notes->size += more;
	return 0;
}

void hf_core_notes_clear(struct hf_core_notes *notes)
{
	free(notes->data);
	*notes = (struct hf_core_notes){0};
}

/* ---- memory ---- */

struct writer {
	const struct hf_core *core;
	int out;
	uint8_t *buffer;
	uint64_t data_bytes;
	struct hf_error *error;
};

static int write_at(struct writer *w, const void *data, size_t size, uint64_t at)
{
	const uint8_t *p = data;

	while (size > 0) {
		ssize_t n = pwrite(w->out, p, size, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return hf_error_set(w->error, n < 0 ? -errno : -EIO, HF_ERR_FAILED,
				n < 0 && (errno == ENOSPC || errno == EDQUOT)
					? "write it where there is more room"
					: NULL,
				"can't write the file: %s", strerror(n < 0 ? errno : EIO));
		p += n;
		at += (uint64_t)n;
		size -= (size_t)n;
	}
	return 0;
}

static int read_at(struct writer *w, int fd, size_t size, uint64_t at)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = pread(fd, w->buffer + have, size - have, (off_t)(at + have));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return hf_error_set(w->error, n < 0 ? -errno : -EBADMSG, HF_ERR_FAILED,
				NULL, "can't read the memory: %s",
				n < 0 ? strerror(errno) : "it is shorter than it should be");
		have += (size_t)n;
	}
	return 0;
}

static bool is_zero(const uint8_t *p, size_t size)
{
	return p[0] == 0 && memcmp(p, p + 1, size - 1) == 0;
}

/* What is in the buffer, but for its pages of zeros. */
static int write_pages(struct writer *w, size_t size, uint64_t at)
{
	size_t begin = 0, end;
	int r = 0;

	while (r == 0 && begin < size) {
		size_t page = HF_MIN((size_t)PAGE, size - begin);

		if (is_zero(w->buffer + begin, page)) {
			begin += page;
			continue;
		}
		for (end = begin + page; end < size; end += page) {
			page = HF_MIN((size_t)PAGE, size - end);
			if (is_zero(w->buffer + end, page))
				break;
		}
		r = write_at(w, w->buffer + begin, end - begin, at + begin);
		w->data_bytes += end - begin;
		begin = end;
	}
	return r;
}

static void advance(struct writer *w, uint64_t bytes)
{
	if (w->core->done_bytes)
		atomic_fetch_add(w->core->done_bytes, bytes);
}

/* The next part of a file that may have data: [*begin, *end), within the same bounds. */
static bool next_data(int fd, uint64_t *begin, uint64_t *end)
{
	off_t data = lseek(fd, (off_t)*begin, SEEK_DATA);
	off_t hole;

	if (data < 0)
		/* ENXIO: no more. Else it is not said where: all of it. */
		return errno != ENXIO;
	if ((uint64_t)data >= *end)
		return false;
	*begin = (uint64_t)data;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole > data && (uint64_t)hole < *end)
		*end = (uint64_t)hole;
	return true;
}

static int copy_data(
	struct writer *w, int fd, uint64_t begin, uint64_t end, uint64_t from, uint64_t to)
{
	int r = 0;

	while (r == 0 && begin < end) {
		size_t size = (size_t)HF_MIN((uint64_t)BUFFER, end - begin);

		if (w->core->cancel && atomic_load(w->core->cancel))
			return hf_error_set(
				w->error, -ECANCELED, HF_ERR_FAILED, NULL, "it was interrupted");
		r = read_at(w, fd, size, begin);
		if (r == 0)
			r = write_pages(w, size, to + (begin - from));
		begin += size;
		advance(w, size);
	}
	return r;
}

static int write_segment(struct writer *w, const struct hf_core_segment *s, uint64_t to)
{
	cleanup_close int fd = -EBADF;
	uint64_t at = s->offset, end = s->offset + s->size;
	char path[64];
	struct stat st;
	int r = 0;

	/* A position of its own, and no way to write. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return hf_error_set(w->error, -errno, HF_ERR_FAILED, NULL,
			"can't open the memory to read it: %s", strerror(errno));
	/* Behind its end there would be no data, as in a hole. */
	if (fstat(fd, &st) < 0 || st.st_size < 0 || (uint64_t)st.st_size < end)
		return hf_error_set(w->error, -EBADMSG, HF_ERR_FAILED, NULL,
			"the memory is shorter than it should be");
	while (r == 0 && at < end) {
		uint64_t data = at, data_end = end;

		if (!next_data(fd, &data, &data_end)) {
			advance(w, end - at);
			break;
		}
		advance(w, data - at);
		r = copy_data(w, fd, data, data_end, s->offset, to);
		at = data_end;
	}
	return r;
}

/* ---- headers ---- */

/* Bytes in front of the first segment. */
static size_t head_size(const struct hf_core *core)
{
	return round_up(sizeof(Elf64_Ehdr) + (core->n_segments + 1) * sizeof(Elf64_Phdr) +
				core->notes->size,
		PAGE);
}

static int write_head(struct writer *w)
{
	const struct hf_core *core = w->core;
	size_t table = (core->n_segments + 1) * sizeof(Elf64_Phdr);
	cleanup_free uint8_t *head = calloc(1, head_size(core));
	Elf64_Ehdr elf = {
		.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT,
			ELFOSABI_NONE},
		.e_type = ET_CORE,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = (Elf64_Half)(core->n_segments + 1),
	};
	Elf64_Phdr p = {
		.p_type = PT_NOTE,
		.p_offset = sizeof(elf) + table,
		.p_filesz = core->notes->size,
	};
	uint64_t at = head_size(core);

	if (!head)
		return hf_error_set(w->error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	memcpy(head + sizeof(elf), &p, sizeof(p));
	for (size_t i = 0; i < core->n_segments; i++) {
		const struct hf_core_segment *s = &core->segments[i];

		p = (Elf64_Phdr){
			.p_type = PT_LOAD,
			.p_flags = PF_R | PF_W | PF_X,
			.p_offset = at,
			.p_vaddr = s->address,
			.p_paddr = s->address,
			.p_filesz = s->size,
			.p_memsz = s->size,
		};
		memcpy(head + sizeof(elf) + (i + 1) * sizeof(p), &p, sizeof(p));
		at += round_up(s->size, PAGE);
	}
	if (core->notes->size > 0)
		memcpy(head + sizeof(elf) + table, core->notes->data, core->notes->size);
	memcpy(head, &elf, sizeof(elf));
	return write_at(w, head, head_size(core), 0);
}

static int sync_out(struct writer *w)
{
	if (fsync(w->out) < 0)
		return hf_error_set(w->error, -errno, HF_ERR_FAILED, NULL,
			"can't write the file: %s", strerror(errno));
	return 0;
}

int hf_core_write(int out, const struct hf_core *core, uint64_t *ret_data_bytes, struct hf_error *e)
{
	cleanup_free uint8_t *buffer = malloc(BUFFER);
	struct writer w = {.core = core, .out = out, .buffer = buffer, .error = e};
	uint64_t at = head_size(core), size = at;
	int r = 0;

	if (!buffer)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	if (core->n_segments > HF_CORE_MAX_SEGMENTS)
		return hf_error_set(e, -E2BIG, HF_ERR_FAILED, NULL, "too many pieces of memory");
	for (size_t i = 0; i < core->n_segments; i++)
		size += round_up(core->segments[i].size, PAGE);
	if (ftruncate(out, (off_t)size) < 0)
		return hf_error_set(e, -errno, HF_ERR_FAILED,
			"write it to a file system that takes files of this size",
			"can't make a file of %llu bytes: %s", (unsigned long long)size,
			strerror(errno));
	for (size_t i = 0; r == 0 && i < core->n_segments; i++) {
		r = write_segment(&w, &core->segments[i], at);
		at += round_up(core->segments[i].size, PAGE);
	}
	/* Not before the rest: whoever finds an ELF file finds a whole one. */
	if (r == 0)
		r = sync_out(&w);
	if (r == 0)
		r = write_head(&w);
	if (r == 0)
		r = sync_out(&w);
	if (r == 0 && ret_data_bytes)
		*ret_data_bytes = w.data_bytes;
	return r;
}
