/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/update-content.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#include "agent/kexec.h"
#include "agent/libvirt-gate.h"
#include "agent/log.h"
#include "agent/wall-clock.h"
#include "common/fault.h"
#include "common/fd.h"
#include "memfd-preserve/readahead.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/disks.h"
#include "vmm-glue/installed.h"
#include "vmm-glue/registration-trust.h"
#include "vmm-glue/start-files.h"

/* Room left in the manifest for what is only known in the blackout: stamps, status, state chunks.
 */
#define MANIFEST_SLACK_BYTES (64 * 1024)

/* Room for the files to be read ahead, about a thousand: they are collected only when the memfd has
 * its size. What one takes besides its path: its node, two properties, and padding.
 */
#define READAHEAD_BYTES (128 * 1024)
#define READAHEAD_FILE_BYTES 72

/* How large the manifest gets, found out by writing it once while there is time for that. */
static int measure_manifest(struct hf_update *u, size_t *ret_capacity, struct hf_error *error)
{
	void *buf = mmap(NULL, HF_MANIFEST_MAX_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t size = 0;
	int r;

	if (buf == MAP_FAILED)
		return hf_error_set(error, -errno, HF_ERR_FAILED, NULL, "out of memory");
	r = hf_manifest_encode(u->manifest, buf, HF_MANIFEST_MAX_BYTES, &size, error);
	munmap(buf, HF_MANIFEST_MAX_BYTES);
	if (r < 0)
		return r;
	size += READAHEAD_BYTES + MANIFEST_SLACK_BYTES + u->n_regs * 8192;
	*ret_capacity = (size + 4095) & ~(size_t)4095;
	return 0;
}

static int fill_manifest(struct hf_update *u)
{
	struct hf_manifest *m = u->manifest;
	cleanup_free char *boot_id = NULL;
	struct utsname uts;

	uname(&uts);
	snprintf(m->update_id, sizeof(m->update_id), "%s", u->agent->update_id);
	if (hf_file_read("/proc/sys/kernel/random/boot_id", 64, &boot_id, NULL) == 0)
		snprintf(m->boot_id, sizeof(m->boot_id), "%.36s", boot_id);
	m->tsc_prepare = hf_tsc_now();
	if (hf_manifest_set(&m->writer, "holdfast " HF_VERSION) < 0 ||
		hf_manifest_set(&m->carrier, hf_carrier_name(u->way.carrier)) < 0 ||
		hf_manifest_set(&m->from_kernel, uts.release) < 0 ||
		hf_manifest_set(&m->target_kernel, u->target.kernel) < 0 ||
		hf_manifest_set(&m->target_initrd, u->target.initrd) < 0 ||
		hf_manifest_set(&m->target_cmdline, u->target.cmdline) < 0)
		return -ENOMEM;
	return 0;
}

/* What is done for a guest from here to its resume is decided now, and travels with it. */
static int take_policies(
	struct hf_manifest_guest *g, const struct hf_config *config, struct hf_error *error)
{
	int r;

	hf_policy_clear(&g->policies);
	r = hf_config_policy(config, g, &g->policies, error);
	if (r == 0)
		r = hf_manifest_set(
			&g->policy, hf_policy_not_eligible_names[g->policies.not_eligible]);
	return r;
}

static int take_guest(struct hf_update *u, const struct hf_config *config,
	const struct hf_update_ops *ops, struct hf_registration *reg, struct hf_error *error)
{
	struct hf_manifest_guest *g;
	char session[HF_SESSION_NAME_BYTES];
	int r;

	if (reg->reason[0]) {
		hf_error_set(error, -EOPNOTSUPP, HF_ERR_NOT_READY, reg->remedy, "%s", reg->reason);
		hf_error_guest(error, reg->guest.name);
		return -EOPNOTSUPP;
	}
	r = hf_manifest_add_guest(u->manifest, &g);
	if (r == 0) {
		/* Its description moves into the manifest; the registration keeps only the process.
		 */
		*g = reg->guest;
		reg->guest = (struct hf_manifest_guest){0};
		if (hf_way_on_disk(&u->way) && !u->way.leaves) {
			/* Not to be told by its memory from the QEMU that comes after it. */
			g->adopted_pid = (uint32_t)reg->pid;
			g->adopted_start_ticks = reg->start_ticks;
		}
		if (take_policies(g, config, error) < 0) {
			hf_error_guest(error, g->name);
			return error->err ? error->err : -ENOMEM;
		}
		/* Its size counts; what it says is taken when the guest is saved. */
		if (hf_guest_is_libvirt(g) && hf_libvirt_read_status(g, error) < 0) {
			hf_error_guest(error, g->name);
			return error->err;
		}
		snprintf(session, sizeof(session), "%s-%s", HF_MANIFEST_SESSION, g->uuid);
		r = hf_manifest_set(&g->session, session);
	}
	if (r == 0)
		r = hf_outgoing_new(u->agent, u->way.carrier, reg, g, ops->guest_done,
			ops->guest_gone, u, &u->guests[u->n_guests]);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "out of memory");
	u->n_guests++;
	return 0;
}

