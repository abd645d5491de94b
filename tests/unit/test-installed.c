/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Asking an installed QEMU what it is: what it prints, and all that can go wrong with it.
 *
 * Started with --version this very program is a QEMU, so that there is one that is no script.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/fd.h"
#include "vmm-glue/installed.h"

#define LONG_NS (20 * HF_NSEC_PER_SEC)

static char dir[] = "/tmp/hf-installed.XXXXXX";
static sd_event *event;
static struct hf_installed *installed;
static char count_env[128];
static char *env[] = {(char *)"PATH=/usr/bin:/bin", count_env, NULL};
static char *argv0[] = {(char *)"qemu-as-called", NULL};
static unsigned int n_done;

static void on_done(void *data)
{
	n_done++;
}

static struct hf_manifest_guest guest_of(const char *program)
{
	return (struct hf_manifest_guest){
		.vmm = (char *)(uintptr_t)program,
		.argv = argv0,
		.n_argv = 1,
		.env = env,
		.n_env = 2,
		.cwd = dir,
		.uid = geteuid(),
		.gid = getegid(),
		.umask = 022,
	};
}

static void write_file(const char *name, const void *data, size_t size)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(hf_file_write_atomic(path, data, size, 0755), 0);
}

static void write_script(const char *name, const char *lines)
{
	char text[1024];

	snprintf(text, sizeof(text), "#!/bin/sh\n%s\n", lines);
	write_file(name, text, strlen(text));
}

/* How often the programs were asked for their version. */
static size_t count(void)
{
	cleanup_free char *text = NULL;
	size_t size = 0;

	hf_file_read(strchr(count_env, '=') + 1, 4096, &text, &size);
	return size;
}

static const struct hf_installed_vmm *answer_of(
	const struct hf_manifest_guest *guest, uint64_t timeout_ns)
{
	const struct hf_installed_vmm *answer;
	int r;

	n_done = 0;
	r = hf_installed_ask(installed, guest, timeout_ns, on_done, NULL);
	assert_true(r == 0 || r == 1);
	assert_int_equal(n_done, 0);
	while (r == 0 && n_done == 0)
		assert_true(sd_event_run(event, UINT64_MAX) >= 0);
	answer = hf_installed_get(installed, guest);
	assert_non_null(answer);
	return answer;
}

static const struct hf_installed_vmm *ask(const char *program, uint64_t timeout_ns)
{
	struct hf_manifest_guest guest = guest_of(program);

	return answer_of(&guest, timeout_ns);
}

/* ---- what it prints ---- */

static void version_is(const char *text, unsigned int major, unsigned int minor, unsigned int micro,
	const char *package)
{
	struct hf_qmp_version v;

	assert_int_equal(hf_installed_parse_version(text, strlen(text), &v), 0);
	assert_int_equal(v.major, major);
	assert_int_equal(v.minor, minor);
	assert_int_equal(v.micro, micro);
	assert_string_equal(v.package, package);
}

static void test_version(void **state)
{
	struct hf_qmp_version v;

	version_is("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\n"
		   "Copyright (c) 2003-2022 Fabrice Bellard and the QEMU Project developers\n",
		7, 2, 22, "Debian 1:7.2+dfsg-7+deb12u18+b3");
	version_is("QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)\r\n", 11, 1, 3,
		"Debian 1:11.1.3+ds-1~bpo13+1");
	version_is("QEMU emulator version 10.0.0", 10, 0, 0, "");
	version_is("warning: no locale\nQEMU emulator version 9.2.50 (v9.2.0-7-gabc)\n", 9, 2, 50,
		"v9.2.0-7-gabc");
#define BAD(s) assert_int_equal(hf_installed_parse_version(s, strlen(s), &v), -EBADMSG)
	BAD("");
	BAD("QEMU emulator version ");
	BAD("QEMU emulator version 10\n");
	BAD("QEMU emulator version 10.0\n");
	BAD("QEMU emulator version 10.0.1x\n");
	BAD("QEMU emulator version 10.0.12345\n");
	BAD("QEMU emulator version -1.0.1\n");
	BAD("not QEMU emulator version 10.0.1\n");
}

