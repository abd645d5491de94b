# SPDX-License-Identifier: Apache-2.0
"""common/fault-points.def for the tests: which points there are, how to get to them, what is to come of it."""

import pathlib
import re

DEATHS = ("exit", "SIGKILL", "hang")
FAILURES = ("EIO", "ENOMEM")
FILE = pathlib.Path(__file__).resolve().parent.parent / "common/fault-points.def"
LINE = re.compile(r'^HF_FAULT_POINT\((\w+), "([a-z-]+)", (\w+), (\w+), (\w+),\s+"([^"]+)"\)$', re.MULTILINE)

# For people, in docs/ARCHITECTURE.md.
OUTCOMES = {"OLD": "goes on in its old QEMU", "NEW": "goes on in a new QEMU",
            "HELD": "is held until it is tried again", "NONE": "can't fail"}
CARRIERS = {"LUO": "`luo`", "HOLD": "`hold`", "IMAGE": "`image`"}


# Phases of adoptions, and what those and updates have in common: what a next agent finds, and from there on.
ADOPTION = ("ADOPT", "RETURN")
REPLACEMENT = ("REPLACE", "UNREPLACE")
NEXT = ("arrive", "read-manifest")
SHARED = (*NEXT, "retrieve-files", "load-state", "resume", "finish-session", "finish-manifest", "end-others", "take-over")


class Point:
    def __init__(self, name, phase, death, failure, text):
        self.name, self.death, self.failure, self.text = name, death, failure, text
        self.phase, _, self.carrier = phase.partition("_")

    def kinds(self):
        return DEATHS + (FAILURES if self.failure != "NONE" else ())

    def outcome(self, kind):
        return self.death if kind in DEATHS else self.failure

    def spec(self, kind, last):
        """HOLDFAST_FAULT for the agent, and for the one after it. @last: the last step that can be undone."""
        fault = f"{self.name}={kind}"
        if self.phase in ("UNDO", "RETURN"):
            return f"{last}=EIO,{fault}", ""
        if self.name == "take-over":
            return "finish-session=SIGKILL", fault
        if self.phase == "AGAIN":
            return "load-state=SIGKILL", fault
        return fault, ""

    def replacement_spec(self, kind):
        """For the agent that replaces a guest's QEMU."""
        fault = f"{self.name}={kind}"
        return (f"vmm-loaded=EIO,{fault}" if self.phase == "UNREPLACE" else fault), ""

    def adoption_spec(self, kind):
        """The same for the agent that adopts a guest, and the one after it."""
        if self.name in NEXT:
            return "adopt-quit=SIGKILL", f"{self.name}={kind}"
        return self.spec(kind, "adopt-no-return")


def agent_args(fault):
    """What holdfastd has to be told to come to the points in @fault: there, that it has too little room."""
    return ["--state-bytes", "4096"] if "grow-state=" in fault else []


def read(carrier=None):
    """All points, or those that an update with a carrier comes to, in the order in which it does."""
    text = FILE.read_text()
    found = LINE.findall(text)
    if len(found) != text.count("\nHF_FAULT_POINT("):
        raise ValueError(f"{FILE}: a line is not as it should be")
    points = [Point(name, phase, death, failure, what) for _, name, phase, death, failure, what in found
              if phase != "IMAGE"]  # the agent doesn't come to those
    return [point for point in points
            if not carrier or point.carrier in ("", carrier.upper()) and point.phase not in ADOPTION + REPLACEMENT]


# Where an agent that leaves no kernel comes to with images, too.
WITHOUT_JUMP = ("hand-over", "hand-over-last", "quit", "execve")
# Up to the commit's end images are no different, but for these.
OF_IMAGES = ("create-session", "preserve-state", "preserve-manifest", "prepared", "saved", "manifest", *WITHOUT_JUMP)


def images():
    """Those where an update with images may go another way, without a jump, and the kinds to try: one of each sort."""
    return [(point, kind) for point in read() if point.phase not in ADOPTION + REPLACEMENT
            and (point.carrier in ("", "IMAGE") or point.name in WITHOUT_JUMP)
            and (point.phase not in ("PREPARE", "COMMIT") or point.carrier or point.name in OF_IMAGES)
            for kind in point.kinds() if kind in ("SIGKILL", "EIO")]


def adoption():
    """Those that an adoption comes to, and the kinds to try: where it goes the way of an update, one of each sort."""
    shared = [point for point in read() if point.name in ("hand-over-last", *SHARED)]
    return [(point, kind) for point in read() if point.phase in ADOPTION for kind in point.kinds()] + \
           [(point, kind) for point in shared for kind in point.kinds() if kind in ("SIGKILL", "EIO")]


def replacement():
    """Those that the replacement of a running guest's QEMU comes to."""
    return [(point, kind) for point in read() if point.phase in REPLACEMENT for kind in point.kinds()]


def table():
    """As Markdown."""
    lines = ["| point | reached when | the agent dies there: each guest | the step fails: the guest |",
             "| --- | --- | --- | --- |"]
    for point in read():
        only = f" ({CARRIERS[point.carrier]} only)" if point.carrier else ""
        lines.append(f"| `{point.name}` | {point.text}{only} | {OUTCOMES[point.death]} | {OUTCOMES[point.failure]} |")
    return "\n".join(lines) + "\n"
