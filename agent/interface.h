/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The text of org.holdfast.Host.varlink, as a part of the program.
 */
#pragma once

#define HF_INTERFACE "org.holdfast.Host"

/** hf_interface_description - contents of agent/org.holdfast.Host.varlink, NUL-terminated. */
extern const char hf_interface_description[];
