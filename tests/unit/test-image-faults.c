/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Images that are cut short, damaged or changed, disks that are full or broken, and deaths at
 * every step: never is anything loaded but what was saved.
 *
 * Linked with sources that have fault points, in every variant (mk/test.mk).
 */
#include "image-rig.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

static char path[300];

static void read_image(uint8_t **ret, size_t *ret_size)
{
	char *data = NULL;

	snprintf(path, sizeof(path), "%s/image", folder);
	assert_int_equal(hf_file_read(path, 64 * MIB, &data, ret_size), 0);
	*ret = (uint8_t *)data;
}

static void write_image(const uint8_t *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(hf_fd_write_full(fd, data, size), 0);
	close(fd);
}

static int try_load(bool encrypted, const struct ram *ram)
{
	struct hf_image_load_config config = load_config(encrypted);
	struct hf_image_loaded l = {0};
	int r;

	hf_error_clear(&error);
	r = hf_image_load(engine, &config, NULL, &l, &error);
	if (r < 0) {
		assert_null(l.blocks);
		assert_true(error.message[0] != 0);
		return r;
	}
	check_same(ram, &l.blocks[0]);
	hf_image_loaded_release(&l);
	return 0;
}

/* 20 chunks of data and some zeros. */
static struct ram sample(void)
{
	struct ram ram = ram_new(2 * MIB);

	scribble(ram.map, 20 * CHUNK, 3);
	memcpy(ram.map + 100, "the password is swordfish", 25);
	memset(ram.map + 25 * CHUNK, 0, CHUNK);
	return ram;
}

/* A byte that is different, wherever it is; but for what means nothing. */
static void test_damage(void **state)
{
	for (int encrypted = 0; encrypted < 2; encrypted++) {
		struct ram ram = sample();
		struct hf_image_block b = block_of(&ram, 1);
		struct hf_image_save_config config = save_config(&b, 1, encrypted);
		uint8_t *data;
		size_t size;

		save_all(&config);
		read_image(&data, &size);
		for (size_t at = 0; at < size; at += at < 13000 || at > size - 4200 ? 61 : 9973) {
			int r;

			data[at] ^= 0x10;
			write_image(data, size);
			r = try_load(encrypted, &ram);
			if (r != -EBADMSG)
				fail_msg("byte %zu of %zu changed: %d %s", at, size, r,
					error.message);
			data[at] ^= 0x10;
		}
		/* It says where. */
		data[hf_image_data_offset(1, encrypted ? 60 : 0) + 3 * CHUNK + 9] ^= 1;
		write_image(data, size);
		assert_int_equal(try_load(encrypted, &ram), -EBADMSG);
		assert_non_null(strstr(error.message, " offset "));
		assert_non_null(strstr(error.message, "of ram1"));
		data[hf_image_data_offset(1, encrypted ? 60 : 0) + 3 * CHUNK + 9] ^= 1;
		for (size_t cut = 1; cut < size; cut += cut < 5000 ? 997 : 70001) {
			write_image(data, size - cut);
			assert_int_equal(try_load(encrypted, &ram), -EBADMSG);
		}
		write_image(data, size);
		assert_int_equal(try_load(encrypted, &ram), 0);
		free(data);
		image_remove();
		ram_free(&ram);
	}
}

