"""Make a machine a board: compare its host key, look at it, choose its CPU, write boards/<name>.toml.

Nothing is sent to it, not even a user name, before its fingerprint is the expected one.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pilite.errors import BoardError, PiliteError
from pilite.lab import boards, facts, governor, hostkey, release, remarks, signing, ssh, trial
from pilite.lab.boards import Board
from pilite.lab.connection import Connection
from pilite.lab.remarks import Remark

SCHEMA = "pilite.facts/1"
RUNTIMES = ("tflite", "litert")
WRITTEN = ("kind", "host", "port", "user", "key", "host_key", "cpu", "threads", "model", "core_part")


@dataclass(frozen=True)
class Visitor:
    """Who logs in where; `fingerprint` is what the owner of the board read off it."""

    name: str
    host: str
    user: str
    key: Path
    port: int = 22
    fingerprint: str = ""


@dataclass(frozen=True)
class Onboarded:
    """A board that can be used, what it told, and what its owner should know."""

    board: Board
    facts: dict[str, Any]
    remarks: list[Remark]


def pinned(visitor: Visitor, say: Callable[[str], None]) -> str:
    """The host key with the expected fingerprint. Raises BoardError with what it shows instead."""
    where = f"{visitor.name} ({visitor.host}:{visitor.port})"
    keys = hostkey.offered(visitor.host, visitor.port, where)
    shown = {hostkey.fingerprint(key): key for key in keys}
    for fingerprint, key in shown.items():
        say(f"{where} shows {fingerprint} ({key.split()[0]})")
    if not visitor.fingerprint:
        raise BoardError(
            f"{where}: nothing was sent yet. On the board's own screen, run "
            f"ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub; if it prints the same, onboard again with "
            f"--fingerprint and that text."
        )
    if visitor.fingerprint not in shown:
        raise BoardError(
            f"{where}: shows {' and '.join(shown)}, not {visitor.fingerprint}. Another machine answers at "
            f"this address, or the board was installed anew; nothing was sent to it."
        )
    return shown[visitor.fingerprint]


def meet(visitor: Visitor, say: Callable[[str], None], folder: Path = boards.FOLDER) -> Onboarded:
    """Pin the key, log in, look around and write boards/<name>.toml.

    Raises BoardError if the key is not the expected one, or nothing of pilite would work on the board.
    """
    check_name(visitor.name, folder)
    host_key = pinned(visitor, say)
    address = ssh.Address(visitor.name, visitor.host, visitor.port, visitor.user, visitor.key, host_key)
    with ssh.connect(address) as connection:
        values = facts.parse(connection.check(["sh", "-c", facts.script()]))
        found = remarks.remarks(values, time.time())
        refuse(connection.where, found)
        cpu = remarks.target(values, connection.where)
    board = described(visitor, host_key, cpu, values)
    write(board, folder)
    return Onboarded(board, values, found)


def check_name(name: str, folder: Path) -> None:
    """A new name or one of an ssh board. Raises PiliteError: names become files and folders."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.+-]*", name):
        raise PiliteError(f"--name {name!r}: lower-case letters, digits and _.+- only; it names a file.")
    if name in boards.names(folder) and boards.read(name, folder).kind != "ssh":
        raise PiliteError(f"--name {name}: boards/{name}.toml is no board of kind ssh. Choose another name.")


def refuse(where: str, found: Sequence[Remark]) -> None:
    """Raises BoardError with every fatal remark."""
    fatal = [remark.text for remark in found if remark.fatal]
    if fatal:
        raise BoardError(f"{where}: {' Also, '.join(fatal)}")


def described(visitor: Visitor, host_key: str, cpu: str, values: dict[str, Any]) -> Board:
    cores = int(values["cores"] or 1)
    return Board(
        name=visitor.name,
        kind="ssh",
        cpu=cpu,
        threads=(1, cores) if cores > 1 else (1,),
        host=visitor.host,
        port=visitor.port,
        user=visitor.user,
        key=str(visitor.key),
        host_key=host_key,
        model=values["model"] or "",
        core_part=values["core_part"] or "",
    )


def write(board: Board, folder: Path = boards.FOLDER) -> Path:
    """boards/<name>.toml, whole or not at all. What its owner added by hand to an older file stays."""
    path = folder / f"{board.name}.toml"
    old = boards.values(board.name, folder) if path.is_file() else {}
    new = {name: getattr(board, name) for name in WRITTEN if getattr(board, name)}
    lines = [f"# {board.model or board.host}, onboarded {time.strftime('%Y-%m-%d', time.gmtime())}."]
    lines += [f"{name} = {toml(value)}" for name, value in {**old, **new}.items()]
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(beside, path)
    return path


def toml(value: object) -> str:
    """A text, number, truth or list of them as TOML, which writes these as JSON does."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def known(name: str, artifacts: Path, folder: Path = boards.FOLDER) -> Board:
    """A board of boards/. Raises BoardError for another name, with how to make it one."""
    if name not in boards.names(folder):
        raise BoardError(
            f"No board '{name}'; boards/ has: {', '.join(boards.names(folder))}. "
            f"A new one needs --host and --user."
        )
    return boards.load(name, artifacts, folder)


def look(board: Board, connection: Connection) -> Onboarded:
    """A board's facts and what they mean. Raises BoardError if it does not answer."""
    values = facts.facts(board, connection)
    found = remarks.remarks(values, time.time())
    changed = remarks.differences(board.model, board.core_part, values)
    return Onboarded(board, values, [*(Remark("not its file", False, text) for text in changed), *found])


def equipped(board: Board, connection: Connection, artifacts: Path) -> Onboarded:
    """`look`, let it trust this checkout's releases, `equip`.

    Raises BoardError if nothing of pilite would work there.
    """
    met = look(board, connection)
    refuse(connection.where, met.remarks)
    release.trust(connection, board.root, signing.own_keys(artifacts / "keys").allowed)
    found = [*governor.install(board, connection), *equip(board, connection, artifacts)]
    return replace(met, remarks=[*met.remarks, *found])


def document(met: Sequence[Onboarded]) -> dict[str, Any]:
    """As in schemas/facts-1.json."""
    return {
        "schema": SCHEMA,
        "boards": [
            {
                "name": one.board.name,
                "kind": one.board.kind,
                "cpu": one.board.cpu,
                "facts": one.facts,
                "remarks": [vars(remark) for remark in one.remarks],
            }
            for one in met
        ],
    }


def equip(board: Board, connection: Connection, artifacts: Path) -> list[Remark]:
    """Send what bench needs: numpy and the rivals. What has no wheel, or no room, becomes a remark."""
    try:
        _, usable, notes = trial.packages(board, connection, RUNTIMES, artifacts)
    except BoardError as problem:
        return [Remark("no packages", False, f"bench will not work: {problem} {remarks.DEPLOYS}.")]
    rest = f"bench has {', '.join(usable) or 'no rival'} there; {remarks.DEPLOYS}."
    return [Remark("no wheel", False, f"{note.rstrip('.')}. {rest}") for note in notes]
