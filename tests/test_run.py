"""run.py: refuses what it must, recovers an interrupted install, and costs nothing when all is there.

The installs are real (venv, pip, hashes) but small: the lock of a copied checkout names one wheel made here.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import run

ROOT = Path(__file__).parents[1]
TASKS = (
    "import os, sys; print('tasks', *sys.argv[1:], os.getcwd()); sys.exit(7 if 'seven' in sys.argv else 0)\n"
)
SECONDS = 120


def write_wheel(folder: Path) -> str:
    """A wheel `invoke` 1.0 with its console script; returns its sha256."""
    info = "invoke-1.0.dist-info"
    files = {
        "invoke.py": "def main() -> None: ...\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: invoke\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ninvoke = invoke:main\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "invoke-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Checkout:
    """A copy of run.py with a one-wheel lock and a tasks.py that prints its arguments."""

    root: Path
    environment: dict[str, str]

    def start(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.root / "run.py"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd or self.root,
            env={**self.environment, **environment},
            start_new_session=True,
        )

    def run(self, *arguments: str, cwd: Path | None = None, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, cwd=cwd, **environment)
        out, err = process.communicate(timeout=SECONDS)
        return process.returncode, out, err

    @property
    def stamp(self) -> Path:
        return self.root / ".venv" / "pilite.stamp"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout without .venv; pip sees only the wheel made here, and no configuration of this machine."""
    digest = write_wheel(tmp_path / "wheels")
    root = tmp_path / "a checkout"
    root.mkdir()
    shutil.copy(ROOT / "run.py", root)
    (root / "requirements.lock").write_text(f"invoke==1.0 \\\n    --hash=sha256:{digest}\n")
    (root / "tasks.py").write_text(TASKS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "wheels"),
        "HOME": str(tmp_path),
    }
    return Checkout(root, environment)


@pytest.fixture
def complete(checkout: Checkout) -> Checkout:
    """The same with a .venv that looks complete, without the seconds of an install."""
    binaries = checkout.root / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "invoke"):
        (binaries / name).symlink_to(sys.executable)
    checkout.stamp.write_text(run.stamp_text(str(checkout.root)))
    return checkout


GOOD = ((3, 11, 2), "cpython", "Linux", "x86_64", 64, True)


@pytest.mark.parametrize("minor", [10, 11, 12])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_supported_python_and_machine_is_accepted(minor: int, machine: str) -> None:
    assert run.unsupported((3, minor, 0), "cpython", "Linux", machine, 64, True) == ""


@pytest.mark.parametrize(
    ("position", "value", "reason"),
    [
        pytest.param(0, (3, 9, 18), "this is Python 3.9", id="too old"),
        pytest.param(0, (3, 13, 0), "this is Python 3.13", id="too new"),
        pytest.param(1, "pypy", "the interpreter is pypy", id="other interpreter"),
        pytest.param(2, "Darwin", "the system is Darwin", id="other system"),
        pytest.param(3, "armv7l", "the machine is armv7l", id="32-bit machine"),
        pytest.param(4, 32, "the interpreter is a 32-bit one", id="32-bit userland on a 64-bit kernel"),
        pytest.param(5, False, "the C library is not glibc", id="musl"),
    ],
)
def test_anything_else_is_refused_with_its_reason(position: int, value: object, reason: str) -> None:
    facts = [*GOOD[:position], value, *GOOD[position + 1 :]]
    assert run.unsupported(*facts) == reason  # type: ignore[arg-type]


def test_run_py_parses_as_the_python_that_it_has_to_refuse() -> None:
    assert ast.parse((ROOT / "run.py").read_text(), feature_version=(3, 6)).body


def test_missing_ensurepip_is_refused_with_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[[str], object] = lambda name: None if name == "ensurepip" else object()  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", found)
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    with pytest.raises(run.Refusal, match=f"no module ensurepip(.|\n)*apt-get install {re.escape(package)}"):
        run.require_venv_module()


@pytest.mark.parametrize(("needle", "meaning", "action"), run.FAILURES)
def test_a_failure_of_pip_is_explained_with_what_to_do(needle: str, meaning: str, action: str) -> None:
    text = run.explain(f"ERROR: {needle} x")
    assert meaning in text
    assert action in text


def test_a_complete_environment_starts_tasks_with_all_arguments_and_their_exit_code(
    complete: Checkout,
) -> None:
    code, out, err = complete.run("build", "--model", "a b", "seven")
    assert (code, out, err) == (7, f"tasks build --model a b seven {complete.root}\n", "")


