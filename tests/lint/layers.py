#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Layering: fails on an #include that points the wrong way.

    agent -> vmm-glue -> { qmp, memfd-preserve } -> common -> packages
    vmm-glue/libvirt -> common, and libvirt, which nothing else includes
    agent/cli -> common, and of memfd-preserve what looks into kernel images

qmp and memfd-preserve never see each other, and a folder's private headers stay private. Tests and
benches may include what they like.

    layers.py               check the tree
    layers.py --self-test   show that each kind of wrong include is caught
"""

import pathlib
import re
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent.parent

# What each layer may include of the others. Its own headers are always allowed.
MAY_INCLUDE = {
    "agent/cli": {"common"},
    "agent": {"vmm-glue", "qmp", "memfd-preserve", "common"},
    "vmm-glue/libvirt": {"common"},
    "vmm-glue": {"qmp", "memfd-preserve", "common"},
    "qmp": {"common"},
    "memfd-preserve": {"common"},
    "common": set(),
}

# Single headers of other layers: looking into a file on disk needs no agent.
ALSO = {
    "agent/cli": {"memfd-preserve/kernel-image.h"},
}

# Headers that only their own folder may include.
PRIVATE = re.compile(r"(^|/)(internal|[a-z-]+-internal|carrier-impl|luo-uapi)\.h$")

# What only one program is linked with.
LIBVIRT = re.compile(r"lib(virt|xml)/")

INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
INCBIN = re.compile(r'\.incbin\s+\\?"([^"\\]+)')


def layer_of(path):
    """The layer that a path relative to the top belongs to, or None."""
    for layer in MAY_INCLUDE:  # agent/cli comes before agent, vmm-glue/libvirt before vmm-glue
        if path.startswith(layer + "/"):
            return layer
    return None


def problems_of(path, text, exists):
    """What is wrong with the includes of one file; `exists` tells whether a path is in the tree."""
    layer = layer_of(path)
    for match in INCLUDE.finditer(text):
        quoted, angled = match.groups()
        line = text.count("\n", 0, match.start(1 if quoted else 2)) + 1
        target = quoted or angled
        where = f"{path}:{line}"
        if angled:
            if LIBVIRT.match(angled) and layer != "vmm-glue/libvirt":
                yield f"{where}: <{angled}> is for vmm-glue/libvirt only"
            if layer_of(angled):
                yield f"{where}: <{angled}> is ours: include it as \"{angled}\""
            continue
        to = layer_of(target)
        if to is None:
            yield f"{where}: \"{target}\" is not a path from the top into a layer"
        elif not exists(target):
            yield f"{where}: \"{target}\" does not exist"
        elif to != layer and to not in MAY_INCLUDE[layer] and target not in ALSO.get(layer, ()):
            yield f"{where}: {layer} must not include {to} (\"{target}\")"
        elif to != layer and PRIVATE.search(target):
            yield f"{where}: \"{target}\" is private to {to}"
    for match in INCBIN.finditer(text):
        if layer_of(match.group(1)) != layer:
            yield f"{path}: embeds {match.group(1)}, which is not its own"


def check(top):
    problems, files = [], 0
    for layer in ("agent", "vmm-glue", "qmp", "memfd-preserve", "common"):
        for file in sorted((top / layer).rglob("*.[ch]")):
            path = file.relative_to(top).as_posix()
            files += 1
            problems += problems_of(path, file.read_text(), lambda p: (top / p).is_file())
    return files, problems


BITES = {
    "qmp/a.c": '#include "memfd-preserve/luo.h"\n',
    "memfd-preserve/a.c": '#include "qmp/qmp.h"\n',
    "common/a.h": '#include "qmp/qmp.h"\n',
    "vmm-glue/a.c": '#include "agent/agent.h"\n',
    "vmm-glue/b.c": '#  include "agent/cli/verb.h"\n',
    "agent/a.c": '#include "agent/cli/verb.h"\n',
    "agent/b.c": '#include "qmp/internal.h"\n',
    "agent/c.c": '#include "agent.h"\n',
    "agent/d.c": '#include "common/missing.h"\n',
    "agent/e.c": "#include <common/fd.h>\n",
    "agent/cli/a.c": '#include "vmm-glue/vmm.h"\n',
    "agent/cli/b.c": '#include "agent/agent.h"\n',
    "agent/cli/c.c": '#include "memfd-preserve/luo.h"\n',
    "vmm-glue/c.c": '#include "vmm-glue/libvirt/verbs.h"\n',
    "vmm-glue/d.c": "#include <libvirt/libvirt.h>\n",
    "vmm-glue/libvirt/a.c": '#include "qmp/qmp.h"\n',
    "vmm-glue/libvirt/b.c": '#include "vmm-glue/vmm.h"\n',
    "qmp/b.c": '#include "memfd-preserve/kernel-image.h"\n',
    "common/b.c": '#include "../agent/agent.h"\n',
}
HEADERS = ("qmp/qmp.h", "qmp/internal.h", "memfd-preserve/luo.h", "memfd-preserve/kernel-image.h", "agent/agent.h", "vmm-glue/vmm.h",
           "vmm-glue/libvirt/verbs.h", "agent/cli/verb.h", "common/fd.h")
FINE = {
    "vmm-glue/libvirt/fine.c": '#include <libvirt/libvirt.h>\n#include "vmm-glue/libvirt/verbs.h"\n'
                               '#include "common/fd.h"\n',
    "agent/fine.c": '#include <stdio.h>\n#include "agent/agent.h"\n#include "vmm-glue/vmm.h"\n',
    "vmm-glue/fine.c": '#include "qmp/qmp.h"\n#include "memfd-preserve/luo.h"\n',
    "qmp/fine.c": '#include "qmp/internal.h"\n#include "common/fd.h"\n',
    "agent/cli/fine.c": '#include "agent/cli/verb.h"\n#include "common/fd.h"\n'
                        '#include "memfd-preserve/kernel-image.h"\n',
}


def self_test():
    with tempfile.TemporaryDirectory(prefix="layers.") as name:
        top = pathlib.Path(name)
        for path, text in {**{h: "" for h in HEADERS}, **BITES, **FINE}.items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text(text)
        caught = {problem.split(":", 1)[0] for problem in check(top)[1]}
    for path in sorted(set(BITES) - caught):
        print(f"layers.py: not caught: {path}: {BITES[path].strip()}")
    for path in sorted(caught - set(BITES)):
        print(f"layers.py: caught without a reason: {path}")
    return caught == set(BITES)


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 0 if self_test() else 1
    if sys.argv[1:]:
        sys.exit(__doc__)
    files, problems = check(TOP)
    for problem in problems:
        print(problem)
    return 1 if problems or not files else 0


if __name__ == "__main__":
    sys.exit(main())
