"""A release: the same sums from every folder, and one changed byte anywhere is found and named."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from packaging.utils import parse_wheel_filename

from pilite import VERSION, seal
from pilite.errors import CheckFailed, PiliteError
from pilite.lab import signing
from pilite.release import files, make, statements, verify
from pilite.release.files import File
from pilite.release.statements import Model, Parameters
from tests.conftest import ROOT
from tests.loader.elf import Elf

ARTIFACTS = ROOT / "artifacts"  # for the loader alone, which is the same for everybody
WANTED = Parameters((Model("m", "ab" * 32),), ("cortex-a53", "cortex-a76"), ("ref",), "q31")
ELF = b"\x7fELF\x02\x01\x01" + bytes(11) + (183).to_bytes(2, "little") + bytes(44)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> signing.Keys:
    return signing.own_keys(tmp_path_factory.mktemp("keys") / "own")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[File]:
    """A release with the real loader and two sealed files in the place of models."""
    folder = tmp_path_factory.mktemp("models")
    built = {}
    for cpu in WANTED.cpus:
        path = folder / f"{cpu}.so"
        path.write_bytes(seal.seal(ELF, {"build_id": cpu}))
        built[("m", cpu, "ref")] = path
    return make.contents(WANTED, built, ARTIFACTS)


@pytest.fixture
def release(made: list[File], keys: signing.Keys, tmp_path: Path) -> Path:
    make.write(made, keys.key, tmp_path / "release")
    return tmp_path / "release"


def test_an_intact_release_is_accepted(release: Path, made: list[File], keys: signing.Keys) -> None:
    assert set(verify.verify(release, keys.allowed)) == {file.name for file in made} - {make.SUMS}


def test_sha256sum_agrees(release: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", make.SUMS], cwd=release, capture_output=True, text=True, check=True
    )
    assert done.stdout.count(": OK") == len(list(release.iterdir())) - 2


def test_another_folder_gives_the_same_files_and_the_same_signature(
    made: list[File], release: Path, keys: signing.Keys, tmp_path: Path
) -> None:
    make.write(made, keys.key, tmp_path / "deep" / "er" / "other")
    names = sorted(path.name for path in release.iterdir())

    assert names == sorted(path.name for path in (tmp_path / "deep" / "er" / "other").iterdir())
    for name in names:
        assert (release / name).read_bytes() == (tmp_path / "deep" / "er" / "other" / name).read_bytes()


PARTS = (
    *(f"pilite-loader-{VERSION}-{arch}.tar.gz" for arch in ("aarch64", "x86_64")),
    *(f"pilite-{VERSION}-py3-none-manylinux_2_28_{arch}.whl" for arch in ("aarch64", "x86_64")),
    *(f"pilite_{VERSION}_{arch}.deb" for arch in ("arm64", "amd64")),
    f"pilite-model-m-{VERSION}.tar.gz",
    make.BILL,
    make.PROVENANCE,
    make.SUMS,
    make.SIGNATURE,
)


def test_the_parts_are_all_there_is(release: Path) -> None:
    assert {path.name for path in release.iterdir()} == set(PARTS)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_one_changed_byte_anywhere_is_named(
    name: str, where: float, release: Path, keys: signing.Keys
) -> None:
    data = bytearray((release / name).read_bytes())
    data[int(len(data) * where)] ^= 1
    (release / name).write_bytes(data)
    with pytest.raises(CheckFailed) as caught:
        verify.verify(release, keys.allowed)

    named = [part for part in PARTS if f"{part}:" in str(caught.value)]
    assert named == [name]


def test_every_byte_of_the_signature_counts(release: Path, keys: signing.Keys) -> None:
    good = (release / make.SIGNATURE).read_bytes()
    for at in range(0, len(good), 7):
        (release / make.SIGNATURE).write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(CheckFailed, match=r"^SHA256SUMS\.sig:"):
            verify.verify(release, keys.allowed)


def test_a_missing_and_a_foreign_file_are_named(release: Path, keys: signing.Keys) -> None:
    (release / make.BILL).unlink()
    (release / "below").mkdir()
    (release / "below" / "more").write_text("")
    with pytest.raises(CheckFailed) as caught:
        verify.verify(release, keys.allowed)

    assert "SHA256SUMS: its signature" not in str(caught.value)
    assert f"{make.BILL}: is missing" in str(caught.value)
    assert "below/more: is no part of the release" in str(caught.value)


def test_a_link_in_the_place_of_a_file_is_no_file(release: Path, keys: signing.Keys, tmp_path: Path) -> None:
    (release / make.BILL).rename(tmp_path / "bill")
    (release / make.BILL).symlink_to(tmp_path / "bill")
    with pytest.raises(CheckFailed, match=r"sbom.cdx.json: has other bytes \(no file"):
        verify.verify(release, keys.allowed)


@pytest.mark.parametrize("name", [make.SUMS, make.SIGNATURE])
def test_sums_and_signature_are_no_links(
    name: str, release: Path, keys: signing.Keys, tmp_path: Path
) -> None:
    (release / name).rename(tmp_path / "moved")
    (release / name).symlink_to(tmp_path / "moved")
    with pytest.raises(CheckFailed, match=rf"^{name}: is a link, and no file of a release"):
        verify.verify(release, keys.allowed)


@pytest.mark.parametrize(
    ("name", "shown"), [(b"caf\xe9", r"'caf\udce9'"), (b"a\nb: is fine", r"'a\nb: is fine'")]
)
def test_a_foreign_file_is_named_whatever_bytes_its_name_has(
    name: bytes, shown: str, release: Path, keys: signing.Keys
) -> None:
    Path(os.fsdecode(os.fsencode(release) + b"/" + name)).write_text("")
    with pytest.raises(CheckFailed) as caught:
        verify.verify(release, keys.allowed)

    assert str(caught.value).splitlines()[1:] == [f"  {shown}: is no part of the release"]


def test_a_release_of_somebody_else_is_refused(release: Path, tmp_path: Path) -> None:
    other = signing.own_keys(tmp_path / "other")
    with pytest.raises(CheckFailed, match=r"^SHA256SUMS\.sig: its signature is wrong or not by a key in"):
        verify.verify(release, other.allowed)


def test_a_folder_that_is_no_release_is_refused_and_not_replaced(
    made: list[File], keys: signing.Keys, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary").write_text("dear")
    with pytest.raises(PiliteError, match=r"holds no SHA256SUMS"):
        verify.verify(tmp_path / "mine", keys.allowed)
    with pytest.raises(PiliteError, match=r"holds other files and no release. Give another folder with --to"):
        make.write(made, keys.key, tmp_path / "mine")

    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_in_the_place_of_the_release_is_refused(
    made: list[File], keys: signing.Keys, tmp_path: Path
) -> None:
    (tmp_path / "diary").write_text("dear")
    with pytest.raises(PiliteError, match=r"diary is a file. Give a folder with --to"):
        make.write(made, keys.key, tmp_path / "diary")

    assert (tmp_path / "diary").read_text() == "dear"


KILLED = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
from pilite.release import make
from pilite.release.files import File
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
make.write([File(make.SUMS, b"other")], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
"""


