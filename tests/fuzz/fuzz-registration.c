/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Any file in the place of a guest's registration.
 *
 * What parses formats again, and that parses to the same: twice formatted is equal byte by byte.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/registration.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hf_registration reg = {0}, again = {0};
	char *first, *second;
	size_t first_size, second_size;
	struct hf_error e = {0};
	int r;

	r = hf_registration_parse((const char *)data, size, &reg, &e);
	if (r < 0) {
		assert(e.message[0]);
		return 0;
	}
	assert(hf_guest_name_valid(reg.guest.name));
	assert(reg.guest.n_ram <= HF_MANIFEST_MAX_RAM && reg.guest.n_argv > 0);
	if (hf_registration_format(&reg, &first, &first_size, NULL) < 0)
		abort();
	if (hf_registration_parse(first, first_size, &again, NULL) < 0 ||
		hf_registration_format(&again, &second, &second_size, NULL) < 0)
		abort();
	assert(first_size == second_size && memcmp(first, second, first_size) == 0);
	free(first);
	free(second);
	hf_registration_clear(&reg);
	hf_registration_clear(&again);
	return 0;
}
