"""docs/ops.md: the operators for readers, made of OPS. `invoke ops --output docs/ops.md` writes it."""

from __future__ import annotations

from pilite.compiler.ops import OPS, table

HEAD = """# Operators

`python3 run.py ops` prints this table; `python3 run.py ops --output docs/ops.md` writes this page, and a
test compares it with the code. {count} operators. What is not here, or beyond the limits, is refused before
compilation with operator, reason and next step.

- **numerics** is what `--numerics ref` promises; **xnnpack** is who computes the operator in LiteRT's default
  on a Pi 4 or 5, whose bytes `--numerics xnnpack` promises, or "refused".
- Quantized dtypes have one scale and zero point per tensor; "per channel" is about weights.
- Tests: `pytest tests/compiler/test_one_op.py -m "" -k OPERATOR` compares at least 24 random models for every
  operator and dtype with TFLite, byte by byte, on this machine and (`long`) on Cortex-A72 code under QEMU,
  and fewer on Cortex-A53 code; `tests/compiler/test_xnnpack.py` does the same for `xnnpack`.
"""


def page() -> str:
    """The page as Markdown."""
    rows = table()
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    body = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
    return f"{HEAD.format(count=len(OPS))}\n{body}"
