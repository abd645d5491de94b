/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/update.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#include "agent/freeze-note.h"
#include "agent/jump.h"
#include "agent/log.h"
#include "agent/outgoing.h"
#include "agent/report.h"
#include "common/fd.h"
#include "common/worker.h"
#include "memfd-preserve/readahead.h"

/* Room left in the manifest for what is only known in the blackout: stamps, status, state chunks. */
#define MANIFEST_SLACK_BYTES (64 * 1024)

enum stage {
	STAGE_PREPARE,     /* guests preserve, the host loads the target */
	STAGE_PREPARED,    /* waiting for commit */
	STAGE_SYNC,        /* write back what is dirty while guests still run */
	STAGE_SAVE,        /* blackout: guests pause and save */
	STAGE_SETTLE,      /* write back the rest, remount read-only what can be */
	STAGE_QUIT,        /* hold only: end the old QEMUs */
	STAGE_UNDO_GUESTS, /* guests back to how they ran */
	STAGE_UNDO_HOST,   /* manifest and target given up */
};

struct hf_update {
	struct hf_agent *agent;
	enum stage stage;
	bool commit;          /* go on when prepared */
	bool luo;
	size_t pending;       /* chains and workers under way */
	sd_event_source *advance;
	struct hf_error cause; /* the first failure; set means undo */
	struct hf_error undo;  /* the first failure of the undo */
	struct hf_target target;
	struct hf_manifest *manifest;
	struct hf_registration *regs;
	size_t n_regs;
	struct hf_outgoing **guests;
	size_t n_guests;
	struct hf_session *session; /* the manifest's */
	int manifest_fd;
	uint8_t *manifest_map;
	size_t manifest_capacity;
	bool target_loaded;
	bool noted;           /* the freeze note is on disk */
	bool settled;
	struct hf_error host_error; /* of the host's worker */
	struct hf_varlink_call *owner;
	struct hf_varlink_call *aborters[8];
	size_t n_aborters;
};

static int advance(sd_event_source *s, void *userdata);

/* ---- counting what is under way ---- */

static void note_failure(struct hf_update *u, const struct hf_error *error)
{
	struct hf_error *first = u->stage >= STAGE_UNDO_GUESTS ? &u->undo : &u->cause;

	hf_log(LOG_ERR, NULL, "%s%s%s", error->guest, error->guest[0] ? ": " : "", error->message);
	if (!first->err)
		*first = *error;
}

static void one_done(struct hf_update *u)
{
	if (--u->pending == 0)
		sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
}

static void on_guest_done(struct hf_outgoing *out, const struct hf_error *error, void *data)
{
	struct hf_update *u = data;

	if (error && u->stage == STAGE_QUIT) {
		/* Others have quit already, so there is no way back; and as long as this QEMU lives its
		 * RAM must not get a second one. It was killed: it will go. */
		hf_agent_progress(u->agent, error->guest, "still waiting: %s", error->message);
		hf_outgoing_quit(out);
		return;
	}
	if (error)
		note_failure(u, error);
	else
		hf_agent_progress(u->agent, hf_outgoing_guest(out)->name, "%s",
			u->stage == STAGE_UNDO_GUESTS ? "as before"
						      : hf_outgoing_step_name(hf_outgoing_get_step(out)));
	one_done(u);
}

static void on_guest_gone(struct hf_outgoing *out, const struct hf_error *error, void *data)
{
	struct hf_update *u = data;

	hf_update_abort(u->agent, error, NULL, NULL);
}

static void all_guests(struct hf_update *u, void (*start)(struct hf_outgoing *out))
{
	/* Counted before any starts: a chain may end at once. */
	u->pending += u->n_guests;
	for (size_t i = 0; i < u->n_guests; i++)
		start(u->guests[i]);
}

static void in_worker(struct hf_update *u, int (*run)(void *data), void (*done)(void *data, int result))
{
	int r;

	u->pending++;
	r = hf_worker_run(u->agent->event, run, done, u);
	if (r < 0) {
		hf_error_set(&u->host_error, r, HF_ERR_FAILED, NULL, "can't start a thread: %s", strerror(-r));
		done(u, r);
	}
}

static void on_host_done(void *data, int result)
{
	struct hf_update *u = data;

	if (result < 0)
		note_failure(u, &u->host_error);
	one_done(u);
}

