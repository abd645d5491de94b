/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast libvirt setup: make a host ready for carrying libvirt's domains over.
 *
 * Everything is worked out and shown before the first file is written. Each file is replaced as a
 * whole, and is of holdfast alone: none of libvirt's or the distribution's is changed.
 */
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "common/apparmor.h"
#include "common/fd.h"
#include "vmm-glue/libvirt/host-files.h"
#include "vmm-glue/libvirt/verbs.h"

#define UNITS "/etc/systemd/system"
#define RAM_DIR "/var/lib/libvirt/qemu/ram" /* libvirt's default */
#define RAM_SIZE "90%"
#define MAX_FILE_BYTES (4U << 20)
#define WRAPPER HF_LIBEXEC_DIR "/libvirt-guests-stop"

/* struct file - one that is to be there. */
struct file {
	char path[512]; /* without the root */
	char *now;	/* NULL: it is not there */
	char *wanted;
};

struct setup {
	const char *root; /* "" for the host itself */
	const char *size; /* or NULL: as it is, or the default */
	bool check;
	struct file files[8];
	size_t n_files;
	char *ram_dir;
	char *mount_unit; /* its name; NULL when there is none of ours */
};

extern char **environ;

static void setup_clear(struct setup *s)
{
	for (size_t i = 0; i < s->n_files; i++) {
		free(s->files[i].now);
		free(s->files[i].wanted);
	}
	free(s->ram_dir);
	free(s->mount_unit);
}

static int out_of_memory(struct hf_error *e)
{
	return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

static int io_error(struct hf_error *e, int err, const char *path)
{
	bool rights = err == -EACCES || err == -EPERM;

	return hf_error_set(e, err, rights ? HF_ERR_NOT_PERMITTED : HF_ERR_FAILED,
		rights ? "run it as root" : NULL, "%s: %s", path, strerror(-err));
}

/* Return: 0 with *@ret NULL when there is no such file. */
static int read_file(const struct setup *s, const char *path, char **ret, struct hf_error *e)
{
	cleanup_free char *whole = NULL;
	int r;

	if (asprintf(&whole, "%s%s", s->root, path) < 0) {
		whole = NULL;
		return out_of_memory(e);
	}
	r = hf_file_read(whole, MAX_FILE_BYTES, ret, NULL);
	if (r == -ENOENT || r == -ENOTDIR) {
		*ret = NULL;
		return 0;
	}
	return r < 0 ? io_error(e, r, whole) : 0;
}

/* @wanted: taken; NULL is lack of memory. */
static int add_file(struct setup *s, char *wanted, struct hf_error *e, const char *fmt, ...)
	HF_PRINTF(4, 5);
static int add_file(struct setup *s, char *wanted, struct hf_error *e, const char *fmt, ...)
{
	struct file *f = &s->files[s->n_files];
	va_list ap;
	int n;

	if (!wanted)
		return out_of_memory(e);
	if (s->n_files == HF_ARRAY_SIZE(s->files))
		abort();
	s->n_files++;
	f->wanted = wanted;
	va_start(ap, fmt);
	n = vsnprintf(f->path, sizeof(f->path), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(f->path))
		return io_error(e, -ENAMETOOLONG, f->path);
	return read_file(s, f->path, &f->now, e);
}

/* ---- who QEMU runs as ---- */

/*
 * Looks a name up in the root's /etc/passwd or /etc/group: both have it first and a number third.
 * Return: -ENOENT when it is not there.
 */
static int look_up(const struct setup *s, const char *path, const char *name, unsigned int *ret,
	struct hf_error *e)
{
	cleanup_free char *text = NULL;
	size_t n = strlen(name);
	int r = read_file(s, path, &text, e);

	if (r < 0)
		return r;
	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, n) == 0 && line[n] == ':' &&
			sscanf(line + n, ":%*[^:]:%u:", ret) == 1)
			return 0;
	}
	return -ENOENT;
}

static int user_or_group(
	const struct setup *s, bool group, const char *name, unsigned int *ret, struct hf_error *e)
{
	char *end;
	unsigned long number;
	int r = -ENOENT;

	/* As libvirt has it: a plus is a number, anything else a name, and only then a number. */
	if (name[0] != '+' && s->root[0]) {
		r = look_up(s, group ? "/etc/group" : "/etc/passwd", name, ret, e);
	} else if (name[0] != '+' && group) {
		const struct group *g = getgrnam(name);

		r = g ? (int)(*ret = g->gr_gid, 0) : -ENOENT;
	} else if (name[0] != '+') {
		const struct passwd *p = getpwnam(name);

		r = p ? (int)(*ret = p->pw_uid, 0) : -ENOENT;
	}
	if (r != -ENOENT)
		return r;
	errno = 0;
	number = strtoul(name + (name[0] == '+'), &end, 10);
	if (name[0] == '-' || !*name || *end || errno || number > 0xfffffffe)
		return -ENOENT;
	*ret = (unsigned int)number;
	return 0;
}

