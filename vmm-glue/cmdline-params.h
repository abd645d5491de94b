/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The values of QEMU's options: key=value lists, their JSON form, sizes.
 *
 * A list is `key=value,key=value`; `,,` in a value stands for one comma; the key of the first
 * part may be left out where the option has an implied one; a part without `=` is a switch (`usb`
 * is usb=on, `nousb` is usb=off). When a key comes twice the last one counts.
 *
 * The JSON form is an object; nested keys are joined with dots, as in QEMU's own flat form.
 *
 * Ownership: struct hf_params owns all strings in it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cleanup.h"

/* One part of a list. */
struct hf_param {
	char *key;
	char *value;  /* unescaped; "on" or "off" for a switch */
	size_t start; /* where the part is in the text, without commas around it; unused for JSON */
	size_t length;
	bool is_switch; /* had no `=` */
	bool is_string; /* false only for JSON numbers and booleans */
};

struct hf_params {
	struct hf_param *v;
	size_t n;
	bool json;
};

/**
 * hf_params_parse() - Take a value apart.
 * @text:    the option's value
 * @implied: key of a first part that has none, or NULL
 * @ret:     empty on failure; cleared with hf_params_clear()
 *
 * Return: 0, -EBADMSG for JSON that can't be read, -ENOMEM.
 */
int hf_params_parse(const char *text, const char *implied, struct hf_params *ret);

/** hf_params_clear() - Free what is in it. */
void hf_params_clear(struct hf_params *p);
#define cleanup_params HF_CLEANUP(hf_params_clear)

/** hf_params_get() - Last value of a key, borrowed, or NULL. */
const char *hf_params_get(const struct hf_params *p, const char *key);

/** hf_params_get_first() - First value of a key, as QEMU does for `id`. Borrowed, or NULL. */
const char *hf_params_get_first(const struct hf_params *p, const char *key);

/** hf_params_is_on() - Is the last value of a key one of QEMU's words for true? */
bool hf_params_is_on(const struct hf_params *p, const char *key);

/**
 * hf_size_parse() - A size as QEMU writes it: 1073741824, 1G, 1.5g, 0x40000000.
 * @text:  no sign, no spaces
 * @unit:  factor for a number without suffix
 * @ret:   bytes
 *
 * Return: 0; -EINVAL when it is none; -ERANGE when it doesn't fit 64 bits.
 */
int hf_size_parse(const char *text, uint64_t unit, uint64_t *ret);
