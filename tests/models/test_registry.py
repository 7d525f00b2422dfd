"""Names and paths become files: made, found, downloaded, reused; everything else is a clear refusal."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import models
from models import registry, zoo
from models.registry import Entry
from pilite.errors import ModelError, PiliteError

TINY = "mobilenet_v1_0.1_32_uint8"  # a zoo name that is not in models.toml


@pytest.fixture
def said() -> list[str]:
    return []


# Paths.


def test_a_path_is_taken_as_it_is_and_named_by_its_stem(tmp_path: Path) -> None:
    path = tmp_path / "my net.v2 (final).tflite"
    path.write_bytes(b"not read here")

    assert models.resolve(str(path), tmp_path) == models.Source("my-net.v2-final", path, "path")


@pytest.mark.parametrize(
    ("stem", "name"), [("..", "model"), (".hidden", "hidden"), ("a/b", "a-b"), ("ü", "model")]
)
def test_a_name_made_from_a_stem_stays_in_its_folder(stem: str, name: str) -> None:
    assert registry._safe(stem) == name


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match=r"is a folder, not a model\. Give the \.tflite file"):
        models.resolve(str(tmp_path), tmp_path)


def test_a_pipe_is_refused_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tflite")

    with pytest.raises(PiliteError, match="not a regular file"):
        models.resolve(str(tmp_path / "x.tflite"), tmp_path)


@pytest.mark.parametrize("text", ["missing.tflite", "folder/missing"])
def test_a_missing_path_says_where_it_was_looked_for(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(PiliteError, match=re.escape(f"there is no file {text} (looked in {tmp_path})")):
        models.resolve(text, tmp_path)


def test_a_known_name_with_a_suffix_gets_the_hint(tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match=f"Without .tflite, {models.DEFAULT_MODEL} is a known name"):
        models.resolve(f"{models.DEFAULT_MODEL}.tflite", tmp_path)


# Unknown names.


def test_an_unknown_name_lists_what_is_close_and_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(PiliteError) as caught:
        models.resolve("mobilenet_v2_1.0_224", tmp_path)

    text = str(caught.value)
    assert "Did you mean mobilenet_v2_1.0_224_" in text
    assert zoo.FORM in text
    assert all(name in text for name in registry.entries())
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "name",
    ["", "zzz", "mobilenet_v2_9.0_224_uint8", "x" * 5000, "x/" * 5000, "a\0b", "~nobody-of-this-name/x"],
)
def test_a_name_like_nothing_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PiliteError):
        models.resolve(name, tmp_path)


# models.toml.


def test_the_default_model_is_a_pinned_mobilenet_v2_of_the_zoo() -> None:
    entry = registry.entries()[models.DEFAULT_MODEL]

    assert entry.kind == "zoo"
    assert entry.recipe == zoo.Recipe("mobilenet_v2", 1.0, 224, "uint8")


@pytest.mark.parametrize("entry", registry.entries().values(), ids=lambda entry: entry.name)
def test_every_entry_pins_its_bytes(entry: Entry) -> None:
    assert re.fullmatch("[0-9a-f]{64}", entry.sha256) or re.fullmatch("[0-9a-f]{40}", entry.git_blob)
    assert entry.input
    assert entry.licence
    assert registry._safe(entry.name) == entry.name
    if entry.kind == "zoo":
        assert entry.recipe is not None
        assert entry.recipe.name == entry.name
    else:
        assert entry.source
        assert entry.url.startswith("https://")


def test_files_in_the_folder_are_those_that_models_toml_names(shared_models: Path, tmp_path: Path) -> None:
    found = {path.stem: path for path in shared_models.glob("*.tflite") if path.stem in registry.entries()}

    assert len(found) >= 10
    for name, path in found.items():
        assert models.resolve(name, tmp_path, shared_models) == models.Source(name, path, "file")
    assert not list(tmp_path.iterdir())


def test_the_table_shows_every_name_and_the_form_of_the_others() -> None:
    rows = models.table()

    assert [row["name"] for row in rows] == [*registry.entries(), zoo.FORM]
    assert all(isinstance(text, str) and text for row in rows for text in row.values())


# Zoo models.


def test_a_zoo_model_is_made_once_and_then_reused(tmp_path: Path, said: list[str]) -> None:
    first = models.resolve(TINY, tmp_path, say=said.append)
    written = first.path.stat().st_mtime_ns
    again = models.resolve(TINY, tmp_path, say=said.append)

    assert again == first == models.Source(TINY, tmp_path / "models" / f"{TINY}.tflite", "zoo")
    assert again.path.stat().st_mtime_ns == written
    assert [line.split()[1] for line in said] == ["made", "reused"]


def test_progress_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models.resolve(TINY, tmp_path)

    assert f"{TINY}: made" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["model", "record", "no record"])
def test_a_damaged_zoo_model_is_made_again(damage: str, tmp_path: Path, said: list[str]) -> None:
    path = models.resolve(TINY, tmp_path, say=said.append).path
    good, record = path.read_bytes(), path.with_suffix(".json")
    if damage == "model":
        path.write_bytes(good[:-1] + b"x")
    elif damage == "record":
        record.write_text("{")
    else:
        record.unlink()

    models.resolve(TINY, tmp_path, say=said.append)

    assert path.read_bytes() == good
    assert said[-1].startswith(f"{TINY}: made")


def test_changed_generator_code_makes_the_model_again(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.resolve(TINY, tmp_path, say=said.append).path
    monkeypatch.setattr(registry, "_identity", lambda recipe: "of other code")

    models.resolve(TINY, tmp_path, say=said.append)

    assert said[-1].startswith(f"{TINY}: made")
    assert json.loads(path.with_suffix(".json").read_text())["recipe"] == "of other code"


def test_a_zoo_model_with_other_bytes_than_pinned_is_an_error_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = zoo.parse(TINY)
    assert recipe is not None
    pinned = Entry(TINY, "zoo", "", "", sha256="0" * 64, recipe=recipe)
    monkeypatch.setattr(registry, "entries", lambda: {TINY: pinned})

    with pytest.raises(ModelError, match=f"has sha256 [0-9a-f]{{64}}, models.toml pins {'0' * 64}"):
        models.resolve(TINY, tmp_path, say=lambda line: None)

    assert not list((tmp_path / "models").glob("*.tflite"))


def test_a_reused_zoo_model_must_be_the_pinned_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.resolve(TINY, tmp_path, say=lambda line: None)
    pinned = Entry(TINY, "zoo", "", "", sha256="0" * 64, recipe=zoo.parse(TINY))
    monkeypatch.setattr(registry, "entries", lambda: {TINY: pinned})

    with pytest.raises(ModelError, match=r"models\.toml pins"):
        models.resolve(TINY, tmp_path, say=lambda line: None)


def test_users_of_one_name_at_once_wait_for_one_of_them(tmp_path: Path, said: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: models.resolve(TINY, tmp_path, say=said.append), range(4)))

    assert len(set(sources)) == 1
    assert sum(" made " in line for line in said) == 1
    assert sum(" reused " in line for line in said) == 3


def test_a_folder_that_cannot_be_written_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder belongs")

    with pytest.raises(PiliteError, match=r"cannot write .*models.*: "):
        models.resolve(TINY, tmp_path)
