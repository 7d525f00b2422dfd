"""measure.py as it runs on a board: workers in turns, with a fake runtime and a fake clock."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
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
WORKER = SCRIPT.with_name("worker.py")


LISTED = (HERE / "fake_tflite.py").stat().st_size  # what the fake package's RECORD names


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A PYTHONPATH with a fake tflite-runtime 9.9, and no litert that could be imported."""
    folder = tmp_path / "packages"
    for package in ("tflite_runtime", "tflite_runtime-9.9.dist-info", "ai_edge_litert"):
        (folder / package).mkdir(parents=True)
    for package in ("tflite_runtime", "ai_edge_litert"):
        (folder / package / "__init__.py").touch()
    (folder / "tflite_runtime" / "interpreter.py").write_text((HERE / "fake_tflite.py").read_text())
    about = folder / "tflite_runtime-9.9.dist-info"
    (about / "METADATA").write_text("Name: tflite-runtime\nVersion: 9.9\n")
    (about / "RECORD").write_text("tflite_runtime/interpreter.py,,\n")
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
        "rows": [row(1), row(2)],
        "sessions": 1,
        "least_rounds": 5,
        "least_runs": 1,
        "least_s": 0,
        "most_s": 60,
        "fewest_rounds": 1,
        "slot_ms": 12,
        "most_runs": 5,
        "kept_runs": 5,
        "settle": 1,
        "warm_ms": 10,
        "warm_most_ms": 1000,
        "limit_s": 20,
        "silence_s": 20,
        "governor": ["no-such-helper"],
        "seed": 0,
    }


def row(threads: int, runtime: str = "tflite", module: str = "tflite_runtime", **more: Any) -> Json:
    """An entry of a job, as rivals.py and trial.py make it."""
    package = module.replace("_", "-")
    adapter = {"adapter": "interpreter", "module": f"{module}.interpreter", "package": package}
    return {"runtime": runtime, "threads": threads, "kernels": "AUTO", **adapter, **more}


def plan(folder: Path, **values: object) -> None:
    (folder / "model.tflite").write_text(json.dumps(values))


def command(job: Json, packages: Path) -> list[str]:
    """Of measure.py, for a job that it writes."""
    files = [packages.parent / name for name in ("job.json", "result.json")]
    files[0].write_text(json.dumps(job))
    return [sys.executable, str(SCRIPT), *map(str, files)]


def environment(packages: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(packages)}


def start(job: Json, packages: Path) -> subprocess.CompletedProcess[str]:
    words, env = command(job, packages), environment(packages)
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)


def measured(job: Json, packages: Path) -> Json:
    done = start(job, packages)
    assert done.returncode == 0, done.stderr
    result: Json = json.loads((packages.parent / "result.json").read_text())
    return result


def test_runs_fill_a_turn_and_times_are_the_clocks(job: Json, packages: Path) -> None:
    plan(packages.parent, ms=4, load_ms=7, first_ms=20)
    one, two = measured(job, packages)["rows"]
    facts = one["sessions"][0]
    assert (facts["version"], facts["load_ms"], facts["first_ms"]) == ("9.9", 7.0, 24.0)
    assert one["samples"] == [[4.0, 4.0, 4.0]] * 5  # 12 ms a turn
    assert two["samples"] == [[2.0] * 5] * 5  # six would fit, five is the most
    assert facts["rss_mb"] > 1
    assert facts["cold_ms"] > 1
    assert facts["install_mb"] == pytest.approx(LISTED / 1e6)
    assert facts["model_mb"] == (packages.parent / "model.tflite").stat().st_size / 1e6


def test_every_session_has_fresh_processes_and_its_share_of_the_rounds(job: Json, packages: Path) -> None:
    result = measured({**job, "sessions": 3, "least_rounds": 6}, packages)
    for one in result["rows"]:
        assert [session["rounds"] for session in one["sessions"]] == [2, 2, 2]
        assert len(one["samples"]) == 6
    assert [lap["session"] for lap in result["diary"]] == [1, 1, 2, 2, 3, 3]
    assert result["complete"] is True


def test_a_race_goes_on_until_every_row_has_its_least_runs_and_time(job: Json, packages: Path) -> None:
    by_runs = measured({**job, "least_rounds": 1, "least_runs": 31}, packages)["rows"]
    assert [len(one["samples"]) for one in by_runs] == [11, 11]  # three runs a turn in the slower row
    by_time = measured({**job, "least_rounds": 1, "least_s": 0.1}, packages)["rows"]
    assert [len(one["samples"]) for one in by_time] == [10, 10]  # 10 ms a turn in the faster row


