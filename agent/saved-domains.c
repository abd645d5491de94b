/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/saved-domains.h"

#include <stdio.h>
#include <string.h>

#include "agent/arrival.h"
#include "agent/check.h"
#include "agent/log.h"
#include "agent/report.h"
#include "common/fd.h"
#include "common/json.h"
#include "vmm-glue/libvirt.h"

#define FILE_NAME "saved-domains"
#define FILE_MAX_BYTES (1u << 20)

/* libvirt reads the memory back from disk. Where this is too short the next try finds it running.
 */
#define START_TIMEOUT_NS (300 * HF_NSEC_PER_SEC)
/* How long it is tried, counted from the first try; and how often. */
#define PATIENCE_S 600
/* A save that nobody waits for any more begins within 30 s, or not at all: so long libvirt has it
 * wait for what else is done with the domain. */
#define UNSURE_NS (40 * HF_NSEC_PER_SEC)
#define FIRST_PAUSE_US (HF_USEC_PER_SEC)
#define LONGEST_PAUSE_US (30 * HF_USEC_PER_SEC)
/* Given up, it reads libvirt's pid files at most so often. */
#define LOOK_NS (2 * HF_NSEC_PER_SEC)

struct domain {
	struct hf_saved_domains *all;
	struct hf_saved_name id;
	struct hf_libvirt_call *call;
	bool over;	 /* it runs, or is none of ours any more */
	bool unsure;	 /* libvirt may still have a save of it before itself */
	uint64_t ran_ns; /* since when it was seen to run then; 0: not yet */
	struct hf_error error;
};

struct hf_saved_domains {
	struct hf_agent *agent;
	struct domain **domains;
	size_t n;
	size_t pending; /* calls under way */
	bool claimed;	/* to stay saved */
	bool starting;	/* tries are under way, or pause */
	bool given_up;
	uint64_t deadline_ns;
	uint64_t pause_us;
	uint64_t look_ns; /* not before that */
	sd_event_source *timer;
	hf_saved_done_fn done;
	void *data;
};

/* ---- the file ---- */

static void path_of_file(char *path, size_t size)
{
	snprintf(path, size, "%s/" FILE_NAME, hf_state_dir());
}

/* Return: whether that is a domain; its name is NULL for lack of memory. */
static bool parse_line(const char *line, size_t len, struct hf_saved_name *ret)
{
	char uuid[HF_UUID_CHARS] = "";

	if (len <= HF_UUID_CHARS || line[HF_UUID_CHARS - 1] != ' ' || memchr(line, 0, len))
		return false;
	memcpy(uuid, line, HF_UUID_CHARS - 1);
	if (!hf_uuid_parse(uuid, ret->uuid))
		return false;
	ret->name = strndup(line + HF_UUID_CHARS, len - HF_UUID_CHARS);
	return true;
}

static void free_names(struct hf_saved_name *names, int n)
{
	for (int i = 0; names && i < n; i++)
		free(names[i].name);
	free(names);
}

int hf_saved_domains_parse(
	const void *data, size_t size, struct hf_saved_name **ret, size_t *ret_bad)
{
	const char *line = data, *end = line + size, *stop;
	struct hf_saved_name *names = NULL;
	int n = 0;

	*ret_bad = 0;
	for (; line < end; line = stop + (stop < end)) {
		struct hf_saved_name *more =
			reallocarray(names, (size_t)n + 1, sizeof(struct hf_saved_name));

		stop = memchr(line, '\n', (size_t)(end - line));
		stop = stop ? stop : end;
		if (more)
			names = more;
		if (more && !parse_line(line, (size_t)(stop - line), &names[n]))
			++*ret_bad;
		else if (!more || !names[n++].name) {
			free_names(names, n);
			return -ENOMEM;
		}
	}
	*ret = names;
	return n;
}

/* Return: 0 with what it should be on disk; -errno. */
static int write_file(const struct hf_saved_domains *s, struct hf_error *e)
{
	cleanup_free char *text = NULL;
	char path[4096];
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	int r = f ? 0 : -ENOMEM;

	for (size_t i = 0; f && i < s->n; i++)
		fprintf(f, "%s %s\n", s->domains[i]->id.uuid, s->domains[i]->id.name);
	if (f && fclose(f) != 0)
		r = -ENOMEM;
	if (r == 0)
		r = hf_mkdir_p(hf_state_dir(), 0755);
	path_of_file(path, sizeof(path));
	if (r == 0 && s->n == 0)
		r = unlink(path) < 0 && errno != ENOENT ? -errno : 0;
	else if (r == 0)
		r = hf_file_write_atomic(path, text, size, 0600);
	return r < 0 ? hf_error_set(e, r, HF_ERR_FAILED, "see that there is room for it",
			       "can't note in %s which domains libvirt saves: %s", path,
			       strerror(-r))
		     : 0;
}

