/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/host-facts.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <time.h>
#include <zlib.h>

#include "agent/kexec.h"
#include "common/fd.h"
#include "memfd-preserve/kernel-image.h"
#include "memfd-preserve/luo.h"

#define FILE_MAX (256u << 10)
#define MAPS_MAX (4u << 20)
#define PATH_BYTES 4096
#define HOLDER_TRIES 5
#define HOLDER_PAUSE_NS (100 * HF_NSEC_PER_MSEC)

#define THP "/sys/kernel/mm/transparent_hugepage"

/* ---- files below the root ---- */

HF_PRINTF(3, 4)
static char *read_file(const char *root, size_t max, const char *fmt, ...)
{
	char path[PATH_BYTES];
	char *text = NULL;
	size_t n = (size_t)snprintf(path, sizeof(path), "%s", root);
	va_list ap;

	if (n >= sizeof(path))
		return NULL;
	va_start(ap, fmt);
	vsnprintf(path + n, sizeof(path) - n, fmt, ap);
	va_end(ap);
	return hf_file_read(path, max, &text, NULL) < 0 ? NULL : text;
}

/* The first word of a file. */
static void read_word(const char *text, char *ret, size_t room)
{
	size_t n = text ? strcspn(text, " \t\n") : 0;

	snprintf(ret, room, "%.*s", (int)HF_MIN(n, room - 1), text ? text : "");
}

/* "always [advise] never": the one in brackets. */
static void read_choice(const char *text, char *ret, size_t room)
{
	const char *open = text ? strchr(text, '[') : NULL;
	size_t n = open ? strcspn(open + 1, "]") : 0;

	snprintf(ret, room, "%.*s", (int)HF_MIN(n, room - 1), open ? open + 1 : "");
}

/* ---- who has the device ---- */

static bool is_holder(const char *root, pid_t pid)
{
	char path[PATH_BYTES], link[PATH_BYTES], target[64];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/proc/%d/fd", root, (int)pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		ssize_t n;

		if (snprintf(link, sizeof(link), "%s/%s", path, entry->d_name) >= (int)sizeof(link))
			continue;
		n = readlink(link, target, sizeof(target));
		found = n == (ssize_t)strlen(HF_LUO_DEVICE) &&
			memcmp(target, HF_LUO_DEVICE, (size_t)n) == 0;
	}
	closedir(dir);
	return found;
}

static void find_holders(const char *root, struct hf_host_facts *f)
{
	char path[PATH_BYTES];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/proc", root);
	dir = opendir(path);
	if (!dir)
		return;
	while (f->n_holders < HF_HOST_MAX_HOLDERS && (entry = readdir(dir))) {
		struct hf_host_holder *h = &f->holders[f->n_holders];
		pid_t pid = isdigit((unsigned char)entry->d_name[0]) ? atoi(entry->d_name) : 0;
		cleanup_free char *comm = NULL;

		/* Threads of our own have it for a moment now and then. */
		if (pid <= 0 || pid == getpid() || !is_holder(root, pid))
			continue;
		comm = read_file(root, FILE_MAX, "/proc/%d/comm", (int)pid);
		h->pid = pid;
		snprintf(h->comm, sizeof(h->comm), "%.*s", comm ? (int)strcspn(comm, "\n") : 0,
			comm ? comm : "");
		f->n_holders++;
	}
	closedir(dir);
}

/* Everybody may have it for a moment: who goes on having it stands in the way. */
static void read_holders(const char *root, struct hf_host_facts *f)
{
	const struct timespec pause = {.tv_nsec = HOLDER_PAUSE_NS};

	find_holders(root, f);
	for (int i = 0; i < HOLDER_TRIES && f->n_holders > 0; i++) {
		size_t n = 0;

		nanosleep(&pause, NULL);
		for (size_t k = 0; k < f->n_holders; k++)
			if (is_holder(root, f->holders[k].pid))
				f->holders[n++] = f->holders[k];
		f->n_holders = n;
	}
}

/* ---- what the kernel allows ---- */

static void read_lockdown(const char *root, struct hf_host_facts *f)
{
	cleanup_free char *text = read_file(root, FILE_MAX, "/sys/kernel/security/lockdown");
	char word[32];

	read_choice(text, word, sizeof(word));
	if (strcmp(word, "none") == 0)
		f->lockdown = HF_LOCKDOWN_NONE;
	else if (strcmp(word, "integrity") == 0)
		f->lockdown = HF_LOCKDOWN_INTEGRITY;
	else if (strcmp(word, "confidentiality") == 0)
		f->lockdown = HF_LOCKDOWN_CONFIDENTIALITY;
}

