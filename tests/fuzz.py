"""A coverage-guided fuzzer at the compiler's door: atheris keeps the files that reach new code.

    .venv/bin/python -m pip install --target artifacts/fuzz/atheris atheris==3.0.0
    PYTHONPATH=artifacts/fuzz/atheris .venv/bin/python -m tests.fuzz -atheris_runs=200000

It starts from the one-operator models, changes bytes or, every second time, what they say (`mutate.py`), and
stops at the first file that gives anything else than a ModelError or a sound graph; that file is written to
artifacts/fuzz. `python -m tests.fuzz FILE` tries it again. Options are libFuzzer's. Not a test: atheris has
no wheels for every Python and machine that pilite is developed on.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pilite.compiler"]):  # the first import of them
    from pilite.compiler import tflite
    from pilite.errors import ModelError

from tests import one_op
from tests.conftest import ROOT
from tests.damage import SECONDS, time_limit
from tests.graphs import assert_consistent
from tests.mutate import mutated

FOLDER = ROOT / "artifacts" / "fuzz"
FIRST = 5_000_000  # of the one-operator models, which no test uses


def try_file(data: bytes) -> None:
    with time_limit(SECONDS), suppress(ModelError):
        assert_consistent(tflite.parse(data, "fuzzed.tflite"))


def change(data: bytes, most: int, seed: int) -> bytes:
    """Bytes, or the meaning of a file that can still be opened."""
    if seed % 2:
        # The generated reader trusts files: it may fail, or go on for long.
        with suppress(Exception), time_limit(SECONDS):
            return mutated(data, seed)[:most]
    return bytes(atheris.Mutate(data, most))


def corpus(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for op, dtype in one_op.ROWS:
        name = f"{op.replace(':', '_')}-{dtype}.tflite"
        (folder / name).write_bytes(one_op.seeded(op, dtype, FIRST).model)
    return folder


def main() -> None:
    files = [word for word in sys.argv[1:] if not word.startswith("-")]
    start = [] if files else [str(corpus(FOLDER / "corpus"))]
    defaults = ["-max_len=65536", f"-artifact_prefix={FOLDER}/"]
    arguments = [sys.argv[0], *defaults, *sys.argv[1:], *start]
    atheris.Setup(arguments, try_file, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
