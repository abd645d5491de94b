#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Which kernels tests/nested/kernel.sh takes from an archive, and what it does without one. apt is played
# by a function that makes packages of what a test says; nothing is fetched or built.
#
#   test-kernel-choice.sh               every test; the last line is "N passed, N failed, 0 skipped"
#   test-kernel-choice.sh --play ARGS…  kernel.sh with that apt, in $HOLDFAST_CACHE
#   test-kernel-choice.sh --check-config LINE…  its judgement of a configuration of these lines

set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)

# play ARGS…: the archive is $HOLDFAST_CACHE/archive, one version a line: "SUITE VERSION FORMAT". FORMAT is
# the version of its handover formats, "none" of a kernel without live update, "gone" of a package that
# can't be downloaded.
play() {
	. "$top/tests/nested/kernel.sh"

	suite_apt() {
		local suite=$1 what="$2 $3"
		shift 3
		case $what in
		"apt-get update") ;;
		"apt-cache search")
			[ ! -e "$cache_dir/unreadable-$suite" ] || return 100
			awk -v suite="$suite" '$1 == suite { split($2, v, "."); print "linux-source-" v[1] "." v[2] " - Linux" }' \
				"$cache_dir/archive" | sort -u
			;;
		"apt-cache madison")
			awk -v suite="$suite" -v package="$1" '$1 == suite && index("linux-source-" $2, package ".") == 1 {
				print package " | " $2 "-1 | mirror " suite "/main Sources" }' "$cache_dir/archive"
			;;
		"apt-get download") pack "${1%=*}" "${1#*=}" ;;
		*) die "not known to this apt: $what" ;;
		esac
	}

	build_kernel() {
		mkdir -p "$kernel_dir/$1-$config_hash"
		echo "$1" | tee "$kernel_dir/$1-$config_hash/version" >"$kernel_dir/$1-$config_hash/bzImage"
	}

	main "$@"
}

# check_config_of LINE…: three are wanted.
check_config_of() {
	. "$top/tests/nested/kernel.sh"
	fragment=$cache_dir/fragment
	printf '%s\n' '# a test' CONFIG_KEXEC=y 'CONFIG_NAME="a b"' CONFIG_SOUND=n >"$fragment"
	printf '%s\n' "$@" >"$cache_dir/config"
	version=7.3.4
	check_config "$cache_dir/config"
}

# pack PACKAGE DEBVERSION: what apt-get download leaves in the working directory.
pack() {
	local version=${2%-*} format
	format=$(awk -v version="$version" '$2 == version { print $3 }' "$cache_dir/archive")
	echo "$version" >>"$cache_dir/downloads"
	[ "$format" != gone ] || return 100
	mkdir -p "$1/kernel/liveupdate" "$1/include/linux/kho/abi" deb/DEBIAN deb/usr/src
	touch "$1/Makefile"
	[ "$format" = none ] || echo "config LIVEUPDATE_MEMFD" >"$1/kernel/liveupdate/Kconfig"
	echo "#define COMPATIBLE \"memfd-${format/none/v1}\"" >"$1/include/linux/kho/abi/memfd.h"
	tar -cJf "deb/usr/src/$1.tar.xz" "$1"
	printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: test <test@example.org>\nDescription: test\n' \
		"$1" "$2" >deb/DEBIAN/control
	dpkg-deb --build --root-owner-group deb "$1_$2_all.deb"
	rm -r deb "$1"
}

# ---- what tests are made of

archive() {
	cat >"$HOLDFAST_CACHE/archive"
}

run() {
	rm -f "$HOLDFAST_CACHE/downloads"
	bash "$0" --play "$@" >"$HOLDFAST_CACHE/out" 2>&1
}

configured() {
	bash "$0" --check-config "$@" >"$HOLDFAST_CACHE/out" 2>&1
}

# chosen OLD NEW: the last run ended well with these.
chosen() {
	local got
	got=$(sed -n 's/^\(OLD\|NEW\)_VERSION=//p' "$HOLDFAST_CACHE/out" | paste -sd' ')
	[ "$got" = "$1 $2" ] || wrong "took '$got', not '$1 $2'"
}

said() {
	grep -qF -- "$1" "$HOLDFAST_CACHE/out" || wrong "did not say: $1"
}

wrong() {
	echo "        $*"
	sed 's/^/        | /' "$HOLDFAST_CACHE/out"
	exit 1
}

must_fail() {
	! "$@" || wrong "did not fail: $*"
}

week_passes() {
	touch -d '8 days ago' "$HOLDFAST_CACHE/kernel/versions"
}

usual_archive() {
	archive <<-END
		trixie-backports 7.2.11 v1
		trixie-backports 7.2.12 v1
		forky 7.3.4 v1
		forky 7.3.3 v1
	END
}

# ---- tests

test_the_newest_of_two_series() {
	usual_archive
	run
	chosen 7.2.12 7.3.4
}

