"""Kernels + constants + descriptor -> shared library, with the pinned linker. Same inputs, same bytes,
in any folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pilite.compiler import sharing
from pilite.compiler.cpu import Cpu
from pilite.zig import TRIPLES, compiler_command, run_zig

KERNELS = Path(__file__).with_name("kernels")
LOADER = Path(__file__).parents[2] / "loader"
PAGE_BYTES = 65536  # LOAD alignment; the Pi 5's kernel has 16 KiB pages

DTYPES = {
    "int8": "PILITE_INT8",
    "uint8": "PILITE_UINT8",
    "int16": "PILITE_INT16",
    "int32": "PILITE_INT32",
    "int64": "PILITE_INT64",
    "float32": "PILITE_FLOAT32",
    "bool": "PILITE_BOOL",
}


@dataclass(frozen=True)
class Code:
    """The kernels as an ELF object, and the C source of `pilite_entry`, which calls them in order."""

    kernels: bytes
    entry: str
    sources: tuple[str, ...] = ()  # C files of kernels/ that the kernels call


@dataclass(frozen=True)
class End:
    """One model input or output as the descriptor and the manifest show it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Descriptor:
    """The fields of pilite_model that differ between models."""

    name: str
    build_id: str
    target: str
    cpu_required: int
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    arena_bytes: int
    weights_bytes: int
    state_bytes: int = 0


def link(code: Code, weights: bytes, descriptor: Descriptor, cpu: Cpu) -> bytes:
    """The ELF shared library. Raises CompileError with the linker's words."""
    with tempfile.TemporaryDirectory() as folder:
        cwd = Path(folder)
        (cwd / "kernels.o").write_bytes(code.kernels)
        (cwd / "entry.c").write_text(code.entry)
        (cwd / "weights.bin").write_bytes(weights)
        (cwd / "glue.c").write_text(glue(descriptor))
        (cwd / "weights.S").write_text(_WEIGHTS)
        (cwd / "exports.map").write_text("PILITE_1 { global: pilite_model_get; local: *; };\n")
        for name in code.sources:
            (cwd / name).write_bytes((KERNELS / name).read_bytes())
        sources = (*_SOURCES, *code.sources)
        run_zig([*compiler_command("cc", TRIPLES[cpu.arch]), *_flags(), "-o", "model.so", *sources], cwd)
        return (cwd / "model.so").read_bytes()


_SOURCES = ("glue.c", "entry.c", "weights.S", "kernels.o")


def _flags() -> Sequence[str]:
    return (
        "-O2",
        "-ffp-contract=off",  # the same float32 results on every CPU
        "-fPIC",
        "-fvisibility=hidden",
        f"-I{LOADER}",
        "-shared",
        "-s",
        "-Wl,--version-script=exports.map",
        "-Wl,-z,now",
        "-Wl,-z,relro",
        f"-Wl,-z,max-page-size={PAGE_BYTES}",
        "-Wl,--build-id=none",
        "-Wl,--no-undefined",
    )


_WEIGHTS = """\
.section .rodata.pilite_weights,"a",%progbits
.balign 64
.globl pilite_weights
.hidden pilite_weights
.type pilite_weights,%object
pilite_weights:
.incbin "weights.bin"
.size pilite_weights,.-pilite_weights
.section .note.GNU-stack,"",%progbits
"""


def glue(d: Descriptor) -> str:
    """The C source beside the kernels: descriptor, entry, and the one slot that TVM's code reads."""
    return f"""\
#include "pilite_abi.h"
extern const uint8_t pilite_weights[] __attribute__((visibility("hidden")));
extern int pilite_entry(char*, char*, void* const*) __attribute__((visibility("hidden")));
{sharing.GLUE}static const pilite_tensor inputs[] = {{{_tensors(d.inputs)}}};
static const pilite_tensor outputs[] = {{{_tensors(d.outputs)}}};
static int bind_host(const pilite_host* host) {{
  if (!host || host->size < PILITE_HOST_BYTES_1_0 || host->abi >> 16 != PILITE_ABI_MAJOR) return -1;
  pilite_launch = host->parallel_launch;
  return 0;
}}
static int run(void* arena, void* const* io) {{ return pilite_entry((char*)pilite_weights, arena, io); }}
static const pilite_model model = {{
  {{'P', 'I', 'L', 'I', 'T', 'E', '0', '1'}}, PILITE_ABI_MAJOR, PILITE_ABI_MINOR, sizeof(pilite_model), 0,
  {_string(d.name)}, {_string(d.build_id)}, {_string(d.target)}, {d.cpu_required}ull,
  {len(d.inputs)}, {len(d.outputs)}, inputs, outputs, {d.arena_bytes}ull, {d.weights_bytes}ull, bind_host,
  run, {d.state_bytes}ull }};
__attribute__((visibility("default"))) const pilite_model* pilite_model_get(void) {{ return &model; }}
"""


def _tensors(ends: Sequence[End]) -> str:
    return ", ".join(map(_tensor, ends))


def _tensor(e: End) -> str:
    shape = ", ".join(map(str, e.shape)) or "0"
    scale = 0.0 if e.scale is None else e.scale
    return (
        f"{{{_string(e.name)}, {DTYPES[e.dtype]}, {len(e.shape)}, {int(e.scale is not None)}, 0, "
        f"{{{shape}}}, {e.nbytes}ull, {scale.hex()}f, {e.zero_point or 0}}}"
    )


def _string(text: str) -> str:
    """A C string literal; bytes that C could misread are written in octal."""
    plain = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in text.encode())
    return f'"{plain}"'
