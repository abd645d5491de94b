/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The keeper: sessions outlive the agent that had them retrieved, and the keeper ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "memfd-preserve/keeper.h"

static char folder[] = "/tmp/hf-keeper-XXXXXX";
static char path[108];

/* A kernel that has what isn't called "absent": a memfd for a session. */
static int retrieve(const char *device, const char *name, int *ret_fd)
{
	if (strcmp(device, "/dev/nothing") != 0)
		return -ENODEV;
	return strcmp(name, "absent") == 0 ? -ESRCH : hf_memfd_new(name, 4096, ret_fd);
}

static struct hf_keeper *open_keeper(bool want_found)
{
	struct hf_keeper *k = NULL;
	struct hf_error e = {0};
	bool found = !want_found;

	if (hf_keeper_open(path, "/dev/nothing", retrieve, &k, &found, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(found, want_found);
	return k;
}

static struct hf_inode get(struct hf_keeper *k, const char *name)
{
	cleanup_close int fd = -EBADF;
	struct hf_inode inode;

	assert_int_equal(hf_keeper_retrieve(k, name, &fd), 0);
	assert_int_equal(hf_fd_inode(fd, &inode, NULL), 0);
	return inode;
}

static void wait_end(void)
{
	for (int i = 0; i < 1000 && access(path, F_OK) == 0; i++)
		usleep(10000);
	assert_int_not_equal(access(path, F_OK), 0);
}

static void test_keeps(void **state)
{
	struct hf_keeper *k = open_keeper(false);
	struct hf_inode a = get(k, "a"), b = get(k, "b"), again = get(k, "a");
	int fd = -EBADF;

	assert_true(hf_inode_equal(&a, &again));
	assert_false(hf_inode_equal(&a, &b));
	assert_int_equal(hf_keeper_retrieve(k, "absent", &fd), -ESRCH);
	assert_int_equal(hf_keeper_drop(k, "absent"), -ENOENT);
	assert_int_equal(hf_keeper_drop(k, "a"), 0);
	assert_int_equal(hf_keeper_drop(k, "a"), -ENOENT);
	assert_int_equal(hf_keeper_retrieve(k, "a", &fd), -EALREADY);
	again = get(k, "b");
	assert_true(hf_inode_equal(&b, &again));
	assert_int_equal(hf_keeper_drop(k, "b"), 0);
	hf_keeper_close(k);
	wait_end();
	/* The next one knows nothing of it. */
	k = open_keeper(false);
	get(k, "a");
	assert_int_equal(hf_keeper_drop(k, "a"), 0);
	hf_keeper_close(k);
	wait_end();
}

static void test_names(void **state)
{
	struct hf_keeper *k = open_keeper(false);
	char name[65];
	int fd = -EBADF;

	memset(name, 'x', 64);
	name[64] = 0;
	assert_int_equal(hf_keeper_retrieve(k, name, &fd), -EINVAL);
	name[63] = 0;
	get(k, name);
	assert_int_equal(hf_keeper_drop(k, name), 0);
	hf_keeper_close(k);
	wait_end();
}

/* An agent that is killed in the middle of it. */
static void test_outlives_agent(void **state)
{
	struct hf_inode first, then;
	struct hf_keeper *k;
	int pair[2], status;
	pid_t pid;

	assert_int_equal(pipe(pair), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		k = open_keeper(false);
		first = get(k, "guest");
		get(k, "other");
		if (hf_keeper_drop(k, "other") < 0 ||
			write(pair[1], &first, sizeof(first)) != sizeof(first))
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(pair[0], &first, sizeof(first)), sizeof(first));
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(pair[0]);
	close(pair[1]);

	k = open_keeper(true);
	then = get(k, "guest");
	assert_true(hf_inode_equal(&first, &then));
	assert_int_equal(hf_keeper_retrieve(k, "other", &status), -EALREADY);
	assert_int_equal(hf_keeper_drop(k, "guest"), 0);
	hf_keeper_close(k);
	wait_end();
}

/* Files that are put in: by session and token, each file once, until dropped. */
static void test_files(void **state)
{
	struct hf_keeper *k = open_keeper(false);
	struct hf_inode a, b, got;
	int one = -EBADF, two = -EBADF, fd = -EBADF;

	assert_int_equal(hf_memfd_new("one", 4096, &one), 0);
	assert_int_equal(hf_memfd_new("two", 4096, &two), 0);
	assert_int_equal(hf_fd_inode(one, &a, NULL), 0);
	assert_int_equal(hf_fd_inode(two, &b, NULL), 0);
	assert_int_equal(hf_keeper_look(k, "guest"), -ENOENT);
	assert_int_equal(hf_keeper_get(k, "guest", 7, &fd), -ENOENT);
	assert_int_equal(hf_keeper_put(k, "guest", 7, -1), -EBADF);
	assert_int_equal(hf_keeper_put(k, "guest", 7, one), 0);
	assert_int_equal(hf_keeper_put(k, "guest", 7, two), -EEXIST);
	assert_int_equal(hf_keeper_put(k, "guest", 8, one), -EEXIST);
	assert_int_equal(hf_keeper_put(k, "other", 7, one), -EEXIST);
	assert_int_equal(hf_keeper_put(k, "guest", UINT64_MAX, two), 0);
	assert_int_equal(hf_keeper_look(k, "guest"), 0);
	close(one);
	close(two);
	hf_keeper_close(k);

	/* The next agent. */
	k = open_keeper(true);
	assert_int_equal(hf_keeper_get(k, "guest", 7, &fd), 0);
	assert_int_equal(hf_fd_inode(fd, &got, NULL), 0);
	assert_true(hf_inode_equal(&got, &a));
	close(fd);
	assert_int_equal(hf_keeper_get(k, "guest", UINT64_MAX, &fd), 0);
	assert_int_equal(hf_fd_inode(fd, &got, NULL), 0);
	assert_true(hf_inode_equal(&got, &b));
	assert_int_equal(hf_keeper_get(k, "other", 7, &two), -ENOENT);
	assert_int_equal(hf_keeper_drop(k, "guest"), 0);
	assert_int_equal(hf_keeper_look(k, "guest"), -EALREADY);
	assert_int_equal(hf_keeper_get(k, "guest", 7, &two), -ENOENT);
	/* Put again, it is a new one; and all of it can go at once. */
	assert_int_equal(hf_keeper_put(k, "guest", 1, fd), 0);
	assert_int_equal(hf_keeper_look(k, "guest"), 0);
	close(fd);
	assert_int_equal(hf_keeper_clear(k), 0);
	assert_int_equal(hf_keeper_look(k, "guest"), -ENOENT);
	hf_keeper_close(k);
	wait_end();
}

/* Whoever talks nonsense is hung up on, and nothing that is kept goes. */
static void test_nonsense(void **state)
{
	static const char *const texts[] = {"x", "a record that is longer than any request can be, "
						 "and then some more of it to be quite sure"};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct hf_keeper *k = open_keeper(false);
	struct hf_inode first = get(k, "guest"), then;
	char byte;

	memcpy(address.sun_path, path, strlen(path));
	hf_keeper_close(k);
	for (size_t i = 0; i < HF_ARRAY_SIZE(texts); i++) {
		int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

		assert_int_equal(
			connect(sock, (const struct sockaddr *)&address, sizeof(address)), 0);
		assert_int_equal(
			send(sock, texts[i], strlen(texts[i]), MSG_NOSIGNAL), strlen(texts[i]));
		assert_true(recv(sock, &byte, 1, 0) <= 0);
		close(sock);
	}
	k = open_keeper(true);
	then = get(k, "guest");
	assert_true(hf_inode_equal(&first, &then));
	assert_int_equal(hf_keeper_drop(k, "guest"), 0);
	hf_keeper_close(k);
	wait_end();
}

/* Sessions are for the keeper's own user, whatever the socket's mode is. */
static void test_stranger(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct hf_keeper *k = open_keeper(false);
	struct hf_inode first = get(k, "guest"), then;
	struct stat st;
	int status;
	pid_t pid;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	memcpy(address.sun_path, path, strlen(path));
	hf_keeper_close(k);
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(chmod(folder, 0711), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		char byte;

		/* Without root there is nobody else to be. */
		if (geteuid() != 0)
			_exit(0);
		if (setresuid(65534, 65534, 65534) < 0 ||
			connect(sock, (const struct sockaddr *)&address, sizeof(address)) < 0)
			_exit(1);
		/* Hung up on before anything is said. */
		_exit(recv(sock, &byte, 1, 0) > 0 ? 2 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	k = open_keeper(true);
	then = get(k, "guest");
	assert_true(hf_inode_equal(&first, &then));
	assert_int_equal(hf_keeper_drop(k, "guest"), 0);
	hf_keeper_close(k);
	wait_end();
}

static void test_bad_place(void **state)
{
	struct hf_keeper *k = NULL;
	struct hf_error e = {0};
	char longer[200];
	bool found;

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(
		hf_keeper_open(longer, "/dev/nothing", retrieve, &k, &found, &e), -ENAMETOOLONG);
	assert_true(hf_keeper_open("/nonexistent/keeper.sock", "/dev/nothing", retrieve, &k, &found,
			    &e) < 0);
	assert_non_null(strstr(e.message, "/nonexistent/keeper.sock"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keeps),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_outlives_agent),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_stranger),
		cmocka_unit_test(test_bad_place),
	};
	int r;

	if (!mkdtemp(folder))
		return 1;
	snprintf(path, sizeof(path), "%s/keeper.sock", folder);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(folder);
	return r;
}
