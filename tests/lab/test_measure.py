"""measure.py as it runs on a board: workers in turns, with a fake runtime and a fake clock."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilite.errors import BoardError
from pilite.lab import measure
from pilite.lab.connection import LocalConnection

Json = dict[str, Any]
HERE = Path(__file__).parent
SCRIPT = Path(measure.__file__)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A PYTHONPATH with a fake tflite-runtime 9.9, and no litert that could be imported."""
    folder = tmp_path / "packages"
    for package in ("tflite_runtime", "tflite_runtime-9.9.dist-info", "ai_edge_litert"):
        (folder / package).mkdir(parents=True)
    for package in ("tflite_runtime", "ai_edge_litert"):
        (folder / package / "__init__.py").touch()
    (folder / "tflite_runtime" / "interpreter.py").write_text((HERE / "fake_tflite.py").read_text())
    (folder / "tflite_runtime-9.9.dist-info" / "METADATA").write_text("Name: tflite-runtime\nVersion: 9.9\n")
    (folder / "ai_edge_litert" / "interpreter.py").write_text(
        "raise ImportError('no wheel for this board')\n"
    )
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Json:
    """One model with one input, two sets of inputs; tflite with one and two threads."""
    paths = []
    for number in range(2):
        np.save(tmp_path / f"in.{number}.npy", np.full((1, 4), 10 * number, np.int8))
        paths.append([str(tmp_path / f"in.{number}.npy")])
    plan(tmp_path, ms=4)
    return {
        "protocol": measure.PROTOCOL,
        "subject": {"release": str(tmp_path), "tflite": str(tmp_path / "model.tflite"), "inputs": paths},
        "rows": [{"runtime": "tflite", "threads": 1}, {"runtime": "tflite", "threads": 2}],
        "rounds": 5,
        "least_rounds": 1,
        "slot_ms": 12,
        "most_runs": 5,
        "settle": 1,
        "warm_ms": 10,
        "warm_runs": 2,
        "budget_s": 60,
        "limit_s": 20,
        "seed": 0,
    }


def plan(folder: Path, **values: object) -> None:
    (folder / "model.tflite").write_text(json.dumps(values))


def start(job: Json, packages: Path) -> subprocess.CompletedProcess[str]:
    folder = packages.parent
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, str(SCRIPT), str(folder / "job.json"), str(folder / "result.json")]
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def measured(job: Json, packages: Path) -> Json:
    done = start(job, packages)
    assert done.returncode == 0, done.stderr
    result: Json = json.loads((packages.parent / "result.json").read_text())
    return result


def test_runs_fill_a_turn_and_times_are_the_clocks(job: Json, packages: Path) -> None:
    plan(packages.parent, ms=4, load_ms=7, first_ms=20)
    one, two = measured(job, packages)["rows"]
    assert (one["version"], one["load_ms"], one["first_ms"]) == ("9.9", 7.0, 24.0)
    assert one["samples"] == [[4.0, 4.0, 4.0]] * 5  # 12 ms a turn
    assert two["samples"] == [[2.0] * 5] * 5  # six would fit, five is the most
    assert one["rss_mb"] > 1


def test_the_order_of_turns_is_mixed_and_the_same_for_a_seed(job: Json, packages: Path) -> None:
    orders = measured({**job, "rounds": 8}, packages)["orders"]
    assert all(sorted(order) == ["tflite/1", "tflite/2"] for order in orders)
    assert len({tuple(order) for order in orders}) == 2
    assert measured({**job, "rounds": 8}, packages)["orders"] == orders
    assert measured({**job, "rounds": 8, "seed": 5}, packages)["orders"] != orders


def test_a_spent_budget_ends_the_race_after_the_least_rounds(job: Json, packages: Path) -> None:
    rows = measured({**job, "budget_s": 0, "least_rounds": 2}, packages)["rows"]
    assert [len(row["samples"]) for row in rows] == [2, 2]


