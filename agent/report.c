/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/report.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

#include "agent/log.h"
#include "agent/saved-domains.h"
#include "common/fd.h"
#include "common/json.h"
#include "common/tsc.h"

#define MAX_REPORTS 200
#define MAX_TOTAL_BYTES (64LL * 1024 * 1024)
#define MAX_REPORT_BYTES (16 * 1024 * 1024)

static void add_phase(
	struct json_object *phases, const char *name, uint64_t from, uint64_t to, uint64_t hz)
{
	struct json_object *p;

	if (!from || to < from || !hz)
		return;
	p = json_object_new_object();
	hf_json_add_string(p, "name", name);
	hf_json_add_int(p, "duration_ns", hf_tsc_to_ns(to - from, hz));
	hf_json_append(phases, p);
}

struct json_object *hf_report_phases(const struct hf_manifest_guest *g,
	const struct hf_vmm_stamps *up, uint64_t kernel_start, uint64_t agent_start, uint64_t hz,
	uint64_t *ret_total_ns)
{
	struct json_object *phases = json_object_new_array();
	uint64_t boot = kernel_start ? kernel_start : agent_start;
	uint64_t end = up->resumed;

	add_phase(phases, "pause", g->tsc_pause, g->tsc_paused, hz);
	add_phase(phases, "save", g->tsc_paused, g->tsc_saved, hz);
	add_phase(phases, "jump", g->tsc_saved, boot, hz);
	add_phase(phases, "boot", boot, agent_start, hz);
	add_phase(phases, "agent", agent_start, up->spawn, hz);
	add_phase(phases, "vmm-start", up->spawn, up->ready, hz);
	add_phase(phases, "load", up->ready, up->loaded, hz);
	add_phase(phases, "resume", up->loaded, up->resumed, hz);
	*ret_total_ns =
		g->tsc_pause && end > g->tsc_pause && hz ? hf_tsc_to_ns(end - g->tsc_pause, hz) : 0;
	return phases;
}

static const char *outcome_name(enum hf_incoming_step step, bool was_running, bool unhealthy)
{
	if (unhealthy && step == HF_IN_RESUMED)
		return "unhealthy";
	if (step == HF_IN_HELD)
		return "held";
	if (step == HF_IN_RELEASED)
		return "released";
	if (step == HF_IN_COLD_BOOTED)
		return "cold-booted";
	return was_running ? "resumed" : "paused";
}

static void add_guest_clock(struct json_object *o, const struct hf_health_result *health)
{
	const char *name = hf_health_clock_name(health->clock);

	if (!name)
		return;
	hf_json_add_string(o, "clock", name);
	hf_json_add_int(o, "clock_lag_ns", health->lag_ns);
	hf_json_add_string(
		o, "clock_message", health->clock_message[0] ? health->clock_message : NULL);
}

/* In the manifest's time. 0 stays: it didn't happen. */
static uint64_t shifted(uint64_t tsc, int64_t shift)
{
	return tsc ? tsc + (uint64_t)shift : 0;
}

static struct hf_vmm_stamps stamps_of(
	const struct hf_report_arrival *a, const struct hf_incoming *in)
{
	struct hf_vmm_stamps s = *hf_incoming_stamps(in);

	s.spawn = shifted(s.spawn, a->tsc_shift);
	s.ready = shifted(s.ready, a->tsc_shift);
	s.loaded = shifted(s.loaded, a->tsc_shift);
	s.resumed = shifted(s.resumed, a->tsc_shift);
	return s;
}

