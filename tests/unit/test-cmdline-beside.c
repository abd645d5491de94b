/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Command lines that two QEMUs can't have at once, and the sockets of those they can. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm-glue/sockets-aside.h"

#define MAX_ARGS 32

struct row {
	const char *args;  /* behind qemu-system-x86_64 */
	const char *paths; /* that it listens on, with spaces between, or "taps"; NULL: refused */
	const char *says;  /* part of the refusal */
};

static const struct row rows[] = {
	{"-m 64", "", NULL},
	{"-drive file=d.img,if=virtio -device virtio-rng-pci -object rng-random,id=r", "", NULL},
	{"-qmp unix:/run/a.sock,server=on,wait=off -monitor unix:b,server,nowait", "/run/a.sock b",
		NULL},
	{"-serial mon:stdio -parallel none -debugcon file:/tmp/log", "", NULL},
	{"-chardev socket,id=c,path=/run/c,,c,server=on,wait=off -serial chardev:c", "/run/c,c",
		NULL},
	{"-chardev pty,id=p -chardev file,id=f,path=/tmp/x -chardev vc,id=v", "", NULL},
	{"-vnc none -netdev user,id=n -nic user,model=e1000", "", NULL},
	{"-vnc unix:/run/vnc,password=on", "/run/vnc", NULL},
	{"-display none -nodefaults", "", NULL},
	{"-netdev tap,id=n,ifname=tap0,script=no,vhost=on", "taps", NULL},
	{"-netdev {\"type\":\"tap\",\"id\":\"n\",\"ifname\":\"t\",\"queues\":1}", "taps", NULL},
	{"-netdev tap,id=n", NULL, "the name of its tap is not known: -netdev"},
	{"-netdev tap,id=n,ifname=tap%d", NULL, "the name of its tap is not known"},
	{"-netdev tap,id=n,ifname=tap0,helper=/bin/h", NULL, "the name of its tap is not known"},
	{"-netdev tap,id=n,ifname=tap0,queues=2", NULL, "each queue of a tap has one user"},
	{"-netdev tap,id=n,fd=5", NULL, "its descriptor came from elsewhere"},
	{"-netdev tap,id=n,ifname=tap0,vhostfd=5", NULL, "its descriptor came from elsewhere"},
	{"-net tap,ifname=tap0", NULL, "a network backend has one user: -net "},
	{"-nic bridge,br=br0", NULL, "a network backend"},
	{"-netdev user,id=n,hostfwd=tcp::2222-:22", NULL, "a port has one user"},
	{"-netdev something-new,id=n", NULL, "a network backend"},
	{"-pidfile /run/g.pid", NULL, "QEMU locks that file: -pidfile /run/g.pid"},
	{"-vnc :1", NULL, "a port has one user: -vnc :1"},
	{"-display vnc=:1", NULL, "a port has one user"},
	{"-spice port=5900", NULL, "a port has one user"},
	{"-s", NULL, "a port has one user"},
	{"-gdb tcp::1234", NULL, "a port or device has one user"},
	{"-serial tcp::4444,server=on", NULL, "a port or device"},
	{"-serial /dev/ttyS0", NULL, "a port or device"},
	{"-serial unix:/run/a.sock", NULL, "has one client"},
	{"-chardev socket,id=c,path=/run/swtpm", NULL, "has one client"},
	{"-chardev socket,id=c,host=::,port=1,server=on", NULL, "a port has one user"},
	{"-chardev socket,id=c,path=x,abstract=on,server=on", NULL, "an abstract socket"},
	{"-chardev udp,id=c,port=1", NULL, "a port or device"},
	{"-chardev something-new,id=c", NULL, "a port or device"},
	{"-device vhost-vsock-pci,guest-cid=3", NULL, "a device of the host"},
	{"-device usb-host,vendorid=1", NULL, "a device of the host"},
	{"-usbdevice host:1.2", NULL, "a device of the host"},
	{"-object input-linux,id=k,evdev=/dev/input/event0", NULL, "a device of the host"},
	{"-drive driver=nvme,device=0000:01:00.0,if=none", NULL, "a device of the host"},
};

