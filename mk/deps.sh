#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Install what is missing of the packages that holdfast is built and tested with.
#
#   mk/deps.sh build    compilers, libraries and linters
#   mk/deps.sh demo     what `make demo` needs: the kernel build, QEMU, mmdebstrap
#   mk/deps.sh check    both, and a libvirt for tests (the default)
#
# Works on Debian 12 and 13. Says nothing when nothing is missing, and then needs neither root nor
# a network. The log of an installation is kept when it fails.

set -euo pipefail

build_packages() {
	echo gcc libc6-dev make pkg-config git python3
	echo libsystemd-dev libjson-c-dev liburing-dev libfdt-dev libxxhash-dev libinih-dev libcmocka-dev
	# For looking into kernel images.
	echo zlib1g-dev liblzma-dev libzstd-dev liblz4-dev libbz2-dev
	# For encrypted images.
	echo libssl-dev
	# For holdfast-libvirt.
	echo libvirt-dev libxml2-dev
	echo clang clang-tidy clang-format cppcheck scdoc
	# Tests read core files with it.
	echo gdb
	# What a tap is set to.
	echo ethtool
	# A bus of the tests' own.
	echo dbus-daemon
	# The sanitizer and fuzzer run-times are packaged by compiler version only.
	local version
	version=$({
		dpkg-query -W -f 'Depends: ${Depends}\n' clang 2>/dev/null ||
			apt-cache show --no-all-versions clang 2>/dev/null || true
	} | sed -n 's/^Depends:.*\bclang-\([0-9]\+\).*/\1/p' | head -n1)
	[ -z "$version" ] || echo "libclang-rt-$version-dev"
}

demo_packages() {
	# For building the kernels.
	echo gcc libc6-dev make flex bison bc libelf-dev libssl-dev xz-utils zstd cpio kmod rsync
	# For making and running the nested host.
	echo mmdebstrap debian-archive-keyring e2fsprogs qemu-system-x86 qemu-utils
	echo python3 iproute2 procps busybox-static
}

# Tests have a libvirtd of their own, with these files: the machine's, if there is one, is left alone.
libvirt_packages() {
	echo libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients swtpm swtpm-tools util-linux
}

missing_of() {
	comm -13 <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort -u) \
		<(printf '%s\n' "$@" | sort -u)
}

install_quietly() {
	DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 \
		install --no-install-recommends "$@" </dev/null >>"$log" 2>&1
}

case ${1:-check} in
build) wanted=$(build_packages) ;;
demo) wanted=$(demo_packages) ;;
check) wanted="$(build_packages) $(demo_packages) $(libvirt_packages)" ;;
*)
	echo "usage: mk/deps.sh [build|demo|check]" >&2
	exit 2
	;;
esac

if ! command -v apt-get >/dev/null; then
	echo "mk/deps.sh: this is no Debian; please install by hand what is missing of:" $wanted >&2
	exit 1
fi

# shellcheck disable=SC2086 # package names are words
missing=$(missing_of $(printf '%s\n' $wanted | sort -u))
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "mk/deps.sh: not root, and these packages are missing; please run as root:" >&2
	echo "  apt-get install --no-install-recommends" $missing >&2
	exit 1
fi

echo "Installing $(wc -w <<<"$missing") missing packages" >&2
log=$(mktemp "${TMPDIR:-/tmp}/holdfast-deps.XXXXXX.log")
# A machine's package lists may be absent or too old to fetch from: then once more with new ones.
# shellcheck disable=SC2086
if ! install_quietly $missing; then
	if ! apt-get -q update </dev/null >>"$log" 2>&1 || ! {
		wanted=$([ "${1:-check}" = demo ] || build_packages; [ "${1:-check}" = build ] || demo_packages; [ "${1:-check}" != check ] || libvirt_packages)
		missing=$(missing_of $(printf '%s\n' $wanted | sort -u))
		install_quietly $missing
	}; then
		tail -n 20 "$log" >&2
		echo "mk/deps.sh: could not install the packages above; the whole log is $log" >&2
		exit 1
	fi
fi
rm -f "$log"
