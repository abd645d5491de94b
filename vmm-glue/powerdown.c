/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/powerdown.h"

#include <stdio.h>
#include <string.h>

#include "qmp/commands.h"
#include "vmm-glue/spawn.h"
#include "vmm-glue/vmm-internal.h"

struct hf_powerdown {
	sd_event_source *deadline;
	sd_event_source *settle; /* reports from the loop, never from inside a call */
	struct hf_qmp *qmp;
	struct hf_child *child;
	char name[64];
	uint64_t timeout_ns;
	bool asked; /* it has the button's press */
	hf_powerdown_done_fn done;
	void *data;
	struct hf_error error;
};

/* The first outcome counts. */
static void end(struct hf_powerdown *p, const struct hf_error *error)
{
	if (!p->deadline)
		return;
	p->deadline = sd_event_source_disable_unref(p->deadline);
	if (error) {
		p->error = *error;
		hf_error_guest(&p->error, p->name);
	}
	sd_event_source_set_enabled(p->settle, SD_EVENT_ONESHOT);
}

static int on_settle(sd_event_source *s, void *data)
{
	struct hf_powerdown *p = data;

	p->done(p, p->error.err ? &p->error : NULL, p->data);
	return 0;
}

static int on_deadline(sd_event_source *s, uint64_t usec, void *data)
{
	struct hf_powerdown *p = data;
	struct hf_error e = {0};

	hf_error_set(&e, -ETIMEDOUT, HF_ERR_NOT_READY,
		"shut it down by hand, or give it more time with shutdown-timeout",
		p->asked ? "it was asked to power down and did not end within %llu s"
			 : "its monitor did not answer within %llu s",
		(unsigned long long)(p->timeout_ns / HF_NSEC_PER_SEC));
	end(p, &e);
	return 0;
}

static void on_exit_of(struct hf_child *child, void *data)
{
	end(data, NULL);
}

static void on_powerdown(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_powerdown *p = data;

	if (err == 0)
		p->asked = true;
	/* A QEMU that is lost ends, or is found not to by the deadline. */
	else if (err != -ECONNRESET)
		end(p, error);
}

static void on_status(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct hf_powerdown *p = data;
	struct hf_qmp_status status;
	struct hf_error e = {0};
	uint64_t id;
	int r;

	if (err == -ECONNRESET)
		return;
	if (err < 0) {
		end(p, error);
		return;
	}
	if (hf_qmp_parse_status(ret, &status) < 0 || !status.running) {
		hf_error_set(&e, -EBUSY, HF_ERR_NOT_READY, "let it run, or shut it down by hand",
			"it can't be asked to power down, because it does not run");
		end(p, &e);
		return;
	}
	r = hf_qmp_system_powerdown(q, HF_QMP_TIMEOUT_NEVER, on_powerdown, p, &id);
	if (r < 0 && r != -ENOTCONN) {
		hf_error_set(
			&e, r, HF_ERR_FAILED, NULL, "can't ask it to power down: %s", strerror(-r));
		end(p, &e);
	}
}

static void on_ready(struct hf_qmp *q, void *userdata)
{
	struct hf_powerdown *p = userdata;
	struct hf_error e = {0};

	if (hf_vmm_check_monitor(q, hf_child_pid(p->child), &e) < 0)
		end(p, &e);
}

static void on_event(struct hf_qmp *q, const char *name, struct json_object *data,
	uint64_t timestamp_us, void *userdata)
{
}

static void on_closed(struct hf_qmp *q, int err, const struct hf_error *reason, void *userdata)
{
	struct hf_powerdown *p = userdata;

	/* On its way out QEMU closes its monitor before it ends. */
	if (!p->asked)
		end(p, reason);
}

static const struct hf_qmp_ops ops = {
	.ready = on_ready,
	.event = on_event,
	.closed = on_closed,
};

static int ask(struct hf_powerdown *p, sd_event *event, const struct hf_registration *reg,
	struct hf_error *error)
{
	uint64_t id;
	int r;

	r = hf_qmp_connect(event, reg->guest.qmp_path, 0, p->timeout_ns, &ops, p, &p->qmp, error);
	if (r < 0)
		return r;
	r = hf_qmp_query_status(p->qmp, HF_QMP_TIMEOUT_NEVER, on_status, p, &id);
	return r < 0 ? hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't ask it: %s", strerror(-r))
		     : 0;
}

int hf_powerdown_start(sd_event *event, const struct hf_registration *reg, uint64_t timeout_ns,
	hf_powerdown_done_fn done, void *data, struct hf_powerdown **ret, struct hf_error *error)
{
	struct hf_powerdown *p = calloc(1, sizeof(*p));
	int r = -ENOMEM;

	if (p) {
		*p = (struct hf_powerdown){.timeout_ns = timeout_ns, .done = done, .data = data};
		snprintf(p->name, sizeof(p->name), "%s", reg->guest.name);
		r = sd_event_add_defer(event, &p->settle, on_settle, p);
	}
	if (r >= 0)
		r = sd_event_source_set_enabled(p->settle, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time_relative(event, &p->deadline, CLOCK_MONOTONIC,
			timeout_ns / HF_NSEC_PER_USEC, 1000, on_deadline, p);
	if (r >= 0)
		r = hf_child_watch(event, reg->pid, reg->start_ticks, on_exit_of, p, &p->child);
	if (r == -ESRCH || r == -ESTALE) {
		end(p, NULL);
		r = 0;
	} else if (r < 0) {
		hf_error_set(
			error, r, HF_ERR_FAILED, NULL, "can't watch its QEMU: %s", strerror(-r));
	} else {
		r = ask(p, event, reg, error);
	}
	if (r < 0) {
		hf_error_guest(error, reg->guest.name);
		hf_powerdown_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void hf_powerdown_free(struct hf_powerdown *p)
{
	if (!p)
		return;
	hf_qmp_free(p->qmp);
	hf_child_release(p->child);
	sd_event_source_disable_unref(p->deadline);
	sd_event_source_disable_unref(p->settle);
	free(p);
}
