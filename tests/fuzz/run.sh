#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzzer in a folder, or the one named, for some seconds each:
#
#   run.sh FOLDER SECONDS [fuzz-NAME]
#
# A fuzzer begins with its committed corpus, copied: what it finds stays in build/fuzz/found/NAME, an
# input that breaks it in build/fuzz/crash-NAME-*. To keep an input for good, copy it to
# tests/fuzz/corpus/NAME. The last line, "N passed, N failed, N skipped", counts fuzzers.
set -uo pipefail
dir=$1 seconds=$2 only=${3:-}
pass=0 fail=0
for fuzzer in "$dir"/fuzz-*; do
	[[ -x $fuzzer && ! -d $fuzzer && $fuzzer != *.d ]] || continue
	name=${fuzzer##*/fuzz-}
	[[ -z $only || $only == "fuzz-$name" ]] || continue
	found=build/fuzz/found/$name log=build/fuzz/$name.log
	mkdir -p "$found"
	cp -n "tests/fuzz/corpus/$name"/* "$found"/ 2>/dev/null
	if nice "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
		-close_fd_mask=1 -artifact_prefix="build/fuzz/crash-$name-" -print_final_stats=1 \
		"$found" >"$log" 2>&1 </dev/null; then
		pass=$((pass + 1))
		runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
		echo "ok      fuzz-$name: ${runs:-?} runs, $(find "$found" -type f | wc -l) inputs"
	else
		fail=$((fail + 1))
		echo "FAILED  fuzz-$name: the whole log is $log"
		tail -n 25 "$log" | sed 's/^/        /'
	fi
done
echo "$pass passed, $fail failed, 0 skipped"
((fail == 0 && pass > 0))
