"""pilite_open: what is accepted, what is refused, and what the refusal says."""

from __future__ import annotations

import itertools
import os
import platform
import struct
import threading
from collections import Counter
from pathlib import Path

import pytest

from loader.pilite import PiliteError
from pilite.seal import FOOTER_BYTES, MACHINES, Footer, seal
from tests.loader.conftest import FOREIGN, NATIVE, OpenModel
from tests.loader.fakes import BUILD_ID, Fake

OTHER_ID = "f" * 64


def refusal(open_model: OpenModel, path: Path) -> PiliteError:
    with pytest.raises(PiliteError) as caught:
        open_model(path)
    assert "\n" not in str(caught.value)
    return caught.value


def with_footer(artifact: bytes, **changes: int) -> bytes:
    """The artifact with other footer fields and a right footer hash."""
    fields = struct.unpack_from("<IIQQQII", artifact, len(artifact) - FOOTER_BYTES + 8)
    names = ("format", "machine", "elf_bytes", "json_bytes", "content_hash", "abi_major", "abi_minor")
    return artifact[:-FOOTER_BYTES] + Footer(**{**dict(zip(names, fields, strict=True)), **changes}).pack()


NOT_MODELS = [
    pytest.param(b"", "0 bytes are too few", id="empty"),
    pytest.param(b"x" * 100, "100 bytes are too few", id="short"),
    pytest.param(b"TFL3" * 100, "not a pilite artifact", id="something else"),
    pytest.param(b"\x7fELF" + bytes(500), "ELF file without a pilite footer", id="an ELF file"),
]


@pytest.mark.parametrize(("content", "says"), NOT_MODELS)
def test_a_file_that_is_no_artifact_is_refused(
    tmp_path: Path, open_model: OpenModel, content: bytes, says: str
) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(content)
    error = refusal(open_model, path)
    assert error.status == "CORRUPT"
    assert says in str(error)
    assert str(path) in str(error)


def test_a_missing_file_is_refused(tmp_path: Path, open_model: OpenModel) -> None:
    error = refusal(open_model, tmp_path / "missing.so")
    assert error.status == "IO"
    assert "No such file" in str(error)


def test_a_directory_is_refused(tmp_path: Path, open_model: OpenModel) -> None:
    error = refusal(open_model, tmp_path)
    assert error.status == "IO"
    assert "not a regular file" in str(error)


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path, open_model: OpenModel) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in str(refusal(open_model, tmp_path / "pipe"))


def test_a_line_break_in_the_path_does_not_break_the_line(tmp_path: Path, open_model: OpenModel) -> None:
    assert "two?lines.so" in str(refusal(open_model, tmp_path / "two\nlines.so"))


def test_a_very_long_path_is_refused(tmp_path: Path, open_model: OpenModel) -> None:
    assert refusal(open_model, tmp_path / ("x" * 5000)).status == "IO"


def test_a_truncated_file_is_refused(tmp_path: Path, fake: Path, open_model: OpenModel) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(fake.read_bytes()[:-1])
    assert refusal(open_model, path).status == "CORRUPT"


def test_the_library_before_sealing_is_refused(tmp_path: Path, open_model: OpenModel) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(Fake().elf(NATIVE))
    assert "never sealed" in str(refusal(open_model, path))


FOOTERS = [
    pytest.param({"abi_major": 2}, "ABI", "update the loader", id="a newer ABI"),
    pytest.param({"abi_major": 0}, "ABI", "build the model again", id="an older ABI"),
    pytest.param({"format": 2}, "ABI", "update the loader", id="a newer format"),
    pytest.param({"machine": 40}, "ARCH", "32-bit ARM", id="another machine"),
    pytest.param({"elf_bytes": 2**63}, "CORRUPT", "the footer describes", id="a huge library"),
    pytest.param({"elf_bytes": 64}, "CORRUPT", "the footer describes", id="a gap"),
    pytest.param({"json_bytes": 0}, "CORRUPT", "the footer describes", id="no manifest"),
    pytest.param({"json_bytes": 2**64 - 8}, "CORRUPT", "the footer describes", id="sizes that overflow"),
    pytest.param({"content_hash": 0}, "CORRUPT", "checksum differs", id="another checksum"),
]


@pytest.mark.parametrize(("changes", "status", "says"), FOOTERS)
def test_a_footer_that_promises_something_else_is_refused(
    tmp_path: Path, fake: Path, open_model: OpenModel, changes: dict[str, int], status: str, says: str
) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(with_footer(fake.read_bytes(), **changes))
    error = refusal(open_model, path)
    assert error.status == status
    assert says in str(error)


def test_a_reserved_field_that_is_not_zero_is_refused(
    tmp_path: Path, fake: Path, open_model: OpenModel
) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(fake.read_bytes()[:-8] + bytes([1] + 7 * [0]))
    assert "reserved" in str(refusal(open_model, path))


def test_a_model_for_another_architecture_is_refused_by_name(tmp_path: Path, open_model: OpenModel) -> None:
    error = refusal(open_model, Fake().write(tmp_path / "model.so", FOREIGN))
    assert error.status == "ARCH"
    names = {"x86_64": "x86-64", "aarch64": "aarch64"}
    assert f"made for {names[FOREIGN]}" in str(error)
    assert f"this computer is {names[NATIVE]}" in str(error)


def test_a_sealed_file_without_a_library_is_refused(tmp_path: Path, open_model: OpenModel) -> None:
    header = bytes(18) + struct.pack("<H", MACHINES[NATIVE]) + bytes(80)
    path = tmp_path / "model.so"
    path.write_bytes(seal(header, {"build_id": BUILD_ID}))
    error = refusal(open_model, path)
    assert error.status == "CORRUPT"
    assert "does not start with the shared library" in str(error)