/* @name: what qemu.conf says, or NULL. */
static int settle_owner(
	const struct setup *s, bool group, const char *name, unsigned int *ret, struct hf_error *e)
{
	/* What Debian and the others build libvirt with. */
	static const char *const defaults[] = {"libvirt-qemu", "qemu"};
	int r = -ENOENT;

	if (name)
		r = user_or_group(s, group, name, ret, e);
	for (size_t i = 0; !name && r == -ENOENT && i < HF_ARRAY_SIZE(defaults); i++)
		r = user_or_group(s, group, defaults[i], ret, e);
	if (r == -ENOENT)
		return hf_error_set(e, r, HF_ERR_NOT_READY,
			"install libvirt's QEMU driver, or correct /etc/libvirt/qemu.conf",
			"there is no %s '%s', which libvirt runs QEMU as", group ? "group" : "user",
			name ? name : "libvirt-qemu");
	return r;
}

/* ---- the files ---- */

static bool exists(const struct setup *s, const char *path)
{
	char whole[4096];

	snprintf(whole, sizeof(whole), "%s%s", s->root, path);
	return access(whole, F_OK) == 0;
}

static int conf_string(const char *conf, const char *key, char **ret, struct hf_error *e)
{
	int r = conf ? hf_host_conf_string(conf, key, ret) : 0;

	if (r == -EBADMSG)
		return hf_error_set(e, r, HF_ERR_NOT_READY, "correct it",
			"/etc/libvirt/qemu.conf: the value of %s is not one string in quotes", key);
	return r < 0 ? out_of_memory(e) : 0;
}

/* Whether domains' memory needs a tmpfs of ours: 1, 0, or -errno. */
static int needs_mount(struct setup *s, const char *unit_path, char **ret_unit, struct hf_error *e)
{
	cleanup_free char *mountinfo = NULL, *unit = NULL;
	struct hf_host_mount mount = {0};
	int r = read_file(s, "/proc/self/mountinfo", &mountinfo, e);

	if (r == 0)
		r = read_file(s, unit_path, &unit, e);
	if (r < 0)
		return r;
	if (mountinfo)
		hf_host_mount_of(mountinfo, s->ram_dir, &mount);
	if (unit && strncmp(unit, HF_HOST_FILES_MARK, strlen(HF_HOST_FILES_MARK)) == 0) {
		*ret_unit = TAKE_PTR(unit);
		return 1;
	}
	if (strcmp(mount.type, "tmpfs") == 0) {
		printf("Domains' memory is on a tmpfs already: %s, mounted at %s\n", s->ram_dir,
			mount.point);
		return 0;
	}
	if (unit)
		return hf_error_set(e, -EEXIST, HF_ERR_NOT_READY,
			"have it mount a tmpfs, or remove it",
			"%s is not holdfast's, and what it mounts is no tmpfs now", unit_path);
	if (mount.at_path)
		return hf_error_set(e, -EBUSY, HF_ERR_NOT_READY,
			"set memory_backing_dir in /etc/libvirt/qemu.conf to a folder of its own",
			"%s has a file system of the type %s mounted", s->ram_dir, mount.type);
	return 1;
}

static int plan_mount(struct setup *s, const char *conf, struct hf_error *e)
{
	cleanup_free char *user = NULL, *group = NULL, *name = NULL, *unit = NULL, *size = NULL;
	struct hf_host_ram ram = {.dir = s->ram_dir};
	char path[512];
	int r;

	name = hf_host_unit_name(s->ram_dir, ".mount");
	if (!name)
		return out_of_memory(e);
	snprintf(path, sizeof(path), UNITS "/%s", name);
	r = needs_mount(s, path, &unit, e);
	if (r <= 0)
		return r;
	r = conf_string(conf, "user", &user, e);
	if (r == 0)
		r = conf_string(conf, "group", &group, e);
	if (r == 0)
		r = settle_owner(s, false, user, &ram.uid, e);
	if (r == 0)
		r = settle_owner(s, true, group, &ram.gid, e);
	if (r < 0)
		return r;
	/* A size that was asked for once stays. */
	size = unit ? hf_host_unit_size(unit) : NULL;
	ram.size = s->size ? s->size : size ? size : RAM_SIZE;
	ram.huge = exists(s, "/sys/kernel/mm/transparent_hugepage");
	s->mount_unit = TAKE_PTR(name);
	return add_file(s, hf_host_mount_unit(&ram), e, "%s", path);
}

