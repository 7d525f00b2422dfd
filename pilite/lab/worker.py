"""One runtime with one model, in a process of its own on a board; measure.py talks to it through pipes.

This file is copied to boards: standard library and numpy, Python 3.9 or newer. It answers one JSON line per
request. A new kind of runtime is one class here, named in ADAPTERS, and one entry in rivals.py.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

Json = dict[str, Any]

BLOCK_MS = 100.0  # warm-up: runs are compared in blocks of this length
SETTLED = 0.02  # ... and have settled when two blocks in a row differ by less


# The runtimes: load a model, take inputs, compute, show outputs. Importing a package is not loading a model.


class Pilite:
    """A release on this board, through the loader's own pilite.py."""

    version = ""  # the host knows the build

    def __init__(self, subject: Json, entry: Json, cpus: list[int] | None) -> None:
        release = Path(entry.get("release") or subject["release"])
        spec = importlib.util.spec_from_file_location("pilite_loader", release / "pilite.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        self._open: Any = lambda: module.Model(release / "model.so", threads=entry["threads"], cpus=cpus)
        self._extra_ms = entry.get("extra_percent", 0) / 100
        self.model_file = release / "model.so"
        self.installed = [release / "pilite.py", release / "libpilite.so"]

    def load(self) -> None:
        self._model = self._open()
        self.invoke = self._slowed if self._extra_ms else self._model.invoke

    def set(self, arrays: list[Any]) -> None:
        for tensor, array in zip(self._model.inputs, arrays):
            np.copyto(tensor, array)

    def outputs(self) -> list[Any]:
        return [output.copy() for output in self._model.outputs]

    def _slowed(self) -> None:
        """A run that takes `extra_percent` longer: what `selfcheck` must find."""
        start = time.perf_counter_ns()
        self._model.invoke()
        end = time.perf_counter_ns()
        end += round((end - start) * self._extra_ms)
        while time.perf_counter_ns() < end:
            pass


class Package:
    """What all runtimes from a Python package share: its version and its files."""

    def __init__(self, subject: Json, entry: Json) -> None:
        self.version = metadata.version(entry["package"])
        self.model_file = Path(subject["tflite"])
        found = metadata.files(entry["package"]) or []
        self.installed = [Path(str(file.locate())) for file in found]


class Interpreter(Package):
    """TFLite's Python interpreter; `kernels` is a name of its OpResolverType, AUTO as its users get it."""

    def __init__(self, subject: Json, entry: Json, cpus: list[int] | None) -> None:
        module = importlib.import_module(entry["module"])
        super().__init__(subject, entry)
        options = {"model_path": subject["tflite"], "num_threads": entry["threads"]}
        if entry.get("kernels", "AUTO") != "AUTO":
            options["experimental_op_resolver_type"] = getattr(module.OpResolverType, entry["kernels"])
        self._open: Any = lambda: module.Interpreter(**options)

    def load(self) -> None:
        self._model = self._open()
        self._model.allocate_tensors()
        self.invoke = self._model.invoke

    def set(self, arrays: list[Any]) -> None:
        for details, array in zip(self._model.get_input_details(), arrays):
            self._model.set_tensor(details["index"], array)

    def outputs(self) -> list[Any]:
        return [self._model.get_tensor(details["index"]) for details in self._model.get_output_details()]


class Tvm(Package):
    """The same file through stock TVM: its importer, default pipeline, virtual machine. Loading compiles."""

    def __init__(self, subject: Json, entry: Json, cpus: list[int] | None) -> None:
        os.environ["TVM_NUM_THREADS"] = str(entry["threads"])  # read when its library is loaded
        self._tvm, self._relax = (importlib.import_module(name) for name in ("tvm", "tvm.relax"))
        self._frontend = importlib.import_module("tvm.relax.frontend.tflite")
        self._schema = importlib.import_module("tflite")
        super().__init__(subject, entry)

    def load(self) -> None:
        model = self._schema.Model.GetRootAs(self.model_file.read_bytes(), 0)
        built = self._tvm.compile(self._frontend.from_tflite(model), "llvm")
        self._run = self._relax.VirtualMachine(built, self._tvm.cpu())["main"]

    def set(self, arrays: list[Any]) -> None:
        self._inputs = [self._tvm.runtime.tensor(array) for array in arrays]

    def invoke(self) -> None:
        self._outputs = self._run(*self._inputs)

    def outputs(self) -> list[Any]:
        single = hasattr(self._outputs, "numpy")
        return [one.numpy() for one in ([self._outputs] if single else self._outputs)]


ADAPTERS: dict[str, Any] = {"pilite": Pilite, "interpreter": Interpreter, "tvm": Tvm}


# What the coordinator may ask.


def load(state: Json, subject: Json, entry: Json, cpus: list[int] | None) -> Json:
    """Open the model and run it once."""
    if cpus:
        os.sched_setaffinity(0, cpus)  # threads that the runtime starts inherit it
    state["sets"] = [[np.load(path) for path in paths] for paths in subject["inputs"]]
    made = state["runtime"] = ADAPTERS[entry["adapter"]](subject, entry, cpus)
    load_ms = timed(made.load)
    made.set(state["sets"][0])
    return {
        "load_ms": load_ms,
        "first_ms": timed(made.invoke),
        "version": made.version,
        "install_mb": megabytes(made.installed),
        "model_mb": megabytes([made.model_file]),
    }


def megabytes(files: list[Path]) -> float:
    return sum(path.stat().st_size for path in files if path.is_file()) / 1e6


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


def warm(state: Json, least_ms: float, most_ms: float) -> Json:
    """Run until caches, clocks and lazily made buffers have settled, but not longer than `most_ms`.

    Settled: after `least_ms`, the medians of the last two blocks of BLOCK_MS differ by less than SETTLED.
    `ms` is how long a run then takes.
    """
    blocks: list[list[float]] = []
    while True:
        blocks.append(block(state["runtime"].invoke))
        spent = sum(map(sum, blocks))
        settled = len(blocks) > 1 and agree(blocks[-2], blocks[-1])
        if (spent >= least_ms and settled) or spent >= most_ms:
            return {
                "ms": statistics.median(blocks[-1]),
                "settled": settled,
                "warm_runs": sum(map(len, blocks)),
            }


def block(invoke: Any) -> list[float]:
    """Times of runs that together take BLOCK_MS, at least one."""
    spent: list[float] = []
    while sum(spent) < BLOCK_MS and len(spent) < 10_000:
        spent.append(timed(invoke))
    return spent


def agree(before: list[float], after: list[float]) -> bool:
    a, b = statistics.median(before), statistics.median(after)
    return abs(a - b) <= SETTLED * max(a, b)


def run(state: Json, settle: int, runs: int, kept: int) -> Json:
    """One turn: `settle` untimed runs, since another process has used the caches, then `runs` timed ones.

    Of their times at most `kept` are told, at equal distances: all of a fast model's fill a board's memory.
    """
    invoke = state["runtime"].invoke
    gc.disable()
    for _ in range(settle):
        invoke()
    samples = [timed(invoke) for _ in range(runs)]
    gc.enable()
    return {"ms": samples[:: -(-runs // kept)], "seconds": math.fsum(samples) / 1e3}


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


def serve(requests: Iterator[str], reply: Any) -> None:
    """Serve requests, one JSON object a line, until the pipe closes: the coordinator is gone then."""
    state: Json = {}
    for line in requests:
        request = json.loads(line)
        try:
            answer = VERBS[request.pop("do")](state, **request)
        except Exception as problem:  # whatever a rival throws becomes a note in the result
            answer = {"error": f"{type(problem).__name__}: {problem}"}
        reply.write(json.dumps(answer) + "\n")
        reply.flush()


def main() -> None:
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints must not get between the answers
    serve(iter(sys.stdin), reply)


if __name__ == "__main__":
    main()
