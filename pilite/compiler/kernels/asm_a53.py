"""The K loop of a 4 x 4 tile scheduled by hand for the Cortex-A53, as LLVM IR with inline assembly.

LLVM's scheduler spills accumulators here, and an in-order core pays for each. Rules used (published
measurements of the core): a 128-bit NEON operation issues alone, one a cycle; `ldr x` right behind is free;
`ins` and `ldr d` pair; `ldr q` takes two cycles. 16 bytes arrive as `ldr d` + `ldr x` + `ins` in the shadow
of multiplies.

    v16 + 4j + i   sums of row i, column j: four partial sums
    v0..v3         16 bytes of rows 0..3          v4..v7    16 bytes of columns 0..3
    v8..v15        int16 products of two columns in turn
    x0..x3, x4     rows, weights                  x5        steps left
    x6..x13        upper halves on their way
"""

from __future__ import annotations

from functools import cache

ROWS = COLUMNS = 4
FUNCTION = "pilite_mull_4x4_a53"


def _lanes(register: int, form: str) -> str:
    return f"v{register}.{form}"


def _multiply(column: int, half: str) -> list[str]:
    """smull (lower halves) or smlal2 (upper halves) of all rows with one column."""
    operation, form = ("smull", "8b") if half == "low" else ("smlal2", "16b")
    products = [8 + 4 * (column % 2) + row for row in range(ROWS)]
    return [
        f"{operation} {_lanes(products[row], '8h')}, {_lanes(row, form)}, {_lanes(4 + column, form)}"
        for row in range(ROWS)
    ]


def _accumulate(column: int) -> list[str]:
    products = [8 + 4 * (column % 2) + row for row in range(ROWS)]
    return [f"sadalp v{16 + 4 * column + row}.4s, v{products[row]}.8h" for row in range(ROWS)]


def _load_row(row: int) -> str:
    return f"ldr d{row}, [x{row}], #16"


def _load_column(column: int) -> str:
    return f"ldr d{4 + column}, [x4, #{16 * column}]"


def _upper_row(row: int) -> str:
    return f"ldr x{6 + row}, [x{row}, #8]"


def _upper_column(column: int) -> str:
    return f"ldr x{10 + column}, [x4, #{16 * column + 8}]"


def _join_row(row: int) -> str:
    return f"ins v{row}.d[1], x{6 + row}"


def _join_column(column: int) -> str:
    return f"ins v{4 + column}.d[1], x{10 + column}"


def _weave(operations: list[str], extras: dict[int, list[str]]) -> list[str]:
    """`operations` with `extras[k]` behind the k-th."""
    woven = []
    for k, operation in enumerate(operations):
        woven += [operation, *extras.get(k, [])]
    return woven


def loop() -> list[str]:
    """Prologue and loop: one step is 16 bytes of K for 16 sums. Reads one step beyond the last."""
    prologue = [f"ldr q{row}, [x{row}], #16" for row in range(ROWS)]
    prologue += [f"ldr q{4 + column}, [x4, #{16 * column}]" for column in range(COLUMNS)]
    prologue += ["add x4, x4, #64", "ldr x9, [x3, #-8]", "ldr x13, [x4, #-8]", "1:"]
    first = _multiply(0, "low") + _multiply(0, "high")
    step = _weave(
        first,
        {
            0: ["subs x5, x5, #1"],
            1: [_join_row(3), _join_column(3)],
            4: [_upper_column(0)],
            5: [_upper_column(1)],
            6: [_upper_row(0)],
            7: [_upper_row(1)],
        },
    )
    step += _weave(
        _multiply(1, "low") + _accumulate(0) + _multiply(1, "high"),
        {
            0: [_upper_column(2)],
            1: [_upper_column(3)],
            2: [_upper_row(2)],
            3: [_upper_row(3)],
            5: [_load_column(0)],
        },
    )
    for column in (2, 3):
        step += _weave(
            _multiply(column, "low") + _accumulate(column - 1) + _multiply(column, "high"),
            {5: [_load_column(column - 1), _join_column(column - 2)]},
        )
    last = _accumulate(3)
    step += [
        _load_row(0),
        _join_column(2),
        last[0],
        _load_row(1),
        last[1],
        _load_row(2),
        _join_row(0),
        last[2],
    ]
    step += [
        _load_row(3),
        _join_row(1),
        last[3],
        "add x4, x4, #64",
        "ldr d7, [x4, #-16]",
        _join_row(2),
        "b.ne 1b",
    ]
    return prologue + step


@cache
def source() -> str:
    """LLVM IR of `i32 FUNCTION(4 x ptr row, ptr weights, i64 steps, ptr sums)`.

    sums: 4 x int32x4, row i holding the whole sums of columns 0..3.
    """
    vector = "<4 x i32>"
    results = "{ " + ", ".join([vector] * 16 + ["i64"] * 6) + " }"
    outputs = ",".join([f"={{v{16 + k}}}" for k in range(16)] + [f"={{x{k}}}" for k in range(6)])
    inputs = ",".join(str(k) for k in range(22))
    clobbers = ",".join(
        [f"~{{v{k}}}" for k in range(16)] + [f"~{{x{k}}}" for k in range(6, 14)] + ["~{cc}", "~{memory}"]
    )
    rows = [f"%a{i} = ptrtoint ptr %p{i} to i64" for i in range(ROWS)] + ["%w0 = ptrtoint ptr %w to i64"]
    operands = ", ".join(
        [f"{vector} zeroinitializer"] * 16 + [f"i64 %a{i}" for i in range(ROWS)] + ["i64 %w0", "i64 %steps"]
    )
    text = "\\0A".join(loop())
    body = [
        *rows,
        f'%r = call {results} asm sideeffect "{text}", "{outputs},{inputs},{clobbers}"({operands})',
        *(f"%c{k} = extractvalue {results} %r, {k}" for k in range(16)),
        *(line for row in range(ROWS) for line in _across(row)),
        "ret i32 0",
    ]
    arguments = "ptr %p0, ptr %p1, ptr %p2, ptr %p3, ptr %w, i64 %steps, ptr %sums"
    return "\n".join(
        [
            'target triple = "aarch64-linux-gnu"',
            f"define linkonce_odr i32 @{FUNCTION}({arguments}) alwaysinline nounwind {{",
            *(f"  {line}" for line in body),
            "}",
            f"declare {vector} @llvm.aarch64.neon.addp.v4i32({vector}, {vector})",
            "",
        ]
    )


def _across(row: int) -> list[str]:
    """Add the four partial sums of each column of a row, and store the row."""
    vector, addp = "<4 x i32>", "@llvm.aarch64.neon.addp.v4i32"
    c = [f"%c{4 * column + row}" for column in range(COLUMNS)]
    return [
        f"%t{row} = call {vector} {addp}({vector} {c[0]}, {vector} {c[1]})",
        f"%q{row} = call {vector} {addp}({vector} {c[2]}, {vector} {c[3]})",
        f"%s{row} = call {vector} {addp}({vector} %t{row}, {vector} %q{row})",
        f"%o{row} = getelementptr i8, ptr %sums, i64 {16 * row}",
        f"store {vector} %s{row}, ptr %o{row}, align 4",
    ]
