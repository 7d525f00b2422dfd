"""Compile one job (pilite/job.py) in a process of its own: for parallel builds and the toolchain image."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from pilite import job as jobs
from pilite.compiler import artifact, pipeline
from pilite.errors import PiliteError, disk_as_error


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 after one line that says why."""
    parser = argparse.ArgumentParser(prog=f"python -m {jobs.MODULE}", description=__doc__)
    for name in ("model", "name", "cpu", "options", "build-id", "output"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args(words)
    job = jobs.Job(Path(given.model), given.name, given.cpu, json.loads(given.options), given.build_id)
    try:
        with disk_as_error():
            data = pipeline.compile_here(job, lambda step: print(jobs.step_line(step), flush=True))
            artifact.write(Path(given.output), data)
    except PiliteError as error:
        print(jobs.error_line(error), flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
