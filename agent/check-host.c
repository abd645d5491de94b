/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/check-host.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"

#define SHMEM_HUGE "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define MESSAGE_BYTES 512
#define REMEDY_BYTES 256
#define MIB (1ULL << 20)

/* Reports and registrations have some KiB; a file system this full has other troubles soon. */
#define MIN_FREE_BYTES (16 * MIB)

/*
 * What LUO allocates beside the holes it fills, by 4 KiB page of a memfd: a pointer, always; and a
 * record of 16 bytes for each folio, of which there are fewer where they are large.
 * Source: memfd_luo_preserve_folios() in mm/memfd_luo.c of Linux 7.2.12 and 7.3.4.
 */
#define PAGE_BYTES 4096
#define POINTER_BYTES 8
#define RECORD_BYTES 16

/* The kernel's struct page, one for each 4 KiB of RAM. */
#define STRUCT_PAGE_BYTES 64

/* kexec-bzimage64.c loads no kernel and no initrd below. */
#define MIN_KERNEL_ADDRESS MIB
#define MIN_INITRD_ADDRESS (16 * MIB)

static enum hf_verdict add(struct json_object *findings, const char *id, enum hf_verdict verdict,
	const char *message, const char *remedy)
{
	hf_json_append(findings, hf_finding_new(id, verdict, NULL, message, remedy));
	return verdict;
}

struct bytes_text {
	char s[32];
};

static struct bytes_text bytes(uint64_t n)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	struct bytes_text t;
	double value = (double)n;
	size_t unit = 0;

	for (; value >= 1024 && unit + 1 < HF_ARRAY_SIZE(units); unit++)
		value /= 1024;
	snprintf(t.s, sizeof(t.s), value == (double)(uint64_t)value ? "%.0f %s" : "%.1f %s", value,
		units[unit]);
	return t;
}

/* ---- LUO, kexec ---- */

static enum hf_verdict check_luo(const struct hf_host_facts *f, struct json_object *findings)
{
	char message[MESSAGE_BYTES];
	size_t n;

	if (f->luo.err)
		return add(findings, "host.luo", HF_REFUSAL, f->luo.message, f->luo.remedy);
	add(findings, "host.luo", HF_OK, "the kernel has a Live Update Orchestrator", NULL);
	if (f->n_holders == 0)
		return HF_OK;
	n = (size_t)snprintf(message, sizeof(message),
		"/dev/liveupdate can be open in one process at a time, and is open in ");
	for (size_t i = 0; i < f->n_holders && n < sizeof(message); i++)
		n += (size_t)snprintf(message + n, sizeof(message) - n, "%s%d (%s)", i ? ", " : "",
			(int)f->holders[i].pid, f->holders[i].comm);
	return add(findings, "host.luo-busy", HF_REFUSAL, message,
		"wait until it has closed it, or end it");
}

static enum hf_verdict check_kexec(const struct hf_host_facts *f, struct json_object *findings)
{
	if (f->kexec.err)
		return add(findings, "host.kexec", HF_REFUSAL, f->kexec.message, f->kexec.remedy);
	return add(findings, "host.kexec", HF_OK, "a kernel may be loaded", NULL);
}

/*
 * kexec_image_validate_sig() in kernel/kexec_file.c: a signature that is no good counts when it is
 * enforced, or when the kernel is locked down and IMA does not vouch for the image. All of that is
 * compiled in with CONFIG_KEXEC_SIG only.
 */
static enum hf_verdict check_signature(const struct hf_host_facts *f, struct json_object *findings)
{
	static const char remedy[] =
		"give one that is signed with a key of the running kernel; whether it is shows "
		"while it is loaded, before any guest is paused";
	bool locked = f->lockdown >= HF_LOCKDOWN_INTEGRITY;

	if (f->config_known && f->kexec_sig_force)
		return add(findings, "host.kexec-signature", HF_WARNING,
			"the running kernel loads signed kernels only (CONFIG_KEXEC_SIG_FORCE)",
			remedy);
	if (locked && (!f->config_known || f->kexec_sig))
		return add(findings, "host.kexec-signature", HF_WARNING,
			f->lockdown == HF_LOCKDOWN_INTEGRITY
				? "the running kernel is locked down (integrity) and loads signed "
				  "kernels only"
				: "the running kernel is locked down (confidentiality) and loads "
				  "signed kernels only",
			remedy);
	if (f->config_known || f->lockdown == HF_LOCKDOWN_NONE)
		return add(findings, "host.kexec-signature", HF_OK,
			f->config_known ? "kernels need no signature to be loaded"
					: "the running kernel is not locked down",
			NULL);
	return HF_OK;
}

