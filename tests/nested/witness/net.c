// SPDX-License-Identifier: Apache-2.0
/**
 * DOC: The network watch
 *
 * A TCP server with a protocol of lines (README.md has it in full). The client numbers its
 * messages; the server demands that every number follows the last one, answers with counters of
 * its own, and takes every end of a connection that was not announced with BYE for a failure. A
 * connection that never said HELLO is somebody knocking at the port, and is only counted out.
 *
 * One thread, one poll(); connections live in a fixed table that the thread owns alone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "witness.h"

#define CONNS_MAX 16
#define LINE_MAX_BYTES 256
/* A client that doesn't read for so long a time is broken, not slow. */
#define OUT_MAX_BYTES 65536
/* No beats on top of so much that wasn't sent yet. */
#define OUT_BEAT_BYTES 16384

struct conn {
	int fd;
	bool greeted;
	bool leaving;
	uint64_t id;
	uint64_t last_seq;
	uint64_t beat_ns; /* interval of unasked lines; 0: none */
	uint64_t beat_due_ns;
	uint64_t beats;
	size_t in_len;
	size_t out_len;
	char in[4096];
	char out[OUT_MAX_BYTES];
};

static struct conn conns[CONNS_MAX];

static void conn_close(struct witness *w, struct conn *c)
{
	if (c->greeted)
		atomic_fetch_sub(&w->net.live, 1);
	close(c->fd);
	c->fd = -EBADF;
}

static void conn_fail(
	struct witness *w, struct conn *c, const char *cause, uint64_t want, uint64_t got)
{
	if (c->greeted) {
		atomic_fetch_add(&w->net.bad, 1);
		report_fail(w, WATCH_NET, "cause=%s conn=%llu want=%llu got=%llu", cause,
			(unsigned long long)c->id, (unsigned long long)want,
			(unsigned long long)got);
	}
	conn_close(w, c);
}

static bool conn_flush(struct witness *w, struct conn *c)
{
	while (c->out_len) {
		ssize_t n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (n < 0) {
			conn_fail(w, c, "reset", 0, (uint64_t)errno);
			return false;
		}
		c->out_len -= (size_t)n;
		memmove(c->out, c->out + n, c->out_len);
	}
	return true;
}

static bool conn_say(struct witness *w, struct conn *c, const char *text, int len)
{
	if (c->out_len + (size_t)len > sizeof(c->out)) {
		conn_fail(w, c, "unread", sizeof(c->out), c->out_len + (size_t)len);
		return false;
	}
	memcpy(c->out + c->out_len, text, (size_t)len);
	c->out_len += (size_t)len;
	return true;
}

static bool on_hello(struct witness *w, struct conn *c, const char *line)
{
	static uint64_t next_id;
	char text[LINE_MAX_BYTES];
	unsigned beat_ms;

	if (sscanf(line, "HELLO 1 %*s %u", &beat_ms) == 1 && beat_ms) {
		c->beat_ns = beat_ms * NSEC_PER_MSEC;
		c->beat_due_ns = time_ns(CLOCK_MONOTONIC) + c->beat_ns;
	}
	c->greeted = true;
	c->id = ++next_id;
	atomic_fetch_add(&w->net.live, 1);
	atomic_fetch_add(&w->net.conns, 1);
	return conn_say(w, c, text,
		snprintf(text, sizeof(text), "HELLO 1 %s %016llx %llu\n", w->cfg.name,
			(unsigned long long)w->boot_id, (unsigned long long)c->id));
}

static bool on_message(struct witness *w, struct conn *c, uint64_t seq, const char *payload)
{
	char text[LINE_MAX_BYTES + 128];
	uint64_t total;

	if (seq != c->last_seq + 1) {
		conn_fail(w, c, seq <= c->last_seq ? "repeated" : "lost", c->last_seq + 1, seq);
		return false;
	}
	c->last_seq = seq;
	total = atomic_fetch_add(&w->net.msgs, 1) + 1;
	return conn_say(w, c, text,
		snprintf(text, sizeof(text), "ECHO %llu %llu %llu %llu %s\n",
			(unsigned long long)seq, (unsigned long long)total,
			(unsigned long long)time_ns(CLOCK_MONOTONIC),
			(unsigned long long)report_fail_count(w), payload));
}

