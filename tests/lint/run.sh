#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every static check, all of them even when one fails. The last line counts them.
set -uo pipefail
cd "$(dirname "$0")/../.."
pass=0 fail=0 skip=0

# one NAME COMMAND…
one() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1 </dev/null); then
		pass=$((pass + 1))
		echo "ok      $name"
	elif grep '^skip ' <<<"$out"; then
		skip=$((skip + 1))
	else
		fail=$((fail + 1))
		echo "FAILED  $name"
		sed 's/^/        /' <<<"$out"
	fi
}

make=(make -s --no-print-directory)
one layers "${make[@]}" lint-layers
one source "${make[@]}" lint-source
one clang-format "${make[@]}" lint-format
one docs "${make[@]}" lint-docs
one man "${make[@]}" lint-man
one cppcheck "${make[@]}" lint-cppcheck
one clang-tidy "${make[@]}" -k -j"$(nproc)" lint-tidy
echo "$pass passed, $fail failed, $skip skipped"
((fail == 0))
