"""pilite_run: threads, parallel regions, failures, sleep. Through the Python loader."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from loader.pilite import Array, Model, PiliteError
from pilite.lab.execute import places
from tests.loader.conftest import NATIVE, OpenModel
from tests.loader.fakes import ADD, FAIL_ENTRY, FAIL_TASK, NEST, REMEMBER, WAIT, WAIT_ALL, Fake

X = np.arange(1000, dtype=np.int32).astype(np.int8).reshape(1, 1000)
IDLE_SECONDS = 0.5


def command(mode: int, tasks: int = 0, regions: int = 1, detail: int = 0) -> Array:
    return np.array([mode, tasks, regions, detail], np.int32)


@pytest.mark.parametrize("threads", range(1, 9))
def test_every_task_runs_exactly_once(fake: Path, open_model: OpenModel, threads: int) -> None:
    with open_model(fake, threads=threads, cpus=places(threads)) as model:
        for tasks in (0, 1, 2, 3, 5, 8, 64, 255):
            y, counts, regions = model.run(X, command(ADD, tasks, 20))
            ran = tasks or threads
            np.testing.assert_array_equal(y, X + 1)
            np.testing.assert_array_equal(counts, np.where(np.arange(256) < ran, 20, 0))
            assert regions == 20


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("tasks", [0, 1, 9])
@pytest.mark.parametrize("failing", ["first", "last"])
def test_one_failed_task_fails_a_run_whose_entry_says_it_is_fine(
    fake: Path, open_model: OpenModel, threads: int, tasks: int, failing: str
) -> None:
    last = (tasks or threads) - 1
    with open_model(fake, threads=threads, cpus=places(threads)) as model:
        with pytest.raises(PiliteError, match="a parallel task of the model failed") as caught:
            model.run(X, command(FAIL_TASK, tasks, 3, 0 if failing == "first" else last))
        assert caught.value.status == "RUN"
        model.run(X, command(ADD))  # the failure does not stick to the next run


def test_a_failed_entry_is_reported_with_its_code(fake: Path, open_model: OpenModel) -> None:
    with open_model(fake) as model, pytest.raises(PiliteError, match="failed with code 7") as caught:
        model.run(X, command(FAIL_ENTRY))
    assert caught.value.status == "RUN"


@pytest.mark.parametrize("threads", [1, 4])
def test_a_region_inside_a_task_runs_in_that_task(fake: Path, open_model: OpenModel, threads: int) -> None:
    with open_model(fake, threads=threads) as model:
        _, counts, _ = model.run(X, command(NEST, regions=5, detail=3))
        np.testing.assert_array_equal(counts[:4], [5, 5, 5, 0])


def test_the_arena_is_zero_at_first_and_belongs_to_one_session(fake: Path, open_model: OpenModel) -> None:
    with open_model(fake) as one, open_model(fake) as other:
        seen = [int(model.run(X, command(REMEMBER))[1][0]) for model in (one, one, other, one)]
    assert seen == [0, 1, 0, 2]


OLD = "offsetof(pilite_model, state_bytes)"  # the descriptor of ABI 1.0


@pytest.mark.parametrize(
    ("defines", "seen"),
    [
        ({"STATE_BYTES": "64"}, [0, 1, 0, 1]),
        ({"STATE_BYTES": "0"}, [0, 1, 2, 3]),
        ({"STATE_BYTES": "64", "STRUCT_BYTES": OLD}, [0, 1, 2, 3]),
    ],
    ids=["state", "no state", "older model"],
)
def test_a_reset_forgets_the_state_and_nothing_else(
    defines: dict[str, str], seen: list[int], tmp_path: Path, open_model: OpenModel
) -> None:
    path = Fake(defines).write(tmp_path / "fake.so", NATIVE)
    found = []
    with open_model(path) as model:
        for run in range(4):
            if run == 2:
                model.reset()
            found.append(int(model.run(X, command(REMEMBER))[1][0]))

    assert found == seen


def test_a_state_beyond_the_arena_is_refused(tmp_path: Path, open_model: OpenModel) -> None:
    path = Fake({"STATE_BYTES": "8192"}).write(tmp_path / "fake.so", NATIVE)

    with pytest.raises(PiliteError, match="keeps more bytes than its arena has"):
        open_model(path)


def test_a_closed_model_cannot_be_reset(fake: Path, open_model: OpenModel) -> None:
    model = open_model(fake)
    model.close()

    with pytest.raises(PiliteError, match="the model is closed"):
        model.reset()


@pytest.mark.parametrize("threads", [2, 4])
def test_an_idle_session_uses_no_cpu(fake: Path, open_model: OpenModel, threads: int) -> None:
    with open_model(fake, threads=threads) as model:
        model.run(X, command(ADD, regions=50))
        before = time.process_time()
        time.sleep(IDLE_SECONDS)
        assert time.process_time() - before < 0.05 * IDLE_SECONDS


def test_workers_sleep_while_one_task_is_long(fake: Path, open_model: OpenModel) -> None:
    with open_model(fake, threads=4) as model:
        before = time.process_time()
        model.run(X, command(WAIT, detail=300))
        assert time.process_time() - before < 0.03


@pytest.mark.parametrize("threads", [2, 4])
def test_all_threads_take_part(fake: Path, open_model: OpenModel, threads: int) -> None:
    with open_model(fake, threads=threads, cpus=places(threads)) as model:
        fastest = min(seconds(model, command(WAIT_ALL, detail=200)) for _ in range(2))
    assert 0.2 <= fastest < 0.2 * threads - 0.02


def seconds(model: Model, what: Array) -> float:
    """The wall time of one run."""
    start = time.perf_counter()
    model.run(X, what)
    return time.perf_counter() - start


@pytest.mark.parametrize("where", ["anywhere", "in turn"])
def test_more_threads_than_cpus_are_not_much_slower_than_one(
    fake: Path, open_model: OpenModel, where: str
) -> None:
    threads = 4 * len(os.sched_getaffinity(0))
    with open_model(fake, threads=threads, cpus=places(threads) if where == "in turn" else None) as model:
        assert min(seconds(model, command(ADD, regions=1000)) for _ in range(3)) < 1.0


def test_threads_that_would_take_turns_are_not_started(fake: Path, open_model: OpenModel) -> None:
    cpus = len(os.sched_getaffinity(0))
    with open_model(fake, threads=2 * cpus) as model:
        _, counts, _ = model.run(X, command(ADD))
        assert list(counts[: 2 * cpus]) == [1] * cpus + [0] * cpus
        assert workers(cpus - 1) == cpus - 1


def workers(count: int) -> int:
    """Threads that the loader has started; waits up to five seconds until `count` of them have their name."""
    for _ in range(500):
        found = sum(path.read_text() == "pilite\n" for path in Path("/proc/self/task").glob("*/comm"))
        if found >= count:
            break
        time.sleep(0.01)
    return found


def test_threads_are_pinned_to_the_cpus_that_are_named(fake: Path, open_model: OpenModel) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    cpus = [allowed[-1], allowed[0], allowed[0]]
    with open_model(fake, threads=3, cpus=cpus) as model:
        model.run(X, command(ADD))
        assert worker_cpus(2) == [{allowed[0]}, {allowed[0]}]
        assert os.sched_getaffinity(0) == set(allowed)


def worker_cpus(count: int) -> list[set[int]]:
    """The affinity of every thread that the loader has started, when `count` of them have set theirs."""
    for _ in range(500):
        names = {int(path.name): (path / "comm").read_text() for path in Path("/proc/self/task").iterdir()}
        cpus = [os.sched_getaffinity(task) for task, name in names.items() if name == "pilite\n"]
        if sum(len(allowed) == 1 for allowed in cpus) == count:
            return cpus
        time.sleep(0.01)
    return cpus


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU: nobody is elsewhere")
def test_a_caller_elsewhere_is_pinned_during_the_run_only(fake: Path, open_model: OpenModel) -> None:
    allowed = os.sched_getaffinity(0)
    elsewhere, *_, cpu = sorted(allowed)
    seen: list[set[int]] = []
    with open_model(fake, threads=1, cpus=[cpu]) as model:

        def run() -> None:
            os.sched_setaffinity(0, {elsewhere})
            model.invoke()
            seen.append(os.sched_getaffinity(0))

        model.inputs[1][:] = command(WAIT, tasks=1, detail=200)
        caller = threading.Thread(target=run)
        caller.start()
        time.sleep(0.1)
        if caller.native_id is not None:
            seen.append(os.sched_getaffinity(caller.native_id))
        caller.join()
        assert seen == [{cpu}, {elsewhere}]
        model.run(X, command(ADD))
        assert os.sched_getaffinity(0) == allowed


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU: no worker spins")
def test_workers_are_awake_when_a_run_follows_at_once(fake: Path, open_model: OpenModel) -> None:
    """Other work on the CPUs may put them to sleep, so the best of some tries counts."""
    with open_model(fake, threads=2, cpus=places(2)) as model:
        fewest = min(sleeps(model, runs=200) for _ in range(20))
    assert fewest < 20


def sleeps(model: Model, runs: int) -> int:
    """How often the only worker gave up its CPU to wait, during runs that begin 20 us after one another."""
    model.inputs[1][:] = command(ADD, regions=500)
    before = waits()
    for _ in range(runs):
        model.invoke()
        end = time.perf_counter() + 20e-6
        while time.perf_counter() < end:
            pass
    return waits() - before


def waits() -> int:
    """The voluntary switches of the only worker, as the kernel counts them."""
    assert workers(1) == 1
    (task,) = (
        path for path in Path("/proc/self/task").iterdir() if (path / "comm").read_text() == "pilite\n"
    )
    return int(re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.M)[0])


def test_a_cpu_that_this_process_may_not_use_is_refused(fake: Path, open_model: OpenModel) -> None:
    with pytest.raises(
        PiliteError, match=r"CPU 1000 is not available to this process; available: \d"
    ) as caught:
        open_model(fake, threads=2, cpus=[min(os.sched_getaffinity(0)), 1000])
    assert caught.value.status == "ARG"


@pytest.mark.parametrize("threads", [0, 65, -1, 1 << 40])
def test_an_impossible_number_of_threads_is_refused(fake: Path, open_model: OpenModel, threads: int) -> None:
    with pytest.raises(PiliteError, match="threads") as caught:
        open_model(fake, threads=threads)
    assert caught.value.status == "ARG"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_forked_child_is_told_to_open_the_model_again(
    fake: Path, open_model: OpenModel, threads: int
) -> None:
    with open_model(fake, threads=threads) as model:
        model.run(X, command(ADD))
        child = os.fork()
        if child == 0:
            os._exit(run_in_child(model))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if threads == 1 else 1)
        model.run(X, command(ADD))


def run_in_child(model: Model) -> int:
    """0: ran; 1: refused because of the fork; 2: anything else. Closing must not wait for the workers."""
    try:
        model.run(X, command(ADD))
        code = 0
    except PiliteError as error:
        code = 1 if "fork" in str(error) else 2
    model.close()
    return code


def test_sessions_of_several_python_threads_run_side_by_side(fake: Path, open_model: OpenModel) -> None:
    wrong: list[int] = []

    def work(value: int) -> None:
        with open_model(fake, threads=2) as model:
            for _ in range(50):
                y, counts, _ = model.run(np.full_like(X, value), command(ADD, 5, 3))
                if not (y == value + 1).all() or counts.sum() != 15:
                    wrong.append(value)

    workers = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
