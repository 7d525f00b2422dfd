"""The order in which operands are computed, written down: the same code from every host.

TVM's code generator computes the operands of a sum, a comparison, a Select as arguments of one C++ call. In
which order is the choice of the compiler that built TVM: last one first in the wheel for x86-64, first one
first in that for aarch64. LLVM then gets its instructions in another order and chooses other registers. Here
all operands but one are stored before their statement, last one first, each in a buffer of one value, which
LLVM turns back into a register:

    y[i] = a * 2 + b * c        ->        operand[0] = b * c; y[i] = a * 2 + operand[0]

Bind and Let would say the same, but TVM's analyzer looks through each of them, ten times the time of a build.
So are the first step and the end of a loop; the bounds of a thread's share: see sharing.py.
"""

from __future__ import annotations

from typing import Any

from tvm import ir, tirx
from tvm_ffi import StructuralMutator, structural_mutate

Node = Any  # a statement or an expression

# Expressions whose operands are arguments of one call; all others compute theirs one after the other.
BINARY = (
    *(tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Mod, tirx.FloorDiv, tirx.FloorMod, tirx.Min, tirx.Max),
    *(tirx.EQ, tirx.NE, tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.And, tirx.Or),
    *(tirx.expr.LShift, tirx.expr.RShift),
    *(tirx.expr.BitwiseAnd, tirx.expr.BitwiseOr, tirx.expr.BitwiseXor),
)
# Statements that compute expressions, each of them once.
STATEMENTS = (
    *(tirx.Bind, tirx.Evaluate, tirx.Return, tirx.BufferStore, tirx.AttrStmt, tirx.IfThenElse, tirx.For),
)
LAZY = ir.Op.get("prim.if_then_else")  # computes one of its operands
OPERAND = "operand"  # name of the buffers
CONSTANTS = (tirx.Var, tirx.IntImm, tirx.FloatImm)


def ordered(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """The same function, where no order of computation is left to choose."""
    return function.with_body(_Operands().written(function.body))


class _Operands:
    """One walk through a function. `before`: what comes before the statement that is visited."""

    def __init__(self) -> None:
        self.before: list[Node] = []

    def written(self, body: Node) -> Node:
        visits = [
            *((STATEMENTS, self.statement), (BINARY, self.binary), (tirx.Select, self.select)),
            *(((tirx.While, tirx.Let), self.refuse), (ir.Call, self.call)),
        ]
        return structural_mutate(body, visits)

    def refuse(self, node: Node, mutator: StructuralMutator) -> Node:
        """What is computed before it would be computed too often, too seldom or too early."""
        raise AssertionError(f"kernels have no {type(node).__name__}: say in which order it computes")

    def call(self, node: Node, mutator: StructuralMutator) -> Node:
        return self.refuse(node, mutator) if node.op.same_as(LAZY) else mutator.default_mutate(node)

    def statement(self, node: Node, mutator: StructuralMutator) -> Node:
        outer, self.before = self.before, []
        made = mutator.default_mutate(node)
        if isinstance(made, tirx.For) and is_computed(made.min):
            made = begun(made, self.stored(made.min))
        before, self.before = self.before, outer
        return tirx.SeqStmt([*before, made]) if before else made

    def binary(self, node: Node, mutator: StructuralMutator) -> Node:
        return type(node)(*self.operands((node.a, node.b), mutator))

    def select(self, node: Node, mutator: StructuralMutator) -> Node:
        return tirx.Select(*self.operands((node.condition, node.true_value, node.false_value), mutator))

    def operands(self, given: tuple[Node, ...], mutator: StructuralMutator) -> list[Node]:
        """The operands, last one first; those with an earlier one that is computed, too, are stored."""
        made = []
        for place in reversed(range(len(given))):
            operand = mutator.mutate(given[place])
            has_order = is_computed(operand) and any(map(is_computed, given[:place]))
            made.append(self.stored(operand) if has_order else operand)
        return made[::-1]

    def stored(self, value: Node) -> Node:
        """`value`, stored before the statement."""
        stores, read = stored(value)
        self.before += stores
        return read


def begun(loop: tirx.For, start: Node) -> tirx.For:
    """The loop from another first step on."""
    return tirx.For(loop.loop_var, start, loop.extent, loop.kind, loop.body, annotations=loop.annotations)


def stored(value: Node) -> tuple[list[Node], Node]:
    """Statements that store `value` in a buffer of its own, and it read from there: a register of LLVM's."""
    dtype = value.ty.dtype
    buffer = tirx.decl_buffer((dtype.lanes,), dtype.with_lanes(1), OPERAND)
    first = tirx.IntImm("int32", 0)
    index = first if dtype.lanes == 1 else tirx.Ramp(first, 1, dtype.lanes)
    stores = [tirx.AllocBuffer(buffer), tirx.BufferStore(buffer, value, [index])]
    return stores, tirx.BufferLoad(buffer, [index])


def is_computed(node: Node) -> bool:
    """Whether LLVM gets an instruction for it."""
    return is_computed(node.value) if isinstance(node, tirx.Broadcast) else not isinstance(node, CONSTANTS)
