/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Blocking calls off the loop.
 *
 * Preserving and retrieving RAM block in the kernel for as long as the RAM is large. A worker runs
 * one such call in a thread of its own and brings the result back to the sd-event loop, so that no
 * guest waits for another and the agent keeps answering meanwhile.
 *
 * A worker can't be cancelled: the kernel call has to come back first. Its callback always runs.
 */
#pragma once

#include <systemd/sd-event.h>

/**
 * hf_worker_run() - Run a function in a thread, then a callback on the loop.
 * @event: loop
 * @run:   called in the thread; must not touch anything the loop touches but @data's own parts
 * @done:  called on the loop with what @run returned
 * @data:  handed to both
 *
 * Return: 0 when the thread runs (then @done will be called, once), or -errno (then it won't be).
 */
int hf_worker_run(
	sd_event *event, int (*run)(void *data), void (*done)(void *data, int result), void *data);
