/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Any bytes in the place of a specification for the spawner.
 *
 * What is understood, and written again, is the same bytes but for the request for output.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/spawner.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hf_spawner_request q;
	void *again = NULL;
	size_t again_size = 0;

	if (hf_spawner_decode(data, size, &q) == 0) {
		q.spec.output_fd = q.has_output ? 1 : 0;
		if (hf_spawner_encode(&q.spec, &again, &again_size) < 0)
			abort();
		assert(again_size == size && memcmp(again, data, size) == 0);
		free(again);
	}
	hf_spawner_request_release(&q);
	return 0;
}
