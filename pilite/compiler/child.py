"""Compile in a child process, so that several compilations run side by side."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from pilite import job as jobs
from pilite.job import Job, Progress

ROOT = Path(__file__).resolve().parents[2]


def compile(job: Job, progress: Progress) -> bytes:
    """The sealed artifact. Raises what the child reported, or CompileError with its last words."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "model.so"
        command = [sys.executable, "-m", jobs.MODULE, *job.words(str(job.model.resolve()), str(output))]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as child:
            assert child.stdout is not None
            try:
                words = jobs.follow(child.stdout, progress)
            except BaseException:
                child.kill()
                raise
        if child.returncode or not output.is_file():
            raise jobs.died(job, child.returncode, words)
        return output.read_bytes()
