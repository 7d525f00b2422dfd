"""The package lock: what it may look like, and how a difference reads."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from pilite.errors import PiliteError
from pilite.lab.toolchain import lock, recipe
from pilite.lab.toolchain.lock import Package

A, B = "a" * 64, "b" * 64


def named(*packages: Package) -> dict[str, Package]:
    return {package.name: package for package in packages}


def test_what_is_written_is_read_back_sorted(tmp_path: Path) -> None:
    packages = [Package("zlib1g", "1:1.2.13.dfsg-1", A), Package("libc6", "2.36-9+deb12u14", B)]
    lock.write(tmp_path / "x.lock", packages)

    assert lock.read(tmp_path / "x.lock") == named(*packages)
    assert (tmp_path / "x.lock").read_text().splitlines()[0] == f"libc6 2.36-9+deb12u14 {B}"
    assert [path.name for path in tmp_path.iterdir()] == ["x.lock"]


def test_both_architectures_have_the_same_versions() -> None:
    versions = [
        {(one.name, one.version) for one in lock.read(recipe.FOLDER / f"packages.{arch}.lock").values()}
        for arch in recipe.ARCHITECTURES.values()
    ]
    assert versions[0] == versions[1]


BAD = {
    "no hash": ("libc6 2.36-9\n", "x.lock:1: 'libc6 2.36-9' is not 'name version sha256'"),
    "short hash": (f"libc6 2.36-9 {A[:63]}\n", "x.lock:1:"),
    "word beside": (f"libc6 2.36-9 {A} amd64\n", "x.lock:1:"),
    "blank line": (f"libc6 2.36-9 {A}\n\n", "x.lock:2: ''"),
    "twice": (f"libc6 2.36-9 {A}\nlibc6 2.36-9 {A}\n", "x.lock:2: .* is there twice"),
    "empty": ("", "holds no package"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_lock_is_refused_with_its_line_and_what_to_do(name: str, tmp_path: Path) -> None:
    text, said = BAD[name]
    (tmp_path / "x.lock").write_text(text)
    with pytest.raises(PiliteError, match=said) as caught:
        lock.read(tmp_path / "x.lock")

    assert "--relock" in str(caught.value)


def test_a_missing_lock_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match=r"No such file .* --relock"):
        lock.read(tmp_path / "x.lock")


def test_a_difference_reads_as_one_line_per_package() -> None:
    locked = named(
        Package("gone", "1", A), Package("moved", "1", A), Package("same", "1", A), Package("x", "1", A)
    )
    found = named(
        Package("more", "3", A), Package("moved", "2", A), Package("same", "1", A), Package("x", "1", B)
    )

    assert lock.difference(locked, found) == [
        "gone: 1 is locked and missing",
        "more: 3 is here and not locked",
        "moved: 1 is locked, 2 is here",
        f"x: {A[:12]} is the locked sha256, {B[:12]} the file's",
    ]


def test_the_lock_of_the_checkout_holds_what_the_recipe_asks_for() -> None:
    wanted = recipe.read()
    assert set(wanted.packages) <= set(lock.read(wanted.folder / "packages.amd64.lock"))


def test_an_unknown_base_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PiliteError, match=r"--base alpine: unknown; .* declares mmdebstrap, debian"):
        recipe.read("alpine")


def test_a_machine_without_a_lock_is_told_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(recipe.FOLDER, tmp_path / "toolchain")
    (tmp_path / "toolchain" / "packages.arm64.lock").unlink(missing_ok=True)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    wanted = recipe.read(folder=tmp_path / "toolchain")
    with pytest.raises(
        PiliteError, match=r"packages.arm64.lock: is missing: .* `toolchain --relock` makes it"
    ):
        _ = wanted.tag


def test_a_machine_that_no_image_is_made_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(PiliteError, match=r"made on x86_64 and aarch64, and this machine is riscv64"):
        recipe.read()


def test_bases_have_images_of_their_own() -> None:
    made, pulled = recipe.read("mmdebstrap"), recipe.read("debian")
    assert made.tag != pulled.tag
    assert (made.image, "@sha256:" in pulled.image) == ("", True)