static char *unpack_config(const char *root)
{
	cleanup_free char *text = malloc(HF_KERNEL_MAX_CONFIG_BYTES + 1);
	char path[PATH_BYTES];
	gzFile file;
	int n;

	snprintf(path, sizeof(path), "%s/proc/config.gz", root);
	file = text ? gzopen(path, "rbe") : NULL;
	if (!file)
		return NULL;
	n = gzread(file, text, HF_KERNEL_MAX_CONFIG_BYTES);
	gzclose(file);
	if (n <= 0)
		return NULL;
	text[n] = 0;
	return TAKE_PTR(text);
}

static void read_config(const char *root, struct hf_host_facts *f)
{
	cleanup_free char *text = unpack_config(root);
	struct utsname uts;

	uname(&uts);
	if (!text)
		text = read_file(root, HF_KERNEL_MAX_CONFIG_BYTES, "/boot/config-%s", uts.release);
	if (!text)
		return;
	f->config_known = true;
	f->kexec_sig = hf_kernel_config_has(text, "CONFIG_KEXEC_SIG");
	f->kexec_sig_force = hf_kernel_config_has(text, "CONFIG_KEXEC_SIG_FORCE");
}

/* ---- memory ---- */

/* Two files of debugfs with a hexadecimal number a line: addresses, and sizes. */
static void read_scratch(const char *root, struct hf_host_facts *f)
{
	cleanup_free char *phys =
		read_file(root, FILE_MAX, "/sys/kernel/debug/kho/out/scratch_phys");
	cleanup_free char *len = read_file(root, FILE_MAX, "/sys/kernel/debug/kho/out/scratch_len");
	char *p = phys, *q = len, *end;

	while (p && q && f->n_scratch < HF_HOST_MAX_SCRATCH) {
		struct hf_host_range *area = &f->scratch[f->n_scratch];

		area->start = strtoull(p, &end, 16);
		if (end == p)
			break;
		p = end;
		area->size = strtoull(q, &end, 16);
		if (end == q)
			break;
		q = end;
		f->n_scratch++;
	}
}

static uint64_t meminfo_bytes(const char *text, const char *key)
{
	const char *line = strstr(text, key);

	return line ? strtoull(line + strlen(key), NULL, 10) * 1024 : 0;
}

static void read_memory(const char *root, struct hf_host_facts *f)
{
	cleanup_free char *text = read_file(root, FILE_MAX, "/proc/meminfo");
	uint64_t swap_total, swap_free;

	if (!text)
		return;
	f->mem_total = meminfo_bytes(text, "MemTotal:");
	f->mem_available = meminfo_bytes(text, "MemAvailable:");
	swap_total = meminfo_bytes(text, "SwapTotal:");
	swap_free = meminfo_bytes(text, "SwapFree:");
	f->swap_used = swap_total > swap_free ? swap_total - swap_free : 0;
}

static void read_huge_pages(const char *root, struct hf_host_facts *f)
{
	cleanup_free char *all = read_file(root, FILE_MAX, THP "/shmem_enabled");
	cleanup_free char *own = read_file(root, FILE_MAX, THP "/hugepages-2048kB/shmem_enabled");

	read_choice(all, f->shmem_huge, sizeof(f->shmem_huge));
	read_choice(own, f->shmem_huge_2m, sizeof(f->shmem_huge_2m));
}

/* ---- control groups ---- */

/* Where the group of this process is and how the files are called there: version 2, or 1. */
struct cgroup {
	char mount[64];
	char group[256];
	const char *max, *high;
};