def test_tasks_run_in_the_folder_of_the_caller(complete: Checkout, tmp_path: Path) -> None:
    assert complete.run("x", cwd=tmp_path)[1] == f"tasks x {tmp_path}\n"


def test_no_arguments_list_the_tasks(complete: Checkout) -> None:
    assert complete.run()[1].startswith("tasks --list ")


def test_it_costs_less_than_a_fifth_of_a_second_when_all_is_there(complete: Checkout) -> None:
    def seconds() -> float:
        start = time.perf_counter()
        assert complete.run("x")[0] == 0
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.2


@pytest.mark.slow
def test_an_installed_environment_is_used_again(checkout: Checkout) -> None:
    code, out, err = checkout.run("hello", HOME="")
    assert (code, out) == (0, f"tasks hello {checkout.root}\n"), err
    assert ".venv is complete" in err
    assert not (checkout.root / "~").exists()

    code, _, err = checkout.run("hello")
    assert (code, err) == (0, "")


@pytest.mark.slow
def test_a_killed_install_is_recovered_by_the_next_run(checkout: Checkout) -> None:
    process = checkout.start("x")
    assert process.stderr is not None
    assert any("1 invoke" in line for line in process.stderr)  # pip has begun
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not checkout.stamp.exists()

    assert checkout.run("x")[0] == 0
    assert checkout.stamp.read_text() == run.stamp_text(str(checkout.root))


@pytest.mark.slow
def test_a_damaged_environment_without_stamp_is_rebuilt(checkout: Checkout) -> None:
    binaries = checkout.root / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text("not a program")
    assert checkout.run("x")[0] == 0
    assert checkout.run("x")[2] == ""


def test_another_lock_python_or_interpreter_makes_the_environment_incomplete(complete: Checkout) -> None:
    venv, wanted = str(complete.root / ".venv"), run.stamp_text(str(complete.root))
    assert run.is_complete(venv, wanted)
    assert not run.is_complete(venv, wanted.replace(" 3.", " 2."))

    (complete.root / "requirements.lock").write_text("invoke==2.0\n")
    assert not run.is_complete(venv, run.stamp_text(str(complete.root)))

    (complete.root / ".venv" / "bin" / "python").unlink()
    (complete.root / ".venv" / "bin" / "python").symlink_to("/usr/bin/python-that-was-removed")
    assert not run.is_complete(venv, wanted)


@pytest.mark.slow
def test_a_file_with_another_hash_is_not_installed(checkout: Checkout) -> None:
    (checkout.root / "requirements.lock").write_text(f"invoke==1.0 --hash=sha256:{'0' * 64}\n")
    code, out, err = checkout.run("x")
    assert (code, out) == (2, "")
    assert "not the locked one" in err
    assert not checkout.stamp.exists()


@pytest.mark.slow
def test_an_unreachable_index_is_named_with_what_to_do(checkout: Checkout) -> None:
    code, _, err = checkout.run(
        "x", PIP_NO_INDEX="0", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_FIND_LINKS="", PIP_RETRIES="1"
    )
    assert code == 2
    assert "the package index cannot be reached: check the network" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_two_at_once_install_once(checkout: Checkout) -> None:
    both = [checkout.start("x") for _ in range(2)]
    errors = [process.communicate(timeout=SECONDS)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("making .venv" in text for text in errors) == 1
    assert sum("waiting for another run.py" in text for text in errors) == 1


def test_a_checkout_without_lock_is_refused(complete: Checkout) -> None:
    (complete.root / "requirements.lock").unlink()
    code, _, err = complete.run("x")
    assert code == 2
    assert "requirements.lock: No such file or directory. The checkout is incomplete." in err


def requirement_lines(path: Path) -> list[str]:
    lines: Sequence[str] = path.read_text().splitlines()
    return [line.split(" \\")[0] for line in lines if re.match(r"[A-Za-z]", line)]


def test_every_direct_dependency_is_locked_in_a_version_that_fits() -> None:
    locked = [Requirement(line) for line in requirement_lines(ROOT / "requirements.lock")]
    for line in requirement_lines(ROOT / "requirements.in"):
        wanted = Requirement(line)
        versions = [str(pin.specifier).removeprefix("==") for pin in locked if pin.name == wanted.name]
        assert versions, f"{wanted.name} is not locked"
        assert all(wanted.specifier.contains(version) for version in versions)


def test_the_lock_has_a_hash_for_every_package_and_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    packages = re.split(r"\n(?=[a-z])", text)
    assert all("--hash=sha256:" in package for package in packages)
    assert not re.search(r"://|--index-url|--find-links|@ ", text)