/* ---- the list ---- */

static void domain_free(struct domain *d)
{
	hf_libvirt_call_free(d->call);
	free(d->id.name);
	free(d);
}

static struct hf_saved_domains *get(struct hf_agent *agent)
{
	if (!agent->saved_domains) {
		agent->saved_domains = calloc(1, sizeof(*agent->saved_domains));
		if (agent->saved_domains)
			agent->saved_domains->agent = agent;
	}
	return agent->saved_domains;
}

static int add(struct hf_saved_domains *s, const char *uuid, const char *name)
{
	struct domain **more = reallocarray(s->domains, s->n + 1, sizeof(struct domain *));
	struct domain *d = calloc(1, sizeof(*d));

	if (more)
		s->domains = more;
	if (d)
		d->id.name = strdup(name);
	if (!more || !d || !d->id.name) {
		free(d);
		return -ENOMEM;
	}
	d->all = s;
	snprintf(d->id.uuid, sizeof(d->id.uuid), "%s", uuid);
	s->domains[s->n++] = d;
	return 0;
}

static struct domain *find(const struct hf_saved_domains *s, const char *uuid)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->domains[i]->id.uuid, uuid) == 0)
			return s->domains[i];
	return NULL;
}

static void forget_those_over(struct hf_saved_domains *s)
{
	struct hf_error e = {0};
	size_t kept = 0, n = s->n;

	for (size_t i = 0; i < n; i++) {
		if (s->domains[i]->over)
			domain_free(s->domains[i]);
		else
			s->domains[kept++] = s->domains[i];
	}
	s->n = kept;
	/* At worst another agent finds them running. */
	if (kept < n && write_file(s, &e) < 0)
		hf_log(LOG_WARNING, NULL, "%s", e.message);
}

static struct json_object *domain_json(
	const struct domain *d, const char *outcome, const char *message)
{
	struct json_object *o = json_object_new_object();

	hf_json_add_string(o, "uuid", d->id.uuid);
	hf_json_add_string(o, "name", d->id.name);
	hf_json_add_string(o, "outcome", outcome);
	hf_json_add_string(o, "message", message && message[0] ? message : NULL);
	return o;
}

struct json_object *hf_saved_domains_json(const struct hf_agent *agent)
{
	const struct hf_saved_domains *s = agent->saved_domains;
	struct json_object *list;

	if (!s || s->n == 0)
		return NULL;
	list = json_object_new_array();
	for (size_t i = 0; i < s->n; i++)
		hf_json_append(list, domain_json(s->domains[i], s->given_up ? "failed" : "saved",
					     s->domains[i]->error.message));
	return list;
}

static void report(const struct domain *d, const char *outcome, const char *message)
{
	cleanup_json struct json_object *o = domain_json(d, outcome, message);

	hf_report_amend_domain(d->all->agent, o);
}

/* ---- saving ---- */

static int first_error(const struct hf_saved_domains *s, struct hf_error *ret)
{
	for (size_t i = 0; i < s->n && !ret->err; i++)
		*ret = s->domains[i]->error;
	return ret->err;
}

static void on_saved(const struct hf_error *error, void *data)
{
	struct domain *d = data;
	struct hf_saved_domains *s = d->all;
	struct hf_error first = {0};
	hf_saved_done_fn done = s->done;

	d->call = hf_libvirt_call_free(d->call);
	/* What libvirt itself says is all that it does. */
	d->unsure = error && error->err != -EIO;
	d->ran_ns = 0;
	if (error) {
		d->error = *error;
		hf_error_guest(&d->error, d->id.name);
		hf_agent_progress(s->agent, d->id.name, "not saved: %s", error->message);
	} else {
		hf_agent_progress(s->agent, d->id.name,
			"saved by libvirt: the update is made without it, and it is started again "
			"afterwards");
	}
	if (--s->pending > 0)
		return;
	first_error(s, &first);
	s->done = NULL;
	if (done)
		done(first.err ? &first : NULL, s->data);
}

static int add_all(struct hf_saved_domains *s, const struct hf_survey_guest *guests, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		if (hf_check_fate(&guests[i]) == HF_FATE_SAVED &&
			!find(s, guests[i].reg.guest.uuid))
			r = add(s, guests[i].reg.guest.uuid, guests[i].reg.guest.name);
	return r;
}

