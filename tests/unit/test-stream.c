/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Device-state streams between socketpairs and memfds, with VMMs played by threads.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>

#include <liburing.h>
#include <xxhash.h>

#include "common/fd.h"
#include "memfd-preserve/stream.h"

#define KIB 1024ULL

/* One transfer as its owner sees it. */
struct transfer {
	struct hf_sink sink;
	struct hf_stream *stream;
	struct hf_stream_result result;
	int done; /* times called */
	int grown;
	int grow_error;
	uint64_t grow_bytes;
	struct hf_stream *cancel_in_done; /* another one to cancel */
};

/* What the other end does, in a thread. */
struct peer {
	pthread_t thread;
	int sock;
	uint64_t bytes;
	uint64_t step; /* bytes a call */
	unsigned int seed;
	unsigned int usec; /* pause between calls */
	uint64_t xxh3, got;
};

static sd_event *event;
static struct hf_stream_ring *ring;

static int setup(void **state)
{
	struct hf_error e = {0};

	if (sd_event_new(&event) < 0)
		return -1;
	if (hf_stream_ring_new(event, &ring, &e) < 0) {
		fprintf(stderr, "%s: %s\n", e.message, e.remedy);
		return -1;
	}
	return 0;
}

static int teardown(void **state)
{
	hf_stream_ring_free(ring);
	ring = NULL;
	event = sd_event_unref(event);
	return 0;
}

static void fill(uint8_t *p, uint64_t bytes, unsigned int seed)
{
	for (uint64_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
}

static uint64_t expected_xxh3(uint64_t bytes, unsigned int seed)
{
	cleanup_free uint8_t *p = malloc(bytes);

	fill(p, bytes, seed);
	return XXH3_64bits(p, bytes);
}

static void *writer_main(void *data)
{
	struct peer *peer = data;
	cleanup_free uint8_t *p = malloc(peer->bytes);

	fill(p, peer->bytes, peer->seed);
	for (uint64_t at = 0; at < peer->bytes; at += peer->step) {
		if (hf_fd_write_full(peer->sock, p + at, HF_MIN(peer->step, peer->bytes - at)) < 0)
			break;
		if (peer->usec)
			usleep(peer->usec);
	}
	hf_close(&peer->sock);
	return NULL;
}

static void *reader_main(void *data)
{
	struct peer *peer = data;
	cleanup_free uint8_t *p = malloc(peer->bytes);
	ssize_t n;

	while (peer->got < peer->bytes) {
		n = read(peer->sock, p + peer->got, HF_MIN(peer->step, peer->bytes - peer->got));
		if (n <= 0)
			break;
		peer->got += (uint64_t)n;
		if (peer->usec)
			usleep(peer->usec);
	}
	peer->xxh3 = XXH3_64bits(p, peer->got);
	hf_close(&peer->sock);
	return NULL;
}

/* A socket whose other end the thread has. */
static int start_peer(struct peer *peer, void *(*run)(void *))
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	peer->sock = pair[1];
	assert_int_equal(pthread_create(&peer->thread, NULL, run, peer), 0);
	return pair[0];
}

static void add_chunk(struct hf_sink *sink, uint64_t capacity, uint64_t length)
{
	int fd = -1;

	assert_int_equal(hf_memfd_new("state", capacity, &fd), 0);
	assert_int_equal(hf_sink_add(sink, fd, capacity, length, NULL), 0);
	close(fd);
}

static int grow(void *data, struct hf_sink *sink, struct hf_error *e)
{
	struct transfer *t = data;

	t->grown++;
	if (t->grow_error)
		return hf_error_set(e, t->grow_error, HF_ERR_FAILED, NULL, "no spare memfd");
	add_chunk(sink, t->grow_bytes, 0);
	return 0;
}

static void on_done(void *data, const struct hf_stream_result *result)
{
	struct transfer *t = data;

	t->done++;
	t->result = *result;
	t->stream = NULL;
	hf_stream_cancel(t->cancel_in_done);
}

static void run_until(const int *done)
{
	for (int i = 0; i < 100000 && *done == 0; i++)
		assert_true(sd_event_run(event, 5 * HF_USEC_PER_SEC) > 0);
	assert_int_equal(*done, 1);
}

/* Nothing may come after `done`. */
static void run_idle(void)
{
	while (sd_event_run(event, 2000) > 0)
		;
}

