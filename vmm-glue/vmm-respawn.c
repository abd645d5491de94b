/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A new QEMU on the guest's old memory: start, load, resume. The second half of the blackout.
 *
 * The new QEMU has two monitors: one on a socketpair it is born with, which can be talked to before
 * QEMU has come to listen anywhere, and the private one of every guest, for whoever attaches later.
 * The stream waits in its socket while QEMU starts.
 *
 * A QEMU that fails is killed and waited for before the failure is told: there are never two on one
 * guest's RAM. Up to `migrate-incoming` nothing of the guest was touched; from there on the load
 * may have written to its RAM, and the error says so (-EUCLEAN).
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fault.h"
#include "common/fd.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/inherited.h"
#include "vmm-glue/net.h"
#include "vmm-glue/registration.h"
#include "vmm-glue/vmm-internal.h"

#define LOG_DIR_DEFAULT "/var/log/holdfast"
#define BOOT_ID "holdfast-boot"
#define MAX_CHARDEVS 256
#define EXIT_GRACE_USEC 500000u
#define BRIDGE_RETRY_USEC 20000u
#define HELPER_RETRY_USEC 2000u

static void ask_loaded(struct hf_vmm *vmm);

/* ---- loading ---- */

static void on_loaded_status(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_status status;

	if (!hf_vmm_take_status(vmm, err, ret, error, &status))
		return;
	if (status.running)
		hf_vmm_failf(
			vmm, -EPROTO, NULL, "QEMU let the guest run by itself after loading it");
	else if (!vmm->migration_completed || !vmm->capability_off || vmm->n_replies > 0 ||
		 status.state == HF_QMP_RUN_INMIGRATE)
		hf_vmm_poll_later(vmm, ask_loaded);
	else
		hf_vmm_end(vmm);
}

static void on_capabilities_off(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	/* While the load is still under way QEMU refuses, and the event that says that it is not
	 * may come a moment early; then it is asked again. */
	if (!hf_vmm_in(vmm, HF_VMM_OP_RESUME) &&
		(!vmm->migration_completed || (err && vmm->n_polls == 0)))
		return;
	if (hf_vmm_check_reply(vmm, err, error))
		vmm->capability_off = true;
}

static void note_loaded(struct hf_vmm *vmm)
{
	if (vmm->stamps.loaded == 0)
		vmm->stamps.loaded = hf_tsc_now();
	vmm->migration_completed = true;
}

static void on_loaded(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_migration m;

	if (!hf_vmm_take_migration(vmm, err, ret, error, &m))
		return;
	if (m.status == HF_QMP_MIGRATION_COMPLETED)
		note_loaded(vmm);
	else if (hf_qmp_migration_over(m.status))
		hf_vmm_failf(vmm, -EREMOTEIO, "see QEMU's log",
			"QEMU can't load the device state: %s",
			m.error_desc[0] ? m.error_desc : "it doesn't say why");
}

/*
 * Left on, x-ignore-shared would make an ordinary later migration lose the guest's RAM. libvirt has
 * events on from the start, and never looks again.
 */
static void ask_loaded(struct hf_vmm *vmm)
{
	vmm->waiting = "finish loading its device state";
	/* An event may have said it already. */
	if (!vmm->migration_completed && HF_VMM_SEND(vmm, on_loaded, hf_qmp_query_migrate) < 0)
		return;
	if (hf_vmm_send_caps(vmm, false, hf_guest_is_libvirt(vmm->guest), on_capabilities_off) < 0)
		return;
	HF_VMM_SEND(vmm, on_loaded_status, hf_qmp_query_status);
}

void hf_vmm_respawn_on_event(struct hf_vmm *vmm, const char *name, struct json_object *data)
{
	enum hf_qmp_migration_status status;

	if (!vmm->incoming_sent || strcmp(name, "MIGRATION") != 0 ||
		hf_qmp_parse_migration_event(data, &status) < 0)
		return;
	if (status == HF_QMP_MIGRATION_COMPLETED)
		note_loaded(vmm);
	/* The rest can wait until the guest runs, see hf_vmm_resume(). */
	if (status == HF_QMP_MIGRATION_COMPLETED && hf_vmm_in(vmm, HF_VMM_OP_LOAD))
		hf_vmm_end(vmm);
	else if (hf_qmp_migration_over(status))
		ask_loaded(vmm);
}

