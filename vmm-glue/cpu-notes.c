/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/cpu-notes.h"

#include <assert.h>
#include <elf.h>
#include <stddef.h>
#include <string.h>
#include <sys/procfs.h>
#include <sys/user.h>

#define MAX_CPUS 4096

/* Order of the general registers in the instruction set, and so in the device state. */
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, N_REGS };
/* Likewise of the segment registers. */
enum { ES, CS, SS, DS, FS, GS, N_SEGS };

struct segment {
	uint64_t selector, base, limit, flags;
};

struct cpu {
	uint64_t regs[N_REGS];
	uint64_t rip, rflags;
	struct segment segs[N_SEGS];
	struct segment ldt, tr, gdt, idt;
	uint64_t cr[5];
	uint64_t kernel_gs_base;
};

/* What tools that read QEMU's dumps take from its note, version 1. */
struct qemu_segment {
	uint32_t selector, limit, flags, pad;
	uint64_t base;
};
struct qemu_note {
	uint32_t version, size;
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rip, rflags;
	struct qemu_segment cs, ds, es, fs, gs, ss;
	struct qemu_segment ldt, tr, gdt, idt;
	uint64_t cr[5];
	uint64_t kernel_gs_base;
};
#define QEMU_NOTE_VERSION 1
static_assert(sizeof(struct qemu_note) == 8 + 18 * 8 + 10 * 24 + 6 * 8, "has no gaps");
static_assert(sizeof(((struct elf_prstatus *)NULL)->pr_reg) == sizeof(struct user_regs_struct),
	"the registers of a core are those of a process");

/* ---- out of the device state ---- */

static int read_segment(
	const struct hf_vmdesc_section *s, const char *field, size_t index, struct segment *ret)
{
	int r = hf_vmdesc_number(s, field, index, "selector", &ret->selector);

	if (r == 0)
		r = hf_vmdesc_number(s, field, index, "base", &ret->base);
	if (r == 0)
		r = hf_vmdesc_number(s, field, index, "limit", &ret->limit);
	if (r == 0)
		r = hf_vmdesc_number(s, field, index, "flags", &ret->flags);
	return r;
}

static int read_segments(const struct hf_vmdesc_section *s, struct cpu *c)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < N_SEGS; i++)
		r = read_segment(s, "env.segs", i, &c->segs[i]);
	if (r == 0)
		r = read_segment(s, "env.ldt", 0, &c->ldt);
	if (r == 0)
		r = read_segment(s, "env.tr", 0, &c->tr);
	if (r == 0)
		r = read_segment(s, "env.gdt", 0, &c->gdt);
	if (r == 0)
		r = read_segment(s, "env.idt", 0, &c->idt);
	return r;
}

static int read_cpu(const struct hf_vmdesc_section *s, struct cpu *c)
{
	const struct {
		const char *field;
		uint64_t *to;
	} numbers[] = {
		{"env.eip", &c->rip},
		{"env.eflags", &c->rflags},
		{"env.cr[0]", &c->cr[0]},
		{"env.cr[2]", &c->cr[2]},
		{"env.cr[3]", &c->cr[3]},
		{"env.cr[4]", &c->cr[4]},
		{"env.kernelgsbase", &c->kernel_gs_base},
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < N_REGS; i++)
		r = hf_vmdesc_number(s, "env.regs", i, NULL, &c->regs[i]);
	for (size_t i = 0; r == 0 && i < HF_ARRAY_SIZE(numbers); i++)
		r = hf_vmdesc_number(s, numbers[i].field, 0, NULL, numbers[i].to);
	return r == 0 ? read_segments(s, c) : r;
}

/* ---- into notes ---- */