static void save(struct transfer *t, struct peer *peer, uint64_t capacity)
{
	struct hf_error e = {0};
	int sock = start_peer(peer, writer_main);

	add_chunk(&t->sink, capacity, 0);
	if (hf_stream_save(ring, sock, &t->sink, grow, on_done, t, &t->stream, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(t->done, 0);
}

static void test_save(void **state)
{
	static const struct {
		uint64_t bytes, step, capacity, grow_bytes;
		int grown;
	} cases[] = {
		{1, 1, 4 * KIB, 0, 0},
		{400 * KIB, 32 * KIB, 1024 * KIB, 0, 0},
		{3 * 1024 * KIB + 7, 1000, 4096 * KIB, 0, 0},
		{64 * KIB, 64 * KIB, 64 * KIB, 0, 0},		/* just full: no growing */
		{64 * KIB + 1, 64 * KIB, 64 * KIB, 4 * KIB, 1}, /* one byte more */
		{100 * KIB, 7777, 16 * KIB, 32 * KIB, 3},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		struct transfer t = {.grow_bytes = cases[i].grow_bytes};
		struct peer peer = {.bytes = cases[i].bytes, .step = cases[i].step, .seed = 17};

		save(&t, &peer, cases[i].capacity);
		run_until(&t.done);
		pthread_join(peer.thread, NULL);
		assert_int_equal(t.result.err, 0);
		assert_int_equal(t.result.length, cases[i].bytes);
		assert_int_equal(hf_sink_length(&t.sink), cases[i].bytes);
		assert_int_equal(t.grown, cases[i].grown);
		assert_true(t.result.xxh3 == expected_xxh3(cases[i].bytes, 17));
		assert_true(hf_sink_xxh3(&t.sink) == t.result.xxh3);
		hf_sink_release(&t.sink);
	}
	run_idle();
}

static void test_save_errors(void **state)
{
	struct transfer full = {.grow_error = -ENOMEM}, empty = {.grown = 0}, none = {.grown = 0};
	struct peer peer = {.bytes = 100 * KIB, .step = 4 * KIB}, silent = {.step = 1};
	struct hf_error e = {0};
	int pair[2];

	save(&full, &peer, 16 * KIB);
	run_until(&full.done);
	pthread_join(peer.thread, NULL);
	assert_int_equal(full.result.err, -ENOSPC);
	assert_string_equal(full.result.error.message, "no spare memfd");
	hf_sink_release(&full.sink);

	save(&empty, &silent, 16 * KIB);
	run_until(&empty.done);
	pthread_join(silent.thread, NULL);
	assert_int_equal(empty.result.err, -ENODATA);
	hf_sink_release(&empty.sink);

	/* Without a grow function, with a sentence of our own. */
	add_chunk(&none.sink, 4 * KIB, 0);
	peer = (struct peer){.bytes = 100 * KIB, .step = 4 * KIB};
	assert_int_equal(hf_stream_save(ring, start_peer(&peer, writer_main), &none.sink, NULL,
				 on_done, &none, NULL, &e),
		0);
	run_until(&none.done);
	pthread_join(peer.thread, NULL);
	assert_int_equal(none.result.err, -ENOSPC);
	assert_non_null(strstr(none.result.error.message, "4096 bytes"));

	/* No sink, and a sink that is in use: the socket is taken all the same. */
	hf_sink_release(&none.sink);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(
		hf_stream_save(ring, pair[0], &none.sink, NULL, on_done, &none, NULL, &e), -EINVAL);
	assert_int_equal(fcntl(pair[0], F_GETFD), -1);
	close(pair[1]);
	/* Not a socket at all. */
	add_chunk(&none.sink, 4 * KIB, 0);
	none.done = 0;
	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	assert_int_equal(
		hf_stream_save(ring, pair[0], &none.sink, NULL, on_done, &none, NULL, &e), 0);
	run_until(&none.done);
	assert_int_equal(none.result.err, -ENOTSOCK);
	close(pair[1]);
	hf_sink_release(&none.sink);
	run_idle();
}

static void prepare_load(struct hf_sink *sink, uint64_t bytes, uint64_t chunk)
{
	cleanup_free uint8_t *p = malloc(bytes);

	fill(p, bytes, 3);
	for (uint64_t at = 0; at < bytes; at += chunk) {
		uint64_t n = HF_MIN(chunk, bytes - at);
		int fd = -1;

		assert_int_equal(hf_memfd_new("state", chunk, &fd), 0);
		assert_int_equal(pwrite(fd, p + at, n, 0), (ssize_t)n);
		assert_int_equal(hf_sink_add(sink, fd, chunk, n, NULL), 0);
		close(fd);
	}
}

static void test_load(void **state)
{
	static const struct {
		uint64_t bytes, chunk, step;
		unsigned int usec;
	} cases[] = {
		{1, 4096, 1, 0}, {400 * KIB, 1024 * KIB, 32 * KIB, 0},
		{2 * 1024 * KIB + 5, 100 * KIB + 1000, 3001,
			0},				 /* no multiple of anything; 16+ chunks */
		{1024 * KIB, 1024 * KIB, 16 * KIB, 200}, /* slow reader: partial sends */
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		struct transfer t = {.grown = 0};
		struct peer peer = {
			.bytes = cases[i].bytes, .step = cases[i].step, .usec = cases[i].usec};
		uint64_t bytes = HF_MIN(cases[i].bytes, cases[i].chunk * HF_SINK_MAX_CHUNKS);
		struct hf_error e = {0};

		peer.bytes = bytes;
		prepare_load(&t.sink, bytes, cases[i].chunk);
		if (hf_stream_load(ring, start_peer(&peer, reader_main), &t.sink, bytes,
			    expected_xxh3(bytes, 3), on_done, &t, &t.stream, &e) < 0)
			fail_msg("%s", e.message);
		run_until(&t.done);
		pthread_join(peer.thread, NULL);
		assert_int_equal(t.result.err, 0);
		assert_int_equal(t.result.length, bytes);
		assert_int_equal(peer.got, bytes);
		assert_true(peer.xxh3 == expected_xxh3(bytes, 3));
		hf_sink_release(&t.sink);
	}
}

static void test_load_refuses(void **state)
{
	uint64_t bytes = 10 * KIB, xxh3 = expected_xxh3(bytes, 3);
	static const int64_t length_off[] = {0, 1, -1, 0};
	static const uint64_t xxh3_off[] = {1, 0, 0, 1ULL << 63};

	for (size_t i = 0; i < HF_ARRAY_SIZE(length_off); i++) {
		struct transfer t = {.grown = 0};
		struct peer peer = {.bytes = bytes, .step = bytes};
		struct hf_error e = {0};

		prepare_load(&t.sink, bytes, 4 * KIB);
		assert_int_equal(hf_stream_load(ring, start_peer(&peer, reader_main), &t.sink,
					 bytes + (uint64_t)length_off[i], xxh3 ^ xxh3_off[i],
					 on_done, &t, NULL, &e),
			-EBADMSG);
		pthread_join(peer.thread, NULL);
		assert_int_equal(peer.got, 0); /* not a byte was sent */
		assert_int_equal(t.done, 0);
		assert_true(e.message[0] != 0);
		hf_sink_release(&t.sink);
	}
	run_idle();
}

static void test_load_broken_pipe(void **state)
{
	struct transfer t = {.grown = 0};
	struct peer peer = {.bytes = 100, .step = 100}; /* leaves after 100 bytes */
	uint64_t bytes = 4096 * KIB;

	prepare_load(&t.sink, bytes, bytes);
	assert_int_equal(hf_stream_load(ring, start_peer(&peer, reader_main), &t.sink, bytes,
				 expected_xxh3(bytes, 3), on_done, &t, NULL, NULL),
		0);
	run_until(&t.done);
	pthread_join(peer.thread, NULL);
	assert_true(t.result.err == -EPIPE || t.result.err == -ECONNRESET);
	hf_sink_release(&t.sink);
}

/* A VMM that says nothing, one that talks on, one that doesn't read: all end when told to. */
static void test_cancel(void **state)
{
	struct transfer t = {.grown = 0}, talking = {.grown = 0}, stuck = {.grown = 0};
	struct peer peer = {.bytes = 8192 * KIB, .step = 4 * KIB, .usec = 100};
	uint64_t bytes = 4096 * KIB;
	int pair[2], stuck_pair[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	add_chunk(&t.sink, 64 * KIB, 0);
	assert_int_equal(
		hf_stream_save(ring, pair[0], &t.sink, NULL, on_done, &t, &t.stream, NULL), 0);
	save(&talking, &peer, 8192 * KIB);
	prepare_load(&stuck.sink, bytes, bytes);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stuck_pair), 0);
	assert_int_equal(hf_stream_load(ring, stuck_pair[0], &stuck.sink, bytes,
				 expected_xxh3(bytes, 3), on_done, &stuck, &stuck.stream, NULL),
		0);
	for (int i = 0; i < 20; i++)
		sd_event_run(event, 1000);
	assert_int_equal(t.done + talking.done + stuck.done, 0);
	/* Cancelled from within another one's done, and twice. */
	t.cancel_in_done = talking.stream;
	hf_stream_cancel(t.stream);
	hf_stream_cancel(t.stream);
	hf_stream_cancel(stuck.stream);
	assert_int_equal(t.done + talking.done + stuck.done, 0);
	run_until(&t.done);
	run_until(&talking.done);
	run_until(&stuck.done);
	run_idle();
	pthread_join(peer.thread, NULL);
	assert_int_equal(t.result.err, -ECANCELED);
	assert_int_equal(talking.result.err, -ECANCELED);
	assert_int_equal(stuck.result.err, -ECANCELED);
	assert_int_equal(t.done + talking.done + stuck.done, 3);
	hf_sink_release(&t.sink);
	hf_sink_release(&talking.sink);
	hf_sink_release(&stuck.sink);
	hf_stream_cancel(NULL);
	close(pair[1]);
	close(stuck_pair[1]);
}

static void test_free_with_transfers(void **state)
{
	struct transfer t[5] = {{.grown = 0}};
	int pairs[5][2];

	for (int i = 0; i < 5; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]), 0);
		add_chunk(&t[i].sink, 4 * KIB, 0);
		assert_int_equal(hf_stream_save(ring, pairs[i][0], &t[i].sink, NULL, on_done, &t[i],
					 NULL, NULL),
			0);
	}
	hf_stream_ring_free(ring);
	ring = NULL;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(t[i].done, 1);
		assert_int_equal(t[i].result.err, -ECANCELED);
		hf_sink_release(&t[i].sink);
		close(pairs[i][1]);
	}
}

