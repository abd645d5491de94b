/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/inherited.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/fd.h"
#include "vmm-glue/confinement.h"
#include "vmm-glue/libvirt.h"
#include "vmm-glue/net.h"
#include "vmm-glue/process.h"
#include "vmm-glue/spawn-internal.h"
#include "vmm-glue/unix-sockets.h"

#define VHOST_NET "/dev/vhost-net"
#define TUN_DEVICE "/dev/net/tun"

/*
 * These folders belong to QEMU's user, and a QEMU that was taken over by its guest may put links
 * there. So what is done with the rights of root is done to what was opened, and was reached
 * without any link. openat2(2) would do that at once, but systemd forbids it to services that must
 * not make setuid files (RestrictSUIDSGID=), as holdfastd.
 */
static int open_unlinked(const char *path, int flags)
{
	cleanup_close int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char name[NAME_MAX + 1];

	if (path[0] != '/')
		return -EINVAL;
	for (path += strspn(path, "/"); *path && at >= 0; path += strspn(path, "/")) {
		size_t len = strcspn(path, "/");
		bool last = path[len + strspn(path + len, "/")] == 0;
		int next;

		if (len >= sizeof(name))
			return -ENAMETOOLONG;
		memcpy(name, path, len);
		name[len] = 0;
		next = openat(
			at, name, (last ? flags : O_PATH | O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC);
		hf_close(&at);
		at = next;
		path += len;
	}
	return at < 0 ? -errno : TAKE_FD(at);
}

/* Its folder, and where its name begins. */
static int open_parent(const char *path, const char **ret_name)
{
	cleanup_free char *folder = strdup(path);
	char *slash = folder ? strrchr(folder, '/') : NULL;

	if (!folder)
		return -ENOMEM;
	if (!slash || slash == folder || !slash[1])
		return -EINVAL;
	*slash = 0;
	*ret_name = path + (slash - folder) + 1;
	return open_unlinked(folder, O_PATH | O_DIRECTORY);
}

/* ---- looking ---- */

static int unknown(const char *what, struct hf_error *e)
{
	return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, "shut it down for the update",
		"its QEMU %s, which can't be made anew", what);
}

static int read_fd_link(pid_t pid, int fd, char *ret, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
	n = readlink(path, ret, size - 1);
	if (n < 0)
		return -errno;
	ret[n] = 0;
	return 0;
}

/* The folder of a path, as it is. Those that outlive the kernel need no note. */
static int note_folder(struct hf_manifest_guest *g, const char *path)
{
	struct hf_manifest_folder *f;
	char folder[256];
	struct stat st;
	char *slash;

	if (strncmp(path, "/run/", 5) != 0 && strncmp(path, "/var/run/", 9) != 0)
		return 0;
	if (snprintf(folder, sizeof(folder), "%s", path) >= (int)sizeof(folder))
		return -ENAMETOOLONG;
	slash = strrchr(folder, '/');
	*slash = 0;
	for (size_t i = 0; i < g->n_folders; i++)
		if (strcmp(g->folders[i].path, folder) == 0)
			return 0;
	if (stat(folder, &st) < 0)
		return -errno;
	f = hf_manifest_add_folder(g);
	if (!f)
		return -ENOMEM;
	f->mode = st.st_mode & 07777;
	f->uid = st.st_uid;
	f->gid = st.st_gid;
	return hf_manifest_set(&f->path, folder);
}

static int note_listen(struct hf_manifest_guest *g, struct hf_manifest_fd *f, const char *link,
	const char *table, struct hf_error *e)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)], what[160];
	uint64_t inode;
	struct stat st;
	int r;

	if (sscanf(link, "socket:[%" SCNu64 "]", &inode) != 1 ||
		hf_unix_listener_path(table, inode, path, sizeof(path)) < 0 ||
		lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		snprintf(what, sizeof(what), "has descriptor %d, %.80s", f->fd, link);
		return unknown(what, e);
	}
	f->mode = st.st_mode & 07777;
	f->uid = st.st_uid;
	f->gid = st.st_gid;
	r = hf_manifest_set(&f->path, path);
	return r == 0 ? note_folder(g, path) : r;
}

