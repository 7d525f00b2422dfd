"""The verbs for boards; tasks.py offers them. Heavy imports are inside the task that needs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from pilite.console import show_table, whole_number, write_json
from pilite.errors import PiliteError
from pilite.verbs import ARTIFACTS, DEFAULT_BOARDS, built, sources, verb

if TYPE_CHECKING:
    from models import Source
    from pilite.lab.boards import Board
    from pilite.lab.connection import Connection
    from pilite.lab.deploy import Deployed
    from pilite.lab.fleet import Outcome, Say

PROOF_MODEL = "mobilenet_v1_0.25_128_uint8"  # small: what a new board has to compute exactly


@verb()
def onboard(
    c: Context,
    name: str = "",
    host: str = "",
    user: str = "pi",
    key: str = "~/.ssh/id_ed25519",
    port: str = "22",
    fingerprint: str = "",
    json: str = "",
) -> None:
    """Make a machine a board: compare its key, look, write its file, equip it, run one exact inference."""
    if not name:
        raise PiliteError("onboard needs --name: what the board is to be called.")
    number = whole_number(port, "--port")
    from pilite.lab import onboard as onboarding
    from pilite.lab import report

    if host:
        login = onboarding.Visitor(name, host, user, Path(key).expanduser().absolute(), number, fingerprint)
        print(f"boards/{onboarding.meet(login, print).board.name}.toml is written")
    board = onboarding.known(name, ARTIFACTS)
    source = sources([PROOF_MODEL])[0]
    built(source, board.cpu, numerics="ref")
    from pilite.lab import boards, deploy, health

    with boards.connect(board, ARTIFACTS) as connection:
        met = onboarding.equipped(board, connection, ARTIFACTS)
        made = deploy.built_artifact(board, source.name, ARTIFACTS)
        right = health.expected(made, source.path, ARTIFACTS)
        done = deploy.deploy(board, connection, source.name, ARTIFACTS, expected=right)
    show_table(f"{name}: facts", report.fact_rows([met]))
    print("".join(f"{name}: {remark.text}\n" for remark in met.remarks), end="")
    print(f"{name}: {done.model} gives TFLite's bytes there ({done.state}, release {done.release}).")
    if json:
        write_json(Path(json), onboarding.document([met]))


@verb("board")
def facts(c: Context, board: Sequence[str] = (), limit: str = "", json: str = "") -> None:
    """Show what boards are and what is wrong with them; nothing is changed there."""
    from pilite.lab import boards, fleet, report
    from pilite.lab import onboard as onboarding

    found = boards.select(board or DEFAULT_BOARDS, ARTIFACTS, limit)
    outcome = fleet.each(found, ARTIFACTS, lambda where, link, say: onboarding.look(where, link))
    met = list(outcome.done.values())
    show_table("Facts", report.fact_rows(met))
    print("".join(f"{one.board.name}: {remark.text}\n" for one in met for remark in one.remarks), end="")
    if json:
        write_json(Path(json), onboarding.document(met))
    outcome.raise_failures()


@verb("board", "model", "input_shape")
def deploy(
    c: Context,
    board: Sequence[str] = (),
    model: Sequence[str] = (),
    numerics: str = "ref",
    input_shape: Sequence[str] = (),
    limit: str = "",
    keep: str = "3",
    dry_run: bool = False,
    json: str = "",
) -> None:
    """Put built artifacts on boards: signed, checked and tried there, then switched to; the old one stays."""
    kept, found = whole_number(keep, "--keep"), sources(model, input_shape)
    from pilite.lab import boards, fleet, health
    from pilite.lab import deploy as deployment

    chosen_boards = boards.select(board or DEFAULT_BOARDS, ARTIFACTS, limit)
    if dry_run:
        return preview(chosen_boards, found, numerics)
    right = health.Answers(ARTIFACTS)

    def put(where: Board, connection: Connection, say: Say) -> list[deployment.Deployed]:
        return [
            deployment.deploy(
                where,
                connection,
                source.name,
                ARTIFACTS,
                numerics=numerics,
                expected=right.of(where, source, numerics),
                keep=kept,
                say=say,
            )
            for source in found
        ]

    start = time.monotonic()
    outcome = fleet.each(chosen_boards, ARTIFACTS, put)
    seconds = time.monotonic() - start
    finish("Deployed", outcome, json, lambda done: deployment.total(done, seconds))


def preview(found: Sequence[Board], models: Sequence[Source], numerics: str) -> None:
    """Print what a deploy would change, file by file."""
    from pilite.lab import deploy as deployment
    from pilite.lab import fleet

    def look(where: Board, connection: Connection, say: Say) -> list[deployment.Change]:
        return [
            change
            for source in models
            for change in deployment.preview(where, connection, source.name, ARTIFACTS, numerics)
        ]

    outcome = fleet.each(found, ARTIFACTS, look)
    changes = [change for some in outcome.done.values() for change in some]
    show_table("Would change", [vars(change) for change in changes])
    differ = sum(change.change != "same" for change in changes)
    print(f"{differ} of {len(changes)} files would change")
    outcome.raise_failures()


@verb("board", "model")
def rollback(
    c: Context, board: Sequence[str] = (), model: Sequence[str] = (), limit: str = "", json: str = ""
) -> None:
    """Switch boards back to the release before the current one."""
    found = sources(model)
    from pilite.lab import boards, fleet
    from pilite.lab import deploy as deployment

    def back(where: Board, connection: Connection, say: Say) -> list[deployment.Deployed]:
        return [deployment.rollback(where, connection, one.name, ARTIFACTS) for one in found]

    chosen_boards = boards.select(board or DEFAULT_BOARDS, ARTIFACTS, limit)
    finish("Rolled back", fleet.each(chosen_boards, ARTIFACTS, back), json)


@verb("board")
def stop(c: Context, board: Sequence[str] = (), limit: str = "") -> None:
    """Stop virtual boards and forget what was deployed on them; a real board stays as it is."""
    from pilite.lab import boards

    for where in boards.select(board or DEFAULT_BOARDS, ARTIFACTS, limit):
        boards.stop(where, ARTIFACTS)
        print(f"{where.name}: {'stopped' if where.emulated else 'nothing to stop'}")


def finish(
    title: str,
    outcome: Outcome[list[Deployed]],
    json: str,
    total: Callable[[Sequence[Deployed]], str] = lambda done: "",
) -> None:
    """Show what boards did and their `total`; write both sides to `json`; raise what the others said."""
    from pilite.lab import deploy as deployment

    found = [one for done in outcome.done.values() for one in done]
    show_table(title, [one.row() for one in found])
    if found and (text := total(found)):
        print(text)
    if json:
        write_json(Path(json), deployment.document(outcome))
    outcome.raise_failures()
