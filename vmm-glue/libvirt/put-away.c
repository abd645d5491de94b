/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast-libvirt save UUID, holdfast-libvirt start UUID: a domain that can't be carried over
 * is put into libvirt's own saved image, and is started from it again. For the agent, which has an
 * answer as JSON on descriptor 3 and ends this process when it takes too long:
 *
 *   {"domain": "saved" | "started" | "running" | "gone"}
 *   {"error": "sentence", "remedy": "sentence"}
 *
 * `start` is also the undo of a `save` that was not waited for: a save that is still under way is
 * aborted, after which libvirt lets the domain go on. It never boots a domain afresh.
 */
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "common/fd.h"
#include "common/json.h"
#include "vmm-glue/libvirt/verbs.h"

#define RESULT_FD 3
/* How often, and how long, the end of a job is looked for that was aborted. */
#define LOOK_MS 100
#define ABORT_S 30

/* The next agent looks whether the domain is being saved, and must not be overtaken by that. */
static bool agent_is_gone(void)
{
	struct pollfd p = {.fd = RESULT_FD};

	return poll(&p, 1, 0) > 0 && (p.revents & POLLERR);
}

static int save(virDomainPtr domain, const char **ret, struct hf_error *e)
{
	if (virDomainIsPersistent(domain) != 1)
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"define it, or shut it down for the update",
			"libvirt can't save a transient domain by itself");
	if (agent_is_gone())
		return hf_error_set(e, -EPIPE, HF_ERR_FAILED, NULL, "nobody waits for it any more");
	/* For as long as the agent waits: it knows how long that may be. */
	hf_libvirt_no_hurry();
	if (virDomainManagedSave(domain, 0) < 0)
		return hf_libvirt_error(e, "libvirt can't save it");
	*ret = "saved";
	return 0;
}

enum saving { NOT_SAVED, BEING_SAVED, UNKNOWN };

/*
 * Whether it is being saved right now. When its job is over it may still run for a
 * moment, paused for being saved, before libvirt ends it or lets it go on.
 */
static enum saving is_being_saved(virDomainPtr domain)
{
	int type = VIR_DOMAIN_JOB_NONE, n = 0, operation = VIR_DOMAIN_JOB_OPERATION_UNKNOWN;
	virTypedParameterPtr params = NULL;
	int state = 0, reason = 0;

	hf_libvirt_patience();
	if (virDomainIsActive(domain) != 1)
		return NOT_SAVED;
	if (virDomainGetJobStats(domain, &type, &params, &n, 0) < 0 ||
		virDomainGetState(domain, &state, &reason, 0) < 0) {
		virTypedParamsFree(params, n);
		return UNKNOWN;
	}
	if (type != VIR_DOMAIN_JOB_NONE)
		virTypedParamsGetInt(params, n, VIR_DOMAIN_JOB_OPERATION, &operation);
	virTypedParamsFree(params, n);
	if (operation == VIR_DOMAIN_JOB_OPERATION_SAVE ||
		(state == VIR_DOMAIN_PAUSED && reason == VIR_DOMAIN_PAUSED_SAVE))
		return BEING_SAVED;
	return NOT_SAVED;
}

/* A save may also come to its end before the abort does. */
static int stop_saving(virDomainPtr domain, struct hf_error *e)
{
	const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
	struct timespec begin, now;
	enum saving saving;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	while ((saving = is_being_saved(domain)) != NOT_SAVED) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - begin.tv_sec > ABORT_S)
			return hf_error_set(e, -ETIMEDOUT, HF_ERR_FAILED,
				"see: virsh domjobinfo, virsh domjobabort",
				"libvirt is still saving it, and does not stop");
		/* Another job is somebody else's. */
		if (saving == BEING_SAVED)
			virDomainAbortJob(domain);
		nanosleep(&pause, NULL);
	}
	return 0;
}

static int start(virDomainPtr domain, const char **ret, struct hf_error *e)
{
	int active, image, r = stop_saving(domain, e);

	if (r < 0)
		return r;
	hf_libvirt_patience();
	active = virDomainIsActive(domain);
	image = active == 0 ? virDomainHasManagedSaveImage(domain, 0) : 0;
	if (active < 0 || image < 0)
		return hf_libvirt_error(e, "can't find out whether it runs");
	*ret = active ? "running" : "gone";
	if (active || !image)
		return 0;
	hf_libvirt_no_hurry();
	*ret = "started";
	if (virDomainCreate(domain) == 0)
		return 0;
	hf_libvirt_error(e, "libvirt can't start it from its saved image");
	/* Somebody else was faster: libvirt itself, by autostart. */
	hf_libvirt_patience();
	if (virDomainIsActive(domain) != 1)
		return e->err;
	hf_error_clear(e);
	*ret = "running";
	return 0;
}

static int put_away(const char *uuid, bool is_save, const char **ret, struct hf_error *e)
{
	virDomainPtr domain;
	virConnectPtr conn;
	int r = hf_libvirt_connect(NULL, &conn, e);

	if (r < 0)
		return r;
	domain = virDomainLookupByUUIDString(conn, uuid);
	if (domain)
		r = is_save ? save(domain, ret, e) : start(domain, ret, e);
	else
		r = hf_libvirt_error(e, "no such domain");
	/* Nobody will define it again by this UUID and want its memory. */
	if (!domain && r == -ENOENT && !is_save) {
		*ret = "gone";
		r = 0;
	}
	if (domain)
		virDomainFree(domain);
	virConnectClose(conn);
	return r;
}

static int answer(const char *what, const struct hf_error *e)
{
	cleanup_json struct json_object *o = json_object_new_object();
	const char *text;

	if (e->err) {
		hf_json_add_string(o, "error", e->message);
		hf_json_add_string(o, "remedy", e->remedy[0] ? e->remedy : NULL);
	} else {
		hf_json_add_string(o, "domain", what);
	}
	text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
	return text ? hf_fd_write_full(RESULT_FD, text, strlen(text)) : -ENOMEM;
}

static int run_verb(const struct hf_libvirt_verb *verb, int argc, char **argv)
{
	struct hf_error e = {0};
	const char *what = NULL;

	if (argc != 2)
		return hf_libvirt_usage_error(verb, "a domain's UUID is missing");
	put_away(argv[1], strcmp(verb->name, "save") == 0, &what, &e);
	return answer(what, &e) < 0 ? HF_LIBVIRT_FAILED : HF_LIBVIRT_OK;
}

const struct hf_libvirt_verb hf_libvirt_verb_save = {
	.name = "save",
	.usage = "UUID 3>FILE",
	.help = "Have libvirt save a domain that runs into its own image. For holdfastd.\n",
	.run = run_verb,
};

const struct hf_libvirt_verb hf_libvirt_verb_start = {
	.name = "start",
	.usage = "UUID 3>FILE",
	.help = "Have libvirt start a domain from its saved image, if there is one. For "
		"holdfastd.\n",
	.run = run_verb,
};
