"""What is told of a deployed build beside its times."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilite.benchtasks import built_today
from pilite.compiler import artifact as compiled
from pilite.compiler import pipeline
from pilite.lab import artifact, boards, trial
from tests.chain_nets import CHAINS
from tests.few_ops import made
from tests.native import HERE


@pytest.mark.parametrize("chains", ["auto", "off"])
def test_a_build_that_another_compiler_made_is_told(
    tmp_path: Path, chains: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(made(CHAINS["stem"], "int8", 0).model)
    done = pipeline.build(model, "m", HERE, "ref", tmp_path, chains=chains)
    board, built = boards.load("local", tmp_path), artifact.read(done.path)
    subject = trial.Subject("m", model, built_today)

    assert trial.outdated(board, built, subject) == ()

    monkeypatch.setattr(compiled, "compiler_hash", lambda: "of other sources")
    (note,) = trial.outdated(board, built, subject)
    made_by = f"m on local: the deployed build {done.build_id[:12]} is not what `build` makes today"
    assert note.startswith(made_by)
    assert note.endswith("; `build` and `deploy` renew it")
