/* SPDX-License-Identifier: Apache-2.0 */
/* What a QEMU was given as descriptors: looked up in this very process, and made anew. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/cleanup.h"
#include "common/fd.h"
#include "vmm-glue/inherited.h"

struct world {
	char folder[64];
	char path[96];
	int fd;
	struct hf_cmdline *plan;
	struct hf_manifest *manifest;
	struct hf_manifest_guest *guest;
};

static const char ram[] =
	"{\"qom-type\":\"memory-backend-file\",\"id\":\"pc.ram\",\"mem-path\":\"/r\","
	"\"share\":true,\"size\":4096}";

static int listen_at(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static int can_connect(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	return connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0;
}

static void plan_with(struct world *w, int fd)
{
	char chardev[96];
	const char *const argv[] = {"/usr/bin/qemu-system-x86_64", "-machine",
		"pc-i440fx-7.2,memory-backend=pc.ram", "-object", ram, "-chardev", chardev};

	hf_cmdline_free(w->plan);
	snprintf(chardev, sizeof(chardev), "socket,id=charmonitor,fd=%d,server=on,wait=off", fd);
	assert_int_equal(hf_cmdline_parse_libvirt(argv, HF_ARRAY_SIZE(argv), &w->plan, NULL), 0);
	assert_string_equal(w->plan->reason, "");
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->folder, "/tmp/hf-inherited-XXXXXX");
	if (!mkdtemp(w->folder) || hf_manifest_new(&w->manifest) < 0 ||
		hf_manifest_add_guest(w->manifest, &w->guest) < 0)
		return -1;
	snprintf(w->path, sizeof(w->path), "%s/monitor.sock", w->folder);
	w->fd = listen_at(w->path);
	chmod(w->path, 0751);
	plan_with(w, w->fd);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	hf_close(&w->fd);
	unlink(w->path);
	rmdir(w->folder);
	hf_cmdline_free(w->plan);
	hf_manifest_free(w->manifest);
	free(w);
	return 0;
}

static void test_socket(void **state)
{
	struct world *w = *state;
	struct hf_spawn_fd fds[1];
	struct hf_error e = {0};
	struct stat st;

	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), 0);
	assert_true(w->guest->inherits);
	assert_int_equal(w->guest->n_fds, 1);
	assert_string_equal(w->guest->fds[0].path, w->path);
	assert_int_equal(w->guest->fds[0].mode, 0751);
	assert_int_equal(hf_inherited_first_free(w->guest), w->fd + 1);
	/* Once more: in the place of what there was. */
	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), 0);
	assert_int_equal(w->guest->n_fds, 1);

	/* What was there is of the kernel before. */
	close(w->fd);
	w->fd = -EBADF;
	assert_false(can_connect(w->path));
	assert_int_equal(hf_inherited_open(w->guest, fds, &e), 0);
	assert_int_equal(fds[0].number, w->guest->fds[0].fd);
	assert_true(can_connect(w->path));
	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0751);
	hf_inherited_close(fds, 1);
	assert_false(can_connect(w->path));
}

/* Whoever the folder belongs to must not lead root elsewhere by it. */
static void test_link(void **state)
{
	struct world *w = *state;
	struct hf_spawn_fd fds[1];
	struct hf_error e = {0};
	char link[96], moved[128];

	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), 0);
	snprintf(link, sizeof(link), "%s.link", w->folder);
	assert_int_equal(symlink(w->folder, link), 0);
	snprintf(moved, sizeof(moved), "%s/monitor.sock", link);
	hf_manifest_set(&w->guest->fds[0].path, moved);
	assert_int_equal(hf_inherited_open(w->guest, fds, &e), -ENOTDIR);
	assert_non_null(strstr(e.message, moved));
	/* Nothing was removed there. */
	assert_true(can_connect(w->path));
	unlink(link);
}

static void test_unknown(void **state)
{
	struct world *w = *state;
	struct hf_error e = {0};
	cleanup_close int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int pair[2];

	plan_with(w, file);
	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.message, "/dev/null"));
	/* A socket, but nobody listens. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	plan_with(w, pair[0]);
	hf_error_clear(&e);
	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), -EOPNOTSUPP);
	close(pair[0]);
	close(pair[1]);
	/* It is not there at all. */
	plan_with(w, 90000);
	hf_error_clear(&e);
	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_socket, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_link, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unknown, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
