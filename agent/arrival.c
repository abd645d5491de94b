/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/arrival-internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <systemd/sd-daemon.h>

#include "agent/adopt-keep.h"
#include "agent/freeze-note.h"
#include "agent/images.h"
#include "agent/libvirt-gate.h"
#include "agent/log.h"
#include "agent/prepared-note.h"
#include "agent/report.h"
#include "agent/resume-journal.h"
#include "common/fault.h"
#include "common/fd.h"
#include "common/worker.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/libvirt.h"
#include "vmm-glue/spawn.h"

/* Then it is said what is waited for. */
#define SLOW_SPAWNER_US (20 * HF_USEC_PER_SEC)

static void one_done(struct hf_arrival *a)
{
	if (--a->pending == 0)
		sd_event_source_set_enabled(a->advance, SD_EVENT_ONESHOT);
}

static void on_guest_done(struct hf_incoming *in, const struct hf_error *error, void *data)
{
	struct hf_arrival *a = data;
	const struct hf_manifest_guest *g = hf_incoming_guest(in);

	if (error) {
		a->n_held++;
		hf_log(LOG_ERR, g->uuid,
			"%s is held: %s%s%s%s. To do: `holdfast retry %s`, `holdfast "
			"dump %s FILE` or `holdfast release %s`",
			g->name, error->message, error->remedy[0] ? " (" : "", error->remedy,
			error->remedy[0] ? ")" : "", g->name, g->name, g->name);
		hf_agent_progress(a->agent, g->name, "held: %s", error->message);
	} else if (hf_incoming_get_step(in) == HF_IN_COLD_BOOTED) {
		a->n_afresh++;
		hf_agent_progress(
			a->agent, g->name, "started afresh, its memory could not be brought back");
	} else if (hf_incoming_get_step(in) == HF_IN_RELEASED) {
		a->n_released++;
		hf_log(LOG_NOTICE, g->uuid, "%s was released: its memory is given up", g->name);
		hf_agent_progress(a->agent, g->name, "released");
	} else if (hf_incoming_health(in)->unhealthy) {
		hf_agent_progress(a->agent, g->name, "resumed, but not well: %s",
			hf_incoming_health(in)->message);
	} else {
		hf_agent_progress(a->agent, g->name, "%s",
			g->was_running ? "resumed" : "back, paused as before");
	}
	hf_arrival_tell_waiter(a, in, error);
	one_done(a);
}

/* Those with the highest priority of all that are not out of the way yet, and whoever is above. */
static void release_next(struct hf_arrival *a)
{
	uint32_t highest = 0;

	if (a->greeting)
		return;
	for (size_t i = 0; i < a->n_guests; i++) {
		uint32_t priority = hf_incoming_guest(a->guests[i])->policies.priority;

		if (!hf_incoming_has_passed(a->guests[i]))
			highest = HF_MAX(highest, priority);
	}
	for (size_t i = 0; i < a->n_guests; i++) {
		if (hf_incoming_guest(a->guests[i])->policies.priority >= highest)
			hf_incoming_go(a->guests[i]);
	}
}

bool hf_arrival_keeps_libvirt(const struct hf_arrival *a)
{
	for (size_t i = 0; i < a->n_guests; i++)
		if (hf_guest_is_libvirt(hf_incoming_guest(a->guests[i])) &&
			!hf_incoming_has_passed(a->guests[i]))
			return true;
	return false;
}

static void on_guest_passed(struct hf_incoming *in, void *data)
{
	struct hf_arrival *a = data;

	release_next(a);
	if (a->libvirt_kept && !hf_arrival_keeps_libvirt(a)) {
		a->libvirt_kept = false;
		if (hf_agent_is_luo(a->agent))
			sd_notify(0, "READY=1");
		else
			hf_libvirt_gate_open(a->agent);
	}
}

/* ---- the spawner, and the clock ---- */

/* An agent that died has seen to it; somebody may have set it since. */
static bool carries_clock(const struct hf_arrival *a)
{
	return hf_agent_is_luo(a->agent) && a->carrier == a->agent->carrier && !a->agent->again;
}

