/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Puts the interface definition into the program, byte for byte.
 *
 * The assembler reads the file, relative to the top of the tree like every include here. The
 * compiler doesn't see it, so mk/build.mk names it as a prerequisite of this object.
 */
#include "agent/interface.h"

__asm__(".pushsection .rodata, \"a\", @progbits\n"
	".globl hf_interface_description\n"
	".type hf_interface_description, @object\n"
	"hf_interface_description:\n"
	".incbin \"agent/org.holdfast.Host.varlink\"\n"
	".byte 0\n"
	".size hf_interface_description, . - hf_interface_description\n"
	".popsection\n");
