#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Make an initramfs with Debian's own qemu-guest-agent beside the witness, and print its path:
#
#   qga.sh OUTPUT.cpio.gz
#
# The agent, hwclock (which it sets clocks with), busybox and their libraries are those of trixie. They are
# kept for a week under ~/.cache/holdfast/qga, and nothing of them is installed.

set -euo pipefail
. "$(dirname "$0")/lib.sh"

suite=trixie
packages=qemu-guest-agent,util-linux-extra,busybox
qga_dir=$cache_dir/qga
log=$cache_dir/log/qga.log

# Prints the folder that the packages are unpacked in.
make_root() {
	local key mirror option dir options=()
	key=$(printf '%s\n' "$suite" "$packages" "$(date +%G-%V)" | sha256sum | cut -c1-12)
	dir=$qga_dir/root-$key
	if [ ! -e "$dir/usr/sbin/qemu-ga" ]; then
		[ "$(id -u)" = 0 ] || die "unpacking the guest agent needs root"
		mirror=$(debian_mirror)
		say "Unpacking the guest agent of Debian $suite (log: $log)"
		while read -r option; do
			options+=("--aptopt=$option")
		done < <(apt_age_options)
		rm -rf "$qga_dir/.root"
		if (logged "$log" nice mmdebstrap --variant=extract --include="$packages" \
			--aptopt='APT::Install-Recommends "false"' "${options[@]}" --keyring="$(keyring)" \
			"$suite" "$qga_dir/.root" "$mirror"); then
			rm -rf "$qga_dir"/root-*
			mv "$qga_dir/.root" "$dir"
		else
			# The archive may be out of reach just now; last week's does, too.
			dir=$(find "$qga_dir" -maxdepth 1 -name 'root-*' | head -n1)
			[ -n "$dir" ] || exit 1
			say "Keeping the guest agent unpacked earlier"
		fi
	fi
	echo "$dir"
}

[ $# = 1 ] || die "usage: qga.sh OUTPUT.cpio.gz"
mkdir -p "$qga_dir"
take_lock qga
: >"$log"
root=$(make_root)
"$nested_dir/witness/build.sh" "$top_dir/build/witness"
"$nested_dir/witness/mkqga.py" "$root" "$top_dir/build/witness/initramfs.cpio.gz" "$1"
echo "$1"
