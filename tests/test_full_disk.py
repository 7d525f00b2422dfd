"""A full disk, as a user meets it: one line that says where, exit code 2, and old outputs as they were."""

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
# On a file system of its own over artifacts/, seen by this process alone: old outputs, then nothing is free.
SCRIPT = """
mkdir -p "$1/.zig" "$OUT/zig"
mount --bind "$1/.zig" "$OUT/zig" && mount -t tmpfs -o size=4m none "$1" || exit 99
cd "$1"
for name in $3; do mkdir -p "$(dirname "$name")"; echo "old $name" > "$name"; done
mkdir -p models toolchain builds loader
sha256sum $3 > "$2/before"
cat /dev/zero > filler 2>/dev/null
shift 3
"$@"
code=$?
sha256sum --quiet -c "$OUT/before" || exit 98
find . -type f | sort > "$OUT/after"
exit $code
"""


def on_a_full_disk(
    out: Path, *words: str, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """`run.py WORDS` where artifacts/ is full; exit code 98: an old output is not what it was."""
    command = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    command += ["sh", "-c", SCRIPT, "full", str(ARTIFACTS), str(out), " ".join(BEFORE)]
    command += [sys.executable, str(ROOT / "tasks.py"), *words]
    variables = {**os.environ, "OUT": str(out), "ZIG_GLOBAL_CACHE_DIR": str(out / "zig"), **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
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
    done = on_a_full_disk(tmp_path, *words, environment=FULL[where])

    check(done, tmp_path, "2 of 2 builds failed:", "No space left on device", "unchanged")
    assert len(done.stderr.splitlines()) <= 5


@pytest.mark.slow
def test_release_says_that_the_disk_is_full(model: Path, tmp_path: Path) -> None:
    key = signing.own_keys(tmp_path / "keys").key
    words = ["release", "--model", str(model), "--cpu", "cortex-a53", "--key", str(key)]
    done = on_a_full_disk(tmp_path, *words)

    check(done, tmp_path, "No space left on device", "unchanged")


@pytest.mark.slow
@pytest.mark.docker
def test_toolchain_says_that_the_disk_is_full_and_leaves_the_image_of_before(tmp_path: Path) -> None:
    wanted, engine = recipe.read(), image.client()
    before = image.existing(engine, wanted)
    done = on_a_full_disk(tmp_path, "toolchain", "--no-cache")

    check(done, tmp_path, "MiB are free and a build of the toolchain needs", "Make room and run again")
    assert image.existing(engine, wanted) == before
