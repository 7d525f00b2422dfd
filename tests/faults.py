"""The faults that tests make, what stays true in each, and their table: `docs/faults.md`, and after a run.

A test says which one it makes by `@pytest.mark.fault(name)`; its parameters or fixtures say on which board.
"""

from __future__ import annotations

from collections.abc import Mapping

KINDS = ("local", "container", "vm")

CONVERGES = "`current` stays the old release, whole in every byte; the next deploy makes the new one current"
WORKS = "the new release becomes current, whole in every byte"
ACKNOWLEDGED = "`current` is whole after the cut; what was acknowledged is there; the next deploy converges"
KEPT = "the old release stays current"
ONE = "one deploys, the other is told who does; afterwards the next deploy converges"
SECRET = "refused; no user name and no key of ours is sent"
NAMED = "one line names it, and what to do"
OTHERS = "every other board has its result; exit code, table and `--json` name this one"
RESTORED = "the clock governor is the old one again"
GONE = "nothing of it stays on the board"
GIVEN_BACK = "the farm has its place back"

# By what stays true, in the words of the tests' markers.
GROUPS: Mapping[str, tuple[str, ...]] = {
    CONVERGES: (
        "connection reset during the upload",
        "black hole during the upload",
        "bit flip on the way",
        "upload arrives damaged",
        "link breaks between two files",
        "link breaks inside a file",
        "board hangs",
        "board's shell killed at any step",
        "client killed during the upload",
        "client killed at the switch",
        "deployer killed in the middle",
        "disk full",
        "disk full exactly at the switch",
        "board's disk became read-only",
        "board's folder belongs to another user",
        "board lacks a tool",
        "board's shell ends at login",
        "allowed signers altered on the board",
        "a folder in place of current",
        "releases are on another disk, behind a link",
    ),
    ACKNOWLEDGED: (
        "power cut during the upload",
        "power cut during verification",
        "power cut during the health check",
        "power cut at the switch",
        "power cut after the deploy was acknowledged",
    ),
    "the tests of power cuts can fail: without fsync what was acknowledged is lost": (
        "control: without fsync a power cut loses a deploy",
    ),
    WORKS: (
        "slow link",
        "board's clock is years off",
        "board's shell prints at login",
        "board has an IPv6 address",
        "half an upload that is not ours",
        "something else lies where the upload goes",
        "release corrupted on the board",
        "release or file replaced by a link",
        "current leads elsewhere",
        "deployer that died holds the lease",
    ),
    KEPT: (
        "the new release computes something else",
        "the new release crashes",
        "artifact for a better CPU (wrong ISA)",
        "artifact for another machine",
        "ELF aligned to 4 KiB",
        "release without a signature",
        "release signed by a stranger",
        "release and manifest altered on the board",
        "rollback to a corrupted release",
    ),
    ONE: ("two deployers at once", "two deploys of one checkout"),
    SECRET: ("wrong host key", "unknown host key", "wrong fingerprint at onboarding"),
    NAMED: (
        "vm's port taken by another program",
        "board is off",
        "board's file is cut off",
        "key that cannot be used",
    ),
    OTHERS: ("one board of a fleet is off", "one board of several is off during bench"),
    "every board has it; the second time nothing is sent": (
        "8 boards at once",
        "a release to 2 boards at once, twice",
        "a release of 4 MB to 8 boards at once, twice",
    ),
    RESTORED: (
        "measurement killed",
        "profile killed",
        "governor's helper killed",
        "governor after a measurement, a killed one, a power cut",
        "stale governor journal",
        "no cpufreq",
        "no sudo",
    ),
    GONE: (
        "command outlives its time-out (orphan)",
        "link reset during a measurement",
        "link goes silent during a measurement",
    ),
    GIVEN_BACK: ("bench killed while it has a place of a farm", "board of a farm hangs"),
}
INVARIANTS = {fault: kept for kept, faults in GROUPS.items() for fault in faults}

HEAD = """# Faults

What goes wrong with boards, on which kinds a test makes it happen, and what stays true. sshd, kernels
and disks are real, a proxy breaks links, SIGKILL cuts the power. `local` is this machine.

`python3 run.py test --faults` makes all of them, in about 20 minutes, and writes this table with results to
`artifacts/faults.md`. `test` makes those that are short, `test --long` all; both print results at the end.

"""

Results = Mapping[str, Mapping[str, str]]  # fault -> kind of board -> what became of it


def page(results: Results) -> str:
    """The table as Markdown, in the order of GROUPS."""
    lines = [f"| fault | {' | '.join(KINDS)} | what stays true |", f"|---|{'---|' * len(KINDS)}---|"]
    for fault, kept in INVARIANTS.items():
        if fault in results:
            cells = [results[fault].get(kind, "") for kind in KINDS]
            lines.append(f"| {fault} | {' | '.join(cells)} | {kept} |")
    return HEAD + "\n".join(lines) + "\n"


def rows(results: Results) -> list[str]:
    """The table for a terminal."""
    cells = {fault: [found.get(kind, "-") for kind in KINDS] for fault, found in results.items()}
    lines = {"fault": list(KINDS), **cells}
    return [f"{fault:<58}" + "".join(f"{cell:<11}" for cell in row) for fault, row in lines.items()]
