/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/health.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <json-c/json.h>

#include "agent/guest-clock.h"
#include "agent/log.h"
#include "qmp/guest-agent.h"
#include "vmm-glue/agent-channel.h"
#include "vmm-glue/spawn.h"

#define SETPRIV "/usr/bin/setpriv"
#define PROBE_TIMEOUT_NS HF_NSEC_PER_SEC
/* For an agent that may be of use, but whose silence says nothing. */
#define CLOCK_TIMEOUT_NS (5 * HF_NSEC_PER_SEC)
#define MAX_SETS 2
/* A guest that needs longer to set its clock is not just busy. */
#define MAX_LATE_NS (500 * (int64_t)HF_NSEC_PER_MSEC)
#define KILL_TIMEOUT_NS (2 * HF_NSEC_PER_SEC)
#define QMP_TIMEOUT_NS (5 * HF_NSEC_PER_SEC)

struct hf_health {
	struct hf_agent *agent;
	struct hf_vmm *vmm;
	const struct hf_manifest_guest *guest;
	uint64_t blackout_ns;
	hf_health_done_fn done;
	hf_health_probe_fn probed; /* before the update; else NULL */
	void *data;
	struct hf_health_result result;
	struct hf_agent_channel channel;
	struct hf_guest_agent *ga;
	int64_t asked_ns;	/* the host's clock when the guest was asked for its own */
	int n_sets;		/* of the guest's clock */
	sd_event_source *timer; /* the next step, or what limits the one under way */
	struct hf_child *command;
	bool late; /* it was killed for its time */
};

static const char *const clock_names[] = {
	[HF_HEALTH_CLOCK_NONE] = NULL,
	[HF_HEALTH_CLOCK_CAUGHT_UP] = "caught-up",
	[HF_HEALTH_CLOCK_LAGS] = "lags",
	[HF_HEALTH_CLOCK_FROZEN] = "frozen",
};

const char *hf_health_clock_name(enum hf_health_clock clock)
{
	return clock_names[clock];
}

static int64_t host_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * (int64_t)HF_NSEC_PER_SEC + ts.tv_nsec;
}

static void finish(struct hf_health *h)
{
	h->ga = hf_guest_agent_free(h->ga);
	sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
	h->done(&h->result, h->data);
}

HF_PRINTF(2, 3)
static void unhealthy(struct hf_health *h, const char *fmt, ...)
{
	va_list ap;

	h->result.unhealthy = true;
	va_start(ap, fmt);
	vsnprintf(h->result.message, sizeof(h->result.message), fmt, ap);
	va_end(ap);
	finish(h);
}

static int limit(struct hf_health *h, uint64_t ns, sd_event_time_handler_t fn)
{
	h->timer = sd_event_source_disable_unref(h->timer);
	return sd_event_add_time_relative(
		h->agent->event, &h->timer, CLOCK_MONOTONIC, ns / HF_NSEC_PER_USEC, 0, fn, h);
}

/* ---- its command ---- */

int hf_health_split(const char *command, char ***ret)
{
	size_t size = strlen(command) + 1, n = 0;
	/* Words have at least one character and one blank between them. */
	char **words = malloc((size / 2 + 2) * sizeof(*words) + size);
	char *text, *save = NULL;

	if (!words)
		return -ENOMEM;
	text = (char *)(words + size / 2 + 2);
	memcpy(text, command, size);
	for (char *w = strtok_r(text, " \t", &save); w; w = strtok_r(NULL, " \t", &save))
		words[n++] = w;
	words[n] = NULL;
	if (n == 0) {
		free(words);
		return -EINVAL;
	}
	*ret = words;
	return 0;
}

static void on_exited(struct hf_child *child, void *data)
{
	struct hf_health *h = data;
	char how[256];

	hf_child_describe(child, how, sizeof(how));
	h->command = NULL;
	if (h->late)
		unhealthy(h, "its health-command did not end in time");
	else if (hf_child_succeeded(child))
		finish(h);
	else if (hf_child_status(child) > 0)
		unhealthy(h, "its health-command says no (exit status %d)", hf_child_status(child));
	else
		unhealthy(h, "its health-command did not end well: it %s", how);
	hf_child_release(child);
}

