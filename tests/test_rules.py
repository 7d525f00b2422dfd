"""Rules that no linter knows: who imports what, how long things get, what the documents promise."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.parser import Parser

import tasks

ROOT = Path(__file__).parents[1]
OUTSIDE = {"artifacts", "build", "__pycache__"}  # and everything hidden, but for .ci
FILE_LINES = 400
FUNCTION_LINES = 60
SOURCE_SUFFIXES = {".py", ".cc", ".h", ".c", ".sh", ".toml", ".in"}
FORBIDDEN_WORDS = {
    "AutoAdd" + "Policy": "host keys are pinned; an unknown key is refused",
    "Warning" + "Policy": "host keys are pinned; an unknown key is refused",
    "StrictHostKey" + "Checking=no": "host keys are pinned; an unknown key is refused",
    "preserve_all_tensors=" + "True": "it changes what TFLite computes; cut the model instead",
}


TOP_LEVEL = {
    *(".ci", "artifacts", "boards", "docker", "docs", "examples", "loader", "models"),
    *("pilite", "tests", "toolchains", "tasks.py", "run.py", ".gitignore"),
    *("pyproject.toml", "requirements.in", "requirements.lock", "LICENSE"),
    *("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "RESULTS.md"),
}


@dataclass(frozen=True)
class ImportRule:
    """Files below `where` import none of `never`, but for the (file, module) pairs in `allowed`."""

    where: str
    never: tuple[str, ...]
    why: str
    allowed: tuple[tuple[str, str], ...] = ()


IMPORT_RULES = (
    ImportRule("pilite/compiler", ("fabric", "docker", "paramiko", "pilite.lab"), "compiling needs no board"),
    ImportRule("pilite/lab", ("tvm", "tvm_ffi", "pilite.compiler"), "a board's artifact is data to the lab"),
    ImportRule("models", ("tvm", "fabric", "docker", "paramiko", "pilite.lab"), "models are files"),
    ImportRule("loader", ("pilite", "models", "tvm"), "the loader is copied to boards without the rest"),
)
STANDARD_LIBRARY_AND = {"run.py": set[str](), "loader/pilite.py": {"numpy"}}


def files() -> Iterator[Path]:
    """Every file of the checkout that is ours, relative to its root."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if is_ours(name))
        yield from (
            Path(folder, name).relative_to(ROOT) for name in sorted(names) if not name.startswith(".")
        )


def is_ours(folder: str) -> bool:
    return folder == ".ci" or not (folder.startswith(".") or folder in OUTSIDE)


PYTHON = [path for path in files() if path.suffix == ".py"]
TESTS = [path for path in PYTHON if path.name.startswith("test_")]


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{name.name}" for name in node.names)
    return found


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def ids(path: Path) -> str:
    return str(path)


@pytest.mark.parametrize("rule", IMPORT_RULES, ids=lambda rule: rule.where)
def test_a_folder_imports_only_what_its_machine_has(rule: ImportRule) -> None:
    inside = [path for path in PYTHON if path.is_relative_to(rule.where)]
    broken = [
        f"{path} imports {module}: {rule.why}"
        for path in inside
        for module in imports(path)
        if any(is_within(module, never) for never in rule.never)
        and not any(str(path) == file and is_within(module, fine) for file, fine in rule.allowed)
    ]
    assert inside
    assert not broken


@pytest.mark.parametrize(("file", "beside"), STANDARD_LIBRARY_AND.items())
def test_a_file_that_is_used_alone_needs_nothing_but_the_standard_library(
    file: str, beside: set[str]
) -> None:
    tops = {module.split(".")[0] for module in imports(Path(file))}
    assert tops - set(sys.stdlib_module_names) <= beside