/* ---- prepare ---- */

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
	*ret_capacity = (size + MANIFEST_SLACK_BYTES + u->n_regs * 8192 + 4095) & ~(size_t)4095;
	return 0;
}

/* Runs in a worker. */
static int prepare_host(void *data)
{
	struct hf_update *u = data;
	struct hf_error *e = &u->host_error;
	int r = 0;

	if (u->luo) {
		r = hf_kexec_load(&u->target, e);
		u->target_loaded = r == 0;
	}
	if (r == 0)
		r = hf_carrier_session_create(u->agent->carrier, HF_MANIFEST_SESSION, &u->session, e);
	if (r == 0) {
		r = hf_memfd_new("holdfast:manifest", u->manifest_capacity, &u->manifest_fd);
		if (r < 0)
			hf_error_set(e, r, HF_ERR_FAILED, NULL, "can't make the manifest's memfd: %s", strerror(-r));
	}
	if (r == 0)
		r = hf_session_preserve(u->session, HF_MANIFEST_TOKEN, u->manifest_fd, e);
	if (r < 0)
		return r;
	u->manifest_map =
		mmap(NULL, u->manifest_capacity, PROT_READ | PROT_WRITE, MAP_SHARED, u->manifest_fd, 0);
	if (u->manifest_map == MAP_FAILED) {
		u->manifest_map = NULL;
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "can't map the manifest: %s", strerror(errno));
	}
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
		hf_manifest_set(&m->carrier, hf_carrier_name(u->agent->carrier)) < 0 ||
		hf_manifest_set(&m->from_kernel, uts.release) < 0 ||
		hf_manifest_set(&m->target_kernel, u->target.kernel) < 0 ||
		hf_manifest_set(&m->target_initrd, u->target.initrd) < 0 ||
		hf_manifest_set(&m->target_cmdline, u->target.cmdline) < 0)
		return -ENOMEM;
	return 0;
}

static int take_guest(struct hf_update *u, struct hf_registration *reg, struct hf_error *error)
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
		/* Its description moves into the manifest; the registration keeps only the process. */
		*g = reg->guest;
		reg->guest = (struct hf_manifest_guest){0};
		snprintf(session, sizeof(session), "%s-%s", HF_MANIFEST_SESSION, g->uuid);
		r = hf_manifest_set(&g->session, session);
	}
	if (r == 0)
		r = hf_outgoing_new(u->agent, reg, g, on_guest_done, on_guest_gone, u, &u->guests[u->n_guests]);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "out of memory");
	u->n_guests++;
	return 0;
}

static int take_guests(struct hf_update *u, struct hf_error *error)
{
	size_t bad = 0;
	int r;

	r = hf_registration_list(&u->regs, &u->n_regs, &bad);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't list the guests: %s", strerror(-r));
	if (bad > 0)
		return hf_error_set(error, -EBADMSG, HF_ERR_NOT_READY,
			"look at the files in the guests folder under " HF_RUN_DIR_DEFAULT,
			"%zu guest registrations can't be read: those guests would be lost in the jump", bad);
	u->guests = calloc(u->n_regs ? u->n_regs : 1, sizeof(*u->guests));
	if (!u->guests)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	for (size_t i = 0; i < u->n_regs; i++) {
		r = take_guest(u, &u->regs[i], error);
		if (r < 0)
			return r;
	}
	return 0;
}

static void update_free(struct hf_update *u)
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
	hf_target_clear(&u->target);
	sd_event_source_disable_unref(u->advance);
	if (u->agent->update == u)
		u->agent->update = NULL;
	free(u);
}

static int update_new(struct hf_agent *agent, const struct hf_update_request *request,
	struct hf_update **ret, struct hf_error *error)
{
	struct hf_update *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	*u = (struct hf_update){
		.agent = agent,
		.commit = request->commit,
		.luo = hf_agent_is_luo(agent),
		.manifest_fd = -EBADF,
	};
	r = hf_manifest_new(&u->manifest);
	if (r == 0)
		r = sd_event_add_defer(agent->event, &u->advance, advance, u);
	if (r >= 0)
		r = sd_event_source_set_enabled(u->advance, SD_EVENT_OFF);
	if (r >= 0)
		r = hf_agent_new_update_id(agent);
	if (r < 0)
		hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't begin an update: %s", strerror(-r));
	if (r >= 0 && u->luo)
		r = hf_target_new(request->kernel, request->initrd, request->append, request->cmdline,
			&u->target, error);
	if (r >= 0 && fill_manifest(u) < 0)
		r = hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	if (r >= 0)
		r = take_guests(u, error);
	if (r >= 0)
		r = measure_manifest(u, &u->manifest_capacity, error);
	if (r < 0) {
		update_free(u);
		return r;
	}
	*ret = u;
	return 0;
}

