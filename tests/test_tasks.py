"""tasks.py as a user types it: exit codes, what a mistake prints, and state that passes through files."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.parser import Parser

import tasks
from pilite import commandline, console, verbs
from pilite.errors import CheckFailed, PiliteError
from tests import one_op

ROOT = Path(__file__).parents[1]


def typed(*words: str, cwd: Path = ROOT, **environment: str) -> tuple[int, str, str]:
    """Run a command line in this environment: exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tasks.py"), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


MISTAKES = {
    "unknown task": (["biuld"], "No idea what 'biuld' is!"),
    "unknown option": (["build", "--modle", "x"], "No idea what '--modle' is!"),
    "option without value": (["build", "--model"], "needed value"),
    "no number": (["run", "--threads", "two"], "--threads two: not a whole number above 0"),
    "zero": (["bench", "--threads", "0,1"], "--threads 0,1: not a whole number above 0"),
    "negative": (["compare", "--threads", "-1"], "--threads"),
    "two numbers where one is meant": (
        ["run", "--threads", "1,4"],
        "--threads 1,4: one whole number is needed",
    ),
    "unknown numerics": (["build", "--numerics", "exact"], "no numerics 'exact': choose one of ref"),
    "a tag without a farm": (["bench", "--tag", "cpu=any"], "it needs --labgrid HOST:PORT"),
    "a farm without a tag": (["bench", "--labgrid", "farm:1"], "--labgrid farm:1: needs --tag KEY=VALUE"),
    "a farm and a board": (
        ["bench", "--labgrid", "farm:1", "--tag", "cpu=any", "--board", "local"],
        "by which it chooses the board itself",
    ),
    "unknown rival": (["bench", "--rival", "onnx"], "--rival onnx: unknown; known: tflite, litert"),
    "unknown model": (["build", "--model", "mobilenet_v9"], "mobilenet_v9"),
    "unknown board": (["build", "--board", "toaster"], "local"),
    "unknown fusing": (["build", "--fuse", "on"], "no fusing 'on': choose one of off, auto, all"),
    "no core model": (["tune", "--cpu", "x86-64-v4"], "no core model for x86-64-v4: tune it with --board"),
    "unknown cpu": (["build", "--cpu", "z80"], "cortex-a72"),
    "shape without a name": (
        ["build", "--input-shape", "1,224,224,3"],
        "--input-shape 1,224,224,3: write NAME=SIZE,SIZE,... with sizes from 1, as in image=1,224,224,3.",
    ),
    "shape of no input": (
        ["build", "--input-shape", "nothing=1,2", "--model", "mobilenet_v1_0.25_32_int8"],
        "mobilenet_v1_0.25_32_int8.tflite: --input-shape nothing=...: its inputs are",
    ),
    "unknown board to deploy to": (["deploy", "--board", "toaster"], "local"),
    "artifact that does not exist": (["run", "--artifact", "no/such.so"], "no/such.so"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_with_exit_code_2_and_a_text_without_traceback(name: str) -> None:
    words, said = MISTAKES[name]
    code, _, err = typed(*words)
    assert said in err
    assert "Traceback" not in err
    assert code == 2


def test_help_of_a_task_lists_its_options() -> None:
    code, out, _ = typed("--help", "bench")
    assert code == 0
    assert all(option in out for option in ("--board", "--model", "--threads", "--rival", "--json"))


@pytest.mark.parametrize("name", ["ops", "kernels", "models"])
def test_a_table_is_printed(name: str) -> None:
    code, out, err = typed(name)
    assert code == 0, err
    assert len(out.splitlines()) > 5


def test_doctor_writes_json_and_finds_what_is_required(tmp_path: Path) -> None:
    code, out, err = typed("doctor", "--json", str(tmp_path / "new" / "doctor.json"))
    assert code == 0, err
    assert "zig" in out
    assert json.loads((tmp_path / "new" / "doctor.json").read_text())["schema"] == "pilite.doctor/1"


@pytest.mark.parametrize("target", ["-", "/dev/stdout"])
def test_json_to_standard_output_stands_there_alone(target: str) -> None:
    code, out, err = typed("history", "--last", "1", "--json", target)
    assert (code, json.loads(out)["schema"]) == (0, "pilite.history/1")
    assert "rows" in err


def test_json_to_a_device_leaves_it_what_it_is() -> None:
    console.write_json(Path(os.devnull), {})
    assert Path(os.devnull).is_char_device()


def test_a_cpu_without_a_model_of_it_is_a_mistake_of_use() -> None:
    code, _, err = typed("profile", "--cpu", "cortex-a53")
    assert code == 2
    assert "--cpu cortex-a53: a board has its own CPU; --cpu is for --estimated." in err


def test_a_json_file_that_cannot_be_written_is_a_mistake_of_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = typed("doctor", "--json", str(tmp_path / "file" / "doctor.json"))
    assert code == 2
    assert "cannot be written" in err


@pytest.mark.parametrize(("failure", "code"), [(PiliteError("use"), 2), (CheckFailed("check"), 1)])
def test_an_expected_failure_becomes_its_text_and_exit_code(failure: PiliteError, code: int) -> None:
    from invoke.exceptions import Exit

    with pytest.raises(Exit) as caught, commandline.failures_as_text():
        raise failure
    assert (caught.value.code, caught.value.message) == (code, str(failure))


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device. Make room and run"),
        (errno.EROFS, "Make it readable and writable for this user and run again"),
        (errno.EACCES, "Permission denied. Make it readable and writable"),
    ],
)
def test_a_disk_that_refuses_becomes_a_text_with_what_to_do(number: int, advice: str) -> None:
    from invoke.exceptions import Exit

    with pytest.raises(Exit, match=rf"^artifacts/x: .*{advice}"), commandline.failures_as_text():
        raise OSError(number, os.strerror(number), "artifacts/x")