static void on_greeted(
	int r, const struct hf_wall_clock *clock, const struct hf_error *error, void *data)
{
	struct hf_arrival *a = data;

	a->greeting = hf_spawner_call_free(a->greeting);
	a->slow = sd_event_source_disable_unref(a->slow);
	a->clock = *clock;
	if (carries_clock(a))
		hf_wall_clock_log(r, clock, error);
	/* Without a spawner, too: each guest then says that there is none, and is held. */
	release_next(a);
	one_done(a);
}

static int on_slow(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct hf_arrival *a = userdata;

	hf_agent_progress(a->agent, NULL,
		"guests wait for holdfast-spawn.service, which waits for their disks: see "
		"`systemctl list-jobs`");
	return 0;
}

/*
 * Guests' memory is retrieved meanwhile, so this process can be there before their disks are. The
 * clock is right before the first of them runs.
 */
static void set_clock(struct hf_arrival *a)
{
	bool carried = carries_clock(a);
	struct hf_wall_clock_target target = {0};
	const char *spawner = hf_spawn_spawner();
	struct hf_error e = {0};
	int r;

	if (carried)
		target = hf_wall_clock_target(a->manifest);
	if (!spawner) {
		r = carried ? hf_clock_step_here(&target, &a->clock, &e) : 0;
		if (carried)
			hf_wall_clock_log(r, &a->clock, &e);
		return;
	}
	r = hf_spawner_greet(a->agent->event, spawner, &target, on_greeted, a, &a->greeting, &e);
	if (r < 0) {
		hf_log(LOG_WARNING, NULL, "%s", e.message);
		return;
	}
	a->pending++;
	if (sd_event_add_time_relative(
		    a->agent->event, &a->slow, CLOCK_MONOTONIC, SLOW_SPAWNER_US, 0, on_slow, a) < 0)
		hf_log(LOG_WARNING, NULL, "out of memory");
}

static void on_read_ahead(void *data, const struct hf_readahead_result *result)
{
	struct hf_arrival *a = data;

	a->readahead = *result;
	one_done(a);
}

static void start_readahead(struct hf_arrival *a)
{
	struct hf_readahead_list list = {0};
	int r;

	for (size_t i = 0; i < a->manifest->n_readahead; i++)
		hf_readahead_add(
			&list, a->manifest->readahead[i].path, a->manifest->readahead[i].size);
	if (list.n_files == 0)
		return;
	r = hf_readahead_start(a->agent->event, &list, on_read_ahead, a, NULL);
	if (r < 0)
		hf_log(LOG_WARNING, NULL, "can't read files ahead: %s", strerror(-r));
	else
		a->pending++;
}

/* ---- the end ---- */

static void make_report(struct hf_arrival *a)
{
	struct hf_report_arrival r = {
		.manifest = a->manifest,
		.tsc_shift = a->tsc_shift,
		.guests = a->guests,
		.n_guests = a->n_guests,
		.readahead_bytes = a->readahead.bytes,
		.readahead_ns = a->readahead.ns,
		.clock = a->clock,
	};

	hf_report_arrived(a->agent, &r);
}

static int finish(void *data)
{
	struct hf_arrival *a = data;
	int r = hf_fault(HF_FAULT_FINISH_MANIFEST, &a->error);

	if (r == 0)
		r = hf_session_finish(a->session, &a->error);
	if (r == 0)
		a->session = NULL;
	return r;
}

static void on_finished(void *data, int result)
{
	struct hf_arrival *a = data;

	if (result < 0)
		hf_log(LOG_WARNING, NULL, "the manifest's session stays until the next reboot: %s",
			a->error.message);
	one_done(a);
}

/* All that is this process's; who keeps the guests is not told. */
static void free_own(struct hf_arrival *a)
{
	for (size_t i = 0; i < a->n_guests; i++)
		hf_incoming_free(a->guests[i]);
	free(a->guests);
	free(a->waiters);
	if (a->session)
		hf_session_detach(a->session);
	hf_manifest_free(a->manifest);
	hf_spawner_call_free(a->greeting);
	sd_event_source_disable_unref(a->slow);
	sd_event_source_disable_unref(a->advance);
	free(a);
}

