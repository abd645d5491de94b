/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/luo.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

#include "common/fd.h"

#define BACKOFF_FIRST_NS (HF_NSEC_PER_MSEC / 2)
#define BACKOFF_LAST_NS (50 * HF_NSEC_PER_MSEC)
#define PRESERVE_TRIES 5
#define PRESERVE_PAUSE_FIRST_NS (50 * HF_NSEC_PER_MSEC)
#define PROC_FILE_MAX (256u << 10)

/* The device has one opener: threads of this process queue here instead of retrying. */
static pthread_mutex_t device_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * HF_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void sleep_ns(uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns / HF_NSEC_PER_SEC),
		.tv_nsec = (long)(ns % HF_NSEC_PER_SEC),
	};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static int open_device(const char *device, uint64_t timeout_ns, int *ret_fd)
{
	uint64_t deadline = now_ns() + timeout_ns, pause = BACKOFF_FIRST_NS;

	for (;;) {
		int fd = open(device, O_RDWR | O_CLOEXEC | O_NOCTTY);

		if (fd >= 0) {
			*ret_fd = fd;
			return 0;
		}
		if (errno == EINTR)
			continue;
		if (errno != EBUSY)
			return -errno;
		if (now_ns() >= deadline)
			return -EBUSY;
		sleep_ns(pause);
		pause = HF_MIN(pause * 2, BACKOFF_LAST_NS);
	}
}

static int session_ioctl(const char *device, unsigned long request, const char *name,
	uint64_t timeout_ns, int *ret_fd)
{
	struct hf_luo_session_arg arg = {.size = sizeof(arg), .fd = -1};
	size_t len = strnlen(name, HF_LUO_NAME_BYTES);
	int fd = -EBADF, r;

	if (len == 0 || len >= HF_LUO_NAME_BYTES)
		return -EINVAL;
	memcpy(arg.name, name, len);

	pthread_mutex_lock(&device_lock);
	r = open_device(device, timeout_ns, &fd);
	if (r == 0) {
		if (ioctl(fd, request, &arg) < 0) {
			r = -errno;
			/* An absent device has ENOENT already. */
			if (r == -ENOENT)
				r = -ESRCH;
		}
		close(fd);
	}
	pthread_mutex_unlock(&device_lock);
	if (r == 0)
		*ret_fd = arg.fd;
	return r;
}

int hf_luo_session_create(const char *device, const char *name, uint64_t timeout_ns, int *ret_fd)
{
	return session_ioctl(device, HF_LUO_CREATE_SESSION, name, timeout_ns, ret_fd);
}

int hf_luo_session_retrieve(const char *device, const char *name, uint64_t timeout_ns, int *ret_fd)
{
	size_t len = strnlen(name, HF_LUO_NAME_BYTES);
	int r;

	if (len == 0 || len >= HF_LUO_NAME_BYTES)
		return -EINVAL;
	r = session_ioctl(device, HF_LUO_RETRIEVE_SESSION, name, timeout_ns, ret_fd);
	/* The argument is sound, so that EINVAL can only mean that somebody has the session. */
	return r == -EINVAL ? -EALREADY : r;
}

int hf_luo_preserve(int session_fd, uint64_t token, int fd)
{
	struct hf_luo_fd_arg arg = {.size = sizeof(arg), .fd = fd, .token = token};
	uint64_t pause = PRESERVE_PAUSE_FIRST_NS;

	for (int tries = 1;; tries++) {
		if (ioctl(session_fd, HF_LUO_PRESERVE_FD, &arg) == 0)
			return 0;
		if (errno != ENOMEM || tries == PRESERVE_TRIES)
			return -errno;
		sleep_ns(pause);
		pause *= 2;
	}
}

int hf_luo_retrieve(int session_fd, uint64_t token, int *ret_fd)
{
	struct hf_luo_fd_arg arg = {.size = sizeof(arg), .fd = -1, .token = token};

	if (ioctl(session_fd, HF_LUO_RETRIEVE_FD, &arg) < 0)
		return -errno;
	*ret_fd = arg.fd;
	return 0;
}

int hf_luo_finish(int session_fd)
{
	struct hf_luo_finish_arg arg = {.size = sizeof(arg)};

	return ioctl(session_fd, HF_LUO_FINISH, &arg) < 0 ? -errno : 0;
}

