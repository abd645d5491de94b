/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Domains' XML: whatever it is, what comes out of it is stable. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/libvirt/domain-xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hf_domain_xml d = {0}, again = {0};
	struct hf_error e = {0};

	if (hf_domain_xml_enable(data, size, &d, &e) < 0)
		return 0;
	/* What was changed is a domain still, and nothing is left to do. */
	if (hf_domain_xml_enable(d.after, strlen(d.after), &again, &e) < 0 || again.to_do ||
		again.n_refusals != d.n_refusals)
		abort();
	hf_domain_xml_hide(d.after);
	hf_domain_xml_clear(&again);
	hf_domain_xml_clear(&d);
	return 0;
}
