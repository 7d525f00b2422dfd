"""Connections over SSH: one pinned host key, one key file, nothing taken from the user's own SSH set-up."""

from __future__ import annotations

import base64
import binascii
import io
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import fabric
import invoke
import paramiko
from paramiko.pkey import UnknownKeyType

from pilite.errors import BoardError
from pilite.lab import loginshell
from pilite.lab.connection import (
    SECONDS,
    TAIL,
    Connection,
    Heard,
    NoAnswer,
    Progress,
    Result,
    advised,
    copy,
    interrupted,
    nothing,
    short,
    too_long,
)

GRACE = 5  # seconds between SIGTERM and SIGKILL when a command takes too long
DEAD = 20  # seconds without an answer after which a board counts as gone
BEAT = 15.0  # seconds between two signs of life on a command's stdin
GARBAGE_ADVICE = (
    "What its SFTP server sent is no SFTP: a start-up file of the shell there (~/.bashrc) prints something. "
    "Put `[ -t 1 ] || return` at the top of that file."
)
TIMED_OUT = (124, 128 + 9)  # exit codes of timeout(1): SIGTERM was enough, SIGKILL was needed

logging.getLogger("paramiko").setLevel(
    logging.CRITICAL
)  # it prints tracebacks of what becomes a BoardError here

_Value = TypeVar("_Value")
_FAILURES = (OSError, EOFError, paramiko.SSHException, paramiko.SFTPError, invoke.exceptions.CommandTimedOut)


@dataclass(frozen=True)
class Address:
    """Where a board is and what proves that it is that board: `host_key`, "ssh-ed25519 AAAA..."."""

    name: str
    host: str
    port: int
    user: str
    key: Path
    host_key: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name} ({self.user}@{host}:{self.port})"


class Beating(fabric.runners.Remote):  # type: ignore[misc]
    """A remote command whose stdin may be closed: it can end just when a sign of life is under way."""

    def _write_proc_stdin(self, data: bytes) -> None:
        with suppress(OSError):
            super()._write_proc_stdin(data)


class Pulse:
    """A stdin that never ends, with a byte every BEAT seconds: so measure.py knows that we are there.

    The first comes at once: silence counts only after a sign of life, and a link may die before the second.
    """

    def __init__(self) -> None:
        self._next = time.monotonic()

    def read(self, count: int) -> str | None:
        """A sign of life, or None: nothing now. Invoke asks 100 times a second."""
        if time.monotonic() < self._next:
            return None
        self._next += BEAT
        return "\n"


def connect(address: Address, patience: float = 10.0) -> SshConnection:
    """Open a connection. Raises BoardError if there is no answer, or not the pinned host key."""
    _check_key(address)
    client = fabric.Connection(
        address.host,
        user=address.user,
        port=address.port,
        connect_timeout=patience,
        config=fabric.Config(overrides={"load_ssh_configs": False, "runners": {"remote": Beating}}),
        connect_kwargs={
            "key_filename": str(address.key),
            "look_for_keys": False,
            "allow_agent": False,
            "banner_timeout": patience,
            "auth_timeout": patience,
        },
    )
    _pin(client.client, address)
    _open(client, address)
    return SshConnection(client, address)


def _check_key(address: Address) -> None:
    """Raises BoardError for a key file that could not be used; else the board would get the blame."""
    if not address.key.is_file():
        raise BoardError(
            f"{address}: no key file {address.key}. Name another (onboard --key, or key in "
            f"boards/{address.name}.toml), or make it: ssh-keygen -t ed25519 -f FILE, ssh-copy-id -i FILE."
        )
    try:
        paramiko.PKey.from_path(address.key)
    except TypeError:  # cryptography's word for an encrypted key
        raise BoardError(
            f"{address}: the key {address.key} has a passphrase, and pilite asks for none. Make one without: "
            f"ssh-keygen -t ed25519 -f FILE, ssh-copy-id -i FILE, and name it in "
            f"boards/{address.name}.toml."
        ) from None
    except (OSError, ValueError, paramiko.SSHException, UnknownKeyType):
        raise BoardError(
            f"{address}: {address.key} is no private key that SSH could use (`ssh-keygen -y -f` says why); "
            f"boards/{address.name}.toml names it."
        ) from None


def _pin(client: paramiko.SSHClient, address: Address) -> None:
    """Accept the pinned host key and no other; fabric's own policy accepts every key."""
    name = address.host if address.port == 22 else f"[{address.host}]:{address.port}"
    client.get_host_keys().clear()
    if address.host_key:
        key = parse_host_key(address.host_key, str(address))
        client.get_host_keys().add(name, key.get_name(), key)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())


def parse_host_key(text: str, where: str) -> paramiko.PKey:
    """The key of a line "ssh-ed25519 AAAA...". Raises BoardError if it is none."""
    try:
        kind, data = text.split()[:2]
        return paramiko.PKey.from_type_string(kind, base64.b64decode(data, validate=True))
    except (ValueError, binascii.Error, paramiko.SSHException, UnknownKeyType) as problem:
        raise BoardError(
            f"{where}: host_key is no public key such as 'ssh-ed25519 AAAA...': {problem}"
        ) from None


