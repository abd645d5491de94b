/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Cores of small memories: what is in them, what needs no room, and what goes wrong.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/fd.h"
#include "memfd-preserve/elf-core.h"

#define PAGE 4096
#define RAM (3u << 20)

struct rig {
	int ram, out;
	struct hf_core_notes notes;
	struct hf_core_segment segments[3];
	struct hf_core core;
	_Atomic uint64_t done;
	atomic_bool cancel;
	struct hf_error e;
};

static int set_up(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig->core = (struct hf_core){
		.segments = rig->segments,
		.n_segments = 1,
		.notes = &rig->notes,
		.done_bytes = &rig->done,
		.cancel = &rig->cancel,
	};
	assert_int_equal(hf_memfd_new("ram", RAM, &rig->ram), 0);
	assert_int_equal(hf_memfd_new("core", 0, &rig->out), 0);
	rig->segments[0] = (struct hf_core_segment){.fd = rig->ram, .size = RAM};
	*state = rig;
	return 0;
}

static int tear_down(void **state)
{
	struct rig *rig = *state;

	close(rig->ram);
	close(rig->out);
	hf_core_notes_clear(&rig->notes);
	free(rig);
	return 0;
}

static void set(struct rig *rig, uint64_t at, const char *text)
{
	assert_int_equal(pwrite(rig->ram, text, strlen(text), (off_t)at), strlen(text));
}

