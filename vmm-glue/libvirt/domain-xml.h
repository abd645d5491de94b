/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What has to be changed in a domain's XML so that its memory can be carried over. Pure: text
 * in, text out, no libvirt.
 *
 * A domain's memory can be carried over when it is in files that are mapped shared, on a tmpfs:
 * <source type='file'/> and <access mode='shared'/> in <memoryBacking>. Nothing else is changed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

/* Libvirt itself sends no longer ones. */
#define HF_DOMAIN_XML_MAX_BYTES (4U << 20)

#define HF_DOMAIN_XML_MAX_REFUSALS 16

/**
 * struct hf_domain_xml_refusal - what the domain has that changing its memory can't help.
 * @reason: what it is, as the rest of a sentence about the domain
 * @remedy: what to do about it
 */
struct hf_domain_xml_refusal {
	const char *reason;
	const char *remedy;
};

/** struct hf_domain_xml - a domain's XML before and after. */
struct hf_domain_xml {
	char *before; /* as it came, in the layout of @after */
	char *after;  /* as it has to be */
	bool to_do;   /* whether they differ */
	const struct hf_domain_xml_refusal *refusals[HF_DOMAIN_XML_MAX_REFUSALS];
	size_t n_refusals;
};

/**
 * hf_domain_xml_enable() - Work out what a domain needs.
 * @xml:  what libvirt says of the domain, or anything else
 * @size: its bytes
 * @ret:  to be cleared with hf_domain_xml_clear()
 *
 * With refusals the texts are there as well, for whoever wants to see them. Return: 0; -EFBIG;
 * -EBADMSG when it is no domain's XML; -EOPNOTSUPP when it is one of another hypervisor; -ENOMEM.
 */
int hf_domain_xml_enable(
	const void *xml, size_t size, struct hf_domain_xml *ret, struct hf_error *e);

/** hf_domain_xml_clear() - Free what hf_domain_xml_enable() gave. */
void hf_domain_xml_clear(struct hf_domain_xml *d);

/**
 * hf_domain_xml_hide() - Overwrite the passwords in an XML text, which is to be shown.
 *
 * In place; the text keeps its length.
 */
void hf_domain_xml_hide(char *xml);
