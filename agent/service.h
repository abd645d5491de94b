/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The agent's face: org.holdfast.Host on /run/holdfast/control.sock.
 */
#pragma once

#include "agent/agent.h"

/**
 * hf_service_start() - Serve on a socket; agent->server is set.
 * @path: $HOLDFAST_SOCKET, or control.sock in the runtime folder when NULL
 */
int hf_service_start(struct hf_agent *agent, const char *path, struct hf_error *error);

/** hf_service_stop() - No more: agent->server is gone, its clients are told. */
void hf_service_stop(struct hf_agent *agent);
