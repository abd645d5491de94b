/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Asking libvirt, by processes of holdfast's own: one a question, ended when it takes too
 * long.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/tsc.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/libvirt-internal.h"
#include "vmm-glue/registration.h"
#include "vmm-glue/spawn.h"

#define RESULT_FD 3
#define RESULT_MAX_BYTES (64u << 20)
#define RESULT_DEPTH 8

enum question { LIST, SAVE, START, DAEMON };

/* Verbs of holdfast-libvirt, and what is said where there is no answer in time. */
static const struct {
	const char *verb, *late;
} questions[] = {
	[LIST] = {"list", "libvirt does not answer when it is asked for its domains"},
	[SAVE] = {"save", "libvirt did not save it in time"},
	[START] = {"start", "libvirt did not start it from its saved image in time"},
	[DAEMON] = {NULL, "libvirt's daemon does not stop or start"},
};

struct hf_libvirt_call {
	sd_event *event;
	hf_libvirt_done_fn done;
	void *data;
	enum question question;
	char uuid[HF_UUID_CHARS]; /* of SAVE and START */
	bool gone, ran;		  /* answers of START */
	struct hf_child *child;
	int fd; /* of the result */
	char *text;
	size_t size, room;
	sd_event_source *io;
	sd_event_source *deadline;
	sd_event_source *finish;
	struct hf_error error;
};

const char *hf_libexec_dir(void)
{
	const char *dir = getenv("HOLDFAST_LIBEXEC_DIR");

	return dir && dir[0] ? dir : HF_LIBEXEC_DIR;
}

struct hf_libvirt_call *hf_libvirt_call_free(struct hf_libvirt_call *call)
{
	if (!call)
		return NULL;
	sd_event_source_disable_unref(call->io);
	sd_event_source_disable_unref(call->deadline);
	sd_event_source_disable_unref(call->finish);
	if (call->child && !hf_child_exited(call->child))
		hf_child_kill(call->child);
	hf_child_release(call->child);
	hf_close(&call->fd);
	sd_event_unref(call->event);
	free(call->text);
	free(call);
	return NULL;
}

static int on_finish(sd_event_source *source, void *data)
{
	struct hf_libvirt_call *call = data;

	call->done(call->error.err ? &call->error : NULL, call->data);
	return 0;
}

/* Told from the loop, and with nothing of it under way any more. */
static void end(struct hf_libvirt_call *call)
{
	call->io = sd_event_source_disable_unref(call->io);
	call->deadline = sd_event_source_disable_unref(call->deadline);
	if (call->child && !hf_child_exited(call->child))
		hf_child_kill(call->child);
	call->child = (hf_child_release(call->child), NULL);
	sd_event_source_set_enabled(call->finish, SD_EVENT_ONESHOT);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *data)
{
	struct hf_libvirt_call *call = data;

	hf_error_set(&call->error, -ETIMEDOUT, HF_ERR_NOT_READY,
		"look at libvirtd (or virtqemud): `virsh list`, its log", "%s",
		questions[call->question].late);
	end(call);
	return 0;
}

static int read_some(struct hf_libvirt_call *call)
{
	ssize_t n;

	if (call->size == call->room) {
		size_t room = call->room ? call->room * 2 : 65536;
		char *text = room <= RESULT_MAX_BYTES ? realloc(call->text, room) : NULL;

		if (!text)
			return 0;
		call->text = text;
		call->room = room;
	}
	n = read(call->fd, call->text + call->size, call->room - call->size);
	if (n > 0)
		call->size += (size_t)n;
	if (n < 0 && errno == EAGAIN)
		return -EAGAIN;
	return n > 0 || (n < 0 && errno == EINTR);
}

static int on_result(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	if (read_some(data) == 0)
		sd_event_source_set_enabled(source, SD_EVENT_OFF);
	return 0;
}

