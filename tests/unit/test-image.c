/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Images: what was saved is what is loaded, whatever a guest does meanwhile; what isn't an
 * image is refused.
 */
#include "image-rig.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

/* Blocks of odd sizes, with data, zeros and holes, both ways. */
static void test_round_trip(void **state)
{
	for (int encrypted = 0; encrypted < 2; encrypted++) {
		struct ram rams[] = {ram_new(9 * MIB), ram_new(4096), ram_new(3 * MIB + 100 * KIB),
			ram_new(5000)};
		struct hf_image_block blocks[4];
		struct hf_image_save_config config = save_config(blocks, 4, encrypted);
		struct hf_image_stats stats;

		for (int i = 0; i < 4; i++)
			blocks[i] = block_of(&rams[i], 10 - i);
		blocks[0].huge = true;
		map_huge = encrypted;
		scribble(rams[0].map, 3 * MIB, 1);
		scribble(rams[0].map + 5 * MIB + 4096, 4096, 2);
		memset(rams[0].map + 7 * MIB, 0, MIB);
		scribble(rams[2].map + 3 * MIB, 100 * KIB, 3);
		rams[3].map[4999] = 7;
		save_all(&config);
		load_and_check(encrypted, rams, 4, &stats);
		assert_int_equal(stats.encrypted, encrypted);
		/* 3 MiB, one, two at the end of the third, and the last. */
		assert_int_equal(stats.data_chunks, 48 + 1 + 2 + 1);
		assert_int_equal(stats.zero_chunks, 16);
		assert_int_equal(stats.chunks, 9 * 16 + 1 + 50 + 1);
		assert_int_equal(stats.passes, 1);
		image_remove();
		for (int i = 0; i < 4; i++)
			ram_free(&rams[i]);
	}
}

/* Later passes write what changed, in place. */
static void test_passes(void **state)
{
	for (int encrypted = 0; encrypted < 2; encrypted++) {
		struct ram ram = ram_new(16 * MIB);
		struct hf_image_block b = block_of(&ram, 1);
		struct hf_image_save_config config = save_config(&b, 1, encrypted);
		struct hf_image_save *s;
		struct hf_image_control control = {0};
		struct hf_image_stats stats;

		scribble(ram.map, 8 * MIB, 1);
		s = save_begin(&config);
		must(hf_image_save_pass(s, false, &control, &error));
		assert_int_equal(control.total_bytes, 16 * MIB);
		assert_int_equal(control.done_bytes, 16 * MIB);
		assert_int_equal(control.transfer_bytes, 8 * MIB);
		must(hf_image_save_pass(s, false, NULL, &error));
		hf_image_save_stats(s, &stats);
		assert_int_equal(stats.changed_chunks, 0);
		/* Changed, gone to zero, a hole again, and new. */
		ram.map[3 * CHUNK + 5] ^= 1;
		memset(ram.map + 10 * CHUNK, 0, CHUNK);
		assert_int_equal(fallocate(ram.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					 20 * CHUNK, CHUNK),
			0);
		scribble(ram.map + 12 * MIB, CHUNK, 9);
		must(hf_image_save_pass(s, false, NULL, &error));
		hf_image_save_stats(s, &stats);
		assert_int_equal(stats.changed_chunks, 2);
		assert_int_equal(stats.data_chunks, 128 - 2 + 1);
		/* Zero, and then what it was before; and something else. */
		scribble(ram.map + 10 * CHUNK, CHUNK, 77);
		must(hf_image_save_pass(s, true, NULL, &error));
		hf_image_save_stats(s, &stats);
		assert_int_equal(stats.changed_chunks, 1);
		assert_int_equal(hf_image_save_pass(s, false, NULL, NULL), -EINVAL);
		must(hf_image_save_commit(s, &error));
		assert_int_equal(hf_image_save_commit(s, NULL), -EINVAL);
		hf_image_save_stats(s, &stats);
		/* 129 slots, none of them twice. */
		assert_int_equal(stats.file_bytes,
			hf_image_data_offset(1, encrypted ? 60 : 0) + 129 * CHUNK + 2 * 4096);
		hf_image_save_close(s);
		load_and_check(encrypted, &ram, 1, &stats);
		assert_int_equal(stats.passes, 4);
		image_remove();
		ram_free(&ram);
	}
}

