"""A full or read-only disk, as a user meets it: one line that says where, exit code 2, old outputs kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from pilite.lab import signing
from pilite.lab.toolchain import image, recipe
from tests.conftest import ROOT
from tests.few_ops import classifier, made

ARTIFACTS = ROOT / "artifacts"
BEFORE = ("m/x86-64-v3/ref/model.so", "release/SHA256SUMS", "release/pilite.tar.gz")
# On a file system of its own over artifacts/, seen by this process alone: old outputs, then no room or right.
SCRIPT = """
mkdir -p "$1/.zig" "$OUT/zig"
mount --bind "$1/.zig" "$OUT/zig" && mount -t tmpfs -o size=4m none "$1" || exit 99
cd "$1"
for name in $3; do mkdir -p "$(dirname "$name")"; echo "old $name" > "$name"; done
mkdir -p models toolchain builds loader
sha256sum $3 > "$2/before"
if [ "$DISK" = full ]; then cat /dev/zero > filler 2>/dev/null; else mount -o remount,ro "$1"; fi
shift 3
"$@"
code=$?
sha256sum --quiet -c "$OUT/before" || exit 98
find . -type f | sort > "$OUT/after"
exit $code
"""


def on_a_disk(
    disk: str, out: Path, *words: str, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """`run.py WORDS` where artifacts/ is "full" or "read-only"; 98: an old output is another one now."""
    command = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    command += ["sh", "-c", SCRIPT, "full", str(ARTIFACTS), str(out), " ".join(BEFORE)]
    command += [sys.executable, str(ROOT / "tasks.py"), *words]
    variables = {**os.environ, "OUT": str(out), "DISK": disk, "ZIG_GLOBAL_CACHE_DIR": str(out / "zig")}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**variables, **environment}, check=False
    )
    if done.returncode == 99 or "unshare:" in done.stderr:
        pytest.skip(f"hardware: this kernel lets nobody mount a small disk ({done.stderr.strip()[:80]})")
    return done


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.tflite"
    path.write_bytes(made(classifier, "int8", 0).model)
    return path


def check(done: subprocess.CompletedProcess[str], out: Path, *said: str) -> None:
    assert done.returncode == 2, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert all(text in done.stderr for text in said), done.stderr
    left = [line.removeprefix("./") for line in (out / "after").read_text().splitlines()]
    assert {name for name in left if name.startswith(("m/", "builds/", "release/"))} == set(BEFORE)


FULL = {
    "artifacts": {},
    "zig's cache": {"ZIG_GLOBAL_CACHE_DIR": str(ARTIFACTS / ".zig")},
    "temporary files": {"TMPDIR": str(ARTIFACTS)},
}


@pytest.mark.slow
@pytest.mark.parametrize("where", FULL)
def test_build_says_that_the_disk_is_full(where: str, model: Path, tmp_path: Path) -> None:
    words = ["build", "--model", str(model), "--cpu", "cortex-a53", "--numerics", "ref,xnnpack"]
    done = on_a_disk("full", tmp_path, *words, environment=FULL[where])

    check(done, tmp_path, "2 of 2 builds failed:", "No space left on device", "unchanged")
    assert len(done.stderr.splitlines()) <= 5


@pytest.mark.slow
def test_release_says_that_the_disk_is_full(model: Path, tmp_path: Path) -> None:
    key = signing.own_keys(tmp_path / "keys").key
    words = ["release", "--model", str(model), "--cpu", "cortex-a53", "--key", str(key)]
    done = on_a_disk("full", tmp_path, *words)

    check(done, tmp_path, "No space left on device", "unchanged")


READ_ONLY = {
    "build": ["build"],
    "build of two": ["build", "--cpu", "cortex-a72"],
    "build --docker": ["build", "--docker"],
    "release": ["release", "--key", "KEY"],
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.docker] * ("--docker" in n)) for n in READ_ONLY]
)
def test_a_read_only_disk_is_told_in_one_line_for_each_build(name: str, model: Path, tmp_path: Path) -> None:
    key = str(signing.own_keys(tmp_path / "keys").key)
    words = [key if word == "KEY" else word for word in READ_ONLY[name]]
    done = on_a_disk("read-only", tmp_path, *words, "--model", str(model), "--cpu", "cortex-a53")

    check(done, tmp_path, "Read-only file system. Make it readable and writable for this user and run again")
    assert len(done.stderr.splitlines()) <= 5


@pytest.mark.slow
@pytest.mark.docker
def test_toolchain_says_that_the_disk_is_full_and_leaves_the_image_of_before(tmp_path: Path) -> None:
    wanted, engine = recipe.read(), image.client()
    before = image.existing(engine, wanted)
    done = on_a_disk("full", tmp_path, "toolchain", "--no-cache")

    check(done, tmp_path, "MiB are free and a build of the toolchain needs", "Make room and run again")
    assert image.existing(engine, wanted) == before
