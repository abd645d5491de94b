/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A guest's agent for tests, in a thread behind a UNIX socket, that answers as it is told to.
 *
 * It serves one client after another, until fake_ga_stop().
 */
#pragma once

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum fake_ga_mode {
	FAKE_GA_GOOD,
	FAKE_GA_STALE,	  /* rubbish, half an answer and somebody else's answer come first */
	FAKE_GA_SILENT,	  /* reads, and says nothing */
	FAKE_GA_UNREAD,	  /* does not even accept */
	FAKE_GA_HUGE,	  /* a mark, and a line without an end */
	FAKE_GA_FLOOD,	  /* no mark, and no end */
	FAKE_GA_HANG_UP,  /* at the first word */
	FAKE_GA_NONSENSE, /* in step, and then JSON that is no answer */
	FAKE_GA_REFUSES,  /* to set the clock */
	FAKE_GA_NO_RTC,	  /* sets the clock, and complains of the RTC, as qemu-ga does */
	FAKE_GA_LIES,	  /* says that it set the clock */
	FAKE_GA_SLOW,	  /* needs a tenth of a second until it sets the clock */
};

struct fake_ga {
	enum fake_ga_mode mode;
	char dir[64], path[96];
	int listen_fd;
	pthread_t thread;
	bool stop;
	_Atomic int64_t offset_ns; /* of its clock from the host's */
	_Atomic int n_set;
	int64_t sync_id;
};

static inline int64_t fake_ga_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static inline void fake_ga_say(int fd, const char *text)
{
	if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
		return;
}

static inline void fake_ga_pour(int fd, size_t total)
{
	char block[8192];

	memset(block, 'a', sizeof(block));
	for (size_t n = 0; n < total; n += sizeof(block))
		if (send(fd, block, sizeof(block), MSG_NOSIGNAL) < 0)
			return;
}

static inline void fake_ga_sync(struct fake_ga *f, int fd, const char *line)
{
	const char *id = strstr(line, "\"id\": ");
	char text[64];

	assert(id && line[0] == '\xff');
	f->sync_id = atoll(id + 6);
	snprintf(text, sizeof(text), "\xff{\"return\": %lld}\n", (long long)f->sync_id);
	if (f->mode == FAKE_GA_STALE) {
		fake_ga_say(fd, "rubbish\n{\"return\": {}}\n\xff{\"return\": 4711}\n{\"ret");
		fake_ga_say(fd, "\xff{\"return\": {\"x\": 1}}\nmore\n");
	}
	if (f->mode == FAKE_GA_HUGE)
		fake_ga_say(fd, "\xff");
	if (f->mode == FAKE_GA_HUGE || f->mode == FAKE_GA_FLOOD)
		fake_ga_pour(fd, 4 << 20);
	fake_ga_say(fd, text);
}

/* Return: whether to go on with this client. */
static inline bool fake_ga_line(struct fake_ga *f, int fd, const char *line)
{
	char text[96];

	if (f->mode == FAKE_GA_HANG_UP)
		return false;
	if (f->mode == FAKE_GA_SILENT)
		return true;
	if (strstr(line, "guest-sync-delimited")) {
		fake_ga_sync(f, fd, line);
	} else if (f->mode == FAKE_GA_NONSENSE) {
		fake_ga_say(fd, "[1, 2, 3]\n");
	} else if (strstr(line, "guest-get-time")) {
		snprintf(text, sizeof(text), "{\"return\": %lld}\n",
			(long long)(fake_ga_now() + f->offset_ns));
		fake_ga_say(fd, text);
	} else if (strstr(line, "guest-set-time") && f->mode == FAKE_GA_REFUSES) {
		fake_ga_say(fd,
			"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u001b[2J\"}}\n");
	} else if (strstr(line, "guest-set-time")) {
		f->n_set++;
		if (f->mode == FAKE_GA_SLOW)
			usleep(100000);
		if (f->mode != FAKE_GA_LIES)
			f->offset_ns = atoll(strstr(line, "\"time\": ") + 8) - fake_ga_now();
		fake_ga_say(fd, f->mode == FAKE_GA_NO_RTC
					? "{\"error\": {\"class\": \"GenericError\", \"desc\": "
					  "\"hwclock\"}}\n"
					: "{\"return\": {}}\n");
	} else {
		abort();
	}
	return true;
}

static inline void fake_ga_serve(struct fake_ga *f, int fd)
{
	char line[512];
	size_t n = 0;

	while (n < sizeof(line) - 1 && recv(fd, line + n, 1, 0) == 1) {
		if (line[n++] != '\n')
			continue;
		line[n] = 0;
		n = 0;
		if (!fake_ga_line(f, fd, line))
			return;
	}
}

static inline void *fake_ga_main(void *arg)
{
	struct fake_ga *f = arg;

	while (f->mode != FAKE_GA_UNREAD) {
		int fd = accept(f->listen_fd, NULL, NULL);

		if (fd < 0)
			break;
		fake_ga_serve(f, fd);
		close(fd);
	}
	return NULL;
}

static inline void fake_ga_start(struct fake_ga *f, enum fake_ga_mode mode)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	memset(f, 0, sizeof(*f));
	f->mode = mode;
	strcpy(f->dir, "/tmp/hf-test-ga-XXXXXX");
	if (!mkdtemp(f->dir))
		abort();
	snprintf(f->path, sizeof(f->path), "%s/sock", f->dir);
	strcpy(sa.sun_path, f->path);
	f->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(f->listen_fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
		listen(f->listen_fd, 1) < 0 || pthread_create(&f->thread, NULL, fake_ga_main, f))
		abort();
}

/* Its client must have gone. */
static inline void fake_ga_stop(struct fake_ga *f)
{
	shutdown(f->listen_fd, SHUT_RDWR);
	pthread_join(f->thread, NULL);
	close(f->listen_fd);
	unlink(f->path);
	rmdir(f->dir);
}
