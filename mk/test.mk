# SPDX-License-Identifier: Apache-2.0
# Unit tests, fuzzers, the vmm suite, and the suites that CI runs.

UNIT_TESTS := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test-*.c))
UNIT_BINS := $(UNIT_TESTS:%=$(B)/tests/%)
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz-*.c))
UNIT_LIBS = $(foreach l,agent vmm-glue libvirt qmp memfd-preserve cli common,$(call LIB,$(l)))

$(B)/tests/test-%: $(B)/tests/unit/test-%.o $(UNIT_LIBS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(HF_CC) $(HF_CFLAGS) -o $@ $< $(UNIT_LIBS) $(HF_LDFLAGS) $(PKG_LIBS) -lcmocka -lpthread

# The only ones that need what holdfast-libvirt is linked with.
$(B)/tests/test-libvirt-% $(B)/tests/replay-libvirt-% $(B)/tests/fuzz-libvirt-%: PKG_LIBS += $(LIBVIRT_LIBS)
$(B)/tests/unit/test-libvirt-%.o $(B)/tests/fuzz/fuzz-libvirt-%.o: HF_CFLAGS += $(LIBVIRT_CFLAGS)

# It needs fault points, which other programs are built without: what has them comes before the libraries.
FAULTY_OBJS := $(patsubst %.c,$(B)/faulty/%.o,$(wildcard memfd-preserve/image*.c) common/fault.c)
$(B)/faulty/%.o: HF_CFLAGS += -DHF_FAULTS=1
$(B)/faulty/%.o: %.c mk/test.mk
	@mkdir -p $(@D)
	@echo "  CC      $@"
	@$(HF_CC) $(HF_CFLAGS) -MMD -MP -c -o $@ $<
$(B)/tests/test-image-faults: $(B)/tests/unit/test-image-faults.o $(FAULTY_OBJS) $(UNIT_LIBS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(HF_CC) $(HF_CFLAGS) -o $@ $(filter %.o,$^) $(UNIT_LIBS) $(HF_LDFLAGS) $(PKG_LIBS) -lcmocka -lpthread
-include $(FAULTY_OBJS:.o=.d)

# It starts the launcher.
$(B)/tests/test-launch: | $(B)/holdfast-vmm

# The vmm suite: real QEMU on this machine, no reboot.
VMM_TESTS := $(patsubst tests/vmm/%.c,%,$(wildcard tests/vmm/vmm-*.c))
VMM_BINS := $(VMM_TESTS:%=$(B)/tests/%)

$(B)/tests/vmm-%: $(B)/tests/vmm/vmm-%.o $(B)/tests/vmm/guest.o $(UNIT_LIBS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(HF_CC) $(HF_CFLAGS) -o $@ $(filter %.o,$^) $(UNIT_LIBS) $(HF_LDFLAGS) $(PKG_LIBS) -lcmocka -lpthread

# make vmm [Q=qemu-binary]: the vmm suite against every QEMU there is, or the one named
.PHONY: vmm
vmm: $(VMM_BINS)
	@tests/vmm/run.sh $(B)/tests $(Q)
-include $(VMM_TESTS:%=$(B)/tests/vmm/%.d) $(B)/tests/vmm/guest.d

# make bench-image [BENCH_ARGS="-o json --mib 8192"]: images beside the disk's own speed, and QEMU's
.PHONY: bench-image
$(B)/tests/image-bench: $(B)/tests/bench/image-bench.o $(call LIB,memfd-preserve) $(call LIB,common)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(HF_CC) $(HF_CFLAGS) -o $@ $^ $(HF_LDFLAGS) $(PKG_LIBS) -lpthread
-include $(B)/tests/bench/image-bench.d
bench-image: $(B)/tests/image-bench
	@tests/bench/image.py $(BENCH_ARGS)

# Corpus replay: the same fuzz entry points, linked with a main() that feeds each committed file.
$(B)/tests/replay-%: $(B)/tests/fuzz/fuzz-%.o $(B)/tests/fuzz/replay.o $(UNIT_LIBS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(HF_CC) $(HF_CFLAGS) -o $@ $(filter %.o,$^) $(UNIT_LIBS) $(HF_LDFLAGS) $(PKG_LIBS) -lpthread
REPLAYS := $(FUZZERS:fuzz-%=$(B)/tests/replay-%)

# libFuzzer builds, of the variant that is instrumented for it.
$(B)/tests/fuzz-%: $(B)/tests/fuzz/fuzz-%.o $(UNIT_LIBS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(HF_CC) $(HF_CFLAGS) -fsanitize=fuzzer -o $@ $< $(UNIT_LIBS) $(HF_LDFLAGS) $(PKG_LIBS) -lpthread

# make fuzz [FUZZ_SECONDS=20] [F=fuzz-name]: every fuzzer, or the one named, for so many seconds
FUZZ_SECONDS ?= 20
.PHONY: fuzz fuzz-bins
fuzz-bins: $(FUZZERS:%=$(B)/tests/%)
fuzz:
	@$(MAKE) --no-print-directory VARIANT=fuzz $(if $(F),build/fuzz/tests/$(F),fuzz-bins)
	@tests/fuzz/run.sh build/fuzz/tests $(FUZZ_SECONDS) $(F)

-include $(UNIT_TESTS:%=$(B)/tests/unit/%.d) $(FUZZERS:%=$(B)/tests/fuzz/%.d)
.SECONDARY:

.PHONY: unit unit-bins
unit-bins: $(UNIT_BINS) $(REPLAYS)
# make unit [T=test-name]: runs every unit test and replays every fuzz corpus in this variant
unit: $(if $(T),$(B)/tests/$(T),unit-bins)
	@tests/unit/run.sh $(B)/tests $(T)

# make agent [TESTS="name ..."]: the agent with real QEMUs and the hold carrier, witnesses in the guests
.PHONY: agent
agent: all
	@tests/vmm/agent.py $(TESTS)

# make libvirt [TESTS="name ..."]: the agent with domains of real libvirts, the same way; needs root
.PHONY: libvirt
libvirt: all
	@tests/vmm/libvirt.py $(TESTS)

# make sweep [POINTS="save=hang ..."]: every fault point with every kind of fault, the same way
.PHONY: sweep
sweep:
	@$(MAKE) --no-print-directory VARIANT=faults all
	@tests/vmm/sweep.py $(POINTS)
