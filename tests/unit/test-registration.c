/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Registrations: there and back, garbage, and whether they tell the truth.
 *
 * Everything happens in a runtime folder of the test's own. A child process plays the guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/json.h"
#include "vmm-glue/registration-trust.h"
#include "vmm-glue/spawn.h"

#define UUID_A "0e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"
#define UUID_B "1e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"
#define RAM_BYTES (1u << 20)

static char folder[] = "/tmp/holdfast-registration-XXXXXX";

static int set_up(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	return setenv("HOLDFAST_RUN_DIR", folder, 1);
}

static int tear_down(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

/* A process that does nothing, but has what we have open. */
static pid_t start_guest(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

static void end_guest(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void fill(struct hf_registration *reg, const char *uuid, const char *name, pid_t pid)
{
	static const char *const argv[] = {"qemu-system-x86_64", "-m", "64", "-append",
		"a \"quoted\"\n\t\\ line", "\xff\xfe\x01", "\xc3\xa4\xe2\x82\xac", ""};
	static const char *const env[] = {"PATH=/usr/bin", "BAD=\xed\xa0\x80"};
	struct hf_manifest_guest *g = &reg->guest;

	*reg = (struct hf_registration){0};
	strcpy(g->uuid, uuid);
	assert_int_equal(hf_manifest_set(&g->name, name), 0);
	assert_int_equal(hf_manifest_set(&g->manager, "qemu"), 0);
	assert_int_equal(hf_manifest_set(&g->policy, "refuse"), 0);
	assert_int_equal(hf_manifest_set(&g->vmm, "/usr/bin/\xffqemu"), 0);
	assert_int_equal(
		hf_manifest_set_strings(&g->argv, &g->n_argv, argv, HF_ARRAY_SIZE(argv)), 0);
	assert_int_equal(hf_manifest_set_strings(&g->env, &g->n_env, env, HF_ARRAY_SIZE(env)), 0);
	assert_int_equal(hf_manifest_set(&g->cwd, "/srv/\xc3"), 0);
	assert_int_equal(hf_manifest_set(&g->qmp_path, "/run/holdfast/qmp/x.sock"), 0);
	g->uid = UINT32_MAX - 1;
	g->gid = 7;
	g->groups = calloc(2, sizeof(*g->groups));
	g->groups[0] = 4;
	g->groups[1] = UINT32_MAX - 1;
	g->n_groups = 2;
	g->umask = 077;
	g->stdio[0].kind = HF_STDIO_NONE;
	g->stdio[1].kind = HF_STDIO_NULL;
	g->stdio[2] =
		(struct hf_manifest_stdio){HF_STDIO_PATH, O_WRONLY | O_APPEND, strdup("/l\x80")};
	g->qemu_version[0] = 10;
	g->qemu_version[1] = 1;
	g->qemu_version[2] = 3;
	for (int i = 0; i < 2; i++) {
		struct hf_manifest_ram *ram = hf_manifest_add_ram(g);

		assert_int_equal(hf_manifest_set(&ram->id, i ? "m1" : "pc.ram"), 0);
		ram->size = RAM_BYTES;
		ram->fd = 100 + i;
		reg->ram_inodes[i] = (struct hf_inode){.dev = 1, .ino = UINT64_MAX - i};
	}
	reg->pid = pid;
	assert_int_equal(hf_pid_start_time(pid, &reg->start_ticks), 0);
}

/* As the launcher does: with who the process is. */
static void be_honest(struct hf_registration *reg)
{
	struct hf_manifest_guest *g = &reg->guest;
	int n = getgroups(0, NULL);

	g->uid = geteuid();
	g->gid = getegid();
	free(g->groups);
	g->groups = calloc(n + 1, sizeof(*g->groups));
	assert_int_equal(getgroups(n, g->groups), n);
	g->n_groups = n;
}

static void assert_same(const struct hf_registration *a, const struct hf_registration *b)
{
	const struct hf_manifest_guest *x = &a->guest, *y = &b->guest;

	assert_int_equal(a->pid, b->pid);
	assert_int_equal(a->start_ticks, b->start_ticks);
	assert_string_equal(a->reason, b->reason);
	assert_string_equal(a->remedy, b->remedy);
	assert_memory_equal(a->ram_inodes, b->ram_inodes, sizeof(a->ram_inodes));
	assert_string_equal(x->uuid, y->uuid);
	assert_string_equal(x->name, y->name);
	assert_string_equal(x->vmm, y->vmm);
	assert_string_equal(x->cwd, y->cwd);
	assert_string_equal(x->qmp_path, y->qmp_path);
	assert_int_equal(x->n_argv, y->n_argv);
	for (size_t i = 0; i < x->n_argv; i++)
		assert_string_equal(x->argv[i], y->argv[i]);
	assert_null(y->argv[y->n_argv]);
	assert_int_equal(x->n_settings, y->n_settings);
	for (size_t i = 0; i < x->n_settings; i++)
		assert_string_equal(x->settings[i], y->settings[i]);
	assert_int_equal(x->n_env, y->n_env);
	for (size_t i = 0; i < x->n_env; i++)
		assert_string_equal(x->env[i], y->env[i]);
	assert_null(y->env[y->n_env]);
	assert_int_equal(x->uid, y->uid);
	assert_int_equal(x->gid, y->gid);
	assert_int_equal(x->umask, y->umask);
	assert_int_equal(x->n_groups, y->n_groups);
	assert_memory_equal(x->groups, y->groups, x->n_groups * sizeof(*x->groups));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(x->stdio[i].kind, y->stdio[i].kind);
		assert_int_equal(x->stdio[i].open_flags, y->stdio[i].open_flags);
		assert_int_equal(!x->stdio[i].path, !y->stdio[i].path);
	}
	assert_string_equal(x->stdio[2].path, y->stdio[2].path);
	assert_memory_equal(x->qemu_version, y->qemu_version, sizeof(x->qemu_version));
	assert_int_equal(x->n_ram, y->n_ram);
	for (size_t i = 0; i < x->n_ram; i++) {
		assert_string_equal(x->ram[i].id, y->ram[i].id);
		assert_int_equal(x->ram[i].size, y->ram[i].size);
		assert_int_equal(x->ram[i].fd, y->ram[i].fd);
	}
}

static void test_round_trip(void **state)
{
	static const char *const settings[] = {"priority=3", "health-command=/bin/x \xff"};
	cleanup_registration struct hf_registration reg = {0}, back = {0};
	struct hf_error e = {0};
	char path[PATH_MAX];
	struct stat st;

	fill(&reg, UUID_A, "web \xc3\xa4 1", getpid());
	assert_int_equal(hf_manifest_set_strings(&reg.guest.settings, &reg.guest.n_settings,
				 settings, HF_ARRAY_SIZE(settings)),
		0);
	strcpy(reg.reason, "it has \"a\" reason");
	strcpy(reg.remedy, "and a remedy");
	assert_int_equal(hf_registration_write(&reg, &e), 0);
	assert_int_equal(hf_registration_path(UUID_A, path, sizeof(path)), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(hf_registration_read(path, &back, &e), 0);
	assert_same(&reg, &back);
	assert_true(hf_registration_alive(&back));
	assert_int_equal(hf_registration_remove(UUID_A), 0);
	assert_int_equal(hf_registration_remove(UUID_A), 0);
	assert_int_equal(access(path, F_OK), -1);
}

/* What version 1 wrote is read, whatever comes to be written. */
static void test_golden(void **state)
{
	cleanup_registration struct hf_registration reg = {0};
	cleanup_free char *json = NULL;
	struct hf_error e = {0};
	size_t size;

	assert_int_equal(hf_file_read("tests/golden/registration-v1.json", 65536, &json, &size), 0);
	if (hf_registration_parse(json, size, &reg, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(reg.guest.uuid, UUID_A);
	assert_string_equal(reg.guest.name, "web \xc3\xa4 1");
	assert_int_equal(reg.pid, 4711);
	assert_int_equal(reg.start_ticks, 123456789012345);
	assert_int_equal(reg.guest.n_argv, 5);
	assert_string_equal(reg.guest.argv[4], "a=\xff\xfe");
	assert_string_equal(reg.guest.qmp_path, "/run/holdfast/qmp/" UUID_A ".sock");
	assert_int_equal(reg.guest.umask, 022);
	assert_int_equal(reg.guest.stdio[1].open_flags, O_WRONLY | O_APPEND);
	assert_string_equal(reg.guest.stdio[1].path, "/var/log/web.log");
	assert_int_equal(reg.guest.qemu_version[2], 13);
	assert_int_equal(reg.guest.n_ram, 1);
	assert_int_equal(reg.guest.ram[0].fd, 3);
	assert_int_equal(reg.ram_inodes[0].ino, 20741);
	assert_int_equal(reg.guest.n_settings, 0);
}

/* Version 2 has what the launcher was told. */
static void test_golden_v2(void **state)
{
	cleanup_registration struct hf_registration reg = {0};
	cleanup_free char *json = NULL;
	struct hf_error e = {0};
	size_t size;

	assert_int_equal(hf_file_read("tests/golden/registration-v2.json", 65536, &json, &size), 0);
	if (hf_registration_parse(json, size, &reg, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(reg.guest.uuid, UUID_A);
	assert_int_equal(reg.guest.n_settings, 2);
	assert_string_equal(reg.guest.settings[0], "not-eligible=shutdown");
	assert_string_equal(reg.guest.settings[1], "priority=80");
}

/* Every key that is written is in the document's section on registrations. */
static void expect_documented(struct json_object *value, const char *section)
{
	char word[80];

	for (size_t i = 0; i < hf_json_array_size(value); i++)
		expect_documented(json_object_array_get_idx(value, i), section);
	if (!json_object_is_type(value, json_type_object))
		return;
	json_object_object_foreach (value, key, child) {
		snprintf(word, sizeof(word), strcmp(key, "hex") == 0 ? "\"%s\"" : "`%s`", key);
		if (!strstr(section, word))
			fail_msg("docs/FORMATS.md lacks %s", word);
		expect_documented(child, section);
	}
}

static void test_document(void **state)
{
	cleanup_registration struct hf_registration reg = {0};
	cleanup_json struct json_object *o = NULL;
	cleanup_free char *json = NULL, *text = NULL;
	char *section, *end;
	size_t size;

	fill(&reg, UUID_A, "web1", getpid());
	assert_int_equal(hf_manifest_set_strings(&reg.guest.settings, &reg.guest.n_settings,
				 (const char *const[]){"priority=3"}, 1),
		0);
	assert_int_equal(hf_registration_format(&reg, &json, &size, NULL), 0);
	assert_int_equal(hf_json_parse(json, size, 8, &o), 0);
	assert_non_null(json_object_object_get(o, "settings"));
	assert_int_equal(hf_file_read("docs/FORMATS.md", 1 << 20, &text, NULL), 0);
	section = strstr(text, "\n## Registrations\n");
	assert_non_null(section);
	end = strstr(section + 4, "\n## ");
	if (end)
		*end = 0;
	expect_documented(o, section);
}

/* Formats a good one, replaces a part of it, and expects what parsing gives. */
static void expect(const char *from, const char *to, int result)
{
	cleanup_registration struct hf_registration reg = {0};
	struct hf_registration back = {0};
	cleanup_free char *json = NULL, *changed = NULL;
	struct hf_error e = {0};
	size_t size;
	char *at;

	fill(&reg, UUID_A, "web1", getpid());
	assert_int_equal(hf_registration_format(&reg, &json, &size, &e), 0);
	at = strstr(json, from);
	if (!at)
		fail_msg("no %s in %s", from, json);
	assert_true(
		asprintf(&changed, "%.*s%s%s", (int)(at - json), json, to, at + strlen(from)) > 0);
	if (hf_registration_parse(changed, strlen(changed), &back, &e) != result)
		fail_msg("%s to %s: %d (%s), not %d", from, to, e.err, e.message, result);
	if (result == 0)
		hf_registration_clear(&back);
	else
		assert_true(e.message[0]);
}

static void test_garbage(void **state)
{
	expect("\"version\":1", "\"version\":1", 0);
	expect("\"version\":1", "\"version\":2", 0);
	expect("\"version\":1", "\"version\":2,\"settings\":[\"priority=3\"]", 0);
	expect("\"version\":1", "\"version\":1,\"settings\":[\"priority=3\"]", -EBADMSG);
	expect("\"version\":1", "\"version\":2,\"settings\":[3]", -EBADMSG);
	expect("\"version\":1", "\"version\":2,\"settings\":{}", -EBADMSG);
	expect("\"version\":1", "\"version\":3", -EPROTONOSUPPORT);
	expect("\"version\":1", "\"version\":0", -EBADMSG);
	expect("\"version\":1", "\"version\":\"1\"", -EBADMSG);
	expect("\"version\":1", "\"version\":1,\"more\":1", -EBADMSG);
	expect("\"umask\":63", "\"umask\":-1", -EBADMSG);
	expect("\"umask\":63", "\"umask\":4294967296", -EBADMSG);
	expect("\"umask\":63,", "", -EBADMSG);
	expect("\"web1\"", "\"\"", -EBADMSG);
	expect("\"web1\"", "\"a/b\"", -EBADMSG);
	expect("\"web1\"", "\"a\\u0007\"", -EBADMSG);
	expect("\"web1\"", "7", -EBADMSG);
	expect(UUID_A, "0e7a3ad2-0d1c-4a3e-9d4f-0123456789a/", -EBADMSG);
	expect(UUID_A, "../../etc", -EBADMSG);
	expect("\"hex\":\"fffe01\"", "\"hex\":\"fffe0\"", -EBADMSG);
	expect("\"hex\":\"fffe01\"", "\"hex\":\"fffe00\"", -EBADMSG);
	expect("\"hex\":\"fffe01\"", "\"hex\":\"fffg01\"", -EBADMSG);
	expect("\"hex\":\"fffe01\"", "\"hey\":\"fffe01\"", -EBADMSG);
	expect("\"kind\":\"none\"", "\"kind\":\"tape\"", -EBADMSG);
	expect("\"kind\":\"none\"", "\"kind\":\"path\"", -EBADMSG);
	expect("\"fd\":100", "\"fd\":-1", -EBADMSG);
	expect("\"fd\":100", "\"fd\":4294967295", -EBADMSG);
	expect("\"size\":1048576", "\"size\":0", -EBADMSG);
	expect("\"size\":1048576", "\"size\":1.5", -EBADMSG);
	expect("\"pc.ram\"", "null", -EBADMSG);
	expect("\"refuse\"", "\"refuse\"", 0);
}

static void test_cut(void **state)
{
	cleanup_registration struct hf_registration reg = {0};
	struct hf_registration back = {0};
	cleanup_free char *json = NULL;
	size_t size;

	fill(&reg, UUID_A, "web1", getpid());
	assert_int_equal(hf_registration_format(&reg, &json, &size, NULL), 0);
	for (size_t i = 0; i < size; i++) {
		char *part = malloc(i ? i : 1); /* of its own, for the sanitizers */

		memcpy(part, json, i);
		assert_int_equal(hf_registration_parse(part, i, &back, NULL), -EBADMSG);
		free(part);
	}
}

static void put_file(const char *name, const char *contents)
{
	char path[PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), "%s/guests/%s", folder, name);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(contents, f);
	fclose(f);
}

static void test_list(void **state)
{
	cleanup_registration struct hf_registration a = {0}, b = {0};
	struct hf_registration *list = NULL;
	pid_t pid = start_guest();
	char path[PATH_MAX];
	size_t n = 99, bad = 99;

	fill(&a, UUID_A, "zebra", getpid());
	fill(&b, UUID_B, "ant", pid);
	be_honest(&a);
	be_honest(&b);
	assert_int_equal(hf_registration_write(&a, NULL), 0);
	assert_int_equal(hf_registration_write(&b, NULL), 0);
	put_file("garbage.json", "{");
	put_file("2e7a3ad2-0d1c-4a3e-9d4f-0123456789ab.json", "[]");
	put_file("notes.txt", "?");
	put_file(".hidden.json", "?");
	assert_int_equal(hf_registration_list(&list, &n, &bad), 0);
	assert_int_equal(n, 2);
	assert_int_equal(bad, 2);
	assert_string_equal(list[0].guest.name, "ant");
	assert_string_equal(list[1].guest.name, "zebra");
	hf_registration_list_free(list, n);

	/* Killed and not waited for: a zombie is nothing to preserve. */
	kill(pid, SIGKILL);
	waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT);
	assert_false(hf_registration_alive(&b));
	assert_int_equal(hf_registration_list(&list, &n, NULL), 0);
	assert_int_equal(n, 1);
	hf_registration_list_free(list, n);
	waitpid(pid, NULL, 0);
	assert_int_equal(hf_registration_path(UUID_B, path, sizeof(path)), 0);
	assert_int_equal(access(path, F_OK), -1);

	/* The pid of another process now. */
	a.start_ticks++;
	assert_false(hf_registration_alive(&a));
	assert_int_equal(hf_registration_remove(UUID_A), 0);
	assert_int_equal(hf_registration_remove("garbage"), 0);
	assert_int_equal(hf_registration_remove("2e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"), 0);
}

static void test_no_folder(void **state)
{
	struct hf_registration *list = NULL;
	size_t n = 99, bad = 99;

	assert_int_equal(setenv("HOLDFAST_RUN_DIR", "/nonexistent/holdfast", 1), 0);
	assert_int_equal(hf_registration_list(&list, &n, &bad), 0);
	assert_int_equal(n, 0);
	assert_int_equal(bad, 0);
	hf_registration_list_free(list, n);
	assert_int_equal(unsetenv("HOLDFAST_RUN_DIR"), 0);
	assert_string_equal(hf_run_dir(), HF_RUN_DIR_DEFAULT);
	assert_int_equal(setenv("HOLDFAST_RUN_DIR", folder, 1), 0);
	assert_string_equal(hf_run_dir(), folder);
}

/* A file that says it is another guest's. */
static void test_wrong_name(void **state)
{
	cleanup_registration struct hf_registration a = {0};
	struct hf_registration back = {0};
	struct hf_error e = {0};
	char from[PATH_MAX], to[PATH_MAX];

	fill(&a, UUID_A, "web1", getpid());
	assert_int_equal(hf_registration_write(&a, NULL), 0);
	hf_registration_path(UUID_A, from, sizeof(from));
	hf_registration_path(UUID_B, to, sizeof(to));
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(hf_registration_read(to, &back, &e), -EBADMSG);
	assert_non_null(strstr(e.message, UUID_B));
	assert_int_equal(hf_registration_read(from, &back, &e), -ENOENT);
	unlink(to);
}

static void test_busy(void **state)
{
	cleanup_registration struct hf_registration a = {0}, b = {0};
	pid_t pid = start_guest();
	struct hf_error e = {0};

	fill(&a, UUID_A, "first", pid);
	fill(&b, UUID_A, "second", getpid());
	assert_int_equal(hf_registration_write(&a, &e), 0);
	assert_int_equal(hf_registration_write(&a, &e), 0); /* itself, again */
	assert_int_equal(hf_registration_write(&b, &e), -EBUSY);
	assert_non_null(strstr(e.message, "first"));
	end_guest(pid);
	assert_int_equal(hf_registration_write(&b, &e), 0);
	assert_int_equal(hf_registration_remove(UUID_A), 0);
}

static void test_open_ram(void **state)
{
	cleanup_registration struct hf_registration reg = {0};
	struct hf_error e = {0};
	int made[2], fds[2] = {-1, -1};
	struct hf_inode inode;
	pid_t pid;

	for (int i = 0; i < 2; i++)
		assert_int_equal(hf_memfd_new("test", RAM_BYTES, &made[i]), 0);
	pid = start_guest();
	fill(&reg, UUID_A, "web1", pid);
	for (int i = 0; i < 2; i++) {
		reg.guest.ram[i].fd = made[i];
		assert_int_equal(hf_fd_inode(made[i], &reg.ram_inodes[i], NULL), 0);
	}
	assert_int_equal(hf_registration_open_ram(&reg, fds, &e), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(hf_fd_inode(fds[i], &inode, NULL), 0);
		assert_true(hf_inode_equal(&inode, &reg.ram_inodes[i]));
		assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
		close(fds[i]);
	}

	/* Another file under the number, a smaller file, no file, another process. */
	reg.ram_inodes[1].ino++;
	assert_int_equal(hf_registration_open_ram(&reg, fds, &e), -ESTALE);
	assert_string_equal(e.guest, "web1");
	reg.ram_inodes[1].ino--;
	reg.guest.ram[0].size++;
	assert_int_equal(hf_registration_open_ram(&reg, fds, &e), -ESTALE);
	reg.guest.ram[0].size--;
	reg.guest.ram[1].fd = 999;
	assert_int_equal(hf_registration_open_ram(&reg, fds, &e), -EBADF);
	reg.guest.ram[1].fd = made[1];
	reg.start_ticks++;
	assert_int_equal(hf_registration_open_ram(&reg, fds, &e), -ESTALE);
	reg.start_ticks--;
	end_guest(pid);
	assert_int_equal(hf_registration_open_ram(&reg, fds, &e), -ESTALE);
	assert_non_null(strstr(e.message, "has ended"));
	close(made[0]);
	close(made[1]);
}

/* ---- attacks ---- */

#define MALLORY 65533
#define ALICE 65532

/* Lists, and expects so many guests and so many files that aren't believed. */
static void expect_list(size_t n_wanted, size_t bad_wanted)
{
	struct hf_registration *list = NULL;
	size_t n = 99, bad = 99;

	assert_int_equal(hf_registration_list(&list, &n, &bad), 0);
	hf_registration_list_free(list, n);
	assert_int_equal(n, n_wanted);
	assert_int_equal(bad, bad_wanted);
}

static bool skip_without_root(void)
{
	if (geteuid() != 0)
		print_message("[    note ] needs root to be somebody else\n");
	return geteuid() != 0;
}

/* A process of that user, with memory of its own under number 100. */
static pid_t start_guest_of(uid_t uid, struct hf_inode *ret_ram)
{
	int ready[2];
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		const gid_t groups[] = {uid + 2, 27};
		struct hf_inode inode;
		int fd;

		if (setgroups(2, groups) < 0 || setresgid(uid, uid, uid) < 0 ||
			setresuid(uid, uid, uid) < 0)
			_exit(1);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (hf_memfd_new("ram", RAM_BYTES, &fd) < 0 || dup2(fd, 100) < 0 ||
			dup2(fd, 101) < 0 || dup2(open("/etc/passwd", O_RDONLY), 102) < 0 ||
			hf_fd_inode(100, &inode, NULL) < 0 ||
			write(ready[1], &inode, sizeof(inode)) != sizeof(inode))
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], ret_ram, sizeof(*ret_ram)), sizeof(*ret_ram));
	close(ready[0]);
	return pid;
}

/* What the user could write about a process, in a file of the user's. */
static void forge(const struct hf_registration *reg, uid_t owner)
{
	char path[PATH_MAX];

	hf_registration_remove(reg->guest.uuid);
	assert_int_equal(hf_registration_write(reg, NULL), 0);
	assert_int_equal(hf_registration_path(reg->guest.uuid, path, sizeof(path)), 0);
	assert_int_equal(chown(path, owner, owner), 0);
}

static void fill_for(struct hf_registration *reg, uid_t uid, pid_t pid, struct hf_inode ram)
{
	fill(reg, UUID_A, "web1", pid);
	assert_int_equal(hf_manifest_set(&reg->guest.vmm, "/tmp/evil"), 0);
	reg->guest.uid = reg->guest.gid = uid;
	/* In another order than the kernel has them: the same. */
	reg->guest.groups[0] = uid + 2;
	reg->guest.groups[1] = 27;
	reg->ram_inodes[0] = reg->ram_inodes[1] = ram;
}

/* Nobody can register what is another's. */
static void test_forged_process(void **state)
{
	cleanup_registration struct hf_registration reg = {0}, mine = {0};
	struct hf_inode ram;
	pid_t alice;

	if (skip_without_root())
		return;
	alice = start_guest_of(ALICE, &ram);
	fill_for(&reg, ALICE, alice, ram);
	forge(&reg, MALLORY);
	expect_list(0, 1);
	forge(&reg, ALICE);
	expect_list(1, 0);
	end_guest(alice);
	expect_list(0, 0);
	/* Nor what is root's. */
	fill(&mine, UUID_A, "web1", getpid());
	be_honest(&mine);
	forge(&mine, MALLORY);
	expect_list(0, 1);
	forge(&mine, 0);
	expect_list(1, 0);
	assert_int_equal(hf_registration_remove(UUID_A), 0);
}

/* One's own process, to be started again as somebody else. */
static void test_forged_rights(void **state)
{
	cleanup_registration struct hf_registration reg = {0};
	struct hf_registration *list = NULL;
	struct hf_spawn_spec spec;
	struct hf_inode ram;
	size_t n = 0;
	pid_t pid;

	if (skip_without_root())
		return;
	pid = start_guest_of(MALLORY, &ram);
	fill_for(&reg, MALLORY, pid, ram);
	reg.guest.uid = 0;
	forge(&reg, MALLORY);
	expect_list(0, 1);
	reg.guest.uid = ALICE;
	forge(&reg, MALLORY);
	expect_list(0, 1);
	reg.guest.uid = MALLORY;
	reg.guest.gid = 0;
	forge(&reg, MALLORY);
	expect_list(0, 1);
	reg.guest.gid = MALLORY;
	reg.guest.groups[1] = 0;
	forge(&reg, MALLORY);
	expect_list(0, 1);
	reg.guest.n_groups = 1;
	forge(&reg, MALLORY);
	expect_list(0, 1);
	reg.guest.n_groups = 2;
	reg.guest.groups[1] = 27;
	/* The truth: what is started again is what could be started without us. */
	forge(&reg, MALLORY);
	assert_int_equal(hf_registration_list(&list, &n, NULL), 0);
	assert_int_equal(n, 1);
	spec = hf_spawn_spec_of(&list[0].guest);
	assert_string_equal(spec.program, "/tmp/evil");
	assert_int_equal(spec.uid, MALLORY);
	assert_int_equal(spec.gid, MALLORY);
	assert_int_equal(spec.n_groups, 2);
	hf_registration_list_free(list, n);
	/* Root's own word, about a QEMU that has given up being root: -runas. Not the other way. */
	reg.guest.uid = reg.guest.gid = 0;
	forge(&reg, 0);
	expect_list(1, 0);
	reg.guest.uid = ALICE;
	forge(&reg, 0);
	expect_list(0, 1);
	end_guest(pid);
	expect_list(0, 0);
}

/* A file that a program with more rights has open is nobody's RAM. */
static void test_forged_memory(void **state)
{
	cleanup_registration struct hf_registration reg = {0};
	struct hf_error e = {0};
	struct stat st;
	struct hf_inode ram;
	int fds[2];
	pid_t pid;

	if (skip_without_root())
		return;
	pid = start_guest_of(MALLORY, &ram);
	fill_for(&reg, MALLORY, pid, ram);
	reg.owner = MALLORY;
	if (hf_registration_open_ram(&reg, fds, &e) < 0)
		fail_msg("%s", e.message);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(stat("/etc/passwd", &st), 0);
	reg.guest.ram[1].fd = 102;
	reg.guest.ram[1].size = 1;
	reg.ram_inodes[1] = (struct hf_inode){.dev = st.st_dev, .ino = st.st_ino};
	assert_int_equal(hf_registration_open_ram(&reg, fds, &e), -EPERM);
	assert_non_null(strstr(e.message, "no memory of user"));
	end_guest(pid);
}

/* What isn't a file of its own is not read, and not waited for. */
static void test_links(void **state)
{
	cleanup_registration struct hf_registration reg = {0}, back = {0};
	char path[PATH_MAX], aside[PATH_MAX];
	struct hf_error e = {0};

	fill(&reg, UUID_A, "web1", getpid());
	be_honest(&reg);
	assert_int_equal(hf_registration_write(&reg, NULL), 0);
	expect_list(1, 0);
	hf_registration_path(UUID_A, path, sizeof(path));
	snprintf(aside, sizeof(aside), "%s/aside", folder);
	assert_int_equal(chmod(path, 0620), 0);
	expect_list(0, 1);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(link(path, aside), 0);
	expect_list(0, 1);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink(aside, path), 0);
	expect_list(0, 1);
	assert_int_equal(hf_registration_read(path, &back, &e), -ELOOP);
	/* Written anew, it replaces the link and leaves alone what that led to. */
	assert_int_equal(truncate(aside, 0), 0);
	assert_int_equal(hf_registration_write(&reg, NULL), 0);
	expect_list(1, 0);
	assert_int_equal(access(aside, F_OK), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	expect_list(0, 1);
	assert_int_equal(unlink(path), 0);
	unlink(aside);
}

static void test_folder_of_others(void **state)
{
	cleanup_registration struct hf_registration reg = {0};
	struct hf_error e = {0};
	char path[PATH_MAX];
	struct stat st;

	fill(&reg, UUID_A, "web1", getpid());
	be_honest(&reg);
	assert_int_equal(hf_registration_write(&reg, NULL), 0);
	snprintf(path, sizeof(path), "%s/guests", folder);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(hf_registration_check_folder(NULL), 0);
	assert_int_equal(chmod(path, 01777), 0);
	assert_int_equal(hf_registration_check_folder(&e), -EPERM);
	assert_non_null(strstr(e.message, path));
	assert_int_equal(hf_registration_write(&reg, NULL), -EPERM);
	assert_int_equal(chmod(path, 0770), 0);
	assert_int_equal(hf_registration_check_folder(NULL), -EPERM);
	assert_int_equal(chmod(path, 0700), 0);
	assert_int_equal(chmod(folder, 0777), 0);
	assert_int_equal(hf_registration_check_folder(NULL), -EPERM);
	assert_int_equal(chmod(folder, 0700), 0);
	if (!skip_without_root()) {
		assert_int_equal(chown(path, MALLORY, 0), 0);
		assert_int_equal(hf_registration_check_folder(NULL), -EPERM);
		assert_int_equal(chown(path, 0, 0), 0);
	}
	assert_int_equal(hf_registration_check_folder(NULL), 0);
	assert_int_equal(hf_registration_remove(UUID_A), 0);
}

static void test_uuids_and_names(void **state)
{
	char uuid[HF_UUID_CHARS], name[HF_GUEST_NAME_MAX + 2];

	assert_true(hf_uuid_parse("0E7A3AD2-0D1C-4A3E-9D4F-0123456789AB", uuid));
	assert_string_equal(uuid, UUID_A);
	assert_false(hf_uuid_parse("", uuid));
	assert_false(hf_uuid_parse("0e7a3ad20d1c4a3e9d4f0123456789ab", uuid));
	assert_false(hf_uuid_parse(UUID_A "0", uuid));
	assert_false(hf_uuid_parse("0e7a3ad2-0d1c-4a3e-9d4f-0123456789a", uuid));
	assert_false(hf_uuid_parse("0e7a3ad2-0d1c-4a3e-9d4f-0123456789ag", uuid));
	assert_true(hf_guest_name_valid("a"));
	assert_true(hf_guest_name_valid("w\xc3\xa4hrung \xf0\x9f\x90\xa7"));
	assert_false(hf_guest_name_valid(""));
	assert_false(hf_guest_name_valid("a/b"));
	assert_false(hf_guest_name_valid("a\nb"));
	assert_false(hf_guest_name_valid("a\x7f"));
	assert_false(hf_guest_name_valid("\xc0\xaf"));
	assert_false(hf_guest_name_valid("\xe0\x80\xaf"));
	assert_false(hf_guest_name_valid("\xed\xa0\x80"));
	assert_false(hf_guest_name_valid("\xf4\x90\x80\x80"));
	assert_false(hf_guest_name_valid("\xc3"));
	memset(name, 'x', sizeof(name));
	name[HF_GUEST_NAME_MAX + 1] = 0;
	assert_false(hf_guest_name_valid(name));
	name[HF_GUEST_NAME_MAX] = 0;
	assert_true(hf_guest_name_valid(name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_golden_v2),
		cmocka_unit_test(test_document),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_no_folder),
		cmocka_unit_test(test_wrong_name),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_open_ram),
		cmocka_unit_test(test_uuids_and_names),
		cmocka_unit_test(test_forged_process),
		cmocka_unit_test(test_forged_rights),
		cmocka_unit_test(test_forged_memory),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_folder_of_others),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
