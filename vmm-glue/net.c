/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Looking taps up and making them anew, by rtnetlink and /dev/net/tun (see net.h).
 *
 * One request, one answer, each on a socket of its own: this runs once per tap. The kernel's
 * answers are trusted as far as their lengths are right.
 */
#include "vmm-glue/net.h"

#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "common/fd.h"
#include "vmm-glue/cmdline.h"

#define TUN_DEVICE "/dev/net/tun"
#define ANSWER_SECONDS 5
#define TUN_TYPE_TAP 2 /* IFLA_TUN_TYPE: IFF_TAP */

/* A link, as far as it matters here. */
struct link {
	int index;
	unsigned int flags; /* IFF_* of the interface */
	uint32_t mtu;
	int master;
	uint8_t mac[6];
	bool has_mac;
	bool is_tap;
	uint32_t tun_flags; /* IFF_* of TUNSETIFF */
	uint32_t queues;
};

struct request {
	struct nlmsghdr head;
	struct ifinfomsg info;
	char attributes[256];
};

static void add_attribute(struct request *q, unsigned short type, const void *data, size_t size)
{
	struct rtattr *a = (struct rtattr *)((char *)q + NLMSG_ALIGN(q->head.nlmsg_len));

	/* Requests are built from names, MACs and numbers: they always fit. */
	a->rta_type = type;
	a->rta_len = RTA_LENGTH(size);
	memcpy(RTA_DATA(a), data, size);
	q->head.nlmsg_len = NLMSG_ALIGN(q->head.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

/* Sends a request and receives its one answer. Return: bytes, or -errno (the kernel's own too). */
static ssize_t ask(struct request *q, void *buf, size_t size)
{
	cleanup_close int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	const struct timeval patience = {.tv_sec = ANSWER_SECONDS};
	const struct nlmsghdr *h = buf;
	ssize_t n;

	if (sock < 0 || setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0)
		return -errno;
	q->head.nlmsg_seq = 1;
	if (send(sock, q, q->head.nlmsg_len, 0) < 0)
		return -errno;
	n = recv(sock, buf, size, 0);
	if (n < 0)
		return -errno;
	if (!NLMSG_OK(h, (size_t)n))
		return -EBADMSG;
	if (h->nlmsg_type == NLMSG_ERROR) {
		const struct nlmsgerr *e = NLMSG_DATA(h);

		if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*e)))
			return -EBADMSG;
		return e->error;
	}
	return n;
}

static uint32_t attribute_u32(const struct rtattr *a)
{
	uint32_t v = 0;

	memcpy(&v, RTA_DATA(a), HF_MIN(sizeof(v), (size_t)RTA_PAYLOAD(a)));
	return v;
}

static void read_tun_data(const struct rtattr *data, struct link *l)
{
	int left = RTA_PAYLOAD(data);

	for (const struct rtattr *a = RTA_DATA(data); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		uint32_t v = attribute_u32(a);

		switch (a->rta_type) {
		case IFLA_TUN_TYPE:
			l->is_tap = v == TUN_TYPE_TAP;
			break;
		case IFLA_TUN_PI:
			l->tun_flags |= v ? 0 : IFF_NO_PI;
			break;
		case IFLA_TUN_VNET_HDR:
			l->tun_flags |= v ? IFF_VNET_HDR : 0;
			break;
		case IFLA_TUN_PERSIST:
			l->tun_flags |= v ? IFF_PERSIST : 0;
			break;
		case IFLA_TUN_MULTI_QUEUE:
			l->tun_flags |= v ? IFF_MULTI_QUEUE : 0;
			break;
		case IFLA_TUN_NUM_QUEUES:
			l->queues = v;
			break;
		}
	}
}

static void read_link_info(const struct rtattr *info, struct link *l)
{
	int left = RTA_PAYLOAD(info);
	bool is_tun = false;

	/* IFLA_INFO_KIND comes before the data it explains. */
	for (const struct rtattr *a = RTA_DATA(info); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == IFLA_INFO_KIND)
			is_tun = RTA_PAYLOAD(a) >= 4 && memcmp(RTA_DATA(a), "tun", 4) == 0;
		else if (a->rta_type == IFLA_INFO_DATA && is_tun)
			read_tun_data(a, l);
	}
}