static struct json_object *guest_report(const struct hf_report_arrival *a,
	const struct hf_incoming *in, uint64_t kernel_start, uint64_t agent_start)
{
	const struct hf_vmm_stamps stamps = stamps_of(a, in);
	const struct hf_manifest_guest *g = hf_incoming_guest(in);
	bool held = hf_incoming_get_step(in) == HF_IN_HELD;
	bool afresh = hf_incoming_get_step(in) == HF_IN_COLD_BOOTED;
	const struct hf_health_result *health = hf_incoming_health(in);
	struct json_object *o = json_object_new_object();
	uint64_t total, ram = 0;

	for (size_t i = 0; i < g->n_ram; i++)
		ram += g->ram[i].size;
	hf_json_add_string(o, "uuid", g->uuid);
	hf_json_add_string(o, "name", g->name);
	hf_json_add_string(o, "outcome",
		outcome_name(hf_incoming_get_step(in), g->was_running, health->unhealthy));
	hf_json_add(o, "phases",
		hf_report_phases(
			g, &stamps, kernel_start, agent_start, a->manifest->tsc_hz, &total));
	hf_json_add_int(o, "blackout_ns", total);
	hf_json_add_int(o, "ram_bytes", ram);
	hf_json_add_int(o, "state_bytes", g->state_length);
	hf_json_add_int(o, "preserve_ns", g->preserve_ns);
	hf_json_add_int(o, "retrieve_ns", hf_incoming_retrieve_ns(in));
	add_guest_clock(o, health);
	/* Of a cold boot that another agent began it isn't known any more. */
	hf_json_add_string(o, "message",
		(held || afresh) && hf_incoming_error(in)->err ? hf_incoming_error(in)->message
		: health->unhealthy			       ? health->message
							       : NULL);
	return o;
}

/* Of a clock that the jump sets back by up to a second: for people, and never to be subtracted. */
static void add_time(struct json_object *o)
{
	time_t now = time(NULL);
	char text[32];
	struct tm tm;

	if (gmtime_r(&now, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) > 0)
		hf_json_add_string(o, "time", text);
}

static struct json_object *report_head(struct hf_agent *agent, const struct hf_manifest *m,
	const char *outcome, const char *message)
{
	struct json_object *o = json_object_new_object(), *domains;
	struct utsname uts;

	uname(&uts);
	hf_json_add_string(o, "id", m->update_id);
	add_time(o);
	hf_json_add_string(o, "outcome", outcome);
	hf_json_add_string(o, "carrier", m->carrier);
	hf_json_add_string(o, "from_kernel", m->from_kernel);
	hf_json_add_string(o, "to_kernel", uts.release);
	hf_json_add_string(o, "from_version", m->writer);
	hf_json_add_string(o, "to_version", "holdfast " HF_VERSION);
	hf_json_add_string(o, "message", message);
	hf_json_add_int(o, "agent_rss_bytes", hf_agent_rss_bytes());
	domains = hf_saved_domains_json(agent);
	if (domains)
		hf_json_add(o, "domains", domains);
	return o;
}

static void make_path(char *path, size_t size, const char *id)
{
	snprintf(path, size, "%s/reports%s%s%s", hf_state_dir(), id ? "/" : "", id ? id : "",
		id ? ".json" : "");
}

static int oldest_first(const struct dirent **a, const struct dirent **b)
{
	char path[4096];
	struct stat sa = {0}, sb = {0};

	snprintf(path, sizeof(path), "%s/reports/%s", hf_state_dir(), (*a)->d_name);
	stat(path, &sa);
	snprintf(path, sizeof(path), "%s/reports/%s", hf_state_dir(), (*b)->d_name);
	stat(path, &sb);
	if (sa.st_mtim.tv_sec != sb.st_mtim.tv_sec)
		return sa.st_mtim.tv_sec < sb.st_mtim.tv_sec ? -1 : 1;
	return sa.st_mtim.tv_nsec < sb.st_mtim.tv_nsec ? -1
						       : sa.st_mtim.tv_nsec > sb.st_mtim.tv_nsec;
}

static int is_report(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return n == HF_UUID_BYTES - 1 + strlen(".json") && strcmp(e->d_name + n - 5, ".json") == 0;
}