def _open(client: fabric.Connection, address: Address) -> None:
    try:
        client.open()
    except paramiko.BadHostKeyException:
        raise BoardError(
            f"{address}: the board shows another host key than the pinned one. If it was installed anew, "
            f"check its fingerprint and onboard it again; otherwise something else answers in its place."
        ) from None
    except paramiko.AuthenticationException as problem:
        raise BoardError(
            f"{address}: the board refuses the key {address.key}: {str(problem).rstrip('.')}. Is "
            f"{address.user} right? If so, let that user's account know the key: ssh-copy-id -i {address.key}"
        ) from None
    except _FAILURES as problem:
        raise _why(address, problem) from None
    client.transport.set_keepalive(5)
    client.transport.channel_timeout = DEAD  # an hour, by default, in which a hung board would not be missed


def _why(address: Address, problem: BaseException) -> BoardError:
    if "not found in known_hosts" in str(problem):
        return BoardError(
            f"{address}: its host key is not pinned; onboard the board, or put host_key into its file."
        )
    said = str(problem) or type(problem).__name__
    return NoAnswer(f"{address}: no connection ({said}). Is it on, and is its address right?")


def listens(address: Address) -> bool:
    """Whether an SSH server answers; Docker's own proxy accepts connections before it does."""
    try:
        with socket.create_connection((address.host, address.port), timeout=5) as probe:
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


class Lines(io.StringIO):
    """Where a command's output goes: `heard` is told every whole line, without what the login shell said."""

    def __init__(self, heard: Heard) -> None:
        super().__init__()
        self._heard, self._rest, self._begun = heard, "", False

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if self._begun:
                self._heard(line)
            self._begun = self._begun or line == loginshell.MARK
        return len(text)


class SshConnection(Connection):
    """A board behind one fabric connection."""

    def __init__(self, client: fabric.Connection, address: Address) -> None:
        self.where, self.address = str(address), address
        self._client = client
        self._is_cut = False

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = SECONDS,
        env: Mapping[str, str] | None = None,
        heard: Heard | None = None,
    ) -> Result:
        line = loginshell.line(command, timeout, GRACE, env or {})

        def remote() -> Result:
            patience, out = timeout + GRACE + DEAD, Lines(heard) if heard else None
            done = self._client.run(
                line, hide=True, warn=True, in_stream=Pulse(), out_stream=out, timeout=patience
            )
            return self._result(done, short(command))

        result = self._answer(remote, short(command))
        # Without an exit code: a signal ended it there (a crash), or the link is gone.
        transport = self._client.transport
        if result.code < 0 and (transport is None or not transport.is_active()):
            raise BoardError(f"{self.where}: {short(command)}: the link broke before it ended.")
        if result.code in TIMED_OUT:
            raise too_long(self.where, command, timeout)
        return result

    def _result(self, done: fabric.Result, what: str) -> Result:
        """What the command did. Raises BoardError if the login shell never came to it, whatever it says."""
        out, err = loginshell.output(done.stdout), loginshell.output(done.stderr)
        if out is None and done.exited >= 0:
            said = " ".join((done.stderr or done.stdout).split())[-TAIL:] or "nothing"
            raise BoardError(
                f"{self.where}: {what}: the login shell there ended with {done.exited} before it came to "
                f"that; it said: {said}. See its start-up files (~/.bashrc) and its name in /etc/passwd."
            )
        return Result(done.exited, out or "", err or "")

    def put(self, source: Path, target: str, *, start: int = 0, progress: Progress = nothing) -> None:
        def send() -> None:
            with source.open("rb") as data, self._sftp().open(target, "r+b" if start else "wb") as file:
                file.set_pipelined(True)
                copy(data, file, start, progress)
            arrived, status = self._sftp().stat(target).st_size, os.stat(source)
            if arrived != status.st_size:
                raise OSError(f"{arrived} of {status.st_size} bytes arrived")
            self._sftp().chmod(target, status.st_mode & 0o777)

        self._answer(send, f"{source} to {target}")

    def get(self, source: str, target: Path) -> None:
        self._answer(lambda: self._sftp().get(source, str(target)), f"{source} to {target}")

    def _sftp(self) -> paramiko.SFTPClient:
        sftp: paramiko.SFTPClient = self._client.sftp()
        channel = sftp.get_channel()
        if channel is not None:
            channel.settimeout(DEAD)  # a silent board would block for ever
        return sftp

    def _answer(self, ask: Callable[[], _Value], what: str) -> _Value:
        if self._is_cut:
            raise interrupted(self.where)  # fabric would connect again
        try:
            return ask()
        except _FAILURES as problem:
            said = str(problem) or type(problem).__name__
            talks = GARBAGE_ADVICE if "Garbage packet" in said else ""
            raise BoardError(f"{self.where}: {what}: {advised(said, talks)}") from None

    def close(self) -> None:
        self._client.close()

    def cut(self) -> None:
        self._is_cut = True
        self._client.close()
