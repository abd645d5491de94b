/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A guest for the tests against real QEMU: started as holdfast-vmm would, asked over QMP.
 *
 * $HOLDFAST_TEST_QEMU names the binary, qemu-system-x86_64 without. Everything lives in a folder of
 * its own below $TMPDIR, and every process is killed by its pidfd at the end.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "memfd-preserve/manifest.h"
#include "memfd-preserve/stream.h"
#include "vmm-glue/spawn.h"
#include "vmm-glue/vmm.h"

#define TEST_TIMEOUT_NS (60 * HF_NSEC_PER_SEC)

/* The outcome of an operation. */
struct outcome {
	bool over;
	struct hf_error error;
};

struct test_guest {
	sd_event *event;
	struct hf_stream_ring *ring;
	char dir[64];
	struct hf_manifest *manifest;
	struct hf_manifest_guest *guest;
	struct hf_child *child; /* the QEMU that was started by the test */
	struct hf_vmm *vmm;
	struct outcome outcome;
	unsigned int n_gone;
	struct hf_error gone_error;
	int ram_fds[8];
	int state_fds[HF_SINK_MAX_CHUNKS];
	size_t n_state_fds;
	struct hf_sink sink;
	uint64_t timeout_ns; /* of each operation */
	uint64_t grow_bytes; /* what a grown chunk has, 0: none to be had */
};

/* The QEMU under test, and its major version. */
const char *test_qemu(void);
unsigned int test_qemu_major(void);

/* A guest that is described but not started. @args: user's arguments behind the program. */
void guest_init(struct test_guest *t, const char *const *args, size_t n);
void guest_start(struct test_guest *t);
/* The same with a command line of the test's own, which has to make the monitor. */
void guest_start_as(struct test_guest *t, char *const *argv);
void guest_free(struct test_guest *t);

/* A new hand on it. */
void guest_new_vmm(struct test_guest *t);

/* Room for device state, as the agent makes it at prepare. */
void guest_add_chunk(struct test_guest *t, uint64_t capacity);

/* Each runs to its end. Return: 0 or the error's err; t->outcome has the rest. */
int guest_attach(struct test_guest *t);
int guest_save(struct test_guest *t);
int guest_rollback(struct test_guest *t);
int guest_quit(struct test_guest *t);
int guest_respawn(struct test_guest *t);
int guest_resume(struct test_guest *t);

void guest_on_done(struct hf_vmm *vmm, const struct hf_error *error, void *data);
int guest_grow(void *data, struct hf_sink *sink, struct hf_error *e);
int guest_wait(struct test_guest *t);

/* Runs the loop for a while. */
void guest_run_for(struct test_guest *t, uint64_t usec);

/*
 * What QEMU says on the private monitor (which must be free), as text: `query-status`'s run state,
 * "x-ignore-shared"'s on/off, `max-bandwidth`, or the human monitor's answer.
 */
void guest_ask(struct test_guest *t, const char *command, char *buf, size_t size);

/* Guest RAM: fills [from, to) of block 0 with a pattern of address and seed, and checks it. */
void guest_fill(struct test_guest *t, uint64_t from, uint64_t to, uint64_t seed);
uint64_t guest_count_bad(struct test_guest *t, uint64_t from, uint64_t to, uint64_t seed);
