/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/image-engine.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>

#include "common/fault.h"
#include "memfd-preserve/uring.h"

#define MAX_THREADS 12
/* Of all threads together, and so the most threads there can be. */
#define ALL_BUFFERS 12
#define STACK_BYTES (256 * 1024)
#define CANCEL_POLL_NS (20 * HF_NSEC_PER_MSEC)
#define RETRY_USEC 1000

struct hf_image_engine {
	pthread_mutex_t lock; /* guards what follows, and the jobs' parts */
	pthread_cond_t work, over;
	struct hf_image_job *jobs;
	bool stopping;
	unsigned int n_workers;
	struct hf_image_worker workers[MAX_THREADS];
};

static bool has_units(const struct hf_image_job *job)
{
	return job->err == 0 && job->next_unit < job->n_units;
}

static bool is_over(const struct hf_image_job *job)
{
	return !has_units(job) && job->n_busy == 0;
}

/* A unit or buffer of a job is done with. */
static void put(
	struct hf_image_engine *engine, struct hf_image_job *job, int r, const struct hf_error *e)
{
	pthread_mutex_lock(&engine->lock);
	job->n_busy--;
	/* After a cancelled pass there may be another one, after any other error not. */
	if (r < 0 && (job->err == 0 || job->err == -ECANCELED)) {
		job->err = r;
		job->error = *e;
	}
	if (is_over(job))
		pthread_cond_broadcast(&engine->over);
	pthread_mutex_unlock(&engine->lock);
}

static struct hf_image_job *take(struct hf_image_engine *engine, uint64_t *ret_unit)
{
	struct hf_image_job *job;

	pthread_mutex_lock(&engine->lock);
	for (job = engine->jobs; job && !has_units(job);)
		job = job->next;
	if (job) {
		*ret_unit = job->next_unit++;
		job->n_busy++;
	}
	pthread_mutex_unlock(&engine->lock);
	return job;
}

static void submit(struct hf_image_worker *w, unsigned int wait)
{
	int r;

	/* What is refused now for lack of memory is still queued. */
	while ((r = io_uring_submit_and_wait(&w->ring, wait)) < 0)
		if (r != -EINTR)
			usleep(RETRY_USEC);
}

static void queue(struct hf_image_worker *w, struct hf_image_io *io)
{
	/* The ring has room for the requests of all buffers. */
	struct io_uring_sqe *sqe = io_uring_get_sqe(&w->ring);
	bool fixed = w->registered && io->data >= w->memory &&
		     io->data < w->memory + (size_t)w->n_buffers * HF_IMAGE_BUFFER_BYTES;

	if (io->is_write && fixed)
		io_uring_prep_write_fixed(sqe, io->fd, io->data, io->bytes, io->offset, 0);
	else if (io->is_write)
		io_uring_prep_write(sqe, io->fd, io->data, io->bytes, io->offset);
	else if (fixed)
		io_uring_prep_read_fixed(sqe, io->fd, io->data, io->bytes, io->offset, 0);
	else
		io_uring_prep_read(sqe, io->fd, io->data, io->bytes, io->offset);
	io_uring_sqe_set_data(sqe, io);
}

static int io_error(const struct hf_image_buffer *b, struct hf_error *e)
{
	const struct hf_image_io *io = NULL;

	for (unsigned int i = 0; i < b->n_ios && !io; i++)
		if (b->ios[i].bytes > 0)
			io = &b->ios[i];
	if (b->err == -ENOSPC)
		return hf_error_set(e, b->err, HF_ERR_NOT_READY,
			"make room on the file system of the images",
			"no space is left for the image, at offset %llu of it",
			io ? (unsigned long long)io->offset : 0);
	return hf_error_set(e, b->err, HF_ERR_FAILED, "look at the kernel's log for the disk",
		"%s the image at offset %llu: %s", io && io->is_write ? "writing" : "reading",
		io ? (unsigned long long)io->offset : 0,
		b->err == -EBADMSG ? "it ends there" : strerror(-b->err));
}

/* All requests of a buffer came back. */
static void buffer_done(struct hf_image_buffer *b)
{
	struct hf_image_job *job = b->job;
	struct hf_error e = {0};
	int r = 0;

	if (b->err)
		r = io_error(b, &e);
	else if (job->ops->done)
		r = job->ops->done(b->worker, b, &e);
	b->job = NULL;
	b->worker->n_busy--;
	put(b->worker->engine, job, r, &e);
}

static void on_completion(struct hf_image_worker *w, struct hf_image_io *io, int res)
{
	struct hf_image_buffer *b = io->buffer;

	if (res > 0) {
		int r = hf_fault(io->is_write ? HF_FAULT_IMAGE_WRITE : HF_FAULT_IMAGE_READ, NULL);

		if (r < 0)
			res = r;
	}
	if (res > 0) {
		io->data += res;
		io->offset += (uint64_t)res;
		io->bytes -= (uint32_t)res;
	}
	if (res == -EINTR || res == -EAGAIN || (res > 0 && io->bytes > 0)) {
		queue(w, io);
		return;
	}
	if (res <= 0 && b->err == 0)
		b->err = res < 0 ? res : io->is_write ? -ENOSPC : -EBADMSG;
	if (--b->n_pending == 0)
		buffer_done(b);
}

