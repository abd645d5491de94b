/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/json-text.h"

#include <json-c/json.h>
#include <stdint.h>
#include <string.h>

#include "common/cleanup.h"

#define REPLACEMENT "\xef\xbf\xbd"

/* Length of the UTF-8 sequence at @p, 0 when it isn't one. */
static size_t utf8_length(const uint8_t *p, size_t room)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = p[0] < 0x80	     ? 1
		   : p[0] >> 5 == 6  ? 2
		   : p[0] >> 4 == 14 ? 3
		   : p[0] >> 3 == 30 ? 4
				     : 0;
	uint32_t c;

	if (n < 2)
		return n;
	if (n > room)
		return 0;
	c = p[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	/* Overlong, surrogate, beyond Unicode. */
	return c < smallest[n] || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff ? 0 : n;
}

struct json_object *hf_json_text(const char *text, size_t len)
{
	cleanup_free char *out = malloc(len * strlen(REPLACEMENT) + 1);
	size_t used = 0;

	if (!out)
		return NULL;
	for (size_t at = 0; at < len;) {
		size_t n = utf8_length((const uint8_t *)text + at, len - at);

		if (n > 0) {
			memcpy(out + used, text + at, n);
			used += n;
			at += n;
		} else {
			memcpy(out + used, REPLACEMENT, strlen(REPLACEMENT));
			used += strlen(REPLACEMENT);
			at++;
		}
	}
	return json_object_new_string_len(out, (int)used);
}
