/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Getting hold of a running QEMU, asking it what it is; and ending it.
 */
#include <stdio.h>
#include <string.h>

#include "vmm-glue/cmdline.h"
#include "vmm-glue/inherited.h"
#include "vmm-glue/limits.h"
#include "vmm-glue/net.h"
#include "vmm-glue/vmm-internal.h"

#define MIB (1024u * 1024u)
#define MAX_BLOCKS 512
#define QEMU_DEFAULT_DOWNTIME_MS 300

/* The guest's own RAM: by object id, or as machine types before 4.1 call it. */
static bool is_preserved(const struct hf_manifest_guest *guest, const char *block)
{
	if (strncmp(block, "/objects/", 9) == 0)
		block += 9;
	for (size_t i = 0; i < guest->n_ram; i++)
		if (guest->ram[i].id && strcmp(guest->ram[i].id, block) == 0)
			return true;
	return false;
}

/*
 * Every other RAM block (firmware, ROMs, ACPI tables, video memory) is in the stream whole unless
 * its pages are zero; devices and vCPUs add some hundred KiB.
 */
static uint64_t estimate_state(uint64_t other_ram_bytes)
{
	uint64_t bytes = other_ram_bytes + other_ram_bytes / 2 + MIB;

	return (bytes + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
}

/* What is on the way of the guest out is only known here: its taps, in full, and its limits. */
static int inventory(struct hf_vmm *vmm, struct hf_error *error)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	struct hf_error e = {0};
	int r;

	vmm->warning[0] = 0;
	if (hf_limits_read(hf_child_pid(vmm->child), &vmm->guest->limits, &e) < 0) {
		hf_error_prefix(&e, "a new QEMU will not be limited as this one is");
		snprintf(vmm->warning, sizeof(vmm->warning), "%s", e.message);
	}
	r = hf_cmdline_of_guest(vmm->guest, &plan, error);
	if (r < 0)
		return r;
	r = hf_libvirt_check_memfds(vmm->guest, hf_child_pid(vmm->child), error);
	if (r == 0)
		r = hf_net_collect(plan, vmm->guest, error);
	return r < 0 ? r : hf_inherited_collect(plan, hf_child_pid(vmm->child), vmm->guest, error);
}

static void finish_attach(struct hf_vmm *vmm)
{
	vmm->attached = true;
	hf_vmm_end(vmm);
}

static void one_answered(struct hf_vmm *vmm)
{
	struct hf_error e = {0};
	int r;

	if (--vmm->n_replies > 0)
		return;
	vmm->probe.state_estimate_bytes = estimate_state(vmm->other_ram_bytes);
	r = inventory(vmm, &e);
	if (r == 0 && vmm->want_profile)
		r = hf_vmm_load_profile(vmm, finish_attach, &e);
	if (r < 0)
		hf_vmm_fail(vmm, &e);
	else if (r == 0)
		finish_attach(vmm);
}

static void malformed(struct hf_vmm *vmm, const char *what, int r)
{
	hf_vmm_failf(vmm, r, NULL, "QEMU's answer to %s makes no sense: %s", what, strerror(-r));
}

static void on_status(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	const struct hf_qmp_version *v = hf_qmp_get_version(q);
	struct hf_qmp_status status;
	int r;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	r = hf_qmp_parse_status(ret, &status);
	if (r == 0)
		r = hf_manifest_set(&vmm->guest->status, status.name);
	if (r < 0) {
		malformed(vmm, "query-status", r);
		return;
	}
	snprintf(vmm->probe.status, sizeof(vmm->probe.status), "%s", status.name);
	vmm->probe.running = vmm->guest->was_running = status.running;
	vmm->probe.version = *v;
	vmm->guest->qemu_version[0] = v->major;
	vmm->guest->qemu_version[1] = v->minor;
	vmm->guest->qemu_version[2] = v->micro;
	one_answered(vmm);
}