/* Looks a link up by name or, when @name is NULL, by index; @ret_name has room for IFNAMSIZ. */
static int get_link(const char *name, int index, struct link *ret, char *ret_name)
{
	struct request q = {
		.head = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
			.nlmsg_type = RTM_GETLINK,
			.nlmsg_flags = NLM_F_REQUEST},
		.info = {.ifi_family = AF_UNSPEC, .ifi_index = index},
	};
	static const size_t room = 64 << 10;
	cleanup_free char *buf = calloc(1, room);
	const struct nlmsghdr *h = (void *)buf;
	struct link l = {0};
	ssize_t n;
	int left;

	if (!buf)
		return -ENOMEM;
	if (name)
		add_attribute(&q, IFLA_IFNAME, name, strlen(name) + 1);
	n = ask(&q, buf, room);
	if (n < 0)
		return n;
	if (h->nlmsg_type != RTM_NEWLINK || h->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifinfomsg)))
		return -EBADMSG;
	l.index = ((struct ifinfomsg *)NLMSG_DATA(h))->ifi_index;
	l.flags = ((struct ifinfomsg *)NLMSG_DATA(h))->ifi_flags;
	left = IFLA_PAYLOAD(h);
	for (const struct rtattr *a = IFLA_RTA(NLMSG_DATA(h)); RTA_OK(a, left);
		a = RTA_NEXT(a, left)) {
		if (a->rta_type == IFLA_MTU)
			l.mtu = attribute_u32(a);
		else if (a->rta_type == IFLA_MASTER)
			l.master = (int)attribute_u32(a);
		else if (a->rta_type == IFLA_IFNAME && ret_name)
			snprintf(ret_name, IFNAMSIZ, "%.*s", (int)RTA_PAYLOAD(a),
				(char *)RTA_DATA(a));
		else if (a->rta_type == IFLA_LINKINFO)
			read_link_info(a, &l);
		else if (a->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(a) == sizeof(l.mac)) {
			memcpy(l.mac, RTA_DATA(a), sizeof(l.mac));
			l.has_mac = true;
		}
	}
	*ret = l;
	return 0;
}

/* ---- noting ---- */

static int note_link(const struct link *l, struct hf_manifest_net *net)
{
	char text[32];
	int r;

	net->mtu = l->mtu;
	net->flags = l->tun_flags | IFF_TAP;
	if (l->queues > net->queues)
		net->queues = l->queues;
	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", l->mac[0], l->mac[1],
		l->mac[2], l->mac[3], l->mac[4], l->mac[5]);
	r = l->has_mac ? hf_manifest_set(&net->mac, text) : 0;
	if (r == 0 && l->master > 0) {
		char bridge[IFNAMSIZ] = "";
		struct link master;

		r = get_link(NULL, l->master, &master, bridge);
		if (r == 0)
			r = hf_manifest_set(&net->bridge, bridge);
	}
	return r;
}

/* Drops the guest's taps of an earlier look. */
static void forget_taps(struct hf_manifest_guest *guest)
{
	for (size_t i = 0; i < guest->n_net; i++) {
		struct hf_manifest_net *net = &guest->net[i];

		free(net->id);
		free(net->ifname);
		free(net->bridge);
		free(net->mac);
		*net = (struct hf_manifest_net){0};
	}
	guest->n_net = 0;
}

static int collect_one(
	const struct hf_cmdline_tap *tap, struct hf_manifest_guest *guest, struct hf_error *error)
{
	struct hf_manifest_net *net = hf_manifest_add_net(guest);
	struct link l;
	int r;

	if (!net)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	net->queues = tap->queues;
	net->flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (tap->queues > 1 ? IFF_MULTI_QUEUE : 0);
	r = hf_manifest_set(&net->id, tap->id ? tap->id : tap->ifname);
	if (r == 0)
		r = hf_manifest_set(&net->ifname, tap->ifname);
	if (r == 0)
		r = get_link(tap->ifname, 0, &l, NULL);
	if (r == -ENODEV)
		return 0;
	if (r == 0 && !l.is_tap)
		return 0; /* a macvtap or the like: QEMU opens it in another way */
	if (r == 0)
		r = note_link(&l, net);
	return r < 0 ? hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't look up the tap %s: %s",
			       tap->ifname, strerror(-r))
		     : 0;
}

int hf_net_note(
	struct hf_manifest_guest *guest, const char *id, const char *ifname, struct hf_error *error)
{
	const struct hf_cmdline_tap tap = {
		.id = (char *)(uintptr_t)id, .ifname = (char *)(uintptr_t)ifname, .queues = 1};

