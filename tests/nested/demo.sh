#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shows the main thing: three virtual machines live through a change of their host's kernel. With LIBVIRT=1
# they are libvirt's domains, and a fourth is not.
#
# Installs what is missing, builds two kernels and the nested host the first time (half an hour, then
# kept under ~/.cache/holdfast), and runs the case live-update, or libvirt. Nothing on this machine is changed but
# installed packages: the host that is updated is itself a virtual machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
mk/deps.sh demo
tests/nested/kernel.sh >/dev/null
# shellcheck source=/dev/null
. "${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}/kernel/current.env"
if [[ $OLD_VERSION == "$NEW_VERSION" ]]; then
	echo "Only one kernel version with live update was found: the host goes from $OLD_VERSION to $OLD_VERSION"
else
	echo "The host goes from Linux $OLD_VERSION to Linux $NEW_VERSION, its guests with it"
fi
case ${LIBVIRT:-} in
'' | 0) exec tests/nested/run.py live-update --attempts 3 ;;
*) exec tests/nested/run.py libvirt --attempts 3 ;;
esac