def test_a_killed_release_leaves_the_one_before_and_the_next_one_removes_its_rest(
    made: list[File], release: Path, keys: signing.Keys
) -> None:
    command = [sys.executable, "-c", KILLED, str(ROOT), str(keys.key), str(release)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(list(release.parent.iterdir())) == 2
    verify.verify(release, keys.allowed)
    make.write(made, keys.key, release)

    assert list(release.parent.iterdir()) == [release]


def test_releases_at_once_into_one_folder_take_turns_and_there_is_always_one(
    made: list[File], release: Path, keys: signing.Keys
) -> None:
    with ThreadPoolExecutor() as pool:
        writes = [pool.submit(make.write, made, keys.key, release) for _ in range(6)]
        while not all(write.done() for write in writes):
            assert (release / make.SUMS).is_file()
    for write in writes:
        write.result()

    verify.verify(release, keys.allowed)
    assert list(release.parent.iterdir()) == [release]


def test_a_release_that_cannot_be_signed_leaves_the_one_before(
    made: list[File], release: Path, keys: signing.Keys, tmp_path: Path
) -> None:
    before = (release / make.SUMS).read_bytes()
    with pytest.raises(PiliteError, match="cannot sign"):
        make.write([*made[:-1], File(make.SUMS, b"other")], tmp_path / "no-key", release)

    assert (release / make.SUMS).read_bytes() == before
    verify.verify(release, keys.allowed)


def test_what_comes_out_differently_when_built_again_is_named(made: list[File]) -> None:
    digests = {file.name: make.sha256(file.data) for file in made if file.name != make.SUMS}
    verify.compare(digests, made)
    again = [dataclasses.replace(f, data=b"x") if f.name == make.BILL else f for f in made]
    with pytest.raises(CheckFailed, match=r"built again, it has other bytes:\n  sbom.cdx.json: has other"):
        verify.compare(digests, again)


# What is inside


def part(made: list[File], suffix: str) -> bytes:
    return next(file.data for file in made if file.name.endswith(suffix))


def test_tarballs_are_sorted_and_owned_by_root_at_one_time(made: list[File]) -> None:
    for file in made:
        if file.name.endswith(".tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(file.data)) as tar:
                members = tar.getmembers()
            assert [m.name for m in members] == sorted(m.name for m in members)
            assert {(m.uid, m.gid, m.mtime) for m in members} == {(0, 0, files.EPOCH)}


@pytest.mark.parametrize("arch", ["aarch64", "x86_64"])
def test_the_released_library_runs_on_glibc_2_28(arch: str, made: list[File], tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(part(made, f"{arch}.whl"))) as wheel:
        wheel.extractall(tmp_path)
    library = Elf.read(tmp_path / "pilite" / "libpilite.so")

    assert max(library.glibc_versions) <= (2, 28)


def test_wheels_have_names_that_pip_reads_and_a_record_that_is_right(made: list[File]) -> None:
    for file in made:
        if not file.name.endswith(".whl"):
            continue
        name, version, _, tags = parse_wheel_filename(file.name)
        assert (name, str(version)) == ("pilite", VERSION)
        assert {tag.interpreter for tag in tags} == {"py3"}
        with zipfile.ZipFile(io.BytesIO(file.data)) as wheel:
            record = wheel.read(f"pilite-{VERSION}.dist-info/RECORD").decode().splitlines()
            assert sorted(line.split(",")[0] for line in record) == sorted(wheel.namelist())


def test_dpkg_reads_the_debian_packages(made: list[File], tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb; apt-get install dpkg")
    (tmp_path / "p.deb").write_bytes(part(made, "arm64.deb"))
    shown = subprocess.run(
        ["dpkg-deb", "--info", "p.deb"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    subprocess.run(["dpkg-deb", "-x", "p.deb", "root"], cwd=tmp_path, check=True)

    assert "Architecture: arm64" in shown
    python = tmp_path / "root/usr/lib/python3/dist-packages/pilite"
    assert (python / "libpilite.so").resolve() == tmp_path / "root/usr/lib/aarch64-linux-gnu/libpilite.so"
    assert (tmp_path / "root/usr/bin/pilite-run").stat().st_mode & 0o777 == 0o755


def test_the_provenance_names_every_file_and_says_how_to_make_them_again(made: list[File]) -> None:
    data = part(made, make.PROVENANCE)
    statement = json.loads(data)
    digests = {row["name"]: row["digest"]["sha256"] for row in statement["subject"]}

    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert digests == {
        f.name: make.sha256(f.data) for f in made if f.name not in (make.PROVENANCE, make.SUMS)
    }
    assert statements.parameters_of(data, make.PROVENANCE) == WANTED


Statement = dict[str, Any]


def definition(statement: Statement) -> Statement:
    return statement["predicate"]["buildDefinition"]  # type: ignore[no-any-return]


WRONG: dict[str, Callable[[Statement], object]] = {
    "another kind": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
    "another predicate": lambda s: s.update(predicateType="https://slsa.dev/provenance/v0.2"),
    "no subject": lambda s: s["subject"].clear(),
    "subject without hash": lambda s: s["subject"][0]["digest"].clear(),
    "subject in another folder": lambda s: s["subject"][0].update(name="../x"),
    "short hash": lambda s: s["subject"][0]["digest"].update(sha256="ab"),
    "input without hash": lambda s: definition(s)["resolvedDependencies"][0].pop("digest"),
    "tool without version": lambda s: definition(s)["resolvedDependencies"][-1].update(uri="pkg:pypi/x"),
    "a host": lambda s: definition(s)["internalParameters"].update(host="x86_64"),
    "no command": lambda s: definition(s)["internalParameters"].pop("command"),
    "no model": lambda s: definition(s)["externalParameters"]["models"].clear(),
    "one CPU twice": lambda s: definition(s)["externalParameters"].update(cpus=["a", "a"]),
    "another build type": lambda s: definition(s).update(buildType="urn:pilite:release:2"),
    "no builder": lambda s: s["predicate"]["runDetails"].clear(),
    "a time": lambda s: s["predicate"]["runDetails"].update(metadata={"startedOn": "2026-01-01T00:00:00Z"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_provenance_that_its_schema_does_not_allow_is_neither_written_nor_read(
    name: str, made: list[File]
) -> None:
    statement = json.loads(part(made, make.PROVENANCE))
    assert statements.checked(statement) is statement
    WRONG[name](statement)

    with pytest.raises(jsonschema.ValidationError):
        statements.checked(statement)
    with pytest.raises(CheckFailed, match=r"provenance.intoto.json: is no provenance of a pilite release"):
        statements.parameters_of(json.dumps(statement).encode(), make.PROVENANCE)


def test_a_provenance_says_nothing_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    every = dataclasses.replace(WANTED, cpus=("cortex-a53", "x86-64-v3"))
    here = statements.provenance(every, {"x": "0" * 64})
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert statements.provenance(every, {"x": "0" * 64}) == here


def test_the_schema_of_the_provenance_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(statements.SCHEMA.read_text()))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b'{"predicate": {"buildDefinition": {"buildType": "x"}}}']
)
def test_what_is_no_provenance_is_refused(data: bytes) -> None:
    with pytest.raises(CheckFailed, match=r"provenance.intoto.json: is no provenance of a pilite release"):
        statements.parameters_of(data, make.PROVENANCE)


def test_the_bill_lists_loader_models_artifacts_and_tools(made: list[File]) -> None:
    """It was checked against CycloneDX's schema when it was made."""
    bill = json.loads(part(made, make.BILL))
    names = {row["name"] for row in bill["components"]}

    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert {"libpilite", "m", "m/cortex-a53/ref/model.so", "apache-tvm", "ziglang"} <= names