	for (size_t i = 0; i < guest->n_net; i++)
		if (guest->net[i].ifname && strcmp(guest->net[i].ifname, ifname) == 0)
			return 0;
	return collect_one(&tap, guest, error);
}

int hf_net_collect(
	const struct hf_cmdline *plan, struct hf_manifest_guest *guest, struct hf_error *error)
{
	int r = 0;

	forget_taps(guest);
	for (size_t i = 0; r == 0 && i < plan->n_taps; i++) {
		const char *name = plan->taps[i].ifname;

		/* "tap%d" is a pattern: the kernel chooses anew at every start. */
		if (name && name[0] && strlen(name) < IFNAMSIZ && !strchr(name, '%'))
			r = collect_one(&plan->taps[i], guest, error);
	}
	return r;
}

/* ---- making ---- */

static int make_tap(const struct hf_manifest_net *net, uid_t owner)
{
	struct ifreq ifr = {0};
	cleanup_close int fd = open(TUN_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", net->ifname);
	/* IFF_PERSIST is no flag of TUNSETIFF but of the answer to TUNGETIFF. */
	ifr.ifr_flags = (short)((net->flags & ~(uint32_t)IFF_PERSIST) | IFF_TAP | IFF_NO_PI);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0)
		return -errno;
	if (owner != 0 && ioctl(fd, TUNSETOWNER, (unsigned long)owner) < 0)
		return -errno;
	/* Last: what failed before leaves nothing behind. */
	return ioctl(fd, TUNSETPERSIST, 1UL) < 0 ? -errno : 0;
}

/* Sets what a new tap gets (@made), and the bridge of any. Up last, in the same request. */
static int set_link(const struct hf_manifest_net *net, const struct link *l, bool made, int bridge)
{
	struct request q = {
		.head = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
			.nlmsg_type = RTM_NEWLINK,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.info = {.ifi_family = AF_UNSPEC,
			.ifi_index = l->index,
			.ifi_flags = IFF_UP,
			.ifi_change = IFF_UP},
	};
	uint32_t master = (uint32_t)bridge;
	char answer[1024];
	uint8_t mac[6];

	if (made && net->mtu)
		add_attribute(&q, IFLA_MTU, &net->mtu, sizeof(net->mtu));
	if (made && net->mac &&
		sscanf(net->mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2],
			&mac[3], &mac[4], &mac[5]) == 6)
		add_attribute(&q, IFLA_ADDRESS, mac, sizeof(mac));
	if (bridge > 0)
		add_attribute(&q, IFLA_MASTER, &master, sizeof(master));
	return (int)ask(&q, answer, sizeof(answer));
}

static int restore_one(const struct hf_manifest_net *net, uid_t owner, bool wait_for_bridge,
	struct hf_error *error)
{
	struct link l, bridge = {0};
	bool made = false;
	int r;

	if (net->fd >= 0)
		return hf_error_set(error, -EOPNOTSUPP, HF_ERR_FAILED,
			"let QEMU open the tap by name (ifname=)",
			"the tap %s came to QEMU as a file descriptor", net->ifname);
	if (net->bridge) {
		r = get_link(net->bridge, 0, &bridge, NULL);
		if (r == -ENODEV && !wait_for_bridge)
			r = 0;
		if (r == -ENODEV)
			return hf_error_set(error, -EAGAIN, HF_ERR_FAILED,
				"set up the host's network", "the bridge %s of tap %s is not there",
				net->bridge, net->ifname);
		if (r < 0)
			goto failed;
	}
	r = get_link(net->ifname, 0, &l, NULL);
	if (r == -ENODEV) {
		r = make_tap(net, owner);
		made = r == 0;
		if (r == 0)
			r = get_link(net->ifname, 0, &l, NULL);
	}
	if (r < 0)
		goto failed;
	if (made || (bridge.index > 0 && l.master != bridge.index)) {
		r = set_link(net, &l, made, bridge.index);
		if (r < 0)
			goto failed;
	}
	return 0;

failed:
	return hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't make the tap %s: %s", net->ifname,
		strerror(-r));
}

int hf_net_restore(const struct hf_manifest_guest *guest, struct hf_error *error)
{
	for (size_t i = 0; i < guest->n_net; i++) {
		int r = restore_one(&guest->net[i], guest->uid, !hf_guest_is_libvirt(guest), error);

		if (r < 0)
			return r;
	}
	return 0;
}
