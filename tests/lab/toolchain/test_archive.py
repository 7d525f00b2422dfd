"""The archive against Debian itself: a version that is gone, a file that is not the locked one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pilite.errors import CheckFailed, PiliteError
from pilite.lab.toolchain import archive, lock, recipe
from pilite.lab.toolchain.lock import Package
from pilite.lab.toolchain.recipe import Recipe

SMALL = "hostname"


@pytest.fixture
def one(tmp_path: Path) -> Recipe:
    """The recipe with a lock of its own."""
    (tmp_path / "recipe").mkdir()
    return dataclasses.replace(recipe.read(), folder=tmp_path / "recipe")


@pytest.fixture
def locked(one: Recipe) -> Package:
    """Today's version of a small package."""
    return lock.read(recipe.read().lock)[SMALL]


@pytest.mark.slow
def test_a_locked_package_is_fetched_once_and_found_again(
    one: Recipe, locked: Package, tmp_path: Path
) -> None:
    lock.write(one.lock, [locked])
    (file,) = archive.fetch(one, tmp_path / "archive")
    offline = dataclasses.replace(one, mirrors=("http://127.0.0.1:9/debian bookworm main",))

    assert archive.inspect(file) == locked
    assert archive.fetch(offline, tmp_path / "archive") == [file]


@pytest.mark.slow
def test_a_version_that_debian_does_not_have_is_named_with_what_it_has(
    one: Recipe, locked: Package, tmp_path: Path
) -> None:
    lock.write(
        one.lock, [dataclasses.replace(locked, version="0.1-1"), Package("no-such-package", "1", "0" * 64)]
    )
    with pytest.raises(CheckFailed) as caught:
        archive.fetch(one, tmp_path / "archive")

    assert str(caught.value).splitlines() == [
        "2 locked packages are no longer in Debian's archive:",
        f"  {SMALL}: 0.1-1 is locked, Debian has {locked.version}",
        "  no-such-package: 1 is locked, Debian has no such package",
        "`toolchain --relock` makes a new lock; an archive with the locked files builds without network.",
    ]


@pytest.mark.slow
def test_a_file_with_another_hash_is_named(one: Recipe, locked: Package, tmp_path: Path) -> None:
    lock.write(one.lock, [dataclasses.replace(locked, sha256="0" * 64)])
    with pytest.raises(
        CheckFailed, match=f"{SMALL}: 000000000000 is the locked sha256, {locked.sha256[:12]}"
    ):
        archive.fetch(one, tmp_path / "archive")


def test_without_a_network_the_error_is_one_line(one: Recipe, locked: Package, tmp_path: Path) -> None:
    lock.write(one.lock, [locked])
    offline = dataclasses.replace(one, mirrors=("http://127.0.0.1:9/debian bookworm main",))
    with pytest.raises(PiliteError, match=r"apt-get -qq: .*(Could not connect|Failed to fetch)") as caught:
        archive.fetch(offline, tmp_path / "archive")

    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"not a package")
    with pytest.raises(PiliteError, match=r"x.deb is no Debian package: .* Remove it"):
        archive.inspect(tmp_path / "x.deb")
