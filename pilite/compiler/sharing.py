"""What each thread does of a parallel loop, computed by the kernel itself: the same code from every host.

TVM's code generator computes both bounds of a share as arguments of one C++ call, in an order that the
compiler that built TVM chose (see order.py). Here a parallel loop has one step for each thread, whose number
says which thread it is and of how many, and the share is an ordinary loop inside:

    for i in parallel(n): body      ->      for who in parallel: begin = ...; for i in range(begin, end): body

`GLUE` is the other half: what TVM's code calls to launch a loop, in C beside the descriptor.
"""

from __future__ import annotations

from typing import Any

from tvm import ir, tirx
from tvm_ffi import StructuralMutator, structural_mutate

from pilite.compiler.kernels.emit import IMPORT, opaque
from pilite.compiler.order import stored

BITS = 15  # of the number of threads; who = thread << BITS | threads
ONCE = 1 << (2 * BITS)  # more than any `who`, and what TVM's loop of turns adds to it: one step each
TURNS = ("pragma_parallel_launch_point", "pragma_parallel_stride_pattern")  # bounds that are no computation
SLOT = "__TVMBackendParallelLaunch"  # where TVM's code has the address of what launches a loop

GLUE = f"""\
struct share {{ pilite_lambda run; void* data; }};
struct environment {{ void* unused; int32_t tasks; }};
int (*pilite_launch)(pilite_lambda, void*, int) __attribute__((visibility("hidden")));
static int run_share(int id, void* environment, void* data) {{
  const struct share* share = data;
  const int tasks = ((const struct environment*)environment)->tasks;
  struct environment once = {{0, {ONCE}}};
  return share->run(id << {BITS} | tasks, &once, share->data);
}}
static int launch_shares(pilite_lambda run, void* data, int tasks) {{
  struct share share = {{run, data}};
  return pilite_launch(run_share, &share, tasks);
}}
__attribute__((visibility("hidden"))) void* {SLOT} = (void*)launch_shares;
"""


_UNKNOWN = opaque("pilite_unknown")


def unknown(value: Any) -> Any:
    """An int32 of which LLVM knows nothing, for use in what is `knowing`."""
    return tirx.call_extern("int32", "pilite_unknown", value)


def knowing(body: Any) -> Any:
    """A statement with `unknown` in it."""
    return tirx.AttrStmt(tirx.IntImm("int32", 0), IMPORT, ir.StringImm(_UNKNOWN), body)


def shared(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """The same function, where every parallel loop computes the share of its thread."""

    def visit(node: tirx.For, mutator: StructuralMutator) -> Any:
        made = mutator.default_mutate(node)
        return _share(made) if made.kind == tirx.ForKind.PARALLEL else made

    return function.with_body(structural_mutate(function.body, (tirx.For, visit)))


def _share(loop: tirx.For) -> Any:
    """Neighbouring steps: ceil(extent / threads) each, the last threads less or none."""
    stores: list[Any] = []

    def kept(value: Any) -> Any:
        more, read = stored(value)
        stores.extend(more)
        return read

    zero, extent, once = (tirx.IntImm("int32", n) for n in (0, int(loop.extent), ONCE))
    who = tirx.Var("who", "int32")
    thread = kept(unknown(who >> BITS))
    threads = kept(unknown(who & ((1 << BITS) - 1)))
    steps = kept(tirx.truncdiv(extent + threads - 1, threads))
    begin = kept(tirx.min(thread * steps, extent))
    end = kept(tirx.min(thread * steps + steps, extent))
    share = tirx.For(loop.loop_var, begin, end - begin, tirx.ForKind.SERIAL, loop.body)
    done = tirx.Return(zero)  # so that LLVM sees no loop around
    body = knowing(tirx.SeqStmt([*stores, share, done]))
    made: Any = tirx.For(who, zero, once, tirx.ForKind.PARALLEL, body)
    for pragma in reversed(TURNS):
        made = tirx.AttrStmt(zero, pragma, zero, made)
    return made