static int list_reports(struct dirent ***ret)
{
	char path[4096];

	make_path(path, sizeof(path), NULL);
	return scandir(path, ret, is_report, oldest_first);
}

static void free_list(struct dirent **list, int n)
{
	for (int i = 0; i < n; i++)
		free(list[i]);
	if (n >= 0)
		free(list);
}

/* The newest stays, however large it is. */
static void prune(void)
{
	struct dirent **list = NULL;
	int n = list_reports(&list), kept = 0;
	int64_t total = 0;

	for (int i = n - 1; i >= 0; i--) {
		char path[4096];
		struct stat st = {0};

		snprintf(path, sizeof(path), "%s/reports/%s", hf_state_dir(), list[i]->d_name);
		stat(path, &st);
		if (kept > 0 && (kept == MAX_REPORTS || total + st.st_size > MAX_TOTAL_BYTES)) {
			unlink(path);
			continue;
		}
		kept++;
		total += st.st_size;
	}
	free_list(list, n);
}

static void store(struct hf_agent *agent, struct json_object *report)
{
	const char *id = hf_json_get_string(report, "id", "");
	const char *text = json_object_to_json_string_ext(report, JSON_C_TO_STRING_PRETTY);
	char path[4096];
	int r;

	make_path(path, sizeof(path), NULL);
	r = hf_mkdir_p(path, 0755);
	make_path(path, sizeof(path), id);
	if (r == 0)
		r = text ? hf_file_write_atomic(path, text, strlen(text), 0644) : -ENOMEM;
	if (r < 0)
		hf_log(LOG_WARNING, NULL, "can't keep the report as %s: %s", path, strerror(-r));
	else
		snprintf(agent->last_update_id, sizeof(agent->last_update_id), "%s", id);
	prune();
}

static void add_host_times(struct json_object *o, const struct hf_report_arrival *a,
	uint64_t kernel_start, uint64_t agent_start)
{
	const struct hf_manifest *m = a->manifest;
	uint64_t first = UINT64_MAX, last = 0;
	struct json_object *phases = json_object_new_array();

	for (size_t i = 0; i < a->n_guests; i++) {
		uint64_t pause = hf_incoming_guest(a->guests[i])->tsc_pause;
		uint64_t resumed = stamps_of(a, a->guests[i]).resumed;

		first = pause ? HF_MIN(first, pause) : first;
		last = HF_MAX(last, resumed);
	}
	add_phase(phases, "prepare", m->tsc_prepare, m->tsc_prepared, m->tsc_hz);
	add_phase(phases, "freeze", m->tsc_commit, m->tsc_jump, m->tsc_hz);
	add_phase(
		phases, "jump", m->tsc_jump, kernel_start ? kernel_start : agent_start, m->tsc_hz);
	add_phase(phases, "boot", kernel_start, agent_start, m->tsc_hz);
	add_phase(phases, "resume", agent_start, last, m->tsc_hz);
	hf_json_add(o, "phases", phases);
	hf_json_add_int(o, "blackout_ns",
		last > first && m->tsc_hz ? hf_tsc_to_ns(last - first, m->tsc_hz) : 0);
}

void hf_report_arrived(struct hf_agent *agent, const struct hf_report_arrival *a)
{
	const struct hf_manifest *m = a->manifest;
	uint64_t kernel_start =
		shifted(hf_agent_is_luo(agent) ? hf_tsc_kernel_start(m->tsc_hz) : 0, a->tsc_shift);
	uint64_t agent_start = shifted(agent->start.tsc, a->tsc_shift);
	cleanup_json struct json_object *o = NULL;
	struct json_object *guests = json_object_new_array();
	size_t held = 0;

	for (size_t i = 0; i < a->n_guests; i++) {
		held += hf_incoming_get_step(a->guests[i]) == HF_IN_HELD;
		hf_json_append(guests, guest_report(a, a->guests[i], kernel_start, agent_start));
	}
	o = report_head(agent, m, held ? "degraded" : "done", NULL);
	add_host_times(o, a, kernel_start, agent_start);
	hf_json_add(o, "guests", guests);
	hf_json_add_int(o, "readahead_bytes", a->readahead_bytes);
	hf_json_add_int(o, "readahead_ns", a->readahead_ns);
	if (a->clock.known) {
		hf_json_add_int(o, "clock_correction_ns", a->clock.step_ns);
		hf_json_add_int(o, "clock_error_ns", (int64_t)a->clock.error_ns);
	}
	store(agent, o);
}

