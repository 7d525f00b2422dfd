"""loader/pilite.py: views, copies, errors, closing."""

from __future__ import annotations

import gc
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from loader.pilite import Array, Model, PiliteError, TensorDetails
from pilite.lab.loader import LoaderFiles
from tests.loader.conftest import OpenModel, run_program
from tests.loader.fakes import ADD, BUILD_ID, LOADER, WAIT

X = np.full((1, 1000), 5, np.int8)
COMMAND = np.array([ADD, 0, 1, 0], np.int32)


@pytest.fixture
def model(fake: Path, open_model: OpenModel) -> Model:
    return open_model(fake)


def test_details_are_those_of_the_descriptor(model: Model) -> None:
    x, command = model.input_details
    y, _, regions = model.output_details
    assert x == TensorDetails("x", (1, 1000), np.dtype(np.int8), 0.5, 3)
    assert command == TensorDetails("command", (4,), np.dtype(np.int32), None, None)
    assert (y.scale, y.zero_point) == (0.25, -7)
    assert regions == TensorDetails("regions", (), np.dtype(np.float32), None, None)
    assert (model.name, model.target, model.build_id) == ("fake", "any CPU", BUILD_ID)


def test_invoke_computes_in_place(model: Model) -> None:
    y = model.outputs[0]
    model.inputs[0][:] = 41
    model.inputs[1][:] = COMMAND
    model.invoke()
    assert (y == 42).all()
    assert model.outputs[0] is y


def test_run_returns_copies(model: Model) -> None:
    first = model.run(X, COMMAND)[0]
    second = model.run(X + np.int8(1), COMMAND)[0]
    assert (first == 6).all()
    assert (second == 7).all()


def test_arrays_are_aligned_for_the_kernels(model: Model) -> None:
    assert all(array.ctypes.data % 64 == 0 for array in model.inputs + model.outputs)


def test_arrays_that_are_not_contiguous_are_copied_right(model: Model) -> None:
    wide = np.arange(2000, dtype=np.int32).astype(np.int8).reshape(1, 2000)
    np.testing.assert_array_equal(model.run(wide[:, ::2], COMMAND)[0], wide[:, ::2] + 1)


WRONG = [
    pytest.param([X], "1 arrays given; the model has 2 inputs", id="too few"),
    pytest.param([X, COMMAND, X], "3 arrays given", id="too many"),
    pytest.param([X.astype(np.uint8), COMMAND], r"x: needs int8 \(1, 1000\), got uint8", id="another type"),
    pytest.param([X[0], COMMAND], r"x: needs int8 \(1, 1000\), got int8 \(1000,\)", id="another shape"),
    pytest.param([X, [0, 0, 1, 0]], "command: needs int32", id="a list of int64"),
]


@pytest.mark.parametrize(("arrays", "says"), WRONG)
def test_inputs_of_another_kind_are_refused(model: Model, arrays: list[Array], says: str) -> None:
    with pytest.raises(PiliteError, match=says) as caught:
        model.run(*arrays)
    assert caught.value.status == "ARG"


def test_arrays_outlive_the_model(fake: Path, open_model: OpenModel) -> None:
    with open_model(fake) as model:
        model.run(X, COMMAND)
        x, y = model.inputs[0], model.outputs[0]
    del model
    gc.collect()
    x[:] = 1
    assert (y == 6).all()


def test_a_closed_model_refuses_to_work(model: Model) -> None:
    model.close()
    model.close()
    for use in (lambda: model.inputs, lambda: model.outputs, model.invoke, lambda: model.run(X, COMMAND)):
        with pytest.raises(PiliteError, match="fake: the model is closed"):
            use()
    assert "closed" in repr(model)


def test_closing_waits_for_a_run_in_another_thread(fake: Path, open_model: OpenModel) -> None:
    model = open_model(fake, threads=2)
    model.inputs[1][:] = [WAIT, 0, 1, 200]
    running = threading.Thread(target=model.invoke)
    running.start()
    while not model._lock.locked():
        pass
    model.close()
    running.join()
    assert "closed" in repr(model)


def test_a_second_caller_is_told_that_the_model_is_busy(fake: Path, open_model: OpenModel) -> None:
    model = open_model(fake, threads=2)
    model.inputs[1][:] = [WAIT, 0, 1, 200]
    running = threading.Thread(target=model.invoke)
    running.start()
    while not model._lock.locked():
        pass
    with pytest.raises(PiliteError, match="running in another thread") as caught:
        model.invoke()
    running.join()
    assert caught.value.status == "BUSY"
    model.run(X, COMMAND)


def test_cpus_must_be_as_many_as_threads(fake: Path, open_model: OpenModel) -> None:
    with pytest.raises(PiliteError, match="cpus names 1 CPUs for 2 threads"):
        open_model(fake, threads=2, cpus=[0])


def test_a_missing_library_is_named(fake: Path, tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match=r"nothing\.so: not a usable libpilite\.so") as caught:
        Model(fake, library=tmp_path / "nothing.so")
    assert caught.value.status == "LINK"


def test_another_library_is_not_taken_for_the_loader(fake: Path) -> None:
    with pytest.raises(PiliteError, match=r"libc\.so\.6: not a usable"):
        Model(fake, library="libc.so.6")


PROGRAM = """
import sys
import numpy as np
from pilite import Model
with Model(sys.argv[1], threads=2) as model:
    print(model.run(np.zeros((1, 1000), np.int8), np.array([0, 0, 1, 0], np.int32))[0].sum())
"""


def test_the_file_works_beside_the_library_and_nothing_else(
    tmp_path: Path, files: LoaderFiles, fake: Path
) -> None:
    shutil.copy(LOADER / "pilite.py", tmp_path)
    shutil.copy(files.library, tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run_program([sys.executable, tmp_path / "program.py", fake])
    assert (done.returncode, done.stdout, done.stderr) == (0, "1000\n", "")


def test_the_environment_may_name_the_library(
    tmp_path: Path, files: LoaderFiles, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "renamed.so"
    shutil.copy(files.library, elsewhere)
    monkeypatch.setenv("PILITE_LIBRARY", str(elsewhere))
    with Model(fake) as model:
        assert (model.run(X, COMMAND)[0] == 6).all()