static int note_tap(struct hf_manifest_guest *g, struct hf_manifest_fd *f, pid_t pid,
	const char *id, struct hf_error *e)
{
	cleanup_free char *info = NULL;
	char path[64], name[IFNAMSIZ], what[64];
	const char *line;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, f->fd);
	r = hf_file_read(path, 65536, &info, NULL);
	line = r == 0 ? strstr(info, "\niff:\t") : NULL;
	if (!line || sscanf(line, "\niff:\t%15[^\n]", name) != 1) {
		snprintf(what, sizeof(what), "has descriptor %d, which is no tap", f->fd);
		return unknown(what, e);
	}
	r = hf_manifest_set(&f->path, name);
	return r < 0 ? r : hf_net_note(g, id, name, e);
}

/* As libvirt makes them. */
#define NEW_FILE_MODE 0600

/*
 * What the console of a domain is written to. QEMU has a pipe to virtlogd or the file itself, under
 * a number that nobody knows: the path is libvirt's word.
 */
static int note_file(struct hf_manifest_guest *g, struct hf_manifest_fd *f, const char *opaque,
	struct hf_error *e)
{
	cleanup_close int fd = -EBADF, folder = -EBADF;
	char path[PATH_MAX], what[400];
	struct stat st;
	const char *name;
	int r = 0;

	if (!g->libvirt_status)
		r = hf_libvirt_read_status(g, e);
	if (r < 0)
		return r;
	if (hf_libvirt_console_path(g->libvirt_status, opaque, path, sizeof(path)) < 0 ||
		path[0] != '/') {
		snprintf(what, sizeof(what),
			"was handed %.80s, of which libvirt's status file doesn't say what it is",
			opaque);
		return unknown(what, e);
	}
	/* As it will be opened, so that what stands in the way does so now. */
	r = folder = open_parent(path, &name);
	if (r >= 0)
		r = fd = open_unlinked(path, O_WRONLY | O_APPEND | O_NONBLOCK);
	if (fd == -ENOENT)
		r = faccessat(folder, ".", W_OK, 0) < 0 ? -errno : 0;
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_NOT_READY,
			"give the console's file in its XML without symbolic links, in a folder "
			"that "
			"is there, and start the domain anew; or shut it down for the update",
			"the file that its console is written to can't be opened again: %s: %s",
			path,
			r == -ELOOP || r == -ENOTDIR ? "there is a symbolic link in the path"
						     : strerror(-r));
	/* Moved away and not made again: that is done then. */
	f->mode = NEW_FILE_MODE;
	if (fd >= 0) {
		if (fstat(fd, &st) < 0)
			return -errno;
		if (!S_ISREG(st.st_mode) || st.st_nlink != 1) {
			snprintf(what, sizeof(what),
				"writes its console to %.300s, no plain file with one name", path);
			return unknown(what, e);
		}
		f->mode = st.st_mode & 07777;
		f->uid = st.st_uid;
		f->gid = st.st_gid;
	}
	r = hf_manifest_set(&f->path, path);
	return r == 0 ? note_folder(g, path) : r;
}