static bool on_line(struct witness *w, struct conn *c, const char *line)
{
	char payload[LINE_MAX_BYTES], text[64];
	unsigned long long n;

	if (!c->greeted) {
		if (!strncmp(line, "HELLO 1 ", 8))
			return on_hello(w, c, line);
		conn_close(w, c);
		return false;
	}
	if (sscanf(line, "MSG %llu %255s", &n, payload) == 2)
		return on_message(w, c, n, payload);
	if (sscanf(line, "BYE %llu", &n) == 1) {
		if (n != c->last_seq) {
			conn_fail(w, c, "lost", n, c->last_seq);
			return false;
		}
		c->leaving = true;
		return conn_say(w, c, text, snprintf(text, sizeof(text), "BYE %llu\n", n));
	}
	conn_fail(w, c, "malformed", c->last_seq + 1, 0);
	return false;
}

/* Hands over every complete line; returns false when the connection is gone. */
static bool conn_lines(struct witness *w, struct conn *c)
{
	size_t start = 0;
	char *end;

	while ((end = memchr(c->in + start, '\n', c->in_len - start))) {
		*end = '\0';
		if (end - (c->in + start) >= LINE_MAX_BYTES) {
			conn_fail(w, c, "malformed", c->last_seq + 1, 0);
			return false;
		}
		if (!on_line(w, c, c->in + start))
			return false;
		start = (size_t)(end - c->in) + 1;
	}
	c->in_len -= start;
	memmove(c->in, c->in + start, c->in_len);
	if (c->in_len == sizeof(c->in)) {
		conn_fail(w, c, "malformed", c->last_seq + 1, 0);
		return false;
	}
	return true;
}

static void conn_read(struct witness *w, struct conn *c)
{
	ssize_t n = recv(c->fd, c->in + c->in_len, sizeof(c->in) - c->in_len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* After BYE it's all the same in which way the client goes. */
	if (n <= 0 && c->leaving) {
		conn_close(w, c);
		return;
	}
	if (n <= 0) {
		conn_fail(w, c, n < 0 ? "reset" : "closed", c->last_seq + 1,
			n < 0 ? (uint64_t)errno : 0);
		return;
	}
	c->in_len += (size_t)n;
	if (conn_lines(w, c))
		conn_flush(w, c);
}

static void net_accept(struct witness *w)
{
	int fd = accept4(w->net.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), one = 1;

	if (fd < 0)
		return;
	for (int i = 0; i < CONNS_MAX; i++) {
		if (conns[i].fd >= 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		conns[i] = (struct conn){.fd = fd};
		return;
	}
	close(fd);
}

/*
 * Lines that nobody asked for. After a blackout the other side of a connection may wait for many
 * seconds before it tries again, but the guest speaks at once: so the first beat ends the gap.
 */
static void conn_beat(struct witness *w, struct conn *c, uint64_t now)
{
	char text[128];

	c->beat_due_ns = now + c->beat_ns;
	if (c->leaving || c->out_len > OUT_BEAT_BYTES)
		return;
	if (conn_say(w, c, text,
		    snprintf(text, sizeof(text), "BEAT %llu %llu %llu\n",
			    (unsigned long long)++c->beats, (unsigned long long)now,
			    (unsigned long long)report_fail_count(w))))
		conn_flush(w, c);
}

/* Sends the beats that are due; returns milliseconds until the next one, or -1. */
static int net_beat(struct witness *w)
{
	uint64_t now = time_ns(CLOCK_MONOTONIC), next = UINT64_MAX;

	for (int i = 0; i < CONNS_MAX; i++) {
		struct conn *c = &conns[i];

		if (c->fd >= 0 && c->beat_ns && now >= c->beat_due_ns)
			conn_beat(w, c, now);
		if (c->fd >= 0 && c->beat_ns && c->beat_due_ns < next)
			next = c->beat_due_ns;
	}
	return next == UINT64_MAX ? -1 : (int)((next - now) / NSEC_PER_MSEC) + 1;
}

static void *net_thread(void *arg)
{
	struct witness *w = arg;
	struct pollfd fds[CONNS_MAX + 1];

	for (;;) {
		int wait_ms = net_beat(w);

		fds[CONNS_MAX] = (struct pollfd){.fd = w->net.listen_fd, .events = POLLIN};
		for (int i = 0; i < CONNS_MAX; i++) {
			short out = conns[i].fd >= 0 && conns[i].out_len ? POLLOUT : 0;

			fds[i] =
				(struct pollfd){.fd = conns[i].fd, .events = (short)(POLLIN | out)};
		}
		if (poll(fds, CONNS_MAX + 1, wait_ms) < 0)
			continue;
		for (int i = 0; i < CONNS_MAX; i++) {
			if (fds[i].revents & POLLOUT && !conn_flush(w, &conns[i]))
				continue;
			if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
				conn_read(w, &conns[i]);
		}
		if (fds[CONNS_MAX].revents)
			net_accept(w);
	}
	return NULL;
}

static int if_set(int fd, struct ifreq *ifr, unsigned long request, in_addr_t addr)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = addr};

	memcpy(&ifr->ifr_addr, &sin, sizeof(sin));
	return ioctl(fd, request, ifr) < 0 ? -errno : 0;
}

