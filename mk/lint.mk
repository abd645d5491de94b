# SPDX-License-Identifier: Apache-2.0
# Static checks. tests/lint/run.sh runs them all and counts; each can be made alone.

LINT_DIRS := agent vmm-glue qmp memfd-preserve common
LINT_SRCS = $(foreach d,$(LINT_DIRS),$(wildcard $(d)/*.c)) $(wildcard agent/cli/*.c vmm-glue/libvirt/*.c)
LINT_CFLAGS = -std=gnu17 -I. $(PKG_CFLAGS) $(LIBVIRT_CFLAGS) -D_GNU_SOURCE -DHF_VERSION='"$(VERSION)"' \
	-DHF_LIBEXEC_DIR='"$(LIBEXECDIR)"'

.PHONY: lint lint-layers lint-source lint-format lint-docs lint-man lint-cppcheck lint-tidy
lint:
	@tests/lint/run.sh

lint-layers:
	@tests/lint/layers.py --self-test
	@tests/lint/layers.py

lint-source:
	@tests/lint/source.py --self-test
	@tests/lint/source.py

# Versions of clang-format differ in details; what is committed is as Debian 12's has it.
FORMAT_VERSION := 14
FORMAT_SRCS = $(shell git ls-files '*.c' '*.h')
lint-format:
	@clang-format --version | grep -q ' version $(FORMAT_VERSION)\.' || \
		{ echo "skip clang-format: needs version $(FORMAT_VERSION)"; exit 77; }
	@clang-format --dry-run --Werror $(FORMAT_SRCS)

lint-docs: $(B)/holdfastd
	@tests/lint/docs.py --self-test
	@tests/lint/docs.py $(B)/holdfastd

lint-man: all
	@tests/lint/man.sh --self-test
	@tests/lint/man.sh $(B)

lint-cppcheck:
	@mkdir -p build/lint/cppcheck
	@nice cppcheck --quiet --language=c --std=c11 --enable=warning,performance,portability \
		--library=gnu --library=tests/lint/cppcheck.cfg -D__x86_64__ -D__GNUC__ \
		-DHF_VERSION='"$(VERSION)"' -DHF_LIBEXEC_DIR='"$(LIBEXECDIR)"' -I. --suppressions-list=tests/lint/cppcheck-suppressions \
		--cppcheck-build-dir=build/lint/cppcheck --error-exitcode=1 -j$(shell nproc) \
		--template='{file}:{line}: {severity}: {message} [{id}]' $(LINT_DIRS)

# One stamp a file, so that only what changed is looked at again.
LINT_STAMPS = $(LINT_SRCS:%.c=build/lint/%.tidy)
lint-tidy: $(LINT_STAMPS)
# error.c defines what the model wraps.
LINT_MODEL = $(if $(filter common/error.c,$<),,-include tests/lint/analyzer.h)
build/lint/%.tidy: %.c .clang-tidy mk/lint.mk tests/lint/analyzer.h
	@mkdir -p $(@D)
	@nice clang-tidy --quiet $< -- $(LINT_MODEL) $(LINT_CFLAGS) >$@.log 2>&1 || \
		{ grep -F ' error: ' $@.log || cat $@.log; echo "  (how it comes to that: $@.log)"; exit 1; }
	@$(CC_gcc) $(LINT_CFLAGS) -MM -MP -MT $@ -MF $(@:.tidy=.d) $<
	@touch $@
-include $(LINT_STAMPS:.tidy=.d)
