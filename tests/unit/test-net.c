/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Taps that are noted, lost and made anew, in a network namespace of the test's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/fd.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/net.h"

static struct hf_manifest *manifest;
static struct hf_manifest_guest *guest;

static void ip(const char *command)
{
	char line[256];

	snprintf(line, sizeof(line), "ip %s", command);
	if (system(line) != 0)
		fail_msg("%s", line);
}

/* Whether `ip -d link show NAME` has all of the words; ", " lies between two of them. */
static bool link_has(const char *name, const char *words)
{
	char line[128], text[4096], word[128];
	size_t n;
	FILE *f;

	snprintf(line, sizeof(line), "ip -d link show %s 2>/dev/null", name);
	f = popen(line, "r");
	assert_non_null(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = 0;
	pclose(f);
	while (*words) {
		snprintf(word, sizeof(word), "%.*s", (int)strcspn(words, ","), words);
		if (!strstr(text, word)) {
			print_message("    no `%s` in: %s\n", word, text);
			return false;
		}
		words += strcspn(words, ",");
		words += strspn(words, ", ");
	}
	return true;
}

static void collect(const char *netdev)
{
	const char *const argv[] = {"qemu-system-x86_64", "-m", "64", "-netdev", netdev};
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	struct hf_error e = {0};

	assert_int_equal(hf_cmdline_parse(argv, HF_ARRAY_SIZE(argv), &plan, &e), 0);
	if (hf_net_collect(plan, guest, &e) < 0)
		fail_msg("%s", e.message);
}

static int restore(struct hf_error *e)
{
	hf_error_clear(e);
	return hf_net_restore(guest, e);
}

static void test_round_trip(void **state)
{
	struct hf_error e;

	ip("link add br7 type bridge");
	ip("tuntap add dev tap7 mode tap user 65534 vnet_hdr");
	ip("link set tap7 address 52:54:00:aa:bb:07 mtu 1450 master br7 up");
	collect("tap,id=n0,ifname=tap7,script=no,downscript=no");
	assert_int_equal(guest->n_net, 1);
	assert_string_equal(guest->net[0].id, "n0");
	assert_string_equal(guest->net[0].ifname, "tap7");
	assert_string_equal(guest->net[0].bridge, "br7");
	assert_string_equal(guest->net[0].mac, "52:54:00:aa:bb:07");
	assert_int_equal(guest->net[0].mtu, 1450);
	assert_int_equal(
		guest->net[0].flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE),
		IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);

	/* A new kernel: nothing is there but the bridge, later. */
	ip("link del tap7");
	ip("link del br7");
	assert_int_equal(restore(&e), -EAGAIN);
	assert_non_null(strstr(e.message, "br7"));
	assert_int_equal(if_nametoindex("tap7"), 0);
	ip("link add br7 type bridge");
	guest->uid = 65534;
	if (restore(&e) < 0)
		fail_msg("%s", e.message);
	assert_true(
		link_has("tap7", "mtu 1450, master br7, 52:54:00:aa:bb:07, tun type tap, pi off, "
				 "vnet_hdr on, persist on, user nobody, UP"));
	/* Once more changes nothing. */
	assert_int_equal(restore(&e), 0);
	assert_true(link_has("tap7", "mtu 1450, master br7"));
	guest->uid = 0;
	ip("link del tap7");
	ip("link del br7");
}

/* What is there is somebody's work: only the bridge is seen to. */
static void test_existing(void **state)
{
	struct hf_error e;

	ip("link add br8 type bridge");
	ip("link add br9 type bridge");
	ip("tuntap add dev tap8 mode tap");
	ip("link set tap8 mtu 1400 master br8");
	collect("tap,id=n0,ifname=tap8,script=no,downscript=no");
	ip("link set tap8 mtu 1300 master br9");
	assert_int_equal(restore(&e), 0);
	assert_true(link_has("tap8", "mtu 1300, master br8"));
	ip("link set tap8 nomaster");
	assert_int_equal(restore(&e), 0);
	assert_true(link_has("tap8", "master br8"));
	ip("link del tap8");
	ip("link del br8");
	ip("link del br9");
}

static void test_multi_queue(void **state)
{
	struct hf_error e;

	ip("tuntap add dev tap10 mode tap multi_queue vnet_hdr");
	collect("tap,id=n0,ifname=tap10,script=no,downscript=no,queues=4");
	assert_null(guest->net[0].bridge);
	assert_int_equal(guest->net[0].queues, 4);
	ip("link del tap10");
	assert_int_equal(restore(&e), 0);
	assert_true(link_has("tap10", "multi_queue"));
	ip("link del tap10");
}

/* As QEMU does it: the tap that was made can be opened by name, with its own set of flags. */
static void test_opened_by_name(void **state)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	struct hf_error e;
	int fd;

	/* Made by QEMU itself: it is gone with it, and nothing is known but the command line. */
	collect("tap,id=n0,ifname=tap11,script=no,downscript=no");
	assert_int_equal(guest->n_net, 1);
	assert_int_equal(restore(&e), 0);
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "tap11");
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	/* In use: noted, left alone. */
	collect("tap,id=n0,ifname=tap11,script=no,downscript=no");
	assert_int_equal(restore(&e), 0);
	close(fd);
	ip("link del tap11");
}

static void test_left_out(void **state)
{
	struct hf_error e;

	collect("user,id=n0");
	assert_int_equal(guest->n_net, 0);
	collect("tap,id=n0,ifname=tap%d,script=no,downscript=no");
	assert_int_equal(guest->n_net, 0);
	assert_int_equal(restore(&e), 0);
	/* A name that something else has: not ours to touch. */
	ip("tuntap add dev dum0 mode tun");
	collect("tap,id=n0,ifname=dum0,script=no,downscript=no");
	assert_int_equal(restore(&e), 0);
	ip("link del dum0");
}

static void test_no_bridge(void **state)
{
	struct hf_error e;

	/* The name of the bridge belongs to what is none. */
	ip("link add br12 type bridge");
	ip("tuntap add dev tap12 mode tap");
	ip("link set tap12 master br12");
	collect("tap,id=n0,ifname=tap12,script=no,downscript=no");
	ip("link del tap12");
	ip("link del br12");
	ip("tuntap add dev br12 mode tun");
	assert_true(restore(&e) < 0);
	assert_int_not_equal(e.err, -EAGAIN);
	assert_non_null(strstr(e.message, "tap12"));
	ip("link del br12");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_existing),
		cmocka_unit_test(test_multi_queue),
		cmocka_unit_test(test_opened_by_name),
		cmocka_unit_test(test_left_out),
		cmocka_unit_test(test_no_bridge),
	};
	int r;

	if (unshare(CLONE_NEWNET) < 0) {
		print_message("network namespaces need root\n");
		return 77;
	}
	if (access("/dev/net/tun", R_OK | W_OK) < 0) {
		print_message("no /dev/net/tun here\n");
		return 77;
	}
	if (hf_manifest_new(&manifest) < 0 || hf_manifest_add_guest(manifest, &guest) < 0)
		return 1;
	cmocka_set_message_output(CM_OUTPUT_STDOUT);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	hf_manifest_free(manifest);
	return r;
}
