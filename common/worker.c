/* SPDX-License-Identifier: Apache-2.0 */
#include "common/worker.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "common/cleanup.h"

/* The calls made here are system calls with small arguments: a small stack keeps the agent small.
 */
#define WORKER_STACK_BYTES (128 * 1024)

struct worker {
	int (*run)(void *data);
	void (*done)(void *data, int result);
	void *data;
	int result;
	int wake_fd;
	pthread_t thread;
	sd_event_source *source;
};

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	uint64_t one = 1;

	w->result = w->run(w->data);
	while (write(w->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	return NULL;
}

static void worker_free(struct worker *w)
{
	sd_event_source_unref(w->source);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	free(w);
}

static int on_worker_done(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct worker *w = userdata;
	void (*done)(void *data, int result) = w->done;
	void *data = w->data;
	int result;

	pthread_join(w->thread, NULL);
	result = w->result;
	worker_free(w);
	done(data, result);
	return 0;
}

static int start_thread(struct worker *w)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WORKER_STACK_BYTES);
	/* Signals belong to the loop. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&w->thread, &attr, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

int hf_worker_run(
	sd_event *event, int (*run)(void *data), void (*done)(void *data, int result), void *data)
{
	struct worker *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	*w = (struct worker){.run = run, .done = done, .data = data};
	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = w->wake_fd < 0 ? -errno : 0;
	if (r == 0)
		r = sd_event_add_io(event, &w->source, w->wake_fd, EPOLLIN, on_worker_done, w);
	if (r >= 0)
		r = start_thread(w);
	if (r < 0)
		worker_free(w);
	return r < 0 ? r : 0;
}