static void arrival_free(struct hf_arrival *a)
{
	struct hf_agent *agent = a->agent;
	struct hf_carrier *carrier = a->carrier;
	bool local = a->local;

	hf_fault(HF_FAULT_FORGET, NULL);
	/* As long as the manifest can be had, an agent has to find there that guests run. */
	if (!a->session)
		hf_resume_journal_clear();
	if (agent->arrival == a)
		agent->arrival = NULL;
	free_own(a);
	/* With an adoption's keeper the manifest goes, also where its session was not finished. */
	if (local) {
		hf_adopt_keep_end(agent);
		hf_resume_journal_clear();
	} else {
		hf_carrier_unkeep(carrier);
	}
}

static void tell_sums(struct hf_arrival *a)
{
	char afresh[48] = "", released[48] = "";

	if (a->n_afresh > 0)
		snprintf(afresh, sizeof(afresh), ", %zu started afresh", a->n_afresh);
	if (a->n_released > 0)
		snprintf(released, sizeof(released), ", %zu released", a->n_released);
	hf_agent_progress(a->agent, NULL, "done: %zu guests resumed%s%s",
		a->n_guests - a->n_afresh - a->n_released, afresh, released);
}

/* Its caller, once: what comes after that is between an operator and the guest. */
static void tell_local_held(struct hf_arrival *a)
{
	hf_arrival_local_fn done = a->local_done;

	a->local_done = NULL;
	if (done)
		done(a->local_data, NULL, hf_incoming_error(a->guests[0]));
}

/* One guest, no update: nothing to report. */
static void end_local(struct hf_arrival *a)
{
	struct hf_vmm_stamps stamps = *hf_incoming_stamps(a->guests[0]);
	hf_arrival_local_fn done = a->local_done;
	void *data = a->local_data;

	hf_agent_event(a->agent, HF_EVENT_ALL_RESUMED);
	if (!done)
		tell_sums(a);
	hf_arrival_tell_done(a);
	/* Before anybody goes on: the next may be adopted right then. */
	arrival_free(a);
	if (done)
		done(data, &stamps, NULL);
}

static int advance(sd_event_source *s, void *userdata)
{
	struct hf_arrival *a = userdata;
	struct hf_agent *agent = a->agent;

	if (a->pending > 0)
		return 0;
	if (a->n_held > 0) {
		if (agent->state == HF_STATE_RESUMING)
			hf_agent_event(agent, HF_EVENT_SOME_HELD);
		if (a->local)
			tell_local_held(a);
		else
			make_report(a);
		hf_agent_progress(agent, NULL, "degraded: %zu of %zu guests are held", a->n_held,
			a->n_guests);
		hf_arrival_tell_done(a);
		return 0;
	}
	if (!a->finishing) {
		/* Told first: an agent that dies after the finish leaves nothing to tell it from.
		 */
		a->finishing = true;
		if (!a->local) {
			hf_fault(HF_FAULT_REPORT, NULL);
			make_report(a);
		}
		a->pending++;
		if (hf_worker_run(agent->event, finish, on_finished, a) < 0)
			on_finished(a, finish(a));
		return 0;
	}
	if (a->local) {
		end_local(a);
		return 0;
	}
	hf_agent_event(agent, HF_EVENT_ALL_RESUMED);
	tell_sums(a);
	hf_arrival_tell_done(a);
	arrival_free(a);
	return 0;
}

/* ---- the beginning ---- */

static int read_manifest(struct hf_arrival *a, struct hf_error *error)
{
	cleanup_close int fd = -EBADF;
	struct hf_inode inode;
	uint64_t size = 0;
	void *map;
	int r;

	r = hf_session_retrieve(a->session, HF_MANIFEST_TOKEN, &fd, error);
	if (r < 0)
		return hf_error_prefix(error, "manifest");
	r = hf_fd_inode(fd, &inode, &size);
	if (r < 0 || size == 0 || size > 2ULL * HF_MANIFEST_MAX_BYTES)
		return hf_error_set(error, -EBADMSG, HF_ERR_DEGRADED, NULL,
			"the manifest has an impossible size");
	map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return hf_error_set(error, -errno, HF_ERR_DEGRADED, NULL,
			"can't map the manifest: %s", strerror(errno));
	r = hf_manifest_decode(map, size, &a->manifest, error);
	munmap(map, size);
	return r;
}