static uint64_t room(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static Elf64_Phdr header(struct rig *rig, size_t i)
{
	Elf64_Phdr p;

	assert_int_equal(
		pread(rig->out, &p, sizeof(p), (off_t)(sizeof(Elf64_Ehdr) + i * sizeof(p))),
		sizeof(p));
	return p;
}

static void expect(struct rig *rig, const Elf64_Phdr *p, uint64_t at, const char *text)
{
	char buf[64] = "";

	assert_int_equal(
		pread(rig->out, buf, strlen(text), (off_t)(p->p_offset + at)), strlen(text));
	assert_string_equal(buf, text);
}

static void test_contents(void **state)
{
	struct rig *rig = *state;
	uint64_t data = 0;
	Elf64_Ehdr elf;
	Elf64_Phdr p;

	set(rig, 0, "first");
	set(rig, (1 << 20) - 3, "across");
	set(rig, RAM - 4, "last");
	/* Allocated, and nothing in it. */
	assert_int_equal(posix_fallocate(rig->ram, 2 << 20, 64 * PAGE), 0);
	assert_int_equal(lseek(rig->ram, 77, SEEK_SET), 77);
	assert_int_equal(hf_core_notes_add(&rig->notes, "ABC", 5, "12345", 5), 0);
	assert_int_equal(hf_core_write(rig->out, &rig->core, &data, &rig->e), 0);
	assert_int_equal(data, 4 * PAGE);
	assert_int_equal(rig->done, RAM);
	assert_in_range(room(rig->out), 5 * PAGE, 16 * PAGE);
	/* The memory is as it was. */
	assert_int_equal(lseek(rig->ram, 0, SEEK_CUR), 77);
	assert_int_equal(room(rig->ram), (4 + 64) * PAGE);

	assert_int_equal(pread(rig->out, &elf, sizeof(elf), 0), sizeof(elf));
	assert_memory_equal(elf.e_ident, ELFMAG, SELFMAG);
	assert_int_equal(elf.e_type, ET_CORE);
	assert_int_equal(elf.e_machine, EM_X86_64);
	assert_int_equal(elf.e_phnum, 2);
	p = header(rig, 0);
	assert_int_equal(p.p_type, PT_NOTE);
	assert_int_equal(p.p_filesz, 12 + 4 + 8);
	expect(rig, &p, 12, "ABC");
	expect(rig, &p, 16, "12345");
	p = header(rig, 1);
	assert_int_equal(p.p_type, PT_LOAD);
	assert_int_equal(p.p_filesz, RAM);
	assert_int_equal(p.p_offset % PAGE, 0);
	expect(rig, &p, 0, "first");
	expect(rig, &p, (1 << 20) - 3, "across");
	expect(rig, &p, RAM - 4, "last");
}

static void test_parts(void **state)
{
	struct rig *rig = *state;
	Elf64_Phdr p;

	set(rig, PAGE, "not this");
	set(rig, 2 * PAGE, "low");
	set(rig, 8 * PAGE, "high");
	rig->segments[0].offset = 2 * PAGE;
	rig->segments[0].size = 6 * PAGE;
	rig->segments[1] = (struct hf_core_segment){
		.fd = rig->ram, .offset = 8 * PAGE, .size = PAGE, .address = 4ULL << 30};
	rig->segments[2] = (struct hf_core_segment){
		.fd = rig->ram, .offset = 100 * PAGE, .size = PAGE, .address = 5ULL << 30};
	rig->core.n_segments = 3;
	assert_int_equal(hf_core_write(rig->out, &rig->core, NULL, &rig->e), 0);
	assert_int_equal(rig->done, 8 * PAGE);
	p = header(rig, 1);
	assert_int_equal(p.p_paddr, 0);
	expect(rig, &p, 0, "low");
	p = header(rig, 2);
	assert_true(p.p_paddr == 4ULL << 30 && p.p_vaddr == p.p_paddr);
	expect(rig, &p, 0, "high");
	p = header(rig, 3);
	assert_int_equal(p.p_filesz, PAGE);
}

static void not_elf(struct rig *rig)
{
	char magic[4] = "";

	assert_true(pread(rig->out, magic, 4, 0) >= 0);
	assert_memory_not_equal(magic, ELFMAG, 4);
}

static void test_cancelled(void **state)
{
	struct rig *rig = *state;

	set(rig, 0, "data");
	rig->cancel = true;
	assert_int_equal(hf_core_write(rig->out, &rig->core, NULL, &rig->e), -ECANCELED);
	assert_non_null(strstr(rig->e.message, "interrupted"));
	not_elf(rig);
}

static void test_failures(void **state)
{
	struct rig *rig = *state;
	int read_only = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	set(rig, RAM - PAGE, "data");
	/* Memory that ends too early, that is none, a file that can't be written. */
	rig->segments[0].size = RAM + PAGE;
	set(rig, RAM - 1, "x");
	assert_int_equal(ftruncate(rig->ram, RAM - 100), 0);
	assert_int_equal(hf_core_write(rig->out, &rig->core, NULL, &rig->e), -EBADMSG);
	assert_non_null(strstr(rig->e.message, "shorter"));
	not_elf(rig);
	rig->segments[0].fd = 1023;
	assert_int_equal(hf_core_write(rig->out, &rig->core, NULL, &rig->e), -ENOENT);
	not_elf(rig);
	assert_int_equal(hf_core_write(read_only, &rig->core, NULL, &rig->e), -EINVAL);
	close(read_only);
	rig->core.n_segments = HF_CORE_MAX_SEGMENTS + 1;
	assert_int_equal(hf_core_write(rig->out, &rig->core, NULL, &rig->e), -E2BIG);
}

static void test_notes(void **state)
{
	struct rig *rig = *state;
	size_t before;

	assert_int_equal(hf_core_notes_add(&rig->notes, "A", 1, "x", 1), 0);
	assert_int_equal(rig->notes.size, 12 + 4 + 4);
	before = rig->notes.size;
	assert_int_equal(
		hf_core_notes_add(&rig->notes, "A", 1, "", HF_CORE_MAX_NOTE_BYTES + 1), -EFBIG);
	assert_int_equal(
		hf_core_notes_add(&rig->notes, "A", 1, "", HF_CORE_MAX_NOTE_BYTES - 20), -EFBIG);
	assert_int_equal(rig->notes.size, before);
	/* None at all is no problem either. */
	hf_core_notes_clear(&rig->notes);
	assert_int_equal(hf_core_write(rig->out, &rig->core, NULL, &rig->e), 0);
	assert_int_equal(header(rig, 0).p_filesz, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_contents, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_parts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_cancelled, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_failures, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_notes, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
