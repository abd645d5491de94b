#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Build the two host kernels of the nested tests, and print where they are:
#
#   OLD=~/.cache/holdfast/kernel/7.2.12-0123456789ab
#   OLD_VERSION=7.2.12
#   NEW=…
#   NEW_VERSION=…
#
# No Debian kernel has live update switched on, but the linux-source packages contain it. The newest
# suitable versions of a backports suite and of a newer suite make the pair, so that guests cross
# from one kernel version to another. OLD is the lower. Should the archive have only one version
# left, it is used twice, and the output says so.
#
# Usage: kernel.sh [--refresh]    (--refresh: look again for newer versions in the archive now;
#                                  otherwise that is done once a week)

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suites="trixie-backports forky"
src_dir=$cache_dir/src
kernel_dir=$cache_dir/kernel
fragment=$nested_dir/kernel.config
config_hash=$(grep '^CONFIG_' "$fragment" | sha256sum | cut -c1-12)
log=$cache_dir/log/kernel.log

# Every linux-source-7.x on offer, newest first: "VERSION SUITE PACKAGE DEBVERSION".
candidates() {
	local suite
	for suite in $suites; do
		suite_apt "$suite" apt-cache search --names-only '^linux-source-7\.[0-9]+$' |
			cut -d' ' -f1 |
			while read -r package; do
				suite_apt "$suite" apt-cache madison "$package"
			done |
			awk -F' *[|] *' -v suite="$suite" '{
				gsub(/ /, "", $1); version = $2; sub(/-.*/, "", version)
				print version, suite, $1, $2
			}' || exit 1
	done | sort -k1,1Vr -u
}