def test_an_unexpected_failure_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), commandline.failures_as_text():
        _ = 1 / 0


@pytest.mark.parametrize("text", ["", "1,", ",", "0", "-1", "1.5", "1e3", "\u0661", "9" * 5000, "1,x"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(PiliteError, match="--threads"):
        console.whole_numbers(text, "--threads")


def test_whole_numbers_may_have_spaces() -> None:
    assert console.whole_numbers("1, 4", "--threads") == [1, 4]


def test_names_are_split_and_checked() -> None:
    assert console.chosen("tflite, litert", ("tflite", "litert"), "--rival") == ["tflite", "litert"]
    assert console.chosen("", ("tflite",), "--rival") == []


def test_a_table_shows_rows_under_their_keys(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_table("Title", [{"name": "[red]x", "ms": 1.5, "ok": True, "none": None}])
    out = capsys.readouterr().out
    assert all(word in out for word in ("Title", "name", "[red]x", "1.500", "yes"))


def test_output_that_is_no_terminal_is_plain() -> None:
    code, out, err = typed("kernels", TERM="xterm-256color", COLORTERM="truecolor")
    assert code == 0, err
    assert "\x1b" not in out
    assert not set(out) & set("┃│━─┏┓")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    console.write_json(path, {"schema": "x/1"})
    with pytest.raises(TypeError):
        console.write_json(path, {"schema": object()})
    assert json.loads(path.read_text()) == {"schema": "x/1"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_tasks_in_one_line_pass_their_state_through_files(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    model = ["--model", "mobilenet_v1_0.25_128_uint8"]
    last = ["bench", *model, "--threads", "1", "--rival", "tflite", "--json", str(result)]
    code, out, err = typed("build", *model, "deploy", *model, *last)
    assert code == 0, err
    document = json.loads(result.read_text())
    assert {row["runtime"] for row in document["rows"]} == {"pilite", "tflite"}
    assert [check["mismatches"] for check in document["checks"]] == [0]
    assert "result.json" in out


def test_pilite_offers_its_names_without_loading_them() -> None:
    import pilite

    assert pilite.Graph.__module__ == "pilite.compiler.graph"
    with pytest.raises(AttributeError, match="has no attribute 'graph_of'; it has Graph, Model, compile"):
        _ = pilite.graph_of


def parsed(line: str) -> dict[str, dict[str, object]]:
    """The options of every task of a chain, after sharing."""
    found = Parser(contexts=commandline.Namespace.from_module(tasks).to_contexts()).parse_argv(line.split())
    commandline.share(found)
    return {str(task.name): {name: task.args[name].value for name in task.args} for task in found}


def test_an_option_given_once_holds_for_the_whole_chain() -> None:
    chain = parsed("build deploy bench --board container --model a")
    boards = [chain[name]["board"] for name in ("build", "deploy", "bench")]
    assert boards == [["container"]] * 3
    assert all(options["model"] == ["a"] for options in chain.values())


def test_two_files_of_one_name_are_refused_and_one_file_twice_is_one(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "m.tflite" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.touch()
    assert len(verbs.sources([str(paths[0])] * 2)) == 1
    with pytest.raises(PiliteError, match=r"a/m.tflite and .*b/m.tflite are both called 'm'.* Rename one"):
        verbs.sources([str(path) for path in paths])


def test_a_model_with_another_input_shape_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is new, and the given one as it was."""
    monkeypatch.setattr(verbs, "ARTIFACTS", tmp_path / "artifacts")
    case = one_op.seeded("RELU", "int8", 0)
    (tmp_path / "m.tflite").write_bytes(case.model)
    (source,) = verbs.sources([str(tmp_path / "m.tflite")])
    (shape,) = (x.shape for x in case.inputs)
    (wider,) = verbs.sources([str(source.path)], [f"t0={','.join(str(n + 1) for n in shape)}"])

    assert (wider.name, wider.path.name) == ("m", "m.tflite")
    assert wider.path.read_bytes() != source.path.read_bytes() == case.model


def test_an_input_shape_holds_for_the_whole_chain() -> None:
    shapes = ["a=1,2,3"]
    found = parsed("build --input-shape a=1,2,3 deploy bench")

    assert [one["input-shape"] for one in found.values()] == [shapes, shapes, shapes]


def test_a_task_keeps_its_own_option_in_a_chain() -> None:
    chain = parsed("build --model a deploy --model b bench")
    assert (chain["build"]["model"], chain["deploy"]["model"], chain["bench"]["model"]) == (["a"], ["b"], [])


def test_several_boards_are_not_shared_with_a_task_that_takes_one() -> None:
    chain = parsed("deploy --board a --board b bench profile")
    assert chain["profile"]["board"] == "local"
    assert chain["bench"]["board"] == ["a", "b"]


def test_a_pipe_that_its_reader_closes_early_ends_quietly() -> None:
    shell = f'"{sys.executable}" "{ROOT / "tasks.py"}" ops | head -c 1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert int(done.stdout[1:]) in (0, commandline.CLOSED_PIPE)  # 0: all of it fitted into the pipe


def test_the_page_of_faults_that_a_run_before_has_written_is_no_path_of_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pytest takes a word that is an existing file for tests, and then finds no conftest with the option."""
    commands: list[tuple[str, ...]] = []

    def passed(*command: str) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(tasks, "python_module", passed)
    tasks.test.body(None, faults=True)

    assert [word for word in commands[0] if "faults.md" in word] == ["--fault-page=artifacts/faults.md"]