static int plan_guests(struct setup *s, struct hf_error *e)
{
	static const char *const folders[] = {UNITS, "/run/systemd/system",
		"/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"};
	cleanup_free char *unit = NULL, *stop = NULL;
	char path[512];
	int r = 0;

	for (size_t i = 0; r == 0 && !unit && i < HF_ARRAY_SIZE(folders); i++) {
		snprintf(path, sizeof(path), "%s/libvirt-guests.service", folders[i]);
		r = read_file(s, path, &unit, e);
	}
	if (r < 0 || !unit)
		return r;
	stop = hf_host_exec_stop(unit);
	if (!stop)
		fprintf(stderr,
			"holdfast: %s: its ExecStop= is not understood, and left alone\n"
			"  see docs/LIBVIRT.md on orderly shutdowns\n",
			path);
	return add_file(s, hf_host_guests_drop_in(stop, WRAPPER), e,
		UNITS "/libvirt-guests.service.d/holdfast.conf");
}

/* Only where libvirt's profiles take additions from a folder: versions without it need none. */
static int plan_apparmor(struct setup *s, struct hf_error *e)
{
	cleanup_free char *text = NULL;
	int r = read_file(s, HF_APPARMOR_ABSTRACTION, &text, e);

	if (r < 0 || !text || !strstr(text, HF_APPARMOR_DROP_IN_DIR))
		return r;
	return add_file(s, hf_host_apparmor_drop_in(), e, "%s", HF_APPARMOR_DROP_IN);
}

static int plan(struct setup *s, struct hf_error *e)
{
	static const char *const daemons[] = {"libvirtd.service", "virtqemud.service"};
	cleanup_free char *conf = NULL;
	int r;

	if (!exists(s, "/etc/libvirt"))
		return hf_error_set(e, -ENOENT, HF_ERR_NOT_READY,
			"install libvirt's QEMU driver first (Debian: libvirt-daemon-system)",
			"libvirt is not installed: there is no %s/etc/libvirt", s->root);
	r = read_file(s, "/etc/libvirt/qemu.conf", &conf, e);
	if (r == 0)
		r = conf_string(conf, "memory_backing_dir", &s->ram_dir, e);
	if (r < 0)
		return r;
	if (!s->ram_dir && !(s->ram_dir = strdup(RAM_DIR)))
		return out_of_memory(e);
	if (!hf_host_path_is_plain(s->ram_dir))
		return hf_error_set(e, -EINVAL, HF_ERR_NOT_READY,
			"set memory_backing_dir in /etc/libvirt/qemu.conf to an absolute path of "
			"plain characters",
			"memory_backing_dir is '%.200s', which can't be mounted", s->ram_dir);
	r = plan_mount(s, conf, e);
	for (size_t i = 0; r == 0 && i < HF_ARRAY_SIZE(daemons); i++)
		r = add_file(s, hf_host_daemon_drop_in(s->mount_unit), e,
			UNITS "/%s.d/holdfast.conf", daemons[i]);
	if (r == 0)
		r = plan_guests(s, e);
	return r < 0 ? r : plan_apparmor(s, e);
}

/* ---- doing it ---- */

static bool is_done(const struct file *f)
{
	return f->now && strcmp(f->now, f->wanted) == 0;
}

/* Return: how many files are to be written, or -errno. */
static int show(const struct setup *s, struct hf_error *e)
{
	int r = 0, n = 0;

	for (size_t i = 0; r == 0 && i < s->n_files; i++) {
		const struct file *f = &s->files[i];

		if (is_done(f))
			continue;
		n++;
		r = hf_libvirt_show_diff(f->now ? f->path : "/dev/null", f->path,
			f->now ? f->now : "", f->wanted, e);
	}
	return r < 0 ? r : n;
}

static int write_files(const struct setup *s, struct hf_error *e)
{
	for (size_t i = 0; i < s->n_files; i++) {
		const struct file *f = &s->files[i];
		char path[4096], *slash;
		int r;

		if (is_done(f))
			continue;
		if (snprintf(path, sizeof(path), "%s%s", s->root, f->path) >= (int)sizeof(path))
			return io_error(e, -ENAMETOOLONG, f->path);
		slash = strrchr(path, '/');
		*slash = '\0';
		r = hf_mkdir_p(path, 0755);
		*slash = '/';
		if (r == 0)
			r = hf_file_write_atomic(path, f->wanted, strlen(f->wanted), 0644);
		if (r < 0)
			return io_error(e, r, path);
	}
	return 0;
}

