/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/images.h"

#include <stdio.h>
#include <string.h>
#include <systemd/sd-id128.h>

#include "agent/host-facts.h"
#include "agent/log.h"
#include "common/fd.h"
#include "memfd-preserve/image.h"

/* Locked in memory, and not in core dumps. */
static struct hf_image_key *kek;

/* Return: 0, also when there is none. */
static int read_key(struct hf_error *e)
{
	const char *folder = getenv("CREDENTIALS_DIRECTORY");
	cleanup_free char *data = NULL;
	char path[4096];
	size_t size = 0;
	int r;

	if (!folder || folder[0] != '/')
		return 0;
	snprintf(path, sizeof(path), "%s/" HF_IMAGE_KEY_CREDENTIAL, folder);
	r = hf_file_read(path, 4096, &data, &size);
	if (r == -ENOENT)
		return 0;
	if (r == 0 && size != HF_IMAGE_KEY_BYTES)
		r = -EINVAL;
	if (r < 0) {
		hf_error_set(e, r, HF_ERR_FAILED, "make it of 32 random bytes",
			"the credential " HF_IMAGE_KEY_CREDENTIAL " is no key for images: %s",
			r == -EINVAL ? "it doesn't have 32 bytes" : strerror(-r));
	} else {
		r = hf_image_key_new(&kek, e);
		if (r == 0)
			memcpy(kek->bytes, data, HF_IMAGE_KEY_BYTES);
	}
	if (data)
		explicit_bzero(data, size);
	return r;
}

int hf_images_new(struct hf_agent *agent, struct hf_error *error)
{
	struct hf_carrier_image_config config = {0};
	struct hf_image_keys keys;
	char folder[4096];
	sd_id128_t id;
	int r = read_key(error);

	if (r < 0)
		return r;
	if (kek) {
		keys = hf_image_kek(kek->bytes);
		config.keys = &keys;
		agent->has_image_key = true;
	}
	snprintf(folder, sizeof(folder), "%s/" HF_IMAGE_FOLDER, hf_state_dir());
	config.folder = folder;
	/* One that has none can't tell its images from others'. */
	if (sd_id128_get_machine(&id) == 0)
		memcpy(config.machine, id.bytes, sizeof(config.machine));
	/* An agent that leaves no kernel is its own next self. */
	if (hf_agent_is_luo(agent) && sd_id128_get_boot(&id) == 0)
		memcpy(config.boot, id.bytes, sizeof(config.boot));
	return hf_carrier_image_new(&config, &agent->image, error);
}

void hf_images_free(struct hf_agent *agent)
{
	hf_carrier_free(agent->image);
	agent->image = NULL;
	hf_image_key_free(kek);
	kek = NULL;
}

void hf_images_recover(struct hf_agent *agent)
{
	struct hf_error e = {0};

	if (hf_carrier_take_back(agent->image, HF_MANIFEST_SESSION, &e) < 0)
		hf_log(LOG_ERR, NULL,
			"images of an update that was not made can't be taken back: %s. Remove "
			"them "
			"before the host is booted again: guests would be brought up from them as "
			"they were then",
			e.message);
	else
		hf_carrier_unkeep(agent->image);
}
