#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs unit test and corpus replay programs in a folder, or the one named. Exit 77 of a program means skipped.
# Its last line, "N passed, N failed, N skipped", counts programs.
set -uo pipefail
dir=$1; only=${2:-}
pass=0; fail=0; skip=0
for t in "$dir"/test-* "$dir"/replay-*; do
	[[ -x $t && ! -d $t && $t != *.d ]] || continue
	name=${t##*/}
	[[ -z $only || $only == "$name" ]] || continue
	args=()
	[[ $name == replay-* ]] && args=("tests/fuzz/corpus/${name#replay-}")
	if out=$(timeout 120 "$t" "${args[@]}" 2>&1); then
		pass=$((pass + 1)); echo "ok      $name"
	elif rc=$?; [[ $rc == 77 ]]; then
		skip=$((skip + 1)); echo "skip    $name: $(tail -n 1 <<<"$out")"
	else
		fail=$((fail + 1)); echo "FAILED  $name (exit $rc)"; sed 's/^/        /' <<<"$out"
	fi
done
echo "$pass passed, $fail failed, $skip skipped"
((fail == 0 && pass + skip > 0))
