/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/taps.h"

#include <dirent.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/fd.h"
#include "vmm-glue/cmdline.h"

#define MISC_MAJOR 10
#define TUN_MINOR 200
/* struct virtio_net_hdr, which a QEMU begins with. */
#define PLAIN_HEADER_BYTES 10
/* Kernels have some 60. */
#define MAX_FEATURES 1024
/* Linux 6.2 has them, one bit of the interface for both. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
/* Linux 6.17. */
#ifndef TUN_F_UDP_TUNNEL_GSO
#define TUN_F_UDP_TUNNEL_GSO 0x080
#define TUN_F_UDP_TUNNEL_GSO_CSUM 0x100
#endif

/* ---- what is set ---- */

/* What TUNSETOFFLOAD sets can only be read of the interface: set_offload(), drivers/net/tun.c. */
static const struct {
	const char *name;
	uint32_t flags;
} offloads[] = {
	{"tx-checksum-ip-generic", TUN_F_CSUM},
	{"tx-tcp-segmentation", TUN_F_TSO4},
	{"tx-tcp-ecn-segmentation", TUN_F_TSO_ECN},
	{"tx-tcp6-segmentation", TUN_F_TSO6},
	{"tx-udp-segmentation", TUN_F_USO4 | TUN_F_USO6},
	{"tx-udp_tnl-segmentation", TUN_F_UDP_TUNNEL_GSO},
	{"tx-udp_tnl-csum-segmentation", TUN_F_UDP_TUNNEL_GSO_CSUM},
};

static int ethtool(int sock, const char *ifname, void *command)
{
	struct ifreq ifr = {.ifr_data = command};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname);
	return ioctl(sock, SIOCETHTOOL, &ifr) < 0 ? -errno : 0;
}

static int count_features(int sock, const char *ifname, uint32_t *ret)
{
	cleanup_free struct ethtool_sset_info *q = calloc(1, sizeof(*q) + sizeof(q->data[0]));
	int r;

	if (!q)
		return -ENOMEM;
	*q = (struct ethtool_sset_info){
		.cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ULL << ETH_SS_FEATURES};
	r = ethtool(sock, ifname, q);
	if (r < 0)
		return r;
	*ret = q->data[0];
	return *ret > 0 && *ret <= MAX_FEATURES ? 0 : -EBADMSG;
}

static int read_offloads(const char *ifname, uint32_t *ret)
{
	cleanup_close int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	cleanup_free struct ethtool_gstrings *names = NULL;
	cleanup_free struct ethtool_gfeatures *features = NULL;
	uint32_t n = 0, blocks;
	int r = sock < 0 ? -errno : count_features(sock, ifname, &n);

	if (r < 0)
		return r;
	blocks = (n + 31) / 32;
	names = calloc(1, sizeof(*names) + (size_t)n * ETH_GSTRING_LEN);
	features = calloc(1, sizeof(*features) + blocks * sizeof(features->features[0]));
	if (!names || !features)
		return -ENOMEM;
	*names = (struct ethtool_gstrings){
		.cmd = ETHTOOL_GSTRINGS, .string_set = ETH_SS_FEATURES, .len = n};
	*features = (struct ethtool_gfeatures){.cmd = ETHTOOL_GFEATURES, .size = blocks};
	r = ethtool(sock, ifname, names);
	if (r == 0)
		r = ethtool(sock, ifname, features);
	*ret = 0;
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		const char *name = (const char *)names->data + (size_t)i * ETH_GSTRING_LEN;

		for (size_t k = 0; k < HF_ARRAY_SIZE(offloads); k++)
			if (strncmp(name, offloads[k].name, ETH_GSTRING_LEN) == 0 &&
				features->features[i / 32].active & (1U << i % 32))
				*ret |= offloads[k].flags;
	}
	return r;
}

static int read_settings(struct hf_tap *tap, struct hf_error *e)
{
	int r = ioctl(tap->fd, TUNGETVNETHDRSZ, &tap->header_bytes) < 0 ? -errno : 0;

	if (r == 0)
		r = read_offloads(tap->ifname, &tap->offloads);
	return r < 0 ? hf_error_set(e, r, HF_ERR_FAILED, NULL,
			       "can't read the settings of the tap %s: %s", tap->ifname,
			       strerror(-r))
		     : 0;
}

static int write_settings(const struct hf_tap *tap, struct hf_error *e)
{
	if (ioctl(tap->fd, TUNSETVNETHDRSZ, &tap->header_bytes) < 0 ||
		ioctl(tap->fd, TUNSETOFFLOAD, (unsigned long)tap->offloads) < 0)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL,
			"can't set the tap %s as it was: %s", tap->ifname, strerror(errno));
	return 0;
}

/* ---- whose ---- */

/* By its device: the path may be another one in QEMU's mount namespace. */
static bool is_tap(const char *fd_path, int at)
{
	struct stat st;

	return fstatat(at, fd_path, &st, 0) == 0 && S_ISCHR(st.st_mode) &&
	       st.st_rdev == makedev(MISC_MAJOR, TUN_MINOR);
}

