"""pilite/lab/signing.py: whose signature counts, for which bytes and for which purpose."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilite.errors import CheckFailed, PiliteError
from pilite.lab import signing

DATA = b"bytes\n"


@pytest.fixture
def keys(tmp_path: Path) -> signing.Keys:
    return signing.own_keys(tmp_path / "keys")


def check(keys: signing.Keys, data: bytes, signature: str, purpose: str = "test") -> None:
    signing.verify(data, signature, keys.allowed, purpose, "file.bin")


def test_a_signature_is_good_for_its_bytes_and_the_same_every_time(keys: signing.Keys) -> None:
    signature = signing.sign(DATA, keys.key, "test")
    check(keys, DATA, signature)
    assert signature == signing.sign(DATA, keys.key, "test")


def test_a_changed_byte_is_refused_by_the_name_of_the_file(keys: signing.Keys) -> None:
    signature = signing.sign(DATA, keys.key, "test")
    with pytest.raises(CheckFailed, match=r"file\.bin: its signature is wrong"):
        check(keys, DATA + b"x", signature)


def test_a_signature_for_one_purpose_is_worth_nothing_for_another(keys: signing.Keys) -> None:
    signature = signing.sign(DATA, keys.key, "test")
    with pytest.raises(CheckFailed):
        check(keys, DATA, signature, "deploy")


def test_a_key_that_is_not_allowed_is_refused(keys: signing.Keys, tmp_path: Path) -> None:
    other = signing.own_keys(tmp_path / "other")
    with pytest.raises(CheckFailed, match="not by a key in"):
        check(keys, DATA, signing.sign(DATA, other.key, "test"))


@pytest.mark.parametrize("signature", ["", "no signature", "\0"])
def test_what_is_no_signature_is_refused(keys: signing.Keys, signature: str) -> None:
    with pytest.raises(CheckFailed):
        check(keys, DATA, signature)


def test_keys_are_made_once_even_by_callers_at_the_same_moment(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: signing.own_keys(tmp_path / "keys").key.read_bytes(), range(4)))
    assert len(set(made)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
    assert (tmp_path / "keys" / "signing_ed25519").stat().st_mode & 0o777 == 0o600


def test_a_missing_half_of_the_keys_is_named_and_not_replaced(keys: signing.Keys) -> None:
    keys.allowed.unlink()
    with pytest.raises(PiliteError, match="allowed_signers is missing"):
        signing.own_keys(keys.key.parent)
    assert keys.key.is_file()


def test_a_key_that_cannot_sign_is_named(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key\n")
    with pytest.raises(PiliteError, match="key: cannot sign"):
        signing.sign(DATA, tmp_path / "key", "test")


def test_a_missing_file_of_signers_is_named(keys: signing.Keys, tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match="nobody: no such file"):
        signing.verify(DATA, signing.sign(DATA, keys.key, "test"), tmp_path / "nobody", "test", "file.bin")


def test_a_machine_without_ssh_keygen_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PiliteError, match="apt-get install openssh-client"):
        signing.own_keys(tmp_path / "keys")
