/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: a bare kexec
 *
 * Loads a kernel and jumps into it with nothing else done: the yardstick for what a live update
 * adds.
 *
 *   hf-kexec KERNEL COMMANDLINE
 *   hf-kexec --unload     whatever is loaded
 *   hf-kexec --jump       into whatever is loaded
 *
 * The last thing before reboot(2) is a line "hf-kexec: tsc N" on the console; the console's log is
 * the only place that outlives the jump.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

static int jump(void)
{
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	fprintf(stderr, "hf-kexec: reboot: %s\n", strerror(errno));
	return 1;
}

int main(int argc, char *argv[])
{
	int kernel, console;

	if (argc == 2 && strcmp(argv[1], "--unload") == 0) {
		if (syscall(SYS_kexec_file_load, -1, -1, 1UL, "",
			    (unsigned long)KEXEC_FILE_UNLOAD) == 0)
			return 0;
		fprintf(stderr, "hf-kexec: kexec_file_load: %s\n", strerror(errno));
		return 1;
	}
	if (argc == 2 && strcmp(argv[1], "--jump") == 0)
		return jump();
	if (argc != 3) {
		fprintf(stderr, "usage: hf-kexec KERNEL COMMANDLINE | --unload | --jump\n");
		return 2;
	}
	kernel = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (kernel < 0) {
		fprintf(stderr, "hf-kexec: open %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	if (syscall(SYS_kexec_file_load, kernel, -1, strlen(argv[2]) + 1, argv[2],
		    KEXEC_FILE_NO_INITRAMFS) < 0) {
		fprintf(stderr, "hf-kexec: kexec_file_load: %s\n", strerror(errno));
		return 1;
	}
	console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (console < 0) {
		fprintf(stderr, "hf-kexec: open /dev/console: %s\n", strerror(errno));
		return 1;
	}
	sync();
	dprintf(console, "hf-kexec: tsc %llu\n", (unsigned long long)__rdtsc());
	return jump();
}