static void take_answer(struct hf_libvirt_call *call)
{
	cleanup_json struct json_object *answer = NULL;
	const char *verb = questions[call->question].verb;
	const char *text;
	char how[256];

	while (read_some(call) > 0)
		;
	if (call->size == 0 || hf_json_parse(call->text, call->size, RESULT_DEPTH, &answer) < 0) {
		hf_child_describe(call->child, how, sizeof(how));
		hf_error_set(&call->error, -EBADMSG, HF_ERR_NOT_READY,
			"reinstall holdfast, and see that libvirt's client library is there",
			"`holdfast-libvirt %s` %s without an answer", verb, how);
		return;
	}
	text = hf_json_get_string(answer, "error", NULL);
	call->gone = strcmp(hf_json_get_string(answer, "domain", ""), "gone") == 0;
	call->ran = strcmp(hf_json_get_string(answer, "domain", ""), "running") == 0;
	if (text && call->question != LIST)
		hf_error_set(&call->error, -EIO, HF_ERR_FAILED,
			hf_json_get_string(answer, "remedy", NULL), "%s", text);
	else if (call->question != LIST)
		return;
	else if (text)
		hf_error_set(&call->error, -ENOTCONN, HF_ERR_NOT_READY,
			"look at libvirtd (or virtqemud): `virsh list`, its log",
			"libvirt can't be asked for its domains: %s", text);
	else
		hf_libvirt_register(hf_json_get_array(answer, "domains"), &call->error);
}

static void on_exited(struct hf_child *child, void *data)
{
	struct hf_libvirt_call *call = data;
	char how[256];

	if (call->question != DAEMON) {
		take_answer(call);
	} else if (!hf_child_succeeded(child)) {
		hf_child_describe(child, how, sizeof(how));
		hf_error_set(&call->error, -EIO, HF_ERR_FAILED, "see its log",
			"libvirt's daemon could not be stopped or started: `libvirt-daemon` %s",
			how);
	}
	end(call);
}