/* Whoever can write to the disk, and compute checksums, but has no key. */
static void test_tampering(void **state)
{
	struct ram ram = sample();
	struct hf_image_block b = block_of(&ram, 1);
	struct hf_image_save_config config = save_config(&b, 1, true);
	struct hf_image_save *s = save_begin(&config);
	struct hf_image_header h;
	struct hf_image_commit c;
	struct hf_image_entry entries[2];
	uint8_t *data, *old, *index;
	size_t size, old_size;

	must(hf_image_save_pass(s, false, NULL, &error));
	read_image(&old, &old_size);
	scribble(ram.map, CHUNK, 99);
	must(hf_image_save_pass(s, true, NULL, &error));
	must(hf_image_save_commit(s, &error));
	hf_image_save_close(s);
	read_image(&data, &size);
	assert_null(memmem(data, size, "swordfish", 9));
	assert_null(memmem(old, old_size, "swordfish", 9));

	must(hf_image_header_decode(data, size, &h, &error));
	must(hf_image_commit_decode(data + HF_IMAGE_COMMIT_OFFSET, 4096, &h, &c, &error));
	/* What the chunk was in the pass before. */
	for (uint64_t i = 0; i < h.n_chunks; i++) {
		hf_image_entry_decode(
			data + c.index_offset + i * HF_IMAGE_ENTRY_BYTES, &entries[0]);
		if (entries[0].generation == 2) {
			uint64_t at = hf_image_slot_offset(&h, entries[0].slot);

			memcpy(data + at, old + at, CHUNK);
		}
	}
	write_image(data, size);
	assert_int_equal(try_load(true, &ram), -EBADMSG);
	free(data);

	/* Two chunks change places, with all checksums as they should be. */
	image_remove();
	save_all(&config);
	read_image(&data, &size);
	must(hf_image_header_decode(data, size, &h, &error));
	must(hf_image_commit_decode(data + HF_IMAGE_COMMIT_OFFSET, 4096, &h, &c, &error));
	index = data + c.index_offset;
	for (int i = 0; i < 2; i++)
		hf_image_entry_decode(index + (size_t)i * HF_IMAGE_ENTRY_BYTES, &entries[i]);
	for (int i = 0; i < 2; i++)
		hf_image_entry_encode(&entries[1 - i], index + (size_t)i * HF_IMAGE_ENTRY_BYTES);
	hf_image_check_bytes(index, hf_image_align(c.index_bytes), c.index_check);
	hf_image_commit_encode(&c, false, data + HF_IMAGE_COMMIT_OFFSET);
	write_image(data, size);
	assert_int_equal(try_load(true, &ram), -EBADMSG);
	assert_non_null(strstr(error.message, "were changed"));
	free(data);
	free(old);
	image_remove();
	ram_free(&ram);
}

/* Passes, commit, and a load, with a fault somewhere. Return: the first error. */
static int go_through(const struct hf_image_save_config *config, struct ram *ram, bool encrypted)
{
	struct hf_image_save *s = NULL;
	int r;

	r = hf_image_save_begin(engine, config, &s, &error);
	if (r == 0)
		r = hf_image_save_pass(s, false, NULL, &error);
	ram->map[7 * CHUNK]++;
	if (r == 0)
		r = hf_image_save_pass(s, true, NULL, &error);
	if (r == 0)
		r = hf_image_save_commit(s, &error);
	hf_image_save_close(s);
	return r < 0 ? r : try_load(encrypted, ram);
}

static const char *const saving[] = {"image-begin", "image-ram", "image-allocate", "image-write",
	"image-write=:2", "image-ram=:40", "image-index", "image-commit", "image-committed"};

/* What the process does that the next one starts: its arguments are folder, cipher and memory. */
static int child(char **argv)
{
	struct ram ram = {.size = 2 * MIB, .fd = (int)strtol(argv[3], NULL, 10)};
	bool encrypted = argv[2][0] == '1';
	struct hf_image_block b = block_of(&ram, 1);
	struct hf_image_save_config config = save_config(&b, 1, encrypted);
	int r;

	snprintf(folder, sizeof(folder), "%s", argv[1]);
	keys = hf_image_kek(kek);
	ram.map = mmap(NULL, ram.size, PROT_READ | PROT_WRITE, MAP_SHARED, ram.fd, 0);
	if (ram.map == MAP_FAILED || hf_image_engine_new(&engine, &error) < 0)
		return 1;
	r = go_through(&config, &ram, encrypted);
	hf_image_engine_free(engine);
	ram_free(&ram);
	return -r;
}

