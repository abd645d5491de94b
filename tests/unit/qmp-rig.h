/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the tests of the QMP connection share: a client with all it heard, and a fake server.
 *
 * Each callback asserts that it doesn't run from within a call of the test's own. Include cmocka.h
 * before.
 */
#pragma once

#include "qmp/commands.h"
#include "qmp/internal.h"
#include "qmp/qmp.h"
#include "tests/unit/fake-qmp.h"

#define MS HF_NSEC_PER_MSEC

/* What a command's callback saw. */
struct outcome {
	struct rig *rig;
	unsigned int n_calls;
	bool done;
	int err;
	char message[512];
	char json[256];
	unsigned int order; /* nth callback of all */
};

/* A client with all it heard, and the other end. */
struct rig {
	sd_event *event;
	struct fake_qmp *fake;
	struct hf_qmp *q;
	bool ready, closed, evented;
	int closed_err;
	unsigned int n_ready, n_closed, n_events, n_callbacks;
	struct hf_error reason;
	char event_name[64];
	uint64_t event_us;
	bool free_in_event, free_in_ready, free_in_closed, free_in_reply, close_in_reply;
	bool in_submit;
};

static void on_ready(struct hf_qmp *q, void *userdata)
{
	struct rig *rig = userdata;

	assert_false(rig->in_submit);
	assert_int_equal(hf_qmp_get_state(q), HF_QMP_READY);
	rig->ready = true;
	rig->n_ready++;
	if (rig->free_in_ready)
		rig->q = hf_qmp_free(q);
}

static void on_event(
	struct hf_qmp *q, const char *name, struct json_object *data, uint64_t us, void *userdata)
{
	struct rig *rig = userdata;

	assert_false(rig->in_submit);
	snprintf(rig->event_name, sizeof(rig->event_name), "%s", name);
	rig->event_us = us;
	rig->n_events++;
	rig->evented = true;
	if (rig->free_in_event)
		rig->q = hf_qmp_free(q);
}

static void on_closed(struct hf_qmp *q, int err, const struct hf_error *reason, void *userdata)
{
	struct rig *rig = userdata;

	assert_false(rig->in_submit);
	assert_int_equal(err, reason->err);
	assert_int_equal(hf_qmp_get_state(q), HF_QMP_CLOSED);
	rig->closed = true;
	rig->closed_err = err;
	rig->reason = *reason;
	rig->n_closed++;
	if (rig->free_in_closed)
		rig->q = hf_qmp_free(q);
}

static const struct hf_qmp_ops ops = {on_ready, on_event, on_closed};

static void on_reply(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct outcome *o = data;

	assert_false(o->rig->in_submit);
	assert_true(err ? error && error->err == err : !error);
	o->n_calls++;
	o->done = true;
	o->err = err;
	o->order = ++o->rig->n_callbacks;
	snprintf(o->message, sizeof(o->message), "%s", error ? error->message : "");
	snprintf(o->json, sizeof(o->json), "%s",
		json_object_to_json_string_ext(ret, JSON_C_TO_STRING_PLAIN));
	if (o->rig->free_in_reply)
		o->rig->q = hf_qmp_free(q);
	if (o->rig->close_in_reply)
		hf_qmp_close(q);
}

static FAKE_QMP_UNUSED uint64_t submit(
	struct rig *rig, const char *name, uint64_t timeout_ns, struct outcome *o)
{
	uint64_t id = 0;

	*o = (struct outcome){.rig = rig};
	rig->in_submit = true;
	assert_int_equal(
		hf_qmp_command(rig->q, name, NULL, -EBADF, timeout_ns, on_reply, o, &id), 0);
	rig->in_submit = false;
	assert_true(id > 0);
	return id;
}

static FAKE_QMP_UNUSED void rig_pair(struct rig *rig, uint64_t timeout_ns)
{
	struct hf_error error = {0};
	int fd;

	*rig = (struct rig){0};
	assert_true(sd_event_new(&rig->event) >= 0);
	rig->fake = fake_qmp_pair(rig->event, &fd);
	rig->fake->data = rig;
	assert_int_equal(hf_qmp_attach_fd(rig->event, fd, "the pair", timeout_ns, &ops, rig,
				 &rig->q, &error),
		0);
}

static FAKE_QMP_UNUSED void rig_ready(struct rig *rig)
{
	rig_pair(rig, 0);
	fake_qmp_greet(rig->fake);
	assert_true(fake_qmp_run_until(rig->event, &rig->ready, 2000));
}

static FAKE_QMP_UNUSED void rig_done(struct rig *rig)
{
	rig->q = hf_qmp_free(rig->q);
	rig->fake = fake_qmp_free(rig->fake);
	rig->event = sd_event_unref(rig->event);
}

static FAKE_QMP_UNUSED bool run(struct rig *rig, const bool *flag)
{
	return fake_qmp_run_until(rig->event, flag, 2000);
}

/* A handler that never answers. */
static FAKE_QMP_UNUSED void silent(
	struct fake_qmp *f, const char *name, struct json_object *args, int64_t id, void *data)
{
}
