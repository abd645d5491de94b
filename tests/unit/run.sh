#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs unit test and corpus replay programs in a folder, or the one named; one more at a time than there are
# processors, as some wait for something most of the time. Exit 77 of a program means skipped.
# Its last line, "N passed, N failed, N skipped", counts programs.
set -uo pipefail
dir=$1; only=${2:-}

# What a program comes to, in one write: others do the same.
run_one() {
	local t=$1 name=${1##*/} args=() out rc=0
	[[ $name == replay-* ]] && args=("tests/fuzz/corpus/${name#replay-}")
	out=$(timeout 120 "$t" "${args[@]}" 2>&1) || rc=$?
	case $rc in
	0) out="ok      $name" ;;
	77) out="skip    $name: $(tail -n 1 <<<"$out")" ;;
	*) out="FAILED  $name (exit $rc)"$'\n'$(sed 's/^/        /' <<<"$out") ;;
	esac
	printf '%s\n' "$out"
}
export -f run_one

programs() {
	local t name
	for t in "$dir"/test-* "$dir"/replay-*; do
		name=${t##*/}
		[[ -x $t && ! -d $t && $t != *.d && ( -z $only || $only == "$name" ) ]] && printf '%s\0' "$t"
	done
}

pass=0; fail=0; skip=0
while IFS= read -r line; do
	printf '%s\n' "$line"
	case $line in
	"ok "*) pass=$((pass + 1)) ;;
	"skip "*) skip=$((skip + 1)) ;;
	"FAILED "*) fail=$((fail + 1)) ;;
	esac
done < <(programs | sort -zr | xargs -0 -r -n 1 -P $(($(nproc) + 1)) bash -c 'run_one "$1"' run_one)
echo "$pass passed, $fail failed, $skip skipped"
((fail == 0 && pass + skip > 0))
