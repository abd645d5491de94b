#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What every file of the tree has to keep to, as far as a script can tell.

 - a source file says its licence in its first lines
 - a header of the product opens with a DOC: block
 - a kernel-doc comment stands right above what it names
 - every function of a header has one, but those of internal headers; functions that follow one another without a
   blank line share that of the first
 - no file of the product is longer than 700 lines
 - text files end in one newline, and no line ends in a blank
 - nothing names a machine, a package mirror or an unknown web site; nothing is left "to do"

    source.py               check the tree
    source.py --self-test   show that each of these is caught
"""

import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent

PRODUCT = ("agent/", "vmm-glue/", "qmp/", "memfd-preserve/", "common/")
MAX_LINES = 700
SOURCE = re.compile(r"\.([ch]|py|sh)$|/(run|ci)$|^Makefile$")
SPDX = re.compile(r"SPDX-License-Identifier: Apache-2\.0\b")

# Input that is malformed on purpose, exact copies of something, or another's text.
EXEMPT = re.compile(r"^(tests/fuzz/corpus/|tests/golden/|LICENSE$)|\.(bin|gz|png|dtb)$")

# Hosts that a URL in the tree may name.
URL = re.compile(r"https?://([A-Za-z0-9.-]*[A-Za-z0-9])")
URL_HOSTS = {
    "varlink.org",           # the protocol's specification
    "systemd.io",            # sd_notify, journal and unit documentation
        "docs.kernel.org",
    "www.qemu.org",
    "libvirt.org",           # name spaces of its XML
    "qemu-project.gitlab.io",
    "prometheus.io",
    "holdfast.invalid",      # ours, and reserved never to resolve
    "example.org",
    "example.com",
    "www.w3.org",            # name spaces of SVG
}

# Each with what is wrong about it. Written so that no pattern matches its own line.
FORBIDDEN = (
    (re.compile(r"\b[a-z0-9.-]*\.?(debian|ubuntu)\.(org|com|net)\b", re.I),
     "names a package mirror: take it from apt's configuration"),
    (re.compile(r"/wor[k]/|/tm[p]/hf/"), "names a folder of one machine"),
    (re.compile(r"\b(TOD[O]|FIXM[E]|XX[X])\b"), "is left to do"),
    (re.compile(r"\b(issue|session|ticket) #?\d", re.I), "refers to notes that nobody else has"),
    (re.compile(r"Co-Authored-B[y]|\b(Claud[e]|Anthropi[c]|ChatGP[T]|Copilo[t])\b", re.I),
     "names a tool"),
)

DOC = re.compile(r"\A/\* SPDX[^\n]*\*/\n(?:[^\n]*\n){0,3}?/\*\*\n \* DOC: ")
KERNEL_DOC = re.compile(r"/\*\*\s*(?:\n \* )?(?:struct |enum |typedef |union )?(hf_\w+)(?:\(\))? - "
                        r"(?:[^*]|\*(?!/))*\*/\n((?:[^\n]*\n){1,4})")

INTERNAL = re.compile(r"(^|[/-])internal\.h$")
PROTOTYPE = re.compile(r"^(?!static |extern |typedef )[a-z][\w \t*]*?\b(hf_\w+)\([^;{}]*\);\n", re.MULTILINE)


def undocumented(text):
    """The functions that a header has no kernel-doc for: (name, where)."""
    shares = None
    for match in PROTOTYPE.finditer(text):
        above = text[:match.start()]
        comment = above[above.rfind("/*"):]
        if match.start() == shares or (comment.endswith("*/\n")
                                       and re.match(rf"/\*\*\s(?: \* )?{match.group(1)}\(\) - ", comment)):
            shares = match.end()
        else:
            yield match.group(1), match.start()


def problems_of(path, data):
    if EXEMPT.search(path) or b"\0" in data:
        return
    try:
        text = data.decode()
    except UnicodeDecodeError:
        yield f"{path}: is not UTF-8"
        return
    lines = text.split("\n")
    product = path.startswith(PRODUCT) and path.endswith((".c", ".h"))
    if SOURCE.search(path) and not SPDX.search("\n".join(lines[:4])):
        yield f"{path}:1: no SPDX-License-Identifier of this project in the first lines"
    if product and len(lines) - 1 > MAX_LINES:
        yield f"{path}: {len(lines) - 1} lines, and {MAX_LINES} are the limit: it is two files by now"
    if product and path.endswith(".h"):
        if not DOC.match(text):
            yield f"{path}:1: a header opens with SPDX and a DOC: block on purpose and ownership"
        for match in KERNEL_DOC.finditer(text):
            if not re.search(rf"\b{match.group(1)}\b", match.group(2)):
                line = text.count("\n", 0, match.start()) + 1
                yield f"{path}:{line}: the comment is about {match.group(1)}, what follows is not"
        for name, start in [] if INTERNAL.search(path) else undocumented(text):
            line = text.count("\n", 0, start) + 1
            yield f"{path}:{line}: {name}() has no kernel-doc right above"
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield f"{path}: ends in {'blank lines' if text.endswith(chr(10)) else 'an unfinished line'}"
    for number, line in enumerate(lines, 1):
        if line.endswith((" ", "\t", "\r")):
            yield f"{path}:{number}: a blank at the end"
        for pattern, why in FORBIDDEN:
            match = pattern.search(line)
            if match:
                yield f"{path}:{number}: `{match.group(0)}` {why}"
        for host in URL.findall(line):
            if host.lower() not in URL_HOSTS:
                yield f"{path}:{number}: unknown site {host}: see URL_HOSTS in tests/lint/source.py"


def tracked():
    """Paths of the tree's own files. In a tree that git doesn't know (an archive): all but build/."""
    # The tree may belong to somebody else than whoever checks it.
    out = subprocess.run(["git", "-c", f"safe.directory={TOP}", "ls-files", "-z"], cwd=TOP,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if out.returncode == 0:
        return [name for name in out.stdout.decode().split("\0") if name]
    files = (file.relative_to(TOP).as_posix() for file in TOP.rglob("*") if file.is_file())
    return sorted(name for name in files if not name.startswith(("build/", ".git/"))
                  and "__pycache__" not in name)


HEAD = "/* SPDX-License-Identifier: Apache-2.0 */\n"
DOC_HEAD = HEAD + "/**\n * DOC: A test.\n */\n"
BITES = {
    "qmp/spdx.c": "int a;\n",
    "qmp/licence.c": "/* SPDX-License-Identifier: MIT */\nint a;\n",
    "tests/spdx.py": "print()\n",
    "qmp/doc.h": HEAD + "int a;\n",
    "qmp/long.c": HEAD + "\n" * MAX_LINES + "int a;\n",
    "qmp/stale.h": DOC_HEAD + "/** hf_old() - Was renamed. */\nint hf_new(void);\n",
    "qmp/bare.h": DOC_HEAD + "int hf_a(void);\n",
    "qmp/comment.h": DOC_HEAD + "/* hf_a() - Does. */\nint hf_a(void);\n",
    "qmp/apart.h": DOC_HEAD + "/** hf_a() - Does. */\nint hf_a(void);\n\nint hf_b(int b,\n\tint c) PURE(1);\n",
    "qmp/struct.h": DOC_HEAD + "/** struct hf_b - is. */\nstruct hf_b {\n\tint c;\n};\nstruct hf_b *hf_a(void);\n",
    "qmp/end.c": HEAD + "int a;",
    "qmp/ends.c": HEAD + "int a;\n\n",
    "docs/blank.md": "word \n",
    "docs/mirror.md": "see ftp.nl." + "debian" + ".org\n",
    "docs/path.md": "in /wor" + "k/main\n",
    "docs/todo.md": "TO" + "DO: write\n",
    "docs/notes.md": "see iss" + "ue 12\n",
    "docs/site.md": "https" + "://nowhere.test/x\n",
}
FINE = {
    "qmp/fine.h": DOC_HEAD + "/** hf_a() - Does. */\nint hf_a(void);\n\n"
                  "/**\n * struct hf_b - is.\n * @c: it\n */\nstruct hf_b {\n\tint c;\n};\n\n"
                  "/**\n * hf_c() - Does, and hf_d() undoes.\n */\nint hf_c(int a,\n\tint b) PURE(1);\n"
                  "void hf_d(void);\n",
    "qmp/internal.h": DOC_HEAD + "int hf_a(void);\n",
    "qmp/some-internal.h": DOC_HEAD + "int hf_a(void);\n",
    "qmp/fine.c": HEAD + "\n" * (MAX_LINES - 3) + "int a;\n",
    "docs/fine.md": "https://varlink.org, a session with 2 files\n",
    "tests/fuzz/corpus/x/seed": "no end",
}


def self_test():
    good = True
    for path, text in BITES.items():
        if not list(problems_of(path, text.encode())):
            print(f"source.py: not caught: {path}")
            good = False
    for path, text in FINE.items():
        for problem in problems_of(path, text.encode()):
            print(f"source.py: caught without a reason: {problem}")
            good = False
    return good


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 0 if self_test() else 1
    if sys.argv[1:]:
        sys.exit(__doc__)
    count = 0
    for path in tracked():
        file = TOP / path
        if not file.is_file() or file.is_symlink():
            continue
        for problem in problems_of(path, file.read_bytes()):
            print(problem)
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