static void stream_broke(struct hf_vmm *vmm)
{
	hf_error_prefix(&vmm->stream_error, "QEMU stopped reading its device state");
	hf_vmm_fail(vmm, &vmm->stream_error);
}

void hf_vmm_respawn_on_stream(struct hf_vmm *vmm)
{
	/* QEMU closed its end: its own account of why, or its exit, is on the way. */
	if (!vmm->stream_ok)
		hf_vmm_poll_after(vmm, EXIT_GRACE_USEC, stream_broke);
}

static void on_set(struct hf_qmp *q, int err, struct json_object *ret, const struct hf_error *error,
	void *data)
{
	struct hf_vmm *vmm = data;

	if (hf_vmm_check_reply(vmm, err, error))
		vmm->n_replies--;
}

static void on_incoming(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	vmm->n_replies--;
	vmm->waiting = "finish loading its device state";
}

void hf_vmm_respawn_on_ready(struct hf_vmm *vmm)
{
	struct hf_error e = {0};

	vmm->stamps.ready = hf_tsc_now();
	vmm->waiting = "begin to load its device state";
	if (hf_fault(HF_FAULT_LOAD_STATE, &e) < 0) {
		hf_vmm_fail(vmm, &e);
		return;
	}
	vmm->n_replies = 3;
	/* Has to be as it was when the state was saved. */
	if (hf_vmm_send_caps(vmm, !vmm->guest->ram_copied, true, on_set) < 0 ||
		HF_VMM_SEND(vmm, on_set, hf_qmp_getfd, HF_VMM_GETFD_NAME, vmm->stream_fd) < 0)
		return;
	/* Our copy of QEMU's end has to go, or its death would not break the stream. */
	hf_close(&vmm->stream_fd);
	vmm->incoming_sent = true;
	HF_VMM_SEND(vmm, on_incoming, hf_qmp_migrate_incoming, "fd:" HF_VMM_GETFD_NAME);
}

/* ---- the death of the new QEMU ---- */

static void grace_is_over(struct hf_vmm *vmm)
{
	hf_vmm_fail(vmm, &vmm->gone_error);
}

void hf_vmm_respawn_on_lost(struct hf_vmm *vmm, const struct hf_error *reason)
{
	/* Its exit, with its last words, says more than a closed monitor; it is a moment away. */
	vmm->gone_error = *reason;
	hf_error_prefix(&vmm->gone_error, "the new QEMU broke off");
	hf_vmm_poll_after(vmm, EXIT_GRACE_USEC, grace_is_over);
}

/* ---- starting ---- */

int hf_vmm_ram_number(const struct hf_vmm *vmm, size_t index)
{
	return hf_inherited_first_free(vmm->guest) + (int)index;
}

/* Behind those, and the monitor's. */
static int tap_number(const struct hf_vmm *vmm, size_t index)
{
	return hf_vmm_ram_number(vmm, vmm->guest->n_ram + 1 + index);
}

static int check_plan(
	const struct hf_cmdline *plan, const struct hf_manifest_guest *guest, struct hf_error *e)
{
	bool same =
		plan->n_ram == guest->n_ram && plan->kind == HF_CMDLINE_GUEST && !plan->reason[0];

	for (size_t i = 0; same && i < guest->n_ram; i++)
		same = guest->ram[i].id && strcmp(plan->ram[i].id, guest->ram[i].id) == 0 &&
		       plan->ram[i].size == guest->ram[i].size;
	if (!same)
		return hf_error_set(e, -ESTALE, HF_ERR_FAILED,
			"use the holdfast that wrote the manifest",
			"the command line doesn't give the RAM that was preserved: %s",
			plan->reason[0] ? plan->reason : "other blocks or sizes");
	return 0;
}

int hf_vmm_check_ram(struct hf_vmm *vmm, const int *ram_fds, struct hf_error *e)
{
	uint64_t size;
	int r;

	for (size_t i = 0; i < vmm->guest->n_ram; i++) {
		struct hf_inode inode;

		r = hf_fd_inode(ram_fds[i], &inode, &size);
		if (r < 0 || size < vmm->guest->ram[i].size)
			return hf_error_set(e, r < 0 ? r : -ESTALE, HF_ERR_FAILED, NULL,
				"the file of RAM block %s is not what was preserved",
				vmm->guest->ram[i].id);
		vmm->ram_inodes[i] = inode;
		vmm->ram_fds[i] = ram_fds[i];
	}
	return 0;
}