def test_of_a_long_turn_times_at_equal_distances_are_kept_and_all_runs_count(
    job: Json, packages: Path
) -> None:
    plan(packages.parent, ms=4, grow_ms=0.1)
    few = {**job, "rows": [row(1)], "least_rounds": 1, "slot_ms": 60, "most_runs": 7, "settle": 0}
    (whole,) = measured({**few, "kept_runs": 7}, packages)["rows"]
    runs = len(whole["samples"][0])
    for kept, step in ((runs - 1, 2), (2, -(-runs // 2)), (1, runs)):
        (thinned,) = measured({**few, "kept_runs": kept}, packages)["rows"]
        assert thinned["samples"] == [whole["samples"][0][::step]]
        assert thinned["timed_runs"] == whole["timed_runs"] == runs


def test_warm_up_ends_when_two_blocks_agree(job: Json, packages: Path) -> None:
    plan(packages.parent, ms=50, slower_ms=50, until=5)
    facts = measured({**job, "rows": [row(1)]}, packages)["rows"][0]["sessions"][0]
    # Runs 2 to 5 take 100 ms, the blocks after that two runs of 50 ms: [100] [100] agree at once.
    assert (facts["settled"], facts["warm_runs"], facts["ms"]) == (True, 2, 100.0)
    plan(packages.parent, ms=50, slower_ms=50, until=2)
    facts = measured({**job, "rows": [row(1)]}, packages)["rows"][0]["sessions"][0]
    assert (facts["settled"], facts["warm_runs"], facts["ms"]) == (True, 5, 50.0)


def test_warm_up_that_never_settles_ends_and_says_so(job: Json, packages: Path) -> None:
    plan(packages.parent, ms=100, grow_ms=20)
    facts = measured({**job, "rows": [row(1)], "warm_most_ms": 600}, packages)["rows"][0]["sessions"][0]
    assert (facts["settled"], facts["warm_runs"]) == (False, 4)


def test_a_run_that_is_longer_than_a_turn_needs_no_run_before_it(job: Json, packages: Path) -> None:
    plan(packages.parent, ms=20)
    rows = measured({**job, "rows": [row(1)], "least_rounds": 2}, packages)["rows"]
    assert rows[0]["samples"] == [[20.0]] * 2
    plan(packages.parent, ms=20, at=8 + 3, then="raise")  # first, 2 x 5 of warm-up: no run is left to settle
    assert "RuntimeError" in measured({**job, "rows": [row(1)]}, packages)["failures"][0]["reason"]


def test_the_diary_tells_what_else_the_board_did(job: Json, packages: Path) -> None:
    lap = measured(job, packages)["diary"][0]
    assert lap["seconds"] > 0
    assert lap["other_cpus"] >= 0
    assert lap["stolen_cpus"] >= 0
    assert all(mhz > 1 for mhz in lap["mhz"])


def test_the_order_of_turns_is_mixed_and_the_same_for_a_seed(job: Json, packages: Path) -> None:
    orders = turns(job, packages)
    assert all(sorted(order) == ["tflite/1", "tflite/2"] for order in orders)
    assert len({tuple(order) for order in orders}) == 2
    assert turns(job, packages) == orders
    assert turns({**job, "seed": 5}, packages) != orders


def turns(job: Json, packages: Path) -> list[list[str]]:
    return [lap["order"] for lap in measured({**job, "least_rounds": 8}, packages)["diary"]]


def test_a_race_whose_time_is_over_ends_after_the_round_and_says_so(job: Json, packages: Path) -> None:
    result = measured({**job, "most_s": 0}, packages)
    assert [len(one["samples"]) for one in result["rows"]] == [1, 1]
    assert result["complete"] is False


def test_outputs_are_kept_for_every_set_of_inputs(job: Json, packages: Path) -> None:
    path = packages.parent / "out.npz"
    rows = [row(3, outputs=str(path))]
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
    assert result["failures"] == [{**row(1), "reason": reason}]


def test_every_round_is_told_with_how_far_the_race_is(job: Json, packages: Path) -> None:
    plan(packages.parent, ms=4)
    told = [json.loads(line) for line in start({**job, "sessions": 2}, packages).stdout.splitlines()]
    doing = [news["doing"] for news in told if "doing" in news]
    assert doing == [f"tflite/{n} loads and warms up" for n in (1, 2, 1, 2)]
    rounds = [news for news in told if "rounds" in news]
    assert [news["rounds"] for news in rounds] == [1, 2, 3, 4, 5]
    assert [news["session"] for news in rounds] == [1, 1, 1, 2, 2]
    assert [news["share"] for news in rounds] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert rounds[0]["ms"] == {"tflite/1": 4.0, "tflite/2": 2.0}


def test_who_left_the_race_is_told(job: Json, packages: Path) -> None:
    plan(packages.parent, ms=4, at=110, then="crash")
    told = [json.loads(line) for line in start({**job, "least_rounds": 3}, packages).stdout.splitlines()]
    assert told[-1]["failed"] == {"tflite/2": "its process ended during 'run': SIGSEGV"}


def test_a_race_whose_news_nobody_takes_goes_on(job: Json, packages: Path) -> None:
    plan(packages.parent, ms=4)
    words = command({**job, "least_rounds": 900, "settle": 0}, packages)
    with subprocess.Popen(words, env=environment(packages), stdout=subprocess.PIPE) as process:
        assert process.wait(60) == 0
        assert process.stdout is not None
        assert len(process.stdout.read()) < 900 * 100  # some were not told: a pipe holds 64 kB
    assert len(json.loads((packages.parent / "result.json").read_text())["diary"]) == 900


def test_a_failure_in_the_race_keeps_the_other_rows(job: Json, packages: Path) -> None:
    # Runs after three rounds: 1 + 2 * 25 + 3 * 4 = 63 with one thread, 1 + 2 * 50 + 3 * 6 = 119 with two.
    plan(packages.parent, ms=4, at=110, then="crash")
    result = measured({**job, "least_rounds": 3}, packages)
    assert [row["threads"] for row in result["rows"]] == [1]
    assert [row["threads"] for row in result["failures"]] == [2]


def test_a_runtime_that_is_not_there_says_so(job: Json, packages: Path) -> None:
    rows = [row(1, "litert", "ai_edge_litert"), *job["rows"][:1]]
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
    rows = [row(count) for count in (1, len(allowed) + 1)]
    result = measured({**job, "rows": rows, "least_rounds": 1}, packages)
    assert result["allowed_cpus"] == allowed
    assert [row["cpus"] for row in result["rows"]] == [allowed[-1:], None]


@pytest.mark.parametrize(("script", "beside"), [(SCRIPT, set[str]()), (WORKER, {"numpy"})])
def test_it_needs_only_numpy_beside_the_standard_library(script: Path, beside: set[str]) -> None:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    others = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert others == beside


def test_a_race_that_takes_too_long_leaves_no_process_behind(job: Json, packages: Path) -> None:
    plan(packages.parent, ms=4, at=2, then="hang")
    script, paths = (
        packages.parent / "measure.py",
        [packages.parent / name for name in ("job.json", "r.json")],
    )
    script.write_text(SCRIPT.read_text(encoding="utf-8"))
    script.with_name("worker.py").write_text(WORKER.read_text(encoding="utf-8"))
    paths[0].write_text(json.dumps(job))
    with pytest.raises(BoardError, match=r"was not done after 4 s and was killed"):
        LocalConnection().run(
            [sys.executable, str(script), *map(str, paths)], timeout=4, env={"PYTHONPATH": str(packages)}
        )
    assert subprocess.run(["pgrep", "-f", str(script)], check=False).returncode == 1


def test_a_coordinator_whose_parent_is_gone_leaves_with_its_workers(job: Json, packages: Path) -> None:
    """As when `bench` is killed: nobody is left who could end them."""
    folder = packages.parent
    plan(folder, ms=4, real_ms=5)  # forever, on a real clock
    words = command({**job, "least_runs": 10**9, "most_s": 10**6}, packages)
    code = (
        "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(99)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env=environment(packages),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    until(lambda: len(children(pid)) == 2)
    workers = children(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not any(alive(one) for one in (pid, *workers)))
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize("signs", [0, 3], ids=["the link ends", "the link goes silent"])
def test_a_coordinator_whose_link_is_gone_leaves_with_its_workers(
    job: Json, packages: Path, signs: int
) -> None:
    """Over SSH the parent stays: stdin is what ends, and what brings signs of life."""
    plan(packages.parent, ms=4, real_ms=5)  # forever, on a real clock
    endless = {**job, "least_runs": 10**9, "most_s": 10**6, "silence_s": 2}
    words, env = command(endless, packages), environment(packages)
    with subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        until(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
        for _ in range(signs):
            process.stdin.write(b"\n")
            process.stdin.flush()
            time.sleep(1)
            assert process.poll() is None
        if not signs:
            time.sleep(3)
            assert process.poll() is None  # whoever never gives a sign owes none
            process.stdin.close()
        assert process.wait(60) == 1
        last = process.stderr.read().decode()
    assert ("no sign of life" in last) is bool(signs)
    until(lambda: not any(map(alive, workers)))


def children(pid: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(done: Callable[[], bool]) -> None:
    for _ in range(600):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("not within a minute")
