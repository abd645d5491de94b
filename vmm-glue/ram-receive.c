/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/ram-receive.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "common/worker.h"
#include "memfd-preserve/stream.h"
#include "vmm-glue/ram-stream.h"

#define BUFFER_BYTES (1u << 20)
#define PAGE_BYTES ((uint64_t)HF_RAM_STREAM_PAGE)
/* As QEMU maps it: a file's large pages are only made where one fits whole. */
#define ALIGN_BYTES (2ULL << 20)

struct dest {
	uint8_t *room; /* the reservation around @map */
	uint8_t *map;
	uint64_t size;
	uint8_t *seen;	/* a bit a page: it came */
	uint8_t *dirty; /* it is not a hole any more */
};

struct hf_ram_receiver {
	struct dest dests[HF_MANIFEST_MAX_RAM];
	size_t n_dests;
	struct hf_ram_stream *stream;
	struct hf_sink sink;
	int state_fds[HF_SINK_MAX_CHUNKS];
	int sock;
	atomic_bool cancelled;
	bool running;
	hf_ram_receiver_done_fn done;
	void *data;
	struct hf_error error;
};

/* ---- in the thread ---- */

static bool test_and_set(uint8_t *bits, uint64_t page)
{
	uint8_t bit = (uint8_t)(1u << (page % 8));
	bool was = bits[page / 8] & bit;

	bits[page / 8] |= bit;
	return was;
}

static int on_page(void *data, size_t block, uint64_t offset, const uint8_t *bytes)
{
	struct hf_ram_receiver *r = data;
	struct dest *d = &r->dests[block];

	test_and_set(d->seen, offset / PAGE_BYTES);
	test_and_set(d->dirty, offset / PAGE_BYTES);
	memcpy(d->map + offset, bytes, PAGE_BYTES);
	return 0;
}

/* What was never written is a hole, and reads as zero: it need not take memory. */
static int on_zero(void *data, size_t block, uint64_t offset)
{
	struct hf_ram_receiver *r = data;
	struct dest *d = &r->dests[block];
	uint64_t page = offset / PAGE_BYTES;

	test_and_set(d->seen, page);
	if (d->dirty[page / 8] & (1u << (page % 8)))
		memset(d->map + offset, 0, PAGE_BYTES);
	return 0;
}

static int add_chunk(struct hf_ram_receiver *r, uint64_t capacity, struct hf_error *e)
{
	cleanup_close int fd = -EBADF;
	size_t i = r->sink.n_chunks;
	int err;

	if (i == HF_SINK_MAX_CHUNKS || hf_sink_length(&r->sink) >= HF_RAM_RECEIVER_MAX_STATE)
		return hf_error_set(e, -EFBIG, HF_ERR_FAILED,
			"try again when its display stands still, or shut it down for the update",
			"the guest's device state, video memory included, is more than %llu MiB",
			HF_RAM_RECEIVER_MAX_STATE >> 20);
	err = hf_memfd_new("holdfast:state", capacity, &fd);
	if (err < 0)
		return hf_error_set(e, err, HF_ERR_FAILED, "free memory",
			"can't make a memfd for the device state: %s", strerror(-err));
	err = hf_sink_add(&r->sink, fd, capacity, 0, e);
	if (err == 0)
		r->state_fds[i] = TAKE_FD(fd);
	return err;
}

static int on_pass(void *data, const uint8_t *bytes, size_t size)
{
	struct hf_ram_receiver *r = data;

	while (size > 0) {
		struct hf_sink_chunk *c = &r->sink.chunks[r->sink.n_chunks - 1];
		size_t n = (size_t)HF_MIN(c->capacity - c->length, (uint64_t)size);

		if (n == 0) {
			int err = add_chunk(r, c->capacity * 2, &r->error);

			if (err < 0)
				return err;
			continue;
		}
		memcpy(c->map + c->length, bytes, n);
		c->length += n;
		bytes += n;
		size -= n;
	}
	return 0;
}

