"""Operators that are computed together give the bits of operators that are not, and the rule says when."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilite.compiler import chains, fuse, lower, pipeline, tflite
from pilite.compiler import cpu as cpus
from pilite.compiler.bands import banded
from pilite.compiler.chains import Chain, Reach
from pilite.compiler.numerics import Numerics
from pilite.compiler.program import Program
from pilite.compiler.schedule import schedule
from pilite.errors import PiliteError
from tests import batch, native
from tests.chain_nets import CHAINS, block, pairs
from tests.draw import OneOp
from tests.few_ops import Graph, made
from tests.nets import Net, Window
from tests.one_op import DTYPES

A53 = cpus.load("cortex-a53")
XNNPACK = {"numerics": "xnnpack"}


def program(graph: Graph, dtype: str = "int8") -> Program:
    case = made(graph, dtype, 0)
    return lower.lower(tflite.parse(case.model, case.name), Numerics())


def chained(graph: Graph, mode: str = fuse.AUTO, cpu: cpus.Cpu = A53) -> list[Chain]:
    return [unit for unit in fuse.plan(program(graph), cpu, mode).units if isinstance(unit, Chain)]


# --- the same bits -------------------------------------------------------------------------------------


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Everything is chained, with this many rows a step."""
    monkeypatch.setitem(batch.OPTIONS, "fuse", f"all@{request.param}")


def cases(turn: int) -> list[OneOp]:
    """All models, each with one of the dtypes; with `turn` 0 and 1 with both."""
    return [made(graph, DTYPES[(turn + i) % 2], i) for i, graph in enumerate(CHAINS.values())]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2], indirect=True)
@pytest.mark.parametrize("cpu", native.EVERY_CPU)
def test_chains_give_the_bits_of_tflite(cpu: str, rows: None) -> None:
    batch.check_bits(cases(cpus.names().index(cpu)), cpu)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "turn"), [(1, 0), (3, 1), (5, 0)], indirect=["rows"])
def test_any_number_of_rows_gives_the_same_bits(rows: None, turn: int) -> None:
    batch.check_bits(cases(turn), native.HERE)