/* The user's command line on the preserved RAM, with a second monitor on a socket it is born with.
 */
static int build_argv(struct hf_vmm *vmm, int boot_fd, char ***ret, struct hf_error *e)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	cleanup_free char **built = NULL;
	int numbers[HF_MANIFEST_MAX_RAM], tap_numbers[HF_MANIFEST_MAX_NETS];
	struct hf_manifest_guest *guest = vmm->guest;
	bool respawn = !hf_vmm_in(vmm, HF_VMM_OP_COLD_BOOT);
	size_t n = 0, out = 0, bytes = 128;
	char **argv, *text;
	int r;

	r = hf_cmdline_of_guest(guest, &plan, e);
	if (r == 0)
		r = check_plan(plan, guest, e);
	/* Other numbers than the launcher's, for the registration to know. */
	for (size_t i = 0; i < guest->n_ram; i++)
		numbers[i] = guest->ram[i].fd = hf_vmm_ram_number(vmm, i);
	for (size_t i = 0; vmm->taps && i < vmm->taps->n; i++)
		tap_numbers[i] = tap_number(vmm, i);
	if (r == 0)
		r = hf_cmdline_build(plan,
			&(struct hf_cmdline_how){
				.ram_fds = numbers,
				.tap_fds = vmm->taps ? tap_numbers : NULL,
				.qmp_path = hf_guest_is_libvirt(guest) ? NULL : guest->qmp_path,
				.respawn = respawn,
				.machine_type = respawn ? guest->machine : NULL,
			},
			&built, &n, e);
	if (r < 0)
		return r;
	argv = malloc((n + 6) * sizeof(*argv) + bytes);
	if (!argv)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	text = (char *)(argv + n + 6);
	for (size_t i = 0; i < n; i++) {
		/* It would change its pid; it has a session of its own without. */
		if (plan->daemonize && strcmp(built[i] + (built[i][0] == '-' && built[i][1] == '-'),
					       "-daemonize") == 0)
			continue;
		argv[out++] = built[i];
	}
	snprintf(text, bytes, "socket,id=" BOOT_ID ",fd=%d", boot_fd);
	argv[out++] = (char *)"-chardev";
	argv[out++] = text;
	/* Not -mon, which QEMU 11 warns about. */
	argv[out++] = (char *)"-qmp";
	argv[out++] = (char *)"chardev:" BOOT_ID;
	/* A respawn has it already. */
	if (!respawn)
		argv[out++] = (char *)"-S";
	argv[out] = NULL;
	/* The strings point into @built: both live until the process was started. */
	vmm->built_argv = TAKE_PTR(built);
	*ret = argv;
	return 0;
}

/* /var/log/holdfast/NAME.log, with nothing of the name that could lead elsewhere. */
static int log_path(const struct hf_manifest_guest *guest, char *buf, size_t size)
{
	const char *dir = getenv("HOLDFAST_LOG_DIR");
	char name[128];

	if (hf_guest_is_libvirt(guest))
		return hf_libvirt_log_path(guest, buf, size);
	if (!dir || !dir[0])
		dir = LOG_DIR_DEFAULT;
	snprintf(name, sizeof(name), "%s",
		guest->name && guest->name[0] ? guest->name : guest->uuid);
	for (char *p = name; *p; p++)
		if (*p == '/' || (unsigned char)*p < ' ' || (p == name && *p == '.'))
			*p = '_';
	if (snprintf(buf, size, "%s/%s.log", dir, name) >= (int)size)
		return -ENAMETOOLONG;
	return hf_mkdir_p(dir, 0750);
}

