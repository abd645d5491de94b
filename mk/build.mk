# SPDX-License-Identifier: Apache-2.0
# Compile rules. One static library per folder, four programs on top of them.
#
# A *variant* is a compiler with its flags; each has its own tree under build/:
#   gcc (default), clang, asan (clang with AddressSanitizer and UBSan), faults (gcc with fault points, common/fault.h),
#   fuzz (clang with libFuzzer's instrumentation and both sanitizers).

VARIANT ?= gcc
B := build/$(VARIANT)

VERSION := $(shell cat mk/version)

CC_gcc := gcc
CC_clang := clang
CC_asan := clang
CC_faults := gcc
CC_fuzz := clang
HF_CC := $(CC_$(VARIANT))

PKGS := libsystemd json-c liburing libxxhash inih zlib liblzma libzstd liblz4
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
# Each program takes only what it uses: loading what it doesn't would lengthen the blackout. libfdt and
# libbz2 have no .pc file in Debian 12.
PKG_LIBS := -Wl,--as-needed $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lfdt -lbz2

# Of holdfast-libvirt alone.
LIBVIRT_PKGS := libvirt libvirt-qemu libxml-2.0 json-c
LIBVIRT_CFLAGS := $(shell pkg-config --cflags $(LIBVIRT_PKGS) 2>/dev/null)
LIBVIRT_LIBS := -Wl,--as-needed $(shell pkg-config --libs $(LIBVIRT_PKGS) 2>/dev/null)

# Programs that only holdfast itself executes. They are looked for there whatever PREFIX is.
LIBEXECDIR ?= /usr/libexec/holdfast

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
	-Wpointer-arith -Wundef -Wvla -Wwrite-strings -Wformat=2 -Wno-unused-parameter
OPT_gcc := -O2 -g -D_FORTIFY_SOURCE=2
OPT_clang := -O2 -g
OPT_asan := -DHF_SANITIZED -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
OPT_fuzz := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=undefined
OPT_faults := -O2 -g -D_FORTIFY_SOURCE=2 -DHF_FAULTS=1
HARDEN := -fstack-protector-strong -fPIE
HF_CFLAGS := -std=gnu17 $(OPT_$(VARIANT)) $(HARDEN) $(WARN) -I. $(PKG_CFLAGS) -D_GNU_SOURCE \
	-DHF_VERSION='"$(VERSION)"' -DHF_LIBEXEC_DIR='"$(LIBEXECDIR)"' $(CFLAGS)
HF_LDFLAGS := -pie -Wl,-z,relro,-z,now $(if $(filter asan fuzz,$(VARIANT)),-fsanitize=address -fsanitize=undefined) $(LDFLAGS)

# The mains are linked into programs, everything else into its folder's library.
MAINS := agent/holdfastd.c vmm-glue/holdfast-vmm.c agent/cli/holdfast.c vmm-glue/libvirt/holdfast-libvirt.c
lib_srcs = $(filter-out $(MAINS),$(wildcard $(1)/*.c))

SRCS_common := $(filter-out $(if $(filter faults,$(VARIANT)),,common/fault.c),$(call lib_srcs,common))
SRCS_qmp := $(call lib_srcs,qmp)
SRCS_memfd-preserve := $(call lib_srcs,memfd-preserve)
SRCS_vmm-glue := $(call lib_srcs,vmm-glue)
SRCS_libvirt := $(call lib_srcs,vmm-glue/libvirt)
SRCS_agent := $(call lib_srcs,agent)
SRCS_cli := $(call lib_srcs,agent/cli)
LIB_NAMES := agent vmm-glue libvirt qmp memfd-preserve cli common

LIB = $(B)/libhf-$(1).a
define lib_rule
$(B)/libhf-$(1).a: $$(SRCS_$(1):%.c=$(B)/%.o)
	@rm -f $$@ && ar rcsD $$@ $$^
OBJS += $$(SRCS_$(1):%.c=$(B)/%.o)
endef
$(foreach l,$(LIB_NAMES),$(eval $(call lib_rule,$(l))))
OBJS += $(MAINS:%.c=$(B)/%.o)

AGENT_LIBS := $(foreach l,agent vmm-glue qmp memfd-preserve common,$(call LIB,$(l)))
VMM_LIBS := $(foreach l,vmm-glue qmp memfd-preserve common,$(call LIB,$(l)))
CLI_LIBS := $(foreach l,cli memfd-preserve common,$(call LIB,$(l)))

LIBVIRT_PROGRAM_LIBS := $(foreach l,libvirt common,$(call LIB,$(l)))

PROGRAMS := $(B)/holdfastd $(B)/holdfast-vmm $(B)/holdfast $(B)/holdfast-libvirt

$(B)/holdfastd: $(B)/agent/holdfastd.o $(AGENT_LIBS)
$(B)/holdfast-vmm: $(B)/vmm-glue/holdfast-vmm.o $(VMM_LIBS)
$(B)/holdfast: $(B)/agent/cli/holdfast.o $(CLI_LIBS)
$(B)/holdfast-libvirt: $(B)/vmm-glue/libvirt/holdfast-libvirt.o $(LIBVIRT_PROGRAM_LIBS)
$(B)/holdfast-libvirt: PKG_LIBS := $(LIBVIRT_LIBS)
$(PROGRAMS):
	@echo "  LD      $@"
	@$(HF_CC) $(HF_CFLAGS) -o $@ $^ $(HF_LDFLAGS) $(PKG_LIBS) -lpthread

$(B)/%.o: %.c mk/build.mk mk/version
	@mkdir -p $(@D)
	@echo "  CC      $@"
	@$(HF_CC) $(HF_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/vmm-glue/libvirt/%.o: HF_CFLAGS += $(LIBVIRT_CFLAGS)

# Read by the assembler, where -MMD does not look.
$(B)/agent/interface.o: agent/org.holdfast.Host.varlink

-include $(OBJS:.o=.d)

.PHONY: all clean
all: $(PROGRAMS)
clean:
	rm -rf build