static int systemctl(const char *command, const char *unit, struct hf_error *e)
{
	/* posix_spawn() doesn't write to them. */
	char *const argv[] = {(char *)"systemctl", (char *)command, (char *)unit, NULL};
	int status = 0, r;
	pid_t pid;

	printf("# systemctl %s%s%s\n", command, unit ? " " : "", unit ? unit : "");
	fflush(stdout);
	r = -posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	while (r == 0 && waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			r = -errno;
	if (r == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
		r = -EIO;
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED,
			"the files are written; see what it says, and give the command yourself",
			"`systemctl %s` failed", command);
	return 0;
}

/* Have systemd go by the new files, without anything that runs being stopped. */
static int activate(const struct setup *s, struct hf_error *e)
{
	bool resized = s->mount_unit && s->files[0].now && !is_done(&s->files[0]);
	int r;

	if (s->root[0] || access("/run/systemd/system", F_OK) < 0) {
		puts("This is not where a systemd runs: nothing was mounted.");
		return 0;
	}
	r = systemctl("daemon-reload", NULL, e);
	if (r == 0 && s->mount_unit)
		r = systemctl("start", s->mount_unit, e);
	if (r == 0 && resized)
		r = systemctl("reload", s->mount_unit, e);
	return r;
}

static int set_up(struct setup *s, struct hf_error *e)
{
	int n, r = plan(s, e);

	if (r < 0)
		return r;
	n = show(s, e);
	if (n < 0)
		return n;
	if (n == 0)
		puts("The host is set up: nothing to do.");
	if (n == 0 || s->check)
		return n;
	r = write_files(s, e);
	if (r == 0)
		r = activate(s, e);
	if (r == 0)
		puts("Done. Domains get their memory there when they are started: see `holdfast "
		     "libvirt enable`.");
	return r;
}

/* Return: -1 to go on, else an exit code. */
static int parse_options(const struct hf_libvirt_verb *verb, int argc, char **argv, struct setup *s)
{
	static const struct option longs[] = {
		{"check", no_argument, NULL, 'n'},
		{"root", required_argument, NULL, 'r'},
		{"size", required_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", longs, NULL)) >= 0) {
		if (c == 'h')
			return hf_libvirt_show_help(verb);
		if (c == ':')
			return hf_libvirt_usage_error(
				verb, "option '%s' needs a value", argv[optind - 1]);
		if (c == '?')
			return hf_libvirt_usage_error(verb, "no option '%s'", argv[optind - 1]);
		if (c == 'n')
			s->check = true;
		else if (c == 'r')
			s->root = strcmp(optarg, "/") == 0 ? "" : optarg;
		else
			s->size = optarg;
	}
	if (optind < argc)
		return hf_libvirt_usage_error(verb, "too many arguments: '%s'", argv[optind]);
	if (s->size && !hf_host_size_is_valid(s->size))
		return hf_libvirt_usage_error(
			verb, "'%s' is no size: a number with K, M, G or T, or per cent", s->size);
	return -1;
}

static int run(const struct hf_libvirt_verb *verb, int argc, char **argv)
{
	struct setup s = {.root = ""};
	struct hf_error e = {0};
	int r, code = parse_options(verb, argc, argv, &s);

	if (code >= 0)
		return code;
	r = set_up(&s, &e);
	if (r < 0)
		code = hf_libvirt_fail(&e);
	else
		code = s.check && r > 0 ? HF_LIBVIRT_TO_DO : HF_LIBVIRT_OK;
	/* 1 is an answer to --check, so a failure is another. */
	if (r < 0 && s.check && code == HF_LIBVIRT_FAILED)
		code = HF_LIBVIRT_NOT_READY;
	setup_clear(&s);
	return code;
}

const struct hf_libvirt_verb hf_libvirt_verb_setup = {
	.name = "setup",
	.usage = "[--check] [--size SIZE] [--root DIR]",
	.help = "Prepares a host for carrying libvirt's domains over a change of its kernel: a "
		"tmpfs\n"
		"for their memory, and the order in which services start and stop. Shows what is\n"
		"written, as a unified diff, before it is.\n\n"
		"  --check      only show it; exit with 1 if there is anything to do\n"
		"  --size SIZE  of the tmpfs: 64G, or a share of the host's memory (default: 90%)\n"
		"  --root DIR   the host's root folder; with one, nothing is mounted\n",
	.run = run,
};
