/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The ring behind all device-state streams.
 *
 * A transfer has exactly one request in the ring from its start to its end. Its buffers and its
 * structure stay until that request has come back; only then is `done` called and the structure
 * freed. Cancelling therefore means to make the request come back: the socket is shut down, which
 * ends every receive and send on it.
 *
 * The structure is in the ring's list exactly as long as its request is out.
 */
#include "memfd-preserve/stream.h"

#include <fcntl.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <xxhash.h>

#include "common/fd.h"
#include "memfd-preserve/uring.h"

/* Requests are handed over in batches of this size at most; completions have room for all. */
#define RING_SQ_ENTRIES 64
#define RING_CQ_ENTRIES 1024
#define MAX_STREAMS RING_CQ_ENTRIES
/* The kernel takes no more in one request. */
#define MAX_REQUEST_BYTES (1u << 30)
#define RETRY_USEC 1000

struct hf_stream {
	struct hf_stream_ring *ring;
	struct hf_stream *prev, *next;
	bool is_load;
	bool cancelled;
	bool probing; /* the sink is full: one byte into spare, to see whether there is more */
	uint8_t spare;
	int sock;
	struct hf_sink *sink;
	size_t chunk;  /* being filled or sent */
	uint64_t sent; /* of that chunk */
	XXH3_state_t *xxh3;
	hf_stream_grow_fn grow;
	hf_stream_done_fn done;
	void *data;
	struct hf_stream_result result;
};

struct hf_stream_ring {
	struct io_uring uring;
	sd_event *event;
	sd_event_source *wake;	/* the eventfd */
	sd_event_source *retry; /* when the kernel had no memory for a request */
	int eventfd;
	bool closing;
	struct hf_stream *streams;
	size_t n_streams;
};

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata);

/* Hand over what is queued. What the kernel doesn't take now stays queued and is tried again. */
static void submit(struct hf_stream_ring *ring)
{
	int r;

	do
		r = io_uring_submit(&ring->uring);
	while (r == -EINTR);
	if (r >= 0 && io_uring_sq_ready(&ring->uring) == 0)
		return;
	if (!ring->retry && sd_event_add_time_relative(ring->event, &ring->retry, CLOCK_MONOTONIC,
				    RETRY_USEC, 0, on_retry, ring) < 0)
		return;
	sd_event_source_set_time_relative(ring->retry, RETRY_USEC);
	sd_event_source_set_enabled(ring->retry, SD_EVENT_ONESHOT);
}

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata)
{
	submit(userdata);
	return 0;
}

static void stream_free(struct hf_stream *s)
{
	hf_close(&s->sock);
	XXH3_freeState(s->xxh3);
	free(s);
}

static void unlink_stream(struct hf_stream *s)
{
	if (s->prev)
		s->prev->next = s->next;
	else
		s->ring->streams = s->next;
	if (s->next)
		s->next->prev = s->prev;
	s->ring->n_streams--;
}

/* The end of a transfer, with whatever s->result.error says. */
static void finish(struct hf_stream *s, int err)
{
	struct hf_stream_result result;
	hf_stream_done_fn done = s->done;
	void *data = s->data;

	if (s->cancelled)
		err = hf_error_set(&s->result.error, -ECANCELED, HF_ERR_FAILED, NULL,
			"the transfer of device state was cancelled");
	else if (err < 0 && !s->result.error.err)
		hf_error_set(&s->result.error, err, HF_ERR_FAILED, NULL, "%s device state: %s",
			s->is_load ? "sending" : "receiving", strerror(-err));
	s->result.err = err;
	if (err == 0 && !s->is_load)
		s->result.xxh3 = XXH3_64bits_digest(s->xxh3);
	unlink_stream(s);
	result = s->result;
	stream_free(s);
	done(data, &result);
}

static struct io_uring_sqe *get_sqe(struct hf_stream_ring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

	if (!sqe) {
		submit(ring);
		sqe = io_uring_get_sqe(&ring->uring);
	}
	return sqe;
}

static unsigned int request_bytes(uint64_t bytes)
{
	return (unsigned int)HF_MIN(bytes, (uint64_t)MAX_REQUEST_BYTES);
}

