"""The verb that measures models on boards; tasks.py offers it. Heavy imports are inside the functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from pilite.console import chosen, drawn_seed, show_table, whole_numbers, write_json
from pilite.errors import PiliteError
from pilite.verbs import ARTIFACTS, DEFAULT_BOARDS, RIVALS, SHARED_MODELS, built, sources, verb

if TYPE_CHECKING:
    from pilite.lab.artifact import Artifact
    from pilite.lab.bench import Bench
    from pilite.lab.boards import Board
    from pilite.lab.connection import Connection
    from pilite.lab.fleet import Outcome, Say
    from pilite.lab.suites import Chosen
    from pilite.lab.trial import Subject

Json = dict[str, Any]


@verb("board", "model", "tag", "input_shape")
def bench(
    c: Context,
    board: Sequence[str] = (),
    limit: str = "",
    labgrid: str = "",
    tag: Sequence[str] = (),
    model: Sequence[str] = (),
    input_shape: Sequence[str] = (),
    suite: str = "",
    threads: str = "1,4",
    rival: str = ",".join(RIVALS),
    effort: str = "default",
    seed: str = "",
    force: bool = False,
    json: str = "",
) -> None:
    """Measure deployed models beside their rivals, and check every output byte in the same run."""
    counts, order = whole_numbers(threads, "--threads"), drawn_seed(seed)
    from pilite.lab import bench as measuring
    from pilite.lab import boards, fleet, protocol, rivals

    settings = protocol.chosen(effort, order)
    raced = [rivals.RIVALS[name] for name in chosen(rival, list(rivals.RIVALS), "--rival")]

    def measure(where: Board, connection: Connection, say: Say) -> Bench:
        return measuring.bench(
            where,
            connection,
            subjects(prepared.done[where.name], gaps=bool(suite)),
            ARTIFACTS,
            threads=counts,
            rivals=raced,
            settings=settings,
            force=force,
            say=Teller(say),
        )

    with lent(labgrid, tag, board) as names:
        wanted = boards.select(names, ARTIFACTS, limit)
        members = members_of(suite) if suite else named(model, input_shape)
        alike = fleet.Outcome({where.name: members for where in wanted}, {})
        prepared = on_boards(wanted, members) if suite or labgrid else alike
        outcome = measured(wanted, prepared, measure)
    for name, done in outcome.done.items():
        show(name, done)
        if suite:
            runtimes = [rivals.OURS, *(one.name for one in raced)]
            show_suite(suite, prepared.done[name], done.document, counts, runtimes)
    finish(len(wanted), outcome, json)


@contextmanager
def lent(coordinator: str, tags: Sequence[str], named_boards: Sequence[str]) -> Iterator[Sequence[str]]:
    """The boards asked for; with a labgrid coordinator, the one that it lends, until the end."""
    if not coordinator:
        if tags:
            raise PiliteError("--tag says which place of a farm is wanted: it needs --labgrid HOST:PORT.")
        yield named_boards or DEFAULT_BOARDS
        return
    if named_boards or not tags:
        raise PiliteError(
            f"--labgrid {coordinator}: needs --tag KEY=VALUE, by which it chooses the board itself."
        )
    from pilite.lab import boards, labgrid

    farm = labgrid.farm(coordinator)
    print(f"waiting for a place of {coordinator} with {' '.join(tags)}", flush=True)
    with labgrid.borrowed(farm, tags) as place:
        if place not in boards.names():
            raise PiliteError(
                f"{coordinator} lent {place}, of which there is no boards/{place}.toml with its pinned host "
                f"key; it is given back. Make it one: python3 run.py onboard --name {place} --host H --user U"
            )
        print(f"{place} is ours", flush=True)
        where = boards.load(place, ARTIFACTS)
        labgrid.awaken(farm, place, lambda: boards.connect(where, ARTIFACTS))
        yield [place]


def measured(
    wanted: Sequence[Board],
    prepared: Outcome[list[Chosen]],
    measure: Callable[[Board, Connection, Say], Bench],
) -> Outcome[Bench]:
    """Measure on the boards that are prepared; what kept the others from it is in the outcome, too."""
    from pilite.lab import benches, fleet

    ready = [where for where in wanted if where.name in prepared.done]
    raw = benches.each(ready, ARTIFACTS, measure)
    return benches.judged(fleet.Outcome(raw.done, {**prepared.failures, **raw.failures}))


class Teller:
    """Tells the table of boards; where no terminal shows that, prints lines: of a race one in EVERY_S."""

    EVERY_S = 10.0

    def __init__(self, say: Say) -> None:
        self._say, self._next = say, 0.0

    def __call__(self, what: object) -> None:
        from pilite.lab import fleet

        self._say(what)
        if fleet.is_drawn() or (not isinstance(what, str) and time.monotonic() < self._next):
            return
        self._next = time.monotonic() + self.EVERY_S
        print(what, flush=True)


def show(name: str, done: Bench) -> None:
    """The tables of one board."""
    from pilite.lab import report

    show_table(f"Times on {name}", report.timing_rows(done.document))
    show_table(f"pilite against its rivals on {name}", report.ratio_rows(done.document))
    show_table(f"Geometric means over models on {name}", report.mean_rows(done.document))
    show_table(f"Start, memory and sizes on {name}", report.cost_rows(done.document))
    show_table(f"Outputs on {name}", report.check_rows(done.document))
    print("\n".join(report.remarks(done.document)))
    print(f"{done.folder}/result.json, report.html, report.md")


def finish(count: int, outcome: Outcome[Bench], json: str) -> None:
    """What the boards did at a glance, if there are several; `json`; what failed, as an error."""
    from pilite.lab import benches, history

    with history.opened(ARTIFACTS):
        pass  # the runs are in it now
    if count > 1:
        show_table("Boards", benches.rows(outcome))
    if json and count > 1:
        write_json(Path(json), benches.document(outcome))
    if json and count == 1:
        for done in outcome.done.values():
            write_json(Path(json), done.document)
    outcome.raise_failures()


def subjects(members: Sequence[Chosen], gaps: bool) -> list[Subject]:
    """What can be measured of them; without `gaps`, PiliteError for one that cannot."""
    from pilite.lab import trial

    refused = [one.reason for one in members if one.reason]
    if refused and not gaps:
        raise PiliteError("\n".join(refused))
    found = [one.source for one in members if not one.reason]
    return [trial.Subject(source.name, source.path, built_today) for source in found]


def built_today(built: Artifact) -> str:
    """The build_id that a deployed artifact would get now. Raises PiliteError for an unknown CPU."""
    from pilite.compiler import artifact
    from pilite.compiler import cpu as cpus

    cpu = cpus.load(built.cpu)
    return artifact.build_id(built.source_sha256, built.model, cpu, dict(built.options))


def named(model: Sequence[str], input_shapes: Sequence[str]) -> list[Chosen]:
    """The models asked for, or the default one."""
    from pilite.lab import suites

    found = sources(model, input_shapes)
    return [suites.Chosen(suites.Member(one.name, (one.name,)), one) for one in found]


def on_boards(wanted: Sequence[Board], members: Sequence[Chosen]) -> Outcome[list[Chosen]]:
    """Build models, one after another, and deploy them to all boards at once."""
    from pilite.lab import deploy, fleet

    for_cpu = {cpu: [compiled(one, cpu) for one in members] for cpu in {where.cpu for where in wanted}}

    def put(where: Board, connection: Connection, say: Say) -> list[Chosen]:
        def one(member: Chosen) -> Chosen:
            name = member.source and member.source.name
            return refusable(member, lambda: deploy.deploy(where, connection, name, ARTIFACTS, say=say))

        return [one(member) for member in for_cpu[where.cpu]]

    return fleet.each(wanted, ARTIFACTS, put)


def compiled(member: Chosen, cpu: str) -> Chosen:
    return refusable(member, lambda: built(member.source, cpu, numerics="ref"))


def refusable(member: Chosen, act: Callable[[], object]) -> Chosen:
    """Do something with a member of a suite; one that is refused keeps its place, with the reason."""
    if member.reason:
        return member
    try:
        act()
    except PiliteError as problem:
        return replace(member, reason=str(problem))
    return member


def members_of(suite: str) -> list[Chosen]:
    """The models of a suite that are here. Raises PiliteError for an unknown suite."""
    import models as catalogue
    from pilite.lab import suites

    names = chosen(suite, list(suites.SUITES), "--suite")
    return [
        one
        for name in names
        for one in suites.choose(
            suites.SUITES[name],
            lambda model: catalogue.is_here(model, ARTIFACTS, SHARED_MODELS),
            lambda model: sources([model])[0],
        )
    ]


def show_suite(
    suite: str, members: Sequence[Chosen], document: Json, threads: Sequence[int], runtimes: Sequence[str]
) -> None:
    """All rows of a suite; what others published is a table of its own, from other machines."""
    from pilite.lab import suites

    show_table(f"{suite}: measured here", suites.table(members, document, threads, runtimes))
    print(suites.missing(members))
    show_table(
        f"{suite}: published by others, on their machines; not comparable with the table above",
        [row for name in suite.split(",") for row in suites.published_rows(suites.SUITES[name.strip()])],
    )