static int if_up(int fd, const char *name, in_addr_t addr, in_addr_t mask)
{
	struct ifreq ifr = {0};
	int r = 0;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (addr)
		r = if_set(fd, &ifr, SIOCSIFADDR, addr);
	if (!r && mask)
		r = if_set(fd, &ifr, SIOCSIFNETMASK, mask);
	if (r < 0)
		return r;
	if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
		return -errno;
	ifr.ifr_flags |= IFF_UP | IFF_RUNNING;
	return ioctl(fd, SIOCSIFFLAGS, &ifr) < 0 ? -errno : 0;
}

static int route_default(int fd, const char *gw)
{
	struct sockaddr_in to = {.sin_family = AF_INET}, via = {.sin_family = AF_INET};
	struct rtentry rt = {.rt_flags = RTF_UP | RTF_GATEWAY};

	if (inet_pton(AF_INET, gw, &via.sin_addr) != 1)
		return -EINVAL;
	memcpy(&rt.rt_gateway, &via, sizeof(via));
	memcpy(&rt.rt_dst, &to, sizeof(to));
	memcpy(&rt.rt_genmask, &to, sizeof(to));
	return ioctl(fd, SIOCADDRT, &rt) < 0 ? -errno : 0;
}

/* Interfaces of a guest; a host test uses the loopback that is there. */
static int net_configure(struct witness *w)
{
	char text[sizeof(w->cfg.ip)], *slash;
	struct in_addr addr;
	unsigned prefix = 24;
	int fd, r;

	snprintf(text, sizeof(text), "%s", w->cfg.ip);
	slash = strchr(text, '/');
	if (slash) {
		*slash = '\0';
		prefix = (unsigned)atoi(slash + 1);
	}
	if (inet_pton(AF_INET, text, &addr) != 1 || prefix < 1 || prefix > 32)
		return -EINVAL;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = if_up(fd, "lo", 0, 0);
	if (!r)
		r = if_up(fd, w->cfg.ifname, addr.s_addr, htonl(~0U << (32 - prefix)));
	if (!r && w->cfg.gw[0])
		r = route_default(fd, w->cfg.gw);
	close(fd);
	return r;
}

static int net_listen(struct witness *w)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)w->cfg.port)};
	socklen_t len = sizeof(sin);
	int fd, one = 1;

	sin.sin_addr.s_addr = htonl(w->cfg.host_test ? INADDR_LOOPBACK : INADDR_ANY);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 || listen(fd, CONNS_MAX) < 0 ||
		getsockname(fd, (struct sockaddr *)&sin, &len) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	w->net.listen_fd = fd;
	w->cfg.port = ntohs(sin.sin_port);
	return 0;
}

int net_start(struct witness *w)
{
	pthread_t thread;
	int r = 0;

	for (int i = 0; i < CONNS_MAX; i++)
		conns[i].fd = -EBADF;
	if (!w->cfg.host_test)
		r = net_configure(w);
	if (!r)
		r = net_listen(w);
	if (!r)
		r = thread_start(&thread, net_thread, w);
	if (r < 0)
		report_fail(w, WATCH_NET, "cause=setup errno=%d", -r);
	return r;
}