static int spawn(struct hf_vmm *vmm, char **argv, int boot_fd, struct hf_error *e)
{
	const struct hf_manifest_guest *guest = vmm->guest;
	size_t n_taps = vmm->taps ? vmm->taps->n : 0;
	size_t n = guest->n_fds, own = guest->n_ram + 1 + n_taps;
	cleanup_free struct hf_spawn_fd *fds = calloc(n + own, sizeof(*fds));
	char log[512], missed[400], files[400];
	struct hf_spawn_spec spec = hf_spawn_spec_of(guest);
	int r;

	if (!fds)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	spec.argv = argv;
	spec.limits = &guest->limits;
	spec.apparmor = guest->apparmor;
	spec.fds = fds;
	spec.n_fds = n + own;
	for (size_t i = 0; i < guest->n_ram; i++)
		fds[n + i] = (struct hf_spawn_fd){
			.fd = vmm->ram_fds[i], .number = hf_vmm_ram_number(vmm, i)};
	fds[n + guest->n_ram] =
		(struct hf_spawn_fd){.fd = boot_fd, .number = hf_vmm_ram_number(vmm, guest->n_ram)};
	for (size_t i = 0; i < n_taps; i++)
		fds[n + guest->n_ram + 1 + i] = (struct hf_spawn_fd){
			.fd = vmm->taps->v[i].fd, .number = tap_number(vmm, i)};
	for (size_t i = 0; i < 3; i++)
		if (guest->stdio[i].kind == HF_STDIO_PATH)
			spec.stdio[i] = guest->stdio[i].path;
	if (log_path(guest, log, sizeof(log)) == 0)
		spec.log_path = log;
	vmm->stamps.spawn = hf_tsc_now();
	r = hf_inherited_open(guest, fds, files, sizeof(files), e);
	if (r < 0)
		return r;
	r = hf_spawn(vmm->event, &spec, hf_vmm_on_child_exit, vmm, &vmm->child, e);
	hf_inherited_close(fds, n);
	if (r == 0)
		hf_child_missed(vmm->child, missed, sizeof(missed));
	if (r == 0 && (missed[0] || files[0]))
		snprintf(vmm->warning, sizeof(vmm->warning),
			"its QEMU runs, but not as before: it could not be given %.250s%s%.180s",
			files, files[0] && missed[0] ? ", " : "", missed);
	if (r == 0 && hf_vmm_in(vmm, HF_VMM_OP_COLD_BOOT))
		r = vmm->spawned(vmm, vmm->op.data, e);
	return r;
}

/* /run is empty after a jump. Without the folder QEMU itself says what is wrong. */
static void make_qmp_folder(const struct hf_manifest_guest *guest)
{
	char path[256];
	char *slash;

	snprintf(path, sizeof(path), "%s", guest->qmp_path ? guest->qmp_path : "");
	slash = strrchr(path, '/');
	if (!slash || slash == path)
		return;
	*slash = 0;
	if (hf_mkdir_p(hf_run_dir(), 0755) == 0)
		hf_mkdir_p(path, 0700);
}

static int start(struct hf_vmm *vmm, struct hf_error *e)
{
	cleanup_close int ours = -EBADF, theirs = -EBADF;
	cleanup_free char **argv = NULL;
	int pair[2];
	int r;

	r = build_argv(vmm, hf_vmm_ram_number(vmm, vmm->guest->n_ram), &argv, e);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return hf_error_set(
			e, -errno, HF_ERR_FAILED, NULL, "can't make a socket: %s", strerror(errno));
	ours = pair[0];
	theirs = pair[1];
	vmm->waiting = "start";
	if (!hf_guest_is_libvirt(vmm->guest))
		make_qmp_folder(vmm->guest);
	r = spawn(vmm, argv, theirs, e);
	if (r == 0)
		r = hf_fault(HF_FAULT_RESPAWNED, e);
	if (r < 0)
		return r;
	/* The time-out is the operation's: it alone knows what else there was to wait for. */
	return hf_qmp_attach_fd(vmm->event, TAKE_FD(ours), BOOT_ID, HF_QMP_TIMEOUT_NEVER,
		&hf_vmm_qmp_ops, vmm, &vmm->qmp, e);
}

void hf_vmm_start_new(struct hf_vmm *vmm)
{
	struct hf_error e = {0};
	int r;

	r = hf_net_restore(vmm->guest, &e);
	if (r == -EAGAIN) {
		vmm->waiting = "be started: a bridge of the host's network is missing";
		hf_vmm_poll_after(vmm, BRIDGE_RETRY_USEC, hf_vmm_start_new);
		return;
	}
	if (r == 0)
		r = hf_vmm_load_profile(vmm, hf_vmm_start_new, &e);
	if (r > 0)
		return;
	if (r == 0 && vmm->guest->inherits) {
		r = hf_inherited_start(vmm->event, vmm->guest, vmm->helpers_started, &e);
		vmm->helpers_started = true;
	}
	if (r == -EAGAIN) {
		vmm->waiting = "be started: a process that it connects to does not listen";
		hf_vmm_poll_after(vmm, HELPER_RETRY_USEC, hf_vmm_start_new);
		return;
	}
	if (r == 0)
		r = start(vmm, &e);
	vmm->built_argv = (free(vmm->built_argv), NULL);
	if (r < 0)
		hf_vmm_fail(vmm, &e);
}

