"""A thin macro layer over TVM's IR builder: flat functions on raw pointers, Python as the generator.

No S-TIR blocks and no schedules: kernels are written as they shall run, so few TVM passes and few
surprises. A buffer
from `registers` stays in registers (TVM keeps allocations below 1,024 bytes on the stack;
LLVM promotes them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tvm import ir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

STACK_LIMIT_BYTES = 1024
IMPORT = "pragma_import_llvm"  # attribute of a statement: LLVM text that it calls
SHARED = "pilite.shared"  # annotation of a loop in a kernel for rows that threads share in one for all
HIDDEN, IN_ORDER = "hidden", "in order"  # where LLVM shall not know its start: everywhere, in-order cores
SOURCE = "pilite.source"  # attribute of a function: the C file beside it that it calls

# Work below which a barrier costs more than sharing saves: about 10 us of one core.
PARALLEL_MACS = 65536
PARALLEL_ELEMENTS = 16384
FEWEST_TASKS = 4  # that are worth sharing
MANY_TASKS = 24  # of which one more or less does not matter


@dataclass(frozen=True)
class Param:
    """A pointer argument of a kernel: `size` elements of `dtype` that it may touch."""

    name: str
    dtype: str
    size: int


def function(name: str, params: Sequence[Param], body: Callable[..., None]) -> tirx.PrimFunc:
    """A PrimFunc over raw, non-aliasing pointers; `body` gets one flat buffer per parameter.

    A kernel that is alone gets them in an array, as the body of a parallel loop does. Of both LLVM knows that
    two buffers differ, and not that assembler code keeps to those it is given: with `noalias` of parameters
    it would keep the row sums of a tile over all blocks, as vectors on the stack.
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        T.func_attr({"tirx.noalias": True})
        handles = (
            _unpacked(params) if is_alone() else [T.arg(p.name, T.handle(p.dtype, "global")) for p in params]
        )
        body(*(T.decl_buffer((p.size,), p.dtype, data=h) for p, h in zip(params, handles, strict=True)))
    return builder.get()


def _unpacked(params: Sequence[Param]) -> list[Any]:
    """The pointers of `params`, read from an array of them, the only parameter."""
    array = T.decl_buffer((len(params),), "int64", data=T.arg("pointers", T.handle("int64", "global")))
    types = [ir.PointerType(ir.PrimType(p.dtype), "global") for p in params]
    return [T.Bind(T.reinterpret(pointer, array[i]), pointer) for i, pointer in enumerate(types)]


def registers(lanes: int, dtype: str) -> Any:
    """A one-vector buffer that lives in a register."""
    return T.alloc_buffer((lanes,), dtype)


def stack(size: int, dtype: str, itemsize: int) -> Any:
    """A small scratch buffer on the stack; TVM would turn a larger one into a heap allocation."""
    assert size * itemsize < STACK_LIMIT_BYTES, f"{size} x {dtype} does not fit the stack rule"
    return T.alloc_buffer((size,), dtype)


def load(buffer: Any, offset: Any, lanes: int) -> Any:
    """`lanes` consecutive elements as one vector (a scalar for one lane)."""
    return buffer[offset] if lanes == 1 else buffer[T.ramp(offset, 1, lanes)]


_RELOAD = """target triple = "aarch64-linux-gnu"
define linkonce_odr <4 x i32> @pilite_reload(ptr %p) alwaysinline nounwind {
  %v = load volatile <4 x i32>, ptr %p, align 1
  ret <4 x i32> %v
}
"""


def reload(buffer: Any, offset: Any) -> Any:
    """16 bytes as an int32x4, read from memory at every use, on aarch64.

    LLVM would keep such a vector over a loop, in a register or on the stack, and copy it for every sum that
    starts with it. A copy takes a slot of the vector pipes, a load does not.
    """
    loaded = registers(4, "int32")
    with T.attr(T.int32(0), IMPORT, _RELOAD):
        assign(loaded, T.call_extern("int32x4", "pilite_reload", T.address_of(buffer[offset])), 4)
    return whole(loaded, 4)