/* From here on chunks have one of two contents, which change places all the time. */
#define FLIPPED (40 * MIB)

/*
 * A guest of the next test. What is hashed as one content and written as the other is found to be
 * unchanged by the final pass, if it is the first again: half of all chunks would be wrong.
 */
static void flip(struct ram *ram)
{
	volatile uint8_t *p = ram->map;

	for (;;)
		for (uint64_t at = FLIPPED; at < ram->size; at += CHUNK)
			p[at + CHUNK / 2] ^= 1;
}

/* Another one: rewrites what it likes, and goes back to what was there before. */
static void be_a_guest(struct ram *ram, unsigned int seed)
{
	uint64_t pages = FLIPPED / 4096, x = seed;

	for (;;) {
		uint64_t page;

		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		page = (x >> 20) % pages;
		switch (x >> 60) {
		case 0:
			memset(ram->map + page * 4096, 0, 4096);
			break;
		case 1:
			fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)(page / 16 * CHUNK), (off_t)CHUNK);
			break;
		case 2:
		case 3:
		case 4:
			scribble(ram->map + page * 4096, 4096, page); /* always the same */
			break;
		case 5:
			scribble(ram->map + page * 4096, 4096, ~page); /* and its counterpart */
			break;
		case 6:
			madvise(ram->map + (page & ~511ULL) * 4096, 2 * MIB, MADV_HUGEPAGE);
			memset(ram->map + page * 4096 + 100, (int)(x >> 50), 200);
			break;
		default:
			((volatile uint8_t *)ram->map)[page * 4096 + (x >> 40) % 4096] ^= 1;
		}
	}
}

/* Whatever a guest does while passes run, the last one has it as it was when it stood still. */
static void soundness(bool encrypted, bool huge, unsigned int round)
{
	struct ram ram = ram_new(48 * MIB);
	struct hf_image_block b = block_of(&ram, 1);
	struct hf_image_save_config config = save_config(&b, 1, encrypted);
	struct hf_image_save *s;
	struct hf_image_stats stats;
	pid_t guests[2];

	b.huge = map_huge = huge;
	if (huge)
		madvise(ram.map, ram.size, MADV_HUGEPAGE);
	scribble(ram.map, 32 * MIB, round);
	scribble(ram.map + FLIPPED, ram.size - FLIPPED, round);
	s = save_begin(&config);
	for (unsigned int i = 0; i < 2; i++) {
		guests[i] = fork();
		assert_true(guests[i] >= 0);
		if (guests[i] == 0 && i == 0)
			flip(&ram);
		else if (guests[i] == 0)
			be_a_guest(&ram, round);
	}
	for (int i = 0; i < 12; i++)
		must(hf_image_save_pass(s, false, NULL, &error));
	for (unsigned int i = 0; i < 2; i++) {
		int status;

		kill(guests[i], SIGSTOP);
		assert_int_equal(waitpid(guests[i], &status, WUNTRACED), guests[i]);
		assert_true(WIFSTOPPED(status));
	}
	must(hf_image_save_pass(s, true, NULL, &error));
	hf_image_save_stats(s, &stats);
	assert_true(stats.changed_chunks > 0);
	must(hf_image_save_commit(s, &error));
	hf_image_save_close(s);
	load_and_check(encrypted, &ram, 1, NULL);
	for (unsigned int i = 0; i < 2; i++) {
		kill(guests[i], SIGKILL);
		waitpid(guests[i], NULL, 0);
	}
	image_remove();
	ram_free(&ram);
}

static void test_soundness(void **state)
{
	for (unsigned int i = 0; i < 4; i++)
		soundness(i & 1, i & 2, i + 1);
}

struct thread {
	pthread_t thread;
	struct ram ram;
	char name[16];
	int result;
	struct hf_error error;
};

