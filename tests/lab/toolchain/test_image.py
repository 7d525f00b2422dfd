"""The toolchain image: same digest, exactly the locked packages, one clear error for what is missing."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from pilite.errors import PiliteError
from pilite.lab import image as archives
from pilite.lab import wheels
from pilite.lab.toolchain import archive, image, inside, recipe
from pilite.lab.toolchain.image import Image
from tests.conftest import ROOT

ARTIFACTS = ROOT / "artifacts"


@pytest.fixture(scope="module")
def toolchain() -> Image:
    return image.ensure(recipe.read(), ARTIFACTS, progress=lambda step: None)


def exported(*names: str, time: int) -> io.BytesIO:
    """A container's files as Docker exports them."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = 4, time, f"user{time}"
            tar.addfile(member, io.BytesIO(b"data"))
    data.seek(0)
    return data


def test_the_flat_layer_does_not_show_when_or_in_which_order_it_was_made(tmp_path: Path) -> None:
    wanted = recipe.read()
    late, later = wanted.epoch + 1, wanted.epoch + 10**6
    image.normalize(exported("b", "a", "tmp/x", "var/log/y", time=late), wanted, tmp_path / "one.tar")
    image.normalize(exported("a", "b", "etc/hostname", time=later), wanted, tmp_path / "two.tar")
    image.normalize(exported("a", "b", time=1), wanted, tmp_path / "old.tar")

    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert (tmp_path / "one.tar").read_bytes() != (tmp_path / "old.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert tar.getnames() == ["a", "b"]


def test_a_dead_engine_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    words = ["build", "--docker", "--model", "mobilenet_v1_0.25_128_uint8"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tasks.py"), *words],
        env={"PATH": "/usr/bin:/bin", "DOCKER_HOST": f"unix://{tmp_path}/none.sock"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "No Docker engine answers" in done.stderr
    assert "or build without --docker" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_noticed_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match=r"MiB are free and .* needs 4398046511104 MiB. Make room"):
        image.require_room(tmp_path, 1 << 62)


def test_the_requirements_of_the_image_are_pinned_with_hashes() -> None:
    wanted = recipe.read()
    lines = wanted.pins.splitlines()

    assert len(lines) == len(wanted.wheels)
    assert all("==" in line and "--hash=sha256:" in line for line in lines)


def test_other_authorities_make_another_image(tmp_path: Path) -> None:
    wanted = recipe.read()
    folder = tmp_path / "toolchain"
    folder.mkdir()
    for name in ("recipe.toml", "Dockerfile", "packages.sh", wanted.lock.name):
        (folder / name).write_bytes((wanted.folder / name).read_bytes())
    same = dataclasses.replace(wanted, folder=folder)
    before = same.id
    (folder / "extra-ca").mkdir()
    (folder / "extra-ca" / "site.crt").write_text("certificate")

    assert before == dataclasses.replace(wanted).id or wanted.authorities
    assert same.id != before


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.docker
def test_a_package_that_is_not_the_locked_one_fails_the_build_with_a_diff(
    toolchain: Image, tmp_path: Path
) -> None:
    """packages.sh, which the Dockerfile runs, in the finished image with three lines of its lock changed."""
    wanted = recipe.read()
    lines = wanted.lock.read_text().splitlines()
    (first, *_), second = (line.split() for line in lines[:2])
    changed = [f"{first} 99 {'0' * 64}", *lines[2:], f"zzz-more 1 {'0' * 64}"]
    (tmp_path / "packages.lock").write_text("\n".join(changed) + "\n")
    (tmp_path / "packages.sh").write_bytes((wanted.folder / "packages.sh").read_bytes())
    tmp_path.chmod(0o755)
    command = "cp /given/* /toolchain && sh /toolchain/packages.sh; echo ended with $?"
    said = image.client().containers.run(
        toolchain.id,
        ["sh", "-c", command],
        volumes={str(tmp_path): {"bind": "/given", "mode": "ro"}},
        tmpfs={"/toolchain": "mode=1777"},
        network_mode="none",
        remove=True,
    )
    told = said.decode().splitlines()

    assert told[0] == "packages.lock and the image differ (- locked, + here):"
    assert {f"-{first} 99", f"+{second[0]} {second[1]}", "-zzz-more 1"} <= set(told)
    assert told[-1] == "ended with 1"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.docker
def test_the_tools_are_there_and_run_as_nobody_on_read_only_files(toolchain: Image) -> None:
    script = (
        "id -u; qemu-aarch64 --version | head -1; llvm-mca-19 --version | head -1; python3 -m ziglang version"
    )
    options = {key: value for key, value in inside.SANDBOX.items() if key not in ("user", "working_dir")}
    said = image.client().containers.run(
        toolchain.id,
        ["sh", "-c", f"{script}; touch /x; ls /sys/class/net"],
        remove=True,
        stderr=True,
        **options,
    )
    told = said.decode()

    assert told.splitlines()[0] == "65534"
    assert all(word in told for word in ("qemu-aarch64 version", "LLVM", "0.1", "Read-only file system"))
    assert told.splitlines()[-1] == "lo"


def cli_with_buildkit() -> str:
    """A docker command that can build with BuildKit: an old one with its own, or one that has buildx."""
    for place in [Path(folder) / "docker" for folder in os.get_exec_path()]:
        if place.is_file():
            version = [str(place), "version", "--format", "{{.Client.Version}}"]
            said = subprocess.run(version, capture_output=True, text=True, check=False).stdout
            buildx = subprocess.run([str(place), "buildx", "version"], capture_output=True, check=False)
            if buildx.returncode == 0 or said.split(".")[0] in ("19", "20"):
                return str(place)
    pytest.skip("no docker command with BuildKit; apt-get install docker.io (Debian 12) or docker-buildx")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.docker
def test_buildkit_makes_the_same_image_from_the_dockerfile(toolchain: Image) -> None:
    wanted, engine, command = recipe.read(), image.client(), cli_with_buildkit()
    with tempfile.TemporaryDirectory(dir=ARTIFACTS / "toolchain", prefix="buildkit.") as folder:
        scratch = Path(folder)
        archive.stage(archive.fetch(wanted, ARTIFACTS / "toolchain" / "archive"), scratch / "repository")
        files = [wheels.fetch(name, image.target(wanted), ARTIFACTS) for name in wanted.wheels]
        with image.base_image(engine, wanted, scratch, lambda step: None) as base:
            image.context(wanted, image.NOTHING, files, scratch / "context.tar")
            words = ["build", "--no-cache", "--network=none", f"--build-arg=BASE={base}", "--quiet", "-"]
            with (scratch / "context.tar").open("rb") as data:
                done = subprocess.run(
                    [command, *words],
                    stdin=data,
                    env={**os.environ, "DOCKER_BUILDKIT": "1"},
                    capture_output=True,
                    text=True,
                    check=False,
                )
            assert done.returncode == 0, done.stderr
        layered = done.stdout.strip()
        try:
            image.flatten(engine, layered, wanted, scratch / "layer.tar")
        finally:
            engine.images.remove(layered, force=True)
        config = image.configuration(wanted, archives.digest_of(scratch / "layer.tar"), image.RUNTIME)

        assert archives.pack(scratch / "layer.tar", wanted.tag, config, scratch / "image.tar") == toolchain.id


@pytest.mark.slow
@pytest.mark.docker
def test_a_base_that_cannot_be_pulled_is_one_line_with_its_digest(tmp_path: Path) -> None:
    """No registry answers at this address, whatever network there is."""
    wanted = dataclasses.replace(recipe.read("debian"), image=f"127.0.0.1:9/debian@sha256:{'0' * 64}")
    with pytest.raises(PiliteError) as caught, image.base_image(image.client(), wanted, tmp_path, print):
        pass

    assert re.fullmatch(
        r"--base debian: 127\.0\.0\.1:9/debian@sha256:0{64} cannot be pulled: .*connection refused.* "
        r"Where no registry can be reached, use --base mmdebstrap\.",
        str(caught.value),
    )
