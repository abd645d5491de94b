/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "vmm-glue/cmdline-internal.h"

struct known {
	const char *name;
	enum hf_option_kind kind;
	unsigned int flags;
};

#define ARG HF_OPTION_HAS_ARG
#define HELP (HF_OPTION_HAS_ARG | HF_OPTION_HAS_HELP)

/*
 * All options of the system emulators of QEMU 7.2 to 11.1 (qemu-options.hx of each), sorted. No
 * option ever changed between taking a value and taking none.
 */
static const struct known table[] = {
	{"D", HF_OPTION_PLAIN, ARG},
	{"L", HF_OPTION_PLAIN, HELP},
	{"M", HF_OPTION_MACHINE, HELP},
	{"S", HF_OPTION_S, 0},
	{"accel", HF_OPTION_ACCEL, HELP},
	{"acpitable", HF_OPTION_PLAIN, ARG},
	{"action", HF_OPTION_PLAIN, ARG},
	{"add-fd", HF_OPTION_ADD_FD, ARG},
	{"append", HF_OPTION_PLAIN, ARG},
	{"async-teardown", HF_OPTION_PLAIN, 0},
	{"audio", HF_OPTION_PLAIN, HELP},
	{"audio-help", HF_OPTION_PROBE, 0},
	{"audiodev", HF_OPTION_PLAIN, HELP},
	{"bios", HF_OPTION_PLAIN, ARG},
	{"blockdev", HF_OPTION_DRIVE, ARG},
	{"boot", HF_OPTION_PLAIN, ARG},
	{"cdrom", HF_OPTION_PLAIN, ARG},
	{"chardev", HF_OPTION_CHARDEV, HELP},
	{"chroot", HF_OPTION_PLAIN, ARG},
	{"compat", HF_OPTION_PLAIN, ARG},
	{"cpu", HF_OPTION_PLAIN, HELP},
	{"d", HF_OPTION_PLAIN, HELP},
	{"daemonize", HF_OPTION_DAEMONIZE, 0},
	{"debugcon", HF_OPTION_CHARSTREAM, ARG},
	{"device", HF_OPTION_DEVICE, HELP},
	{"dfilter", HF_OPTION_PLAIN, ARG},
	{"display", HF_OPTION_DISPLAY, HELP},
	{"drive", HF_OPTION_DRIVE, HELP},
	{"dtb", HF_OPTION_PLAIN, ARG},
	{"dump-vmstate", HF_OPTION_PROBE, ARG},
	{"echr", HF_OPTION_PLAIN, ARG},
	{"enable-kvm", HF_OPTION_ENABLE_KVM, 0},
	{"enable-sync-profile", HF_OPTION_PLAIN, 0},
	{"fda", HF_OPTION_PLAIN, ARG},
	{"fdb", HF_OPTION_PLAIN, ARG},
	{"fsdev", HF_OPTION_FSDEV, ARG},
	{"full-screen", HF_OPTION_PLAIN, 0},
	{"fw_cfg", HF_OPTION_PLAIN, ARG},
	{"g", HF_OPTION_PLAIN, ARG},
	{"gdb", HF_OPTION_CHARSTREAM, ARG},
	{"global", HF_OPTION_GLOBAL, ARG},
	{"h", HF_OPTION_PROBE, 0},
	{"hda", HF_OPTION_PLAIN, ARG},
	{"hdb", HF_OPTION_PLAIN, ARG},
	{"hdc", HF_OPTION_PLAIN, ARG},
	{"hdd", HF_OPTION_PLAIN, ARG},
	{"help", HF_OPTION_PROBE, 0},
	{"icount", HF_OPTION_PLAIN, ARG},
	{"incoming", HF_OPTION_INCOMING, ARG},
	{"initrd", HF_OPTION_PLAIN, ARG},
	{"iscsi", HF_OPTION_PLAIN, ARG},
	{"jitdump", HF_OPTION_PLAIN, 0},
	{"k", HF_OPTION_PLAIN, HELP},
	{"kernel", HF_OPTION_PLAIN, ARG},
	{"loadvm", HF_OPTION_LOADVM, ARG},
	{"m", HF_OPTION_MEMORY, HELP},
	{"machine", HF_OPTION_MACHINE, HELP},
	{"mem-path", HF_OPTION_MEM_PATH, ARG},
	{"mem-prealloc", HF_OPTION_MEM_PREALLOC, 0},
	{"mon", HF_OPTION_MON, ARG},
	{"monitor", HF_OPTION_MONITOR, ARG},
	{"msg", HF_OPTION_PLAIN, ARG},
	{"mtdblock", HF_OPTION_PLAIN, ARG},
	{"name", HF_OPTION_NAME, ARG},
	{"net", HF_OPTION_NET, HELP},
	{"netdev", HF_OPTION_NETDEV, HELP},
	{"nic", HF_OPTION_NET, HELP},
	{"no-acpi", HF_OPTION_PLAIN, 0},
	{"no-fd-bootchk", HF_OPTION_PLAIN, 0},
	{"no-hpet", HF_OPTION_PLAIN, 0},
	{"no-reboot", HF_OPTION_PLAIN, 0},
	{"no-shutdown", HF_OPTION_PLAIN, 0},
	{"no-user-config", HF_OPTION_PLAIN, 0},
	{"nodefaults", HF_OPTION_NODEFAULTS, 0},
	{"nographic", HF_OPTION_NOGRAPHIC, 0},
	{"numa", HF_OPTION_NUMA, ARG},
	{"object", HF_OPTION_OBJECT, HELP},
	{"old-param", HF_OPTION_PLAIN, 0},
	{"only-migratable", HF_OPTION_PLAIN, 0},
	{"option-rom", HF_OPTION_PLAIN, ARG},
	{"overcommit", HF_OPTION_OVERCOMMIT, ARG},
	{"parallel", HF_OPTION_CHARSTREAM, ARG},
	{"perfmap", HF_OPTION_PLAIN, 0},
	{"pflash", HF_OPTION_PLAIN, ARG},
	{"pidfile", HF_OPTION_PLAIN, ARG},
	{"plugin", HF_OPTION_PLAIN, ARG},
	{"portrait", HF_OPTION_PLAIN, 0},
	{"preconfig", HF_OPTION_PRECONFIG, 0},
	{"prom-env", HF_OPTION_PLAIN, ARG},
	{"qmp", HF_OPTION_MONITOR, ARG},
	{"qmp-pretty", HF_OPTION_MONITOR, ARG},
	{"qtest", HF_OPTION_CHARSTREAM, ARG},
	{"qtest-log", HF_OPTION_PLAIN, ARG},
	{"readconfig", HF_OPTION_READCONFIG, ARG},
	{"rotate", HF_OPTION_PLAIN, ARG},
	{"rtc", HF_OPTION_PLAIN, ARG},
	{"run-with", HF_OPTION_PLAIN, ARG},
	{"runas", HF_OPTION_PLAIN, ARG},
	{"s", HF_OPTION_PLAIN, 0},
	{"sandbox", HF_OPTION_PLAIN, ARG},
	{"sd", HF_OPTION_PLAIN, ARG},
	{"seed", HF_OPTION_PLAIN, ARG},
	{"semihosting", HF_OPTION_PLAIN, 0},
	{"semihosting-config", HF_OPTION_PLAIN, ARG},
	{"serial", HF_OPTION_CHARSTREAM, ARG},
	{"set", HF_OPTION_SET, ARG},
	{"shim", HF_OPTION_PLAIN, ARG},
	{"singlestep", HF_OPTION_PLAIN, 0},
	{"smbios", HF_OPTION_PLAIN, ARG},
	{"smp", HF_OPTION_PLAIN, HELP},
	{"snapshot", HF_OPTION_SNAPSHOT, 0},
	{"spice", HF_OPTION_PLAIN, ARG},
	{"tpmdev", HF_OPTION_TPMDEV, HELP},
	{"trace", HF_OPTION_PLAIN, HELP},
	{"usb", HF_OPTION_PLAIN, 0},
	{"usbdevice", HF_OPTION_PLAIN, ARG},
	{"uuid", HF_OPTION_UUID, ARG},
	{"version", HF_OPTION_PROBE, 0},
	{"vga", HF_OPTION_PLAIN, HELP},
	{"virtfs", HF_OPTION_FSDEV, ARG},
	{"vnc", HF_OPTION_PLAIN, ARG},
	{"watchdog-action", HF_OPTION_PLAIN, ARG},
	{"win2k-hack", HF_OPTION_PLAIN, 0},
	{"xen-attach", HF_OPTION_XEN, 0},
	{"xen-domid", HF_OPTION_XEN, ARG},
	{"xen-domid-restrict", HF_OPTION_XEN, 0},
};

static const struct known *find(const char *name)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(table); i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

bool hf_option_next(char *const *argv, size_t n, size_t *pos, struct hf_option *ret)
{
	size_t i = *pos;
	const struct known *k;
	const char *s;

	if (i >= n)
		return false;
	s = argv[i];
	*ret = (struct hf_option){.value = "", .arg = i, .value_arg = i};
	*pos = i + 1;
	if (*s != '-') {
		ret->kind = HF_OPTION_IMAGE;
		ret->name = s;
		return true;
	}
	/* --option is the same as -option. */
	ret->name = s + (s[1] == '-' ? 2 : 1);
	k = find(ret->name);
	if (!k) {
		ret->kind = HF_OPTION_UNKNOWN;
		return true;
	}
	ret->kind = k->kind;
	ret->flags = k->flags;
	if (!(k->flags & HF_OPTION_HAS_ARG))
		return true;
	if (i + 1 >= n) {
		ret->kind = HF_OPTION_MISSING;
		return true;
	}
	ret->value = argv[i + 1];
	ret->value_arg = i + 1;
	*pos = i + 2;
	return true;
}