static void save(struct hf_saved_domains *s, const struct hf_survey_guest *guest)
{
	struct domain *d = find(s, guest->reg.guest.uuid);
	struct hf_error e = {0};
	int r;

	hf_log(LOG_NOTICE, d->id.uuid,
		"%s can't come along: having libvirt save it to disk, as is its policy",
		d->id.name);
	hf_agent_progress(s->agent, d->id.name, "being saved by libvirt");
	s->pending++;
	r = hf_libvirt_put_away(s->agent->event, d->id.uuid, true,
		guest->policy.shutdown_timeout_ns, on_saved, d, &d->call);
	if (r < 0) {
		hf_error_set(&e, r, HF_ERR_FAILED, NULL, "can't have it saved: %s", strerror(-r));
		on_saved(&e, d);
	}
}

int hf_saved_domains_save(struct hf_agent *agent, const struct hf_survey *survey,
	hf_saved_done_fn done, void *data, struct hf_error *error)
{
	struct hf_saved_domains *s = get(agent);
	size_t n, before = s ? s->n : 0;
	const struct hf_survey_guest *guests = hf_survey_guests(survey, &n);
	int r = s ? add_all(s, guests, n) : -ENOMEM;

	if (r < 0)
		hf_error_set(error, r, HF_ERR_FAILED, NULL, "out of memory");
	/* Before the first of them is: whatever happens to this process then, they are known. */
	if (r == 0)
		r = write_file(s, error);
	if (r < 0) {
		while (s && s->n > before)
			domain_free(s->domains[--s->n]);
		return r;
	}
	s->timer = sd_event_source_disable_unref(s->timer);
	s->claimed = true;
	s->starting = s->given_up = false;
	s->data = data;
	for (size_t i = 0; i < s->n; i++)
		hf_error_clear(&s->domains[i]->error);
	s->pending++;
	for (size_t i = 0; i < n; i++)
		if (hf_check_fate(&guests[i]) == HF_FATE_SAVED)
			save(s, &guests[i]);
	s->pending--;
	if (s->pending == 0)
		return first_error(s, error);
	s->done = done;
	return 0;
}

void hf_saved_domains_let_go(struct hf_agent *agent)
{
	if (agent->saved_domains)
		agent->saved_domains->claimed = false;
}

/* ---- starting ---- */

static void start_all(struct hf_saved_domains *s);

static int on_timer(sd_event_source *source, uint64_t usec, void *data)
{
	struct hf_saved_domains *s = data;

	s->timer = sd_event_source_disable_unref(s->timer);
	if (s->starting)
		start_all(s);
	return 0;
}

static int wake_after(struct hf_saved_domains *s, uint64_t usec)
{
	return sd_event_add_time_relative(
		s->agent->event, &s->timer, CLOCK_MONOTONIC, usec, 0, on_timer, s);
}

static void give_up(struct hf_saved_domains *s)
{
	s->starting = false;
	for (size_t i = 0; i < s->n; i++) {
		s->domains[i]->over = s->domains[i]->ran_ns != 0;
		if (s->domains[i]->over)
			report(s->domains[i], "running", NULL);
	}
	forget_those_over(s);
	s->given_up = true;
	for (size_t i = 0; i < s->n; i++) {
		const struct domain *d = s->domains[i];

		hf_log(LOG_ERR, d->id.uuid,
			"%s was saved by libvirt for an update and could not be started again: %s. "
			"Nothing of it is lost: its saved image is kept. To do: `virsh start %s`, "
			"or restart holdfastd",
			d->id.name, d->error.message, d->id.name);
		hf_agent_progress(
			s->agent, d->id.name, "saved, and not started again: %s", d->error.message);
		report(d, "failed", d->error.message);
	}
}

static void end_round(struct hf_saved_domains *s)
{
	forget_those_over(s);
	if (s->n == 0) {
		s->starting = false;
		hf_agent_progress(s->agent, NULL, "domains that libvirt had saved are settled");
		return;
	}
	/* An update that begins now is refused, and one that began would have them saved. */
	if (hf_agent_now_ns() >= s->deadline_ns || wake_after(s, s->pause_us) < 0)
		give_up(s);
	s->pause_us = HF_MIN(s->pause_us * 2, LONGEST_PAUSE_US);
}

static void on_started(const struct hf_error *error, void *data)
{
	struct domain *d = data;
	struct hf_saved_domains *s = d->all;
	bool gone = !error && hf_libvirt_call_is_gone(d->call);
	bool ran = !error && hf_libvirt_call_ran(d->call);

	d->call = hf_libvirt_call_free(d->call);
	if (ran && d->unsure && d->ran_ns == 0)
		d->ran_ns = hf_agent_now_ns();
	if (ran && d->unsure && hf_agent_now_ns() - d->ran_ns < UNSURE_NS) {
		if (--s->pending == 0)
			end_round(s);
		return;
	}
	if (error && strcmp(d->error.message, error->message) != 0) {
		d->error = *error;
		hf_log(LOG_WARNING, d->id.uuid,
			"%s was saved by libvirt for an update and can't be started again yet: %s",
			d->id.name, error->message);
	} else if (gone) {
		hf_log(LOG_WARNING, d->id.uuid,
			"%s was saved by libvirt for an update; now it does not run and has no "
			"saved image: somebody has removed that, or shut the domain down since",
			d->id.name);
		report(d, "gone", "it has no saved image any more");
	} else if (!error) {
		hf_agent_progress(s->agent, d->id.name, "as before the update, by libvirt");
		report(d, "running", NULL);
	}
	d->over = !error;
	if (--s->pending == 0)
		end_round(s);
}

