"""The container board's image: the same recipe gives the same bytes, whatever the run."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from pilite.errors import BoardError
from pilite.lab import image

RECIPE = image.Recipe(
    id="0123456789ab",
    suite="bookworm",
    epoch=1000,
    packages=("bash",),
    leave_out=("usr/share/doc/", "dev/"),
    directories={"home/bench": (0o750, 1000, 1000)},
    links={"usr/bin/sh": "dash"},
    files={"etc/passwd": "root:x:0:0\n", "etc/shadow": "root:*\n"},
)


def debian(path: Path, names: list[str], time: int, user: str) -> tarfile.TarFile:
    """A tar such as mmdebstrap writes, with names in this order."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            member, data = image.file_member(f"./{name}", name.encode(), 0o644)
            member.mtime, member.uname = time, user
            tar.addfile(member, data)
        device = tarfile.TarInfo("./dev/null")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    return tarfile.open(path)


def layer(folder: Path, names: list[str], time: int, user: str) -> Path:
    folder.mkdir()
    with debian(folder / "debian.tar", names, time, user) as tar:
        image.write_layer(tar, RECIPE, folder / "layer.tar")
    return folder / "layer.tar"


NAMES = ["usr/bin/dash", "etc/passwd", "usr/share/doc/dash/copyright", "bin/x"]


def test_order_times_and_users_of_the_packages_do_not_show(tmp_path: Path) -> None:
    first = layer(tmp_path / "a", NAMES, 5000, "root")
    second = layer(tmp_path / "b", NAMES[::-1], 9000, "builder")
    assert first.read_bytes() == second.read_bytes()


def test_the_recipe_adds_and_leaves_out_what_it_says(tmp_path: Path) -> None:
    with tarfile.open(layer(tmp_path / "a", NAMES, 5000, "root")) as tar:
        members = {member.name: member for member in tar}
        passwd = tar.extractfile("etc/passwd")
        assert passwd is not None
        assert passwd.read() == b"root:x:0:0\n"  # not Debian's
    assert list(members) == [
        "bin/x",
        "etc/passwd",
        "etc/shadow",
        "home/bench",
        "usr/bin/dash",
        "usr/bin/sh",
    ]
    assert (members["home/bench"].mode, members["home/bench"].uid) == (0o750, 1000)
    assert members["usr/bin/sh"].linkname == "dash"
    assert members["etc/shadow"].mode == 0o640
    assert max(member.mtime for member in members.values()) == 1000


def test_the_archive_is_arm64_and_its_id_is_known_before_docker_sees_it(tmp_path: Path) -> None:
    packed = layer(tmp_path / "a", NAMES, 5000, "root")
    found = image.write_archive(packed, RECIPE, tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as tar:
        documents = {name: tar.extractfile(name) for name in tar.getnames() if name.endswith(".json")}
        texts = {name: file.read() for name, file in documents.items() if file}
    (manifest,) = json.loads(texts["manifest.json"])
    config = json.loads(texts[manifest["Config"]])
    assert (manifest["RepoTags"], config["architecture"]) == (["pilite-vboard:0123456789ab"], "arm64")
    assert found == f"sha256:{hashlib.sha256(texts[manifest['Config']]).hexdigest()}"
    digest = image.hash_of(io.BytesIO(packed.read_bytes()))
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]


def test_a_change_of_the_recipe_is_another_image(tmp_path: Path) -> None:
    shutil.copytree(image.FOLDER, tmp_path / "vboard")
    recipe = tmp_path / "vboard" / "recipe.toml"
    before = image.read_recipe(tmp_path / "vboard")
    assert before == image.read_recipe()
    recipe.write_text(recipe.read_text().replace('"sed"', '"sed", "less"'))
    assert image.read_recipe(tmp_path / "vboard").id != before.id


def test_without_mmdebstrap_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BoardError, match=r"apt-get install mmdebstrap"):
        image.archive(RECIPE, tmp_path)


def test_a_made_image_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def unpack(recipe: image.Recipe, output: Path) -> None:
        calls.append(recipe.id)
        debian(output, NAMES, 5000, "root").close()

    monkeypatch.setattr(image, "unpack", unpack)
    first = image.archive(RECIPE, tmp_path)
    assert image.archive(RECIPE, tmp_path) == first
    assert calls == [RECIPE.id]
    assert [path.name for path in first.parent.iterdir()] == ["image.tar"]