static int take_guests(struct hf_update *u, const struct hf_config *config,
	const struct hf_update_ops *ops, struct hf_error *error)
{
	size_t bad = 0;
	int r;

	r = hf_registration_check_folder(error);
	if (r < 0)
		return r;
	r = hf_registration_list(&u->regs, &u->n_regs, &bad);
	if (r < 0)
		return hf_error_set(
			error, r, HF_ERR_FAILED, NULL, "can't list the guests: %s", strerror(-r));
	if (bad > 0)
		return hf_error_set(error, -EBADMSG, HF_ERR_NOT_READY,
			"look at the files in the guests folder under " HF_RUN_DIR_DEFAULT,
			"%zu guest registrations can't be read, or are not what their processes "
			"are: those guests would be lost in the "
			"jump",
			bad);
	u->guests = calloc(u->n_regs ? u->n_regs : 1, sizeof(*u->guests));
	if (!u->guests)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	for (size_t i = 0; i < u->n_regs; i++) {
		r = take_guest(u, config, ops, &u->regs[i], error);
		if (r < 0)
			return r;
	}
	return 0;
}

int hf_update_new(struct hf_agent *agent, const struct hf_update_request *request,
	const struct hf_update_ops *ops, struct hf_update **ret, struct hf_error *error)
{
	struct hf_update *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	*u = (struct hf_update){
		.agent = agent,
		.commit = request->commit,
		.keep_loaded = request->keep_loaded,
		.way = request->way,
		.target = HF_TARGET_NONE,
		.manifest_fd = -EBADF,
	};
	r = hf_manifest_new(&u->manifest);
	if (r == 0)
		r = sd_event_add_defer(agent->event, &u->advance, ops->advance, u);
	if (r >= 0)
		r = sd_event_source_set_enabled(u->advance, SD_EVENT_OFF);
	if (r >= 0)
		r = hf_agent_new_update_id(agent);
	if (r < 0)
		hf_error_set(
			error, r, HF_ERR_FAILED, NULL, "can't begin an update: %s", strerror(-r));
	if (r >= 0 && u->way.leaves && !u->way.reboot) {
		u->target = *request->target;
		*request->target = HF_TARGET_NONE;
	}
	if (r >= 0 && fill_manifest(u) < 0)
		r = hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	if (r >= 0 && hf_way_on_disk(&u->way))
		hf_carrier_image_plaintext(u->way.carrier, u->way.plaintext);
	if (r >= 0)
		r = take_guests(u, request->config, ops, error);
	if (r >= 0)
		r = measure_manifest(u, &u->manifest_capacity, error);
	if (r < 0) {
		hf_update_free(u);
		return r;
	}
	*ret = u;
	return 0;
}