/* Length and checksum are checked here: a stream that is cut or spoilt never gets as far as QEMU.
 */
static int prepare_stream(struct hf_vmm *vmm, const int *state_fds, struct hf_error *e)
{
	const struct hf_manifest_guest *guest = vmm->guest;
	int pair[2];
	int r;

	hf_sink_release(&vmm->load_sink);
	for (size_t i = 0; i < guest->n_state; i++) {
		r = hf_sink_add(&vmm->load_sink, state_fds[i], guest->state[i].capacity,
			guest->state[i].length, e);
		if (r < 0)
			return r;
	}
	if (guest->state_length == 0)
		return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL, "its device state is empty");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return hf_error_set(
			e, -errno, HF_ERR_FAILED, NULL, "can't make a socket: %s", strerror(errno));
	vmm->stream_fd = pair[1];
	r = hf_stream_load(vmm->ring, pair[0], &vmm->load_sink, guest->state_length,
		guest->state_xxh3, hf_vmm_on_stream_done, vmm, &vmm->stream, e);
	if (r == 0)
		vmm->streaming = true;
	return r;
}

static void forget_old(struct hf_vmm *vmm)
{
	hf_vmm_drop_monitor(vmm);
	hf_child_release(TAKE_PTR(vmm->child));
	vmm->attached = vmm->lost = vmm->save_begun = vmm->migrate_sent = false;
	vmm->stream_ok = vmm->migration_completed = false;
	vmm->incoming_sent = vmm->capability_off = vmm->beside = false;
	vmm->helpers_started = vmm->ptys_known = vmm->profile_loaded = false;
	vmm->stamps = (struct hf_vmm_stamps){0};
	vmm->warning[0] = 0;
}

int hf_vmm_begin_start(struct hf_vmm *vmm, enum hf_vmm_op_kind kind, uint64_t timeout_ns,
	hf_vmm_done_fn done, void *data)
{
	const struct hf_manifest_guest *guest = vmm->guest;
	int r;

	if (vmm->child && !hf_child_exited(vmm->child))
		return -EALREADY;
	if (guest->n_argv == 0 || !guest->vmm || guest->n_ram > HF_MANIFEST_MAX_RAM)
		return -EINVAL;
	r = hf_vmm_begin(vmm, kind, timeout_ns, done, data);
	if (r == 0)
		forget_old(vmm);
	return r;
}

int hf_vmm_respawn(struct hf_vmm *vmm, const int *ram_fds, const int *state_fds,
	uint64_t timeout_ns, hf_vmm_done_fn done, void *data)
{
	struct hf_error e = {0};
	int r;

	r = hf_vmm_begin_start(vmm, HF_VMM_OP_RESPAWN, timeout_ns, done, data);
	if (r < 0)
		return r;
	r = hf_vmm_check_ram(vmm, ram_fds, &e);
	if (r == 0)
		r = prepare_stream(vmm, state_fds, &e);
	if (r < 0)
		hf_vmm_fail(vmm, &e);
	else
		hf_vmm_start_new(vmm);
	return 0;
}

int hf_vmm_adopt(struct hf_vmm *vmm, const int *ram_fds, struct hf_error *e)
{
	int r;

	if (!vmm->attached)
		return hf_error_set(e, -ENOTCONN, HF_ERR_FAILED, NULL, "its QEMU isn't attached");
	r = hf_vmm_check_ram(vmm, ram_fds, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < vmm->guest->n_ram; i++)
		vmm->guest->ram[i].fd = hf_vmm_ram_number(vmm, i);
	vmm->migration_completed = true;
	return 0;
}

/* ---- resuming ---- */

