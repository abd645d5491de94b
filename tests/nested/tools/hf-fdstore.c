/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a service that keeps a memfd in systemd's file descriptor store
 *
 *   hf-fdstore TEXT
 *
 * With nothing in the store: writes TEXT into a memfd and stores that. Otherwise it says what is in
 * the one that came back. Either goes into /var/log/hf-fdstore.log, a line each. Static, without
 * libsystemd: the protocols are two environment variables and a datagram.
 */

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_FD 3

static int fail(const char *what)
{
	fprintf(stderr, "hf-fdstore: %s: %s\n", what, strerror(errno));
	return 1;
}

static int note(const char *what, const char *text)
{
	FILE *f = fopen("/var/log/hf-fdstore.log", "a");

	if (!f || fprintf(f, "%s: %s\n", what, text) < 0 || fclose(f) != 0)
		return fail("log");
	return 0;
}

static int store(int fd)
{
	static const char message[] = "FDSTORE=1\nFDNAME=kept";
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(char *)message, sizeof(message) - 1};
	struct msghdr msg = {.msg_name = &address,
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (!path || strlen(path) >= sizeof(address.sun_path) || sock < 0)
		return fail("NOTIFY_SOCKET");
	memcpy(address.sun_path, path, strlen(path));
	msg.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(sizeof(int))};
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
	return sendmsg(sock, &msg, 0) < 0 ? fail("sendmsg") : 0;
}

int main(int argc, char *argv[])
{
	const char *n = getenv("LISTEN_FDS");
	char text[256] = "";
	int fd;

	if (argc != 2)
		return 2;
	if (n && atoi(n) > 0) {
		if (pread(FIRST_FD, text, sizeof(text) - 1, 0) < 0)
			return fail("pread");
		return note("back", text);
	}
	fd = memfd_create("kept", MFD_CLOEXEC);
	if (fd < 0 || write(fd, argv[1], strlen(argv[1])) != (ssize_t)strlen(argv[1]))
		return fail("memfd");
	return store(fd) == 0 ? note("stored", argv[1]) : 1;
}
