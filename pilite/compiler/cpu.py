"""The CPUs that we compile for, as data: one TOML file each in toolchains/."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pilite.compiler.fixedpoint import Rounding
from pilite.errors import PiliteError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOOLCHAINS = Path(__file__).parents[2] / "toolchains"
EVERY_CLASS = "*"

# Feature -> bits of `cpu_required` (loader/pilite_abi.h) and the mattr names LLVM may be asked for.
AARCH64_HWCAP = {"asimd": 1 << 1, "dotprod": 1 << 20}
X86_BITS = {
    "avx2": 1 << 0,
    "fma": 1 << 1,
    "bmi2": 1 << 2,
    "f16c": 1 << 3,
    "avx512": 1 << 4,
    "avx512vnni": 1 << 5,
}


@dataclass(frozen=True)
class Choice:
    """What `tune` found best for a class of operators: a kernel by name, and its rows per register tile."""

    kernel: str
    rows: int


@dataclass(frozen=True)
class Cpu:
    """One compile target. `features` choose the kernels; `in_order` only their tiles."""

    name: str
    board: str
    arch: str
    isa: str
    features: frozenset[str]
    in_order: bool
    cores: int  # that share the work of a chain
    l1_bytes: int
    l2_bytes: int
    triple: str
    mcpu: str
    mattr: tuple[str, ...]
    tiles: tuple[tuple[str, tuple[int, ...]], ...]
    l2_shared: bool = True  # by all cores
    depthwise_lines: int = 1  # output rows that the depthwise kernel wants in a call: its register tile
    uint8_sums: Rounding = Rounding.RNDNU  # of XNNPACK on this core
    choices: tuple[tuple[str, Choice], ...] = ()  # by class of kernels/tuning.py
    unzips: bool = False  # takes the lower halves of two vectors in one slot of the vector pipes (uzp1)

    @property
    def required_bits(self) -> int:
        """`cpu_required` of the descriptor: what the loader checks before the first run."""
        if self.arch == "aarch64":
            return sum(AARCH64_HWCAP[f] for f in {"asimd", *self.features})
        return sum(X86_BITS[f] for f in self.features)

    def tile(self, family: str) -> tuple[int, ...]:
        return dict(self.tiles)[family]

    def choice(self, operators: str) -> Choice | None:
        """What was chosen for a class of operators, if anything was."""
        found = dict(self.choices)
        return found.get(operators) or found.get(EVERY_CLASS)

    def forced(self, choice: Choice) -> Cpu:
        """The same CPU with one choice wherever it fits: how `tune` tries it."""
        return replace(self, choices=((EVERY_CLASS, choice),))

    def with_rows(self, rows: int) -> Cpu:
        """The same CPU with other rows in every tile."""
        return replace(self, tiles=tuple((name, (rows, *tile[1:])) for name, tile in self.tiles))


def names() -> list[str]:
    """Every CPU that has a toolchains/<name>.toml, sorted."""
    return sorted(p.stem for p in TOOLCHAINS.glob("*.toml") if p.stem != "link")


def load(name: str) -> Cpu:
    """The CPU called `name`, with the choices of toolchains/tiles/<name>.toml if `tune` made any.

    Raises:
        PiliteError: no such file; lists the known names.
    """
    path = TOOLCHAINS / f"{name}.toml"
    if name not in names():
        raise PiliteError(f"no CPU '{name}': toolchains/ has {', '.join(names())}. Choose one with --cpu.")
    tuned = TOOLCHAINS / "tiles" / path.name
    choices = tomllib.loads(tuned.read_text()) if tuned.exists() else {}
    return _parse(name, tomllib.loads(path.read_text()), choices.get("choices", {}))


def _parse(name: str, row: dict[str, Any], choices: dict[str, Any]) -> Cpu:
    llvm = row["llvm"]
    return Cpu(
        name=name,
        board=row["board"],
        arch=row["arch"],
        isa=row["isa"],
        features=frozenset(row["features"]),
        in_order=row["in_order"],
        cores=row["cores"],
        l1_bytes=row["l1_bytes"],
        l2_bytes=row["l2_bytes"],
        triple=llvm["triple"],
        mcpu=llvm["mcpu"],
        mattr=tuple(llvm["mattr"]),
        tiles=tuple((k, _tuple(v)) for k, v in sorted(row["tiles"].items())),
        l2_shared=row["l2_shared"],
        depthwise_lines=row.get("depthwise_lines", 1),
        uint8_sums=Rounding(row.get("xnnpack", {}).get("uint8_sums", "rndnu")),
        choices=tuple((k, Choice(v["kernel"], v["rows"])) for k, v in sorted(choices.items())),
        unzips=row.get("unzips", False),
    )


def _tuple(value: int | list[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)
