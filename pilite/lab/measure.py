"""Measure runtimes on a board. This file is copied there: standard library and numpy, Python 3.9 or newer.

    python3 measure.py JOB.json RESULT.json

The coordinator starts one worker process per (runtime, threads). Each loads its model once; then they take
turns in rounds of seeded random order, so that a sagging clock or a busy neighbour hits all of them alike.
A worker answers one JSON line per request; nobody computes while another one is timed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PROTOCOL = 1  # a job of another number is refused: the release on the board is older or newer than the lab

Json = dict[str, Any]


# The runtimes: load a model, take inputs, compute, show outputs.


class Pilite:
    """A release on this board, through the loader's own pilite.py."""

    def __init__(self, subject: Json, threads: int, cpus: list[int] | None) -> None:
        release = Path(subject["release"])
        spec = importlib.util.spec_from_file_location("pilite_loader", release / "pilite.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        self._open: Any = lambda: module.Model(release / "model.so", threads=threads, cpus=cpus)

    version = ""  # the host knows the build

    def load(self) -> None:
        self._model = self._open()
        self.invoke = self._model.invoke

    def set(self, arrays: list[Any]) -> None:
        for tensor, array in zip(self._model.inputs, arrays):
            np.copyto(tensor, array)

    def outputs(self) -> list[Any]:
        return [output.copy() for output in self._model.outputs]


class Interpreter:
    """TFLite's Python interpreter as its users get it: default kernels and delegates."""

    module, package = "", ""

    def __init__(self, subject: Json, threads: int, cpus: list[int] | None) -> None:
        made = importlib.import_module(self.module).Interpreter
        self._open: Any = lambda: made(model_path=subject["tflite"], num_threads=threads)
        self.version = metadata.version(self.package)

    def load(self) -> None:
        self._model = self._open()
        self._model.allocate_tensors()
        self.invoke = self._model.invoke

    def set(self, arrays: list[Any]) -> None:
        for details, array in zip(self._model.get_input_details(), arrays):
            self._model.set_tensor(details["index"], array)

    def outputs(self) -> list[Any]:
        return [self._model.get_tensor(details["index"]) for details in self._model.get_output_details()]


class Tflite(Interpreter):
    module, package = "tflite_runtime.interpreter", "tflite-runtime"


class Litert(Interpreter):
    module, package = "ai_edge_litert.interpreter", "ai-edge-litert"


RUNTIMES: dict[str, Any] = {"pilite": Pilite, "tflite": Tflite, "litert": Litert}


# The worker.


def serve(requests: Iterator[str], reply: Any) -> None:
    """Serve requests, one JSON object a line, until the pipe closes."""
    state: Json = {}
    for line in requests:
        request = json.loads(line)
        try:
            answer = VERBS[request.pop("do")](state, **request)
        except Exception as problem:  # whatever a rival throws becomes a note in the result
            answer = {
                "error": f"{type(problem).__name__}: {problem}",
                "missing": isinstance(problem, ImportError),
            }
        reply.write(json.dumps(answer) + "\n")
        reply.flush()


def load(state: Json, subject: Json, runtime: str, threads: int, cpus: list[int] | None) -> Json:
    """Open the model and run it once. Importing the runtime's package is not part of load_ms."""
    if cpus:
        os.sched_setaffinity(0, cpus)  # threads that the runtime starts inherit it
    state["sets"] = [[np.load(path) for path in paths] for paths in subject["inputs"]]
    made = state["runtime"] = RUNTIMES[runtime](subject, threads, cpus)
    load_ms = timed(made.load)
    made.set(state["sets"][0])
    return {"load_ms": load_ms, "first_ms": timed(made.invoke), "version": made.version}


def outputs(state: Json, path: str) -> Json:
    """Write the outputs for every set of inputs; array "<set>.<output>"."""
    arrays = {}
    for index, arrays_in in enumerate(state["sets"]):
        state["runtime"].set(arrays_in)
        state["runtime"].invoke()
        arrays.update({f"{index}.{i}": array for i, array in enumerate(state["runtime"].outputs())})
    np.savez(path, **arrays)
    state["runtime"].set(state["sets"][0])
    return {"path": path}


def warm(state: Json, least_ms: float, least_runs: int) -> Json:
    """Run until caches, clocks and lazily made buffers have settled; `ms` is how long a run takes."""
    spent: list[float] = []
    while sum(spent) < least_ms or len(spent) < least_runs:
        spent.append(timed(state["runtime"].invoke))
    return {"ms": spent[-1], "runs": len(spent)}


def run(state: Json, settle: int, runs: int) -> Json:
    """One turn: `settle` untimed runs, since another process has used the caches, then `runs` timed ones."""
    invoke = state["runtime"].invoke
    gc.disable()
    for _ in range(settle):
        invoke()
    samples = [timed(invoke) for _ in range(runs)]
    gc.enable()
    return {"ms": samples}


def memory(state: Json) -> Json:
    """The largest resident size of this process so far, Python and numpy included."""
    status = Path("/proc/self/status").read_text()
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {"rss_mb": kilobytes / 1024}


def timed(call: Any) -> float:
    """Milliseconds that one call takes."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


VERBS: dict[str, Any] = {"load": load, "outputs": outputs, "warm": warm, "run": run, "memory": memory}


# The coordinator.


class Failure(Exception):
    """A worker that cannot go on; the text says why."""


class Worker:
    """One (runtime, threads) in its own process, and what it measured."""

    def __init__(self, entry: Json, subject: Json, limit_s: float, allowed: list[int]) -> None:
        self.entry, self._limit_s = entry, limit_s
        self.cpus = choose_cpus(allowed, entry["threads"])
        self.samples: list[list[float]] = []
        self._process = start_worker()
        self.facts: Json = {}
        self._subject = subject

    def prepare(self, warm_ms: float, warm_runs: int) -> None:
        """Load, keep the outputs if they are wanted, warm up. Raises Failure."""
        runtime, threads = self.entry["runtime"], self.entry["threads"]
        self.facts = self.ask(
            do="load", subject=self._subject, runtime=runtime, threads=threads, cpus=self.cpus
        )
        if self.entry.get("outputs"):
            self.ask(do="outputs", path=self.entry["outputs"])
        self._ms = self.ask(do="warm", least_ms=warm_ms, least_runs=warm_runs)["ms"]

    def turn(self, settle: int, slot_ms: float, most: int) -> None:
        """As many timed runs as fit into slot_ms, at least one. Raises Failure."""
        runs = max(1, min(most, int(slot_ms / max(self._ms, 1e-6))))
        self.samples.append(self.ask(do="run", settle=settle, runs=runs)["ms"])

    def finish(self) -> Json:
        """This worker's row. Raises Failure."""
        return {
            **self.entry,
            **self.facts,
            **self.ask(do="memory"),
            "cpus": self.cpus,
            "samples": self.samples,
        }

    def ask(self, **request: Any) -> Json:
        """One request and its answer. Raises Failure if the worker ends, hangs or reports an error."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; the answer below says so
            self._process.stdin.write((json.dumps(request) + "\n").encode())
            self._process.stdin.flush()
        answer: Json = json.loads(self._line(request["do"]))
        if "error" in answer:
            raise Failure(answer["error"])
        return answer

    def _line(self, what: str) -> bytes:
        assert self._process.stdout is not None
        line, end = b"", time.monotonic() + self._limit_s
        while not line.endswith(b"\n"):
            if not select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Failure(f"no answer to '{what}' in {self._limit_s:.0f} s")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise Failure(f"its process ended during '{what}': {ending(self._process.wait())}")
            line += part
        return line

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def start_worker() -> subprocess.Popen[bytes]:
    """In this process group, so that whoever kills the group kills all."""
    command = [sys.executable, os.path.abspath(__file__), "--worker"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


def ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def choose_cpus(allowed: list[int], threads: int) -> list[int] | None:
    """One CPU per thread, from the end because CPU 0 serves most interrupts; None if there are not enough."""
    return allowed[-threads:] if threads <= len(allowed) else None


def measure(job: Json) -> Json:
    """Do a job; see `bench.py` for what it holds. Rows that fail are in `failures` with their reason."""
    if job["protocol"] != PROTOCOL:
        raise SystemExit(f"measure.py speaks protocol {PROTOCOL}, the job {job['protocol']}: deploy again")
    allowed = sorted(os.sched_getaffinity(0))
    workers: list[Worker] = []
    failures: list[Json] = []
    try:
        for entry in job["rows"]:
            worker = Worker(entry, job["subject"], job["limit_s"], allowed)
            workers.append(worker)
            warmth = (job["warm_ms"], job["warm_runs"])
            attempt(workers, failures, worker, lambda worker=worker, w=warmth: worker.prepare(*w))
        orders = rounds(job, workers, failures)
        rows: list[Json] = []
        for worker in list(workers):
            attempt(workers, failures, worker, lambda worker=worker: rows.append(worker.finish()))
        return {"rows": rows, "failures": failures, "allowed_cpus": allowed, "orders": orders}
    finally:
        for worker in workers:
            worker.stop()


def rounds(job: Json, workers: list[Worker], failures: list[Json]) -> list[list[str]]:
    """Let every worker have one turn per round; the orders used. Stops early when budget_s is spent."""
    order, orders, end = random.Random(job["seed"]), [], time.monotonic() + job["budget_s"]
    for number in range(job["rounds"]):
        if number >= job["least_rounds"] and time.monotonic() > end:
            break
        turn = order.sample(workers, len(workers))
        orders.append([f"{worker.entry['runtime']}/{worker.entry['threads']}" for worker in turn])
        for worker in turn:
            settings = (job["settle"], job["slot_ms"], job["most_runs"])
            attempt(workers, failures, worker, lambda worker=worker, s=settings: worker.turn(*s))
    return orders


def attempt(workers: list[Worker], failures: list[Json], worker: Worker, action: Any) -> None:
    """Do `action`; a worker that fails leaves the race with its reason, and the others go on."""
    try:
        action()
    except Failure as problem:
        failures.append({**worker.entry, "reason": str(problem)})
        workers.remove(worker)
        worker.stop()


def main(arguments: list[str]) -> None:
    if arguments == ["--worker"]:
        reply = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what a runtime prints must not get between the answers
        serve(iter(sys.stdin), reply)
        return
    job, result = map(Path, arguments)
    document = measure(json.loads(job.read_text()))
    result.write_text(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1:])