/* Stuck in the kernel. It has been killed, and ends when it can. */
static int on_stuck(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct hf_health *h = userdata;

	hf_child_release(TAKE_PTR(h->command));
	unhealthy(h, "its health-command did not end in time, nor when it was killed");
	return 0;
}

static int on_late(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct hf_health *h = userdata;

	/* Its end is told by its descriptor. */
	h->late = true;
	hf_child_kill_group(h->command);
	if (limit(h, KILL_TIMEOUT_NS, on_stuck) < 0)
		on_stuck(NULL, 0, h);
	return 0;
}

/* A command of the launcher's may be the word of the guest's own user: it has no more rights. */
static bool of_launcher(const struct hf_manifest_guest *g)
{
	const char *key = hf_policy_key_name(HF_POLICY_HEALTH_COMMAND);
	size_t n = strlen(key);

	for (size_t i = 0; i < g->n_settings; i++)
		if (strncmp(g->settings[i], key, n) == 0 && g->settings[i][n] == '=')
			return true;
	return false;
}

/*
 * As a VMM is started, and so by the spawner where there is one: in the agent's sandbox a command
 * could reach no network, and write next to nowhere.
 */
static int start(struct hf_health *h, char **argv, char **env, struct hf_error *error)
{
	const struct hf_spawn_spec spec = {
		.program = argv[0],
		.argv = argv,
		.envp = env,
		.uid = geteuid(),
		.gid = getegid(),
		.umask = 022,
		/* To the journal, as what the agent itself says. */
		.output_fd = STDERR_FILENO,
	};

	return hf_spawn(h->agent->event, &spec, on_exited, h, &h->command, error);
}

static int start_for(struct hf_health *h, char **command, char **env, struct hf_error *error)
{
	const struct hf_manifest_guest *g = h->guest;
	char reuid[32], regid[32], setpriv[] = SETPRIV, groups[] = "--clear-groups",
				   privs[] = "--no-new-privs", end[] = "--";
	char *prefix[] = {setpriv, reuid, regid, groups, privs, end};
	cleanup_free char **argv = NULL;
	size_t n = 0;

	if (!of_launcher(g) || g->uid == 0 || geteuid() != 0)
		return start(h, command, env, error);
	while (command[n])
		n++;
	argv = calloc(HF_ARRAY_SIZE(prefix) + n + 1, sizeof(*argv));
	if (!argv)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	snprintf(reuid, sizeof(reuid), "--reuid=%u", g->uid);
	snprintf(regid, sizeof(regid), "--regid=%u", g->gid);
	memcpy(argv, prefix, sizeof(prefix));
	memcpy(argv + HF_ARRAY_SIZE(prefix), command, n * sizeof(*command));
	return start(h, argv, env, error);
}

static void run_command(struct hf_health *h)
{
	const struct hf_manifest_guest *g = h->guest;
	char uuid[80], name[160],
		path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	char *env[] = {path, uuid, name, NULL};
	cleanup_free char **argv = NULL;
	struct hf_error e = {0};
	int r;

	h->ga = hf_guest_agent_free(h->ga);
	if (!g->policies.health_command) {
		finish(h);
		return;
	}
	snprintf(uuid, sizeof(uuid), "HOLDFAST_GUEST_UUID=%s", g->uuid);
	snprintf(name, sizeof(name), "HOLDFAST_GUEST_NAME=%s", g->name);
	r = hf_health_split(g->policies.health_command, &argv);
	if (r == 0)
		r = start_for(h, argv, env, &e);
	if (r == 0) {
		r = limit(h, g->policies.resume_timeout_ns, on_late);
		if (r < 0) {
			hf_child_kill_group(h->command);
			hf_child_release(TAKE_PTR(h->command));
		}
	}
	if (r < 0)
		unhealthy(h, "its health-command can't be run: %s",
			e.message[0] ? e.message : strerror(-r));
}