static void test_rows(void **state)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		cleanup_beside_paths struct hf_beside_paths paths = {0};
		cleanup_cmdline struct hf_cmdline *plan = NULL;
		cleanup_free char *text = strdup(rows[i].args);
		const char *argv[MAX_ARGS] = {"qemu-system-x86_64"};
		struct hf_error e = {0};
		char found[256] = "";
		size_t n = 1;
		int r;

		for (char *s = strtok(text, " "); s; s = strtok(NULL, " "))
			argv[n++] = s;
		assert_int_equal(hf_cmdline_parse(argv, n, &plan, &e), 0);
		r = hf_cmdline_beside(plan, &paths, &e);
		if (!rows[i].paths) {
			if (r != -EOPNOTSUPP || !strstr(e.message, rows[i].says))
				fail_msg("%s: %s", rows[i].args, e.message);
			assert_true(e.remedy[0] != 0);
			continue;
		}
		if (r != 0)
			fail_msg("%s: %s", rows[i].args, e.message);
		for (size_t k = 0; k < paths.n; k++)
			snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s%s",
				k ? " " : "", paths.v[k]);
		if (paths.taps)
			snprintf(found, sizeof(found), "taps");
		assert_string_equal(found, rows[i].paths);
	}
}

/* ---- their names ---- */

static char folder[] = "/tmp/holdfast-beside-XXXXXX";

static int listen_at(const char *name)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", folder, name);
	unlink(addr.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

/* Who is behind a name? */
static ino_t behind(const char *name)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return lstat(path, &st) == 0 ? st.st_ino : 0;
}

static void test_names(void **state)
{
	char path[128], dir[128], relative[] = "b.sock";
	char *names[] = {path, relative}, *other[] = {path, dir};
	struct hf_beside_paths paths = {.v = names, .n = 2}, wrong = {.v = other, .n = 2};
	struct hf_manifest_guest guest = {.cwd = folder, .uid = getuid()};
	struct hf_error e = {0};
	ino_t first, second;
	int old, new;

	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/a.sock", folder);
	/* One absolute, one in the guest's folder, which isn't there. */
	old = listen_at("a.sock");
	first = behind("a.sock");
	assert_int_equal(hf_sockets_put_aside(&guest, &paths, &e), 0);
	assert_int_equal(behind("a.sock"), 0);
	assert_int_equal(behind("a.sock.holdfast-old"), first);
	new = listen_at("a.sock");
	second = behind("a.sock");
	/* It failed. Once more does no harm. */
	hf_sockets_put_back(&guest, &paths);
	hf_sockets_put_back(&guest, &paths);
	assert_int_equal(behind("a.sock"), first);
	assert_int_equal(behind("a.sock.holdfast-old"), 0);
	/* It works. */
	close(new);
	assert_int_equal(hf_sockets_put_aside(&guest, &paths, &e), 0);
	new = listen_at("a.sock");
	second = behind("a.sock");
	hf_sockets_forget(&guest, &paths);
	hf_sockets_put_back(&guest, &paths);
	assert_int_equal(behind("a.sock"), second);
	assert_int_equal(behind("a.sock.holdfast-old"), 0);
	/* What isn't a socket, or not the guest's, is nobody's business; nothing is half done. */
	snprintf(dir, sizeof(dir), "%s/file", folder);
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(hf_sockets_put_aside(&guest, &wrong, &e), -EPERM);
	assert_non_null(strstr(e.message, "file"));
	assert_int_equal(behind("a.sock"), second);
	guest.uid = getuid() + 1;
	assert_int_equal(hf_sockets_put_aside(&guest, &paths, &e), -EPERM);
	assert_int_equal(behind("a.sock"), second);
	close(old);
	close(new);
	rmdir(dir);
	unlink(path);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
