#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The documents say what is.

 - docs/ARCHITECTURE.md has exactly the tables of `holdfastd --print-states` and of
   common/fault-points.def, between its markers
 - `make help` names every target, and none that is gone
 - holdfast(1) has an entry for every id of a finding that the agent uses, and for no other
 - docs/THREAT-MODEL.md names a test for each attack, and only tests that there are
 - links to files lead somewhere, and so do paths of this tree in `backticks`

    docs.py HOLDFASTD     check the tree
    docs.py --update HOLDFASTD
                          write the tables anew
    docs.py --self-test   show that each kind of difference is caught
"""

import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(TOP / "tests"))

import fault_points  # noqa: E402

BEGIN = "<!-- holdfastd --print-states -->\n"
FAULTS_BEGIN = "<!-- common/fault-points.def -->\n"
END = "<!-- end -->\n"
ARCHITECTURE = TOP / "docs/ARCHITECTURE.md"

FOLDERS = "agent|vmm-glue|qmp|memfd-preserve|common|tests|mk|deploy|docs"
# Paths of this tree; what has a capital or a placeholder in it stands for something else.
PATH = re.compile(rf"`((?:{FOLDERS})/[a-z0-9_./-]+[a-z0-9])`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def tables_problems(text, begin, tables):
    if text.count(begin) != 1 or END not in text.split(begin)[1]:
        yield f"docs/ARCHITECTURE.md: no single pair of markers {begin.strip()} and {END.strip()}"
        return
    if text.split(begin)[1].split(END)[0] != tables:
        yield (f"docs/ARCHITECTURE.md: what follows {begin.strip()} is not what is: run "
               "tests/lint/docs.py --update build/gcc/holdfastd")


def current_tables(program):
    """What the document has to have behind each marker."""
    states = subprocess.run([program, "--print-states"], stdout=subprocess.PIPE, check=True, text=True).stdout
    return {BEGIN: states, FAULTS_BEGIN: fault_points.table()}


def phony_targets(makefiles):
    targets = set()
    for text in makefiles:
        for match in re.finditer(r"^\.PHONY:(.*)$", text, re.MULTILINE):
            targets |= set(match.group(1).split())
    return targets


def help_problems(text, targets):
    named = set(re.findall(r"^  make ([a-z][a-z-]*)", text, re.MULTILINE)) | {"all"}
    for target in sorted(targets - named):
        yield f"mk/help.mk: `make {target}` is not in the help"
    for target in sorted(named - targets):
        yield f"mk/help.mk: there is no target {target}"


def reference_problems(path, text, exists):
    """Links are relative to the document, paths in backticks to the top."""
    for number, line in enumerate(text.splitlines(), 1):
        for target in LINK.findall(line):
            if "://" not in target and not exists((pathlib.PurePosixPath(path).parent / target)):
                yield f"{path}:{number}: the link to {target} leads nowhere"
        for target in PATH.findall(line):
            if not exists(pathlib.PurePosixPath(target)):
                yield f"{path}:{number}: there is no {target}"


FINDING = re.compile(r'"((?:host|guest|target)\.[a-z][a-z-]*)"')
FINDING_ENTRY = re.compile(r"^\*((?:host|guest|target)\.[a-z-]+)\*", re.MULTILINE)
FINDINGS_PAGE = "deploy/man/holdfast.1.scd"


def finding_problems(sources, page):
    used = {id_ for text in sources for id_ in FINDING.findall(text)}
    described = FINDING_ENTRY.findall(page)
    for id_ in sorted(used - set(described)):
        yield f"{FINDINGS_PAGE}: no entry for the finding {id_}"
    for id_ in sorted(set(described) - used):
        yield f"{FINDINGS_PAGE}: there is no finding {id_} any more"
    for id_ in sorted({id_ for id_ in described if described.count(id_) > 1}):
        yield f"{FINDINGS_PAGE}: two entries for the finding {id_}"


TEST = re.compile(r"`(test-[a-z-]+|agent(?:_[a-z]+)?\.py)/([a-z_0-9]+)`|`(fuzz-[a-z-]+)`")


def threat_problems(text, has_test):
    """@has_test: of a file's name and a test's, or None for a fuzzer."""
    attacks = text.split("## Attacks\n", 1)[-1].split("\n## ", 1)[0]
    for row in [line for line in attacks.splitlines() if line.startswith("|")][2:]:
        if not row.startswith("| **") and not TEST.search(row):
            yield f"docs/THREAT-MODEL.md: no test for: {row.split('|')[1].strip()}"
    for file, name, fuzzer in TEST.findall(text):
        if not has_test(fuzzer or file, name or None):
            yield f"docs/THREAT-MODEL.md: there is no test {fuzzer or f'{file}/{name}'}"


def has_test(file, name):
    for path, pattern in ((f"tests/fuzz/{file}.c", ""), (f"tests/unit/{file}.c", rf"\({name}\)"),
                          (f"tests/unit/{file}.py", rf"def {name}\("), (f"tests/vmm/{file}", rf"^def {name}\(")):
        if (TOP / path).exists() and (name is not None) == bool(pattern):
            if re.search(pattern, (TOP / path).read_text(), re.MULTILINE):
                return True
    return False


def documents():
    return [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]


def check(program):
    problems = [problem for begin, tables in current_tables(program).items()
                for problem in tables_problems(ARCHITECTURE.read_text(), begin, tables)]
    makefiles = [TOP / "Makefile", *(TOP / "mk").glob("*.mk"), *(TOP / "tests").rglob("*.mk")]
    helped = subprocess.run(["make", "-s", "--no-print-directory", "help"], cwd=TOP, check=True,
                            stdout=subprocess.PIPE, text=True).stdout
    problems += help_problems(helped, phony_targets(file.read_text() for file in makefiles))
    sources = [file.read_text() for folder in ("agent", "vmm-glue") for file in (TOP / folder).glob("*.c")]
    problems += finding_problems(sources, (TOP / FINDINGS_PAGE).read_text())
    problems += threat_problems((TOP / "docs/THREAT-MODEL.md").read_text(), has_test)
    for file in documents():
        problems += reference_problems(file.relative_to(TOP).as_posix(), file.read_text(),
                                       lambda path: (TOP / path).exists())
    for problem in problems:
        print(problem)
    return not problems


def update(program):
    text = ARCHITECTURE.read_text()
    for begin, tables in current_tables(program).items():
        head, rest = text.split(begin)
        text = head + begin + tables + END + rest.split(END, 1)[1]
    ARCHITECTURE.write_text(text)


def self_test():
    there = {"docs/A.md", "agent/state.c"}

    def refers(text):
        return list(reference_problems("docs/A.md", text, lambda path: str(path) in there))

    good = BEGIN + "| a |\n" + END
    bites = {
        "other table": list(tables_problems(good, BEGIN, "| b |\n")),
        "no end": list(tables_problems(BEGIN, BEGIN, "")),
        "no markers": list(tables_problems("", BEGIN, "")),
        "target missing": list(help_problems("  make a\n", {"all", "a", "b"})),
        "target gone": list(help_problems("  make a\n  make b\n", {"all", "a"})),
        "finding without entry": list(finding_problems(['add("host.new", 1)'], "*host.old*\n")),
        "entry without finding": list(finding_problems([], "*guest.old*\n\tIt is so.\n")),
        "two entries": list(finding_problems(['"host.a"'], "*host.a*\n*host.a*\n")),
        "attack without test": list(threat_problems("## Attacks\n| a |\n|-|\n| b | c | |\n", has_test)),
        "test that isn't": list(threat_problems("`test-common/test_nothing`", has_test)),
        "fuzzer that isn't": list(threat_problems("`fuzz-nothing`", has_test)),
        "dead link": refers("see [b](B.md#x)"),
        "dead path": refers("see `agent/gone.c`"),
    }
    fine = {
        "table": list(tables_problems(good, BEGIN, "| a |\n")),
        "help": list(help_problems("  make a  x\n", {"all", "a"})),
        "finding": list(finding_problems(['x("host.a-b", "see host.c")', '"guest.%s"'], "*host.a-b*\n\tIt.\n")),
        "attack": list(threat_problems("## Attacks\n| a |\n|-|\n| **b** |\n| c | `fuzz-kho` |\n", has_test)),
        "link": refers("[a](A.md), [w](https://varlink.org), `agent/state.c`, `tests/NAME.c`, `agent/`"),
    }
    for name in (name for name, problems in bites.items() if not problems):
        print(f"docs.py: not caught: {name}")
    for name, problems in fine.items():
        for problem in problems:
            print(f"docs.py: caught without a reason: {name}: {problem}")
    return all(bites.values()) and not any(fine.values())


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 0 if self_test() else 1
    if len(sys.argv) == 3 and sys.argv[1] == "--update":
        update(sys.argv[2])
        return 0
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    return 0 if check(sys.argv[1]) else 1


if __name__ == "__main__":
    sys.exit(main())