static void test_machines(void **state)
{
	static const char text[] =
		"Supported machines are:\n"
		"microvm              microvm (i386)\n"
		"pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)\n"
		"none                 empty machine\n"
		"x-a-machine-of-20-ch its description\n";
	cleanup_free char **list = NULL;
	char many[32768] = "Supported machines are:\n";

	assert_int_equal(hf_installed_parse_machines(text, strlen(text), &list), 0);
	assert_string_equal(list[0], "microvm");
	assert_string_equal(list[1], "pc");
	assert_string_equal(list[2], "none");
	assert_string_equal(list[3], "x-a-machine-of-20-ch");
	assert_null(list[4]);
	assert_int_equal(hf_installed_parse_machines("", 0, &list), -EBADMSG);
	assert_int_equal(hf_installed_parse_machines(text, 30, &list), -EBADMSG);
	assert_int_equal(hf_installed_parse_machines("pc   a pc\n", 10, &list), -EBADMSG);
	/* More than there can be: then which are missing can't be told. */
	for (size_t n = strlen(many), i = 0; i < 600; i++)
		n += (size_t)snprintf(many + n, sizeof(many) - n, "pc-%zu                  x\n", i);
	assert_int_equal(hf_installed_parse_machines(many, strlen(many), &list), -EBADMSG);
}

static void test_dirs(void **state)
{
	static const char text[] = "/usr/bin/../share/qemu\nrelative\n/usr/share/seabios\r\n";
	cleanup_free char **list = NULL;

	assert_int_equal(hf_installed_parse_dirs(text, strlen(text), &list), 0);
	assert_string_equal(list[0], "/usr/bin/../share/qemu");
	assert_string_equal(list[1], "/usr/share/seabios");
	assert_null(list[2]);
	assert_int_equal(hf_installed_parse_dirs("relative\n", 9, &list), -EBADMSG);
}

/* ---- asking ---- */

static void test_script(void **state)
{
	const struct hf_installed_vmm *a;
	char path[128];

	write_script("qemu",
		"case $1 in\n"
		"--version) printf . >>$COUNT; echo 'QEMU emulator version 10.0.1 (p)';;\n"
		"-machine) echo 'Supported machines are:'; echo 'pc-1.0               it';;\n"
		"-L) pwd;;\n"
		"esac");
	snprintf(path, sizeof(path), "%s/qemu", dir);
	for (size_t i = 1; i <= 2; i++) {
		size_t before = count();

		a = ask(path, LONG_NS);
		assert_int_equal(a->error.err, 0);
		assert_int_equal(a->version.major, 10);
		assert_string_equal(a->version.package, "p");
		assert_string_equal(a->machines[0], "pc-1.0");
		assert_string_equal(a->data_dirs[0], dir);
		/* It may call another program than the last time: asked every time. */
		assert_int_equal(count(), before + 1);
	}
	/* By its place in the guest's folder. */
	assert_int_equal(ask("./qemu", LONG_NS)->error.err, 0);
	/* Upgraded. */
	write_script("qemu", "echo 'QEMU emulator version 11.0.0'");
	a = ask(path, LONG_NS);
	assert_int_equal(a->version.major, 11);
	assert_null(a->machines);
	assert_null(a->data_dirs);
}

/* A real program is asked once, until it is another file or has changed. */
static void test_binary(void **state)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000}};
	cleanup_free char *me = NULL;
	char path[128];
	size_t size;

	assert_int_equal(hf_file_read("/proc/self/exe", 64 << 20, &me, &size), 0);
	write_file("binary", me, size);
	snprintf(path, sizeof(path), "%s/binary", dir);
	for (size_t i = 0; i < 3; i++) {
		const struct hf_installed_vmm *a;
		size_t before = count();

		a = ask(path, LONG_NS);
		assert_int_equal(a->error.err, 0);
		assert_int_equal(a->version.major, 3);
		assert_int_equal(a->version.minor, 1);
		assert_int_equal(count() - before, 1);
		before = count();
		ask(path, LONG_NS);
		assert_int_equal(count() - before, 0);
		if (i == 0)
			assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
		else
			write_file("binary", me, size);
	}
}

/* Many guests, one program: it runs once for all that ask while it does. */
static void test_many(void **state)
{
	struct hf_manifest_guest guest;
	char path[128];
	size_t before = count();

	write_script("slow", "[ $1 = --version ] && printf . >>$COUNT; sleep 0.2; "
			     "echo 'QEMU emulator version 10.0.2'");
	snprintf(path, sizeof(path), "%s/slow", dir);
	guest = guest_of(path);
	n_done = 0;
	assert_null(hf_installed_get(installed, &guest));
	for (size_t i = 0; i < 50; i++)
		assert_int_equal(hf_installed_ask(installed, &guest, LONG_NS, on_done, NULL), 0);
	while (n_done < 50)
		assert_true(sd_event_run(event, UINT64_MAX) >= 0);
	assert_int_equal(count() - before, 1);
	assert_int_equal(hf_installed_get(installed, &guest)->version.micro, 2);
}