/* Deal with what has come back. With @wait there must be something under way. */
static void reap(struct hf_image_worker *w, bool wait)
{
	struct io_uring_cqe *cqe;

	if (wait || io_uring_sq_ready(&w->ring) > 0)
		submit(w, wait);
	while (io_uring_peek_cqe(&w->ring, &cqe) == 0) {
		struct hf_image_io *io = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&w->ring, cqe);
		on_completion(w, io, res);
	}
	if (io_uring_sq_ready(&w->ring) > 0)
		submit(w, 0);
}

struct hf_image_buffer *hf_image_buffer_get(struct hf_image_worker *w, struct hf_image_job *job)
{
	struct hf_image_buffer *b = NULL;

	while (!b) {
		for (unsigned int i = 0; i < w->n_buffers && !b; i++)
			if (!w->buffers[i].job)
				b = &w->buffers[i];
		if (!b)
			reap(w, true);
	}
	b->job = job;
	b->n_ios = b->n_pending = 0;
	b->err = 0;
	b->n_chunks = 0;
	w->n_busy++;
	pthread_mutex_lock(&w->engine->lock);
	job->n_busy++;
	pthread_mutex_unlock(&w->engine->lock);
	return b;
}

void hf_image_buffer_io(struct hf_image_buffer *b, int fd, bool is_write, void *data,
	uint32_t bytes, uint64_t offset)
{
	b->ios[b->n_ios++] = (struct hf_image_io){
		.buffer = b,
		.data = data,
		.bytes = bytes,
		.offset = offset,
		.fd = fd,
		.is_write = is_write,
	};
}

void hf_image_buffer_submit(struct hf_image_buffer *b)
{
	if (b->n_ios == 0) {
		buffer_done(b);
		return;
	}
	b->n_pending = b->n_ios;
	for (unsigned int i = 0; i < b->n_ios; i++)
		queue(b->worker, &b->ios[i]);
	submit(b->worker, 0);
}

/* The open buffer gets no more. */
static void flush(struct hf_image_worker *w)
{
	struct hf_image_buffer *b = w->open;
	struct hf_image_job *job = b->job;
	struct hf_error e = {0};
	int r;

	/* So that the job lives through what follows. */
	pthread_mutex_lock(&w->engine->lock);
	job->n_busy++;
	pthread_mutex_unlock(&w->engine->lock);
	r = job->ops->flush(w, job, &e);
	put(w->engine, job, r, &e);
}

/* Return: whether to end. */
static bool wait_for_work(struct hf_image_worker *w)
{
	struct hf_image_engine *engine = w->engine;
	struct hf_image_job *job;
	bool end;

	/* No key stays in memory that nobody works with. */
	hf_image_cipher_forget(w->cipher);
	pthread_mutex_lock(&engine->lock);
	for (job = engine->jobs; job && !has_units(job);)
		job = job->next;
	if (!job && !engine->stopping)
		pthread_cond_wait(&engine->work, &engine->lock);
	end = engine->stopping;
	pthread_mutex_unlock(&engine->lock);
	return end;
}

static void *worker_main(void *arg)
{
	struct hf_image_worker *w = arg;

	for (;;) {
		struct hf_image_job *job;
		struct hf_error e = {0};
		uint64_t unit;
		int r;

		reap(w, false);
		job = take(w->engine, &unit);
		if (w->open && w->open->job != job)
			flush(w);
		if (job) {
			r = job->ops->unit(w, job, unit, &e);
			put(w->engine, job, r, &e);
		} else if (w->n_busy > 0) {
			reap(w, true);
		} else if (wait_for_work(w)) {
			return NULL;
		}
	}
}

static void link_job(struct hf_image_engine *engine, struct hf_image_job *job)
{
	struct hf_image_job **at = &engine->jobs;

	while (*at)
		at = &(*at)->next;
	job->next = NULL;
	*at = job;
}

static void unlink_job(struct hf_image_engine *engine, const struct hf_image_job *job)
{
	struct hf_image_job **at = &engine->jobs;

	while (*at != job)
		at = &(*at)->next;
	*at = job->next;
}

int hf_image_job_run(struct hf_image_engine *engine, struct hf_image_job *job, struct hf_error *e)
{
	struct timespec until;

	job->next_unit = job->n_busy = 0;
	job->err = 0;
	pthread_mutex_lock(&engine->lock);
	link_job(engine, job);
	pthread_cond_broadcast(&engine->work);
	while (!is_over(job)) {
		if (job->control && atomic_load(&job->control->cancel) && job->err == 0) {
			job->err = hf_error_set(&job->error, -ECANCELED, HF_ERR_FAILED, NULL,
				"the work on the image was cancelled");
			continue;
		}
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += CANCEL_POLL_NS;
		until.tv_sec += until.tv_nsec / (long)HF_NSEC_PER_SEC;
		until.tv_nsec %= (long)HF_NSEC_PER_SEC;
		pthread_cond_timedwait(&engine->over, &engine->lock, &until);
	}
	unlink_job(engine, job);
	pthread_mutex_unlock(&engine->lock);
	if (job->err < 0 && e)
		*e = job->error;
	return job->err;
}

