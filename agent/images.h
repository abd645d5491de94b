/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The agent's carrier `image`: where images lie, and the key they are encrypted with.
 *
 * The key is a credential of the service, holdfast.image-key: 32 bytes. systemd decrypts it, with
 * the TPM where it was encrypted so, before this process starts, on this boot as on the next; it is
 * nowhere on the disk in the clear. Without one images are made only where an operator says
 * `plaintext`.
 */
#pragma once

#include "agent/agent.h"

#define HF_IMAGE_KEY_CREDENTIAL "holdfast.image-key"

/** hf_images_new() - Make agent->image, and read the key. Return: 0 or -errno. */
int hf_images_new(struct hf_agent *agent, struct hf_error *error);

/** hf_images_free() - The end of both. */
void hf_images_free(struct hf_agent *agent);

/**
 * hf_images_recover() - An agent that died had handed images over, and left no kernel: before any
 * of its guests runs again.
 */
void hf_images_recover(struct hf_agent *agent);