/* Queue the one request a transfer has. Return: 0, 1 nothing left to send, -EBUSY no place. */
static int queue_request(struct hf_stream *s)
{
	struct hf_sink_chunk *c = &s->sink->chunks[s->chunk];
	struct io_uring_sqe *sqe;

	if (s->is_load) {
		while (s->chunk < s->sink->n_chunks && s->sent == c->length) {
			s->chunk++;
			s->sent = 0;
			c++;
		}
		if (s->chunk == s->sink->n_chunks)
			return 1;
	} else if (c->length == c->capacity && s->chunk + 1 < s->sink->n_chunks) {
		s->chunk++;
		c++;
	}
	sqe = get_sqe(s->ring);
	if (!sqe)
		return -EBUSY;
	s->probing = false;
	if (s->is_load) {
		io_uring_prep_send(sqe, s->sock, c->map + s->sent,
			request_bytes(c->length - s->sent), MSG_NOSIGNAL);
	} else if (c->length < c->capacity) {
		io_uring_prep_recv(sqe, s->sock, c->map + c->length,
			request_bytes(c->capacity - c->length), 0);
	} else {
		s->probing = true;
		io_uring_prep_recv(sqe, s->sock, &s->spare, 1, 0);
	}
	io_uring_sqe_set_data(sqe, s);
	return 0;
}

/* There is a byte in spare and no place for it. */
static int make_room(struct hf_stream *s)
{
	size_t had = s->sink->n_chunks;
	struct hf_sink_chunk *c;
	int r = -ENOSPC;

	if (s->grow)
		r = s->grow(s->data, s->sink, &s->result.error);
	if (r == 0 && s->sink->n_chunks <= had)
		r = -ENOSPC;
	if (r < 0) {
		if (!s->result.error.err)
			hf_error_set(&s->result.error, r, HF_ERR_FAILED, NULL,
				"device state is larger than the %llu bytes set aside for it",
				(unsigned long long)s->result.length);
		return -ENOSPC;
	}
	c = &s->sink->chunks[++s->chunk];
	c->map[0] = s->spare;
	c->length = 1;
	return 0;
}

static int on_received(struct hf_stream *s, size_t bytes)
{
	struct hf_sink_chunk *c = &s->sink->chunks[s->chunk];
	int r;

	if (s->probing) {
		r = make_room(s);
		if (r < 0)
			return r;
		XXH3_64bits_update(s->xxh3, &s->spare, 1);
	} else {
		XXH3_64bits_update(s->xxh3, c->map + c->length, bytes);
		c->length += bytes;
	}
	s->result.length += bytes;
	return 0;
}

static int at_end_of_file(struct hf_stream *s)
{
	if (s->result.length > 0)
		return 0;
	return hf_error_set(&s->result.error, -ENODATA, HF_ERR_FAILED, NULL,
		"the VMM closed the stream without sending any device state");
}

/* The request of a transfer came back. */
static void on_completion(struct hf_stream *s, int res)
{
	int r = 0;

	if (s->cancelled) {
		finish(s, -ECANCELED);
		return;
	}
	if (res < 0 && res != -EINTR && res != -EAGAIN) {
		finish(s, res);
		return;
	}
	if (res == 0) {
		finish(s, s->is_load ? -EPIPE : at_end_of_file(s));
		return;
	}
	if (res > 0 && s->is_load) {
		s->sent += (uint64_t)res;
		s->result.length += (uint64_t)res;
	} else if (res > 0) {
		r = on_received(s, (size_t)res);
	}
	if (r == 0)
		r = queue_request(s);
	if (r != 0)
		finish(s, r < 0 ? r : 0);
}

static void drain(struct hf_stream_ring *ring)
{
	struct io_uring_cqe *cqe;

	/* Taken out before it is acted on: a `done` may start and cancel others. */
	while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
		struct hf_stream *s = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&ring->uring, cqe);
		on_completion(s, res);
	}
	if (io_uring_sq_ready(&ring->uring) > 0)
		submit(ring);
}

static int on_wake(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return -errno;
	drain(userdata);
	return 0;
}

int hf_stream_ring_new(sd_event *event, struct hf_stream_ring **ret_ring, struct hf_error *e)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_CQSIZE,
		.cq_entries = RING_CQ_ENTRIES,
	};
	struct hf_stream_ring *ring = calloc(1, sizeof(*ring));
	int r;

	if (!ring)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	r = io_uring_queue_init_params(RING_SQ_ENTRIES, &ring->uring, &params);
	if (r < 0) {
		free(ring);
		return hf_uring_setup_error(r, "io_uring", e);
	}
	io_uring_ring_dontfork(&ring->uring);
	ring->event = sd_event_ref(event);
	ring->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = ring->eventfd < 0 ? -errno : io_uring_register_eventfd(&ring->uring, ring->eventfd);
	if (r >= 0)
		r = sd_event_add_io(event, &ring->wake, ring->eventfd, EPOLLIN, on_wake, ring);
	if (r < 0) {
		hf_stream_ring_free(ring);
		return hf_uring_setup_error(r, "io_uring", e);
	}
	sd_event_source_set_description(ring->wake, "device-state streams");
	*ret_ring = ring;
	return 0;
}