void hf_report_rolled_back(
	struct hf_agent *agent, const struct hf_manifest *m, const struct hf_error *cause)
{
	cleanup_json struct json_object *o = report_head(agent, m, "rolled-back", cause->message);

	hf_json_add(o, "guests", json_object_new_array());
	hf_json_add(o, "phases", json_object_new_array());
	hf_json_add_int(o, "blackout_ns", 0);
	hf_json_add_int(o, "readahead_bytes", 0);
	hf_json_add_int(o, "readahead_ns", 0);
	store(agent, o);
}

int hf_report_newest_id(char ret_id[HF_UUID_BYTES])
{
	struct dirent **list = NULL;
	int n = list_reports(&list);

	if (n > 0)
		snprintf(ret_id, HF_UUID_BYTES, "%.36s", list[n - 1]->d_name);
	free_list(list, n);
	return n > 0 ? 0 : -ENOENT;
}

int hf_report_ids(char (**ret_ids)[HF_UUID_BYTES], size_t *ret_n)
{
	struct dirent **list = NULL;
	int n = list_reports(&list);
	char(*ids)[HF_UUID_BYTES];

	if (n < 0 && errno != ENOENT)
		return -errno;
	ids = calloc(n > 0 ? (size_t)n : 1, sizeof(*ids));
	for (int i = 0; ids && i < n; i++)
		snprintf(ids[i], sizeof(ids[i]), "%.36s", list[n - 1 - i]->d_name);
	free_list(list, n);
	if (!ids)
		return -ENOMEM;
	*ret_ids = ids;
	*ret_n = n > 0 ? (size_t)n : 0;
	return 0;
}

int hf_report_load(const char *id, struct json_object **ret)
{
	cleanup_free char *text = NULL;
	char newest[HF_UUID_BYTES];
	char path[4096];
	size_t size;
	int r;

	if (!id) {
		r = hf_report_newest_id(newest);
		if (r < 0)
			return r;
		id = newest;
	}
	/* It becomes part of a path. */
	if (strlen(id) != HF_UUID_BYTES - 1 || strspn(id, "0123456789abcdef-") != strlen(id))
		return -EINVAL;
	make_path(path, sizeof(path), id);
	r = hf_file_read(path, MAX_REPORT_BYTES, &text, &size);
	return r < 0 ? r : hf_json_parse(text, size, 16, ret);
}

void hf_report_amend_domain(struct hf_agent *agent, struct json_object *domain)
{
	cleanup_json struct json_object *o = NULL;
	const char *uuid = hf_json_get_string(domain, "uuid", "");
	struct json_object *domains;

	if (hf_report_load(NULL, &o) < 0)
		return;
	domains = hf_json_get_array(o, "domains");
	for (size_t i = 0; i < hf_json_array_size(domains); i++) {
		struct json_object *d = json_object_array_get_idx(domains, i);

		const char *outcome = hf_json_get_string(d, "outcome", "");

		/* Once settled it stays: another time it is for an update without a report. */
		if (strcmp(hf_json_get_string(d, "uuid", ""), uuid) != 0 ||
			(strcmp(outcome, "saved") != 0 && strcmp(outcome, "failed") != 0))
			continue;
		json_object_array_put_idx(domains, i, json_object_get(domain));
		store(agent, o);
	}
}