test_a_choice_holds_for_a_week() {
	usual_archive
	run
	archive <<<"forky 7.4.1 v1"
	run
	chosen 7.2.12 7.3.4
	[ ! -e "$HOLDFAST_CACHE/downloads" ] || wrong "looked at the archive"
}

test_a_suite_that_moved_on() {
	usual_archive
	run
	archive <<-END
		trixie-backports 7.3.5 v1
		forky 7.4.1 v1
	END
	run --refresh
	chosen 7.3.5 7.4.1
	# Neither kernels nor sources are left of those that were chosen, and the archive has others.
	archive <<-END
		trixie-backports 7.4.2 v1
		forky 7.5.1 v1
	END
	rm -r "$HOLDFAST_CACHE"/kernel/7.* "$HOLDFAST_CACHE/src"
	run
	chosen 7.4.2 7.5.1
}

test_a_choice_that_can_be_neither_built_nor_made_anew() {
	usual_archive
	run
	rm -r "$HOLDFAST_CACHE"/kernel/7.* "$HOLDFAST_CACHE/src"
	archive <<<"forky 7.4.1 gone"
	must_fail run
}

test_one_version_only() {
	archive <<<"forky 7.3.4 v1"
	run
	chosen 7.3.4 7.3.4
	said "one suitable version only"
}

test_one_series_only() {
	archive <<-END
		trixie-backports 7.3.3 v1
		forky 7.3.4 v1
	END
	run
	chosen 7.3.3 7.3.4
}

test_without_live_update() {
	archive <<-END
		trixie-backports 7.2.12 none
		forky 7.3.4 none
	END
	must_fail run
	said "CONFIG_LIVEUPDATE"
	[ ! -e "$HOLDFAST_CACHE/kernel/versions" ] || wrong "chose"
}

test_those_without_live_update_are_passed_over() {
	archive <<-END
		trixie-backports 7.2.12 v1
		forky 7.3.4 none
		forky 7.4.1 v1
	END
	run
	chosen 7.2.12 7.4.1
	archive <<-END
		trixie-backports 7.5.0 v1
		trixie-backports 7.5.1 none
		forky 7.5.2 v1
	END
	run --refresh
	chosen 7.5.0 7.5.2
}

test_formats_that_differ() {
	archive <<-END
		trixie-backports 7.2.12 v1
		trixie-backports 7.1.9 v2
		forky 7.3.4 v2
	END
	run
	chosen 7.1.9 7.3.4
	archive <<-END
		trixie-backports 7.4.0 v2
		trixie-backports 7.4.1 v1
		forky 7.4.2 v2
		forky 7.3.5 v1
	END
	run --refresh
	chosen 7.4.0 7.4.2
	archive <<-END
		trixie-backports 7.5.0 v1
		forky 7.5.1 v2
	END
	run --refresh
	chosen 7.5.1 7.5.1
}

test_a_failed_download() {
	archive <<-END
		trixie-backports 7.2.12 gone
		forky 7.3.4 v1
	END
	must_fail run
	said "failed: suite_apt"
	[ ! -e "$HOLDFAST_CACHE/kernel/versions" ] || wrong "chose what it could get"
	# It is tried again at once, not in a week.
	usual_archive
	run
	chosen 7.2.12 7.3.4
}

test_a_failed_download_with_earlier_kernels() {
	usual_archive
	run
	archive <<-END
		trixie-backports 7.3.5 gone
		forky 7.4.1 v1
	END
	week_passes
	run
	chosen 7.2.12 7.3.4
	said "Keeping the kernel versions chosen earlier"
	archive <<-END
		trixie-backports 7.3.5 v1
		forky 7.4.1 v1
	END
	run
	chosen 7.3.5 7.4.1
}

test_an_index_that_can_not_be_read() {
	usual_archive
	touch "$HOLDFAST_CACHE/unreadable-trixie-backports"
	must_fail run
}

test_a_configuration_without_what_was_wanted() {
	configured CONFIG_KEXEC=y 'CONFIG_NAME="a b"' CONFIG_MORE=y
	must_fail configured CONFIG_KEXEC=m 'CONFIG_NAME="a b"'
	said "7.3.4 does not take these lines of kernel.config: CONFIG_KEXEC=y"
	must_fail configured CONFIG_KEXEC=y
	said ': CONFIG_NAME="a b"'
	must_fail configured CONFIG_KEXEC=y 'CONFIG_NAME="a b"' CONFIG_SOUND=m
	said ": CONFIG_SOUND=n"
}

case ${1:-} in
--play)
	shift
	play "$@"
	exit
	;;
--check-config)
	shift
	check_config_of "$@"
	exit
	;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
for test in $(declare -F | sed -n 's/^declare -f \(test_\)/\1/p'); do
	export HOLDFAST_CACHE=$work/$test
	mkdir "$HOLDFAST_CACHE"
	# Not as a condition, which would switch errexit off inside.
	set +e
	(
		set -e
		"$test"
	)
	status=$?
	set -e
	if [ "$status" -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok      $test"
	else
		failed=$((failed + 1))
		echo "FAILED  $test"
	fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