void hf_update_free(struct hf_update *u)
{
	for (size_t i = 0; i < u->n_guests; i++)
		hf_outgoing_free(u->guests[i]);
	free(u->guests);
	hf_registration_list_free(u->regs, u->n_regs);
	if (u->manifest_map)
		munmap(u->manifest_map, u->manifest_capacity);
	hf_close(&u->manifest_fd);
	hf_session_discard(u->session);
	hf_manifest_free(u->manifest);
	hf_libvirt_call_free(u->domains);
	hf_target_clear(&u->target);
	sd_event_source_disable_unref(u->advance);
	sd_event_source_disable_unref(u->late);
	sd_event_source_disable_unref(u->patience);
	if (u->agent->update == u)
		u->agent->update = NULL;
	free(u);
}

int hf_update_load(void *data)
{
	struct hf_update *u = data;
	int r;

	if (!u->target.kernel || u->target_loaded)
		return 0;
	r = hf_fault(HF_FAULT_LOAD_KERNEL, &u->host_error);
	if (r == 0)
		r = hf_kexec_load(&u->target, &u->host_error);
	u->target_loaded = r == 0;
	return r;
}

/* Finds out while there is time that it can be loaded. */
static int try_load(struct hf_update *u)
{
	int r = hf_update_load(u);

	if (r < 0 || u->keep_loaded || u->commit)
		return r;
	u->target_loaded = false;
	return hf_kexec_unload(&u->host_error);
}

int hf_update_prepare_host(void *data)
{
	struct hf_update *u = data;
	struct hf_error *e = &u->host_error;
	int r = u->target.kernel ? try_load(u) : 0;

	if (r == 0)
		r = hf_carrier_session_create(u->way.carrier, HF_MANIFEST_SESSION, &u->session, e);
	if (r == 0) {
		r = hf_memfd_new("holdfast:manifest", u->manifest_capacity, &u->manifest_fd);
		if (r < 0)
			hf_error_set(e, r, HF_ERR_FAILED, NULL,
				"can't make the manifest's memfd: %s", strerror(-r));
	}
	if (r == 0)
		r = hf_fault(HF_FAULT_PRESERVE_MANIFEST, e);
	if (r == 0)
		r = hf_session_preserve(u->session, HF_MANIFEST_TOKEN, u->manifest_fd, e);
	if (r < 0)
		return r;
	u->manifest_map = mmap(
		NULL, u->manifest_capacity, PROT_READ | PROT_WRITE, MAP_SHARED, u->manifest_fd, 0);
	if (u->manifest_map == MAP_FAILED) {
		u->manifest_map = NULL;
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "can't map the manifest: %s",
			strerror(errno));
	}
	return 0;
}

int hf_update_undo_host(void *data)
{
	struct hf_update *u = data;
	int r = 0;

	hf_fault(HF_FAULT_UNDO_HOST, NULL);
	hf_session_discard(u->session);
	u->session = NULL;
	if (u->settled)
		r = hf_disks_settle(false, &u->host_error);
	if (u->target_loaded)
		r = hf_kexec_unload(&u->host_error) < 0 ? u->host_error.err : r;
	return r;
}

/* Paths of files that QEMU closes after reading: on the command line, or ROMs. Borrowed from both.
 */
static const char **closed_files(
	const struct hf_manifest_guest *g, const struct hf_start_files *files)
{
	const char **paths = calloc(g->n_argv + files->n_paths + 1, sizeof(*paths));
	size_t n = 0;

	for (size_t i = 0; paths && i < g->n_argv; i++) {
		if (g->argv[i][0] == '/')
			paths[n++] = g->argv[i];
	}
	for (size_t i = 0; paths && i < files->n_paths; i++)
		paths[n++] = files->paths[i];
	return paths;
}

static void collect_guest(
	struct hf_update *u, const struct hf_outgoing *out, struct hf_readahead_list *list)
{
	const struct hf_manifest_guest *g = hf_outgoing_guest(out);
	const struct hf_installed_vmm *installed = hf_installed_get(u->agent->installed, g);
	struct hf_start_files files = {0};
	cleanup_free const char **paths = NULL;

