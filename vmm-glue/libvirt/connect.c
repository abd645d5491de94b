/* SPDX-License-Identifier: Apache-2.0 */
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <signal.h>
#include <string.h>

#include "vmm-glue/libvirt/verbs.h"

/* One call is one change: libvirt makes it as a whole, should it get to it at all. */
static void give_up(int sig)
{
	static const char text[] = "holdfast: libvirt does not answer\n"
				   "  see whether its daemon (libvirtd or virtqemud) is stuck; "
				   "what it was asked for last "
				   "may still be done\n";
	ssize_t n = write(STDERR_FILENO, text, sizeof(text) - 1);

	_exit(n < 0 ? HF_LIBVIRT_FAILED : HF_LIBVIRT_NOT_READY);
}

void hf_libvirt_patience(void)
{
	alarm(HF_LIBVIRT_PATIENCE_S);
}

void hf_libvirt_no_hurry(void)
{
	alarm(0);
}

/* Errors are reported by whoever made the call, and once. */
static void say_nothing(void *data, virErrorPtr error)
{
}

int hf_libvirt_error(struct hf_error *e, const char *what)
{
	const virError *last = virGetLastError();
	int code = last ? last->code : VIR_ERR_INTERNAL_ERROR;
	const char *message = last && last->message ? last->message : "no reason given";

	switch (code) {
	case VIR_ERR_NO_DOMAIN:
		return hf_error_set(e, -ENOENT, HF_ERR_NO_GUEST, "see: virsh list --all", "%s: %s",
			what, message);
	case VIR_ERR_AUTH_FAILED:
	case VIR_ERR_AUTH_CANCELLED:
	case VIR_ERR_AUTH_UNAVAILABLE:
	case VIR_ERR_ACCESS_DENIED:
	case VIR_ERR_OPERATION_DENIED:
		return hf_error_set(e, -EACCES, HF_ERR_NOT_PERMITTED, "run it as root", "%s: %s",
			what, message);
	case VIR_ERR_SYSTEM_ERROR:
	case VIR_ERR_NO_CONNECT:
		return hf_error_set(e, -ENOTCONN, HF_ERR_NOT_READY,
			"see whether libvirt's daemon (libvirtd or virtqemud) runs", "%s: %s", what,
			message);
	default:
		return hf_error_set(e, -EIO, HF_ERR_FAILED, NULL, "%s: %s", what, message);
	}
}

int hf_libvirt_connect(const char *uri, struct _virConnect **ret, struct hf_error *e)
{
	struct sigaction action = {.sa_handler = give_up};
	virConnectPtr conn;
	const char *type;

	sigaction(SIGALRM, &action, NULL);
	hf_libvirt_patience();
	virSetErrorFunc(NULL, say_nothing);
	conn = virConnectOpen(uri ? uri : HF_LIBVIRT_URI);
	if (!conn)
		return hf_libvirt_error(e, "can't connect to libvirt");
	type = virConnectGetType(conn);
	/* "TEST" is the driver that libvirt has for trying programs out: it runs nothing. */
	if (!type || (strcmp(type, "QEMU") != 0 && strcmp(type, "TEST") != 0)) {
		virConnectClose(conn);
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID, "use qemu:///system",
			"%s is not libvirt's QEMU driver", uri ? uri : HF_LIBVIRT_URI);
	}
	hf_libvirt_patience();
	*ret = conn;
	return 0;
}