/* Is there anything in this pipe? Whoever has no reader any more loses it either way. */
static bool pipe_is_full(const char *link)
{
	cleanup_close int fd = open(link, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	int n = 0;

	return fd >= 0 && ioctl(fd, FIONREAD, &n) == 0 && n > 0;
}

bool hf_inherited_is_being_written(const struct hf_manifest_guest *guest, pid_t pid)
{
	bool any = false, full = false;
	char folder[64], link[384], target[64];
	DIR *dir;

	for (size_t i = 0; i < guest->n_fds; i++)
		any = any || guest->fds[i].kind == HF_FD_FILE;
	snprintf(folder, sizeof(folder), "/proc/%d/fd", (int)pid);
	dir = any ? opendir(folder) : NULL;
	for (struct dirent *d; dir && !full && (d = readdir(dir));) {
		ssize_t n;

		snprintf(link, sizeof(link), "%s/%s", folder, d->d_name);
		n = readlink(link, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = 0;
		full = strncmp(target, "pipe:[", 6) == 0 && pipe_is_full(link);
	}
	if (dir)
		closedir(dir);
	return full;
}

static int note_fd(struct hf_manifest_guest *g, const struct hf_cmdline_fd *known, pid_t pid,
	const char *table, struct hf_error *e)
{
	struct hf_manifest_fd *f = hf_manifest_add_fd(g);
	char link[256], what[400];
	int r;

	if (!f)
		return -ENOMEM;
	f->fd = known->fd;
	f->kind = known->kind;
	if (known->kind == HF_FD_FILE)
		return note_file(g, f, known->id, e);
	r = read_fd_link(pid, known->fd, link, sizeof(link));
	if (r < 0)
		return r;
	switch (known->kind) {
	case HF_FD_LISTEN:
		return note_listen(g, f, link, table, e);
	case HF_FD_TAP:
		return note_tap(g, f, pid, known->id, e);
	default:
		if (strcmp(link, VHOST_NET) == 0)
			return 0;
		snprintf(what, sizeof(what), "has descriptor %d, %s, for vhost", f->fd, link);
		return unknown(what, e);
	}
}

/* ---- helpers ---- */

/*
 * One that has a profile for its program gets that wherever it is executed. One with its domain's
 * has to be given it.
 */
static int read_helper(pid_t pid, struct hf_manifest_helper *h)
{
	cleanup_registration struct hf_registration reg = {.pid = pid};
	int r = hf_process_read(pid, &reg);

	if (r == 0 && hf_confinement_read(pid, &h->apparmor, NULL) == -ENOMEM)
		r = -ENOMEM;
	if (r < 0)
		return r;
	h->uid = reg.guest.uid;
	h->gid = reg.guest.gid;
	return hf_manifest_set_strings(
		&h->argv, &h->n_argv, (const char *const *)reg.guest.argv, reg.guest.n_argv);
}

/* libvirt starts swtpm with its socket on the command line. */
static bool is_swtpm_of(pid_t pid, const char *socket)
{
	cleanup_free char *text = NULL;
	char path[64], want[256], exe[256];
	size_t size = 0, len;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	exe[n > 0 ? n : 0] = 0;
	if (!strrchr(exe, '/') || strncmp(strrchr(exe, '/'), "/swtpm", 6) != 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (hf_file_read(path, 1 << 20, &text, &size) < 0)
		return false;
	len = (size_t)snprintf(want, sizeof(want), "path=%s", socket);
	for (size_t at = 0; at < size; at += strlen(text + at) + 1) {
		const char *found = strstr(text + at, want);

		if (found && (!found[len] || found[len] == ','))
			return true;
	}
	return false;
}

static pid_t find_swtpm(const char *socket)
{
	DIR *dir = opendir("/proc");
	pid_t found = 0;

	for (struct dirent *d; dir && !found && (d = readdir(dir));) {
		pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);

		if (pid > 0 && is_swtpm_of(pid, socket))
			found = pid;
	}
	if (dir)
		closedir(dir);
	return found;
}

static int note_helper(struct hf_manifest_guest *g, const char *socket, struct hf_error *e)
{
	struct hf_manifest_helper *h;
	char what[400], folder[256];
	struct stat st, dir;
	pid_t pid = find_swtpm(socket);
	int r;

	snprintf(what, sizeof(what), "is connected to %.200s, to a process that isn't known",
		socket);
	snprintf(folder, sizeof(folder), "%s", socket);
	if (!pid || !strrchr(folder, '/') || lstat(socket, &st) < 0)
		return unknown(what, e);
	*strrchr(folder, '/') = 0;
	h = hf_manifest_add_helper(g);
	if (!h)
		return -ENOMEM;
	r = read_helper(pid, h);
	if (r < 0)
		return r;
	/* Somebody else's process may well be called that; it is started as its user, but still. */
	if (h->uid != 0 && (stat(folder, &dir) < 0 || h->gid != dir.st_gid))
		return unknown(what, e);
	h->socket_mode = st.st_mode & 07777;
	h->socket_uid = st.st_uid;
	h->socket_gid = st.st_gid;
	r = hf_manifest_set(&h->socket, socket);
	return r == 0 ? note_folder(g, socket) : r;
}

int hf_inherited_collect(const struct hf_cmdline *plan, pid_t pid, struct hf_manifest_guest *guest,
	struct hf_error *e)
{
	cleanup_free char *table = NULL;
	int r;

	if (!plan->libvirt)
		return 0;
	hf_manifest_forget_inherited(guest);
	guest->inherits = true;
	if (plan->n_fds + plan->n_ram + 1 > HF_SPAWN_MAX_FDS)
		return unknown("has more descriptors than are known how", e);
	r = hf_unix_table_read(&table);
	for (size_t i = 0; r == 0 && i < plan->n_fds; i++)
		r = note_fd(guest, &plan->fds[i], pid, table, e);
	for (size_t i = 0; r == 0 && i < plan->n_sockets; i++)
		r = note_helper(guest, plan->sockets[i], e);
	if (r == 0)
		r = hf_confinement_read(pid, &guest->apparmor, e);
	if (r < 0 && !(e && e->err))
		hf_error_set(e, r, HF_ERR_FAILED, NULL,
			"can't find out what its QEMU was started with: %s", strerror(-r));
	return r;
}

int hf_inherited_first_free(const struct hf_manifest_guest *guest)
{
	int first = 3;

	for (size_t i = 0; i < guest->n_fds; i++)
		first = HF_MAX(first, guest->fds[i].fd + 1);
	return first;
}

/* ---- making ---- */

/* Gives a socket away. */
static int give_socket(int folder, const char *name, uid_t uid, gid_t gid)
{
	cleanup_close int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISSOCK(st.st_mode) || st.st_nlink != 1)
		return -EPERM;
	return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int make_folder(const struct hf_manifest_folder *f, struct hf_error *e)
{
	cleanup_close int fd = -EBADF;
	struct stat st;
	int r;

	if (access(f->path, F_OK) == 0)
		return 0;
	/* Those above it, too: a helper has another user. */
	r = hf_mkdir_p_public(f->path);
	if (r == 0)
		r = fd = open_unlinked(f->path, O_RDONLY | O_DIRECTORY);
	if (r >= 0 && fstat(fd, &st) < 0)
		r = -errno;
	if (r >= 0 && st.st_uid != geteuid())
		r = -EPERM;
	if (r >= 0 && (fchmod(fd, f->mode) < 0 || fchown(fd, f->uid, f->gid) < 0))
		r = -errno;
	return r < 0 ? hf_error_set(e, r, HF_ERR_FAILED, NULL, "can't make the folder %s: %s",
			       f->path, strerror(-r))
		     : 0;
}

static int start_helper(sd_event *event, const struct hf_manifest_guest *guest,
	const struct hf_manifest_helper *h, struct hf_error *e)
{
	static char *const envp[] = {(char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
	struct hf_spawn_spec spec = {
		.program = h->n_argv > 0 ? h->argv[0] : "",
		.argv = h->argv,
		.envp = envp,
		.uid = h->uid,
		.gid = h->gid,
		.groups = h->groups,
		.n_groups = h->n_groups,
		.apparmor = h->apparmor,
		.umask = 022,
	};
	cleanup_close int folder = -EBADF;
	struct hf_child *child;
	const char *name;
	char log[512];
	int r;

	/* Why it ends, if it does, is there beside its QEMU's last words. */
	if (hf_libvirt_log_path(guest, log, sizeof(log)) == 0)
		spec.log_path = log;

	/* Left over: it would not be told from the new one's. */
	folder = open_parent(h->socket, &name);
	if (folder >= 0)
		unlinkat(folder, name, 0);
	r = hf_spawn(event, &spec, NULL, NULL, &child, e);
	if (r < 0)
		return hf_error_prefix(e, "can't start %s", spec.program);
	hf_child_release(child);
	return 0;
}

int hf_inherited_start(
	sd_event *event, const struct hf_manifest_guest *guest, bool again, struct hf_error *e)
{
	bool missing = false;
	int r = 0;

	for (size_t i = 0; r == 0 && !again && i < guest->n_folders; i++)
		r = make_folder(&guest->folders[i], e);
	for (size_t i = 0; r == 0 && !again && i < guest->n_helpers; i++)
		r = start_helper(event, guest, &guest->helpers[i], e);
	for (size_t i = 0; r == 0 && i < guest->n_helpers; i++) {
		const struct hf_manifest_helper *h = &guest->helpers[i];
		cleanup_close int folder = -EBADF;
		const char *name;

		/*
		 * To find out by connecting would end swtpm: it serves one connection. It listens
		 * last; a socket that is another user's before would not let it set its mode.
		 */
		if (!hf_unix_listens(h->socket)) {
			missing = true;
			continue;
		}
		r = folder = open_parent(h->socket, &name);
		if (r >= 0)
			r = give_socket(folder, name, h->socket_uid, h->socket_gid);
		if (r < 0)
			hf_error_set(e, r, HF_ERR_FAILED, NULL, "%s: %s", h->socket, strerror(-r));
	}
	return r == 0 && missing ? -EAGAIN : r;
}

/* Nobody else makes files at this moment whose mode isn't said: the mask is the whole process's. */
static int bind_with_mode(int fd, const struct sockaddr_un *sa, mode_t mode)
{
	mode_t mask = umask(0);
	int r = fchmod(fd, mode) < 0 || bind(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0
			? -errno
			: 0;

	umask(mask);
	return r;
}

static int listen_at(const struct hf_manifest_fd *f)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), folder = -EBADF;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	const char *name;
	int r;

	if (fd < 0)
		return -errno;
	if (!f->path || snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", f->path) >=
				(int)sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	folder = open_parent(f->path, &name);
	if (folder < 0)
		return folder;
	if (unlinkat(folder, name, 0) < 0 && errno != ENOENT)
		return -errno;
	r = bind_with_mode(fd, &sa, f->mode);
	if (r == 0)
		r = give_socket(folder, name, f->uid, f->gid);
	if (r < 0)
		return r;
	return listen(fd, 1) < 0 ? -errno : TAKE_FD(fd);
}

static int open_tap(const struct hf_manifest_guest *guest, const struct hf_manifest_fd *f)
{
	cleanup_close int fd = open(TUN_DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	const struct hf_manifest_net *net = NULL;
	struct ifreq ifr = {0};

	if (fd < 0)
		return -errno;
	for (size_t i = 0; f->path && i < guest->n_net; i++)
		if (guest->net[i].ifname && strcmp(guest->net[i].ifname, f->path) == 0)
			net = &guest->net[i];
	if (!net)
		return -EBADMSG;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", f->path);
	ifr.ifr_flags = (short)((net->flags & ~(uint32_t)IFF_PERSIST) | IFF_TAP | IFF_NO_PI);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0)
		return -errno;
	/* libvirt leaves its end to the last descriptor's. */
	if (!(net->flags & IFF_PERSIST) && ioctl(fd, TUNSETPERSIST, 0UL) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/*
 * Who may write to the folder may put something else there. So it has to be the file of the one who
 * it was before, and of no other name.
 */
static int open_file(const struct hf_manifest_fd *f)
{
	cleanup_close int fd = -EBADF, folder = -EBADF;
	const char *name;
	struct stat st;

	if (!f->path || f->path[0] != '/')
		return -EBADMSG;
	folder = open_parent(f->path, &name);
	if (folder < 0)
		return folder;
	/* Without waiting, should it be a pipe. */
	fd = openat(folder, name, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		fd = openat(folder, name,
			O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		/* In this order: the agent may not change modes of what isn't its own. */
		if (fd >= 0 && (fchmod(fd, f->mode & 0777) < 0 || fchown(fd, f->uid, f->gid) < 0))
			return -errno;
	}
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_uid != f->uid)
		return -EPERM;
	return fcntl(fd, F_SETFL, O_APPEND) < 0 ? -errno : TAKE_FD(fd);
}

static int open_one(const struct hf_manifest_guest *guest, const struct hf_manifest_fd *f)
{
	int fd;

	switch (f->kind) {
	case HF_FD_LISTEN:
		return listen_at(f);
	case HF_FD_TAP:
		return open_tap(guest, f);
	case HF_FD_VHOST:
		fd = open(VHOST_NET, O_RDWR | O_CLOEXEC);
		return fd < 0 ? -errno : fd;
	case HF_FD_FILE:
		return open_file(f);
	default:
		return -EPROTONOSUPPORT;
	}
}

void hf_inherited_close(struct hf_spawn_fd *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		hf_close(&fds[i].fd);
}

static int by_number(const void *a, const void *b)
{
	return ((const struct hf_spawn_fd *)a)->number - ((const struct hf_spawn_fd *)b)->number;
}

/* A guest isn't left standing for what its console says: that goes nowhere then. */
static int open_instead(const struct hf_manifest_fd *f, int r, char *missed, size_t size)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	snprintf(missed, size, "the file %.200s for its console (%s)", f->path ? f->path : "",
		strerror(-r));
	return fd;
}

int hf_inherited_open(const struct hf_manifest_guest *guest, struct hf_spawn_fd *ret, char *missed,
	size_t size, struct hf_error *e)
{
	missed[0] = 0;
	for (size_t i = 0; i < guest->n_fds; i++) {
		const struct hf_manifest_fd *f = &guest->fds[i];

		ret[i] = (struct hf_spawn_fd){.fd = open_one(guest, f), .number = f->fd};
		if (ret[i].fd < 0 && f->kind == HF_FD_FILE)
			ret[i].fd = open_instead(f, ret[i].fd, missed, size);
		if (ret[i].fd < 0) {
			int r = ret[i].fd;

			hf_inherited_close(ret, i);
			return hf_error_set(e, r, HF_ERR_FAILED, NULL,
				"can't open %s for its QEMU: %s", f->path ? f->path : VHOST_NET,
				strerror(-r));
		}
	}
	qsort(ret, guest->n_fds, sizeof(*ret), by_number);
	return 0;
}