static void on_owner_gone(struct hf_varlink_call *call, void *userdata)
{
	struct hf_update *u = userdata;
	struct hf_error e = {0};

	hf_error_set(&e, -ECONNRESET, HF_ERR_ROLLED_BACK, "start again",
		"the client that asked for the update went away");
	hf_update_abort(u->agent, &e, NULL, NULL);
}

static void set_owner(struct hf_update *u, struct hf_varlink_call *call)
{
	u->owner = hf_varlink_call_ref(call);
	hf_varlink_call_on_gone(call, on_owner_gone, u);
	if (hf_varlink_call_wants_more(call))
		hf_agent_watch(u->agent, call);
}

static void drop_owner(struct hf_update *u)
{
	if (!u->owner)
		return;
	hf_varlink_call_on_gone(u->owner, NULL, NULL);
	hf_agent_unwatch(u->agent, u->owner);
	u->owner = hf_varlink_call_unref(u->owner);
}

static void answer_prepared(struct hf_update *u)
{
	struct json_object *params = json_object_new_object();

	hf_json_add_string(params, "update_id", u->agent->update_id);
	hf_varlink_call_reply(u->owner, params);
	drop_owner(u);
}

static int check_state(struct hf_agent *agent, enum hf_state_event event, struct hf_error *error)
{
	enum hf_state next;

	if (hf_state_next(agent->state, event, &next) == 0)
		return 0;
	if (agent->state == HF_STATE_PREPARED || agent->state == HF_STATE_NORMAL)
		return hf_error_set(error, -EPERM, HF_ERR_STATE,
			agent->state == HF_STATE_PREPARED ? "commit or abort the prepared update first"
							  : "prepare an update first",
			"the host is in state `%s`", hf_state_name(agent->state));
	if (agent->state == HF_STATE_DEGRADED)
		return hf_error_set(error, -EPERM, HF_ERR_DEGRADED, "see `holdfast status`",
			"some guest needs an operator first");
	return hf_error_set(error, -EBUSY, HF_ERR_BUSY, "try again when it is over",
		"another update is under way (state `%s`)", hf_state_name(agent->state));
}

int hf_update_prepare(struct hf_agent *agent, const struct hf_update_request *request,
	struct hf_varlink_call *call, struct hf_error *error)
{
	struct hf_update *u = NULL;
	int r;

	r = check_state(agent, HF_EVENT_PREPARE, error);
	if (r < 0)
		return r;
	r = update_new(agent, request, &u, error);
	if (r < 0)
		return r;
	agent->update = u;
	set_owner(u, call);
	hf_agent_event(agent, HF_EVENT_PREPARE);
	hf_agent_progress(agent, NULL, "preparing %zu guests", u->n_guests);
	u->stage = STAGE_PREPARE;
	all_guests(u, hf_outgoing_prepare);
	in_worker(u, prepare_host, on_host_done);
	return 0;
}

/* What the new QEMUs will read from disk: nothing may fail for lack of it. */
static void collect_readahead(struct hf_update *u)
{
	struct hf_readahead_list list = {0};

	for (size_t i = 0; i < u->n_guests; i++) {
		const struct hf_manifest_guest *g = hf_outgoing_guest(u->guests[i]);
		const char **extra = calloc(g->n_argv + 1, sizeof(*extra));
		size_t n = 0;

		/* Kernels, initrds and firmware are named on the command line and closed after reading. */
		for (size_t a = 0; extra && a < g->n_argv; a++) {
			if (g->argv[a][0] == '/')
				extra[n++] = g->argv[a];
		}
		hf_readahead_collect(hf_outgoing_pid(u->guests[i]), extra, &list);
		free(extra);
	}
	for (size_t i = 0; i < list.n_files; i++) {
		struct hf_manifest_file *f = hf_manifest_add_file(u->manifest);

		if (!f || hf_manifest_set(&f->path, list.files[i].path) < 0) {
			u->manifest->n_readahead -= f ? 1 : 0;
			break;
		}
		f->size = list.files[i].size;
	}
	hf_readahead_clear(&list);
}