static unsigned int count_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return 1;
	return (unsigned int)HF_MAX(1, HF_MIN(CPU_COUNT(&set), MAX_THREADS));
}

static int make_buffers(struct hf_image_worker *w, unsigned int n_workers)
{
	uint8_t *at;

	w->n_buffers = ALL_BUFFERS / n_workers;
	w->buffers = calloc(w->n_buffers, sizeof(*w->buffers));
	if (!w->buffers)
		return -ENOMEM;
	at = mmap(NULL, (size_t)w->n_buffers * HF_IMAGE_BUFFER_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return -errno;
	w->memory = at;
	/* Guest memory goes through it, and the pages are pinned: no child needs them. */
	madvise(at, (size_t)w->n_buffers * HF_IMAGE_BUFFER_BYTES, MADV_DONTDUMP);
	madvise(at, (size_t)w->n_buffers * HF_IMAGE_BUFFER_BYTES, MADV_DONTFORK);
	at = mmap(NULL, 2 * (size_t)HF_IMAGE_WINDOW_BYTES, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return -errno;
	w->room = at;
	w->window = (uint8_t *)(((uintptr_t)at + HF_IMAGE_WINDOW_BYTES - 1) &
				~(uintptr_t)(HF_IMAGE_WINDOW_BYTES - 1));
	for (unsigned int i = 0; i < w->n_buffers; i++) {
		w->buffers[i].worker = w;
		w->buffers[i].data = w->memory + (size_t)i * HF_IMAGE_BUFFER_BYTES;
	}
	return 0;
}

static int make_worker(struct hf_image_worker *w, unsigned int n_workers)
{
	struct iovec all;
	int r;

	r = make_buffers(w, n_workers);
	if (r == 0)
		r = hf_image_cipher_new(&w->cipher);
	if (r == 0)
		r = io_uring_queue_init(w->n_buffers * HF_IMAGE_MAX_IOS, &w->ring, 0);
	if (r < 0)
		return r;
	w->has_ring = true;
	io_uring_ring_dontfork(&w->ring);
	/* Refused where the limit on locked memory is low: then pages are pinned a request. */
	all = (struct iovec){w->memory, (size_t)w->n_buffers * HF_IMAGE_BUFFER_BYTES};
	w->registered = io_uring_register_buffers(&w->ring, &all, 1) == 0;
	return 0;
}

static int start_thread(struct hf_image_worker *w)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	/* Signals belong to the loop. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&w->thread, &attr, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	w->started = r == 0;
	return -r;
}

int hf_image_engine_new(struct hf_image_engine **ret, struct hf_error *e)
{
	struct hf_image_engine *engine = calloc(1, sizeof(*engine));
	pthread_condattr_t attr;
	int r = 0;

	if (!engine)
		return hf_uring_setup_error(-ENOMEM, "threads for images", e);
	pthread_mutex_init(&engine->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&engine->work, NULL);
	pthread_cond_init(&engine->over, &attr);
	pthread_condattr_destroy(&attr);
	engine->n_workers = count_cpus();
	for (unsigned int i = 0; i < engine->n_workers && r == 0; i++) {
		engine->workers[i].engine = engine;
		r = make_worker(&engine->workers[i], engine->n_workers);
	}
	for (unsigned int i = 0; i < engine->n_workers && r == 0; i++)
		r = start_thread(&engine->workers[i]);
	if (r < 0) {
		hf_image_engine_free(engine);
		return hf_uring_setup_error(r, "threads for images", e);
	}
	*ret = engine;
	return 0;
}

static void free_worker(struct hf_image_worker *w)
{
	if (w->started)
		pthread_join(w->thread, NULL);
	if (w->has_ring)
		io_uring_queue_exit(&w->ring);
	hf_image_cipher_free(w->cipher);
	if (w->memory)
		munmap(w->memory, (size_t)w->n_buffers * HF_IMAGE_BUFFER_BYTES);
	if (w->room)
		munmap(w->room, 2 * (size_t)HF_IMAGE_WINDOW_BYTES);
	free(w->buffers);
}

void hf_image_engine_free(struct hf_image_engine *engine)
{
	if (!engine)
		return;
	pthread_mutex_lock(&engine->lock);
	engine->stopping = true;
	pthread_cond_broadcast(&engine->work);
	pthread_mutex_unlock(&engine->lock);
	for (unsigned int i = 0; i < engine->n_workers; i++)
		free_worker(&engine->workers[i]);
	pthread_cond_destroy(&engine->work);
	pthread_cond_destroy(&engine->over);
	pthread_mutex_destroy(&engine->lock);
	free(engine);
}