def opaque(name: str, effect: str = "") -> str:
    """LLVM text of an int32 function of which LLVM does not see that it returns its argument.

    `effect`: "sideeffect" where it shall not see either that it gives the same each time.
    """
    return f"""define linkonce_odr i32 @{name}(i32 %n) alwaysinline nounwind {{
  %v = call i32 asm {effect} "", "=r,0"(i32 %n)
  ret i32 %v
}}
"""


_ANEW = opaque("pilite_anew", "sideeffect")


def anew(value: Any) -> Any:
    """An int32 that LLVM does not know to be the same each time: what is read with it is loaded at its use.

    LLVM would load what a loop does not change before it, and keep on the stack what registers do not hold.
    A vector of 64 bytes there lies across two lines of the cache, and takes longer than its copy in memory.
    """
    found = registers(1, "int32")
    with T.attr(T.int32(0), IMPORT, _ANEW):
        store(found, 0, T.call_extern("int32", "pilite_anew", T.Cast("int32", value)), 1)
    return found[0]


_APART = opaque("pilite_apart")


def apart(distance: int) -> Any:
    """`distance`, an int32 that LLVM does not know, but keeps in a register.

    LLVM would bring stores whose distances it knows together, and for that finish a whole tile at once: its
    sums wait for each other, and what else the registers held goes to the stack.
    """
    found = registers(1, "int32")
    with T.attr(T.int32(0), IMPORT, _APART):
        store(found, 0, T.call_extern("int32", "pilite_apart", T.int32(distance)), 1)
    return found[0]


def store(buffer: Any, offset: Any, value: Any, lanes: int) -> None:
    T.buffer_store(buffer, value, [offset if lanes == 1 else T.ramp(offset, 1, lanes)])


def whole(register: Any, lanes: int) -> Any:
    """The vector held by a `registers` buffer."""
    return register[T.ramp(0, 1, lanes)]


def assign(register: Any, value: Any, lanes: int) -> None:
    T.buffer_store(register, value, [T.ramp(0, 1, lanes)])


def constant(value: float, dtype: str, lanes: int) -> Any:
    """The same number in every lane."""
    scalar = tirx.const(value, dtype)
    return scalar if lanes == 1 else T.broadcast(scalar, lanes)


def shuffle(vectors: Sequence[Any], indices: Sequence[int]) -> Any:
    """Lanes picked by position from the concatenation of `vectors`."""
    return tirx.Shuffle(list(vectors), [tirx.IntImm("int32", i) for i in indices])


