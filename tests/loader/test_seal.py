"""pilite/seal.py: the file format, from the side that writes it."""

from __future__ import annotations

import struct

import pytest

from pilite.errors import ModelError
from pilite.seal import ABI_MAJOR, ABI_MINOR, FOOTER_BYTES, FORMAT, MACHINES, MAGIC, canonical, seal, unseal
from tests.loader.fakes import LOADER

ELF = b"\x7fELF" + bytes(14) + struct.pack("<H", MACHINES["aarch64"]) + bytes(81)
MANIFEST = {"name": "größe", "build_id": "ab" * 32, "tensors": [{"scale": 0.1}]}


def test_unseal_gives_back_what_was_sealed() -> None:
    assert unseal(seal(ELF, MANIFEST)) == (ELF, MANIFEST)


def test_the_same_manifest_in_another_order_seals_to_the_same_bytes() -> None:
    assert seal(ELF, dict(reversed(MANIFEST.items()))) == seal(ELF, MANIFEST)


@pytest.mark.parametrize("extra", range(9))
def test_footer_begins_at_a_multiple_of_8(extra: int) -> None:
    sealed = seal(ELF + bytes(extra), MANIFEST)
    assert len(sealed) % 8 == 0
    assert unseal(sealed) == (ELF + bytes(extra), MANIFEST)


def test_footer_is_laid_out_as_the_header_file_says() -> None:
    sealed = seal(ELF, MANIFEST)
    fields = struct.unpack("<8sIIQQQIIQQ", sealed[-FOOTER_BYTES:])
    assert fields[:4] == (b"PILITE01", 1, 183, len(ELF))
    assert fields[4] == len(sealed) - FOOTER_BYTES - len(ELF)
    assert fields[6:8] == (1, 1)
    assert fields[9] == 0


def test_constants_are_those_of_the_header_file() -> None:
    header = (LOADER / "pilite_abi.h").read_text()
    assert f'PILITE_MAGIC "{MAGIC.decode()}"' in header
    assert f"PILITE_ABI_MAJOR {ABI_MAJOR}u" in header
    assert f"PILITE_ABI_MINOR {ABI_MINOR}u" in header
    assert f"constexpr uint32_t kFormat = {FORMAT};" in (LOADER / "artifact.h").read_text()


def test_manifest_is_ascii_without_blanks() -> None:
    assert canonical(MANIFEST) == (
        b'{"build_id":"' + b"ab" * 32 + b'","name":"gr\\u00f6\\u00dfe","tensors":[{"scale":0.1}]}'
    )


def test_a_manifest_with_nan_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        seal(ELF, {"scale": float("nan")})


def test_every_damaged_byte_is_noticed() -> None:
    sealed = seal(ELF, MANIFEST)
    for i in range(len(sealed)):
        with pytest.raises(ModelError, match="not an intact pilite artifact"):
            unseal(sealed[:i] + bytes([sealed[i] ^ 0x10]) + sealed[i + 1 :])


def test_every_truncation_is_noticed() -> None:
    sealed = seal(ELF, MANIFEST)
    for n in range(len(sealed)):
        with pytest.raises(ModelError, match="not an intact pilite artifact"):
            unseal(sealed[:n])


@pytest.mark.parametrize("text", [b"[1]     ", b"{       "], ids=["a list", "not JSON"])
def test_a_manifest_that_is_no_object_is_refused(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilite.seal.canonical", lambda _: text)
    sealed = seal(ELF, {})
    with pytest.raises(ModelError, match="manifest is not"):
        unseal(sealed)
