/* SPDX-License-Identifier: Apache-2.0 */
/* What a QEMU was given as descriptors: looked up in this very process, and made anew. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
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
	char missed[256];
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
	assert_int_equal(hf_inherited_open(w->guest, fds, missed, sizeof(missed), &e), 0);
	assert_int_equal(fds[0].number, w->guest->fds[0].fd);
	assert_true(can_connect(w->path));
	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0751);
	hf_inherited_close(fds, 1);
	assert_false(can_connect(w->path));
}

/* A helper of another user has to get through the folders above its own, whatever the umask is. */
static void test_folders(void **state)
{
	struct world *w = *state;
	struct hf_manifest_folder *f = hf_manifest_add_folder(w->guest);
	mode_t mask = umask(077);
	char above[128], path[160];
	struct hf_error e = {0};
	struct stat st;

	snprintf(above, sizeof(above), "%s/qemu", w->folder);
	snprintf(path, sizeof(path), "%s/swtpm", above);
	assert_int_equal(hf_manifest_set(&f->path, path), 0);
	f->mode = 0710;
	f->uid = geteuid();
	f->gid = getegid();
	assert_int_equal(hf_inherited_start(NULL, w->guest, false, &e), 0);
	umask(mask);
	assert_int_equal(stat(above, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0710);
	rmdir(path);
	rmdir(above);
}

/* A connection between bind and listen would be refused: the VMM has to wait for both. */
static void test_helper_listens(void **state)
{
	struct world *w = *state;
	struct hf_manifest_helper *h = hf_manifest_add_helper(w->guest);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct hf_error e = {0};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/swtpm.sock", w->folder);
	assert_int_equal(hf_manifest_set(&h->socket, sa.sun_path), 0);
	h->socket_uid = geteuid();
	h->socket_gid = getegid();
	assert_int_equal(hf_inherited_start(NULL, w->guest, true, &e), -EAGAIN);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(hf_inherited_start(NULL, w->guest, true, &e), -EAGAIN);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(hf_inherited_start(NULL, w->guest, true, &e), 0);
	close(fd);
	/* Left over: the name of one that ended. */
	assert_int_equal(hf_inherited_start(NULL, w->guest, true, &e), -EAGAIN);
	unlink(sa.sun_path);
}

/* Whoever the folder belongs to must not lead root elsewhere by it. */
static void test_link(void **state)
{
	struct world *w = *state;
	struct hf_spawn_fd fds[1];
	char missed[256];
	struct hf_error e = {0};
	char link[96], moved[128];

	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), 0);
	snprintf(link, sizeof(link), "%s.link", w->folder);
	assert_int_equal(symlink(w->folder, link), 0);
	snprintf(moved, sizeof(moved), "%s/monitor.sock", link);
	hf_manifest_set(&w->guest->fds[0].path, moved);
	assert_int_equal(hf_inherited_open(w->guest, fds, missed, sizeof(missed), &e), -ENOTDIR);
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

/* ---- files of consoles ---- */

static void plan_with_file(struct world *w, const char *path)
{
	static const char *const argv[] = {"/usr/bin/qemu-system-x86_64", "-machine",
		"pc-i440fx-7.2,memory-backend=pc.ram", "-object", ram, "-add-fd",
		"set=0,fd=31,opaque=serial0-source", "-chardev",
		"file,id=charserial0,path=/dev/fdset/0,append=on"};
	char status[512];

	hf_cmdline_free(w->plan);
	assert_int_equal(hf_cmdline_parse_libvirt(argv, HF_ARRAY_SIZE(argv), &w->plan, NULL), 0);
	assert_string_equal(w->plan->reason, "");
	snprintf(status, sizeof(status),
		"<domstatus pid='1'><domain type='kvm'><devices>\n<serial type='file'>\n"
		"<source path='%s'/>\n<alias name='serial0'/>\n</serial></devices></domain>"
		"</domstatus>",
		path);
	assert_int_equal(hf_manifest_set(&w->guest->libvirt_status, status), 0);
}

static void write_file(const char *path, const char *text)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void expect_file(const char *path, const char *wanted)
{
	cleanup_free char *text = NULL;

	assert_int_equal(hf_file_read(path, 4096, &text, NULL), 0);
	assert_string_equal(text, wanted);
}

