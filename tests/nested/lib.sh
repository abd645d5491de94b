# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the scripts of tests/nested share: the cache, the package mirror, logging. Sourced.

nested_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034 # used by those who source this file
top_dir=$(cd "$nested_dir/../.." && pwd)
cache_dir=${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}
mkdir -p "$cache_dir/log"

say() {
	echo "$*" >&2
}

die() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# The address of the Debian mirror that this machine uses itself, so that a proxy, a mirror or a
# snapshot configured for the machine holds for everything made here, too.
debian_mirror() {
	local site
	site=$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(SITE)' 2>/dev/null |
		awk '$1 == "Debian" && $2 == "main" && $3 !~ /security/ { print $3; exit }')
	[ -n "$site" ] || die "apt knows no Debian mirror on this machine; run apt-get update"
	echo "$site"
}

keyring() {
	echo /usr/share/keyrings/debian-archive-keyring.gpg
}

# Whether this machine's apt checks the age of an index. A frozen mirror needs that off, and is then
# configured so on the machine; the roots have to do as it does.
apt_age_options() {
	apt-config dump 2>/dev/null | sed -n 's/^\(Acquire::Check-[A-Za-z-]* ".*"\);$/\1/p'
}

# suite_apt SUITE COMMAND ARGS…: run apt-get or apt-cache on one suite's index alone, with lists of
# its own. Nothing of it is seen by, or changes, the machine's apt.
suite_apt() {
	local suite=$1 command=$2 dir=$cache_dir/apt/$1
	shift 2
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/parts"
	[ -e "$dir/sources.list" ] ||
		echo "deb [signed-by=$(keyring)] $(debian_mirror) $suite main" >"$dir/sources.list"
	"$command" -q -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts="$dir/parts" \
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts="$dir/parts" \
		-o Dir::State="$dir" -o Dir::State::lists="$dir/lists" -o Dir::State::status=/dev/null \
		-o Dir::Cache="$dir/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=root \
		-o APT::Architecture=amd64 -o APT::Architectures=amd64 "$@"
}

# take_lock NAME: hold an exclusive lock until this shell ends. Two runs that need the same thing
# then make it once.
take_lock() {
	exec {lock_fd}>"$cache_dir/$1.lock"
	flock "$lock_fd"
}

# logged LOG COMMAND…: run quietly, and show the end of the log when it fails.
logged() {
	local log=$1
	shift
	if ! "$@" >>"$log" 2>&1 </dev/null; then
		tail -n 25 "$log" >&2
		die "failed: $1 (the whole log is $log)"
	fi
}