/* ---- its agent ---- */

/* @why it could not be asked, or did not answer. */
static void no_agent(struct hf_health *h, const char *why, bool counts)
{
	snprintf(h->result.clock_message, sizeof(h->result.clock_message), "%s", why);
	if (h->probed) {
		h->ga = hf_guest_agent_free(h->ga);
		sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
		h->probed(false, h->data);
	} else if (counts && h->guest->agent_answered) {
		unhealthy(h, "its guest agent answered before the update: %s", why);
	} else {
		run_command(h);
	}
}

static void ask_time(struct hf_health *h);

static void clock_left(struct hf_health *h, const char *why)
{
	snprintf(h->result.clock_message, sizeof(h->result.clock_message), "%s", why);
	run_command(h);
}

static void on_set(struct hf_guest_agent *a, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_health *h = data;

	/*
	 * qemu-ga sets the clock first and then the RTC, with hwclock: where the guest has no
	 * hwclock or no /dev/rtc it complains of that, and the clock is right.
	 */
	if (err == -EREMOTEIO)
		snprintf(h->result.clock_message, sizeof(h->result.clock_message), "%s",
			error->message);
	if (err < 0 && err != -EREMOTEIO) {
		clock_left(h, error->message);
		return;
	}
	h->n_sets++;
	ask_time(h);
}

/* @late_ns: how long it takes until the guest's agent has done so, as far as is known. */
static void set_time(struct hf_health *h, int64_t late_ns)
{
	long long ns = host_now_ns() + late_ns;
	char text[128];

	snprintf(text, sizeof(text),
		"{\"execute\": \"guest-set-time\", \"arguments\": {\"time\": %lld}}", ns);
	if (hf_guest_agent_command(h->ga, text, on_set, h) < 0)
		clock_left(h, "its guest agent can't be asked any more");
}

static void on_time(struct hf_guest_agent *a, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_health *h = data;
	int64_t host = host_now_ns(), doubt_ns;
	enum hf_guest_clock_act act;

	if (err < 0 || !json_object_is_type(ret, json_type_int)) {
		clock_left(h, err < 0 ? error->message : "its guest agent tells no time");
		return;
	}
	doubt_ns = (host - h->asked_ns) / 2;
	act = hf_guest_clock_judge(json_object_get_int64(ret), h->asked_ns + doubt_ns,
		h->blackout_ns, &h->result.lag_ns);
	/* Set again by what may be an error of reading, it might get worse. */
	if (h->n_sets > 0 && h->result.lag_ns >= -HF_MIN(doubt_ns, MAX_LATE_NS) &&
		h->result.lag_ns <= HF_MIN(doubt_ns, MAX_LATE_NS))
		act = HF_GUEST_CLOCK_RIGHT;
	if (act == HF_GUEST_CLOCK_RIGHT) {
		h->result.clock = HF_HEALTH_CLOCK_CAUGHT_UP;
		h->result.clock_message[0] = 0;
		run_command(h);
	} else if (h->n_sets > 0 && h->n_sets < MAX_SETS && h->result.lag_ns > 0 &&
		   h->result.lag_ns <= MAX_LATE_NS) {
		/* It was late, as in a guest that is busy: as much sooner then. */
		set_time(h, h->result.lag_ns);
	} else if (h->n_sets > 0 && h->result.clock_message[0]) {
		run_command(h);
	} else if (h->n_sets > 0) {
		clock_left(h, "its guest agent has set the clock, but not to the right time");
	} else if (act == HF_GUEST_CLOCK_SET) {
		set_time(h, 0);
	} else {
		clock_left(h, "it had another time than the host before the update: not touched");
	}
}

static void ask_time(struct hf_health *h)
{
	h->asked_ns = host_now_ns();
	if (hf_guest_agent_command(h->ga, "{\"execute\": \"guest-get-time\"}", on_time, h) < 0)
		clock_left(h, "its guest agent can't be asked any more");
}

