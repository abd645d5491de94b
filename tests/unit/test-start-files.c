/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Where the files are that QEMU reads when it starts and closes again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "memfd-preserve/readahead.h"
#include "vmm-glue/start-files.h"

static char dir[] = "/tmp/hf-start-files.XXXXXX";

/* A path in the test's folder; eight of them live at a time. */
static char *in_dir(const char *name)
{
	static char paths[8][128];
	static unsigned int next;
	char *p = paths[next++ % 8];

	snprintf(p, sizeof(paths[0]), "%s/%s", dir, name);
	return p;
}

static void make_file(const char *name)
{
	assert_int_equal(hf_file_write_atomic(in_dir(name), "x", 1, 0600), 0);
}

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	for (size_t i = 0; i < 4; i++)
		if (hf_mkdir_p(
			    in_dir((const char *const[]){"cwd/fw", "share", "seabios", "own"}[i]),
			    0755) < 0)
			return -1;
	make_file("cwd/vmlinuz");
	make_file("cwd/fw/relative.rom");
	make_file("cwd/both.rom");
	make_file("share/both.rom");
	make_file("share/bios-256k.bin");
	make_file("seabios/bios-256k.bin");
	make_file("seabios/vgabios.bin");
	make_file("own/vgabios.bin");
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command) == 0 ? 0 : -1;
}

static bool has(char *const *list, const char *text)
{
	for (; list && *list; list++)
		if (strcmp(*list, text) == 0)
			return true;
	return false;
}

static void test_find(void **state)
{
	char *argv[] = {(char *)"qemu", (char *)"-kernel", (char *)"vmlinuz", (char *)"-initrd",
		(char *)"no-initrd", (char *)"-append", (char *)"vmlinuz root=/x", (char *)"-L",
		in_dir("own"), (char *)"--L", (char *)"fw"};
	char *roms[] = {(char *)"bios-256k.bin", (char *)"vgabios.bin", (char *)"both.rom",
		(char *)"relative.rom", in_dir("share/both.rom"), (char *)"gone.bin",
		(char *)"/gone/too.bin", (char *)"bios-256k.bin", (char *)"", NULL};
	char *dirs[] = {in_dir("nowhere"), in_dir("share"), in_dir("seabios"), NULL};
	struct hf_manifest_guest guest = {
		.argv = argv, .n_argv = HF_ARRAY_SIZE(argv), .cwd = in_dir("cwd")};
	struct hf_start_files files;

	assert_int_equal(hf_start_files_find(&guest, roms, dirs, &files), 0);
	assert_true(has(files.paths, in_dir("cwd/vmlinuz")));
	/* The first folder that has it. */
	assert_true(has(files.paths, in_dir("share/bios-256k.bin")));
	assert_false(has(files.paths, in_dir("seabios/bios-256k.bin")));
	/* The command line's folders come first; they may be relative. */
	assert_true(has(files.paths, in_dir("own/vgabios.bin")));
	assert_true(has(files.paths, in_dir("cwd/fw/relative.rom")));
	/* And its own folder before them all. */
	assert_true(has(files.paths, in_dir("cwd/both.rom")));
	assert_true(has(files.paths, in_dir("share/both.rom")));
	assert_int_equal(files.n_paths, 6);
	assert_null(files.paths[6]);
	assert_true(has(files.missing, "no-initrd"));
	assert_true(has(files.missing, "gone.bin"));
	assert_true(has(files.missing, "/gone/too.bin"));
	assert_int_equal(files.n_missing, 3);
	hf_start_files_clear(&files);
	assert_null(files.paths);
}

/* What is found ends up in the list for the read-ahead. */
static void test_listed(void **state)
{
	char *argv[] = {(char *)"qemu"};
	char *roms[] = {(char *)"vgabios.bin", NULL}, *dirs[] = {in_dir("seabios"), NULL};
	struct hf_manifest_guest guest = {.argv = argv, .n_argv = 1};
	struct hf_readahead_list list = {0};
	struct hf_start_files files;
	bool listed = false;

	assert_int_equal(hf_start_files_find(&guest, roms, dirs, &files), 0);
	assert_int_equal(
		hf_readahead_collect(getpid(), (const char *const *)files.paths, &list), 0);
	for (size_t i = 0; i < list.n_files; i++)
		listed |= strcmp(list.files[i].path, in_dir("seabios/vgabios.bin")) == 0;
	assert_true(listed);
	hf_readahead_clear(&list);
	hf_start_files_clear(&files);
}

static void test_nothing(void **state)
{
	char *argv[] = {(char *)"qemu", (char *)"-kernel"};
	struct hf_manifest_guest guest = {.argv = argv, .n_argv = 2};
	struct hf_start_files files;

	assert_int_equal(hf_start_files_find(&guest, NULL, NULL, &files), 0);
	assert_int_equal(files.n_paths + files.n_missing, 0);
	assert_null(files.paths);
	hf_start_files_clear(&files);
}

/* Names beyond every measure, and more of them than there may be. */
static void test_limits(void **state)
{
	char *roms[HF_START_FILES_MAX + 9], names[HF_START_FILES_MAX + 8][16];
	char *argv[] = {(char *)"qemu", (char *)"-kernel", calloc(1, 10000)};
	char *dirs[] = {dir, NULL};
	struct hf_manifest_guest guest = {.argv = argv, .n_argv = 3, .cwd = dir};
	struct hf_start_files files;

	memset(argv[2], 'k', 9999);
	for (size_t i = 0; i < HF_START_FILES_MAX + 8; i++) {
		snprintf(names[i], sizeof(names[i]), "rom%zu", i);
		roms[i] = names[i];
	}
	roms[HF_START_FILES_MAX + 8] = NULL;
	assert_int_equal(hf_start_files_find(&guest, roms, dirs, &files), 0);
	assert_int_equal(files.n_paths, 0);
	assert_int_equal(files.n_missing, HF_START_FILES_MAX);
	hf_start_files_clear(&files);
	free(argv[2]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_listed),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
