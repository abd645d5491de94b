# SPDX-License-Identifier: Apache-2.0
# The witness guest. Included from the top; every target works without root.

WITNESS := build/witness
.PHONY: witness check-witness
witness:
	@tests/nested/witness/build.sh $(WITNESS)

# Proves that the witness notices every kind of harm (20 s)
check-witness: witness
	@tests/nested/witness/selftest.py $(WITNESS)/witness

# The same on a guest in plain QEMU: make boot-witness KERNEL=path/to/bzImage
.PHONY: boot-witness
boot-witness: witness
	@tests/nested/witness/boottest.py $(KERNEL) $(WITNESS)/initramfs.cpio.gz