static const struct hf_ram_stream_ops stream_ops = {
	.page = on_page, .zero = on_zero, .pass = on_pass};

/* A page that never came would be one of zeros: whatever the reason, not this guest's RAM. */
static int check_complete(struct hf_ram_receiver *r)
{
	uint64_t missing = 0;

	for (size_t i = 0; i < r->n_dests; i++)
		for (uint64_t p = 0; p < r->dests[i].size / PAGE_BYTES; p++)
			missing += !(r->dests[i].seen[p / 8] & (1u << (p % 8)));
	if (missing > 0)
		return hf_error_set(&r->error, -EBADMSG, HF_ERR_FAILED,
			"switch free page hinting off, or shut it down for the update",
			"QEMU left %" PRIu64 " pages of RAM out of its migration", missing);
	return 0;
}

static int copy_all(struct hf_ram_receiver *r, uint8_t *buffer)
{
	for (;;) {
		ssize_t n = recv(r->sock, buffer, BUFFER_BYTES, 0);
		int err;

		if (atomic_load(&r->cancelled))
			return hf_error_set(&r->error, -ECANCELED, HF_ERR_FAILED, NULL,
				"the copy of its RAM was cancelled");
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return hf_error_set(&r->error, -errno, HF_ERR_FAILED, NULL,
				"receiving its RAM: %s", strerror(errno));
		if (n == 0)
			break;
		err = hf_ram_stream_feed(r->stream, buffer, (size_t)n, &r->error);
		if (err < 0)
			return err;
	}
	return hf_ram_stream_end(r->stream, &r->error);
}