static void *save_thread(void *data)
{
	struct thread *t = data;
	struct hf_image_block b = block_of(&t->ram, 1);
	struct hf_image_save_config config = save_config(&b, 1, t->name[5] & 1);
	struct hf_image_load_config load = load_config(t->name[5] & 1);
	struct hf_image_loaded l = {0};
	struct hf_image_save *s = NULL;
	int r;

	config.name = load.name = t->name;
	r = hf_image_save_begin(engine, &config, &s, &t->error);
	for (int i = 0; r == 0 && i < 3; i++) {
		t->ram.map[i * CHUNK]++;
		r = hf_image_save_pass(s, i == 2, NULL, &t->error);
	}
	if (r == 0)
		r = hf_image_save_commit(s, &t->error);
	hf_image_save_close(s);
	if (r == 0)
		r = hf_image_load(engine, &load, NULL, &l, &t->error);
	if (r == 0) {
		check_same(&t->ram, &l.blocks[0]);
		hf_image_loaded_release(&l);
	}
	t->result = r;
	return NULL;
}

static void test_many_at_once(void **state)
{
	struct thread threads[8];

	for (unsigned int i = 0; i < 8; i++) {
		threads[i] = (struct thread){.ram = ram_new((4 + i) * MIB)};
		snprintf(threads[i].name, sizeof(threads[i].name), "image%u", i);
		scribble(threads[i].ram.map, 3 * MIB + i * 100 * KIB, i);
		assert_int_equal(
			pthread_create(&threads[i].thread, NULL, save_thread, &threads[i]), 0);
	}
	for (unsigned int i = 0; i < 8; i++) {
		pthread_join(threads[i].thread, NULL);
		if (threads[i].result < 0)
			fail_msg("%s", threads[i].error.message);
		must(hf_image_remove(folder, threads[i].name, &error));
		ram_free(&threads[i].ram);
	}
}

static void *cancel_thread(void *data)
{
	struct hf_image_control *control = data;

	while (atomic_load(&control->done_bytes) < 8 * MIB)
		poll(NULL, 0, 1);
	atomic_store(&control->cancel, true);
	return NULL;
}

/* A pass that was cancelled leaves an image that can still be made right. */
static void test_cancel(void **state)
{
	struct ram ram = ram_new(512 * MIB);
	struct hf_image_block b = block_of(&ram, 1);
	struct hf_image_save_config config = save_config(&b, 1, false);
	struct hf_image_load_config load = load_config(false);
	struct hf_image_control control = {0};
	struct hf_image_loaded l = {0};
	struct hf_image_save *s = save_begin(&config);
	pthread_t thread;

	scribble(ram.map, ram.size, 5);
	assert_int_equal(pthread_create(&thread, NULL, cancel_thread, &control), 0);
	assert_int_equal(hf_image_save_pass(s, true, &control, &error), -ECANCELED);
	pthread_join(thread, NULL);
	assert_true(control.done_bytes < ram.size);
	assert_non_null(strstr(error.message, "cancelled"));
	assert_int_equal(hf_image_save_commit(s, NULL), -EINVAL);
	must(hf_image_save_pass(s, true, NULL, &error));
	must(hf_image_save_commit(s, &error));
	hf_image_save_close(s);
	load_and_check(false, &ram, 1, NULL);
	control = (struct hf_image_control){.cancel = true};
	assert_int_equal(hf_image_load(engine, &load, &control, &l, &error), -ECANCELED);
	assert_null(l.blocks);
	image_remove();
	ram_free(&ram);
}