def test_outputs_are_kept_for_every_set_of_inputs(job: Json, packages: Path) -> None:
    path = packages.parent / "out.npz"
    rows = [{"runtime": "tflite", "threads": 3, "outputs": str(path)}]
    measured({**job, "rows": rows}, packages)
    with np.load(path) as outputs:
        assert sorted(outputs.files) == ["0.0", "1.0"]
        np.testing.assert_array_equal(outputs["1.0"], np.full((1, 4), 13, np.int8))


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("crash", "its process ended during 'warm': SIGSEGV"),
        ("exit", "its process ended during 'warm': exit code 3"),
        ("raise", "RuntimeError: no such kernel"),
        ("hang", "no answer to 'warm' in 2 s"),
    ],
)
def test_a_runtime_that_fails_leaves_with_its_reason(
    job: Json, packages: Path, then: str, reason: str
) -> None:
    plan(packages.parent, ms=4, at=2, then=then)
    result = measured({**job, "limit_s": 2, "rows": job["rows"][:1]}, packages)
    assert result["rows"] == []
    assert result["failures"] == [{"runtime": "tflite", "threads": 1, "reason": reason}]


def test_a_failure_in_the_race_keeps_the_other_rows(job: Json, packages: Path) -> None:
    # Runs after three rounds: 1 + 3 + 3 * (1 + 3) = 16 with one thread, 1 + 5 + 3 * (1 + 5) = 24 with two.
    plan(packages.parent, ms=4, at=18, then="crash")
    result = measured({**job, "rounds": 3}, packages)
    assert [row["threads"] for row in result["rows"]] == [1]
    assert [row["threads"] for row in result["failures"]] == [2]


def test_a_runtime_that_is_not_there_says_so(job: Json, packages: Path) -> None:
    rows = [{"runtime": "litert", "threads": 1}, *job["rows"][:1]]
    result = measured({**job, "rows": rows}, packages)
    assert result["failures"][0]["reason"] == "ImportError: no wheel for this board"
    assert [row["runtime"] for row in result["rows"]] == ["tflite"]


def test_a_job_of_another_version_is_refused(job: Json, packages: Path) -> None:
    done = start({**job, "protocol": measure.PROTOCOL + 1}, packages)
    assert done.returncode != 0
    assert "deploy again" in done.stderr


def test_threads_get_a_cpu_each_or_none_at_all() -> None:
    assert measure.choose_cpus([0, 1, 2, 3], 1) == [3]
    assert measure.choose_cpus([0, 1, 2, 3], 4) == [0, 1, 2, 3]
    assert measure.choose_cpus([0, 1], 4) is None


def test_workers_are_pinned_where_there_are_cpus(job: Json, packages: Path) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    rows = [{"runtime": "tflite", "threads": count} for count in (1, len(allowed) + 1)]
    result = measured({**job, "rows": rows, "rounds": 1}, packages)
    assert result["allowed_cpus"] == allowed
    assert [row["cpus"] for row in result["rows"]] == [allowed[-1:], None]


def test_it_needs_only_numpy_beside_the_standard_library() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    others = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert others == {"numpy"}


def test_a_race_that_takes_too_long_leaves_no_process_behind(job: Json, packages: Path) -> None:
    plan(packages.parent, ms=4, at=2, then="hang")
    script, paths = (
        packages.parent / "measure.py",
        [packages.parent / name for name in ("job.json", "r.json")],
    )
    script.write_text(SCRIPT.read_text(encoding="utf-8"))
    paths[0].write_text(json.dumps(job))
    with pytest.raises(BoardError, match=r"was not done after 4 s and was killed"):
        LocalConnection().run(
            [sys.executable, str(script), *map(str, paths)], timeout=4, env={"PYTHONPATH": str(packages)}
        )
    assert subprocess.run(["pgrep", "-f", str(script)], check=False).returncode == 1
