"""How the lab talks to a board: run a command, put and get files. Here: on this machine; see also ssh.py."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from pilite.errors import BoardError

SECONDS = 60.0  # for commands that only look or move files; an emulated board starts a process in 0.1 s
PIECE = 1 << 18  # bytes of a file between two reports of progress
TAIL = 300  # characters of a command's output that an error shows


class Target(Protocol):
    """What `copy` needs of a file, here or at the other end of SFTP."""

    def seek(self, offset: int, /) -> object: ...
    def write(self, data: bytes, /) -> object: ...
    def truncate(self, size: int, /) -> object: ...


Progress = Callable[[int], None]
Heard = Callable[[str], None]  # is told every line of a command's output when it comes, in another thread


def nothing(count: int) -> None:
    """A progress that nobody watches."""


class NoAnswer(BoardError):
    """A board that is off, hangs or is cut off; everything else is an answer."""


@dataclass(frozen=True)
class Result:
    """What a command on a board printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def tail(self) -> str:
        """The end of what it said, on one line."""
        return " ".join((self.err.strip() or self.out.strip())[-TAIL:].split())


class Connection(ABC):
    """An open way to one board. `where` names it in messages: "container (bench@127.0.0.1:2201)"."""

    where: str

    @abstractmethod
    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = SECONDS,
        env: Mapping[str, str] | None = None,
        heard: Heard | None = None,
    ) -> Result:
        """Run one command without a terminal; its exit code is in the result.

        After `timeout` seconds the command and everything that it started is killed.
        Raises BoardError then, and if the board does not answer.
        """

    @abstractmethod
    def put(self, source: Path, target: str, *, start: int = 0, progress: Progress = nothing) -> None:
        """Copy a file to the board, with its executable bits; the folder exists.

        The board has the first `start` bytes already; `progress` is told the bytes of each piece.
        Raises BoardError, also if another size arrived.
        """

    @abstractmethod
    def get(self, source: str, target: Path) -> None:
        """Copy a file from the board. Raises BoardError."""

    @abstractmethod
    def close(self) -> None:
        """End the connection; the board keeps running."""

    @abstractmethod
    def cut(self) -> None:
        """From another thread: end what runs there for us. It and every later command raise BoardError."""

    def check(
        self, command: Sequence[str], *, timeout: float = SECONDS, env: Mapping[str, str] | None = None
    ) -> str:
        """`run`, and the command's output. Raises BoardError also for an exit code other than 0."""
        result = self.run(command, timeout=timeout, env=env)
        if result.code:
            raise BoardError(
                f"{self.where}: {short(command)} ended with {result.code}: {advised(result.tail)}"
            )
        return result.out

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# What the kernel says about a board's disk, and what its owner does about it.
ADVICE = {
    "No space left on device": "Its disk is full: make room there, then try again.",
    "Disk quota exceeded": "Its user may not fill more of the disk: make room there, then try again.",
    "Read-only file system": "Its disk takes no writes (a worn card ends so): see `dmesg` there.",
    "Permission denied": "That is not its user's: see `ls -ld` there, and give it back with chown or chmod.",
    "Input/output error": "Its disk fails: see `dmesg` there, and replace it.",
}


def advised(said: str, otherwise: str = "") -> str:
    """The words of a failure, and what to do about it where ADVICE knows that."""
    todo = next((todo for words, todo in ADVICE.items() if words in said), otherwise)
    return f"{said.rstrip('.')}. {todo}".rstrip()


def copy(source: IO[bytes], target: Target, start: int, progress: Progress) -> None:
    """Copy from byte `start` to the end, to the same place in `target`. Raises OSError."""
    source.seek(start)
    target.seek(start)
    for piece in iter(lambda: source.read(PIECE), b""):
        target.write(piece)
        progress(len(piece))
    target.truncate(source.tell())


def short(command: Sequence[str]) -> str:
    """A command for an error message: scripts given as an argument are cut."""
    words = [word if len(word) < 80 and "\n" not in word else "..." for word in command]
    return f"`{shlex.join(words)}`"


def too_long(where: str, command: Sequence[str], timeout: float) -> BoardError:
    return BoardError(f"{where}: {short(command)} was not done after {timeout:.0f} s and was killed.")


def interrupted(where: str) -> BoardError:
    return BoardError(f"{where}: interrupted.")


class LocalConnection(Connection):
    """This machine, as if it were a board."""

    def __init__(self, where: str = "local") -> None:
        self.where = where
        self._running: set[subprocess.Popen[str]] = set()
        self._is_cut = False

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = SECONDS,
        env: Mapping[str, str] | None = None,
        heard: Heard | None = None,
    ) -> Result:
        process = self._start(command, env)
        self._running.add(process)
        try:
            self._expect_whole()
            out, err = _outputs(process, timeout, heard)
        except subprocess.TimeoutExpired:
            raise too_long(self.where, command, timeout) from None
        finally:
            self._running.discard(process)
            _kill_group(process)
        self._expect_whole()
        return Result(process.returncode, out, err)

    def _expect_whole(self) -> None:
        if self._is_cut:
            raise interrupted(self.where)

    def _start(self, command: Sequence[str], env: Mapping[str, str] | None) -> subprocess.Popen[str]:
        """In a session of its own, so that `_kill_group` reaches what it starts and nothing else."""
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "LC_ALL": "C", **(env or {})},
                start_new_session=True,
            )
        except OSError as problem:
            raise BoardError(f"{self.where}: {short(command)} cannot start: {problem.strerror}.") from None

    def put(self, source: Path, target: str, *, start: int = 0, progress: Progress = nothing) -> None:
        try:
            with source.open("rb") as data, Path(target).open("r+b" if start else "wb") as file:
                copy(data, file, start, progress)
            shutil.copymode(source, target)
        except OSError as problem:
            raise BoardError(
                f"{self.where}: {source} to {target}: {advised(str(problem.strerror))}"
            ) from None

    def get(self, source: str, target: Path) -> None:
        self._copy(Path(source), target)

    def _copy(self, source: Path, target: Path) -> None:
        try:
            shutil.copyfile(source, target)
            shutil.copymode(source, target)
        except OSError as problem:
            raise BoardError(
                f"{self.where}: {source} to {target}: {advised(str(problem.strerror))}"
            ) from None

    def close(self) -> None:
        """Nothing is open."""

    def cut(self) -> None:
        self._is_cut = True
        for process in list(self._running):
            _kill_group(process)


def _outputs(process: subprocess.Popen[str], timeout: float, heard: Heard | None) -> tuple[str, str]:
    """`communicate`, where `heard` listens. Raises TimeoutExpired."""
    if heard is None:
        return process.communicate(timeout=timeout)
    lines: list[str] = []
    stream, process.stdout = process.stdout, None  # ours; the rest is communicate's

    def listen() -> None:
        assert stream is not None
        with stream:
            for line in stream:
                lines.append(line)
                heard(line)

    listener, end = threading.Thread(target=listen, daemon=True), time.monotonic() + timeout
    listener.start()
    _, err = process.communicate(timeout=timeout)
    listener.join(max(0.0, end - time.monotonic()))
    if listener.is_alive():
        raise subprocess.TimeoutExpired(process.args, timeout)
    return "".join(lines), err


def _kill_group(process: subprocess.Popen[str]) -> None:
    """End what is left of a command's session, and the command itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
