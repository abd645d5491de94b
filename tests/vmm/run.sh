#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the vmm suite's programs against one QEMU, or against each that is there: the machine's own and
# those in ~/.cache/holdfast/qemu (tests/nested/qemus.sh puts them there). Its last line,
# "N passed, N failed, N skipped", counts programs times QEMUs.
set -uo pipefail
dir=$1; only=${2:-}
cache=${HOLDFAST_CACHE:-$HOME/.cache/holdfast}
qemus=()
if [[ -n $only ]]; then
	qemus=("$only")
else
	own=$(command -v qemu-system-x86_64) && qemus+=("$own")
	for q in "$cache"/qemu/*/qemu-system-x86_64; do
		[[ -x $q ]] && qemus+=("$q")
	done
fi
# In a pid namespace of their own, where that may be made: whatever a test leaves behind ends with it.
wrap=()
unshare --pid --fork --kill-child --mount-proc true 2>/dev/null &&
	wrap=(unshare --pid --fork --kill-child --mount-proc)
pass=0; fail=0; skip=0
newer=("${qemus[@]}")
for q in "${qemus[@]}"; do
	newer=("${newer[@]:1}")
	HOLDFAST_TEST_NEWER=$(IFS=:; echo "${newer[*]}")
	export HOLDFAST_TEST_NEWER
	version=$("$q" --version 2>/dev/null | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
	for t in "$dir"/vmm-*; do
		[[ -x $t && ! -d $t && $t != *.d ]] || continue
		name="${t##*/} on QEMU ${version:-?}"
		if out=$(HOLDFAST_TEST_QEMU=$q timeout 570 "${wrap[@]}" "$t" 2>&1); then
			pass=$((pass + 1)); echo "ok      $name"
			sed -n '/^    /p' <<<"$out"
		elif rc=$?; [[ $rc == 77 ]]; then
			skip=$((skip + 1)); echo "skip    $name: $(tail -n 1 <<<"$out")"
		else
			fail=$((fail + 1)); echo "FAILED  $name (exit $rc)"; sed 's/^/        /' <<<"$out"
		fi
	done
done
((${#qemus[@]} > 0)) || echo "skip    no QEMU on this machine"
echo "$pass passed, $fail failed, $skip skipped"
((fail == 0))
