"""Boards of a farm that a team shares: labgrid lends a place, and gets it back however we end.

A place has the name of a board of boards/, whose file has its address and its pinned host key: of those
labgrid says nothing that could be trusted. We use `labgrid-client`, which who has a farm has in its version.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pilite.errors import BoardError
from pilite.lab.connection import Connection, NoAnswer

SECONDS = 60.0  # for one answer of the coordinator
PATIENCE = 3600.0  # seconds in the queue for a place
BOOT = 180.0  # seconds that a board has to answer after its power came back
# Its stdin ends however we end; in a session of its own it outlives what ends us.
KEEPER = 'while read -r _; do :; done; "$@" -p + release; "$@" cancel-reservation'


@dataclass(frozen=True)
class Farm:
    """A coordinator, "HOST:PORT", and the client that talks to it."""

    coordinator: str
    client: str

    def ask(self, *words: str, token: str = "", seconds: float = SECONDS) -> str:
        """One command of labgrid-client; what it prints. Raises BoardError."""
        try:
            done = subprocess.run(
                [*self.command, *words],
                env=environment(token),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise BoardError(
                f"{self.coordinator}: no answer to `{' '.join(words)}` in {seconds:.0f} s."
            ) from None
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
            raise BoardError(f"{self.coordinator}: `labgrid-client {' '.join(words)}` failed: {last}")
        return done.stdout

    @property
    def command(self) -> list[str]:
        return [self.client, "-x", self.coordinator]


def environment(token: str) -> Mapping[str, str]:
    return {**os.environ, **({"LG_TOKEN": token} if token else {})}


def farm(coordinator: str) -> Farm:
    """Raises BoardError without labgrid's client."""
    client = shutil.which("labgrid-client")
    if client is None:
        raise BoardError(
            f"--labgrid {coordinator}: there is no labgrid-client here. Install the coordinator's version, "
            f"such as `pipx install labgrid`."
        )
    return Farm(coordinator, client)


@contextmanager
def borrowed(there: Farm, tags: Sequence[str], patience: float = PATIENCE) -> Iterator[str]:
    """Reserve a place with all `tags` ("KEY=VALUE"), wait, acquire it; its name. Given back at the end.

    Raises BoardError if the coordinator does not answer, or no such place is free after `patience` seconds.
    """
    token = _token(there, tags)
    with _kept(there, token):
        try:
            there.ask("wait", token, seconds=patience)
        except BoardError as problem:
            raise BoardError(
                f"{problem} No place with {' '.join(tags)} became free; `labgrid-client reservations` and "
                f"`labgrid-client places` show who has them."
            ) from None
        place = re.search(r"^Place '(.+)':", there.ask("-p", "+", "show", token=token), re.MULTILINE)
        assert place is not None
        there.ask("-p", "+", "acquire", token=token)
        yield place[1]


def awaken(there: Farm, place: str, connect: Callable[[], Connection], boot: float = BOOT) -> None:
    """Return when the board of a place that is ours answers; labgrid cycles the power of one that does not.

    Raises BoardError if it answers wrongly, has no power that labgrid could cycle, or stays silent.
    """
    try:
        return connect().close()
    except NoAnswer as problem:
        silent = problem
    try:
        there.ask("-p", place, "power", "cycle")
    except BoardError as problem:
        raise BoardError(f"{silent} labgrid could not cycle its power: {problem}") from None
    end = time.monotonic() + boot
    while True:
        try:
            return connect().close()
        except NoAnswer as problem:
            if time.monotonic() > end:
                raise BoardError(f"{problem} Its power was cycled {boot:.0f} s ago.") from None
            time.sleep(1)


def _token(there: Farm, tags: Sequence[str]) -> str:
    """A reservation's; the coordinator forgets one that nobody waits for within a minute."""
    made = re.search(r"LG_TOKEN=(\w+)", there.ask("reserve", "--shell", *tags))
    assert made is not None
    return made[1]


@contextmanager
def _kept(there: Farm, token: str) -> Iterator[None]:
    """From here on the place and the reservation are given back when we end, also by SIGKILL."""
    with subprocess.Popen(
        ["sh", "-c", KEEPER, "keeper", *there.command],
        env=environment(token),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as keeper:
        try:
            yield
        finally:
            assert keeper.stdin is not None
            keeper.stdin.close()
            with suppress(subprocess.TimeoutExpired):  # then it goes on without us
                keeper.wait(SECONDS)
