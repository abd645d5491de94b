/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The KHO converters on arbitrary bytes: what lies in debugfs comes from another kernel.
 */
#include <string.h>

#include <json-c/json.h>

#include "memfd-preserve/kho.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"LUO", "kexec-metadata", "memblock"};
	struct json_object *json = NULL;
	char compatible[32];

	if (hf_kho_fdt_to_json(data, size, &json, NULL) == 0) {
		/* Must be JSON that others can read. */
		struct json_object *again = json_tokener_parse(json_object_to_json_string(json));

		if (!again)
			abort();
		json_object_put(again);
		json_object_put(json);
	}
	for (size_t i = 0; i < HF_ARRAY_SIZE(names); i++) {
		if (hf_kho_blob_to_json(names[i], data, size, &json) < 0)
			abort();
		json_object_to_json_string(json);
		json_object_put(json);
	}
	hf_kho_blob_compatible(data, size, compatible, sizeof(compatible));
	if (strlen(compatible) >= sizeof(compatible))
		abort();
	return 0;
}
