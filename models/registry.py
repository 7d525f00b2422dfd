"""Names of models: what models.toml lists, any zoo name, any path. `resolve` turns one into a file."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from models import store, zoo
from models.download import fetch
from models.store import Say
from pilite.compiler import schema
from pilite.errors import ModelError, PiliteError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = Path(__file__).with_name("models.toml")
DEFAULT_MODEL = "mobilenet_v2_1.0_224_uint8"


@dataclass(frozen=True)
class Source:
    """A model on this machine."""

    name: str  # safe as the name of a folder
    path: Path
    kind: str  # "zoo", "file" (published) or "path" (the user's own)


@dataclass(frozen=True)
class Entry:
    """One table of models.toml."""

    name: str
    kind: str  # "zoo" or "file"
    input: str
    licence: str
    source: str = ""  # where a published file comes from, in words
    url: str = ""  # empty: no address to download it from
    sha256: str = ""
    git_blob: str = ""  # identifies a published file whose sha256 is not known
    recipe: zoo.Recipe | None = None

    def is_correct(self, path: Path) -> bool:
        """Whether `path` is a file with this entry's digest."""
        if self.sha256:
            return store.sha256(path) == self.sha256
        return store.git_blob(path) == self.git_blob


def resolve(name_or_path: str, artifacts: Path, folder: Path | None = None, say: Say | None = None) -> Source:
    """The model's file, made or downloaded into artifacts/models when it is not there.

    `folder` is where published files are looked up first; `say` receives progress lines (default: stderr).
    Raises PiliteError for an unknown name, a path that is no file, no network or no space; ModelError for a
    file that is not the one that its name promises.
    """
    say = say or _to_stderr
    entry = entries().get(name_or_path)
    if entry is not None and entry.kind == "file":
        return _published(entry, artifacts, folder, say)
    recipe = zoo.parse(name_or_path)
    if recipe is not None:
        return _made(recipe, entry, artifacts, say)
    return _given(name_or_path)


def is_here(name: str, artifacts: Path, folder: Path | None = None) -> bool:
    """Whether `resolve` would find or make the model without a download."""
    entry = entries().get(name)
    if entry is None or entry.kind != "file":
        return zoo.parse(name) is not None or Path(name).is_file()
    places = [folder, artifacts / "models"] if folder else [artifacts / "models"]
    return any((place / f"{name}.tflite").is_file() for place in places)


def table() -> list[dict[str, str]]:
    """One row per known model, and one for all other zoo names."""
    rows = [
        {
            "name": e.name,
            "kind": e.kind,
            "input": e.input,
            "licence": e.licence,
            "source": e.source or "made here",
        }
        for e in entries().values()
    ]
    architectures = ", ".join(zoo.FAMILIES)
    others = f"width {zoo.WIDTHS[0]} to {zoo.WIDTHS[1]}, resolution up to {zoo.LARGEST}; {architectures}"
    return [
        *rows,
        {"name": zoo.FORM, "kind": "zoo", "input": others, "licence": "Apache-2.0", "source": "made here"},
    ]


@cache
def entries() -> Mapping[str, Entry]:
    """models.toml, by name."""
    with TABLE.open("rb") as file:
        tables = tomllib.load(file)
    return {name: Entry(name=name, **{**fields, **_recipe(fields)}) for name, fields in tables.items()}


def _recipe(fields: Mapping[str, object]) -> dict[str, object]:
    recipe = fields.get("recipe")
    return {"recipe": zoo.Recipe(**recipe)} if isinstance(recipe, dict) else {}


# Zoo models.


def _made(recipe: zoo.Recipe, entry: Entry | None, artifacts: Path, say: Say) -> Source:
    """Generate, or reuse what the same code made from the same recipe."""
    path = artifacts / "models" / f"{recipe.name}.tflite"
    pinned = entry.sha256 if entry else ""
    with store.locked(path, say):
        if _is_made(recipe, path, pinned):
            say(f"{recipe.name}: reused {path}")
        else:
            _make(recipe, path, pinned, say)
    return Source(recipe.name, path, "zoo")