static int add_prstatus(struct hf_core_notes *notes, const struct cpu *c, size_t number)
{
	const struct user_regs_struct regs = {
		.r15 = c->regs[R15],
		.r14 = c->regs[R14],
		.r13 = c->regs[R13],
		.r12 = c->regs[R12],
		.rbp = c->regs[RBP],
		.rbx = c->regs[RBX],
		.r11 = c->regs[R11],
		.r10 = c->regs[R10],
		.r9 = c->regs[R9],
		.r8 = c->regs[R8],
		.rax = c->regs[RAX],
		.rcx = c->regs[RCX],
		.rdx = c->regs[RDX],
		.rsi = c->regs[RSI],
		.rdi = c->regs[RDI],
		.rip = c->rip,
		.cs = c->segs[CS].selector,
		.eflags = c->rflags,
		.rsp = c->regs[RSP],
		.ss = c->segs[SS].selector,
		.fs_base = c->segs[FS].base,
		.gs_base = c->segs[GS].base,
		.ds = c->segs[DS].selector,
		.es = c->segs[ES].selector,
		.fs = c->segs[FS].selector,
		.gs = c->segs[GS].selector,
	};
	struct elf_prstatus status;

	memset(&status, 0, sizeof(status));
	/* Debuggers take each for a thread, and number them from 1. */
	status.pr_pid = (pid_t)(number + 1);
	memcpy(&status.pr_reg, &regs, sizeof(regs));
	return hf_core_notes_add(notes, "CORE", NT_PRSTATUS, &status, sizeof(status));
}

static struct qemu_segment qemu_segment(const struct segment *s)
{
	return (struct qemu_segment){
		.selector = (uint32_t)s->selector,
		.limit = (uint32_t)s->limit,
		.flags = (uint32_t)s->flags,
		.base = s->base,
	};
}

static int add_qemu(struct hf_core_notes *notes, const struct cpu *c)
{
	struct qemu_note note = {
		.version = QEMU_NOTE_VERSION,
		.size = sizeof(note),
		.rax = c->regs[RAX],
		.rbx = c->regs[RBX],
		.rcx = c->regs[RCX],
		.rdx = c->regs[RDX],
		.rsi = c->regs[RSI],
		.rdi = c->regs[RDI],
		.rsp = c->regs[RSP],
		.rbp = c->regs[RBP],
		.r8 = c->regs[R8],
		.r9 = c->regs[R9],
		.r10 = c->regs[R10],
		.r11 = c->regs[R11],
		.r12 = c->regs[R12],
		.r13 = c->regs[R13],
		.r14 = c->regs[R14],
		.r15 = c->regs[R15],
		.rip = c->rip,
		.rflags = c->rflags,
		.cs = qemu_segment(&c->segs[CS]),
		.ds = qemu_segment(&c->segs[DS]),
		.es = qemu_segment(&c->segs[ES]),
		.fs = qemu_segment(&c->segs[FS]),
		.gs = qemu_segment(&c->segs[GS]),
		.ss = qemu_segment(&c->segs[SS]),
		.ldt = qemu_segment(&c->ldt),
		.tr = qemu_segment(&c->tr),
		.gdt = qemu_segment(&c->gdt),
		.idt = qemu_segment(&c->idt),
		.kernel_gs_base = c->kernel_gs_base,
	};

	memcpy(note.cr, c->cr, sizeof(note.cr));
	return hf_core_notes_add(notes, "QEMU", 0, &note, sizeof(note));
}

int hf_cpu_notes_add(const struct hf_vmdesc *d, struct hf_core_notes *notes, size_t *ret_n)
{
	size_t n = hf_vmdesc_count(d, "cpu"), before = notes->size;
	cleanup_free struct cpu *cpus = NULL;
	int r = 0;

	if (n == 0 || n > MAX_CPUS)
		return n == 0 ? -ENOENT : -EBADMSG;
	cpus = calloc(n, sizeof(*cpus));
	if (!cpus)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct hf_vmdesc_section section;

		r = hf_vmdesc_find(d, "cpu", i, &section);
		if (r == 0)
			r = read_cpu(&section, &cpus[i]);
	}
	for (size_t i = 0; r == 0 && i < n; i++)
		r = add_prstatus(notes, &cpus[i], i);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = add_qemu(notes, &cpus[i]);
	if (r < 0) {
		notes->size = before;
		return r;
	}
	*ret_n = n;
	return 0;
}
