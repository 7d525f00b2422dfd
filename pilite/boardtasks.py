"""The verbs for boards; tasks.py offers them. Heavy imports are inside the task that needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from pilite.console import chosen, show_table, whole_number, whole_numbers, write_json
from pilite.errors import PiliteError
from pilite.verbs import ARTIFACTS, DEFAULT_BOARDS, RIVALS, built, sources, verb

if TYPE_CHECKING:
    from models import Source
    from pilite.lab.boards import Board
    from pilite.lab.connection import Connection
    from pilite.lab.fleet import Outcome

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
        login = onboarding.Visitor(name, host, user, Path(key).expanduser(), number, fingerprint)
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
def facts(c: Context, board: Sequence[str] = (), json: str = "") -> None:
    """Show what boards are and what is wrong with them; nothing is changed there."""
    from pilite.lab import fleet, report
    from pilite.lab import onboard as onboarding

    found: list[onboarding.Onboarded] = []

    def act(where: Board, connection: Connection) -> list[dict[str, object]]:
        found.append(onboarding.look(where, connection))
        return []

    outcome = fleet.each(board or DEFAULT_BOARDS, ARTIFACTS, act)
    show_table("Facts", report.fact_rows(found))
    print("".join(f"{one.board.name}: {remark.text}\n" for one in found for remark in one.remarks), end="")
    if json:
        write_json(Path(json), onboarding.document(found))
    outcome.raise_failures()


@verb("board", "model")
def deploy(c: Context, board: Sequence[str] = (), model: Sequence[str] = (), numerics: str = "ref") -> None:
    """Put built artifacts on boards: checked and tried there, then switched to; the previous one is kept."""
    found = sources(model)
    from pilite.lab import deploy as deployment
    from pilite.lab import fleet, health

    def put(where: Board, connection: Connection, source: Source) -> dict[str, object]:
        made = deployment.built_artifact(where, source.name, ARTIFACTS, numerics)
        right = health.expected(made, source.path, ARTIFACTS)
        done = deployment.deploy(where, connection, source.name, ARTIFACTS, numerics=numerics, expected=right)
        return done.row()

    def act(where: Board, connection: Connection) -> list[dict[str, object]]:
        return [put(where, connection, source) for source in found]

    finish("Deployed", fleet.each(board or DEFAULT_BOARDS, ARTIFACTS, act))


@verb("board", "model")
def rollback(c: Context, board: Sequence[str] = (), model: Sequence[str] = ()) -> None:
    """Switch boards back to the release before the current one."""
    found = sources(model)
    from pilite.lab import deploy as deployment
    from pilite.lab import fleet

    def act(where: Board, connection: Connection) -> list[dict[str, object]]:
        return [deployment.rollback(where, connection, one.name).row() for one in found]

    finish("Rolled back", fleet.each(board or DEFAULT_BOARDS, ARTIFACTS, act))


def finish(title: str, outcome: Outcome) -> None:
    """Show what boards did; raise what the others said."""
    if outcome.rows:
        show_table(title, outcome.rows)
    outcome.raise_failures()


@verb("model")
def bench(
    c: Context,
    board: str = "local",
    model: Sequence[str] = (),
    threads: str = "1,4",
    rival: str = "tflite,litert",
    json: str = "",
) -> None:
    """Measure deployed models beside their rivals, and check every output byte in the same run."""
    counts, rivals = whole_numbers(threads, "--threads"), chosen(rival, RIVALS, "--rival")
    from pilite.lab import bench as measuring
    from pilite.lab import boards, report, trial

    where = boards.load(board, ARTIFACTS)
    subjects = [trial.Subject(source.name, source.path) for source in sources(model)]
    with boards.connect(where, ARTIFACTS) as connection:
        done = measuring.bench(
            where, connection, subjects, ARTIFACTS, threads=counts, rivals=rivals, say=print
        )
    show_table("Times", report.timing_rows(done.document))
    show_table("pilite against its rivals", report.ratio_rows(done.document))
    show_table("Outputs", report.check_rows(done.document))
    print("\n".join(report.remarks(done.document)))
    print(f"{done.folder}/result.json")
    if json:
        write_json(Path(json), done.document)
    done.verify()
