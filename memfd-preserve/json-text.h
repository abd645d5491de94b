/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Text from outside as a JSON string.
 */
#pragma once

#include <stddef.h>

struct json_object;

/**
 * hf_json_text() - A JSON string from bytes that may not be UTF-8.
 *
 * Arguments and environments may hold any byte, JSON may not: every byte that isn't part of sound
 * UTF-8 becomes U+FFFD. Return: the string, put by the caller, or NULL without memory.
 */
struct json_object *hf_json_text(const char *text, size_t len);
