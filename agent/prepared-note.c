/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/prepared-note.h"

#include "vmm-glue/note.h"

int hf_prepared_note_write(const char *update_id, struct hf_error *error)
{
	return hf_note_write(HF_PREPARED_NOTE, update_id, error);
}

void hf_prepared_note_remove(void)
{
	hf_note_remove(HF_PREPARED_NOTE);
}