/* What is read by an interface's name is read in this process's network. */
static bool same_network(pid_t pid)
{
	struct stat own, its;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	return stat("/proc/self/ns/net", &own) == 0 && stat(path, &its) == 0 &&
	       own.st_ino == its.st_ino && own.st_dev == its.st_dev;
}

/* A descriptor of an interface of the command line: it is taken. */
static int take(struct hf_taps *taps, int fd, struct hf_error *e)
{
	struct ifreq ifr = {0};

	/* One that isn't attached to an interface is none of the guest's. */
	if (ioctl(fd, TUNGETIFF, &ifr) < 0) {
		close(fd);
		return 0;
	}
	for (size_t i = 0; i < taps->n; i++) {
		struct hf_tap *tap = &taps->v[i];

		if (strncmp(tap->ifname, ifr.ifr_name, IFNAMSIZ) != 0)
			continue;
		if (tap->fd < 0) {
			tap->fd = fd;
			return 0;
		}
		close(fd);
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, NULL,
			"its QEMU has the tap %s open more than once", tap->ifname);
	}
	close(fd);
	return 0;
}

static int look(DIR *dir, pid_t pid, uint64_t start_ticks, struct hf_taps *taps, struct hf_error *e)
{
	struct dirent *d;
	int r = 0;

	while (r == 0 && (d = readdir(dir))) {
		int fd;

		if (!is_tap(d->d_name, dirfd(dir)))
			continue;
		r = hf_pid_get_fd(pid, start_ticks, atoi(d->d_name), &fd);
		/* Closed since. */
		if (r == -EBADF)
			r = 0;
		else if (r < 0)
			hf_error_set(e, r, HF_ERR_FAILED, NULL,
				"can't duplicate a tap of its QEMU's: %s", strerror(-r));
		else
			r = take(taps, fd, e);
	}
	return r;
}

static int find(pid_t pid, uint64_t start_ticks, struct hf_taps *taps, struct hf_error *e)
{
	char path[32];
	DIR *dir;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL,
			"can't look for its QEMU's taps: %s", strerror(errno));
	r = look(dir, pid, start_ticks, taps, e);
	closedir(dir);
	return r;
}

int hf_taps_borrow(pid_t pid, uint64_t start_ticks, const struct hf_cmdline *plan,
	struct hf_taps *ret, struct hf_error *e)
{
	int r = 0;

	if (plan->n_taps > 0 && !same_network(pid))
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, NULL,
			"its QEMU is in another network namespace than holdfastd");
	if (plan->n_taps > HF_ARRAY_SIZE(ret->v))
		return hf_error_set(
			e, -EOPNOTSUPP, HF_ERR_NOT_READY, NULL, "it has %zu taps", plan->n_taps);
	for (size_t i = 0; i < plan->n_taps; i++) {
		ret->v[i] = (struct hf_tap){.fd = -EBADF};
		snprintf(ret->v[i].ifname, IFNAMSIZ, "%s",
			plan->taps[i].ifname ? plan->taps[i].ifname : "");
		ret->n = i + 1;
	}
	if (ret->n > 0)
		r = find(pid, start_ticks, ret, e);
	for (size_t i = 0; r == 0 && i < ret->n; i++)
		if (ret->v[i].fd < 0)
			r = hf_error_set(e, -ENXIO, HF_ERR_NOT_READY, NULL,
				"its QEMU doesn't have the tap %s of its command line open",
				ret->v[i].ifname);
	return r;
}

int hf_taps_read(struct hf_taps *taps, struct hf_error *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < taps->n; i++)
		r = read_settings(&taps->v[i], e);
	return r;
}

int hf_taps_put_back(const struct hf_taps *taps, struct hf_error *e)
{
	int r = 0;

	for (size_t i = 0; i < taps->n; i++) {
		int one = write_settings(&taps->v[i], r == 0 ? e : NULL);

		r = r == 0 ? one : r;
	}
	return r;
}

int hf_taps_recover(pid_t pid, uint64_t start_ticks, const struct hf_cmdline *plan,
	const struct hf_taps *noted, bool running, struct hf_error *e)
{
	cleanup_taps struct hf_taps taps = {0};
	int r = hf_taps_borrow(pid, start_ticks, plan, &taps, e);

	if (r == 0)
		r = hf_taps_read(&taps, e);
	if (r == 0 && taps.n != noted->n)
		r = hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL,
			"the note on its taps is of another command line");
	for (size_t i = 0; r == 0 && i < taps.n; i++) {
		struct hf_tap *tap = &taps.v[i];

		if (running && (tap->header_bytes != PLAIN_HEADER_BYTES || tap->offloads != 0))
			continue;
		tap->header_bytes = noted->v[i].header_bytes;
		tap->offloads = noted->v[i].offloads;
	}
	return r < 0 ? r : hf_taps_put_back(&taps, e);
}

void hf_taps_release(struct hf_taps *taps)
{
	for (size_t i = 0; i < taps->n; i++)
		hf_close(&taps->v[i].fd);
	taps->n = 0;
}