# fetch_source VERSION SUITE PACKAGE DEBVERSION: unpack it to $src_dir/linux-VERSION.
fetch_source() {
	local version=$1 suite=$2 package=$3 debversion=$4 temp
	[ ! -e "$src_dir/linux-$version/Makefile" ] || return 0
	temp=$src_dir/.unpack
	rm -rf "$temp"
	mkdir "$temp"
	say "Fetching the source of Linux $version"
	(
		cd "$temp"
		logged "$log" suite_apt "$suite" apt-get download "$package=$debversion"
		logged "$log" dpkg-deb -x ./*.deb .
		# The largest parts that are neither built nor of interest here; Kconfig files stay.
		logged "$log" tar -xf "usr/src/$package.tar.xz" --exclude='*/Documentation/translations/*' \
			--exclude='*/drivers/gpu/drm/amd/*.[ch]' --exclude='*/tools/perf/*' \
			--exclude='*.dts' --exclude='*.dtsi'
	)
	rm -rf "$src_dir/linux-$version"
	mv "$temp/$package" "$src_dir/linux-$version"
	rm -rf "$temp"
}

has_live_update() {
	grep -q '^config LIVEUPDATE_MEMFD$' "$src_dir/linux-$1/kernel/liveupdate/Kconfig" 2>/dev/null
}

# The versions of the formats that a kernel hands over; two kernels understand each other only when
# these are the same.
handover_formats() {
	grep -rhoE '"[a-z0-9-]+-v[0-9]+"' "$src_dir/linux-$1/include/linux/kho/abi" | sort -u
}

# Choose two versions and write their names to $kernel_dir/versions. What can't be fetched fails the
# choice: it is not known whether it would have done.
choose_versions() {
	local suite list series same version package debversion old='' new=''
	for suite in $suites; do
		logged "$log" suite_apt "$suite" apt-get update
	done
	list=$(candidates)
	[ -n "$list" ] || die "no linux-source-7.x in $suites"

	# The second one should be of another release series; only if there is none, another version
	# of the same series.
	for series in other same; do
		while read -r version suite package debversion; do
			if [ -n "$new" ]; then
				[ "${version%.*}" = "${new%.*}" ] && same=same || same=other
				[ "$same" = "$series" ] && [ "$version" != "$new" ] || continue
			fi
			fetch_source "$version" "$suite" "$package" "$debversion" </dev/null
			has_live_update "$version" || continue
			if [ -z "$new" ]; then
				new=$version
			elif [ "$(handover_formats "$version")" = "$(handover_formats "$new")" ]; then
				old=$version
				break 2
			fi
		done <<<"$list"
	done
	[ -n "$new" ] || die "no linux-source-7.x in $suites has CONFIG_LIVEUPDATE"
	printf '%s %s\n' "${old:-$new}" "$new" >"$kernel_dir/versions.new"
	mv "$kernel_dir/versions.new" "$kernel_dir/versions"
}

# Every line of the fragment must still hold after olddefconfig, or the kernel isn't the one that
# was asked for.
check_config() {
	local config=$1 line symbol bad=''
	while read -r line; do
		case $line in
		CONFIG_*=n)
			symbol=${line%=n}
			! grep -q "^$symbol=" "$config" || bad+=" $line"
			;;
		CONFIG_*)
			grep -qxF -- "$line" "$config" || bad+=" $line"
			;;
		esac
	done <"$fragment"
	[ -z "$bad" ] || die "Linux $version does not take these lines of kernel.config:$bad"
}

build_kernel() {
	local version=$1 target=$kernel_dir/$1-$config_hash src=$src_dir/linux-$1 temp started
	[ ! -e "$target/bzImage" ] || return 0
	temp=$kernel_dir/.build
	rm -rf "$temp"
	mkdir "$temp"
	started=$SECONDS
	say "Building Linux $version (some minutes; log: $log)"

	local make=(nice make -C "$src" O="$temp" -j"${HOLDFAST_JOBS:-$(nproc)}" ARCH=x86_64
		KBUILD_BUILD_USER=holdfast KBUILD_BUILD_HOST=nested LOCALVERSION=)
	logged "$log" "${make[@]}" tinyconfig
	logged "$log" env -C "$temp" "$src/scripts/kconfig/merge_config.sh" -m -O "$temp" \
		"$temp/.config" "$fragment"
	logged "$log" "${make[@]}" olddefconfig
	check_config "$temp/.config"
	logged "$log" "${make[@]}" bzImage

	mkdir "$temp/result"
	cp "$temp/arch/x86/boot/bzImage" "$temp/result/bzImage"
	cp "$temp/.config" "$temp/result/config"
	cp "$temp/include/config/kernel.release" "$temp/result/version"
	rm -rf "$target"
	mv "$temp/result" "$target"
	rm -rf "$temp"
	say "Built Linux $version in $((SECONDS - started)) s"
}

main() {
	local fresh old new version chosen
	mkdir -p "$src_dir" "$kernel_dir"
	take_lock kernel
	: >"$log"

	fresh=$(find "$kernel_dir/versions" -mtime -7 2>/dev/null || true)
	if [ -z "$fresh" ] || [ "${1:-}" = --refresh ]; then
		# A condition would switch errexit off inside, and what fails there would be passed over.
		set +e
		(
			set -e
			choose_versions
		)
		chosen=$?
		set -e
		# Kernels that are there already do for a machine that can't reach the archive just now.
		if [ "$chosen" -ne 0 ]; then
			[ -e "$kernel_dir/versions" ] || exit 1
			say "Keeping the kernel versions chosen earlier"
		fi
	fi
	read -r old new <"$kernel_dir/versions"
	for version in "$old" "$new"; do
		if [ ! -e "$kernel_dir/$version-$config_hash/bzImage" ]; then
			[ -e "$src_dir/linux-$version/Makefile" ] || (choose_versions)
		fi
	done
	read -r old new <"$kernel_dir/versions"
	build_kernel "$old"
	build_kernel "$new"

	[ "$old" != "$new" ] || say "Note: the archive has one suitable version only; both kernels are Linux $new"
	{
		echo "OLD=$kernel_dir/$old-$config_hash"
		echo "OLD_VERSION=$(cat "$kernel_dir/$old-$config_hash/version")"
		echo "NEW=$kernel_dir/$new-$config_hash"
		echo "NEW_VERSION=$(cat "$kernel_dir/$new-$config_hash/version")"
	} >"$kernel_dir/current.env.new"
	mv "$kernel_dir/current.env.new" "$kernel_dir/current.env"
	cat "$kernel_dir/current.env"
}

# Read to the end before anything is done. tests/unit/test-kernel-choice.sh has only the functions.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
	main "$@"
	exit
fi
