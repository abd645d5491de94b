/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Getting a QMP connection's socket.
 *
 * A QEMU that was just started makes its socket some ten milliseconds later, and a guest stands
 * still meanwhile: inotify on the folder tells at once when it appears, and the short time between
 * bind(2) and listen(2) is bridged by retries. Without inotify (no folder yet) retries alone do.
 *
 * connect(2) of a non-blocking UNIX socket either succeeds at once or fails: with EAGAIN when the
 * listener's backlog is full, which with QEMU's backlog of one means that others wait for this
 * monitor already.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "qmp/internal.h"

#define FAST_TRIES 64
#define FAST_US 1000
#define SLOW_US 10000

static int try_connect(struct hf_qmp *q)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	size_t n = strlen(q->label);
	cleanup_close int fd = -EBADF;

	if (n >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, q->label, n + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sa,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1)) < 0)
		return -errno;
	return hf_qmp_connected(q, TAKE_FD(fd));
}

/* Whether to try again. Not told apart: why a socket that will come isn't there yet. */
static bool may_retry(const struct hf_qmp *q, int err)
{
	if (err == -EAGAIN)
		return true;
	return q->wait_socket && (err == -ENOENT || err == -ECONNREFUSED);
}

static void schedule(struct hf_qmp *q)
{
	uint64_t delay = SLOW_US;

	/* Nothing to be gained by haste while inotify watches, nor while another has the monitor.
	 */
	if (q->connect_err == -ECONNREFUSED && q->fast_tries) {
		q->fast_tries--;
		delay = FAST_US;
	} else if (q->connect_err == -ENOENT && !q->inotify) {
		delay = FAST_US;
	}
	q->retry_us = hf_qmp_now_us() + delay;
	hf_qmp_arm(q, q->retry_us);
}

static int on_inotify(sd_event_source *s, const struct inotify_event *ev, void *userdata)
{
	struct hf_qmp *q = userdata;
	const char *name = strrchr(q->label, '/');

	name = name ? name + 1 : q->label;
	if (q->state != HF_QMP_CONNECTING || !ev->len || strcmp(ev->name, name) != 0)
		return 0;
	q->fast_tries = FAST_TRIES;
	hf_qmp_connect_retry(q);
	return 0;
}

static void watch_folder(struct hf_qmp *q)
{
	const char *slash = strrchr(q->label, '/');
	cleanup_free char *folder = NULL;

	if (!slash)
		folder = strdup(".");
	else
		folder = strndup(q->label, slash == q->label ? 1 : (size_t)(slash - q->label));
	if (folder)
		/* Failure leaves the retries. */
		sd_event_add_inotify(
			q->event, &q->inotify, folder, IN_CREATE | IN_MOVED_TO, on_inotify, q);
}

/*
 * First attempt. Return: 0 when connected or worth another attempt, or -errno.
 */
int hf_qmp_connect_start(struct hf_qmp *q)
{
	int r = try_connect(q);

	if (r >= 0 || !may_retry(q, r))
		return r;
	if (r != -EAGAIN) {
		watch_folder(q);
		/* It may have come before the watch did. */
		r = try_connect(q);
		if (r >= 0 || !may_retry(q, r))
			return r;
	}
	q->fast_tries = FAST_TRIES;
	q->connect_err = r;
	schedule(q);
	return 0;
}

/* Further attempts: never fails outright, as a socket's rights may be set after its birth. */
void hf_qmp_connect_retry(struct hf_qmp *q)
{
	int r = try_connect(q);

	if (r >= 0) {
		hf_qmp_connect_stop(q);
		return;
	}
	q->connect_err = r;
	schedule(q);
}

void hf_qmp_connect_stop(struct hf_qmp *q)
{
	q->inotify = sd_event_source_unref(q->inotify);
	q->retry_us = HF_QMP_USEC_NEVER;
}

/* Puts a failure to connect into words. Return: the errno to report. */
int hf_qmp_connect_error(const struct hf_qmp *q, int err, struct hf_error *error)
{
	switch (err) {
	case -EAGAIN:
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY,
			"give holdfast a QMP socket of its own, or disconnect the other clients",
			"the monitor at %s is taken by another client, and more are waiting for it",
			q->label);
	case -ENOENT:
		return hf_error_set(error, err, HF_ERR_FAILED,
			"check that the guest runs and that its QMP socket is where holdfast looks",
			"there is no QMP socket at %s", q->label);
	case -ECONNREFUSED:
		return hf_error_set(error, err, HF_ERR_FAILED,
			"check that the guest runs: the socket may be left over from one that "
			"ended",
			"nobody listens on the QMP socket %s", q->label);
	default:
		return hf_error_set(error, err, HF_ERR_FAILED, NULL, "connect to QMP socket %s: %s",
			q->label, strerror(-err));
	}
}