static void test_arguments(void **state)
{
	struct ram ram = ram_new(MIB);
	struct hf_image_block b[2] = {block_of(&ram, 1), block_of(&ram, 1)};
	struct hf_image_save_config config = save_config(b, 1, false), other = config;
	struct hf_image_save *s = NULL;

	other.plaintext = false;
	assert_int_equal(hf_image_save_begin(engine, &other, &s, &error), -EINVAL);
	assert_non_null(strstr(error.message, "without encryption"));
	other = config;
	other.n_blocks = 2;
	assert_int_equal(hf_image_save_begin(engine, &other, &s, &error), -EINVAL);
	other.n_blocks = 0;
	assert_int_equal(hf_image_save_begin(engine, &other, &s, &error), -EINVAL);
	other = config;
	other.chunk_bytes = 100000;
	assert_int_equal(hf_image_save_begin(engine, &other, &s, &error), -EINVAL);
	other = config;
	other.name = "../image";
	assert_int_equal(hf_image_save_begin(engine, &other, &s, &error), -EINVAL);
	/* More than there is of the file: seen with the first pass. */
	b[0].size = 2 * MIB;
	s = save_begin(&config);
	assert_int_equal(hf_image_save_pass(s, false, NULL, &error), -ESTALE);
	assert_int_equal(hf_image_save_pass(s, false, NULL, &error), -EINVAL);
	hf_image_save_close(s);
	assert_false(image_exists());
	/* More than an image can hold. */
	b[0].size = 2ULL << 40;
	assert_int_equal(hf_image_save_begin(engine, &config, &s, &error), -EFBIG);
	b[0].size = MIB;
	/* There already; and a folder that others can look into. */
	save_all(&config);
	assert_int_equal(hf_image_save_begin(engine, &config, &s, &error), -EEXIST);
	assert_true(image_exists());
	chmod(folder, 0750);
	config.name = "another";
	assert_int_equal(hf_image_save_begin(engine, &config, &s, &error), -EPERM);
	assert_int_equal(hf_image_remove(folder, "image", &error), -EPERM);
	chmod(folder, 0700);
	image_remove();
	assert_int_equal(hf_image_remove(folder, "image", &error), -ENOENT);
	ram_free(&ram);
}

/* What is loaded is the right image, complete, and from here; and nobody else can write it. */
static void test_identity(void **state)
{
	static const uint8_t nobody[HF_IMAGE_UUID_BYTES] = {9};
	struct ram ram = ram_new(MIB);
	struct hf_image_block b = block_of(&ram, 1);
	struct hf_image_save_config config = save_config(&b, 1, true);
	struct hf_image_load_config load = load_config(true), other;
	struct hf_image_save *s = save_begin(&config);
	struct hf_image_header header;
	struct hf_image_loaded l = {0};
	uint8_t uuid[HF_IMAGE_UUID_BYTES], wrong[HF_IMAGE_KEY_BYTES] = {0};
	struct hf_image_keys wrong_keys = hf_image_kek(wrong), other_kind = keys;
	bool committed = true;
	char path[300];
	struct stat st;

	scribble(ram.map, MIB, 1);
	memcpy(uuid, hf_image_save_uuid(s), sizeof(uuid));
	must(hf_image_save_pass(s, true, NULL, &error));
	assert_int_equal(hf_image_load(engine, &load, NULL, &l, &error), -ENODATA);
	assert_non_null(strstr(error.message, "never completed"));
	must(hf_image_peek(folder, "image", &header, &committed, &error));
	assert_false(committed);
	must(hf_image_save_commit(s, &error));
	hf_image_save_close(s);
	must(hf_image_peek(folder, "image", &header, &committed, &error));
	assert_true(committed);
	assert_memory_equal(header.image, uuid, sizeof(uuid));
	assert_string_equal(header.key_kind, "kek");
	load.image = uuid;
	must(hf_image_load(engine, &load, NULL, &l, &error));
	hf_image_loaded_release(&l);

	other = load;
	other.image = nobody;
	assert_int_equal(hf_image_load(engine, &other, NULL, &l, &error), -ESTALE);
	other = load;
	other.guest = nobody;
	assert_int_equal(hf_image_load(engine, &other, NULL, &l, &error), -ESTALE);
	assert_non_null(strstr(error.message, "another guest"));
	other = load;
	other.machine[0] ^= 1;
	assert_int_equal(hf_image_load(engine, &other, NULL, &l, &error), -ESTALE);
	other = load;
	other.keys = NULL;
	assert_int_equal(hf_image_load(engine, &other, NULL, &l, &error), -ENOKEY);
	other.keys = &wrong_keys;
	assert_int_equal(hf_image_load(engine, &other, NULL, &l, &error), -ENOKEY);
	other_kind.kind = "tpm2";
	other.keys = &other_kind;
	assert_int_equal(hf_image_load(engine, &other, NULL, &l, &error), -ENOKEY);
	assert_non_null(strstr(error.message, "`kek`"));
	other = load;
	other.name = "none";
	assert_int_equal(hf_image_load(engine, &other, NULL, &l, &error), -ENOENT);

	snprintf(path, sizeof(path), "%s/image", folder);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	chmod(path, 0640);
	assert_int_equal(hf_image_load(engine, &load, NULL, &l, &error), -EPERM);
	chmod(path, 0600);
	image_remove();
	/* A plain one in the place of an encrypted one. */
	config = save_config(&b, 1, false);
	save_all(&config);
	load.image = NULL;
	assert_int_equal(hf_image_load(engine, &load, NULL, &l, &error), -EPERM);
	image_remove();
	ram_free(&ram);
}