/* Executed anew, as visits of points are counted. Return: its errno, or its signal, negative. */
static int with_fault(const char *point, const char *kind, bool encrypted, struct ram *ram)
{
	const char *nth = strchr(point, '=');
	char text[100], fd[16], cipher[2] = {encrypted ? '1' : '0'};
	char *argv[] = {(char *)"faulty", folder, cipher, fd, NULL};
	int status;
	pid_t pid;

	snprintf(text, sizeof(text), "%.*s=%s%s", (int)strcspn(point, "="), point, kind,
		nth ? nth + 1 : "");
	snprintf(fd, sizeof(fd), "%d", ram->fd);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, STDERR_FILENO);
		setenv("HOLDFAST_FAULT", text, 1);
		hf_fd_cloexec(ram->fd, false);
		execv("/proc/self/exe", argv);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void test_failing_steps(void **state)
{
	static const struct {
		const char *name;
		int err;
	} kinds[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"ENOMEM", ENOMEM}};

	for (size_t i = 0; i < HF_ARRAY_SIZE(saving); i++)
		for (size_t k = 0; k < HF_ARRAY_SIZE(kinds); k++) {
			struct ram ram = sample();

			assert_int_equal(
				with_fault(saving[i], kinds[k].name, k & 1, &ram), kinds[k].err);
			/* Nothing is left, and the guest's memory is as it was. */
			assert_false(image_exists());
			ram_free(&ram);
		}
}

static void test_dying(void **state)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(saving); i++) {
		struct ram ram = sample();
		bool committed = strcmp(saving[i], "image-committed") == 0;
		int r;

		assert_int_equal(with_fault(saving[i], "SIGKILL", i & 1, &ram), -SIGKILL);
		assert_true(image_exists());
		r = try_load(i & 1, &ram);
		/* With a commit record all is there; without one nothing is believed. */
		if (strcmp(saving[i], "image-begin") == 0)
			assert_int_equal(r, -EBADMSG);
		else
			assert_int_equal(r, committed ? 0 : -ENODATA);
		image_remove();
		ram_free(&ram);
	}
}

static void test_failing_reads(void **state)
{
	for (int encrypted = 0; encrypted < 2; encrypted++) {
		struct ram ram = sample();

		assert_int_equal(with_fault("image-read", "EIO", encrypted, &ram), EIO);
		assert_true(image_exists());
		/* It's still an image. */
		assert_int_equal(try_load(encrypted, &ram), 0);
		image_remove();
		assert_int_equal(with_fault("image-read", "SIGKILL", encrypted, &ram), -SIGKILL);
		assert_int_equal(try_load(encrypted, &ram), 0);
		image_remove();
		ram_free(&ram);
	}
}

/* In a mount namespace: a real file system that is too small. Return: exit status. */
static int full_disk(void)
{
	struct ram ram = ram_new(8 * MIB);
	struct hf_image_block b = block_of(&ram, 1);
	struct hf_image_save_config config = save_config(&b, 1, false);
	struct hf_image_save *s = NULL;
	int r;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("tmpfs", folder, "tmpfs", 0, "size=4m,mode=0700") < 0)
		return 77;
	if (hf_image_engine_new(&engine, &error) < 0)
		return 1;
	scribble(ram.map, 3 * MIB, 1);
	r = go_through(&config, &ram, false);
	if (r < 0)
		return 2;
	image_remove();
	/* More than there is room for, in a later pass. */
	r = hf_image_save_begin(engine, &config, &s, &error);
	if (r == 0)
		r = hf_image_save_pass(s, false, NULL, &error);
	if (r < 0)
		return 3;
	scribble(ram.map, 8 * MIB, 2);
	r = hf_image_save_pass(s, true, NULL, &error);
	if (r != -ENOSPC || !strstr(error.remedy, "make room"))
		return 4;
	if (hf_image_save_commit(s, &error) != -EINVAL)
		return 5;
	hf_image_save_close(s);
	if (image_exists())
		return 6;
	/* The room is back. */
	memset(ram.map + 2 * MIB, 0, 6 * MIB);
	r = go_through(&config, &ram, false);
	hf_image_engine_free(engine);
	return r < 0 ? 7 : 0;
}

static void test_full_disk(void **state)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(full_disk());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("mounting takes root: not tried\n");
		return;
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_tampering),
		cmocka_unit_test(test_failing_steps),
		cmocka_unit_test(test_dying),
		cmocka_unit_test(test_failing_reads),
		cmocka_unit_test(test_full_disk),
	};

	if (strcmp(argv[0], "faulty") == 0 && argc == 4)
		return child(argv);
	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