def test_listing_the_tasks_loads_no_heavy_package() -> None:
    heavy = ("tvm", "numpy", "fabric", "docker", "paramiko", "rich", "scipy")
    code = f"import sys, tasks; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_nothing_lies_at_the_top_by_accident() -> None:
    """DESIGN.md fixes the top level; a slip of the shell once left a file there."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("no git checkout")
    assert {name.partition("/")[0] for name in tracked.stdout.split()} <= TOP_LEVEL


def test_no_file_is_longer_than_the_ceiling() -> None:
    lengths = {
        path: len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in files()
        if path.suffix in SOURCE_SUFFIXES
    }
    assert {str(path): lines for path, lines in lengths.items() if lines > FILE_LINES} == {}


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef))


def test_no_function_is_longer_than_the_ceiling() -> None:
    lengths = {
        f"{path}:{function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in PYTHON
        for function in functions(path)
    }
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(path) for path in PYTHON if tree(path).body and not ast.get_docstring(tree(path))]
    assert silent == []


@pytest.mark.parametrize(("word", "why"), FORBIDDEN_WORDS.items())
def test_a_forbidden_word_is_nowhere(word: str, why: str) -> None:
    suffixes = SOURCE_SUFFIXES | {".md"}
    users = [path for path in files() if path.suffix in suffixes and word in (ROOT / path).read_text("utf-8")]
    assert not users, why


def called_names(node: ast.AST) -> set[str]:
    """The last part of every name that is called below `node`."""
    calls = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}


def is_check_true(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.keyword)
        and node.arg == "check"
        and isinstance(node.value, ast.Constant)
        and node.value.value is True
    )


def checks_something(function: ast.AST, helpers: dict[str, ast.FunctionDef], depth: int = 3) -> bool:
    """True if it asserts, expects an exception, runs with check=True, or calls a helper that does."""
    if any(isinstance(node, ast.Assert) for node in ast.walk(function)):
        return True
    if any(is_check_true(node) for node in ast.walk(function)):
        return True
    names = called_names(function)
    if names & {"raises", "golden", "validate"} or any(
        name.startswith(("assert_", "check_")) for name in names
    ):
        return True
    return depth > 0 and any(
        checks_something(helpers[name], helpers, depth - 1) for name in names if name in helpers
    )


@pytest.mark.parametrize("path", TESTS, ids=ids)
def test_every_test_can_fail(path: Path) -> None:
    helpers = {function.name: function for function in functions(path)}
    empty = [
        name
        for name, body in helpers.items()
        if name.startswith("test_") and not checks_something(body, helpers)
    ]
    assert empty == []


NAMESPACE = Collection.from_module(tasks)
TASKS = sorted(NAMESPACE.task_names)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_and_each_of_its_options_has_help(name: str) -> None:
    task = NAMESPACE[name]
    assert (task.__doc__ or "").strip().endswith(".")
    options = task.get_arguments()
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_in_the_readme(name: str) -> None:
    assert re.search(rf"`{name}\b|run\.py (\S+ )*{name}\b", read("README.md"))


def commands(document: str) -> list[str]:
    """What the document tells to type after `run.py`, without comments."""
    lines = re.findall(r"python3 run\.py ([^`\n#]*)", read(document))
    return sorted({line.strip() for line in lines if line.strip() and "TASK" not in line})


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_command_of_a_document_is_understood(document: str) -> None:
    shown = commands(document)
    assert shown
    for line in shown:
        Parser(contexts=NAMESPACE.to_contexts()).parse_argv(line.replace("[", "").replace("]", "").split())


PATH = re.compile(
    r"(?<![\w/.<-])((?:pilite|models|loader|tests|docker|toolchains|boards|\.ci)/[\w./-]*)(?![\w<*{])"
)


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "README.md"])
def test_every_path_that_a_document_names_exists(document: str) -> None:
    named = {path.rstrip("./-") for path in PATH.findall(read(document))}
    assert named
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_every_decision_has_a_number_of_its_own() -> None:
    numbers = re.findall(
        r"^- \*\*D(\d+) ", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert numbers
    assert sorted(numbers) == sorted(set(numbers))