def part(value: Any, lanes: int, first: int, count: int) -> Any:
    """Elements first .. first + count - 1 of an int8 vector; a power of two, aligned to `count`.

    Taken as one lane of wider integers: LLVM then stores straight from the vector register,
    where a shuffle of bytes would go through general registers one by one.
    """
    if count == lanes:
        return value
    word = {4: "int32", 2: "int16", 1: "int8"}.get(count)
    if word is None:
        return shuffle([value], range(first, first + count))
    words = value if count == 1 else T.reinterpret(f"{word}x{lanes // count}", value)
    lane = shuffle([words], [first // count])
    return lane if count == 1 else T.reinterpret(f"int8x{count}", lane)


def store_first(buffer: Any, offset: Any, value: Any, lanes: int, count: int) -> None:
    """Store the first `count` of `lanes` int8 elements, without touching what follows."""
    if count >= lanes:
        store(buffer, offset, value, lanes)
        return
    held = registers(lanes, "int8")
    assign(held, value, lanes)
    for done, size in powers(count):
        store(buffer, offset + done, part(whole(held, lanes), lanes, done, size), size)


def powers(count: int) -> Iterator[tuple[int, int]]:
    """(first, size) of pieces of `count` elements, each a power of two, the largest first."""
    for bit in reversed(range(count.bit_length())):
        if count >> bit & 1:
            yield count >> (bit + 1) << (bit + 1), 1 << bit


class Share(Enum):
    """What of its output a kernel computes, and who calls it."""

    WHOLE = "all of it, with threads of its own"
    ROWS = "the rows that one thread of a chain wants"
    BLOCKS = "the blocks of channels that one thread of a region has"


_share: ContextVar[Share] = ContextVar("_share", default=Share.WHOLE)


@contextmanager
def emitting(share: Share) -> Iterator[None]:
    """Kernels emitted in here compute this share. Only WHOLE has parallel loops."""
    before = _share.set(share)
    try:
        yield
    finally:
        _share.reset(before)


def share() -> Share:
    """Of the kernel that is emitted."""
    return _share.get()


def is_alone() -> bool:
    """Whether the kernel that is emitted is called by one thread."""
    return share() is not Share.WHOLE


def is_worth_a_barrier(macs: int) -> bool:
    """Whether threads share the work of the kernel that is emitted; one for rows has the same loops."""
    return share() is Share.ROWS or macs >= PARALLEL_MACS


def is_worth_sharing(elements: int, tasks: int) -> bool:
    """Whether threads share so many tasks of a kernel without sums of products."""
    return elements >= PARALLEL_ELEMENTS and tasks >= FEWEST_TASKS


def divides_well(tasks: int) -> bool:
    """Whether four threads, or fewer, get about as many of such tasks each."""
    return tasks % FEWEST_TASKS == 0 or tasks >= MANY_TASKS


def blocks_param() -> list[Param]:
    """The last parameter of a kernel for a share of the blocks of channels: the first one, and their end."""
    return [Param("blocks", "int32", 2)] if share() is Share.BLOCKS else []


def blocks_loop(
    extent: int, buffers: Mapping[str, Any], *, parallel: bool = False
) -> AbstractContextManager[Any]:
    """A loop over blocks of channels: all of them, or those of `blocks_param`."""
    if share() is not Share.BLOCKS:
        return loop(extent, parallel=parallel)
    frame: AbstractContextManager[Any] = T.serial(buffers["blocks"][0], buffers["blocks"][1])
    return frame


def loop(extent: int, *, parallel: bool = False, start: str = IN_ORDER) -> AbstractContextManager[Any]:
    """A loop of `extent` steps; one step needs no loop and yields index 0. `start`: see HIDDEN."""
    if parallel and share() is Share.ROWS:
        shared: AbstractContextManager[Any] = T.serial(0, extent, annotations={SHARED: start})
        return shared
    if extent == 1:
        return nullcontext(0)
    frame = T.parallel if parallel and not is_alone() else T.serial
    result: AbstractContextManager[Any] = frame(0, extent)
    return result


def split(index: Any, extents: Sequence[int]) -> list[Any]:
    """Row-major coordinates of a flat `index`; dimensions of extent 1 cost nothing."""
    if extents and all(extent == 1 for extent in extents):  # a loop whose start LLVM shall not know
        return [*(0 for _ in extents[1:]), index]
    coordinates: list[Any] = []
    rest = index
    for position in range(len(extents) - 1, -1, -1):
        extent = extents[position]
        if extent == 1:
            coordinates.append(0)
        elif all(e == 1 for e in extents[:position]):
            coordinates.append(rest)
            rest = 0
        else:
            coordinates.append(tirx.floormod(rest, extent) if not isinstance(rest, int) else rest % extent)
            rest = tirx.floordiv(rest, extent) if not isinstance(rest, int) else rest // extent
    return coordinates[::-1]


def minimum(a: Any, b: int) -> Any:
    """min(a, b) that folds when `a` is already a Python int."""
    return min(a, b) if isinstance(a, int) else tirx.min(a, tirx.IntImm("int32", b))