static int run(void *data)
{
	struct hf_ram_receiver *r = data;
	cleanup_free uint8_t *buffer = malloc(BUFFER_BYTES);
	int err;

	if (!buffer)
		err = hf_error_set(&r->error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	else
		err = copy_all(r, buffer);
	if (err == 0)
		err = check_complete(r);
	if (err < 0)
		shutdown(r->sock, SHUT_RDWR);
	return err;
}

/* ---- on the loop ---- */

static void on_done(void *data, int result)
{
	struct hf_ram_receiver *r = data;
	hf_ram_receiver_done_fn done = r->done;

	r->running = false;
	hf_close(&r->sock);
	if (result < 0 && !r->error.err)
		hf_error_set(&r->error, result, HF_ERR_FAILED, NULL, "receiving its RAM: %s",
			strerror(-result));
	done(r->data, result < 0 ? &r->error : NULL);
}

int hf_ram_receiver_start(struct hf_ram_receiver *r, sd_event *event, int sock,
	hf_ram_receiver_done_fn done, void *data)
{
	int err;

	r->sock = sock;
	r->done = done;
	r->data = data;
	r->running = true;
	err = hf_worker_run(event, run, on_done, r);
	if (err < 0) {
		r->running = false;
		hf_close(&r->sock);
	}
	return err;
}

void hf_ram_receiver_cancel(struct hf_ram_receiver *r)
{
	if (!r || !r->running)
		return;
	atomic_store(&r->cancelled, true);
	shutdown(r->sock, SHUT_RDWR);
}

static int map_dest(struct dest *d, const struct hf_ram_dest *from)
{
	uint64_t bits = from->size / PAGE_BYTES / 8 + 1;
	void *at;

	d->size = from->size;
	d->seen = calloc(1, bits);
	d->dirty = calloc(1, bits);
	if (!d->seen || !d->dirty)
		return -ENOMEM;
	d->room = mmap(NULL, from->size + ALIGN_BYTES, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (d->room == MAP_FAILED) {
		d->room = NULL;
		return -errno;
	}
	at = (void *)(((uintptr_t)d->room + ALIGN_BYTES - 1) & ~(uintptr_t)(ALIGN_BYTES - 1));
	d->map = mmap(at, from->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, from->fd, 0);
	if (d->map == MAP_FAILED)
		return -errno;
	/* Refused where there are none. */
	madvise(d->map, from->size, MADV_HUGEPAGE);
	return 0;
}

static int map_all(struct hf_ram_receiver *r, const struct hf_ram_dest *dests, size_t n,
	struct hf_error *error)
{
	for (; r->n_dests < n; r->n_dests++) {
		const struct hf_ram_dest *from = &dests[r->n_dests];
		struct hf_inode inode;
		uint64_t size = 0;
		int err = hf_fd_inode(from->fd, &inode, &size);

		if (err == 0 && (size < from->size || from->size % PAGE_BYTES != 0))
			err = -EINVAL;
		if (err == 0)
			err = map_dest(&r->dests[r->n_dests], from);
		if (err < 0) {
			r->n_dests++;
			return hf_error_set(error, err, HF_ERR_FAILED, "free memory",
				"mapping RAM block %s: %s", from->id, strerror(-err));
		}
	}
	return 0;
}

int hf_ram_receiver_new(const struct hf_ram_dest *dests, size_t n_dests, uint64_t state_bytes,
	struct hf_ram_receiver **ret, struct hf_error *error)
{
	struct hf_ram_stream_block blocks[HF_MANIFEST_MAX_RAM];
	struct hf_ram_receiver *r;
	int err;

	if (n_dests == 0 || n_dests > HF_MANIFEST_MAX_RAM)
		return hf_error_set(
			error, -EINVAL, HF_ERR_FAILED, NULL, "it has %zu RAM blocks", n_dests);
	r = calloc(1, sizeof(*r));
	if (!r)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	r->sock = -EBADF;
	for (size_t i = 0; i < HF_SINK_MAX_CHUNKS; i++)
		r->state_fds[i] = -EBADF;
	for (size_t i = 0; i < n_dests; i++)
		blocks[i] = (struct hf_ram_stream_block){dests[i].id, dests[i].size};
	err = hf_ram_stream_new(blocks, n_dests, &stream_ops, r, &r->stream);
	if (err < 0)
		hf_error_set(error, err, HF_ERR_FAILED, NULL, "out of memory");
	if (err == 0)
		err = map_all(r, dests, n_dests, error);
	if (err == 0)
		err = add_chunk(r, state_bytes, error);
	if (err < 0) {
		hf_ram_receiver_free(r);
		return err;
	}
	*ret = r;
	return 0;
}

int hf_ram_receiver_take_state(
	struct hf_ram_receiver *r, struct hf_manifest_guest *guest, int *ret_fds)
{
	static_assert(HF_SINK_MAX_CHUNKS <= HF_MANIFEST_MAX_CHUNKS, "they fit");

	for (size_t i = 0; i < r->sink.n_chunks; i++) {
		struct hf_manifest_chunk *chunk = hf_manifest_add_chunk(guest);

		if (!chunk)
			return -ENOMEM;
		chunk->capacity = r->sink.chunks[i].capacity;
		chunk->length = r->sink.chunks[i].length;
	}
	for (size_t i = 0; i < r->sink.n_chunks; i++)
		ret_fds[i] = TAKE_FD(r->state_fds[i]);
	guest->state_length = hf_sink_length(&r->sink);
	guest->state_xxh3 = hf_sink_xxh3(&r->sink);
	return 0;
}

void hf_ram_receiver_free(struct hf_ram_receiver *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n_dests; i++) {
		struct dest *d = &r->dests[i];

		if (d->room)
			munmap(d->room, d->size + ALIGN_BYTES);
		free(d->seen);
		free(d->dirty);
	}
	hf_ram_stream_free(r->stream);
	hf_sink_release(&r->sink);
	for (size_t i = 0; i < HF_SINK_MAX_CHUNKS; i++)
		hf_close(&r->state_fds[i]);
	free(r);
}