/* A process of holdfast's own: as this one, with one descriptor. */
static int run(sd_event *event, char *const *argv, int fd, hf_child_exit_fn on_exit, void *data,
	struct hf_child **ret, struct hf_error *e)
{
	char *envp[] = {
		(char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", (char *)"LC_ALL=C.UTF-8", NULL, NULL};
	struct hf_spawn_fd fds[] = {{.fd = fd, .number = RESULT_FD}};
	struct hf_spawn_spec spec = {
		.program = argv[0],
		.argv = argv,
		.envp = envp,
		.uid = geteuid(),
		.gid = getegid(),
		.umask = 077,
		.fds = fds,
		.n_fds = fd >= 0,
	};

	return hf_spawn(event, &spec, on_exit, data, ret, e);
}

static int new_call(sd_event *event, enum question question, uint64_t timeout_ns,
	hf_libvirt_done_fn done, void *data, struct hf_libvirt_call **ret)
{
	struct hf_libvirt_call *call = calloc(1, sizeof(*call));
	int r;

	if (!call)
		return -ENOMEM;
	*call = (struct hf_libvirt_call){
		.event = sd_event_ref(event),
		.done = done,
		.data = data,
		.question = question,
		.fd = -EBADF,
	};
	r = sd_event_add_defer(event, &call->finish, on_finish, call);
	if (r >= 0)
		r = sd_event_source_set_enabled(call->finish, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time_relative(event, &call->deadline, CLOCK_MONOTONIC,
			timeout_ns / HF_NSEC_PER_USEC, 1000, on_deadline, call);
	if (r < 0) {
		hf_libvirt_call_free(call);
		return r;
	}
	*ret = call;
	return 0;
}

/*
 * The arguments after the verb: the one domain that is asked for; or, of a list, the domains that
 * are known already, whose QEMUs need not be asked for anything. The strings are those of @call and
 * @regs.
 */
static void fill_argv(
	char **argv, struct hf_libvirt_call *call, struct hf_registration *regs, size_t n)
{
	if (call->uuid[0])
		*argv++ = call->uuid;
	for (size_t i = 0; i < n; i++)
		if (hf_guest_is_libvirt(&regs[i].guest) && !regs[i].reason[0])
			*argv++ = regs[i].guest.uuid;
}

/* Starts holdfast-libvirt with the question's verb. */
static void ask(struct hf_libvirt_call *call)
{
	cleanup_close int theirs = -EBADF;
	cleanup_free char **argv = NULL;
	struct hf_registration *regs = NULL;
	char path[512];
	size_t n = 0;
	int pair[2], r;

	snprintf(path, sizeof(path), "%s/holdfast-libvirt", hf_libexec_dir());
	if (pipe2(pair, O_CLOEXEC) < 0) {
		hf_error_set(&call->error, -errno, HF_ERR_FAILED, NULL, "can't make a pipe: %s",
			strerror(errno));
		end(call);
		return;
	}
	call->fd = pair[0];
	theirs = pair[1];
	fcntl(call->fd, F_SETFL, O_NONBLOCK);
	/* Without them it only takes longer. */
	if (call->question != LIST || hf_registration_list(&regs, &n, NULL) < 0)
		n = 0;
	argv = calloc(n + 4, sizeof(*argv));
	if (argv) {
		argv[0] = path;
		argv[1] = (char *)(uintptr_t)questions[call->question].verb;
		fill_argv(argv + 2, call, regs, n);
		r = run(call->event, argv, theirs, on_exited, call, &call->child, &call->error);
	} else {
		r = hf_error_set(&call->error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	}
	hf_registration_list_free(regs, n);
	if (r == 0)
		r = sd_event_add_io(call->event, &call->io, call->fd, EPOLLIN, on_result, call);
	if (r < 0) {
		hf_error_prefix(&call->error, "libvirt can't be asked");
		end(call);
	}
}

bool hf_libvirt_has_daemon(void)
{
	static const char *const paths[] = {
		"/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(paths); i++) {
		struct sockaddr_un sa = {.sun_family = AF_UNIX};
		cleanup_close int fd =
			socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", paths[i]);
		/* One that is too busy to take it is there all the same. */
		if (fd >= 0 &&
			(connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 || errno == EAGAIN))
			return true;
	}
	return false;
}

int hf_libvirt_refresh(sd_event *event, uint64_t timeout_ns, hf_libvirt_done_fn done, void *data,
	struct hf_libvirt_call **ret)
{
	struct hf_libvirt_call *call;
	int r = new_call(event, LIST, timeout_ns, done, data, &call);

	if (r < 0)
		return r;
	if (hf_libvirt_has_daemon()) {
		ask(call);
	} else {
		if (hf_libvirt_has_domains())
			hf_error_set(&call->error, -ENOTCONN, HF_ERR_NOT_READY,
				"start libvirtd (or virtqemud)",
				"domains of libvirt's run, and its daemon doesn't");
		else
			hf_libvirt_register(NULL, &call->error);
		end(call);
	}
	*ret = call;
	return 0;
}

int hf_libvirt_put_away(sd_event *event, const char *uuid, bool save, uint64_t timeout_ns,
	hf_libvirt_done_fn done, void *data, struct hf_libvirt_call **ret)
{
	struct hf_libvirt_call *call;
	int r = new_call(event, save ? SAVE : START, timeout_ns, done, data, &call);

	if (r < 0)
		return r;
	snprintf(call->uuid, sizeof(call->uuid), "%s", uuid);
	if (hf_libvirt_has_daemon()) {
		ask(call);
	} else {
		hf_error_set(&call->error, -ENOTCONN, HF_ERR_NOT_READY,
			"start libvirtd (or virtqemud)", "libvirt's daemon doesn't run");
		end(call);
	}
	*ret = call;
	return 0;
}

bool hf_libvirt_call_is_gone(const struct hf_libvirt_call *call)
{
	return call->gone;
}

bool hf_libvirt_call_ran(const struct hf_libvirt_call *call)
{
	return call->ran;
}

int hf_libvirt_daemon(sd_event *event, bool start, uint64_t timeout_ns, hf_libvirt_done_fn done,
	void *data, struct hf_libvirt_call **ret)
{
	const char *program = getenv("HOLDFAST_LIBVIRT_DAEMON");
	struct hf_libvirt_call *call;
	char path[512];
	char *argv[] = {path, (char *)(start ? "start" : "stop"), NULL};
	int r = new_call(event, DAEMON, timeout_ns, done, data, &call);

	if (r < 0)
		return r;
	if (program && program[0])
		snprintf(path, sizeof(path), "%s", program);
	else
		snprintf(path, sizeof(path), "%s/libvirt-daemon", hf_libexec_dir());
	if (run(event, argv, -EBADF, on_exited, call, &call->child, &call->error) < 0)
		end(call);
	*ret = call;
	return 0;
}

int hf_libvirt_open_monitor(sd_event *event, const char *uuid, int *ret_fd, struct hf_error *e)
{
	char path[512];
	char *argv[] = {path, (char *)"monitor", (char *)(uintptr_t)uuid, NULL};
	cleanup_close int ours = -EBADF, theirs = -EBADF;
	struct hf_child *child;
	int pair[2], r;

	snprintf(path, sizeof(path), "%s/holdfast-libvirt", hf_libexec_dir());
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return hf_error_set(
			e, -errno, HF_ERR_FAILED, NULL, "can't make a socket: %s", strerror(errno));
	ours = pair[0];
	theirs = pair[1];
	r = run(event, argv, theirs, NULL, NULL, &child, e);
	if (r < 0)
		return hf_error_prefix(e, "its monitor can't be had through libvirt");
	/* It ends when our end of the socket is closed. */
	hf_child_release(child);
	*ret_fd = TAKE_FD(ours);
	return 0;
}
