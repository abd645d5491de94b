#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Make QEMU 10.0 (trixie) and a newer one (trixie-backports) runnable on the build machine, for the
# tests that load guests across QEMU versions without a reboot; and 7.2 (bookworm), the oldest that
# is supported, where the machine's own is newer. Prints one line for each:
#
#   10.0.6 /root/.cache/holdfast/qemu/10.0/qemu-system-x86_64
#
# Each is a small script that runs the root's QEMU with the root's own dynamic loader, libraries and
# firmware. So there is no chroot: file descriptors are inherited, paths mean what they mean on the
# machine, and the process id stays the same.

set -euo pipefail
. "$(dirname "$0")/lib.sh"

qemu_dir=$cache_dir/qemu
log=$cache_dir/log/qemus.log

# make_qemu SUITE BASE: extract (not install) QEMU of a suite, with the libraries of BASE; write the wrapper.
make_qemu() {
	local from=$1 base=$2 key stamp temp version short option mirror
	key="$from $(date +%G-%V)"
	stamp=$qemu_dir/$from.stamp
	if [ "$(head -n1 "$stamp" 2>/dev/null)" = "$key" ]; then
		tail -n1 "$stamp"
		return
	fi
	[ "$(id -u)" = 0 ] || die "making the QEMU roots needs root"
	mirror=$(debian_mirror)
	say "Making the root of QEMU from $from (log: $log)"
	temp=$qemu_dir/.$from
	rm -rf "$temp"
	local options=() sources=("deb $mirror $base main")
	[ "$from" = "$base" ] || sources+=("deb $mirror $from main")
	while read -r option; do
		options+=("--aptopt=$option")
	done < <(apt_age_options)
	if ! (logged "$log" nice mmdebstrap --variant=extract --include=qemu-system-x86 \
		--aptopt="APT::Default-Release \"$from\"" --aptopt='APT::Install-Recommends "false"' "${options[@]}" --keyring="$(keyring)" \
		"$base" "$temp" "${sources[@]}"); then
		[ -e "$stamp" ] || exit 1
		say "Keeping the QEMU made earlier"
		tail -n1 "$stamp"
		return
	fi
	# Before trixie some packages still have their libraries in /lib.
	[ ! -d "$temp/lib/x86_64-linux-gnu" ] || [ -L "$temp/lib" ] || cp -a "$temp/lib/." "$temp/usr/lib/"
	rm -rf "$temp/usr/share/doc" "$temp/usr/share/man" "$temp/usr/share/locale" "$temp/var/cache/apt"
	install_wrapper "$from" "$key" "$temp" | tee "$stamp.new" | tail -n1
	mv "$stamp.new" "$stamp"
}

install_wrapper() {
	local from=$1 key=$2 temp=$3 version short
	version=$(run_of "$temp" | "$BASH" -s -- --version |
		sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p')
	[ -n "$version" ] || die "QEMU of $from doesn't run (the log is $log)"
	short=${version%.*}
	# A symbolic link to the root makes the exchange one rename.
	rm -rf "$qemu_dir/root-$short" "$qemu_dir/$short.new"
	mv "$temp" "$qemu_dir/root-$short"
	mkdir -p "$qemu_dir/$short"
	run_of "$qemu_dir/root-$short" >"$qemu_dir/$short/qemu-system-x86_64.new"
	chmod +x "$qemu_dir/$short/qemu-system-x86_64.new"
	# A QEMU that can't find its accelerator or its firmware should fail here, not in a test.
	echo quit | "$qemu_dir/$short/qemu-system-x86_64.new" -S -machine q35 -accel tcg -nodefaults \
		-display none -monitor stdio >>"$log" 2>&1 || die "QEMU $version doesn't start (see $log)"
	mv "$qemu_dir/$short/qemu-system-x86_64.new" "$qemu_dir/$short/qemu-system-x86_64"
	printf '%s\n%s %s\n' "$key" "$version" "$qemu_dir/$short/qemu-system-x86_64"
}

# run_of ROOT: print the wrapper script for the QEMU in ROOT.
run_of() {
	local root=$1
	cat <<END
#!/bin/sh
export QEMU_MODULE_DIR=$root/usr/lib/x86_64-linux-gnu/qemu
exec $root/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --argv0 "\$0" --inhibit-cache \\
	--library-path $root/usr/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu/systemd \\
	$root/usr/bin/qemu-system-x86_64 -L $root/usr/share/qemu -L $root/usr/share/seabios \\
	-L $root/usr/lib/ipxe/qemu "\$@"
END
}

main() {
	mkdir -p "$qemu_dir"
	take_lock qemus
	: >"$log"
	case $(qemu-system-x86_64 --version 2>/dev/null) in
	*"version 7."*) ;;
	*) make_qemu bookworm bookworm ;;
	esac
	make_qemu trixie trixie
	make_qemu trixie-backports trixie
}

main "$@"
exit
