"""The C code of chains walks the rows that `Chain.band` says, whose bounds test_chains.py proves."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pilite import zig
from pilite.compiler import cpu as cpus
from pilite.compiler import entry, fuse
from pilite.compiler.bands import banded
from pilite.compiler.chains import Chain, Rows
from pilite.compiler.entry import Pointer
from tests.chain_nets import CHAINS
from tests.compiler.test_chains import program

ROWS = (1, 2, 3, 7)
TASKS = 4
Key = tuple[int, int, int, int]  # threads, band, first row of a step, stage
Made = tuple[int, int, Rows]  # the first row that is made, the one behind the last, what the step holds

# Takes the place of every kernel; `pointers3` are those of stage 3, the others variables around the call.
NOTE = """
#include <stdio.h>
#include <stdlib.h>
#define NOTE(pointers) note(environment->tasks, id, row, atoi(#pointers + 8), r, n, now)
static int note(int tasks, int id, int row, int stage, int r, int n, const struct rows* now) {
  const struct rows at = now[stage];
  printf("%d %d %d %d %d %d ", tasks, id, row, stage, r, n);
  return printf("%d %d %d %d\\n", at.first, at.again, at.end, at.need) < 0;
}
static char arena[1 << 24];
"""
MAIN = """
int main(int argc, char** argv) {{
  static const task chains[] = {{{names}}};
  struct ends ends = {{arena, arena}};
  for (int tasks = 1; tasks <= {tasks}; ++tasks)
    for (int id = 0; id < tasks; ++id)
      if (chains[atoi(argv[argc - 1])](id, &(struct environment){{0, tasks}}, &ends)) return 1;
  return 0;
}}
"""


class Everything(dict[str, Any]):
    """Functions that exist already: none has to be emitted."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> None:
        return None


def chained() -> Iterator[tuple[str, Chain, entry.ChainCall]]:
    cpu, place = cpus.load("cortex-a53"), Pointer("arena", 0)
    for name, graph in CHAINS.items():
        p = program(graph)
        for rows in ROWS:
            units = fuse.plan(p, cpu, f"{fuse.ALL}@{rows}").units
            for chain in (unit for unit in units if isinstance(unit, Chain)):
                call = banded(p, chain, cpu).call(0, lambda _: place, lambda _: place, Everything())
                yield f"{name}, {rows} rows", chain, call


def test_the_code_of_a_chain_makes_the_rows_that_were_planned(tmp_path: Path) -> None:
    found = list(chained())
    functions = [
        entry._chain(f"chain_{i}", call, dict.fromkeys(call.functions, "NOTE"))
        for i, (_, _, call) in enumerate(found)
    ]
    names = ", ".join(f"chain_{i}" for i in range(len(found)))
    text = (entry._TOGETHER, entry._KEPT, NOTE, *functions, MAIN.format(names=names, tasks=TASKS))
    (tmp_path / "rows.c").write_text("".join(text))
    command = zig.compiler_command("cc", zig.TRIPLES[platform.machine()])
    zig.run_zig([*command, "-O1", "-o", "rows", "rows.c"], tmp_path)

    for i, (name, chain, _) in enumerate(found):
        run = [str(tmp_path / "rows"), str(i)]
        printed = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stdout
        assert noted(printed) == planned(chain), name


def noted(printed: str) -> dict[Key, Made]:
    """Calls of a step that make neighbouring rows count as one."""
    found: dict[Key, Made] = {}
    for line in printed.splitlines():
        tasks, band, row, stage, r, n, *rows = map(int, line.split())
        begin, end, held = found.get((tasks, band, row, stage), (r, r, Rows(*rows)))
        assert (end, held) == (r, Rows(*rows)), line
        found[tasks, band, row, stage] = (begin, r + n, held)
    return found


def planned(chain: Chain) -> dict[Key, Made]:
    found: dict[Key, Made] = {}
    for tasks in range(1, TASKS + 1):
        for band, (first, end) in enumerate(chain.bands(min(tasks, chain.height))):
            ends = [0] * len(chain.stages)
            for row, step in zip(range(first, end, chain.rows), chain.band(first, end), strict=True):
                for stage, rows in enumerate(step):
                    begin = max(rows.first, 0) if row == first else max(ends[stage], rows.again)
                    ends[stage] = rows.end
                    if begin < rows.end:
                        found[tasks, band, row, stage] = (begin, rows.end, rows)
    return found