static void write_registration(struct hf_vmm *vmm)
{
	struct hf_registration reg = {.guest = *vmm->guest, .pid = hf_child_pid(vmm->child)};
	struct hf_error e = {0};

	/* A shallow copy: nothing of it is freed. */
	memcpy(reg.ram_inodes, vmm->ram_inodes, sizeof(reg.ram_inodes));
	if (hf_pid_start_time(reg.pid, &reg.start_ticks) < 0 ||
		hf_fault(HF_FAULT_REGISTER, &e) < 0 || hf_registration_write(&reg, &e) < 0 ||
		(hf_guest_is_libvirt(vmm->guest) &&
			hf_libvirt_publish(vmm->guest, reg.pid, vmm->ptys, vmm->n_ptys, &e) < 0)) {
		hf_error_prefix(&e, "the guest runs, but isn't registered for the next update");
		hf_vmm_fail(vmm, &e);
		return;
	}
	vmm->attached = true;
	hf_vmm_end(vmm);
}

static void on_cont(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	if (vmm->stamps.resumed == 0)
		vmm->stamps.resumed = hf_tsc_now();
	vmm->waiting = "let the guest run";
}

static void ask_resumed(struct hf_vmm *vmm);

static void on_resumed_status(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	struct hf_qmp_status status;

	if (!hf_vmm_take_status(vmm, err, ret, error, &status))
		return;
	if (status.running != vmm->guest->was_running ||
		(hf_guest_is_libvirt(vmm->guest) && !vmm->ptys_known))
		hf_vmm_poll_later(vmm, ask_resumed);
	else
		write_registration(vmm);
}

/* libvirt's devices have the name of their chardev, less "char". */
static void on_chardevs(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_vmm *vmm = data;
	cleanup_free struct hf_qmp_chardev *devs = calloc(MAX_CHARDEVS, sizeof(*devs));
	size_t n = 0;

	if (!hf_vmm_check_reply(vmm, err, error))
		return;
	if (!devs || hf_qmp_parse_chardevs(ret, devs, MAX_CHARDEVS, &n) < 0) {
		hf_vmm_failf(vmm, -EBADMSG, NULL, "QEMU's answer to query-chardev makes no sense");
		return;
	}
	vmm->n_ptys = 0;
	for (size_t i = 0; i < n && vmm->n_ptys < HF_VMM_MAX_PTYS; i++) {
		struct hf_libvirt_pty *pty = &vmm->ptys[vmm->n_ptys];

		if (strncmp(devs[i].label, "char", 4) != 0 ||
			strncmp(devs[i].filename, "pty:", 4) != 0)
			continue;
		snprintf(pty->alias, sizeof(pty->alias), "%.63s", devs[i].label + 4);
		snprintf(pty->path, sizeof(pty->path), "%.63s", devs[i].filename + 4);
		vmm->n_ptys++;
	}
	vmm->ptys_known = true;
}

static void ask_resumed(struct hf_vmm *vmm)
{
	if (hf_guest_is_libvirt(vmm->guest) && !vmm->ptys_known &&
		HF_VMM_SEND(vmm, on_chardevs, hf_qmp_query_chardev) < 0)
		return;
	HF_VMM_SEND(vmm, on_resumed_status, hf_qmp_query_status);
}

int hf_vmm_resume(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data)
{
	const struct hf_manifest_guest *guest = vmm->guest;
	int r;

	if (!vmm->qmp || !vmm->migration_completed || vmm->lost)
		return -ENOTCONN;
	r = hf_vmm_begin(vmm, HF_VMM_OP_RESUME, timeout_ns, done, data);
	if (r < 0)
		return r;
	vmm->waiting = "let the guest run";
	vmm->beside = false;
	/* `suspended` (asleep, waiting for its wake-up) is a state that `cont` leads back to. */
	if (guest->was_running || (guest->status && strcmp(guest->status, "suspended") == 0)) {
		if (HF_VMM_SEND(vmm, on_cont, hf_qmp_cont) < 0)
			return 0;
		/* The load announced it already, but maybe before the host's network was up. */
		if (HF_VMM_SEND(vmm, NULL, hf_qmp_announce_self, NULL) < 0)
			return 0;
	} else {
		vmm->stamps.resumed = hf_tsc_now();
	}
	if (!vmm->capability_off &&
		hf_vmm_send_caps(vmm, false, hf_guest_is_libvirt(guest), on_capabilities_off) < 0)
		return 0;
	ask_resumed(vmm);
	return 0;
}
