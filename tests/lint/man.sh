#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The man pages say what the programs say.
#
#   man.sh BUILD        check the pages against BUILD/holdfast, BUILD/holdfast-vmm, BUILD/holdfastd
#   man.sh --self-test  show that each kind of difference is caught
#
# Every page compiles and is called what its file is. Every verb and option in the --help of a
# program (and of each of its verbs) has an entry in its page, and no page has an entry for a verb
# or an option that no --help knows. The keys of the configuration, and their defaults, are in their page. What a verb takes (in capitals) is in its page, underlined. An
# entry is a line that begins with the word in bold:
#
#   *--kernel* _FILE_      *-o*, *--output* *table* | *json*      *inspect kho*

set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
# What programs know without saying so in every --help.
always="-h --help --version --output"
problems=0

problem() {
	echo "$1"
	problems=$((problems + 1))
}

# options_of: the options named in a --help on standard input, one a line.
options_of() {
	grep -oE '(^|[ [(|,])(--[a-z][a-z-]+|-[a-zA-Z]([ ,]|$))' | grep -oE -- '--?[a-zA-Z][a-z-]*' | sort -u || true
}

# verbs_of: the words that a --help on standard input lists, one a line.
verbs_of() {
	sed -nE 's/^  ([a-z][a-z-]*)( .*)?$/\1/p'
}

# has_entry PAGE WORDS: is there an entry for them, or entries for what may follow them?
has_entry() {
	grep -E '^\*' "$1" | grep -qE -- "\\*$2(\\*| [a-z])"
}

