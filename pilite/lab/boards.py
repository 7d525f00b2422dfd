"""The inventory: boards/<name>.toml as typed values, and the way to each kind of board.

local      this machine, without SSH
container  an arm64 Debian container under qemu-user with a real sshd
vm         the same with its own kernel, in qemu-system-aarch64; its power can be cut
ssh        a machine with an address, such as a Raspberry Pi
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pilite.errors import BoardError
from pilite.lab import hostcpu
from pilite.lab.connection import Connection, LocalConnection

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "boards"
DEFAULT_BOARD = "local"


@dataclass(frozen=True)
class Board:
    """One board. `root` is the folder on it that deploys go to, `python` the interpreter there."""

    name: str
    kind: str
    cpu: str
    threads: tuple[int, ...] = (1, 4)
    root: str = ""
    python: str = ""
    host: str = ""
    port: int = 22
    user: str = ""
    key: str = ""
    host_key: str = ""
    model: str = ""  # what the board says it is; bench refuses if that has changed
    core_part: str = ""
    groups: tuple[str, ...] = ()
    max_celsius: int = 70  # bench does not start on a hotter one; a Pi slows down from 80, a 3B+ from 60

    @property
    def arch(self) -> str:
        """ "x86_64" or "aarch64", as uname says it."""
        return hostcpu.arch_of(self.cpu)

    @property
    def timing_valid(self) -> bool:
        """Whether a time measured on it says anything about the CPU in its file."""
        return KINDS[self.kind].timing_valid

    @property
    def emulated(self) -> bool:
        return KINDS[self.kind].emulated


@dataclass(frozen=True)
class Kind:
    """How one kind of board is completed, reached and stopped."""

    required: tuple[str, ...]
    timing_valid: bool
    emulated: bool
    connect: Callable[[Board, Path], Connection]
    complete: Callable[[Board, Path], Board]
    stop: Callable[[Board, Path], None]
    power_cut: Callable[[Board, Path], None] | None = None  # as if its plug was pulled
    dedicated: bool = False  # a machine that has nothing else to do
    ours: bool = True  # made or owned by this checkout: it trusts our releases without being onboarded


def names(folder: Path = FOLDER) -> list[str]:
    """The known boards."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def select(wanted: Sequence[str], artifacts: Path, limit: str = "", folder: Path = FOLDER) -> list[Board]:
    """The boards called `wanted`, in groups called so, or all for "all"; `limit` keeps those that match.

    `limit`: comma-separated names, groups or patterns such as "pi4-*". Raises BoardError for a name that is
    neither board nor group, and if no board is left.
    """
    here = names(folder)
    by_name = all(word in here for word in wanted)  # then a damaged file of another board is nobody's matter
    known = {name: read(name, folder) for name in (dict.fromkeys(wanted) if by_name else here)}
    chosen = dict.fromkeys(name for word in wanted for name in _called(word, known))
    patterns = [word.strip() for word in limit.split(",") if word.strip()]
    left = [name for name in chosen if not patterns or _matches(known[name], patterns)]
    if patterns and not left:
        raise BoardError(f"--limit {limit}: none of {', '.join(chosen)} is left.")
    return [load(name, artifacts, folder) for name in left]


def _called(word: str, known: Mapping[str, Board]) -> list[str]:
    if word in known:
        return [word]
    members = [name for name, board in known.items() if word == "all" or word in board.groups]
    if not members:
        groups = sorted({group for board in known.values() for group in board.groups})
        raise BoardError(
            f"No board or group '{word}'; boards/ has: {', '.join(known) or 'none'}; "
            f"groups: all{''.join(f', {group}' for group in groups)}."
        )
    return members


def _matches(board: Board, patterns: Sequence[str]) -> bool:
    return any(fnmatch(word, pattern) for pattern in patterns for word in (board.name, *board.groups))


def load(name: str, artifacts: Path, folder: Path = FOLDER) -> Board:
    """Read boards/<name>.toml. Raises BoardError for an unknown board and for a wrong file."""
    board = read(name, folder)
    return KINDS[board.kind].complete(board, artifacts)


def read(name: str, folder: Path = FOLDER) -> Board:
    """boards/<name>.toml as it is written. Raises BoardError for an unknown board and for a wrong file."""
    if name not in names(folder):
        raise BoardError(f"No board '{name}'; boards/ has: {', '.join(names(folder)) or 'none'}.")
    return parse(name, values(name, folder))