static void test_abort(void **state)
{
	struct ram ram = ram_new(MIB);
	struct hf_image_block b = block_of(&ram, 1);
	struct hf_image_save_config config = save_config(&b, 1, true);
	struct hf_image_save *s = save_begin(&config);

	scribble(ram.map, MIB, 1);
	must(hf_image_save_pass(s, true, NULL, &error));
	assert_true(image_exists());
	hf_image_save_abort(s);
	assert_false(image_exists());
	s = save_begin(&config);
	must(hf_image_save_pass(s, true, NULL, &error));
	must(hf_image_save_commit(s, &error));
	assert_true(image_exists());
	hf_image_save_abort(s);
	assert_false(image_exists());
	hf_image_save_abort(NULL);
	ram_free(&ram);
}

/* The highest that this process' memory ever was, without what tests themselves have mapped. */
static uint64_t peak_rss(void)
{
	cleanup_free char *text = NULL;
	unsigned long long kib = 0;

	assert_int_equal(hf_file_read("/proc/self/status", 1 << 16, &text, NULL), 0);
	assert_int_equal(sscanf(strstr(text, "VmHWM:"), "VmHWM: %llu", &kib), 1);
	return kib * KIB;
}

/* As many chunks as an image can have, and more data than buffers: in a process of its own. */
static void test_memory(void **state)
{
#ifdef HF_SANITIZED
	skip();
#endif
	for (int encrypted = 0; encrypted < 2; encrypted++) {
		const uint64_t sizes[] = {1ULL << 40, 160 * MIB};

		for (size_t i = 0; i < HF_ARRAY_SIZE(sizes); i++) {
			cleanup_free uint8_t *data = malloc(2 * MIB);
			struct hf_image_block b = {.token = 1, .size = sizes[i], .huge = true};
			struct hf_image_save_config config = save_config(&b, 1, encrypted);
			struct hf_image_load_config load = load_config(encrypted);
			struct hf_image_loaded l = {0};
			pid_t pid;
			int status;

			assert_int_equal(hf_memfd_new("ram", sizes[i], &b.fd), 0);
			for (uint64_t at = 0; at < 160 * MIB; at += 2 * MIB) {
				scribble(data, 2 * MIB, at);
				assert_int_equal(pwrite(b.fd, data, 2 * MIB, (off_t)at), 2 * MIB);
			}
			pid = fork();
			if (pid == 0) {
				/* The peak was inherited. */
				int clear = open("/proc/self/clear_refs", O_WRONLY);

				hf_fd_write_full(clear, "5", 1);
				rig_setup(NULL);
				config.folder = load.folder = folder;
				save_all(&config);
				must(hf_image_load(engine, &load, NULL, &l, &error));
				hf_image_loaded_release(&l);
				status = peak_rss() < 64 * MIB ? 0 : 1;
				print_message("%llu MiB for %llu GiB\n",
					(unsigned long long)(peak_rss() / MIB),
					(unsigned long long)(sizes[i] >> 30));
				rig_teardown(NULL);
				_exit(status);
			}
			close(b.fd);
			assert_int_equal(waitpid(pid, &status, 0), pid);
			assert_int_equal(status, 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_passes),
		cmocka_unit_test(test_soundness),
		cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_memory),
	};

	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