static int make_guests(struct hf_arrival *a)
{
	a->guests = calloc(a->manifest->n_guests ? a->manifest->n_guests : 1, sizeof(*a->guests));
	a->waiters = calloc(a->manifest->n_guests ? a->manifest->n_guests : 1, sizeof(*a->waiters));
	if (!a->guests || !a->waiters)
		return -ENOMEM;
	for (size_t i = 0; i < a->manifest->n_guests; i++) {
		int r = hf_incoming_new(a->agent, a->carrier, a->manifest->guests[i],
			on_guest_passed, on_guest_done, a, &a->guests[a->n_guests]);

		if (r < 0)
			return r;
		a->n_guests++;
	}
	return 0;
}

static void start_guests(struct hf_arrival *a)
{
	a->libvirt_kept = hf_arrival_keeps_libvirt(a);
	/* Without a jump it was stopped: by this agent before it executed itself, or by one that
	 * died since. */
	if (a->libvirt_kept && !hf_agent_is_luo(a->agent)) {
		if (hf_libvirt_gate_take(a->agent) < 0)
			a->libvirt_kept = false;
		for (size_t i = 0; i < a->n_guests; i++)
			if (hf_guest_is_libvirt(hf_incoming_guest(a->guests[i])))
				hf_libvirt_withdraw(hf_incoming_guest(a->guests[i]));
	}
	a->pending += a->n_guests;
	release_next(a);
	for (size_t i = 0; i < a->n_guests; i++)
		hf_incoming_start(a->guests[i]);
}

bool hf_arrival_may_leave(const struct hf_arrival *a)
{
	return !a->manifest && (a->carrier == a->agent->image || hf_carrier_keeper(a->carrier) > 0);
}

/* Nothing was retrieved but the manifest: every guest stays where it is, in the kernel's keeping.
 */
static int stay_degraded(struct hf_arrival *a, int r, struct hf_error *error)
{
	if (a->agent->state == HF_STATE_NORMAL)
		hf_agent_event(a->agent, HF_EVENT_ARRIVED);
	hf_agent_event(a->agent, HF_EVENT_SOME_HELD);
	if (a->carrier == a->agent->image && !a->manifest)
		snprintf(error->remedy, sizeof(error->remedy), "%s",
			error->err == -ENOKEY
				? "give holdfastd the key that guests' images were saved with, as "
				  "the credential " HF_IMAGE_KEY_CREDENTIAL
				  " (see holdfastd(8)), and restart it: the images stay until then"
				: "mend that and restart holdfastd: guests' images stay until "
				  "then");
	else if (!error->remedy[0])
		snprintf(error->remedy, sizeof(error->remedy),
			"no guest is lost yet: don't stop holdfastd and don't reboot, and ask for "
			"help with its log");
	hf_agent_progress(a->agent, NULL, "guests came over, but can't be resumed: %s. To do: %s",
		error->message, error->remedy);
	return r;
}

static struct hf_arrival *arrival_new(struct hf_agent *agent, struct hf_carrier *carrier)
{
	struct hf_arrival *a = calloc(1, sizeof(*a));

	if (a)
		*a = (struct hf_arrival){
			.agent = agent, .carrier = carrier, .local = carrier == agent->kept};
	return a;
}

/* All that is needed of this process to bring guests up. */
static int open_arrival(struct hf_arrival *a, struct hf_error *error)
{
	int r = sd_event_add_defer(a->agent->event, &a->advance, advance, a);

	if (r >= 0)
		r = sd_event_source_set_enabled(a->advance, SD_EVENT_OFF);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_DEGRADED, NULL, "out of memory");
	r = read_manifest(a, error);
	if (r < 0)
		return r;
	/* Before anything is under way: when the last of that ends, the manifest is given up. */
	r = make_guests(a);
	if (r < 0)
		hf_error_set(
			error, r, HF_ERR_DEGRADED, NULL, "can't resume guests: %s", strerror(-r));
	return r;
}

/* Nothing came over. An agent may have died after it gave the manifest up, with this left to do. */
static void clear_away(struct hf_agent *agent, struct hf_carrier *carrier)
{
	if (carrier == agent->kept) {
		hf_adopt_keep_end(agent);
	} else if (carrier != agent->image) {
		hf_resume_journal_clear();
		hf_carrier_unkeep(carrier);
	}
}