@pytest.mark.slow
def test_chains_give_the_bits_of_single_operators_with_the_other_numerics(tmp_path: Path) -> None:
    own = cases(1)
    graph = batch.merged([tflite.parse(case.model, case.name) for case in own])
    inputs = [x for case in own for x in case.inputs]
    paths = {
        mode: batch.compiled(graph, native.HERE, tmp_path / mode, {**batch.OPTIONS, **XNNPACK, "fuse": mode})
        for mode in ("off", "all@2")
    }
    single, together = (native.opened(path, native.HERE)(*inputs) for path in paths.values())

    for x, y in zip(single, together, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("rows", [2], indirect=True)
def test_more_threads_than_bands_give_the_same_bits(rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "THREADS", (2, 4, 7))
    batch.check_bits([made(CHAINS[name], "int8", 0) for name in ("residual", "two rows")], native.HERE)


@pytest.mark.parametrize("rows", [3], indirect=True)
def test_a_buffer_that_is_too_small_is_noticed(rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the last rows lie where the next stage writes, for one band with the lines of all."""
    enough = chains._lines
    monkeypatch.setattr(chains, "_lines", lambda *arguments: enough(*arguments) // 4)

    with pytest.raises(AssertionError, match="wrong results"):
        batch.check_bits([made(CHAINS["stride 1"], "int8", 0)], native.HERE)


# --- rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["all@1", "all@2", "all@3", "all@7"])
@pytest.mark.parametrize("name", CHAINS)
def test_every_row_is_made_once_by_one_band_and_is_there_when_it_is_read(name: str, mode: str) -> None:
    for chain in chained(CHAINS[name], mode):
        heights = [chain.values[stage.output].shape[1] for stage in chain.stages]
        steps = chain.made_by_step(0, chain.height)
        assert all(sum(made) <= height for made, height in zip(steps, heights, strict=True))
        check_lines(chain)
        for first, end in (band for count in (1, 2, 3, 4) for band in chain.bands(min(count, chain.height))):
            before: dict[int, chains.Rows] = {}
            for step in chain.band(first, end):
                held = dict(zip((stage.output for stage in chain.stages), step, strict=True))
                for stage in chain.stages:
                    check_reads(chain, stage, held, before)
                before = held


def check_lines(chain: Chain) -> None:
    """Every band writes and reads within its lines."""
    for bands in range(1, 1 + min(7, chain.height)):
        for first, end in chain.bands(bands):
            columns = list(zip(*chain.band(first, end), strict=True))[:-1]
            for column, lines in zip(columns, chain.lines, strict=False):
                starts = [at for at, _ in chains.placed(column, lines)]
                assert all(at + rows.need <= lines for at, rows in zip(starts, column, strict=True))
                assert all(at + rows.again >= 0 for at, rows in zip(starts, column, strict=True))
                assert all(at + rows.below >= 0 for at, rows in zip(starts, column, strict=True))


def check_reads(
    chain: Chain, stage: Any, held: dict[int, chains.Rows], before: dict[int, chains.Rows]
) -> None:
    """What a band that begins here makes, and what one makes that goes on."""
    for index, reach in zip(stage.inputs, chains.reaches(stage), strict=True):
        if index in held:
            assert held[index].first <= reach.first(held[stage.output].first)
            assert reach.end(held[stage.output].end) <= held[index].need
        if index in held and before:
            begins = max(before[stage.output].end, held[stage.output].again)
            assert held[index].first <= held[index].again <= reach.first(begins)


def test_a_reach_is_the_window_of_a_row() -> None:
    reach = Reach(size=3, stride=2, before=1)

    assert (reach.first(0), reach.first(5), reach.end(1), reach.end(5)) == (-1, 9, 2, 10)


# --- the rule ------------------------------------------------------------------------------------------


def mobilenet(net: Net) -> list[int]:
    """The shapes of MobileNet V2 down to 14 x 14, with few blocks."""
    x = net.conv(net.input(1, 224, 224, 3), 32, window=Window((2, 2)))
    x = net.conv(net.depthwise(x), 16, (1, 1))
    for channels, stride, add in (
        (24, 2, False),
        (24, 1, True),
        (32, 2, False),
        (64, 2, False),
        (64, 1, True),
    ):
        x = block(net, x, channels, 6 * net.shape(x)[3], stride, add)
    return [x]


def test_what_the_cache_would_lose_is_chained_and_nothing_else() -> None:
    found = chained(mobilenet)

    lost = {v.index for c in found for v in c.inner if np.prod(v.shape) > 0.7 * A53.l2_bytes}
    p = program(mobilenet)
    large = {v.index for v in p.values if v.place == "arena" and np.prod(v.shape) > 0.7 * A53.l2_bytes}
    assert len(lost) == len(large)
    assert all(c.output.shape[1] >= 28 for c in found)


def test_bands_compute_at_most_three_hundredths_of_a_model_twice() -> None:
    p = program(mobilenet)
    found = chained(mobilenet)

    assert found
    assert sum(fuse.twice(c, A53.cores) for c in found) <= 0.03 * fuse.macs(p.stages, p.values)


def test_one_band_computes_nothing_twice() -> None:
    assert all(fuse.twice(c, 1) == 0 for c in chained(mobilenet))


def test_a_larger_cache_keeps_more_between_chains() -> None:
    hidden = [
        {
            v.index
            for c in chained(mobilenet, cpu=cpu)
            for v in c.inner
            if np.prod(v.shape) > 0.7 * cpu.l2_bytes
        }
        for cpu in map(cpus.load, ("cortex-a53", "cortex-a72"))
    ]

    assert hidden[0] > hidden[1] > set()


def test_of_chains_with_equal_traffic_those_with_fewer_barriers_are_taken() -> None:
    """Nothing is lost; one barrier serves what would need three."""

    def residual(net: Net) -> list[int]:
        x = net.conv(net.input(1, 28, 28, 8), 32, (1, 1))
        return [net.mean(net.add(net.conv(x, 32, (1, 1)), x))]

    (chain,) = chained(residual)

    assert len(chain.stages) == 3
    assert chained(residual, cpu=replace(A53, cores=1)) == chained(residual, fuse.OFF)


def again(net: Net) -> list[int]:
    """Bands make rows of the first convolution twice, 3 % of a block that is not all of the model."""
    return [block(net, net.input(1, 60, 12, 8), 8, 48), net.conv(net.input(1, 24, 24, 64), 64)]


def little(net: Net) -> list[int]:
    """A step does less than a barrier costs."""
    return [net.conv(net.conv(net.input(1, 24, 6, 16), 32, (1, 1)), 16, (1, 1))]


@pytest.mark.parametrize(("graph", "stages"), [(again, 3), (little, 2)])
def test_barriers_alone_are_no_reason_to_make_one_thread_slower(
    graph: Graph, stages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost by the cache. `stages`: of the chain if barriers alone count."""
    assert chained(graph) == []

    monkeypatch.setattr(fuse._Rule, "pays", lambda rule, c: True)
    assert [len(c.stages) for c in chained(graph)] == [stages]


def test_a_value_is_lost_if_what_is_made_from_it_does_not_fit_beside_it() -> None:
    def two(net: Net) -> list[int]:
        x = net.conv(net.input(1, 32, 32, 8), 192, (1, 1))  # 192 KB
        return [net.conv(net.depthwise(x), 8, (1, 1))]

    cache = replace(A53, l2_bytes=512 * 1024, cores=1)
    assert len(chained(two, cpu=cache)) == 1
    assert chained(two, cpu=replace(cache, l2_bytes=640 * 1024)) == []


def test_bands_share_the_rows_whatever_a_step_makes() -> None:
    (chain,) = chained(lambda net: [pairs(net, net.input(1, 33, 33, 256), 256)])

    assert chain.bands(4) == [(0, 8), (8, 16), (16, 24), (24, 33)]
    assert [max(end - first for first, end in chain.bands(n)) for n in (1, 2, 4)] == [33, 17, 9]
    assert all(chain.rows <= end - first for first, end in chain.bands(4))


def test_no_region_is_counted_on_that_kernels_cannot_share() -> None:
    """The depthwise kernels of AVX-512 compute all channels at once."""
    p = program(lambda net: [net.depthwise(net.conv(net.input(1, 14, 14, 64), 384, (1, 1)))])
    conv, depthwise = (s for s in p.stages if "weight" in s.arrays)
    shared = [
        fuse._Rule(p, cpus.load(cpu), False, 0).in_one_region(conv, depthwise)
        for cpu in ("cortex-a53", "x86-64-v4")
    ]

    assert shared == [True, False]


@pytest.mark.parametrize(("lines", "rows"), [(1, 2), (2, 4), (3, 6), (4, 7)])
def test_steps_have_the_rows_that_depthwise_tiles_want(lines: int, rows: int) -> None:
    """Two tiles are enough where no rows move; for two of 4 lines the 7 rows of a band are too few."""
    cpu = replace(A53, depthwise_lines=lines, l2_bytes=570_000)
    found = chained(lambda net: [pairs(net, net.input(1, 28, 28, 256), 256)], cpu=cpu)

    assert [c.pieces[0] for c in found] == [rows]


@pytest.mark.parametrize(("lines", "heights"), [(1, (4, 2, 1)), (3, (4, 3, 2, 1)), (8, (4, 2, 1))])
def test_what_a_step_leaves_has_a_kernel_of_its_own(lines: int, heights: tuple[int, ...]) -> None:
    """Steps of 4 rows leave 2 of 34 for the last one; a tile has `lines`."""

    def pair(net: Net) -> list[int]:
        return [pairs(net, net.input(1, 34, 34, 256), 256)]

    p, cpu = program(pair), replace(A53, depthwise_lines=lines)
    stages = next(unit for unit in fuse.plan(p, cpu, fuse.AUTO).units if isinstance(unit, Chain)).stages
    chain = chains.chain(p, stages, 4)

    assert [sum(rows) for rows in chain.made_by_step(0, 34)] == [p.values[s.output].shape[1] for s in stages]
    assert banded(p, chain, cpu).heights(0) == heights


def test_rows_that_no_reader_needs_are_not_made() -> None:
    """Every other row of the depthwise convolution is skipped between steps, and its kernel is for 7 of 8."""
    (chain,) = chained(
        lambda net: [
            net.conv(net.depthwise(net.conv(net.input(1, 32, 9, 8), 12, (1, 1))), 9, (1, 1), Window((2, 2)))
        ],
        "all@4",
    )

    assert chain.made_by_step(0, 16)[1] == [7, 7, 7, 7]
    assert chain.heights(1, 1) == (8, 7, 1)


def test_a_kernel_is_for_the_last_rows_of_a_stage_whichever_step_makes_them() -> None:
    """The first of four depthwise convolutions runs ahead, and has nothing left to do in the last step."""

    def four(net: Net) -> list[int]:
        x = net.input(1, 26, 9, 8)
        for _ in range(4):
            x = net.depthwise(x)
        return [x]

    (chain,) = chained(four, "all@8")

    assert chain.made_by_step(0, 26)[0] == [11, 8, 7, 0]
    assert chain.heights(0, 1) == (8, 7, 1)


def test_calls_make_the_most_rows_first() -> None:
    assert list(chains.calls(34, (12, 3, 1))) == [12, 12, 3, 3, 3, 1]
    assert list(chains.calls(0, (12, 3, 1))) == []


def test_a_cache_of_its_own_holds_one_band() -> None:
    small = replace(A53, l2_bytes=128 * 1024)
    shared, private = (
        sum(len(c.stages) for c in chained(mobilenet, cpu=replace(small, l2_shared=value)))
        for value in (True, False)
    )

    assert shared < private


def test_chains_need_less_memory() -> None:
    p = program(mobilenet)
    chained_bytes, whole = (schedule(p, A53, mode).arena_bytes for mode in (fuse.AUTO, fuse.OFF))

    assert chained_bytes < 0.5 * whole


def test_layers_with_large_weights_are_not_walked_by_rows() -> None:
    def heavy(net: Net) -> list[int]:
        return [pairs(net, net.input(1, 28, 28, 512), 512, 512)]

    assert chained(heavy) == []
    assert any("weights of" in v.why for v in fuse.plan(program(heavy), A53, fuse.AUTO).verdicts)


def test_outputs_of_the_model_and_values_with_other_readers_are_not_inside() -> None:
    def shared(net: Net) -> list[int]:
        x = net.conv(net.input(1, 12, 12, 8), 16, (1, 1))
        return [net.depthwise(x), net.mean(x)]

    assert chained(shared, fuse.ALL) == []


def test_nothing_is_chained_where_every_operator_is_an_output() -> None:
    case = made(CHAINS["residual"], "int8", 0)
    graph = pipeline.exposed(tflite.parse(case.model, case.name))
    units = fuse.plan(lower.lower(graph, Numerics()), A53, fuse.ALL).units

    assert not any(isinstance(unit, Chain) for unit in units)


@pytest.mark.parametrize("mode", ["on", "auto@2", "all@", "all@0", "all@x"])
def test_an_unknown_mode_names_the_known_ones(mode: str) -> None:
    with pytest.raises(PiliteError, match=f"no fusing '{mode}': choose one of off, auto, all"):
        fuse.check(mode)


def test_build_explains_its_chains(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(made(CHAINS["residual"], "int8", 0).model)

    (row,) = pipeline.explain(path, "cortex-a53", "ref", chains="all@2")
    assert row["operators"] == "0, 1, 2, 3"
    assert "2 rows a step" in row["how"]
    assert re.fullmatch(r"saves \d+ KB of traffic, and barriers", row["why"])
    (row,) = pipeline.explain(path, "cortex-a53", "ref", chains="auto")
    assert row["how"] == "one region, 5 x 8 channels"
    assert pipeline.explain(path, "cortex-a53", "ref", chains="off") == []