static void on_synced(struct hf_guest_agent *a, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_health *h = data;

	if (err < 0) {
		no_agent(h, error->message, true);
	} else if (h->probed) {
		h->ga = hf_guest_agent_free(h->ga);
		h->probed(true, h->data);
	} else if (h->guest->policies.clock == HF_CLOCK_CATCH_UP) {
		ask_time(h);
	} else {
		run_command(h);
	}
}

static void open_channel(struct hf_health *h)
{
	uint64_t ns = h->guest->policies.resume_timeout_ns;
	struct hf_error e = {0};

	if (h->probed)
		ns = PROBE_TIMEOUT_NS;
	else if (!h->guest->agent_answered)
		ns = HF_MIN(ns, CLOCK_TIMEOUT_NS);
	if (hf_guest_agent_open(h->agent->event, h->channel.path, hf_vmm_pid(h->vmm), ns, on_synced,
		    h, &h->ga, &e) < 0)
		no_agent(h, e.message, e.err != -EBUSY);
}

static void on_channel(struct hf_vmm *vmm, const struct hf_vmm_channel *channel, void *data)
{
	struct hf_health *h = data;

	sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
	if (!channel->known)
		no_agent(h, "its QEMU does not tell of its guest agent's channel", true);
	else if (channel->taken)
		no_agent(h, "another program is connected to its guest agent's channel", false);
	else if (!channel->open && !h->guest->agent_answered)
		no_agent(h, "no agent in the guest has opened its channel", false);
	else
		open_channel(h);
}

static int on_silent_qmp(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct hf_health *h = userdata;

	hf_vmm_forget_channel(h->vmm);
	no_agent(h, "its QEMU does not answer", true);
	return 0;
}

static int on_begin(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct hf_health *h = userdata;
	const struct hf_manifest_guest *g = h->guest;
	struct hf_error e = {0};

	if (!h->probed && !g->agent_answered && g->policies.clock == HF_CLOCK_FROZEN)
		run_command(h);
	else if (hf_agent_channel_find(g, &h->channel, &e) < 0)
		no_agent(h, e.message, true);
	else if (limit(h, QMP_TIMEOUT_NS, on_silent_qmp) < 0 ||
		 hf_vmm_ask_channel(h->vmm, h->channel.label, on_channel, h) < 0)
		no_agent(h, "its QEMU can't be asked", true);
	return 0;
}

/* ---- begin and end ---- */

static int begin(struct hf_health *h, struct hf_agent *agent, struct hf_vmm *vmm,
	const struct hf_manifest_guest *guest, struct hf_health **ret)
{
	int r;

	h->agent = agent;
	h->vmm = vmm;
	h->guest = guest;
	r = limit(h, 0, on_begin);
	if (r < 0) {
		hf_health_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

int hf_health_start(struct hf_agent *agent, struct hf_vmm *vmm,
	const struct hf_manifest_guest *guest, uint64_t blackout_ns, hf_health_done_fn done,
	void *data, struct hf_health **ret)
{
	struct hf_health *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->blackout_ns = blackout_ns;
	h->done = done;
	h->data = data;
	h->result.lag_ns = (int64_t)blackout_ns;
	h->result.clock = guest->policies.clock == HF_CLOCK_FROZEN ? HF_HEALTH_CLOCK_FROZEN
								   : HF_HEALTH_CLOCK_LAGS;
	return begin(h, agent, vmm, guest, ret);
}

int hf_health_probe(struct hf_agent *agent, struct hf_vmm *vmm,
	const struct hf_manifest_guest *guest, hf_health_probe_fn done, void *data,
	struct hf_health **ret)
{
	struct hf_health *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->probed = done;
	h->data = data;
	return begin(h, agent, vmm, guest, ret);
}

struct hf_health *hf_health_free(struct hf_health *h)
{
	if (!h)
		return NULL;
	hf_vmm_forget_channel(h->vmm);
	hf_guest_agent_free(h->ga);
	if (h->command) {
		hf_child_kill_group(h->command);
		hf_child_release(h->command);
	}
	sd_event_source_disable_unref(h->timer);
	free(h);
	return NULL;
}
