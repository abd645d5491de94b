# SPDX-License-Identifier: Apache-2.0
# The nested host: a real kexec with real KVM guests, inside a virtual machine. Needs root once, to
# make the host's root file system; kernels and roots are kept under ~/.cache/holdfast.

.PHONY: demo nested nested-list soak bench-blackout bench-libvirt bench-vmm-upgrade kernels qemus

# Three guests live through a change of the host's kernel.
demo:
	@tests/nested/demo.sh

# make nested CASE=name [KEEP=1]: one case; with KEEP=1 its files stay even when it passes
nested:
	@[ -n "$(CASE)" ] || { echo "Which one? make nested CASE=..., of:"; tests/nested/run.py --list; exit 2; } >&2
	@tests/nested/run.py $(if $(KEEP),--keep) $(CASE)

nested-list:
	@tests/nested/run.py --list

# make soak [N=20]: so many live updates of the same guests, one after the other
soak:
	@HF_SOAK_ROUNDS=$(or $(N),20) tests/nested/run.py soak

# make bench-blackout [BENCH_ARGS="-o json --quick"]
bench-blackout:
	@tests/bench/blackout.py $(BENCH_ARGS)

# make bench-libvirt [BENCH_ARGS="-o json"]
bench-libvirt:
	@tests/bench/libvirt.py $(BENCH_ARGS)

# make bench-vmm-upgrade [BENCH_ARGS="-o json --quick"]: no nested host, QEMUs on this one
bench-vmm-upgrade: all
	@tests/bench/vmm_upgrade.py $(BENCH_ARGS)

# What the nested host and the vmm suite are made with; both are made when needed, too.
kernels:
	@nice tests/nested/kernel.sh
qemus:
	@nice tests/nested/qemus.sh
