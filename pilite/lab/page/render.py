"""The page's text from its template; and the runs that it is made of, from their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from pilite.console import write_text
from pilite.errors import PiliteError
from pilite.lab import store
from pilite.lab.page import exactness
from pilite.lab.page.view import Run, page

FOLDER = Path(__file__).parent


def environment() -> jinja2.Environment:
    """Templates of this folder; what is put into them is escaped, and a name that is missing is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def html(runs: Sequence[Run]) -> str:
    """The whole page."""
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    text: str = environment().get_template("page.html").render(**page(runs), style=style)
    return text


def write(runs: Sequence[Run], path: Path) -> None:
    """Beside its place, then renamed. Raises PiliteError if it cannot be written."""
    write_text(path, html(runs))


def read(artifacts: Path, name: str) -> Run:
    """A finished run by its name, with the profiles of its models on that board. Raises PiliteError."""
    folder = artifacts / "bench" / name
    if not (folder / "result.json").is_file():
        known = [path.name for path in store.finished(artifacts / "bench")][-5:]
        raise PiliteError(f"no run {name}; the newest are: {', '.join(known) or 'none: `bench` makes one'}.")
    document = store.load(folder / "result.json")
    if "marks" not in document:
        raise PiliteError(f"{folder}: it was written by an older version and cannot be shown; measure again.")
    raw = store.load(folder / "samples.json")
    samples = raw["models"] if "schema" in raw else raw  # runs of before pilite.samples/1
    compared = exactness.comparisons(artifacts, document)
    return Run(name, document, samples, profiles(artifacts, document), folder, compared)


def profiles(artifacts: Path, document: dict[str, object]) -> list[dict[str, object]]:
    """Profiles that were made on the same board of the same builds."""
    found = sorted((artifacts / "profile").glob("*/*.json"))
    every = [store.load(path) for path in found]
    rows: list[dict[str, object]] = document["rows"]  # type: ignore[assignment]
    board: dict[str, object] = document["board"]  # type: ignore[assignment]
    models = {row["model"] for row in rows}
    return [one for one in every if one["board"] == board["name"] and one["model"] in models]


def newest(artifacts: Path) -> str:
    """The name of the last run. Raises PiliteError if there is none."""
    names = [path.name for path in store.finished(artifacts / "bench")]
    if not names:
        raise PiliteError("no run yet: `bench` makes one.")
    return names[-1]