int hf_luo_get_name(int session_fd, char *name)
{
	struct hf_luo_name_arg arg = {.size = sizeof(arg)};

	if (ioctl(session_fd, HF_LUO_GET_NAME, &arg) < 0)
		return -errno;
	arg.name[HF_LUO_NAME_BYTES - 1] = 0;
	memcpy(name, arg.name, HF_LUO_NAME_BYTES);
	return 0;
}

/* Whether the kernel registered the misc device: lines of `NN name`. */
static bool misc_has_device(const char *proc)
{
	cleanup_free char *data = NULL;
	char path[256], *line, *save = NULL;

	snprintf(path, sizeof(path), "%s/misc", proc);
	if (hf_file_read(path, PROC_FILE_MAX, &data, NULL) < 0)
		return false;
	for (line = strtok_r(data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *name = strrchr(line, ' ');

		if (name && strcmp(name + 1, "liveupdate") == 0)
			return true;
	}
	return false;
}

static bool parameter_on(const char *cmdline, const char *name)
{
	static const char *const yes[] = {"on", "1", "y", "Y"};
	cleanup_free char *copy = strdup(cmdline);
	char *word, *save = NULL;
	bool on = false;

	for (word = copy ? strtok_r(copy, " \n", &save) : NULL; word;
		word = strtok_r(NULL, " \n", &save)) {
		size_t n = strlen(name);

		if (strncmp(word, name, n) != 0 || word[n] != '=')
			continue;
		on = false; /* the last one counts */
		for (size_t i = 0; i < HF_ARRAY_SIZE(yes); i++)
			on |= strcmp(word + n + 1, yes[i]) == 0;
	}
	return on;
}

static int explain_absent(const char *proc, struct hf_error *e)
{
	cleanup_free char *cmdline = NULL;
	char path[256];
	struct utsname un = {0};
	const char *remedy;
	bool kho, luo;

	if (misc_has_device(proc))
		return hf_error_set(e, -ENOENT, HF_ERR_NOT_READY,
			"mount devtmpfs on /dev, or start udev",
			"the kernel has live update, but there is no /dev/liveupdate");
	snprintf(path, sizeof(path), "%s/cmdline", proc);
	hf_file_read(path, PROC_FILE_MAX, &cmdline, NULL);
	kho = cmdline && parameter_on(cmdline, "kho");
	luo = cmdline && parameter_on(cmdline, "liveupdate");
	if (kho && luo)
		remedy = "boot a kernel built with CONFIG_LIVEUPDATE and CONFIG_LIVEUPDATE_MEMFD";
	else if (kho)
		remedy = "add liveupdate=on to the kernel command line, on a kernel with "
			 "CONFIG_LIVEUPDATE";
	else if (luo)
		remedy =
			"add kho=on to the kernel command line, on a kernel with CONFIG_LIVEUPDATE";
	else
		remedy = "boot a kernel built with CONFIG_LIVEUPDATE and CONFIG_LIVEUPDATE_MEMFD, "
			 "with "
			 "kho=on liveupdate=on on its command line";
	uname(&un);
	return hf_error_set(e, -ENODEV, HF_ERR_NOT_READY, remedy,
		"the running kernel (%s) has live update missing or switched off", un.release);
}

int hf_luo_check(const char *device, const char *proc, struct hf_error *e)
{
	int fd = -EBADF, r;

	pthread_mutex_lock(&device_lock);
	r = open_device(device, 0, &fd);
	hf_close(&fd);
	pthread_mutex_unlock(&device_lock);

	switch (r) {
	case 0:
	case -EBUSY: /* somebody works with it, so it works */
		return 0;
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
		return explain_absent(proc, e);
	case -EACCES:
	case -EPERM:
		return hf_error_set(e, -EACCES, HF_ERR_NOT_PERMITTED,
			"run as root, with access to the device", "%s can't be opened: %s", device,
			strerror(-r));
	case -EIO:
		return hf_error_set(e, r, HF_ERR_NOT_READY,
			"see the kernel log for `luo`; only a full reboot clears this",
			"the kernel could not read what the kernel before it handed over");
	default:
		return hf_error_set(e, r, HF_ERR_NOT_READY, NULL, "%s can't be opened: %s", device,
			strerror(-r));
	}
}
