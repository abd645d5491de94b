#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Make the root file systems with libvirts of other Debian releases than the machine's, for tests/vmm/libvirt.py,
# which runs itself in each. Prints one line for each:
#
#   trixie /root/.cache/holdfast/libvirt/trixie-0123456789ab
#
#   libvirts.sh [SUITE…]     trixie without an argument; nothing for the suite that the machine itself is of
#
# Beside libvirt there are QEMU, swtpm, Python, and the libraries that holdfast is linked with: what was built on
# Debian 12 runs there. They are kept for a week.

set -euo pipefail
. "$(dirname "$0")/lib.sh"

packages="libvirt-daemon-system libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils swtpm swtpm-tools
	python3 iproute2 util-linux procps ca-certificates libjson-c5 liburing2 libfdt1 libxxhash0 libsystemd0 libinih1 zlib1g
	liblzma5 libzstd1 liblz4-1 libbz2-1.0"
roots_dir=$cache_dir/libvirt
log=$cache_dir/log/libvirts.log

# What was built here is linked with the machine's libxml2, which libvirt brings with it; newer releases have one that
# other programs can't use.
add_libxml2() {
	local library
	if [ -n "$(find "$1/usr/lib" -name libxml2.so.2)" ]; then
		return
	fi
	library=$(ldconfig -p | sed -n 's/.*libxml2\.so\.2 .*=> //p' | head -n1)
	[ -n "$library" ] || die "libxml2.so.2 is not installed"
	mkdir -p "$1/usr/local/lib"
	# With what it needs of its own: libicu.
	{ echo "$library"; ldd "$library" | sed -n 's/.*=> \(.*libicu[^ ]*\) .*/\1/p'; } |
		xargs -I{} cp -L {} "$1/usr/local/lib/"
	chroot "$1" ldconfig
}

# Prints the folder of a suite's root.
make_root() {
	local suite=$1 wanted key dir temp option options=()
	wanted=$(echo $packages | tr ' ' ,)
	key=$(printf '%s\n' "$suite" "$wanted" "$(date +%G-%V)" | sha256sum | cut -c1-12)
	dir=$roots_dir/$suite-$key
	if [ ! -e "$dir/usr/sbin/libvirtd" ]; then
		[ "$(id -u)" = 0 ] || die "making the roots with libvirt needs root"
		say "Making the root with libvirt of Debian $suite (log: $log)"
		temp=$roots_dir/.$suite
		rm -rf "$temp"
		while read -r option; do
			options+=("--aptopt=$option")
		done < <(apt_age_options)
		if (logged "$log" nice mmdebstrap --variant=apt --include="$wanted" \
			--aptopt='APT::Install-Recommends "false"' "${options[@]}" --keyring="$(keyring)" \
			--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
			--dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$temp" "$(debian_mirror)"); then
			rm -rf "$temp"/var/cache/apt/* "$temp"/var/lib/apt/lists/* "${roots_dir:?}/$suite"-*
			add_libxml2 "$temp"
			mv "$temp" "$dir"
		else
			# The archive may be out of reach just now; last week's root does, too.
			dir=$(find "$roots_dir" -maxdepth 1 -name "$suite-*" | head -n1)
			[ -n "$dir" ] || exit 1
			say "Keeping the root with libvirt of $suite made earlier"
		fi
	fi
	echo "$suite $dir"
}

mkdir -p "$roots_dir"
take_lock libvirts
: >"$log"
own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
for suite in "${@:-trixie}"; do
	[ "$suite" = "$own" ] || make_root "$suite"
done