def _make(recipe: zoo.Recipe, path: Path, pinned: str, say: Say) -> None:
    start = time.monotonic()
    data = zoo.generate(recipe)
    digest = sha256(data).hexdigest()
    if pinned and digest != pinned:
        raise ModelError(
            f"{recipe.name} made on this machine has sha256 {digest}, models.toml pins {pinned}.\n"
            "After a change to models/zoo pin the new value; otherwise report your CPU and numpy's version."
        )
    store.write(path, data)
    store.write(_record(path), json.dumps({"recipe": _identity(recipe), "sha256": digest}).encode())
    say(f"{recipe.name}: made {path} in {time.monotonic() - start:.1f} s")


def _is_made(recipe: zoo.Recipe, path: Path, pinned: str) -> bool:
    try:
        record = json.loads(_record(path).read_bytes())
    except (OSError, ValueError):
        return False
    digest = store.sha256(path)
    return (
        digest is not None
        and record == {"recipe": _identity(recipe), "sha256": digest}
        and pinned in ("", digest)
    )


def _record(path: Path) -> Path:
    """The file beside a zoo model that says what it was made from."""
    return path.with_suffix(".json")


def _identity(recipe: zoo.Recipe) -> str:
    """Changes with the recipe and with the code that follows it."""
    sources = [*sorted(Path(zoo.__file__).parent.glob("*.py")), Path(schema.__file__)]
    return sha256(recipe.name.encode() + b"".join(source.read_bytes() for source in sources)).hexdigest()


# Published files.


def _published(entry: Entry, artifacts: Path, folder: Path | None, say: Say) -> Source:
    if folder is not None and (folder / f"{entry.name}.tflite").is_file():
        return Source(entry.name, _checked(entry, folder / f"{entry.name}.tflite"), "file")
    path = artifacts / "models" / f"{entry.name}.tflite"
    with store.locked(path, say):
        if entry.is_correct(path):
            say(f"{entry.name}: reused {path}")
        elif entry.url:
            say(f"{entry.name}: downloading {entry.url}")
            fetch(entry.url, path, entry.is_correct, say)
        else:
            raise PiliteError(
                f"{entry.name} has no address to download it from. Its source is {entry.source}: "
                f"put {entry.name}.tflite into the folder that PILITE_MODELS names."
            )
    return Source(entry.name, path, "file")


def _checked(entry: Entry, path: Path) -> Path:
    if not entry.is_correct(path):
        raise ModelError(
            f"{path} is not the published {entry.name}: its digest differs from models.toml. "
            "Remove it to download the right one, or give its path instead of the name."
        )
    return path


# The user's own files.


def _given(text: str) -> Source:
    try:
        return _looked_at(text, Path(os.path.expanduser(text)))
    except OSError as error:
        raise PiliteError(
            f"{text[:80]} cannot be looked at: {error.strerror}. Give the path of a .tflite file."
        ) from None


def _looked_at(text: str, path: Path) -> Source:
    if path.is_dir():
        raise PiliteError(f"{text or path} is a folder, not a model. Give the .tflite file in it.")
    if path.is_file():
        return Source(_safe(path.stem), path, "path")
    if path.exists():
        raise PiliteError(f"{text} is not a regular file. Give a .tflite file.")
    if path.suffix == ".tflite" or len(path.parts) > 1:
        hint = f" Without .tflite, {path.stem} is a known name." if _is_known(path.stem) else ""
        raise PiliteError(f"there is no file {text} (looked in {Path.cwd()}).{hint}")
    raise _unknown(text)


def _unknown(name: str) -> PiliteError:
    known = list(entries())
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(close)}?" if close else ""
    return PiliteError(
        f"unknown model {name!r}: neither a file nor a name of models.toml.{guess}\n"
        f"Known: {', '.join(known)}, and {zoo.forms()}."
    )


def _is_known(name: str) -> bool:
    return name in entries() or zoo.parse(name) is not None


def _safe(stem: str) -> str:
    """`stem` as the name of a folder below artifacts: no separators, no leading dot, never empty."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "model"


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