static void on_machine(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	static const char suffix[] = "-machine";
	struct hf_vmm *vmm = data;
	const char *type;
	size_t size;
	int r;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	r = hf_qmp_parse_text(ret, &type, &size);
	if (r == 0 && size > sizeof(suffix) - 1 &&
		strcmp(type + size - sizeof(suffix) + 1, suffix) == 0)
		size -= sizeof(suffix) - 1;
	if (r == 0 && size >= sizeof(vmm->probe.machine_type))
		r = -EBADMSG;
	if (r < 0) {
		malformed(vmm, "qom-get /machine type", r);
		return;
	}
	snprintf(vmm->probe.machine_type, sizeof(vmm->probe.machine_type), "%.*s", (int)size, type);
	/* The command line may say "q35", which a newer QEMU takes for a newer machine. */
	if (hf_manifest_set(&vmm->guest->machine, vmm->probe.machine_type) < 0)
		malformed(vmm, "qom-get /machine type", -ENOMEM);
	else
		one_answered(vmm);
}

static void add_blocker(struct hf_vmm_probe *probe, const char *text)
{
	if (probe->n_blockers < HF_ARRAY_SIZE(probe->blockers))
		snprintf(probe->blockers[probe->n_blockers++], sizeof(probe->blockers[0]), "%.*s",
			(int)sizeof(probe->blockers[0]) - 1, text);
}

static void on_migration(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_migration m;
	int r;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	r = hf_qmp_parse_migration(ret, &m);
	if (r < 0) {
		malformed(vmm, "query-migrate", r);
		return;
	}
	if (m.status != HF_QMP_MIGRATION_NONE && !hf_qmp_migration_over(m.status))
		vmm->probe.migrating = true;
	for (size_t i = 0; i < m.n_blockers && i < HF_ARRAY_SIZE(m.blockers); i++)
		add_blocker(&vmm->probe, m.blockers[i]);
	one_answered(vmm);
}

static void on_devices(struct hf_vmm *vmm, const char *why)
{
	if (why[0])
		add_blocker(&vmm->probe, why);
	one_answered(vmm);
}

static void on_capabilities(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	int r;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	r = hf_qmp_parse_capability(ret, "x-ignore-shared", &vmm->old_ignore_shared);
	if (r == -ENOENT) {
		hf_vmm_failf(vmm, -EOPNOTSUPP, "use QEMU 7.2 or newer",
			"this QEMU can't leave RAM out of the device state (x-ignore-shared)");
		return;
	}
	if (r == 0)
		r = hf_qmp_parse_capability(ret, "events", &vmm->old_events);
	if (r < 0)
		malformed(vmm, "query-migrate-capabilities", r);
	else
		one_answered(vmm);
}

static void on_parameters(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_migrate_parameters p;
	int r;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	r = hf_qmp_parse_migrate_parameters(ret, &p);
	if (r == 0 && !p.has_max_bandwidth)
		r = -EBADMSG;
	if (r < 0) {
		malformed(vmm, "query-migrate-parameters", r);
		return;
	}
	vmm->old_max_bandwidth = p.max_bandwidth;
	vmm->old_downtime_ms =
		p.has_downtime_limit ? p.downtime_limit_ms : QEMU_DEFAULT_DOWNTIME_MS;
	one_answered(vmm);
}

static void on_ramblocks(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	cleanup_free struct hf_qmp_ramblock *blocks = calloc(MAX_BLOCKS, sizeof(*blocks));
	const char *text;
	size_t size, n = 0, n_found = 0;
	int r;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	r = blocks ? hf_qmp_parse_text(ret, &text, &size) : -ENOMEM;
	if (r == 0)
		r = hf_qmp_parse_ramblocks(text, size, blocks, MAX_BLOCKS, &n);
	if (r < 0) {
		malformed(vmm, "info ramblock", r);
		return;
	}
	vmm->other_ram_bytes = 0;
	for (size_t i = 0; i < n; i++) {
		if (is_preserved(vmm->guest, blocks[i].name))
			n_found++;
		else
			vmm->other_ram_bytes += blocks[i].used_bytes;
	}
	if (n_found != vmm->guest->n_ram)
		hf_vmm_failf(vmm, -ESTALE, "start the guest anew with holdfast-vmm",
			"QEMU has %zu of the %zu RAM blocks that the guest was registered with",
			n_found, vmm->guest->n_ram);
	else
		one_answered(vmm);
}

