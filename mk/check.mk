# SPDX-License-Identifier: Apache-2.0
# Everything CI runs. tests/check.py has the steps.

.PHONY: deps check check-fast format

# Install what is missing of the packages that the build and the tests need (as root)
deps:
	@mk/deps.sh check

# make check [STEPS="lint unit-gcc"] [FUZZ_SECONDS=20]
check:
	@mk/deps.sh check || { echo "0 passed, 1 failed, 0 skipped"; exit 1; }
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/check.py $(STEPS)

check-fast:
	@tests/check.py --fast

# lint-format (mk/lint.mk) is the check.
format:
	@clang-format -i $(FORMAT_SRCS)