static bool find_cgroup(const char *root, struct cgroup *ret)
{
	cleanup_free char *text = read_file(root, FILE_MAX, "/proc/self/cgroup");
	bool found = false;
	char *line, *save = NULL;

	for (line = text ? strtok_r(text, "\n", &save) : NULL; line;
		line = strtok_r(NULL, "\n", &save)) {
		char *controllers = strchr(line, ':');
		char *group = controllers ? strchr(controllers + 1, ':') : NULL;
		bool v1;

		if (!group)
			continue;
		*group++ = 0;
		v1 = strcmp(controllers + 1, "memory") == 0;
		/* Where both are there, the memory controller is in one only. */
		if (!v1 && (controllers[1] || found))
			continue;
		*ret = (struct cgroup){
			.max = v1 ? "memory.limit_in_bytes" : "memory.max",
			.high = v1 ? NULL : "memory.high",
		};
		snprintf(ret->mount, sizeof(ret->mount), "/sys/fs/cgroup%s", v1 ? "/memory" : "");
		snprintf(ret->group, sizeof(ret->group), "%.*s", (int)sizeof(ret->group) - 1,
			strcmp(group, "/") == 0 ? "" : group);
		found = true;
	}
	return found;
}

static void lower_limit(
	const char *root, const struct cgroup *c, const char *file, struct hf_host_limit *limit)
{
	cleanup_free char *text =
		file ? read_file(root, FILE_MAX, "%s%s/%s", c->mount, c->group, file) : NULL;
	uint64_t bytes;

	if (!text || !isdigit((unsigned char)text[0]))
		return; /* "max", or no such file at the top */
	bytes = strtoull(text, NULL, 10);
	if (bytes >= limit->bytes)
		return;
	limit->bytes = bytes;
	snprintf(limit->group, sizeof(limit->group), "%s", c->group[0] ? c->group : "/");
}

static void read_limits(const char *root, struct hf_host_facts *f)
{
	struct cgroup c;
	char *slash;

	f->memory_max.bytes = f->memory_high.bytes = UINT64_MAX;
	if (!find_cgroup(root, &c))
		return;
	for (;;) {
		lower_limit(root, &c, c.max, &f->memory_max);
		lower_limit(root, &c, c.high, &f->memory_high);
		slash = strrchr(c.group, '/');
		if (!slash)
			return;
		*slash = 0;
	}
}

/* ---- process 1 ---- */

static void read_init(const char *root, struct hf_host_facts *f)
{
	/* The library that it runs with, which need not be the one that is installed. */
	static const char library[] = "/libsystemd-shared-";
	cleanup_free char *comm = read_file(root, FILE_MAX, "/proc/1/comm");
	cleanup_free char *maps = NULL;
	const char *p;

	read_word(comm, f->init, sizeof(f->init));
	if (strcmp(f->init, "systemd") != 0)
		return;
	maps = read_file(root, MAPS_MAX, "/proc/1/maps");
	p = maps ? strstr(maps, library) : NULL;
	if (p)
		f->systemd = (unsigned int)strtoul(p + strlen(library), NULL, 10);
}

/* ---- folders ---- */

/* A folder that will be made is in the file system of the first one above it that there is. */
static void read_space(const char *dir, struct hf_host_space *ret)
{
	char path[PATH_BYTES];
	struct statvfs fs;
	char *slash;

	if (snprintf(path, sizeof(path), "%s", dir) >= (int)sizeof(path))
		return;
	while (statvfs(path, &fs) < 0) {
		slash = strrchr(path, '/');
		if (errno != ENOENT || !slash || !path[1])
			return;
		slash[slash == path] = 0;
	}
	*ret = (struct hf_host_space){
		.known = true,
		.read_only = fs.f_flag & ST_RDONLY,
		.free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize,
	};
}

void hf_host_facts_read(
	const char *root, const char *state_dir, const char *run_dir, struct hf_host_facts *ret)
{
	struct hf_host_facts *f = ret;
	char device[PATH_BYTES], proc[PATH_BYTES], images[PATH_BYTES];

	*f = (struct hf_host_facts){0};
	snprintf(device, sizeof(device), "%s%s", root, HF_LUO_DEVICE);
	snprintf(proc, sizeof(proc), "%s/proc", root);
	hf_luo_check(device, proc, &f->luo);
	hf_kexec_allowed(root, &f->kexec);
	read_holders(root, f);
	read_lockdown(root, f);
	read_config(root, f);
	read_scratch(root, f);
	read_memory(root, f);
	read_huge_pages(root, f);
	read_limits(root, f);
	read_init(root, f);
	read_space(state_dir, &f->state_dir);
	/* It may be a mount of its own. Made when it is needed first. */
	snprintf(images, sizeof(images), "%s/" HF_IMAGE_FOLDER, state_dir);
	read_space(images, &f->image_dir);
	read_space(run_dir, &f->run_dir);
}