static void test_file(void **state)
{
	struct world *w = *state;
	struct hf_spawn_fd fds[1];
	struct hf_error e = {0};
	char path[96], missed[256];
	struct stat st;

	snprintf(path, sizeof(path), "%s/console.log", w->folder);
	plan_with_file(w, path);
	write_file(path, "before\n");
	chmod(path, 0640);
	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), 0);
	assert_int_equal(w->guest->n_fds, 1);
	assert_int_equal(w->guest->fds[0].kind, HF_FD_FILE);
	assert_string_equal(w->guest->fds[0].path, path);
	assert_int_equal(w->guest->fds[0].mode, 0640);
	assert_int_equal(w->guest->fds[0].uid, geteuid());

	assert_int_equal(hf_inherited_open(w->guest, fds, missed, sizeof(missed), &e), 0);
	assert_string_equal(missed, "");
	assert_int_equal(fds[0].number, 31);
	assert_int_equal(fcntl(fds[0].fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK),
		O_WRONLY | O_APPEND);
	assert_int_equal(write(fds[0].fd, "after\n", 6), 6);
	hf_inherited_close(fds, 1);
	expect_file(path, "before\nafter\n");

	/* It is gone, as with the file system that it was on. */
	unlink(path);
	assert_int_equal(hf_inherited_open(w->guest, fds, missed, sizeof(missed), &e), 0);
	assert_string_equal(missed, "");
	assert_int_equal(write(fds[0].fd, "new\n", 4), 4);
	hf_inherited_close(fds, 1);
	expect_file(path, "new\n");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);

	/* And before it was looked at: moved away by whoever keeps logs short. */
	unlink(path);
	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), 0);
	assert_int_equal(w->guest->fds[0].mode, 0600);
}

/* What is there instead of the file is left alone, and the guest goes on. */
static void expect_null(struct world *w, const char *path)
{
	struct hf_spawn_fd fds[1];
	struct hf_error e = {0};
	char link[64], target[64], missed[256];
	ssize_t n;

	assert_int_equal(hf_inherited_open(w->guest, fds, missed, sizeof(missed), &e), 0);
	assert_non_null(strstr(missed, path));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fds[0].fd);
	n = readlink(link, target, sizeof(target) - 1);
	target[n < 0 ? 0 : n] = 0;
	assert_string_equal(target, "/dev/null");
	hf_inherited_close(fds, 1);
}

static void test_file_replaced(void **state)
{
	struct world *w = *state;
	struct hf_error e = {0};
	char path[96], other[96];

	snprintf(path, sizeof(path), "%s/console.log", w->folder);
	snprintf(other, sizeof(other), "%s/other", w->folder);
	plan_with_file(w, path);
	write_file(path, "");
	write_file(other, "theirs\n");
	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), 0);
	unlink(path);
	assert_int_equal(symlink(other, path), 0);
	expect_null(w, path);
	unlink(path);
	assert_int_equal(link(other, path), 0);
	expect_null(w, path);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	expect_null(w, path);
	unlink(path);
	write_file(path, "");
	w->guest->fds[0].uid = geteuid() + 1;
	expect_null(w, path);
	unlink(path);
	expect_file(other, "theirs\n");
	unlink(other);
}

static void test_file_refused(void **state)
{
	struct world *w = *state;
	struct hf_error e = {0};
	char path[96];

	/* Of the device that it belongs to nothing is known. */
	snprintf(path, sizeof(path), "%s/console.log", w->folder);
	plan_with_file(w, path);
	hf_manifest_set(&w->guest->libvirt_status, "<domstatus pid='1'/>");
	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.message, "serial0-source"));
	plan_with_file(w, path);
	assert_int_equal(symlink("/dev/null", path), 0);
	hf_error_clear(&e);
	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), -ELOOP);
	assert_non_null(strstr(e.message, "symbolic link"));
	assert_true(e.remedy[0]);
	unlink(path);
	plan_with_file(w, "/nonexistent-folder/console.log");
	hf_error_clear(&e);
	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), -ENOENT);
	assert_non_null(strstr(e.message, "/nonexistent-folder/console.log"));
	plan_with_file(w, w->folder);
	hf_error_clear(&e);
	assert_true(hf_inherited_collect(w->plan, getpid(), w->guest, &e) < 0);
}

static bool fd_is_open(pid_t pid, int fd)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)pid, fd);
	return access(link, F_OK) == 0 || errno != ENOENT;
}

/* A pipe counts as long as something is in it, and only of those whose consoles are in files. */
static void test_being_written(void **state)
{
	struct world *w = *state;
	struct hf_error e = {0};
	char path[96], c;
	int pair[2];
	pid_t pid;

	snprintf(path, sizeof(path), "%s/console.log", w->folder);
	plan_with_file(w, path);
	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	/* Not of this process: what it prints itself may still be in its standard output's. */
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close_range(0, 2, 0);
		for (;;)
			pause();
	}
	while (fd_is_open(pid, 2))
		usleep(1000);
	assert_int_equal(write(pair[1], "x", 1), 1);
	assert_false(hf_inherited_is_being_written(w->guest, pid));
	assert_int_equal(hf_inherited_collect(w->plan, getpid(), w->guest, &e), 0);
	assert_true(hf_inherited_is_being_written(w->guest, pid));
	assert_int_equal(read(pair[0], &c, 1), 1);
	assert_false(hf_inherited_is_being_written(w->guest, pid));
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_folders, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_helper_listens, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_socket, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_link, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unknown, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_file_replaced, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_file_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_being_written, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
