"""A board's clock governor: the helper that holds it at `performance` during a measurement; see governor.sh.

Only root may set a governor. onboard installs one program of root and the right to call just that one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilite.errors import BoardError
from pilite.lab.boards import Board
from pilite.lab.connection import Connection, Result, short
from pilite.lab.remarks import Remark

SCRIPT = Path(__file__).with_name("governor.sh")
PROGRAM = "/usr/local/sbin/pilite-governor"
# measure.py runs it there. Without the helper sudo is not asked: it would report us to the machine's owner.
HOLD = (
    "sh",
    "-c",
    '[ -x "$0" ] || { echo "its helper is not there"; exit 5; }; exec sudo -n "$0" hold',
    PROGRAM,
)
HELD = Path(__file__).with_name("held.sh").read_text(encoding="utf-8")
LOCKED = 75  # exit code: another measurement runs on the board
WAIT_S = 10.0  # for one that was killed: it sees that within a second, and needs moments to end
NO_CPUFREQ = 3
_INSTALL = """
cd "$1"
[ -n "$(ls -d /sys/devices/system/cpu/cpufreq/policy* 2>/dev/null)" ] || exit 3
cmp -s governor.sh "$2" && sudo -n -l "$2" hold >/dev/null 2>&1 && exit 0
command -v sudo >/dev/null || { echo "there is no sudo"; exit 4; }
sudo -n sh governor.sh install
"""


def install(board: Board, connection: Connection) -> list[Remark]:
    """Install the helper where sudo lets us; else a remark with what its owner has to type.

    A board without a governor gets nothing, and neither does one whose helper is this one.
    """
    connection.check(["mkdir", "-p", board.root])
    connection.put(SCRIPT, f"{board.root}/governor.sh")
    done = connection.run(["sh", "-c", _INSTALL, "install", board.root, PROGRAM])
    if done.code in (0, NO_CPUFREQ):
        return []
    text = (
        f"bench may not set its clock governor ({done.tail.rstrip('.')}) and measures at the clock it has. "
        f"To let it, there: sudo sh {board.root}/governor.sh install"
    )
    return [Remark("no governor", False, text)]


@dataclass(frozen=True)
class Held:
    """What a measurement printed, and which clock governor it had if not `performance`, and why."""

    out: str
    note: str | None


def lock_of(board: Board) -> str:
    """The file that a measurement locks on its board."""
    return f"{board.root}/.bench.lock"


def alone(where: str, attempt: Callable[[], Result]) -> Result:
    """What a command under the board's lock gives, which is tried again while another measurement is ending.

    It is tried from here: whoever waited there for the lock would still start if we end meanwhile.
    Raises BoardError if the other one does not end.
    """
    end = time.monotonic() + WAIT_S
    while (done := attempt()).code == LOCKED:
        if time.monotonic() > end:
            raise BoardError(f"{where}: another measurement runs there; both would be wrong. Try later.")
        time.sleep(0.2)
    return done


def held(
    board: Board, connection: Connection, command: Sequence[str], timeout: float, program: str = PROGRAM
) -> Held:
    """Run a command there as the only measurement, with the clock governor held where the helper lets us.

    However it ends, the old governor comes back. Raises BoardError if it fails, or another measurement runs.
    """
    words = ["sh", "-c", HELD, "held", program, lock_of(board), *command]
    done = alone(connection.where, lambda: connection.run(words, timeout=timeout))
    if done.code:
        raise BoardError(f"{connection.where}: {short(command)} ended with {done.code}: {done.tail}")
    note = done.err.partition("clock governor: ")[2].strip()
    return Held(done.out, None if board.emulated else note or None)
