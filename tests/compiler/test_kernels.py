"""Every row of KERNELS, as machine code: the instruction it is named for, and nothing it must not have.

Whether kernels compute the right numbers is tested in test_one_op.py, test_edges.py and test_graphs.py.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, get_args

import pytest
from tvm.script.ir_builder import tirx as T

from pilite.compiler import aot
from pilite.compiler import cpu as cpus
from pilite.compiler import spec as s
from pilite.compiler.cpu import Cpu
from pilite.compiler.fixedpoint import Rounding
from pilite.compiler.kernels import KERNELS, Kernel, select, table
from pilite.compiler.kernels.emit import Param, function, store
from pilite.compiler.kernels.families import Gemm
from tests.kernels import undefined_symbols
from tests.samples import LARGE, REQUANT, SMALL, Sample, conv, samples

# LLVM's own. The one service of the loader is a pointer, which the object itself defines (weakly).
ALLOWED_SYMBOLS = {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}
STACK_BYTES = 8192


FLOAT_SPECS = (s.QMeanFloat, s.SoftmaxTable)  # from and to integers, computed in float32 as XNNPACK does


def is_float(sample: Sample) -> bool:
    requant = getattr(sample.spec, "requant", REQUANT)
    dtypes = {layout.dtype for layout in (*sample.xs, sample.y)}
    weights = isinstance(sample.spec, s.Bilinear) and sample.spec.real
    real = "float32" in dtypes or weights or isinstance(sample.spec, FLOAT_SPECS)
    return real or sample.scales_in_float64 or requant.rounding is Rounding.FLOAT32


@dataclass(frozen=True, eq=False)
class Compiled:
    """The samples of one size for which a CPU uses one kernel."""

    kernel: Kernel
    cpu: Cpu
    side: int
    samples: tuple[Sample, ...]

    def calls(self, samples: Sequence[Sample]) -> list[aot.Call]:
        return [aot.Call(sample.name, self._function(sample), ()) for sample in samples]

    def _function(self, sample: Sample) -> Any:
        variant, _ = self.kernel.family.prepare(sample.spec, sample.arrays)
        return self.kernel.family.emit("kernel", sample.spec, variant, sample.xs, sample.y, self.cpu)

    @functools.cached_property
    def integer_code(self) -> str:
        """Assembler text of the samples that compute without floats."""
        chosen = [sample for sample in self.samples if not is_float(sample)]
        return aot.assembly(self.calls(chosen), self.cpu) if chosen else ""

    def __str__(self) -> str:
        return f"{self.kernel.name}-{self.cpu.name}-{self.side}"


def everything() -> list[Compiled]:
    """What each CPU would use, for both sizes."""
    rows = []
    for cpu, side in product(map(cpus.load, cpus.names()), (SMALL, LARGE)):
        chosen: dict[str, list[Sample]] = {}
        for sample in samples(side):
            chosen.setdefault(select(sample.spec, sample.arrays, cpu).name, []).append(sample)
        rows += [Compiled(k, cpu, side, tuple(chosen[k.name])) for k in KERNELS if k.name in chosen]
    return rows


def compiled(name: str, side: int, cpu: Cpu) -> Compiled:
    """One sample alone."""
    sample = next(sample for sample in samples(side) if sample.name == name)
    return Compiled(select(sample.spec, sample.arrays, cpu), cpu, side, (sample,))


EVERYTHING = everything()
MULTIPLIES = [row for row in EVERYTHING if row.kernel.instruction]


# Code.


def mnemonics(text: str) -> set[str]:
    """Instructions of an assembler text: the first word of every indented line that is no directive."""
    return set(re.findall(r"^\s+([a-z][\w.]*)", text, re.MULTILINE))


# fmov and the x86 moves and shuffles only carry bits. `v?` is the AVX form.
FLOAT_ARITHMETIC = {
    "aarch64": re.compile(r"(f(?!mov$)\w+|[su]cvtf)$"),
    "x86_64": re.compile(
        r"v?(cvt\w+|fn?m(add|sub)\w+|(add|sub|mul|div|min|max|sqrt|round|cmp\w*|u?comi)[sp][sd])$"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", MULTIPLIES, ids=str)
def test_a_kernel_uses_the_multiply_that_it_is_named_for(row: Compiled) -> None:
    for sample in row.samples:
        found = mnemonics(aot.assembly(row.calls([sample]), row.cpu))
        assert row.kernel.instruction in {name.split(".")[0] for name in found}, sample.name


@pytest.mark.slow
@pytest.mark.parametrize("row", EVERYTHING, ids=str)
def test_integer_kernels_have_no_floating_point_arithmetic(row: Compiled) -> None:
    float_arithmetic = FLOAT_ARITHMETIC[row.cpu.arch]

    assert [name for name in sorted(mnemonics(row.integer_code)) if float_arithmetic.match(name)] == []


@pytest.mark.parametrize("name", ["x86-64-v3", "cortex-a53"])
def test_the_search_for_floating_point_finds_it(name: str) -> None:
    """Negative control, on kernels that must have it."""
    cpu = cpus.load(name)

    for sample in ("quantize", "dequantize"):
        row = compiled(sample, SMALL, cpu)
        assert any(
            map(FLOAT_ARITHMETIC[cpu.arch].match, mnemonics(aot.assembly(row.calls(row.samples), cpu)))
        )


@pytest.mark.slow
@pytest.mark.parametrize("row", EVERYTHING, ids=str)
def test_kernels_need_nothing_from_outside(row: Compiled) -> None:
    """No heap, no workspace, no libm, no compiler runtime."""
    code = aot.compile_calls(row.calls(row.samples), row.cpu)

    linked = {f"pilite_{name.removesuffix('.c')}" for name in code.sources}  # with the kernels

    assert undefined_symbols(code.kernels) - ALLOWED_SYMBOLS - linked == set()


def test_a_symbol_from_outside_is_found() -> None:
    """Negative control."""

    def body(y: Any) -> None:
        store(y, 0, T.call_extern("int32", "malloc", 64), 1)

    call = aot.Call("call", function("kernel", [Param("y", "int32", 1)], body), ())
    code = aot.compile_calls([call], cpus.load("x86-64-v3"))
    assert undefined_symbols(code.kernels) - ALLOWED_SYMBOLS == {"malloc"}


FRAME = re.compile(r"^\s+(?:sub\s+sp, sp, #(\d+)|subq\s+\$(\d+), %rsp)", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("row", EVERYTHING, ids=str)
def test_stack_frames_are_small(row: Compiled) -> None:
    frames = [int(arm or x86) for arm, x86 in FRAME.findall(row.integer_code)]

    assert max(frames, default=0) <= STACK_BYTES


@pytest.mark.parametrize("name", ["x86-64-v3", "cortex-a53"])
def test_stack_frames_are_found(name: str) -> None:
    """Negative control: a register tile of a matrix product spills or saves something."""
    text = "".join(
        row.integer_code for row in EVERYTHING if row.cpu.name == name and "gemm" in row.kernel.name
    )

    assert FRAME.search(text)


# The stack.

LABEL = re.compile(r"([.\w]+):")
BRANCH = re.compile(r"\s+(?:b|b\.\w+|cbn?z|tbn?z|j\w+)\s.*?([.\w]+?)b?$")
ON_STACK = re.compile(r"\[sp\b|\(%rsp")

# Accesses in the innermost loops of all samples of a row, 6 and 64 pixels wide, and why. Elsewhere none.
_WINDOW = "weights and constants of a block wait there from tile to tile: 32 registers do not hold a window's"
_SUMS = "16 sums of four pixels, and taps of larger windows than 3x3"
_X86 = "16 registers hold the sums and a window's operands only in part"
STACK: dict[str, tuple[tuple[int, int], str]] = {
    "qs8_gemm_4x8c2__neon_a53-cortex-a53": ((2, 0), "an address, beside 27 registers of the hand-made loop"),
    "qs8_gemm_4x16c2__neon-cortex-a72": (
        (10, 32),
        "16 sums, 8 pairs, and what 16 columns start from",
    ),
    "qs8_dwconv_4x8__neon-cortex-a53": ((78, 68), _WINDOW),
    "qs8_dwconv_4x8__neon-cortex-a72": ((53, 52), _WINDOW),
    "qs8_dwconv_3x2x8c4__neondot-cortex-a76": ((593, 281), _WINDOW),
    "qs8_gemm_4x16c2__avx2-x86-64-v3": ((96, 96), _X86),
    "qs8_dwconv_4x16__avx2-x86-64-v3": ((460, 503), _X86),
    "qs8_gemm_16x16c4__avx512vnni-x86-64-v4": ((66, 0), "addresses of 16 rows that lie on several lines"),
    "qs8_dwconv_4x64c4__avx512vnni-x86-64-v4": ((244, 184), _SUMS),
    "qs8_dwconv_4x32c4__avx512vnni-x86-64-v4": ((30, 16), _SUMS),
    "qs8_dwconv_4x16c4__avx512vnni-x86-64-v4": ((461, 289), _SUMS),
}


def innermost_loops(text: str) -> list[list[str]]:
    """Lines of every loop of an assembler text that holds no other loop."""
    lines = [re.sub(r"\s+(//|#\s).*$", "", line) for line in text.splitlines()]
    seen: dict[str, int] = {}
    loops: set[tuple[int, int]] = set()
    for number, line in enumerate(lines):
        if label := LABEL.match(line.strip()):
            seen[label[1]] = number
        if (branch := BRANCH.match(line)) and branch[1] in seen:
            loops.add((seen[branch[1]], number))
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return [lines[first : last + 1] for first, last in sorted(inner)]


def stack_accesses(text: str, instruction: str) -> int:
    """Loads and stores through the stack pointer in the innermost loops that hold `instruction`."""
    loops = [loop for loop in innermost_loops(text) if re.search(rf"\s{instruction}", "\n".join(loop))]
    assert loops, f"no loop holds {instruction}"
    return sum(bool(ON_STACK.search(line)) for loop in loops for line in loop)


@pytest.mark.slow
@pytest.mark.parametrize("row", MULTIPLIES, ids=str)
def test_inner_loops_use_the_stack_only_where_it_is_known(row: Compiled) -> None:
    """Lower a number of STACK that a change beat; a row that reaches zero leaves it."""
    known, _ = STACK.get(f"{row.kernel.name}-{row.cpu.name}", ((0, 0), ""))

    found = stack_accesses(aot.assembly(row.calls(row.samples), row.cpu), row.kernel.instruction)

    assert found == known[row.side == LARGE]


def test_accesses_of_outer_loops_and_of_loops_without_the_instruction_do_not_count() -> None:
    text = """