/* More programs than are remembered. */
static void test_forgetting(void **state)
{
	struct hf_manifest_guest first;
	char name[32], path[128], first_path[128];

	for (size_t i = 0; i < 70; i++) {
		snprintf(name, sizeof(name), "q%zu", i);
		snprintf(path, sizeof(path), "%s/%s", dir, name);
		write_script(name, "echo 'QEMU emulator version 1.0.0'");
		assert_int_equal(ask(path, LONG_NS)->error.err, 0);
	}
	snprintf(first_path, sizeof(first_path), "%s/q0", dir);
	first = guest_of(first_path);
	assert_null(hf_installed_get(installed, &first));
	assert_int_equal(ask(first_path, LONG_NS)->error.err, 0);
}

static void expect_error(const char *program, uint64_t timeout_ns, int err, const char *says)
{
	const struct hf_installed_vmm *a = ask(program, timeout_ns);

	assert_int_equal(a->error.err, err);
	if (!strstr(a->error.message, says))
		fail_msg("%s: %s", program, a->error.message);
}

static void test_failures(void **state)
{
	struct timespec begin, end;
	char path[128];

	clock_gettime(CLOCK_MONOTONIC, &begin);
	expect_error("/nowhere/qemu", LONG_NS, -ENOEXEC, "/nowhere/qemu");
	expect_error("no-such-qemu", LONG_NS, -ENOEXEC, "can't find");
	expect_error(dir, LONG_NS, -ENOEXEC, "can't start");
	snprintf(path, sizeof(path), "%s/bad", dir);
	write_script("bad", "echo libx.so: cannot open shared object file >&2; exit 127");
	expect_error(path, LONG_NS, -ENOEXEC, "status 127");
	expect_error(path, LONG_NS, -ENOEXEC, "libx.so: cannot open");
	write_script("bad", "kill -9 $$");
	expect_error(path, LONG_NS, -ENOEXEC, "signal 9");
	/* Not QEMU, but nothing is wrong with it as far as can be told. */
	write_script("bad", "echo hello");
	expect_error(path, LONG_NS, -EBADMSG, "hello");
	write_script("bad", ":");
	expect_error(path, LONG_NS, -EBADMSG, "status 0");
	write_script("bad", "exec yes");
	expect_error(path, LONG_NS, -EBADMSG, "without saying");
	write_script("bad", "exec sleep 1000");
	expect_error(path, HF_NSEC_PER_SEC / 5, -ETIMEDOUT, "does not answer");
	/* Whoever is left behind with its output does not hold it up. */
	write_script("bad", "echo 'QEMU emulator version 5.0.0'; sleep 3 &");
	assert_int_equal(ask(path, LONG_NS)->version.major, 5);
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true(end.tv_sec - begin.tv_sec < 10);
}

static void test_free_meanwhile(void **state)
{
	struct hf_installed *in;
	struct hf_manifest_guest guest;
	char path[128];

	write_script("hangs", "exec sleep 1000");
	snprintf(path, sizeof(path), "%s/hangs", dir);
	guest = guest_of(path);
	assert_int_equal(hf_installed_new(event, &in), 0);
	n_done = 0;
	assert_int_equal(hf_installed_ask(in, &guest, LONG_NS, on_done, NULL), 0);
	assert_null(hf_installed_free(in));
	for (size_t i = 0; i < 20; i++)
		sd_event_run(event, 10000);
	assert_int_equal(n_done, 0);
	assert_null(hf_installed_free(NULL));
}

static int setup(void **state)
{
	if (!mkdtemp(dir) || sd_event_new(&event) < 0)
		return -1;
	snprintf(count_env, sizeof(count_env), "COUNT=%s/count", dir);
	return hf_installed_new(event, &installed);
}

static int teardown(void **state)
{
	char command[128];

	hf_installed_free(installed);
	sd_event_unref(event);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command) == 0 ? 0 : -1;
}

static int be_qemu(void)
{
	FILE *f = fopen(getenv("COUNT"), "ae");

	if (f) {
		fputc('.', f);
		fclose(f);
	}
	puts("QEMU emulator version 3.1.4 (me)");
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_machines),
		cmocka_unit_test(test_dirs),
		cmocka_unit_test(test_script),
		cmocka_unit_test(test_binary),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_forgetting),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_free_meanwhile),
	};

	if (argc > 1)
		return strcmp(argv[1], "--version") == 0 ? be_qemu() : 1;
	return cmocka_run_group_tests(tests, setup, teardown);
}
