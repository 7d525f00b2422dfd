"""Many builds side by side: the table, a failure among them, an interruption."""

from __future__ import annotations

import threading

import pytest

from pilite import job as jobs
from pilite import matrix
from pilite.errors import CompileError, ModelError, PiliteError
from pilite.job import Progress


def cell(name: str, error: PiliteError | None = None) -> matrix.Cell:
    def work(progress: Progress) -> dict[str, object]:
        progress("compile")
        if error:
            raise error
        return {"result": "built x", "bytes": 2048, "build_id": "ab" * 32}

    return matrix.Cell({"model": name, "cpu": "cortex-a53", "numerics": "ref"}, work)


def test_a_failure_does_not_stop_the_others_and_is_raised_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cells = [cell("good"), cell("bad", ModelError("bad.tflite: no")), cell("fine")]
    matrix.build(cells, 1)
    rows = matrix.table(cells)

    assert [(row["model"], row["result"], row["KiB"]) for row in rows] == [
        ("good", "built x", 2),
        ("bad", "failed", None),
        ("fine", "built x", 2),
    ]
    assert "2/3 bad cortex-a53 ref: failed" in capsys.readouterr().err
    with pytest.raises(ModelError, match=r"^bad.tflite: no$"):
        matrix.raise_failures(cells)


def test_several_failures_are_one_text() -> None:
    cells = [cell("a", ModelError("why a")), cell("b"), cell("c", CompileError("why c"))]
    matrix.build(cells, 2)
    with pytest.raises(ModelError) as caught:
        matrix.raise_failures(cells)

    assert str(caught.value).splitlines() == [
        "2 of 3 builds failed:",
        "  a cortex-a53 ref: why a",
        "  c cortex-a53 ref: why c",
    ]


def test_as_many_run_side_by_side_as_asked_for() -> None:
    both = threading.Barrier(2, timeout=20)
    cells = [matrix.Cell({"model": str(i)}, lambda progress: {"result": both.wait()}) for i in range(2)]
    matrix.build(cells, 2)
    matrix.raise_failures(cells)

    assert sorted(row["result"] for row in matrix.table(cells)) == ["0", "1"]


def test_an_interruption_starts_nothing_new() -> None:
    started = []

    def interrupted(progress: Progress) -> dict[str, object]:
        started.append(1)
        raise KeyboardInterrupt

    cells = [matrix.Cell({"model": str(i)}, interrupted) for i in range(20)]
    with pytest.raises(KeyboardInterrupt):
        matrix.build(cells, 1)

    assert len(started) < 20


def test_lines_of_another_process_become_steps_words_and_errors() -> None:
    steps: list[str] = []
    lines = [jobs.step_line("read"), "warning: x", "", "[1]", jobs.step_line("link")]

    assert jobs.follow(lines, steps.append) == ["warning: x", "[1]"]
    assert steps == ["read", "link"]
    with pytest.raises(ModelError, match=r"^no$"):
        jobs.follow([jobs.error_line(ModelError("no"))], steps.append)