.outer:
\tstr\tq0, [sp, #16]
.inner:
\tldr\tq1, [sp, #32]                    // 16-byte Folded Reload
\tsdot\tv0.4s, v1.16b, v2.4b[0]
\tb.ne\t.inner
.copy:
\tstr\tq0, [sp]
\tcbnz\tx1, .copy
\tb.ne\t.outer
"""
    assert stack_accesses(text, "sdot") == 1


# The table.


@pytest.mark.parametrize("name", cpus.names())
@pytest.mark.parametrize("side", [SMALL, LARGE])
def test_every_cpu_has_a_kernel_for_every_spec(name: str, side: int) -> None:
    cpu = cpus.load(name)
    chosen = {type(sample.spec): select(sample.spec, sample.arrays, cpu) for sample in samples(side)}

    assert set(chosen) == set(get_args(s.Spec))
    assert all(kernel.spec is spec and kernel.fits(cpu) for spec, kernel in chosen.items())


def test_every_kernel_has_a_sample_and_a_cpu() -> None:
    used = {row.kernel.name for row in EVERYTHING}

    assert used == {kernel.name for kernel in KERNELS}
    assert len(used) == len(KERNELS) == len(table())


def test_the_first_kernel_that_fits_is_used() -> None:
    """sdot where there is dotprod, and only there."""
    sample = conv(SMALL, -127, REQUANT)
    instructions = {
        name: select(sample.spec, sample.arrays, cpus.load(name)).instruction for name in cpus.names()
    }

    assert instructions["cortex-a76"] == "sdot"
    assert "sdot" not in (instructions["cortex-a53"], instructions["cortex-a72"])


def test_a_cpu_without_kernels_is_named() -> None:
    alien = replace(cpus.load("cortex-a53"), name="alien", isa="sve9")
    sample = conv(SMALL, -127, REQUANT)

    with pytest.raises(LookupError, match="QConv2D fits alien"):
        select(sample.spec, sample.arrays, alien)


GEMMS = [row for row in EVERYTHING if isinstance(row.kernel.family, Gemm)]


@pytest.mark.parametrize("row", GEMMS, ids=str)
def test_the_name_of_a_gemm_says_its_tile(row: Compiled) -> None:
    """<dtype>_gemm_<MR>x<NR>c<KR>__<isa>."""
    family = row.kernel.family
    assert isinstance(family, Gemm)
    mr, nr = map(int, re.findall(r"\d+", row.kernel.name.split("_")[2])[:2])

    assert (row.cpu.tile(family.tiles)[0], family.columns) == (mr, nr)