static void test_many_at_once(void **state)
{
	enum { N = 64 };
	struct transfer *t = calloc(N, sizeof(*t));
	struct peer *peers = calloc(N, sizeof(*peers));
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned int i = 0; i < N; i++) {
		peers[i] = (struct peer){.bytes = 400 * KIB + i, .step = 32 * KIB, .seed = i};
		save(&t[i], &peers[i], 512 * KIB);
	}
	for (unsigned int i = 0; i < N; i++) {
		run_until(&t[i].done);
		pthread_join(peers[i].thread, NULL);
		assert_int_equal(t[i].result.err, 0);
		assert_true(t[i].result.xxh3 == expected_xxh3(peers[i].bytes, i));
		hf_sink_release(&t[i].sink);
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	print_message("%d streams of 400 KiB in %ld ms, the checking included\n", N,
		(b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000);
	free(t);
	free(peers);
}

static void test_sink_errors(void **state)
{
	struct hf_sink sink = {.n_chunks = 0};
	struct hf_error e = {0};
	int fd = -1;

	assert_int_equal(hf_memfd_new("state", 4096, &fd), 0);
	assert_int_equal(hf_sink_add(&sink, fd, 8192, 0, &e), -EBADMSG);
	assert_int_equal(hf_sink_add(&sink, fd, 0, 0, &e), -EINVAL);
	assert_int_equal(hf_sink_add(&sink, fd, 4096, 4097, &e), -EINVAL);
	assert_int_equal(hf_sink_add(&sink, -1, 4096, 0, &e), -EBADF);
	for (int i = 0; i < HF_SINK_MAX_CHUNKS; i++)
		assert_int_equal(hf_sink_add(&sink, fd, 4096, 0, &e), 0);
	assert_int_equal(hf_sink_add(&sink, fd, 4096, 0, &e), -ENOSPC);
	hf_sink_release(&sink);
	assert_int_equal(sink.n_chunks, 0);
	close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_save),
		TEST(test_save_errors),
		TEST(test_load),
		TEST(test_load_refuses),
		TEST(test_load_broken_pipe),
		TEST(test_cancel),
		TEST(test_free_with_transfers),
		TEST(test_many_at_once),
		TEST(test_sink_errors),
	};
	struct io_uring probe;
	int r = io_uring_queue_init(4, &probe, 0);

	if (r < 0) {
		printf("io_uring is not to be had here: %s\n", strerror(-r));
		return 77;
	}
	io_uring_queue_exit(&probe);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
