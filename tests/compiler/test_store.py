"""Finished builds by build_id: copied instead of compiled, whatever happens to processes and files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pilite import seal
from pilite.compiler import child, pipeline
from pilite.compiler.store import Store
from pilite.errors import CompileError, ModelError, PiliteError
from pilite.job import Job, Progress
from tests.conftest import ROOT
from tests.few_ops import classifier, made

ELF = b"\x7fELF\x02\x01\x01" + bytes(11) + (62).to_bytes(2, "little") + bytes(44)
IDS = [f"{number:064x}" for number in range(4)]


def artifact_of(build_id: str, padding: int = 0) -> bytes:
    """A sealed file that is no real model."""
    return seal.seal(ELF + bytes(padding), {"build_id": build_id})


class Counting:
    """A compiler that makes sealed bytes at once and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, job: Job, progress: Progress) -> bytes:
        time.sleep(0.2)
        self.asked.append(job.build_id)
        return artifact_of(job.build_id)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.tflite"
    path.write_bytes(made(classifier, "int8", 0).model)
    return path


def build(model: Path, artifacts: Path, compile: object, name: str = "cortex-a53") -> pipeline.Build:
    return pipeline.build(model, "m", name, "ref", artifacts, compile=compile)  # type: ignore[arg-type]


def test_a_finished_build_is_copied_when_its_artifact_is_gone(model: Path, tmp_path: Path) -> None:
    compile = Counting()
    first = build(model, tmp_path / "a", compile)
    data = first.path.read_bytes()
    shutil.rmtree(tmp_path / "a" / "m")
    second = build(model, tmp_path / "a", compile)

    assert (first.cached, second.cached, second.reused) == (False, True, False)
    assert second.path.read_bytes() == data
    assert compile.asked == [first.build_id]


@pytest.mark.parametrize("damage", ["truncated", "one byte", "another build"])
def test_a_damaged_finished_build_is_made_again(damage: str, model: Path, tmp_path: Path) -> None:
    compile = Counting()
    first = build(model, tmp_path / "a", compile)
    stored = Store(tmp_path / "a" / "builds").path(first.build_id)
    data = stored.read_bytes()
    bad = {"truncated": data[:-1], "one byte": b"X" + data[1:], "another build": artifact_of(IDS[1])}[damage]
    stored.write_bytes(bad)
    first.path.unlink()

    assert not build(model, tmp_path / "a", compile).cached
    assert stored.read_bytes() == data
    assert len(compile.asked) == 2


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=2 * len(artifact_of(IDS[0], 4096)))
    for age, name in enumerate(IDS[:2]):
        store.put(name, artifact_of(name, 4096))
        os.utime(store.path(name), (age, age))
    store.get(IDS[0])
    store.put(IDS[2], artifact_of(IDS[2], 4096))

    assert {path.stem for path in tmp_path.glob("*.so")} == {IDS[0], IDS[2]}


def test_two_builds_of_the_same_at_once_compile_once(model: Path, tmp_path: Path) -> None:
    compile, done = Counting(), []
    threads = [
        threading.Thread(target=lambda: done.append(build(model, tmp_path / "a", compile))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(done) == 4
    assert len(compile.asked) == 1
    assert {one.path.read_bytes() for one in done} == {artifact_of(done[0].build_id)}
    assert list((tmp_path / "a" / "builds").iterdir()) == [
        tmp_path / "a" / "builds" / f"{done[0].build_id}.so"
    ]


def test_what_comes_back_from_elsewhere_must_be_the_build_that_was_asked_for(
    model: Path, tmp_path: Path
) -> None:
    with pytest.raises(CompileError, match="was asked for and 0000"):
        build(model, tmp_path / "a", lambda job, progress: artifact_of(IDS[0]))

    assert not list((tmp_path / "a").rglob("*.so"))


def test_an_error_of_the_child_arrives_with_its_kind_and_words(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"no model")
    with pytest.raises(ModelError) as here:
        build(tmp_path / "m.tflite", tmp_path / "a", pipeline.compile_here)
    with pytest.raises(ModelError) as there:
        build(tmp_path / "m.tflite", tmp_path / "b", child.compile)

    assert str(there.value) == str(here.value)


@pytest.mark.slow
def test_a_child_gives_the_bytes_of_this_process(model: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    here = build(model, tmp_path / "a", pipeline.compile_here).path.read_bytes()
    there = pipeline.build(
        model, "m", "cortex-a53", "ref", tmp_path / "b", compile=child.compile, progress=steps.append
    )

    assert there.path.read_bytes() == here
    assert steps == ["read", "lower", "schedule", "compile", "link"]


def test_a_killed_child_is_one_error_and_leaves_the_artifact_of_before(model: Path, tmp_path: Path) -> None:
    before = build(model, tmp_path / "a", Counting())
    data = before.path.read_bytes()
    model.write_bytes(made(classifier, "int8", 1).model)

    def killed(step: str) -> None:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)

    with pytest.raises(
        CompileError, match=r"compiling m for cortex-a53 was killed .* Earlier artifacts are unchanged"
    ):
        pipeline.build(
            model, "m", "cortex-a53", "ref", tmp_path / "a", compile=child.compile, progress=killed
        )
    assert before.path.read_bytes() == data
    assert not [path for path in (tmp_path / "a").rglob("*") if path.name.startswith(".")]


FULL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from pilite.compiler import artifact
from pilite.errors import CompileError
place = Path(sys.argv[2]) / "model.so"
artifact.write(place, b"old")
try:
    artifact.write(place, bytes(1 << 20))
except CompileError as error:
    print(error, "|", place.read_bytes(), [path.name for path in place.parent.iterdir()])
"""


def test_a_full_disk_is_one_error_and_leaves_the_artifact_of_before(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=256k none "$1" && exec "$2" -c "$3" "$4" "$1"'
    command = [
        "unshare",
        "--mount",
        *(["--map-root-user"] if os.getuid() else []),
        "sh",
        "-c",
        script,
        "full",
    ]
    done = subprocess.run(
        [*command, str(tmp_path), sys.executable, FULL, str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"hardware: this kernel lets nobody mount a small disk ({done.stderr.strip()[:80]})")

    assert (
        "model.so: cannot be written: No space left on device. What was there before is unchanged"
        in done.stdout
    )
    assert "| b'old' ['model.so']" in done.stdout


def test_an_unknown_cpu_is_refused_before_anything_is_written(model: Path, tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match="no CPU 'z80'"):
        build(model, tmp_path / "a", Counting(), name="z80")

    assert not (tmp_path / "a").exists()