check_page() {
	local page=$1 name=${1##*/}
	name=${name%.scd}
	if ! scdoc <"$page" >/dev/null 2>"$temp/scdoc"; then
		problem "$page: $(tr '\n' ' ' <"$temp/scdoc")"
	elif [ -s "$temp/scdoc" ]; then
		problem "$page: $(tr '\n' ' ' <"$temp/scdoc")"
	fi
	head -n1 "$page" | grep -qF "${name%.*}(${name##*.})" ||
		problem "$page:1: is not about ${name%.*}(${name##*.})"
	head -n4 "$page" | grep -q '^; SPDX-License-Identifier: Apache-2\.0$' ||
		problem "$page:1: no SPDX-License-Identifier in a comment in the first lines"
}

# check_program PROGRAM PAGE
check_program() {
	local program=$1 page=$2 name=${1##*/} verb word words
	if [ ! -e "$page" ]; then
		problem "$page: does not exist, but $name does"
		return
	fi
	if ! "$program" --help >"$temp/help" 2>&1 </dev/null; then
		problem "$name --help fails"
		return
	fi
	cp "$temp/help" "$temp/all"
	: >"$temp/words"
	for verb in $(verbs_of <"$temp/help"); do
		echo "$verb" >>"$temp/words"
		if ! "$program" "$verb" --help >"$temp/verb" 2>&1 </dev/null; then
			problem "$name $verb --help fails"
			continue
		fi
		cat "$temp/verb" >>"$temp/all"
		for word in $(verbs_of <"$temp/verb"); do
			echo "$verb $word" >>"$temp/words"
		done
		for word in $(head -n1 "$temp/verb" | grep -owE '[A-Z]{2,}' || true); do
			grep -qwF "_${word}_" "$page" || problem "$page: says nothing of the $word of \`$verb\`"
		done
	done
	while read -r words; do
		has_entry "$page" "$words" || problem "$page: no entry for \`$words\`"
	done <"$temp/words"
	options_of <"$temp/all" >"$temp/options"
	while read -r word; do
		has_entry "$page" "$word" || problem "$page: no entry for \`$word\`"
	done <"$temp/options"

	# The other way round.
	for word in $(grep -E '^\*-' "$page" | grep -oE '\*--?[a-zA-Z][a-z-]*' | tr -d '*' | sort -u); do
		case " $always " in *" $word "*) continue ;; esac
		grep -qxF -- "$word" "$temp/options" || problem "$page: \`$word\` is no option of $name"
	done
	sed -n '/^# VERBS$/,/^# O/p' "$page" | sed -nE 's/^\*([a-z][a-z -]*)\*.*/\1/p' | while read -r words; do
		grep -qxF "$words" "$temp/words" || echo "$words"
	done >"$temp/stale"
	while read -r words; do
		problem "$page: \`$words\` is no verb of $name"
	done <"$temp/stale"
}

# check_keys BUILD PAGE: every key of the configuration has an entry with its default, and no other has.
check_keys() {
	local program=$1/holdfastd page=$2 key value
	if ! HOLDFAST_CONFIG_DIR=/nonexistent "$program" --check-config >"$temp/keys" 2>&1 </dev/null; then
		problem "holdfastd --check-config fails"
		return
	fi
	sed -i '/=/!d' "$temp/keys"
	while IFS='=' read -r key value; do
		grep -qE "^\*$key=\*" "$page" || problem "$page: no entry for the key \`$key\`"
		[ -z "$value" ] || sed -n "/^\*$key=\*/,/^\$/p" "$page" | tr '\n\t' '  ' | grep -qF "default is *$value*" ||
			problem "$page: says nothing of the default \`$value\` of \`$key\`"
	done <"$temp/keys"
	for key in $(sed -nE 's/^\*([a-z-]+)=\*.*/\1/p' "$page"); do
		grep -q "^$key=" "$temp/keys" || problem "$page: \`$key\` is no key of the configuration"
	done
}

# check BUILD PAGES PAGE...: programs in BUILD, sources of their pages in PAGES.
check() {
	local build=$1 pages=$2 page name
	shift 2
	for page in "$pages"/*.scd; do
		check_page "$page"
	done
	for page; do
		name=${page%.*}
		if [ "$page" = holdfast.conf.5 ]; then
			check_keys "$build" "$pages/$page.scd"
			continue
		fi
		if [ -x "$build/$name" ]; then
			check_program "$build/$name" "$pages/$page.scd"
		else
			problem "$build/$name: does not exist"
		fi
	done
}

# ---- self-test ----

write_sample() {
	rm -rf "$temp/t"
	mkdir -p "$temp/t"
	cat >"$temp/t/prog" <<-'END'
		#!/bin/bash
		case $1 in
		--help) printf 'usage: prog VERB\n       prog --version\n\n  go    goes\n  see   looks\n' ;;
		go) printf 'usage: prog go [--fast] [-o FORMAT]\n\nGoes well-known-ly.\n\n  --fast   is that\n' ;;
		see) printf 'usage: prog see here|there\n\n  here   there\n' ;;
		esac
	END
	chmod +x "$temp/t/prog"
	printf '#!/bin/bash\nprintf "[defaults]\\nsize=2 m\\nname=\\n"\n' >"$temp/t/holdfastd"
	chmod +x "$temp/t/holdfastd"
	cat >"$temp/t/holdfast.conf.5.scd" <<-'END'
		holdfast.conf(5)
		; SPDX-License-Identifier: Apache-2.0

		# NAME

		holdfast.conf - a sample

		# KEYS

		*size=*
			Its size. The default
			is *2 m*.

		*name=*
			Its name.
	END
	cat >"$temp/t/prog.1.scd" <<-'END'
		prog(1)
		; SPDX-License-Identifier: Apache-2.0

		# NAME

		prog - a sample

		# VERBS

		*go*
			Go.

		*see*
			See.

		*see here*
			See here.

		# OPTIONS

		*--fast*
			Fast.

		*-o* _FORMAT_
			The format.

		*-h*, *--help*, *--version*
			These.
	END
}

# bites WHAT SED-EXPRESSION FILE: after this change there is a problem.
bites() {
	write_sample
	sed -i "$2" "$temp/t/$3"
	problems=0
	check "$temp/t" "$temp/t" prog.1 holdfast.conf.5 >/dev/null
	if [ "$problems" = 0 ]; then
		echo "man.sh: not caught: $1"
		failed=1
	fi
}

self_test() {
	failed=0
	write_sample
	problems=0
	check "$temp/t" "$temp/t" prog.1 holdfast.conf.5
	[ "$problems" = 0 ] || failed=1
	bites "a page that doesn't compile" 's/See\.$/*See./' prog.1.scd
	bites "a page about something else" '1s/prog/frog/' prog.1.scd
	bites "a page without a licence" '2d' prog.1.scd
	bites "a verb without an entry" 's/^\*go\*$/go/' prog.1.scd
	bites "a word of a verb without an entry" 's/^\*see here\*$/see here/' prog.1.scd
	bites "an option without an entry" 's/^\*--fast\*$/fast/' prog.1.scd
	bites "a short option without an entry" 's/^\*-o\* /o /' prog.1.scd
	bites "an argument that the page doesn't know" 's/prog see/prog see THING/' prog
	bites "an entry for an option that is gone" 's/ \[--fast\]//; s/--fast/more/' prog
	bites "an entry for a verb that is gone" 's/  go    goes/no verbs/' prog
	bites "a key without an entry" 's/^\*name=\*$/name/' holdfast.conf.5.scd
	bites "a default that has changed" 's/2 m/3 m/' holdfastd
	bites "an entry for a key that is gone" 's/name=/title=/' holdfastd
	bites "a configuration that can't be shown" '1a exit 1' holdfastd
	bites "a --help that fails" 's/^go) /go) exit 1;/' prog
	return "$failed"
}

temp=$(mktemp -d "${TMPDIR:-/tmp}/man.XXXXXX")
trap 'rm -rf "$temp"' EXIT

case ${1:-} in
--self-test)
	self_test
	;;
"" | -*)
	echo "usage: man.sh BUILD | --self-test" >&2
	exit 2
	;;
*)
	build=$(realpath "$1")
	cd "$top"
	check "$build" deploy/man holdfast.1 holdfast-vmm.1 holdfastd.8 holdfast.conf.5
	[ "$problems" = 0 ]
	;;
esac
