"""Results by what they came from: an equal guest counted by equal models is not run or simulated again."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pilite.console import write_json
from pilite.lab.estimate import assembly, caches, plugin
from pilite.lab.estimate.count import Counted, Result, Thread, count
from pilite.lab.estimate.models import MODELS
from pilite.lab.estimate.plugin import Guest

SOURCES = ("assembly.py", "caches.py", "count.py", "cycles.py", "inorder.py", "models.py", "profile.py")


def result(guest: Guest, cpu: str, artifacts: Path) -> Result:
    """What the guest costs on `cpu`; counted now if anything that decides it has changed.

    Raises:
        PiliteError: a tool is missing.
        CheckFailed: the guest failed, or never reached the marks.
    """
    path = place(guest, cpu, artifacts)
    if path.is_file():
        return _read(json.loads(path.read_text(encoding="utf-8")))
    found = count(plugin.run(guest, _levels(cpu), artifacts), MODELS[cpu])
    write_json(path, asdict(found))
    return found


def place(guest: Guest, cpu: str, artifacts: Path) -> Path:
    """The file of this guest's result, whether it exists or not."""
    key = plugin.key(guest, _levels(cpu), artifacts)
    return artifacts.resolve() / "estimate" / "results" / f"{key}-{_models()[:12]}.json"


def _levels(cpu: str) -> list[str]:
    return [level.option for level in caches.LEVELS[cpu]]


@functools.cache
def _models() -> str:
    """Digest of everything between a profile and its result."""
    digest = hashlib.sha256(assembly.version().encode())
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


def _read(kept: dict[str, Any]) -> Result:
    return Result(
        Counted(**kept["whole"]),
        {int(label): Counted(**counted) for label, counted in kept["sections"].items()},
        kept["balance"],
        tuple(Thread(**thread) for thread in kept["threads"]),
    )