static void begin_update(struct hf_arrival *a)
{
	if (a->carrier == a->agent->image)
		a->tsc_shift = hf_wall_clock_tsc_shift(a->manifest);
	/* Notes of the old process: its guests are this update's. */
	hf_freeze_note_remove();
	hf_prepared_note_remove();
	hf_agent_progress(a->agent, NULL, "%zu guests came over from Linux %s",
		a->manifest->n_guests, a->manifest->from_kernel);
}

static int come_in(
	struct hf_agent *agent, struct hf_carrier *carrier, bool readahead, struct hf_error *error)
{
	struct hf_arrival *a = arrival_new(agent, carrier);
	int r;

	if (!a)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	agent->update_begin_ns = hf_agent_now_ns();
	r = hf_carrier_session_retrieve(carrier, HF_MANIFEST_SESSION, &a->session, error);
	if (r == 0)
		r = hf_fault(HF_FAULT_ARRIVE, error);
	if (r == -ENOENT || r == -ENODEV ||
		(r == -EALREADY && (a->local || carrier == agent->image))) {
		hf_error_clear(error);
		clear_away(agent, carrier);
		free(a);
		return 0;
	}
	agent->arrival = a;
	if (r == 0)
		r = hf_fault(HF_FAULT_READ_MANIFEST, error);
	if (r == 0)
		r = open_arrival(a, error);
	if (r < 0)
		return stay_degraded(a, r, error);
	snprintf(agent->update_id, sizeof(agent->update_id), "%s", a->manifest->update_id);
	hf_agent_event(agent, HF_EVENT_ARRIVED);
	if (a->local)
		hf_agent_progress(agent, NULL,
			"an agent before this one died when it adopted a guest: going on");
	else
		begin_update(a);
	set_clock(a);
	if (readahead)
		start_readahead(a);
	start_guests(a);
	if (a->pending == 0)
		sd_event_source_set_enabled(a->advance, SD_EVENT_ONESHOT);
	return 1;
}

int hf_arrival_start(struct hf_agent *agent, bool readahead, struct hf_error *error)
{
	int r = 0;

	/* An adoption that had a way back goes that way: see adopt-keep.h. */
	if (agent->kept && hf_freeze_note_exists())
		hf_adopt_keep_end(agent);
	if (agent->kept)
		r = come_in(agent, agent->kept, false, error);
	/* Before what would clear notes away that an arrival from images needs, too. */
	if (r == 0)
		r = come_in(agent, agent->image, readahead, error);
	if (r == 0)
		return come_in(agent, agent->carrier, readahead, error);
	/* Nobody adopts while an update comes in: its keeper has nothing to do. */
	if (hf_agent_is_luo(agent))
		hf_carrier_unkeep(agent->carrier);
	return r;
}

/* ---- the end of an adoption ---- */

int hf_arrival_new_local(struct hf_agent *agent, hf_arrival_local_fn done, void *data,
	struct hf_arrival **ret, struct hf_error *error)
{
	struct hf_arrival *a = arrival_new(agent, agent->kept);
	int r;

	if (!a)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	a->local_done = done;
	a->local_data = data;
	r = hf_carrier_session_retrieve(a->carrier, HF_MANIFEST_SESSION, &a->session, error);
	if (r == 0)
		r = hf_fault(HF_FAULT_ADOPT_READ_BACK, error);
	if (r == 0)
		r = open_arrival(a, error);
	if (r < 0) {
		hf_arrival_drop_local(a);
		return hf_error_prefix(error, "can't make ready for a new QEMU");
	}
	*ret = a;
	return 0;
}

void hf_arrival_drop_local(struct hf_arrival *a)
{
	if (a)
		free_own(a);
}

void hf_arrival_run_local(struct hf_arrival *a)
{
	a->agent->arrival = a;
	hf_agent_event(a->agent, HF_EVENT_ARRIVED);
	start_guests(a);
}

int64_t hf_arrival_tsc_shift(const struct hf_arrival *a)
{
	return a->tsc_shift;
}

const struct hf_manifest *hf_arrival_manifest(const struct hf_arrival *a)
{
	return a->manifest;
}