/* Only then it is known where the balloon is. */
static void on_virtio_asked(struct hf_vmm *vmm)
{
	if (vmm->want_details && vmm->balloon_path[0])
		hf_vmm_ask_reporting(vmm, one_answered);
	else
		one_answered(vmm);
}

static void ask(struct hf_vmm *vmm)
{
	vmm->waiting = "answer on its monitor";
	vmm->n_replies = 9 + (vmm->want_roms ? 2 : 0) + (vmm->want_details ? 3 : 0);
	vmm->probe.balloon = vmm->probe.free_page_reporting = false;
	vmm->probe.agent_known = vmm->probe.agent_channel = vmm->probe.agent_open = false;
	vmm->probe.n_no_flush = 0;
	vmm->probe.n_blockers = 0;
	if (HF_VMM_SEND(vmm, on_status, hf_qmp_query_status) < 0 ||
		HF_VMM_SEND(vmm, on_machine, hf_qmp_qom_get, "/machine", "type") < 0 ||
		HF_VMM_SEND(vmm, on_migration, hf_qmp_query_migrate) < 0 ||
		HF_VMM_SEND(vmm, on_capabilities, hf_qmp_query_migrate_capabilities) < 0 ||
		HF_VMM_SEND(vmm, on_parameters, hf_qmp_query_migrate_parameters) < 0 ||
		hf_vmm_ask_devices(vmm, on_devices) < 0 ||
		HF_VMM_SEND(vmm, on_ramblocks, hf_qmp_human_command, "info ramblock") < 0)
		return;
	if (vmm->want_roms && hf_vmm_ask_roms(vmm, one_answered) < 0)
		return;
	if (vmm->want_details && hf_vmm_ask_details(vmm, one_answered) < 0)
		return;
	hf_vmm_ask_virtio(vmm, on_virtio_asked);
}

/* Before anything is asked: a path says nothing about who listens there. */
void hf_vmm_attach_on_ready(struct hf_vmm *vmm)
{
	struct hf_error e = {0};

	if (hf_guest_is_libvirt(vmm->guest) && !vmm->own_monitor && hf_libvirt_has_daemon())
		return; /* libvirt knows whose it is */
	if (hf_vmm_check_monitor(vmm->qmp, hf_child_pid(vmm->child), &e) < 0)
		hf_vmm_fail(vmm, &e);
}

int hf_vmm_check_monitor(const struct hf_qmp *q, pid_t pid, struct hf_error *error)
{
	pid_t peer = hf_qmp_peer_pid(q);

	if (peer == pid)
		return 0;
	return hf_error_set(error, -ESTALE, HF_ERR_NOT_READY,
		"start the guest anew with holdfast-vmm",
		"the monitor at %s is process %d's, and the guest's QEMU is process %d",
		hf_qmp_label(q), (int)peer, (int)pid);
}

int hf_vmm_connect(struct hf_vmm *vmm, uint64_t timeout_ns, struct hf_error *e)
{
	const struct hf_manifest_guest *guest = vmm->guest;
	int fd, r;

	if (!hf_guest_is_libvirt(guest) || vmm->own_monitor || !hf_libvirt_has_daemon()) {
		if (!guest->qmp_path)
			return hf_error_set(e, -ENOENT, HF_ERR_FAILED, NULL,
				"the path of its monitor isn't known");
		return hf_qmp_connect(vmm->event, guest->qmp_path, 0, timeout_ns, &hf_vmm_qmp_ops,
			vmm, &vmm->qmp, e);
	}
	r = hf_libvirt_open_monitor(vmm->event, guest->uuid, &fd, e);
	return r < 0 ? r
		     : hf_qmp_attach_fd(vmm->event, fd, "libvirt", timeout_ns, &hf_vmm_qmp_ops, vmm,
			       &vmm->qmp, e);
}

void hf_vmm_use_own_monitor(struct hf_vmm *vmm)
{
	vmm->own_monitor = true;
}

void hf_vmm_leave_libvirt(struct hf_vmm *vmm)
{
	if (hf_guest_is_libvirt(vmm->guest))
		hf_vmm_drop_monitor(vmm);
}

