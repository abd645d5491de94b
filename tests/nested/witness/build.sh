#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds the witness guest: build.sh [OUTDIR], default build/witness under the top directory.
# Leaves OUTDIR/witness (static) and OUTDIR/initramfs.cpio.gz. Needs no root. Does nothing when
# both are newer than their sources.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$(cd "$here/../../.." && pwd)/build/witness}
mkdir -p "$out"

stale=0
for f in "$here"/*.c "$here"/*.h "$here/mkinitramfs.py" "$here/build.sh"; do
	[[ -e $out/initramfs.cpio.gz && $out/initramfs.cpio.gz -nt $f ]] || stale=1
done
((stale)) || exit 0

# No vectors: under emulation each vector instruction is a function call.
"${CC:-gcc}" -std=gnu17 -O2 -g -fno-tree-vectorize -Wall -Wextra -Werror -Wshadow \
	-Wstrict-prototypes -Wmissing-prototypes -Wvla -Wwrite-strings -Wformat=2 \
	-static -pthread -o "$out/witness.debug" "$here"/*.c
# The guest's memory is scarce; symbols stay outside.
strip -o "$out/witness" "$out/witness.debug"
"$here/mkinitramfs.py" "$out/witness" "$out/initramfs.cpio.gz"