/* ---- KHO's scratch ---- */

static uint64_t file_bytes(const char *path)
{
	struct stat st;

	return path && stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* How much of an area is left at or above an address. */
static uint64_t usable(const struct hf_host_range *area, uint64_t from)
{
	uint64_t end = area->start + area->size;

	return end <= from ? 0 : end - HF_MAX(area->start, from);
}

/* Would one with @bytes, aligned, fit into an area that nothing else is in? */
static bool fits(const struct hf_host_range *area, uint64_t from, uint64_t align, uint64_t size)
{
	uint64_t end = area->start + area->size, start;

	if (usable(area, from) < size)
		return false;
	start = end - size;
	start -= align ? start % align : 0;
	return start >= HF_MAX(area->start, from);
}

struct placement {
	uint64_t kernel, initrd; /* bytes */
	bool kernel_fits, initrd_fits, both_fit;
	uint64_t total, left;
};

/*
 * The kernel and its initrd each lie in one of the areas, whole. What is looked for here is what
 * has to be so for that; the small pieces beside them, and where exactly the kernel puts them, can
 * still make it fail.
 */
static struct placement place(const struct hf_host_facts *f, const struct hf_target *t)
{
	const struct hf_boot_header *boot = &t->image.boot;
	uint64_t from = HF_MAX(boot->pref_address, (uint64_t)MIN_KERNEL_ADDRESS);
	struct placement p = {
		.kernel = (boot->init_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES,
		.initrd = file_bytes(t->initrd),
	};

	for (size_t i = 0; i < f->n_scratch; i++) {
		const struct hf_host_range *a = &f->scratch[i];
		bool here = fits(a, from, boot->alignment, p.kernel);

		p.total += a->size;
		p.kernel_fits |= here;
		for (size_t k = 0; k < f->n_scratch; k++) {
			bool there = fits(&f->scratch[k], MIN_INITRD_ADDRESS, PAGE_BYTES, p.initrd);

			p.initrd_fits |= there;
			p.both_fit |= here && there &&
				      (i != k || a->size >= p.kernel + p.initrd || !p.initrd);
		}
	}
	p.left = p.total - HF_MIN(p.total, p.kernel + p.initrd);
	return p;
}

/* From 7.3 on a kernel takes its first memory from all that is not preserved, too. */
static bool extends_scratch(const char *release)
{
	unsigned int major, minor;

	return sscanf(release, "%u.%u", &major, &minor) == 2 &&
	       (major > 7 || (major == 7 && minor >= 3));
}

static enum hf_verdict check_left(const struct hf_host_facts *f, const struct hf_target *t,
	const struct placement *p, struct json_object *findings)
{
	uint64_t page_map = f->mem_total / PAGE_BYTES * STRUCT_PAGE_BYTES;
	char message[MESSAGE_BYTES], remedy[REMEDY_BYTES];

	if (!f->mem_total || p->left >= page_map) {
		snprintf(message, sizeof(message),
			"KHO's scratch has %s, of which kernel and initrd take %s",
			bytes(p->total).s, bytes(p->kernel + p->initrd).s);
		return add(findings, "host.scratch", HF_OK, message, NULL);
	}
	snprintf(remedy, sizeof(remedy),
		"boot with a larger scratch, such as kho_scratch=64M,%lluM,%lluM",
		(unsigned long long)((p->kernel + p->initrd) / MIB + 256),
		(unsigned long long)(page_map / MIB + 256));
	if (extends_scratch(t->image.release)) {
		snprintf(message, sizeof(message),
			"of KHO's scratch (%s) kernel and initrd leave %s, and the new kernel's "
			"map "
			"of its memory alone takes %s: it has to find the rest where nothing is "
			"preserved",
			bytes(p->total).s, bytes(p->left).s, bytes(page_map).s);
		return add(findings, "host.scratch", HF_WARNING, message, remedy);
	}
	snprintf(message, sizeof(message),
		"of KHO's scratch (%s) kernel and initrd leave %s, and Linux %s has to fit the map "
		"of its memory (%s) into that: it would panic, and every guest be lost",
		bytes(p->total).s, bytes(p->left).s,
		t->image.release[0] ? t->image.release : "of unknown version", bytes(page_map).s);
	return add(findings, "host.scratch", HF_REFUSAL, message, remedy);
}

static enum hf_verdict check_scratch(
	const struct hf_host_facts *f, const struct hf_target *t, struct json_object *findings)
{
	char message[MESSAGE_BYTES], remedy[REMEDY_BYTES];
	struct placement p;
	uint64_t total = 0;

	for (size_t i = 0; i < f->n_scratch; i++)
		total += f->scratch[i].size;
	if (f->n_scratch == 0) {
		if (!t)
			return HF_OK;
		return add(findings, "host.scratch", HF_WARNING,
			"the kernel does not show how large KHO's scratch is: whether kernel and "
			"initrd fit shows while they are loaded, before any guest is paused",
			"mount -t debugfs debugfs /sys/kernel/debug, on a kernel with "
			"CONFIG_KEXEC_HANDOVER_DEBUGFS");
	}
	if (!t || !t->image.boot.init_bytes) {
		snprintf(message, sizeof(message), "KHO's scratch has %s in %zu areas",
			bytes(total).s, f->n_scratch);
		return add(findings, "host.scratch", HF_OK, message, NULL);
	}
	p = place(f, t);
	if (p.kernel_fits && p.initrd_fits && p.both_fit)
		return check_left(f, t, &p, findings);
	snprintf(message, sizeof(message),
		"the kernel (%s)%s%s%s can't be loaded: no area of KHO's scratch (%s in %zu areas) "
		"has so much room in one piece",
		bytes(p.kernel).s, p.initrd ? " and its initrd (" : "",
		p.initrd ? bytes(p.initrd).s : "", p.initrd ? ")" : "", bytes(p.total).s,
		f->n_scratch);
	snprintf(remedy, sizeof(remedy),
		"boot with a larger scratch, such as kho_scratch=64M,%lluM,256M, or give a smaller "
		"initrd",
		(unsigned long long)((p.kernel + p.initrd) / MIB + 256));
	return add(findings, "host.scratch", HF_REFUSAL, message, remedy);
}

/* ---- memory ---- */

static enum hf_verdict check_memory(const struct hf_host_facts *f, const struct hf_host_needs *n,
	const struct hf_target *t, struct json_object *findings)
{
	uint64_t images = t ? t->image.file_bytes + file_bytes(t->initrd) : 0;
	/* What there is no way around, and what it may take at most. */
	uint64_t least = n->hole_bytes + n->ram_bytes / PAGE_BYTES * POINTER_BYTES + images;
	uint64_t most = least + n->ram_bytes / PAGE_BYTES * RECORD_BYTES + n->state_bytes +
			HF_MIN(f->swap_used, n->ram_bytes);
	char message[MESSAGE_BYTES];
	enum hf_verdict verdict;

	if (!f->mem_available)
		return HF_OK;
	verdict = least > f->mem_available  ? HF_REFUSAL
		  : most > f->mem_available ? HF_WARNING
					    : HF_OK;
	if (verdict == HF_OK)
		snprintf(message, sizeof(message),
			"preserving needs %s of memory, %s of it for RAM that guests never "
			"touched; "
			"%s are available",
			bytes(most).s, bytes(n->hole_bytes).s, bytes(f->mem_available).s);
	else
		snprintf(message, sizeof(message),
			"preserving %s %s of memory, %s of it for RAM that guests never touched, "
			"and %s are available: %s",
			verdict == HF_REFUSAL ? "needs at least" : "may need",
			bytes(verdict == HF_REFUSAL ? least : most).s, bytes(n->hole_bytes).s,
			bytes(f->mem_available).s, "a guest might be killed for lack of memory");
	return add(findings, "host.memory", verdict, message,
		verdict == HF_OK ? NULL : "free memory, or shut a guest down");
}

static bool no_huge_pages(const struct hf_host_facts *f)
{
	bool inherits = !f->shmem_huge_2m[0] || strcmp(f->shmem_huge_2m, "inherit") == 0;

	if (strcmp(f->shmem_huge, "deny") == 0)
		return true;
	if (strcmp(f->shmem_huge, "force") == 0)
		return false;
	return inherits ? strcmp(f->shmem_huge, "never") == 0
			: strcmp(f->shmem_huge_2m, "never") == 0;
}

static enum hf_verdict check_huge_pages(
	const struct hf_host_facts *f, const struct hf_host_needs *n, struct json_object *findings)
{
	char message[MESSAGE_BYTES];

	if (!f->shmem_huge[0])
		return HF_OK;
	if (!no_huge_pages(f))
		return add(findings, "host.shmem-huge", HF_OK, "shared memory may use huge pages",
			NULL);
	snprintf(message, sizeof(message),
		"shared memory gets no huge pages: with 4 KiB pages, by published figures, "
		"preserving takes about 10 ms, and the blackout gets about 42 ms longer, for each "
		"GiB of RAM (guests here have %s); the new kernel's boot takes longer, too",
		bytes(n->ram_bytes).s);
	return add(findings, "host.shmem-huge", HF_WARNING, message,
		strcmp(f->shmem_huge_2m, "never") == 0 && strcmp(f->shmem_huge, "deny") != 0
			? "echo inherit > /sys/kernel/mm/transparent_hugepage/hugepages-2048kB/"
			  "shmem_enabled, echo advise > " SHMEM_HUGE ", before guests start"
			: "echo advise > " SHMEM_HUGE " before guests start");
}

/* ---- control groups ---- */

static enum hf_verdict check_cgroup(
	const struct hf_host_facts *f, const struct hf_host_needs *n, struct json_object *findings)
{
	char message[MESSAGE_BYTES];

	if (f->memory_max.bytes < n->ram_bytes) {
		snprintf(message, sizeof(message),
			"the agent's control group may have %s (limit of %.128s) and guests have "
			"%s "
			"of RAM: in the new kernel their memory is charged to it, and what goes "
			"beyond is lost",
			bytes(f->memory_max.bytes).s, f->memory_max.group, bytes(n->ram_bytes).s);
		return add(findings, "host.cgroup", HF_REFUSAL, message,
			"set MemoryMax=infinity for holdfastd.service and the slices that it is "
			"in");
	}
	if (f->memory_high.bytes < n->ram_bytes) {
		snprintf(message, sizeof(message),
			"the agent's control group is slowed down beyond %s (memory.high of "
			"%.128s) and guests have %s of RAM: bringing them back, in the blackout, "
			"could take any time",
			bytes(f->memory_high.bytes).s, f->memory_high.group, bytes(n->ram_bytes).s);
		return add(findings, "host.cgroup", HF_REFUSAL, message,
			"set MemoryHigh=infinity for holdfastd.service and the slices that it is "
			"in");
	}
	return add(findings, "host.cgroup", HF_OK,
		"no limit of a control group is in the way of the guests' RAM", NULL);
}

/* ---- the rest ---- */

static enum hf_verdict check_init(const struct hf_host_facts *f, struct json_object *findings)
{
	char message[MESSAGE_BYTES];

	if (!f->init[0])
		return HF_OK;
	if (strcmp(f->init, "systemd") != 0)
		snprintf(message, sizeof(message),
			"process 1 is %s: a reboot or kexec that it makes ends the guests; the "
			"jump "
			"of holdfast goes by it",
			f->init);
	else if (f->systemd == 0)
		snprintf(message, sizeof(message),
			"process 1 is systemd: `systemctl kexec` and `systemctl reboot` end the "
			"guests; the jump of holdfast goes by it");
	else if (f->systemd < 261)
		snprintf(message, sizeof(message),
			"process 1 is systemd %u: `systemctl kexec` and `systemctl reboot` end the "
			"guests; the jump of holdfast goes by it",
			f->systemd);
	else
		snprintf(message, sizeof(message),
			"process 1 is systemd %u, which keeps a LUO session of its own: that and "
			"holdfast's don't meet; `systemctl kexec` and `systemctl reboot` end the "
			"guests",
			f->systemd);
	return add(findings, "host.init", HF_OK, message, NULL);
}

static enum hf_verdict check_space(const struct hf_host_space *space, const char *what,
	const char *consequence, struct json_object *findings)
{
	char message[MESSAGE_BYTES];

	if (!space->known || (!space->read_only && space->free_bytes >= MIN_FREE_BYTES))
		return HF_OK;
	if (space->read_only)
		snprintf(message, sizeof(message), "%s is read-only: %s", what, consequence);
	else
		snprintf(message, sizeof(message), "%s has %s left: %s", what,
			bytes(space->free_bytes).s, consequence);
	return add(findings, "host.storage", HF_WARNING, message, "make room in it");
}

static enum hf_verdict check_storage(const struct hf_host_facts *f, struct json_object *findings)
{
	enum hf_verdict a = check_space(&f->state_dir, "the file system for reports",
				"the report of an update could not be kept", findings),
			b = check_space(&f->run_dir, "the file system for registrations",
				"an update could not note which guests run", findings);

	if (a == HF_OK && b == HF_OK && f->state_dir.known)
		add(findings, "host.storage", HF_OK, "there is room for reports", NULL);
	return HF_MAX(a, b);
}

/* Its own remedies: what is missing for images is missing only if somebody wants them. */
static enum hf_verdict check_images(const struct hf_way *way, const struct hf_host_facts *f,
	const struct hf_host_needs *needs, struct json_object *findings)
{
	uint64_t bytes_needed = needs->ram_bytes - needs->hole_bytes + needs->state_bytes;
	char message[MESSAGE_BYTES];

	if (!f->image_dir.known || f->image_dir.read_only)
		return add(findings, "host.images", HF_REFUSAL,
			"there is no place to write images of guests to",
			"see that " HF_IMAGE_FOLDER
			" in the agent's state folder is on a disk that can be "
			"written to");
	if (f->image_dir.free_bytes < bytes_needed + MIN_FREE_BYTES) {
		snprintf(message, sizeof(message),
			"images of the guests take up to %s, and the file system for them has %s",
			bytes(bytes_needed).s, bytes(f->image_dir.free_bytes).s);
		return add(findings, "host.images", HF_REFUSAL, message, "make room in it");
	}
	if (!way->plaintext && !way->has_key)
		return add(findings, "host.images", HF_REFUSAL,
			"images have what guests have in memory, and there is no key to encrypt "
			"them with",
			"give holdfastd the credential holdfast.image-key (see holdfastd(8)), or "
			"say --plaintext");
	snprintf(message, sizeof(message), "there is room for images of up to %s, which will be %s",
		bytes(bytes_needed).s, way->has_key ? "encrypted" : "readable by who has the disk");
	return add(findings, "host.images", way->has_key ? HF_OK : HF_WARNING, message, NULL);
}

/* A kernel is left that finds nothing in memory, on its way here or there. */
static enum hf_verdict check_for_images(const struct hf_way *way, const struct hf_host_facts *f,
	const struct hf_host_needs *needs, struct json_object *findings)
{
	enum hf_verdict worst = check_images(way, f, needs, findings), v;

	if (way->leaves && !way->reboot) {
		v = check_kexec(f, findings);
		worst = HF_MAX(worst, v);
		v = check_signature(f, findings);
		worst = HF_MAX(worst, v);
	}
	if (way->leaves) {
		v = check_init(f, findings);
		worst = HF_MAX(worst, v);
	}
	v = check_storage(f, findings);
	return HF_MAX(worst, v);
}

enum hf_verdict hf_check_host(const struct hf_way *way, const struct hf_host_facts *f,
	const struct hf_host_needs *needs, const struct hf_target *t, struct json_object *findings)
{
	enum hf_verdict worst = HF_OK, v;

	if (hf_way_on_disk(way))
		return check_for_images(way, f, needs, findings);
	if (!way->leaves) {
		add(findings, "host.carrier", HF_OK,
			"the agent keeps guests' memory itself: QEMU is replaced, the kernel stays",
			NULL);
		return check_storage(f, findings);
	}
#define CHECK(...) \
	do { \
		v = __VA_ARGS__; \
		worst = HF_MAX(worst, v); \
	} while (0)
	CHECK(check_luo(f, findings));
	CHECK(check_kexec(f, findings));
	CHECK(check_signature(f, findings));
	/* Without KHO there is no scratch. */
	if (!f->luo.err)
		CHECK(check_scratch(f, t, findings));
	CHECK(check_memory(f, needs, t, findings));
	CHECK(check_huge_pages(f, needs, findings));
	CHECK(check_cgroup(f, needs, findings));
	CHECK(check_init(f, findings));
	CHECK(check_storage(f, findings));
#undef CHECK
	return worst;
}

struct hf_host_needs hf_host_needs_of(const struct hf_survey *survey)
{
	struct hf_host_needs needs = {0};
	size_t n;
	const struct hf_survey_guest *guests = hf_survey_guests(survey, &n);

	for (size_t i = 0; i < n; i++) {
		const struct hf_registration *reg = &guests[i].reg;

		if (reg->reason[0])
			continue;
		needs.n_guests++;
		if (guests[i].asked && !guests[i].error.err)
			needs.state_bytes += guests[i].probe.state_estimate_bytes;
		for (size_t k = 0; k < reg->guest.n_ram; k++) {
			uint64_t size = reg->guest.ram[k].size, have;
			char path[64];
			struct stat st;

			snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)reg->pid,
				reg->guest.ram[k].fd);
			needs.ram_bytes += size;
			if (stat(path, &st) < 0)
				continue;
			have = (uint64_t)st.st_blocks * 512;
			needs.hole_bytes += size - HF_MIN(size, have);
		}
	}
	return needs;
}
