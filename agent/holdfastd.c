/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfastd: the agent's main function.
 *
 * Order at start: readings of the clock first (they end the blackout's boot phase), then the lock,
 * then the carrier and what came over, and only then the control socket: nobody can interfere with
 * an update that is arriving.
 */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signal.h>
#include <systemd/sd-daemon.h>

#include "agent/adopt-keep.h"
#include "agent/adopt.h"
#include "agent/agent.h"
#include "agent/arrival.h"
#include "agent/config.h"
#include "agent/freeze-note.h"
#include "agent/images.h"
#include "agent/inhibit.h"
#include "agent/kexec.h"
#include "agent/libvirt-gate.h"
#include "agent/log.h"
#include "agent/recheck.h"
#include "agent/saved-domains.h"
#include "agent/service.h"
#include "agent/update.h"
#include "agent/vmm-upgrade-note.h"
#include "agent/vmm-upgrade-request.h"
#include "common/fd.h"
#include "memfd-preserve/luo.h"
#include "vmm-glue/installed.h"
#include "vmm-glue/disks.h"
#include "vmm-glue/libvirt.h"
#include "vmm-glue/registration.h"
#include "vmm-glue/spawn.h"
#include "vmm-glue/spawner.h"

enum { EXIT_USAGE = 2, EXIT_NOT_READY = 3, EXIT_TEMPFAIL = 75 };

struct options {
	const char *carrier;
	const char *socket;
	const char *spawner;
	uint64_t state_bytes;
	bool readahead;
};

static void usage(FILE *out)
{
	fprintf(out,
		"Usage: holdfastd [OPTION...]\n\n"
		"Carries virtual machines over a change of the host kernel.\n\n"
		"      --carrier luo|hold  how memory crosses: through kexec (luo, default), "
		"or kept by\n"
		"                          the agent while QEMU is replaced and the kernel "
		"stays (hold)\n"
		"      --socket PATH       control socket (default: $HOLDFAST_SOCKET, or "
		"control.sock in\n"
		"                          the runtime folder)\n"
		"      --spawner PATH      have VMMs started by the spawner at this socket, which "
		"then are not\n"
		"                          in this process's sandbox\n"
		"      --be-spawner        be the spawner, at the socket that systemd passes\n"
		"      --no-readahead      don't read the VMMs' files ahead after the jump\n"
		"      --state-bytes N     first room for a guest's device state, in place of "
		"what is\n"
		"                          measured; it grows when that is too little\n"
		"      --debug             log more\n"
		"      --check-config      print the policies in effect, or what is wrong in "
		"the\n"
		"                          configuration, and exit with 0 or 1\n"
		"      --print-states      print the state tables as Markdown and exit\n"
		"      --version           print the version and exit\n"
		"      --help              print this and exit\n");
}

/* Whole pages, 4 KiB to 1 GiB: what a memfd can sensibly start with. */
static int parse_bytes(const char *text, uint64_t *ret)
{
	char *end;
	unsigned long long n = strtoull(text, &end, 10);

	if (*end || n < 4096 || n > 1ULL << 30 || n % 4096 != 0) {
		fprintf(stderr, "holdfastd: --state-bytes takes a multiple of 4096, up to 1 GiB\n");
		return -EINVAL;
	}
	*ret = n;
	return 0;
}

static int check_config(void)
{
	cleanup_config struct hf_config *config = hf_config_load();
	size_t total = 0;

	if (!config) {
		fprintf(stderr, "holdfastd: out of memory\n");
		return EXIT_FAILURE;
	}
	hf_config_problems(config, &(size_t){0}, &total);
	if (total > 0)
		hf_config_print_problems(config, stderr);
	else
		hf_config_print(config, stdout);
	return total > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Guests are not in the way of a typo: it is told, and only the next update waits for its end. */
static void tell_config_problems(void)
{
	cleanup_config struct hf_config *config = hf_config_load();
	const struct hf_config_problem *p;
	size_t n = 0;

	if (!config)
		return;
	p = hf_config_problems(config, &n, NULL);
	for (size_t i = 0; i < n; i++)
		hf_log(LOG_WARNING, NULL, "%s:%u: %s", p[i].file, p[i].line, p[i].message);
}

static int be_spawner(void)
{
	struct hf_error e = {0};

	if (hf_spawner_run(NULL, &e) == 0)
		return EXIT_SUCCESS;
	hf_log(LOG_ERR, NULL, "%s", e.message);
	return EXIT_FAILURE;
}

/* Return: -1 to go on, else an exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
	enum {
		OPT_CARRIER = 256,
		OPT_SOCKET,
		OPT_SPAWNER,
		OPT_BE_SPAWNER,
		OPT_NO_READAHEAD,
		OPT_STATE_BYTES,
		OPT_DEBUG,
		OPT_CHECK_CONFIG,
		OPT_STATES,
		OPT_VERSION,
		OPT_HELP
	};
	static const struct option longs[] = {
		{"carrier", required_argument, NULL, OPT_CARRIER},
		{"socket", required_argument, NULL, OPT_SOCKET},
		{"spawner", required_argument, NULL, OPT_SPAWNER},
		{"be-spawner", no_argument, NULL, OPT_BE_SPAWNER},
		{"no-readahead", no_argument, NULL, OPT_NO_READAHEAD},
		{"state-bytes", required_argument, NULL, OPT_STATE_BYTES},
		{"debug", no_argument, NULL, OPT_DEBUG},
		{"check-config", no_argument, NULL, OPT_CHECK_CONFIG},
		{"print-states", no_argument, NULL, OPT_STATES},
		{"version", no_argument, NULL, OPT_VERSION},
		{"help", no_argument, NULL, OPT_HELP},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		switch (c) {
		case OPT_CARRIER:
			o->carrier = optarg;
			break;
		case OPT_SOCKET:
			o->socket = optarg;
			break;
		case OPT_SPAWNER:
			o->spawner = optarg;
			break;
		case OPT_BE_SPAWNER:
			return be_spawner();
		case OPT_NO_READAHEAD:
			o->readahead = false;
			break;
		case OPT_STATE_BYTES:
			if (parse_bytes(optarg, &o->state_bytes) < 0)
				return EXIT_USAGE;
			break;
		case OPT_DEBUG:
			hf_log_debug_on();
			break;
		case OPT_CHECK_CONFIG:
			return check_config();
		case OPT_STATES:
			hf_state_print(stdout);
			return 0;
		case OPT_VERSION:
			printf("holdfastd %s\n", HF_VERSION);
			return 0;
		case OPT_HELP:
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc || (strcmp(o->carrier, "luo") != 0 && strcmp(o->carrier, "hold") != 0)) {
		fprintf(stderr, "holdfastd: %s\n",
			optind < argc ? "unexpected argument" : "the carrier is luo or hold");
		usage(stderr);
		return EXIT_USAGE;
	}
	return -1;
}

/* Two agents would fight over monitors and sessions. The lock dies with its process. */
static int take_lock(int *ret_fd, struct hf_error *error)
{
	cleanup_close int fd = -EBADF;
	char path[4096];
	int r;

	r = hf_mkdir_p(hf_run_dir(), 0755);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED,
			"run holdfastd as root, or set HOLDFAST_RUN_DIR", "can't make %s: %s",
			hf_run_dir(), strerror(-r));
	snprintf(path, sizeof(path), "%s/agent.lock", hf_run_dir());
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return hf_error_set(error, -errno, HF_ERR_FAILED,
			"run holdfastd as root, or set HOLDFAST_RUN_DIR", "can't open %s: %s", path,
			strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY, "use that one, or stop it first",
			"another holdfastd runs on this host (it holds %s)", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int make_carriers(struct hf_agent *agent, const char *name, struct hf_error *error)
{
	int r = strcmp(name, "hold") == 0 ? hf_carrier_hold_new(&agent->carrier, error)
					  : hf_carrier_luo_new(NULL, &agent->carrier, error);

	return r < 0 ? r : hf_images_new(agent, error);
}

/* Its keeper is there only while guests come in from images. */
static int find_images(struct hf_agent *agent, struct hf_error *error)
{
	bool found = false;
	char path[4096];
	int r;

	snprintf(path, sizeof(path), "%s/keeper-image.sock", hf_run_dir());
	r = hf_carrier_keep(agent->image, path, &found, error);
	agent->again = agent->again || found;
	return r;
}

/* With `luo`, guests come back without a keeper, too; only this process must not die on the way. */
static int start_keeper(struct hf_agent *agent, struct hf_error *error)
{
	bool luo = hf_agent_is_luo(agent);
	char path[4096];
	int r;

	snprintf(path, sizeof(path), "%s/keeper.sock", hf_run_dir());
	r = hf_carrier_keep(agent->carrier, path, &agent->again, error);
	if (r < 0 && luo) {
		hf_log(LOG_WARNING, NULL, "%s", error->message);
		hf_error_clear(error);
		r = 0;
	}
	if (r >= 0)
		r = find_images(agent, error);
	if (agent->again && luo)
		hf_log(LOG_NOTICE, NULL,
			"an agent before this one died with guests on their way in: going on");
	return r < 0 ? r : hf_adopt_keep_find(agent, error);
}

static int on_signal(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
	struct hf_agent *agent = userdata;
	struct hf_error e = {0};

	if (agent->arrival && hf_arrival_may_leave(agent->arrival)) {
		hf_log(LOG_NOTICE, NULL, "stopping: guests that came over stay for the next agent");
		return sd_event_exit(sd_event_source_get_event(s), 0);
	}
	if (agent->arrival) {
		/* Held guests live in this process's fds: going away would give their RAM up. */
		hf_log(LOG_ERR, NULL, "not stopping: guests are held here, see `holdfast status`");
		return 0;
	}
	if (agent->update && hf_update_is_handed_over(agent->update)) {
		hf_log(LOG_NOTICE, NULL, "not stopping: guests' memory is kept here for the jump");
		return 0;
	}
	if (agent->adopt || agent->vmm_upgrades) {
		hf_error_set(
			&e, -ECANCELED, HF_ERR_ROLLED_BACK, NULL, "holdfastd was asked to stop");
		if (agent->adopt)
			hf_adopt_cancel(agent->adopt, &e);
		if (agent->vmm_upgrades)
			hf_vmm_upgrades_cancel(agent->vmm_upgrades, &e);
		agent->stopping = true;
		return 0;
	}
	if (!agent->update)
		return sd_event_exit(sd_event_source_get_event(s), 0);
	hf_log(LOG_NOTICE, NULL, "asked to stop: undoing the update first");
	hf_error_set(&e, -ECANCELED, HF_ERR_ROLLED_BACK, NULL, "holdfastd was asked to stop");
	agent->stopping = true;
	hf_update_abort(agent, &e, NULL, NULL);
	return 0;
}

/* Leaves once the undo that a signal asked for is over. */
static int on_post(sd_event_source *s, void *userdata)
{
	struct hf_agent *agent = userdata;

	hf_saved_domains_tend(agent);
	if (agent->stopping && !agent->update && !agent->adopt && !agent->vmm_upgrades &&
		!agent->arrival)
		sd_event_exit(sd_event_source_get_event(s), 0);
	return 0;
}

static int watch_signals(struct hf_agent *agent)
{
	sigset_t mask;
	int r;

	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = sd_event_add_signal(agent->event, NULL, SIGTERM, on_signal, agent);
	if (r >= 0)
		r = sd_event_add_signal(agent->event, NULL, SIGINT, on_signal, agent);
	if (r >= 0)
		r = sd_event_add_post(agent->event, NULL, on_post, agent);
	return r;
}

/* What an agent left behind that died in this kernel with an update on its way out. */
static void undo_for_dead(struct hf_agent *agent)
{
	struct hf_error e = {0};
	int r;

	/* Images can't be taken back on a disk that is read-only. */
	if (hf_disks_left_settled() && hf_disks_settle(false, &e) < 0)
		hf_log(LOG_ERR, NULL, "an agent that died left file systems read-only: %s",
			e.message);
	hf_images_recover(agent);
	hf_freeze_note_recover(agent);
	hf_vmm_upgrade_recover(agent);
	/* Nobody's memory is on its way: also after a power failure in the middle of an update. */
	hf_libvirt_unguard_all();
	hf_error_clear(&e);
	r = hf_kexec_recover(&e);
	if (r > 0)
		hf_log(LOG_NOTICE, NULL,
			"unloaded the target kernel of an update whose agent died");
	else if (r < 0)
		hf_log(LOG_ERR, NULL, "an agent that died left a target kernel loaded: %s",
			e.message);
}

static int start(struct hf_agent *agent, const struct options *o, struct hf_error *error)
{
	int r = sd_event_new(&agent->event);

	if (r >= 0)
		r = watch_signals(agent);
	/* Where the service manager asks for it: a hung agent may have guests paused. */
	if (r >= 0)
		r = sd_event_set_watchdog(agent->event, true);
	if (r < 0)
		return hf_error_set(
			error, r, HF_ERR_FAILED, NULL, "can't set up the loop: %s", strerror(-r));
	r = hf_installed_new(agent->event, &agent->installed);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "out of memory");
	r = hf_stream_ring_new(agent->event, &agent->ring, error);
	if (r < 0)
		return r;
	/* Before the arrival, whose report has them. */
	hf_saved_domains_load(agent);
	r = hf_arrival_start(agent, o->readahead, error);
	if (r < 0) {
		hf_log(LOG_ERR, NULL, "%s. %s", error->message, error->remedy);
		hf_error_clear(error);
	}
	if (r == 0)
		undo_for_dead(agent);
	/* An arrival without a jump does so itself, when its domains run. */
	if (!agent->arrival || hf_agent_is_luo(agent) || !hf_arrival_keeps_libvirt(agent->arrival))
		hf_libvirt_gate_recover(agent);
	/* Not in the blackout: nothing of it is needed there. */
	if (!agent->arrival)
		tell_config_problems();
	return hf_service_start(agent, o->socket, error);
}

static void stop(struct hf_agent *agent)
{
	hf_recheck_stop(agent);
	hf_service_stop(agent);
	hf_inhibit_stop(agent);
	agent->installed = hf_installed_free(agent->installed);
	hf_libvirt_gate_free(agent->libvirt_gate);
	hf_saved_domains_free(agent->saved_domains);
	hf_stream_ring_free(agent->ring);
	hf_carrier_free(agent->kept);
	hf_carrier_free(agent->carrier);
	hf_images_free(agent);
	sd_event_unref(agent->event);
}

int main(int argc, char **argv)
{
	struct hf_agent agent = {.start = hf_tsc_mark(), .argv = argv};
	struct options o = {.carrier = "luo", .readahead = true};
	cleanup_close int lock = -EBADF;
	struct hf_error e = {0};
	int r = parse_options(argc, argv, &o);

	if (r >= 0)
		return r;
	agent.state_bytes = o.state_bytes;
	hf_spawn_use_spawner(o.spawner);
	r = make_carriers(&agent, o.carrier, &e);
	if (r >= 0)
		r = take_lock(&lock, &e);
	/* Before there are threads: it is forked. */
	if (r >= 0)
		r = start_keeper(&agent, &e);
	if (r >= 0)
		r = start(&agent, &o, &e);
	if (r < 0) {
		hf_log(LOG_ERR, NULL, "%s%s%s", e.message, e.remedy[0] ? ". Remedy: " : "",
			e.remedy);
		return r == -EBUSY || r == -EADDRINUSE ? EXIT_TEMPFAIL : EXIT_FAILURE;
	}
	/* Then libvirt's daemon is started: see hf_arrival_keeps_libvirt(). */
	if (!agent.arrival || !hf_arrival_keeps_libvirt(agent.arrival))
		sd_notify(0, "READY=1");
	r = sd_event_loop(agent.event);
	sd_notify(0, "STOPPING=1");
	stop(&agent);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