static void finish_prepare(struct hf_update *u)
{
	u->manifest->tsc_prepared = hf_tsc_now();
	hf_agent_event(u->agent, HF_EVENT_ALL_PREPARED);
	hf_agent_progress(u->agent, NULL, "prepared");
	u->stage = STAGE_PREPARED;
}

/* ---- commit ---- */

static int sync_disks(void *data)
{
	sync();
	return 0;
}

static void on_synced(void *data, int result)
{
	one_done(data);
}

/* A guest that was started, or ended, since prepare would be lost without a word. */
static int check_same_guests(struct hf_update *u, struct hf_error *error)
{
	struct hf_registration *now = NULL;
	size_t n = 0;
	int r;

	r = hf_registration_list(&now, &n, NULL);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't list the guests: %s", strerror(-r));
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

static void start_commit(struct hf_update *u)
{
	struct hf_error e = {0};
	int r;

	hf_agent_event(u->agent, HF_EVENT_COMMIT);
	u->manifest->tsc_commit = hf_tsc_now();
	r = hf_freeze_note_write(u->manifest, &e);
	u->noted = r == 0;
	u->stage = STAGE_SYNC;
	if (r < 0)
		note_failure(u, &e);
	in_worker(u, sync_disks, on_synced);
}

int hf_update_commit(struct hf_agent *agent, struct hf_varlink_call *call, struct hf_error *error)
{
	struct hf_update *u = agent->update;
	int r;

	r = check_state(agent, HF_EVENT_COMMIT, error);
	if (r == 0)
		r = check_same_guests(u, error);
	if (r < 0)
		return r;
	set_owner(u, call);
	start_commit(u);
	return 0;
}

static int settle(void *data)
{
	hf_kexec_settle_disks();
	return 0;
}

static int write_manifest(struct hf_update *u, struct hf_error *error)
{
	struct hf_tsc_mark now = hf_tsc_mark();
	size_t size;

	u->manifest->tsc_hz = hf_tsc_hz(&u->agent->start, &now);
	u->manifest->tsc_jump = hf_tsc_now();
	return hf_manifest_encode(u->manifest, u->manifest_map, u->manifest_capacity, &size, error);
}

/* The last thing this kernel does. Returns only if there was no jump: then everything is undone. */
static void jump_kexec(struct hf_update *u)
{
	struct hf_error e = {0};

	hf_agent_progress(u->agent, NULL, "jumping");
	hf_varlink_server_flush(u->agent->server, 100 * HF_NSEC_PER_MSEC);
	if (write_manifest(u, &e) == 0)
		hf_kexec_jump(&e);
	note_failure(u, &e);
	sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
}

/*
 * The old QEMUs are gone and the guests live in our fds alone: there is nothing to undo any more,
 * only to try again.
 */
static void jump_execve(struct hf_update *u)
{
	struct hf_error e = {0};

	hf_varlink_server_flush(u->agent->server, 100 * HF_NSEC_PER_MSEC);
	hf_jump_execve(u->agent, &e);
	hf_agent_progress(u->agent, NULL, "guests are held, trying again: %s", e.message);
	sleep(1);
	sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
}

/* The manifest has to be whole before the first QEMU ends: after that there is no way back. */
static void start_quit(struct hf_update *u)
{
	struct hf_error e = {0};

	hf_agent_progress(u->agent, NULL, "jumping");
	if (write_manifest(u, &e) < 0) {
		note_failure(u, &e);
		sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
		return;
	}
	u->stage = STAGE_QUIT;
	all_guests(u, hf_outgoing_quit);
	if (u->n_guests == 0)
		sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
}

/* ---- undo ---- */

static int undo_host(void *data)
{
	struct hf_update *u = data;
	int r = 0;

	hf_session_discard(u->session);
	u->session = NULL;
	if (u->settled)
		hf_kexec_unsettle_disks();
	if (u->target_loaded)
		r = hf_kexec_unload(&u->host_error);
	return r;
}

static void answer_all(struct hf_update *u)
{
	struct hf_error e = u->undo.err ? u->undo : u->cause;

	/* Nothing that failed here has cost a guest anything, unless the undo failed too. */
	snprintf(e.name, sizeof(e.name), "%s", u->undo.err ? HF_ERR_DEGRADED : HF_ERR_ROLLED_BACK);
	if (u->owner)
		hf_varlink_call_error(u->owner, &e, NULL);
	drop_owner(u);
	for (size_t i = 0; i < u->n_aborters; i++) {
		if (u->undo.err)
			hf_varlink_call_error(u->aborters[i], &e, NULL);
		else
			hf_varlink_call_reply(u->aborters[i], NULL);
		hf_varlink_call_unref(u->aborters[i]);
	}
	u->n_aborters = 0;
}

static void start_undo(struct hf_update *u)
{
	hf_agent_event(u->agent, HF_EVENT_ABORT);
	hf_agent_progress(u->agent, u->cause.guest[0] ? u->cause.guest : NULL, "rolling back: %s",
		u->cause.message);
	u->stage = STAGE_UNDO_GUESTS;
	all_guests(u, hf_outgoing_undo);
	if (u->n_guests == 0)
		sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
}

static void finish_undo(struct hf_update *u)
{
	struct hf_agent *agent = u->agent;

	if (u->noted)
		hf_freeze_note_remove();
	hf_agent_event(agent, u->undo.err ? HF_EVENT_UNDO_FAILED : HF_EVENT_UNDONE);
	hf_agent_progress(agent, NULL, "%s: %s",
		u->undo.err ? "rolled back, but a guest needs you" : "rolled back, guests run as before",
		u->undo.err ? u->undo.message : u->cause.message);
	hf_report_rolled_back(agent, u->manifest, u->undo.err ? &u->undo : &u->cause);
	answer_all(u);
	update_free(u);
}

/* ---- from stage to stage ---- */

static int advance(sd_event_source *s, void *userdata)
{
	struct hf_update *u = userdata;

	if (u->pending > 0)
		return 0;
	if (u->cause.err && u->stage < STAGE_UNDO_GUESTS) {
		start_undo(u);
		return 0;
	}
	switch (u->stage) {
	case STAGE_PREPARE:
		collect_readahead(u);
		finish_prepare(u);
		if (u->commit)
			start_commit(u);
		else
			answer_prepared(u);
		break;
	case STAGE_PREPARED:
		break;
	case STAGE_SYNC:
		u->stage = STAGE_SAVE;
		all_guests(u, hf_outgoing_save);
		if (u->n_guests == 0)
			sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
		break;
	case STAGE_SAVE:
		if (u->luo) {
			u->stage = STAGE_SETTLE;
			u->settled = true;
			in_worker(u, settle, on_synced);
		} else {
			start_quit(u);
		}
		break;
	case STAGE_SETTLE:
		jump_kexec(u);
		break;
	case STAGE_QUIT:
		jump_execve(u);
		break;
	case STAGE_UNDO_GUESTS:
		u->stage = STAGE_UNDO_HOST;
		in_worker(u, undo_host, on_host_done);
		break;
	case STAGE_UNDO_HOST:
		finish_undo(u);
		break;
	}
	return 0;
}

int hf_update_abort(struct hf_agent *agent, const struct hf_error *cause, struct hf_varlink_call *call,
	struct hf_error *error)
{
	struct hf_update *u = agent->update;
	struct hf_error asked = {0};

	if (!u || u->stage == STAGE_QUIT)
		return hf_error_set(error, -EPERM, HF_ERR_STATE, NULL, "there is no update that can be undone");
	if (call && u->n_aborters == HF_ARRAY_SIZE(u->aborters))
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY, NULL, "too many callers wait for the undo");
	if (call)
		u->aborters[u->n_aborters++] = hf_varlink_call_ref(call);
	if (!cause) {
		hf_error_set(&asked, -ECANCELED, HF_ERR_ROLLED_BACK, NULL, "aborted on request");
		cause = &asked;
	}
	if (u->stage < STAGE_UNDO_GUESTS && !u->cause.err)
		note_failure(u, cause);
	/* What is under way comes to its end first; with nothing under way the undo starts now. */
	if (u->pending == 0)
		sd_event_source_set_enabled(u->advance, SD_EVENT_ONESHOT);
	return 0;
}

const char *hf_update_guest_step(const struct hf_update *update, const char *uuid)
{
	for (size_t i = 0; i < update->n_guests; i++) {
		if (strcmp(hf_outgoing_guest(update->guests[i])->uuid, uuid) == 0)
			return hf_outgoing_step_name(hf_outgoing_get_step(update->guests[i]));
	}
	return NULL;
}

const struct hf_manifest *hf_update_manifest(const struct hf_update *update)
{
	return update->manifest;
}
