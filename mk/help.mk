# SPDX-License-Identifier: Apache-2.0
# `make help`. tests/lint/docs.py fails when a target is missing here, or one here is gone.

define HELP
Build
  make                     the programs, into build/gcc/
  make VARIANT=clang       another build: clang, asan (both sanitizers), faults, fuzz; any target takes it
  make man                 the man pages
  make install             install; PREFIX, DESTDIR, UNITDIR, MANDIR are honoured
  make deps                install the Debian packages that are missing for all of this (root)
  make clean               remove build/

See it work
  make demo                three guests live through a change of their host's kernel (root the first time);
                           LIBVIRT=1: three domains of libvirt's, and a guest that is none

Check
  make check-fast          under a minute, no root: build, layers, unit tests
  make check               all that CI runs; STEPS="lint unit-gcc" for some of it
  make unit                unit tests and corpus replay; T=test-varlink for one, VARIANT=asan for sanitizers
  make unit-bins           build them only
  make vmm                 save and resume guests with every QEMU here, no reboot; Q=path for one QEMU
  make agent               the agent with every QEMU here: updates, undo, failures; TESTS=name for some
  make libvirt             the same with domains of every libvirt here (root); TESTS=name for some
  make sweep              every fault point with every kind of fault; POINTS="save=hang ..." for some
  make fuzz                every fuzzer for FUZZ_SECONDS=20 each; F=fuzz-varlink for one
  make fuzz-bins           build them only (with VARIANT=fuzz)

Nested host: a real kexec inside a virtual machine
  make nested CASE=name    one case; KEEP=1 leaves everything to look at
  make soak                N=20 live updates of the same guests, one after the other; nothing may grow
  make nested-list         what cases there are
  make bench-libvirt       blackout of libvirt's domains beside guests of holdfast-vmm; BENCH_ARGS="-o json"
  make bench-vmm-upgrade   a guest's pause for a new QEMU beside QEMU's own cpr-transfer; BENCH_ARGS="-o json --quick"
  make bench-blackout      blackout beside a bare kexec; BENCH_ARGS="-o json --quick"
  make kernels             make the two test kernels now
  make qemus               make the QEMUs of other Debian releases now
  make witness             build the guest program that watches memory, disk, clocks and network
  make check-witness       prove that it notices every kind of harm
  make boot-witness        the same in plain QEMU; KERNEL=path/to/bzImage

Images of guests on disk
  make bench-image         saving and loading beside the disk's own speed (fio), QEMU's migration to a file, virsh save;
                           BENCH_ARGS="-o json --mib 8192 --folder DIR"

Lint
  make lint                all of these:
  make lint-layers         who includes whom
  make lint-source         licence, DOC: blocks, lengths, loose ends
  make lint-docs           state tables, this help, links and paths in the documents
  make lint-man            man pages against --help
  make lint-cppcheck       cppcheck
  make lint-tidy           clang-tidy, for what changed since the last time
  make format              clang-format over everything
  make lint-format         whether clang-format would change anything

  make help                this
endef
export HELP

.PHONY: help
help:
	@echo "$$HELP"
