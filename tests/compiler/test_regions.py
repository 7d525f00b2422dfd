"""Kernels that share one parallel region give the bits of kernels of their own, and the rule says when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pilite.compiler import chains, fuse, lower, tflite
from pilite.compiler import cpu as cpus
from pilite.compiler.entry import Call, RegionCall
from pilite.compiler.numerics import Numerics
from pilite.compiler.regions import Region
from pilite.compiler.schedule import Scheduled, schedule
from tests import batch, native
from tests.chain_nets import RELU6
from tests.few_ops import Graph, made
from tests.nets import Net, Window
from tests.one_op import DTYPES

A53 = cpus.load("cortex-a53")


def expanded(*size: int, channels: int = 48, stride: int = 1) -> Graph:
    """A pointwise convolution of an image of `size` and the depthwise one that reads it."""

    def graph(net: Net) -> list[int]:
        x = net.conv(net.input(1, *size), channels, (1, 1), RELU6)
        return [net.depthwise(x, window=Window((stride, stride), activation="RELU6"))]

    return graph


REGIONS: dict[str, Graph] = {
    "few rows": expanded(7, 9, 16),
    "many rows": expanded(19, 6, 12, channels=64),
    "stride 2, odd": expanded(17, 13, 9, channels=32, stride=2),
    "a window, then two": lambda net: [
        net.depthwise(net.depthwise(net.conv(net.input(1, 9, 8, 5), 96), (5, 5)), window=Window((2, 2)))
    ],
    "read twice": lambda net: [
        y := net.conv(net.input(1, 8, 8, 16), 32, (1, 1)),
        net.depthwise(y),
        net.depthwise(y, (3, 5)),
    ],
    "one unit": expanded(6, 6, 8, channels=16),
    "depthwise first": lambda net: [net.depthwise(net.depthwise(net.input(1, 10, 11, 80)))],
    "a residual": lambda net: [
        net.add(net.conv(x := net.input(1, 9, 7, 32), 32, (1, 1)), x),
        net.add(y := net.depthwise(x), net.conv(y, 32, (1, 1))),
    ],
    "a residual for a window": lambda net: [
        net.depthwise(net.add(net.conv(x := net.input(1, 6, 8, 64), 64, (1, 1)), x)),
    ],
    "no whole blocks": expanded(6, 7, 8, channels=20),
}


def scheduled(graph: Graph, mode: str = fuse.AUTO, cpu: cpus.Cpu = A53, dtype: str = "uint8") -> Scheduled:
    case = made(graph, dtype, 0)
    return schedule(lower.lower(tflite.parse(case.model, case.name), Numerics()), cpu, mode)


def joined(graph: Graph, mode: str = fuse.AUTO, cpu: cpus.Cpu = A53) -> list[RegionCall]:
    return [call for call in scheduled(graph, mode, cpu).calls if isinstance(call, RegionCall)]


@pytest.fixture
def no_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing works by rows; what is left becomes regions."""
    monkeypatch.setattr(chains, "by_rows", lambda program, stage: False)
    monkeypatch.setitem(batch.OPTIONS, "fuse", fuse.ALL)


# --- the same bits -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("cpu", native.EVERY_CPU)
def test_regions_give_the_bits_of_tflite(cpu: str, no_chains: None) -> None:
    turn = cpus.names().index(cpu)

    batch.check_bits([made(g, DTYPES[(turn + i) % 2], i) for i, g in enumerate(REGIONS.values())], cpu)


def test_a_unit_that_a_thread_leaves_out_is_noticed(no_chains: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    right = Region.units
    assert isinstance(right, property)
    monkeypatch.setattr(Region, "units", property(lambda region: right.fget(region) - 1))

    with pytest.raises(AssertionError, match="wrong results"):
        batch.check_bits([made(REGIONS["few rows"], "int8", 0)], native.HERE)


# --- the rule ------------------------------------------------------------------------------------------


def test_a_depthwise_convolution_shares_the_region_of_its_input() -> None:
    (region,) = joined(expanded(14, 14, 64, channels=384))

    assert len(region.parts) == 2
    assert region.units == 48
    assert region.bands == 4


def test_whoever_reads_a_value_besides_finds_it_whole(no_chains: None) -> None:
    found = joined(REGIONS["read twice"], fuse.ALL)

    assert [len(region.parts) for region in found] == [2, 1]


def test_channels_that_are_no_whole_blocks_stay_apart(no_chains: None) -> None:
    assert joined(REGIONS["no whole blocks"], fuse.ALL) == []


def test_small_kernels_stay_serial() -> None:
    assert joined(expanded(4, 4, 16)) == []


def test_uneven_shares_cost_more_than_a_barrier() -> None:
    """Five units for four threads: the longest one does 60 % more than its part."""
    assert joined(expanded(20, 20, 256, channels=40), cpu=replace(A53, l2_bytes=1 << 24)) == []


def test_row_sums_move_into_the_region_of_their_convolution() -> None:
    """Weights around a zero point far from 0 need the sums of all rows before the first product."""
    (region,) = joined(
        lambda net: [net.conv(net.input(1, 14, 14, 64), 96, (1, 1))], cpu=cpus.load("cortex-a76")
    )

    assert len(region.parts) == 1
    assert region.band_bytes >= 4 * 14 * 14


def test_an_addition_joins_the_convolution_before_it() -> None:
    def residual(net: Net) -> list[int]:
        x = net.input(1, 14, 14, 96)
        return [net.add(net.conv(x, 96, (1, 1)), x)]

    (region,) = joined(residual)

    assert len(region.parts) == 2


def test_a_thread_that_is_alone_calls_the_kernels_of_a_build_without_regions() -> None:
    graph = expanded(14, 14, 64, channels=384)
    (region,) = joined(graph)
    own = {call.key for call in scheduled(graph, fuse.OFF).calls if isinstance(call, Call)}

    assert {part.whole.key for part in region.parts} <= own
    assert all("T.parallel(" in part.whole.function.script() for part in region.parts)


def test_off_joins_nothing() -> None:
    assert joined(expanded(14, 14, 64, channels=384), fuse.OFF) == []


def test_regions_are_told() -> None:
    (verdict,) = scheduled(expanded(14, 14, 64, channels=384)).verdicts

    assert verdict.operators == (0, 1)
    assert verdict.how == "one region, 48 x 8 channels"
    assert verdict.why.endswith("barriers; the longest thread does 0.0 % more than an even share")