static void start_all(struct hf_saved_domains *s)
{
	struct hf_error e = {0};

	/* Counted first. */
	s->pending += s->n;
	for (size_t i = 0, n = s->n; i < n; i++) {
		struct domain *d = s->domains[i];
		int r = hf_libvirt_put_away(s->agent->event, d->id.uuid, false, START_TIMEOUT_NS,
			on_started, d, &d->call);

		if (r < 0) {
			hf_error_set(&e, r, HF_ERR_FAILED, NULL, "out of memory");
			on_started(&e, d);
			/* The last one ends the round, after which the list is another one. */
		}
	}
}

/* Somebody has started them. */
static void look_for_those_that_run(struct hf_saved_domains *s)
{
	for (size_t i = 0; i < s->n; i++) {
		struct hf_manifest_guest guest = {.name = s->domains[i]->id.name};

		s->domains[i]->over = hf_libvirt_pid(&guest) > 0;
	}
	forget_those_over(s);
}

static uint64_t patience_ns(void)
{
	const char *text = getenv("HOLDFAST_LIBVIRT_START_SECONDS");
	unsigned long long seconds = text ? strtoull(text, NULL, 10) : 0;

	return (seconds ? HF_MIN(seconds, 86400ULL) : PATIENCE_S) * HF_NSEC_PER_SEC;
}

void hf_saved_domains_tend(struct hf_agent *agent)
{
	struct hf_saved_domains *s = agent->saved_domains;

	if (!s || s->n == 0 || s->pending > 0 || s->claimed || s->starting || s->timer)
		return;
	if (s->given_up) {
		if (hf_agent_now_ns() >= s->look_ns) {
			s->look_ns = hf_agent_now_ns() + LOOK_NS;
			look_for_those_that_run(s);
		}
		return;
	}
	/* libvirt's daemon has to stay away until other domains are back. */
	if (agent->update || agent->stopping ||
		(agent->arrival && hf_arrival_keeps_libvirt(agent->arrival)))
		return;
	hf_agent_progress(
		agent, NULL, "%zu domains that libvirt saved are to be started again", s->n);
	s->starting = true;
	s->pause_us = FIRST_PAUSE_US;
	s->deadline_ns = hf_agent_now_ns() + patience_ns();
	start_all(s);
}

bool hf_saved_domains_busy(const struct hf_agent *agent)
{
	const struct hf_saved_domains *s = agent->saved_domains;

	return s && (s->pending > 0 || s->starting);
}

/* ---- life ---- */

void hf_saved_domains_load(struct hf_agent *agent)
{
	struct hf_saved_domains *s;
	struct hf_saved_name *names = NULL;
	cleanup_free char *text = NULL;
	char path[4096];
	size_t bad = 0, size = 0;
	int n, n_names, r;

	path_of_file(path, sizeof(path));
	r = hf_file_read(path, FILE_MAX_BYTES, &text, &size);
	if (r == -ENOENT)
		return;
	n = r == 0 ? hf_saved_domains_parse(text, size, &names, &bad) : r;
	n_names = n;
	s = names ? get(agent) : NULL;
	for (int i = 0; s && i < n_names; i++)
		if (!find(s, names[i].uuid) && add(s, names[i].uuid, names[i].name) < 0)
			n = -ENOMEM;
	/* The agent before may have died in the middle. */
	for (size_t i = 0; s && i < s->n; i++)
		s->domains[i]->unsure = true;
	/* Begins in a turn of the loop, when all else is under way. */
	if (names && (!s || wake_after(s, FIRST_PAUSE_US) < 0))
		r = -ENOMEM;
	if (r < 0 || n < 0 || bad > 0)
		hf_log(LOG_ERR, NULL,
			"can't read all of %s, which says what domains libvirt saved for an "
			"update: see "
			"`virsh list --all --managed-save`",
			path);
	free_names(names, n_names);
}

void hf_saved_domains_free(struct hf_saved_domains *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++)
		domain_free(s->domains[i]);
	free(s->domains);
	sd_event_source_disable_unref(s->timer);
	free(s);
}