void hf_stream_ring_free(struct hf_stream_ring *ring)
{
	struct io_uring_cqe *cqe;

	if (!ring)
		return;
	ring->closing = true;
	for (struct hf_stream *s = ring->streams; s; s = s->next)
		hf_stream_cancel(s);
	while (ring->streams) {
		io_uring_submit_and_wait(&ring->uring, 1);
		if (io_uring_peek_cqe(&ring->uring, &cqe) == 0)
			drain(ring);
	}
	sd_event_source_disable_unref(ring->wake);
	sd_event_source_disable_unref(ring->retry);
	io_uring_queue_exit(&ring->uring);
	hf_close(&ring->eventfd);
	sd_event_unref(ring->event);
	free(ring);
}

/* Makes a transfer and puts its first request into the ring. Takes @sock, on failure too. */
static int start(struct hf_stream_ring *ring, int sock, struct hf_stream *s,
	struct hf_stream **ret_stream, struct hf_error *e)
{
	int flags, r;

	s->ring = ring;
	s->sock = sock;
	if (ring->closing || ring->n_streams >= MAX_STREAMS) {
		stream_free(s);
		return hf_error_set(
			e, -EBUSY, HF_ERR_BUSY, NULL, "no room for another state stream");
	}
	/* With O_NONBLOCK the ring would answer EAGAIN instead of waiting. */
	flags = fcntl(sock, F_GETFL);
	r = flags < 0 || fcntl(sock, F_SETFL, flags & ~O_NONBLOCK) < 0 ? -errno : 0;
	if (r == 0)
		r = queue_request(s);
	if (r < 0) {
		stream_free(s);
		return hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "starting a state stream: %s", strerror(-r));
	}
	s->next = ring->streams;
	if (s->next)
		s->next->prev = s;
	ring->streams = s;
	ring->n_streams++;
	submit(ring);
	if (ret_stream)
		*ret_stream = s;
	return 0;
}

int hf_stream_save(struct hf_stream_ring *ring, int sock_fd, struct hf_sink *sink,
	hf_stream_grow_fn grow, hf_stream_done_fn done, void *data, struct hf_stream **ret_stream,
	struct hf_error *e)
{
	struct hf_stream *s = NULL;

	if (sink->n_chunks > 0 && hf_sink_length(sink) == 0)
		s = calloc(1, sizeof(*s));
	if (s)
		s->xxh3 = XXH3_createState();
	if (!s || !s->xxh3) {
		free(s);
		hf_close(&sock_fd);
		return hf_error_set(e,
			sink->n_chunks == 0 || hf_sink_length(sink) > 0 ? -EINVAL : -ENOMEM,
			HF_ERR_FAILED, NULL, "no place to save device state in");
	}
	XXH3_64bits_reset(s->xxh3);
	s->sink = sink;
	s->grow = grow;
	s->done = done;
	s->data = data;
	return start(ring, sock_fd, s, ret_stream, e);
}

int hf_stream_load(struct hf_stream_ring *ring, int sock_fd, struct hf_sink *sink, uint64_t length,
	uint64_t xxh3, hf_stream_done_fn done, void *data, struct hf_stream **ret_stream,
	struct hf_error *e)
{
	struct hf_stream *s;

	if (length == 0 || hf_sink_length(sink) != length) {
		hf_close(&sock_fd);
		return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL,
			"device state is %llu bytes long, the manifest says %llu",
			(unsigned long long)hf_sink_length(sink), (unsigned long long)length);
	}
	if (hf_sink_xxh3(sink) != xxh3) {
		hf_close(&sock_fd);
		return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL,
			"the checksum of the device state is wrong: it did not come over intact");
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		hf_close(&sock_fd);
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	}
	s->is_load = true;
	s->sink = sink;
	s->done = done;
	s->data = data;
	s->result.xxh3 = xxh3;
	return start(ring, sock_fd, s, ret_stream, e);
}

void hf_stream_cancel(struct hf_stream *stream)
{
	if (!stream || stream->cancelled)
		return;
	stream->cancelled = true;
	shutdown(stream->sock, SHUT_RDWR);
}
