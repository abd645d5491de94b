# SPDX-License-Identifier: Apache-2.0
# holdfast: swap the host kernel under running virtual machines.
# `make help` lists every target by task. Details live in mk/*.mk, one file a task.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

include mk/build.mk
include mk/install.mk
include mk/test.mk
include mk/lint.mk
include mk/check.mk
include mk/nested.mk
# Absent where only what is installed is built.
-include tests/nested/witness/witness.mk
include mk/help.mk
