#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Make the disk image of the nested host: Debian trixie with QEMU, holdfast installed by
# `make install` as it was built against trixie's own libraries, the test kernels and tools.
#
#   root.sh image [HOST]  make it (quickly, or not at all when nothing changed) and print its path
#   root.sh base [HOST]   only the base root, without holdfast; prints the path of the directory
#   root.sh build         only the root that holdfast is built in; prints the path of the directory
#
# HOST is plain (the default: hf-init is all that runs), systemd (trixie, booted by its systemd),
# libvirt (the same with libvirtd and what its domains need), forky (as systemd, of Debian forky,
# whose systemd speaks to the Live Update Orchestrator itself) or stock (as systemd, with Debian's own
# kernel and what systemd needs for a TPM; kernel and initrd are beside the image, as .vmlinuz and .initrd).
# HOLDFAST_WITHOUT=1 leaves holdfast out, which is enough for the smoke case.
#
# The roots are kept for a week under ~/.cache/holdfast/root, the image under build/nested.

set -euo pipefail
. "$(dirname "$0")/lib.sh"

root_dir=$cache_dir/root
out_dir=$top_dir/build/nested
log=$cache_dir/log/root.log

# What the host runs: QEMU, varlinkctl (systemd), the libraries holdfast links, tools for the cases.
base_packages="qemu-system-x86 qemu-utils iproute2 iputils-ping systemd procps util-linux kmod busybox
	socat gzip libjson-c5 liburing2 libfdt1 libxxhash0 libsystemd0 libinih1 zlib1g liblzma5 libzstd1 liblz4-1
	libbz2-1.0"
systemd_packages="$base_packages systemd-sysv udev dbus mount"
libvirt_packages="$systemd_packages libvirt-daemon-system libvirt-daemon-driver-qemu
	libvirt-daemon-driver-network libvirt-clients swtpm swtpm-tools dnsmasq-base nftables apparmor"
# systemd's support of TPMs loads its libraries when it needs them.
stock_packages="$systemd_packages linux-image-amd64 initramfs-tools libtss2-esys-3.0.2-0t64 libtss2-mu-4.0.1-0t64
	libtss2-rc0t64 libtss2-tcti-device0t64"
build_packages="gcc libc6-dev make pkg-config libsystemd-dev libjson-c-dev liburing-dev libfdt-dev
	libxxhash-dev libinih-dev zlib1g-dev liblzma-dev libzstd-dev liblz4-dev libbz2-dev libssl-dev libvirt-dev
	libxml2-dev scdoc"

# make_root NAME PACKAGES [SUITE [HOOK]]: a root of this week under $root_dir/NAME-…; prints its path. HOOK is
# run with the root's path before PACKAGES are installed.
make_root() {
	local name=$1 packages suite=${3:-trixie} hook=${4:-} mirror key dir temp option
	packages=$(echo $2 | tr ' ' ,)
	key=$(printf '%s\n' "$suite" "$packages" "$(date +%G-%V)" ${hook:+"$hook"} | sha256sum | cut -c1-12)
	dir=$root_dir/$name-$key
	if [ ! -e "$dir/etc/debian_version" ]; then
		[ "$(id -u)" = 0 ] || die "making the root file systems of the nested host needs root"
		mirror=$(debian_mirror)
		temp=$root_dir/.$name
		rm -rf "$temp"
		say "Making the $name root of Debian $suite (log: $log)"
		local options=()
		while read -r option; do
			options+=("--aptopt=$option")
		done < <(apt_age_options)
		if (logged "$log" nice mmdebstrap --variant=apt --include="$packages" \
			--aptopt='APT::Install-Recommends "false"' "${options[@]}" --keyring="$(keyring)" \
			--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
			--dpkgopt='path-exclude=/usr/share/locale/*' \
			--dpkgopt='path-exclude=/usr/share/info/*' \
			${hook:+--essential-hook="$hook"} "$suite" "$temp" "$mirror"); then
			rm -rf "$root_dir/$name"-*
			mv "$temp" "$dir"
		else
			# The archive may be out of reach just now; last week's root does, too.
			dir=$(find "$root_dir" -maxdepth 1 -name "$name-*" | head -n1)
			[ -n "$dir" ] || exit 1
			say "Keeping the $name root made earlier"
		fi
	fi
	echo "$dir"
}