	hf_start_files_find(
		g, hf_outgoing_roms(out), installed ? installed->data_dirs : NULL, &files);
	for (size_t i = 0; i < files.n_missing; i++)
		hf_log(LOG_DEBUG, g->uuid, "%s: %s is not found, so it won't be read ahead",
			g->name, files.missing[i]);
	paths = closed_files(g, &files);
	hf_readahead_collect(hf_outgoing_pid(out), paths, list);
	hf_start_files_clear(&files);
}

/* What the new QEMUs will read from disk: nothing may fail for lack of it. */
void hf_update_collect_readahead(struct hf_update *u)
{
	struct hf_readahead_list list = {0};
	size_t room = READAHEAD_BYTES, i;

	for (i = 0; i < u->n_guests; i++)
		collect_guest(u, u->guests[i], &list);
	for (i = 0; i < list.n_files; i++) {
		size_t bytes = strlen(list.files[i].path) + READAHEAD_FILE_BYTES;
		struct hf_manifest_file *f;

		/* The manifest's memfd can't grow any more: it is preserved. */
		if (bytes > room)
			break;
		f = hf_manifest_add_file(u->manifest);
		if (!f || hf_manifest_set(&f->path, list.files[i].path) < 0) {
			u->manifest->n_readahead -= f ? 1 : 0;
			break;
		}
		f->size = list.files[i].size;
		room -= bytes;
	}
	if (i < list.n_files)
		hf_log(LOG_DEBUG, NULL, "%zu of %zu files won't be read ahead", list.n_files - i,
			list.n_files);
	hf_readahead_clear(&list);
}

/* A guest that was started, or ended, since prepare would be lost without a word. */
int hf_update_check_same_guests(struct hf_update *u, struct hf_error *error)
{
	struct hf_registration *now = NULL;
	size_t n = 0;
	int r;

	r = hf_registration_list(&now, &n, NULL);
	if (r < 0)
		return hf_error_set(
			error, r, HF_ERR_FAILED, NULL, "can't list the guests: %s", strerror(-r));
	for (size_t i = 0; i < n && r == 0; i++) {
		if (hf_update_guest_step(u, now[i].guest.uuid))
			continue;
		r = hf_error_set(error, -ESTALE, HF_ERR_STATE, "abort, then prepare again",
			"this guest was started after the update was prepared");
		hf_error_guest(error, now[i].guest.name);
	}
	hf_registration_list_free(now, n);
	return r;
}

bool hf_update_is_without_libvirt(const struct hf_update *u, struct hf_error *error)
{
	if (!u->keep_loaded || hf_libvirt_has_daemon())
		return false;
	hf_libvirt_check_known(u->manifest->guests, u->manifest->n_guests, error);
	return true;
}

int hf_update_guard(struct hf_update *u, struct hf_error *error)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < u->n_guests; i++) {
		const struct hf_manifest_guest *g = hf_outgoing_guest(u->guests[i]);

		if (!hf_guest_is_libvirt(g))
			continue;
		r = hf_libvirt_guard(g, error);
		if (r < 0)
			hf_error_guest(error, g->name);
	}
	return r;
}

void hf_update_unguard(struct hf_update *u)
{
	for (size_t i = 0; i < u->n_guests; i++)
		hf_libvirt_gate_unguard(hf_outgoing_guest(u->guests[i]));
}

int hf_update_write_manifest(struct hf_update *u, struct hf_error *error)
{
	struct hf_tsc_mark now = hf_tsc_mark();
	size_t size;
	int r = hf_fault(HF_FAULT_MANIFEST, error);

	if (r < 0)
		return r;
	u->manifest->tsc_hz = hf_tsc_hz(&u->agent->start, &now);
	if (u->way.leaves)
		hf_wall_clock_note(u->manifest);
	u->manifest->tsc_jump = hf_tsc_now();
	return hf_manifest_encode(u->manifest, u->manifest_map, u->manifest_capacity, &size, error);
}
