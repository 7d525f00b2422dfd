"""Kernels touch nothing outside their buffers: weights, arena, inputs and outputs between pages of no access.

Reading a little past a value is allowed inside the arena and the weights (plan.SLACK); here it must end.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from pilite import zig
from pilite.compiler import aot, fuse, link, lower, sharing, tflite
from pilite.compiler import cpu as cpus
from pilite.compiler import graph as graphs
from pilite.compiler.numerics import Numerics
from pilite.compiler.plan import SLACK
from pilite.compiler.schedule import Scheduled, schedule
from tests import one_op
from tests.batch import merged
from tests.chain_nets import CHAINS
from tests.conftest import HARDWARE
from tests.few_ops import GRAPHS, Graph, made
from tests.native import EVERY_CPU, HERE, emulator

GUARD = Path(__file__).with_name("guard.c")
SIGSEGV = 11
MAX_IO = 256


def scheduled(graph: graphs.Graph, cpu: str, chains: str) -> Scheduled:
    return schedule(lower.lower(graph, Numerics()), cpus.load(cpu), chains)


class Guarded:
    """The kernels of one graph, linked with guard.c."""

    def __init__(self, graph: graphs.Graph, cpu: str, folder: Path, chains: str = fuse.OFF) -> None:
        self.scheduled = scheduled(graph, cpu, chains)
        self.io = [graph.tensors[i].nbytes for i in (*graph.inputs, *graph.outputs)]
        self._cpu = cpus.load(cpu)
        self._weights, self._program = folder / "weights.bin", folder / "guard"
        self._weights.write_bytes(self.scheduled.weights)
        code = aot.compile_calls(self.scheduled.calls, self._cpu)
        (folder / "kernels.o").write_bytes(code.kernels)
        (folder / "entry.c").write_text(code.entry)
        (folder / "launch.c").write_text(f'#include "pilite_abi.h"\n{sharing.GLUE}')
        command = zig.compiler_command("cc", zig.TRIPLES[self._cpu.arch])
        sources = [str(GUARD), "entry.c", "launch.c", "kernels.o"]
        sources += [str(link.KERNELS / name) for name in code.sources]
        zig.run_zig([*command, "-O1", f"-I{link.LOADER}", "-o", "guard", *sources], folder)

    def run(self, flush: str, arena_bytes: int) -> subprocess.CompletedProcess[str]:
        sizes = map(str, (arena_bytes, *self.io))
        command = [*self._prefix(), str(self._program), flush, str(self._weights), *sizes]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    def _prefix(self) -> Sequence[str]:
        if self._cpu.arch == platform.machine():
            return []
        if self._cpu.arch != "aarch64":
            pytest.skip(f"{HARDWARE} {self._cpu.arch} code needs such a machine")
        return emulator(self._cpu.name)


def check_inside(models: Sequence[graphs.Graph], cpu: str, folder: Path, chains: str = fuse.OFF) -> None:
    together = merged(models)
    assert ends(together) <= MAX_IO
    guarded = Guarded(together, cpu, folder, chains)
    for flush in ("end", "start"):
        done = guarded.run(flush, guarded.scheduled.arena_bytes)
        assert (done.returncode, done.stdout) == (0, "stayed inside\n"), f"{flush}: {done}"


@pytest.mark.slow
@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("dtype", one_op.DTYPES)
def test_models_of_one_operator_stay_inside_their_buffers(dtype: str, cpu: str, tmp_path: Path) -> None:
    ops = [op for op, kind in one_op.ROWS if kind == dtype]
    cases = [one_op.seeded(op, dtype, 500 + seed) for op in ops for seed in range(4)]

    for i, models in enumerate(fitting([tflite.parse(case.model, case.name) for case in cases])):
        (tmp_path / str(i)).mkdir()
        check_inside(models, cpu, tmp_path / str(i))


def fitting(models: Sequence[graphs.Graph]) -> list[list[graphs.Graph]]:
    """The models in groups that have at most MAX_IO inputs and outputs."""
    groups: list[list[graphs.Graph]] = [[]]
    for model in models:
        if sum(map(ends, groups[-1])) + ends(model) > MAX_IO:
            groups.append([])
        groups[-1].append(model)
    return groups


def ends(model: graphs.Graph) -> int:
    return len(model.inputs) + len(model.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.__name__)
def test_small_models_stay_inside_their_buffers(graph: Graph, cpu: str, tmp_path: Path) -> None:
    """One at a time: the last buffer of the arena and the last constant differ."""
    case = made(graph, "uint8", 3)

    check_inside([tflite.parse(case.model, case.name)], cpu, tmp_path)


# Inputs of whole cache lines that are smaller than the output: they lie last in the arena, and end with it.
FULL: dict[str, Graph] = {
    "conv from 5": lambda net: [net.conv(net.input(1, 8, 8, 5), 7, (1, 1))],
    "conv from 20": lambda net: [net.conv(net.input(1, 4, 4, 20), 24, (1, 1))],
    "conv from 64, a long loop": lambda net: [net.conv(net.input(1, 1, 4, 64), 80, (1, 1))],
    "conv from 100": lambda net: [net.conv(net.input(1, 4, 4, 100), 112, (1, 1))],
    "a vector": lambda net: [net.dense(net.input(1, 320), 400)],
    "depthwise of 5": lambda net: [net.depthwise(net.input(1, 8, 8, 5), (1, 1), multiplier=2)],
}


@pytest.mark.slow
@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("name", FULL)
def test_a_full_value_at_the_end_of_the_arena_is_not_read_beyond_the_slack(
    name: str, cpu: str, tmp_path: Path
) -> None:
    case = made(FULL[name], "int8", 0)

    check_inside([tflite.parse(case.model, case.name)], cpu, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", EVERY_CPU)
def test_chains_stay_inside_their_buffers(cpu: str, tmp_path: Path) -> None:
    for name in ("residual", "stem", "pairs"):
        case = made(CHAINS[name], "uint8", 0)
        (tmp_path / name).mkdir()
        check_inside([tflite.parse(case.model, case.name)], cpu, tmp_path / name, "all@2")


def test_an_arena_that_is_too_small_is_noticed(tmp_path: Path) -> None:
    """Negative control: without SLACK and the end of the last buffer, a kernel leaves the arena."""
    case = made(GRAPHS[0], "int8", 0)
    guarded = Guarded(tflite.parse(case.model, case.name), HERE, tmp_path)

    done = guarded.run("end", guarded.scheduled.arena_bytes - 2 * SLACK)
    assert done.returncode == -SIGSEGV