# Debian's initrd with no more in it than finds the root disk: it is unpacked on an emulated CPU at every boot.
small_initrd='mkdir -p "$1/etc/initramfs-tools/conf.d" &&
	printf "MODULES=list\\nCOMPRESS=gzip\\n" >"$1/etc/initramfs-tools/conf.d/hf" &&
	printf "virtio_pci\\nvirtio_blk\\next4\\n" >"$1/etc/initramfs-tools/modules"'

# host_root HOST: the base root of a host.
host_root() {
	case $1 in
	plain) make_root base "$base_packages" ;;
	systemd) make_root systemd "$systemd_packages" ;;
	libvirt) make_root libvirt "$libvirt_packages" ;;
	forky) make_root forky "$systemd_packages" forky ;;
	stock) make_root stock "$stock_packages" trixie "$small_initrd" ;;
	*) die "there is no host $1: plain, systemd, libvirt, forky or stock" ;;
	esac
}

# What a host that is booted by systemd has beyond its packages: the units of the tests, holdfast's
# enabled, and nothing started that only costs time on an emulated CPU. $1 is the kind of host.
install_systemd() {
	local unit wanted
	cp -a "$nested_dir/systemd/." "$stage/"
	[ "$1" != libvirt ] || trim_apparmor
	[ "$1" != stock ] || cp -a "$nested_dir/stock/." "$stage/"
	echo 5af1a1d0c0de4b1d8f00d0123456789a >"$stage/etc/machine-id"
	ln -sf hf-init "$stage/usr/lib/hf-test/hf-systemd"
	ln -sf /usr/lib/systemd/system/multi-user.target "$stage/etc/systemd/system/default.target"
	while read -r unit; do
		ln -sf /dev/null "$stage/etc/systemd/system/$unit"
	done < <(sed 's/#.*//; /^ *$/d' "$nested_dir/systemd-masked")
	# As `systemctl enable` does it.
	for unit in "$stage"/etc/systemd/system/*.{service,mount} "$stage"/lib/systemd/system/*; do
		[ -f "$unit" ] || continue
		for wanted in $(sed -n 's/^WantedBy=//p' "$unit"); do
			mkdir -p "$stage/etc/systemd/system/$wanted.wants"
			ln -sf "${unit#"$stage"}" "$stage/etc/systemd/system/$wanted.wants/"
		done
		for wanted in $(sed -n 's/^RequiredBy=//p' "$unit"); do
			mkdir -p "$stage/etc/systemd/system/$wanted.requires"
			ln -sf "${unit#"$stage"}" "$stage/etc/systemd/system/$wanted.requires/"
		done
	done
}

# AppArmor's own profiles are of programs that no host of the tests has; each takes seconds of an emulated
# CPU to compile. libvirt's stay, and swtpm's.
trim_apparmor() {
	local profile
	for profile in "$base"/etc/apparmor.d/*; do
		case $(basename "$profile") in
		usr.sbin.libvirtd | usr.lib.libvirt.* | usr.bin.swtpm | virtqemud) ;;
		*)
			[ ! -f "$profile" ] || install -D -m 644 /dev/null "$stage/etc/apparmor.d/$(basename "$profile")"
			;;
		esac
	done
}

# Build holdfast inside the build root and install it to $stage. The tree is copied there, and its
# objects stay, so that an unchanged tree costs next to nothing.
install_holdfast() {
	local root
	root=$(make_root build "$build_packages")
	mkdir -p "$root/src"
	# By content, and what differs is new there: the object files may be those of another checkout.
	rsync -rlp --checksum --delete --exclude=/build --exclude=/.git --exclude=/tests/nested \
		"$top_dir/" "$root/src/"
	rm -rf "$root/stage"
	logged "$log" nice chroot "$root" make -s -C /src -j"$(nproc)" install DESTDIR=/stage
	# And an agent that can be made to fail, for the case that sweeps its fault points.
	logged "$log" nice chroot "$root" make -s -C /src -j"$(nproc)" VARIANT=faults build/faults/holdfastd
	install -D "$root/src/build/faults/holdfastd" "$root/stage/usr/lib/hf-test/holdfastd-faults"
	mkdir -p "$stage"
	cp -a "$root/stage/." "$stage/"
}

# The static helpers of the nested host: PID 1, a bare kexec, a clock reader.
install_tools() {
	local source name
	mkdir -p "$stage/usr/lib/hf-test"
	for source in "$nested_dir"/tools/*.c; do
		name=$(basename "$source" .c)
		if [ "$out_dir/tools/$name" -ot "$source" ]; then
			mkdir -p "$out_dir/tools"
			logged "$log" gcc -std=gnu17 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -static \
				-o "$out_dir/tools/$name" "$source"
		fi
		cp -a "$out_dir/tools/$name" "$stage/usr/lib/hf-test/$name"
	done
}

install_kernels() {
	local OLD NEW OLD_VERSION NEW_VERSION
	# shellcheck source=/dev/null
	. "$cache_dir/kernel/current.env"
	mkdir -p "$stage/var/lib/hf-test"
	cp -a "$OLD/bzImage" "$stage/var/lib/hf-test/bzImage-old"
	cp -a "$NEW/bzImage" "$stage/var/lib/hf-test/bzImage-new"
	echo "$OLD_VERSION" >"$stage/var/lib/hf-test/version-old"
	echo "$NEW_VERSION" >"$stage/var/lib/hf-test/version-new"
	logged "$log" "$nested_dir/witness/build.sh" "$top_dir/build/witness"
	cp -a "$top_dir/build/witness/initramfs.cpio.gz" "$stage/var/lib/hf-test/"
}

make_image() {
	local host=$1 base image tree key size
	base=$(host_root "$host")
	stage=$out_dir/stage
	rm -rf "$stage"
	mkdir -p "$stage"
	install_tools
	install_kernels
	if [ -z "${HOLDFAST_WITHOUT:-}" ]; then
		install_holdfast
	else
		say "Note: without holdfast in it"
	fi
	[ "$host" = plain ] || install_systemd "$host"

	key=$(
		cd "$stage"
		{ echo "$base"; find . -type f -print0 | sort -z | xargs -0 sha256sum; find . -type l -printf '%p %l\n' |
			sort; } | sha256sum | cut -c1-12
	)
	image=$out_dir/host-$host-$key.img
	if [ ! -e "$image" ]; then
		say "Making the disk image of the nested host ($host)"
		tree=$out_dir/.tree
		rm -rf "$tree"
		# Hard links where possible: the base root's files are only read.
		cp -al "$base" "$tree" 2>/dev/null || { rm -rf "$tree" && cp -a "$base" "$tree"; }
		# tar replaces a file instead of writing into it, and follows /lib to /usr/lib.
		tar -C "$stage" -c . | tar -C "$tree" -x --keep-directory-symlink
		rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/dev/*
		rm -f "$tree/etc/hostname" "$tree/etc/resolv.conf"
		echo holdfast-host >"$tree/etc/hostname"
		mkdir -p "$tree/sys" "$tree/proc" "$tree/run" "$tree/dev"
		size=$(($(du -s --apparent-size -BM "$tree" | cut -dM -f1) * 11 / 10 + 512))
		rm -f "$out_dir/.image"
		logged "$log" mke2fs -q -t ext4 -m 0 -E lazy_itable_init=1,lazy_journal_init=1,nodiscard \
			-d "$tree" "$out_dir/.image" "${size}M"
		rm -rf "$tree"
		if [ "$host" = stock ]; then
			cp "$base"/boot/vmlinuz-* "${image%.img}.vmlinuz"
			cp "$base"/boot/initrd.img-* "${image%.img}.initrd"
		fi
		# The image before this one stays, for a run that has just started on it.
		{ ls -t "$out_dir/host-$host"-*.img 2>/dev/null || true; } | tail -n +2 |
			sed 's/\(.*\)img$/&\n\1vmlinuz\n\1initrd/' | xargs -r rm -f
		mv "$out_dir/.image" "$image"
	fi
	echo "$image"
}

main() {
	mkdir -p "$root_dir" "$out_dir"
	: >>"$log"
	case ${1:-image} in
	base | build)
		take_lock root
		if [ "$1" = base ]; then
			host_root "${2:-plain}"
		else
			make_root build "$build_packages"
		fi
		;;
	image)
		[ -e "$cache_dir/kernel/current.env" ] || "$nested_dir/kernel.sh" >/dev/null
		take_lock root
		: >"$log"
		make_image "${2:-plain}"
		;;
	*)
		die "usage: root.sh [image|base|build] [plain|systemd|libvirt|forky|stock]"
		;;
	esac
}

main "$@"
exit