int hf_vmm_attach(struct hf_vmm *vmm, pid_t pid, uint64_t start_ticks, uint64_t timeout_ns,
	hf_vmm_done_fn done, void *data)
{
	struct hf_error e = {0};
	int r;

	if (vmm->qmp || vmm->child)
		return -EALREADY;
	if (!vmm->guest->qmp_path && !hf_guest_is_libvirt(vmm->guest))
		return -EINVAL;
	r = hf_vmm_begin(vmm, HF_VMM_OP_ATTACH, timeout_ns, done, data);
	if (r < 0)
		return r;
	r = hf_child_watch(vmm->event, pid, start_ticks, hf_vmm_on_child_exit, vmm, &vmm->child);
	if (r < 0) {
		hf_vmm_failf(vmm, r == -ESRCH ? -ESTALE : r, "start the guest again, or forget it",
			"its QEMU, process %d, is not there any more", (int)pid);
		return 0;
	}
	/* A little less than for all, so that its own reason comes first: "taken", "silent". */
	r = hf_vmm_connect(vmm, timeout_ns - timeout_ns / 8, &e);
	if (r < 0) {
		hf_vmm_fail(vmm, &e);
		return 0;
	}
	ask(vmm);
	return 0;
}

/* ---- quit ---- */

static void kill_it(struct hf_vmm *vmm)
{
	int r = hf_child_kill(vmm->child);

	if (r < 0)
		hf_vmm_failf(vmm, r, NULL, "can't kill QEMU, process %d: %s",
			(int)hf_child_pid(vmm->child), strerror(-r));
}

int hf_vmm_quit(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data)
{
	uint64_t id = 0;
	int r;

	if (!vmm->child)
		return -ENOTCONN;
	r = hf_vmm_begin(vmm, HF_VMM_OP_QUIT, timeout_ns, done, data);
	if (r < 0)
		return r;
	vmm->waiting = "end";
	if (hf_child_exited(vmm->child)) {
		hf_vmm_end(vmm);
		return 0;
	}
	/* The reply doesn't matter, and may get lost: the exit counts. */
	r = vmm->qmp ? hf_qmp_quit(vmm->qmp, HF_QMP_TIMEOUT_NEVER, NULL, NULL, &id) : -ENOTCONN;
	if (r < 0)
		kill_it(vmm);
	else
		hf_vmm_poll_after(vmm, timeout_ns / HF_NSEC_PER_USEC / 2, kill_it);
	return 0;
}

int hf_vmm_kill(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data)
{
	int r;

	if (!vmm->child)
		return -ENOTCONN;
	r = hf_vmm_begin(vmm, HF_VMM_OP_QUIT, timeout_ns, done, data);
	if (r < 0)
		return r;
	vmm->waiting = "end";
	if (hf_child_exited(vmm->child))
		hf_vmm_end(vmm);
	else
		kill_it(vmm);
	return 0;
}

int hf_vmm_probe_check(const struct hf_vmm_probe *probe, struct hf_error *error)
{
	if (probe->migrating)
		return hf_error_set(error, -EBUSY, HF_ERR_NOT_READY,
			"wait until that is over, or abort it",
			"somebody else is migrating or saving it");
	if (probe->n_blockers > 0)
		return hf_error_set(error, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"remove the device or feature that QEMU names",
			"QEMU can't save its device state: %s", probe->blockers[0]);
	if (probe->running || strcmp(probe->status, "paused") == 0 ||
		strcmp(probe->status, "prelaunch") == 0)
		return 0;
	/* "Can't migrate the vm that was paused due to previous migration" */
	if (strcmp(probe->status, "postmigrate") == 0)
		return hf_error_set(error, -EALREADY, HF_ERR_NOT_READY,
			"let it run for a moment: `cont`, and `stop` if it is to stay paused",
			"it is paused and was saved before, as by an update that was rolled back: "
			"QEMU saves it again only after it has run");
	/* In any other state it is in the middle of something: a load, a dump, an I/O error. */
	return hf_error_set(error, -EBUSY, HF_ERR_NOT_READY,
		"wait until it runs or is paused, then try again", "its run state is `%s`",
		probe->status);
}