VARIANTS = [
    pytest.param(Fake({"BUILD_ID": f'"{OTHER_ID}"'}), "LINK", "build ffffffffffff", id="another build"),
    pytest.param(Fake(manifest={"build_id": "123"}), "CORRUPT", "no build_id", id="a short build_id"),
    pytest.param(
        Fake(manifest={"a": {"build_id": BUILD_ID}}), "CORRUPT", "no build_id", id="a nested build_id"
    ),
    pytest.param(Fake({"MAGIC": '"PILITE99"'}), "ABI", "no model descriptor", id="another magic"),
    pytest.param(Fake({"ABI_MAJOR": "2"}), "ABI", "ABI 2.0 and this loader 1.1", id="another descriptor ABI"),
    pytest.param(Fake({"NBYTES": "999"}), "ABI", "tensor 0 is not sound", id="a wrong size in bytes"),
    pytest.param(
        Fake({"CPU_REQUIRED": "0x8000000000000000u"}), "CPU", "feature bit 63", id="a CPU of the future"
    ),
    pytest.param(Fake({"pilite_model_get": "another_name"}), "ABI", "does not export", id="another symbol"),
    pytest.param(
        Fake(
            {"nanosleep": "missing_function"}, options=("-Wno-implicit-function-declaration", "-Wl,-z,undefs")
        ),
        "LINK",
        "missing_function",
        id="a missing function",
    ),
]


@pytest.mark.parametrize(("variant", "status", "says"), VARIANTS)
def test_a_model_that_breaks_the_contract_is_refused(
    tmp_path: Path, open_model: OpenModel, variant: Fake, status: str, says: str
) -> None:
    error = refusal(open_model, variant.write(tmp_path / "model.so", NATIVE))
    assert error.status == status
    assert says in str(error)


def test_build_id_is_found_behind_strings_that_look_like_it(tmp_path: Path, open_model: OpenModel) -> None:
    manifest = {
        "A": '"',
        "a": '"build_id":"x"',
        "b\\": ["build_id", {"build_id": OTHER_ID}],
        "build_id": BUILD_ID,
    }
    assert open_model(Fake(manifest=manifest).write(tmp_path / "model.so", NATIVE)).inputs


def test_a_newer_version_under_the_same_name_is_not_taken_for_the_open_one(
    tmp_path: Path, open_model: OpenModel
) -> None:
    path = Fake().write(tmp_path / "model.so", NATIVE)
    newer = Fake({"BUILD_ID": f'"{OTHER_ID}"'}, manifest={"build_id": OTHER_ID})
    with open_model(path):
        os.replace(newer.write(tmp_path / "new.so", NATIVE), path)
        error = refusal(open_model, path)
        assert error.status == "LINK"
        assert "close it or use another file name" in str(error)
    with open_model(path) as model:
        assert model.build_id == OTHER_ID


def test_a_file_that_is_replaced_all_the_time_is_opened_whole_or_refused(
    tmp_path: Path, open_model: OpenModel
) -> None:
    one, two = Fake(), Fake({"BUILD_ID": f'"{OTHER_ID}"', "ADDEND": "2"}, manifest={"build_id": OTHER_ID})
    artifacts = (one.artifact(NATIVE), two.artifact(NATIVE))
    path, stop = one.write(tmp_path / "model.so", NATIVE), threading.Event()

    def replace() -> None:
        for i in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
            (tmp_path / "new.so").write_bytes(artifacts[i % 2])
            os.replace(tmp_path / "new.so", path)

    replacer = threading.Thread(target=replace)
    replacer.start()
    outcomes = Counter(open_and_run(open_model, path) for _ in range(200))
    stop.set()
    replacer.join()
    assert set(outcomes) <= {(BUILD_ID, 1), (OTHER_ID, 2), "IO", "LINK"}
    assert outcomes[BUILD_ID, 1] + outcomes[OTHER_ID, 2] > 0


def open_and_run(open_model: OpenModel, path: Path) -> tuple[str, int] | str:
    """The build and what it adds to 0, or the status of the refusal."""
    try:
        with open_model(path) as model:
            model.inputs[1][:] = [0, 0, 1, 0]
            model.invoke()
            return model.build_id, int(model.outputs[0][0, 0])
    except PiliteError as error:
        return error.status


def test_two_models_and_two_sessions_of_one_are_independent(tmp_path: Path, open_model: OpenModel) -> None:
    one = Fake().write(tmp_path / "one.so", NATIVE)
    two = Fake({"ADDEND": "2", "NAME": '"two"'}).write(tmp_path / "two.so", NATIVE)
    with open_model(one) as a, open_model(two) as b, open_model(one, threads=2) as c:
        for model in (a, b, c):
            model.inputs[1][:] = [0, 0, 1, 0]
        a.inputs[0][:] = 5
        b.inputs[0][:] = 10
        c.inputs[0][:] = 20
        for model in (a, b, c):
            model.invoke()
        assert [int(model.outputs[0][0, 999]) for model in (a, b, c)] == [6, 12, 21]
        assert (a.name, b.name) == ("fake", "two")


FLAGS = {0: {"avx2"}, 1: {"fma"}, 2: {"bmi2"}, 3: {"f16c"}, 5: {"avx512_vnni"}}
FLAGS[4] = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="hardware: x86-64 features")
@pytest.mark.parametrize("bit", sorted(FLAGS))
def test_x86_features_are_those_that_the_kernel_reports(
    tmp_path: Path, open_model: OpenModel, bit: int
) -> None:
    line = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    path = Fake({"CPU_REQUIRED": f"{1 << bit}u"}).write(tmp_path / "model.so", NATIVE)
    if FLAGS[bit] <= set(line.split()):
        open_model(path).close()
    else:
        assert refusal(open_model, path).status == "CPU"