def values(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The unchecked values of boards/<name>.toml. Raises BoardError if it is no TOML."""
    try:
        found: dict[str, Any] = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
    except OSError as problem:
        raise BoardError(f"boards/{name}.toml: cannot be read: {problem.strerror}.") from None
    except ValueError as problem:
        raise BoardError(
            f"boards/{name}.toml is no TOML: {problem}. Mend it, or remove it and onboard the board again."
        ) from None
    return found


def parse(name: str, values: Mapping[str, Any]) -> Board:
    """Check the values of a board's file one by one. Raises BoardError; it names the value."""
    where = f"boards/{name}.toml"
    kind = values.get("kind")
    if kind not in KINDS:
        raise BoardError(f"{where}: kind is {kind!r}; known kinds: {', '.join(KINDS)}.")
    missing = [field for field in ("cpu", *KINDS[kind].required) if not values.get(field)]
    if missing:
        raise BoardError(f"{where}: {', '.join(missing)} missing; a board of kind {kind} needs it.")
    for field, value in values.items():
        _check(where, field, value)
    checked: dict[str, Any] = {
        field: tuple(value) if isinstance(value, list) else value for field, value in values.items()
    }
    return Board(name=name, **checked)


def _check(where: str, field: str, value: object) -> None:
    if field not in _ALLOWED:
        raise BoardError(f"{where}: unknown value {field}; known: {', '.join(_ALLOWED)}.")
    what, right = _ALLOWED[field]
    if not right(value):
        raise BoardError(f"{where}: {field} is {value!r}; it must be {what}.")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_count, value))


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_SPECIAL: dict[str, tuple[str, Callable[[object], bool]]] = {
    "threads": ("a list of counts such as [1, 4]", _are_counts),
    "port": ("a port number", _is_count),
    "max_celsius": ("a whole number of degrees", _is_count),
    "groups": ('a list of names such as ["pi4", "desk"]', _are_texts),
}
_ALLOWED = {
    field.name: _SPECIAL.get(field.name, ("a text", _is_text))
    for field in fields(Board)
    if field.name != "name"
}


def connect(board: Board, artifacts: Path) -> Connection:
    """Start the board if it is a virtual one, and open a connection. Raises BoardError."""
    return KINDS[board.kind].connect(board, artifacts)


def stop(board: Board, artifacts: Path) -> None:
    """Stop and forget a virtual board, with what was deployed on it; nothing for a real one."""
    KINDS[board.kind].stop(board, artifacts)


def power_cut(board: Board, artifacts: Path) -> None:
    """Pull the plug of a virtual board that has one. Raises BoardError for another board."""
    cut = KINDS[board.kind].power_cut
    if cut is None:
        raise BoardError(f"{board.name}: a board of kind {board.kind} has no plug that pilite could pull.")
    cut(board, artifacts)


def _complete_local(board: Board, artifacts: Path) -> Board:
    cpu = hostcpu.best() if board.cpu == "best" else board.cpu
    root = board.root or str((artifacts / "board" / board.name).resolve())
    return replace(board, cpu=cpu, root=root, python=board.python or sys.executable)


def _connect_local(board: Board, artifacts: Path) -> Connection:
    Path(board.root).mkdir(parents=True, exist_ok=True)
    return LocalConnection(board.name)


def _complete_container(board: Board, artifacts: Path) -> Board:
    return replace(
        board,
        root=board.root or "/home/bench/pilite",
        user=board.user or "bench",
        python=board.python or "python3",
    )


def _connect_container(board: Board, artifacts: Path) -> Connection:
    from pilite.lab import container  # docker and fabric take 0.5 s to import; local boards need neither

    return container.connect(board, artifacts)


def _stop_container(board: Board, artifacts: Path) -> None:
    from pilite.lab import container

    container.remove(board, artifacts)


def _connect_vm(board: Board, artifacts: Path) -> Connection:
    from pilite.lab import vm

    return vm.connect(board, artifacts)


def _stop_vm(board: Board, artifacts: Path) -> None:
    from pilite.lab import vm

    vm.remove(board, artifacts)


def _cut_vm(board: Board, artifacts: Path) -> None:
    from pilite.lab import vm

    vm.power_cut(board, artifacts)


def _complete_ssh(board: Board, artifacts: Path) -> Board:
    return replace(board, root=board.root or f"/home/{board.user}/pilite", python=board.python or "python3")


def _connect_ssh(board: Board, artifacts: Path) -> Connection:
    from pilite.lab import ssh

    key = Path(board.key).expanduser()
    return ssh.connect(ssh.Address(board.name, board.host, board.port, board.user, key, board.host_key))


def _stop_nothing(board: Board, artifacts: Path) -> None:
    """A real board stays on."""


_LOGIN = ("host", "user", "key", "host_key")
KINDS: dict[str, Kind] = {
    "local": Kind((), True, False, _connect_local, _complete_local, _stop_nothing),
    "container": Kind((), False, True, _connect_container, _complete_container, _stop_container),
    "vm": Kind((), False, True, _connect_vm, _complete_container, _stop_vm, _cut_vm),
    "ssh": Kind(_LOGIN, True, False, _connect_ssh, _complete_ssh, _stop_nothing, dedicated=True, ours=False),
}
