/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What spawner.c and spawner-greet.c share: the operations, and how to get a connection.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vmm-glue/clock-step.h"

/* The first number of a connection's first record. */
enum hf_spawner_op {
	HF_SPAWNER_START,
	HF_SPAWNER_SETTLE,
	HF_SPAWNER_UNSETTLE,
	HF_SPAWNER_GREET,
};

/* First record of a connection with HF_SPAWNER_GREET, and all of it. */
struct hf_spawner_greeting {
	uint32_t op;
	uint32_t version;
	struct hf_wall_clock_target target;
};

/* What comes back: sent when the spawner serves, with the clock moved if it had to be. */
struct hf_spawner_greeted {
	int32_t result; /* of moving the clock */
	uint32_t version;
	int64_t step_ns;
	uint64_t error_ns;
	char message[512];
};

/** hf_spawner_connect() - To the spawner, if it is root's or this user's. Return: 0 or -errno. */
int hf_spawner_connect(const char *path, int *ret);

/** hf_spawner_answer_greeting() - The spawner's side. @data: the first record, as it came. */
void hf_spawner_answer_greeting(int sock, const void *data, size_t size);
