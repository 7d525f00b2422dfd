"""What every test may use: golden texts, the parts of this machine, and the rule that CI skips nothing.

A test says what it needs by a marker (`docker`, `qemu`) or by `pytest.skip(reason)`. On a developer's machine
that is a skip with its reason. Under CI=true a skip is a failure, because CI must have every part; only a
reason that starts with `hardware:` stays a skip: what no installation brings, an instruction or a real board.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests import faults

ROOT = Path(__file__).parents[1]
SHARED_MODELS = Path(os.environ.get("PILITE_MODELS", ROOT.parent / "shared" / "models"))
SHARED_IMAGES = SHARED_MODELS.parent / "images"
HARDWARE = "hardware:"


@functools.cache
def missing_docker() -> str:
    """Why docker tests cannot run here, or ""."""
    import docker

    try:
        docker.from_env(timeout=20).ping()
    except (docker.errors.DockerException, OSError) as problem:
        return f"no Docker engine answers ({str(problem).splitlines()[0][:80]}); start dockerd"
    return ""


@functools.cache
def missing_qemu() -> str:
    """Why aarch64 code cannot run here, or ""."""
    if os.uname().machine == "aarch64":
        return ""
    if shutil.which("qemu-aarch64") is None:
        return "no qemu-aarch64; apt-get install qemu-user"
    if not Path("/usr/aarch64-linux-gnu/lib/libc.so.6").exists():
        return "no aarch64 C library; apt-get install libc6-arm64-cross"
    return ""


@functools.cache
def missing_vm() -> str:
    """Why no vm board can run here, or ""."""
    tools = {
        "qemu-system-aarch64": "qemu-system-arm",
        "sqfstar": "squashfs-tools",
        "mkfs.ext4": "e2fsprogs",
        "mmdebstrap": "mmdebstrap",
    }
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = [package for tool, package in tools.items() if not shutil.which(tool, path=path)]
    return f"no vm board: apt-get install {' '.join(lacking)}" if lacking else ""


MISSING: dict[str, Callable[[], str]] = {"docker": missing_docker, "qemu": missing_qemu}


def skips_are_failures() -> bool:
    return os.environ.get("CI") == "true"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden texts anew instead of comparing"
    )
    parser.addoption(
        "--random-models", type=int, default=0, help="one-operator models per numerics and CPU, such as 6000"
    )
    parser.addoption(
        "--fault-page", default="", help="write the table of faults here; with --collect-only, who makes them"
    )
    parser.addoption(
        "--mutated-models", type=int, default=0, help="mutated one-operator models to try, such as 5000"
    )


def kind_of_board(item: pytest.Item) -> str:
    """The kind of board that a test uses, by its parameters and fixtures."""
    words = [item.name, *getattr(item, "fixturenames", ())]
    return next((kind for kind in ("vm", "container") if any(_names(word, kind) for word in words)), "local")


def _names(word: str, kind: str) -> bool:
    """Whether a fixture is of this kind, or a test's name has it as a parameter."""
    return word in (kind, f"{kind}_bed") or kind in re.split(r"[\[\]-]", word)[1:]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for fault in item.iter_markers("fault"):
        item.user_properties.append(("fault", f"{kind_of_board(item)}: {fault.args[0]}"))
    for marker, missing in MISSING.items():
        if item.get_closest_marker(marker) and missing():
            pytest.skip(missing())


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A virtual machine boots for minutes: what needs one is long."""
    for item in items:
        if kind_of_board(item) == "vm":
            item.add_marker(pytest.mark.long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """The runner's processes share one virtual board of each kind: one test at a time uses it."""
    board = "docker" if item.get_closest_marker("docker") else kind_of_board(item)
    if board == "local":
        return (yield)
    lock = ROOT / "artifacts" / f".{board}.tests.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_if_skipped(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of faults: a row per `@pytest.mark.fault(name)`, a column per kind of board."""
    results: dict[str, dict[str, str]] = {}
    page = terminalreporter.config.getoption("--fault-page")
    for outcome in ("passed", "skipped", "failed", "error"):  # a failure covers what passed
        for report in terminalreporter.stats.get(outcome, []):
            for name, fault in getattr(report, "user_properties", []):
                if name == "fault":
                    kind, text = fault.split(": ", 1)
                    results.setdefault(text, {})[kind] = outcome
    if results:
        terminalreporter.section(f"{len(results)} faults")
        for row in faults.rows(results):
            terminalreporter.write_line(row.rstrip())
    if results and page:
        Path(page).write_text(faults.page(results), encoding="utf-8")
        terminalreporter.write_line(page)


def pytest_collection_finish(session: pytest.Session) -> None:
    """With --collect-only, --fault-page says on which kinds of board each fault is made."""
    page = session.config.getoption("--fault-page")
    if page and session.config.option.collectonly:
        made: dict[str, dict[str, str]] = {}
        for item in session.items:
            for fault in item.iter_markers("fault"):
                made.setdefault(fault.args[0], {})[kind_of_board(item)] = "yes"
        Path(page).write_text(faults.page(made), encoding="utf-8")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report)
    return report


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under CI=true turn a skip for a missing part into a failure that says which part."""
    if not (report.skipped and skips_are_failures()) or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(HARDWARE):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI=true, where every part must be there: {reason}"


@pytest.fixture
def shared_models() -> Path:
    """The folder of real models; skips without it."""
    if not SHARED_MODELS.is_dir():
        pytest.skip(f"no folder {SHARED_MODELS}; set PILITE_MODELS to the folder of real models")
    return SHARED_MODELS


@pytest.fixture
def shared_images() -> Path:
    """The folder of pictures beside the real models; skips without it."""
    if not SHARED_IMAGES.is_dir():
        pytest.skip(f"no folder {SHARED_IMAGES}; it is expected beside PILITE_MODELS")
    return SHARED_IMAGES


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Compare a text with tests/golden/<test file>/<test name>.txt; `--update-golden` writes it."""
    module = request.path.relative_to(ROOT / "tests").with_suffix("")
    path = ROOT / "tests" / "golden" / module / f"{request.node.name.replace('/', '_')}.txt"

    def check(text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no golden text {path}; run pytest with --update-golden and read what it wrote"
        assert text == path.read_text(encoding="utf-8")

    return check
