"""Reading a flatbuffer: defaults for what is left out, `Damaged` for what does not fit the file."""

from __future__ import annotations

import struct
from collections.abc import Callable

import flatbuffers
import numpy as np
import pytest

from pilite.compiler.flatbuffer import Damaged, Table, root


def table() -> bytes:
    """Fields: int32 -7, float32 0.5, none, a string, [1, 2, 3], a table, [table, table]."""
    b = flatbuffers.Builder(64)
    text, numbers = b.CreateString("né"), b.CreateNumpyVector(np.array([1, 2, 3], np.int64))
    b.StartObject(1)
    b.PrependUint8Slot(0, 9, 0)
    child = b.EndObject()
    b.StartVector(4, 2, 4)
    b.PrependUOffsetTRelative(child)
    b.PrependUOffsetTRelative(child)
    children = b.EndVector()
    b.StartObject(7)
    b.PrependInt32Slot(0, -7, 0)
    b.PrependFloat32Slot(1, 0.5, 0)
    for slot, offset in ((3, text), (4, numbers), (5, child), (6, children)):
        b.PrependUOffsetTRelativeSlot(slot, offset, 0)
    b.Finish(b.EndObject())
    return bytes(b.Output())


def test_fields_have_the_values_that_were_written() -> None:
    t = root(table())
    numbers, child = t.numbers(4, "int64"), t.table(5)
    assert numbers is not None
    assert (t.number(0, "int32"), t.real(1), t.text(3)) == (-7, 0.5, "né")
    assert numbers.tolist() == [1, 2, 3]
    assert child is not None
    assert [part.number(0, "uint8") for part in (child, *t.tables(6))] == [9, 9, 9]


@pytest.mark.parametrize("slot", [2, 99])
def test_a_field_that_is_left_out_has_its_default(slot: int) -> None:
    t = root(table())
    assert (t.number(slot, "int32", 5), t.real(slot, 1.5), t.text(slot)) == (5, 1.5, "")
    assert (t.numbers(slot, "int32"), t.table(slot), t.tables(slot)) == (None, None, [])


def test_bytes_that_are_no_utf_8_become_replacement_characters() -> None:
    assert root(table().replace("né".encode(), b"n\xff\xff")).text(3) == "n��"


def patched(at: Callable[[Table], int], form: str, value: int) -> Table:
    """The table after one word of the file was overwritten."""
    data = bytearray(table())
    struct.pack_into(form, data, at(root(bytes(data))), value)
    return root(bytes(data))


def field(slot: int) -> Callable[[Table], int]:
    def place(t: Table) -> int:
        position = t.locate(slot, 4)
        assert position is not None
        return position

    return place


def vector_length(t: Table) -> int:
    position = field(4)(t)
    return position + int(struct.unpack_from("<I", t.data, position)[0])


def field_list(t: Table) -> int:
    return t.position - int(struct.unpack_from("<i", t.data, t.position)[0])


BROKEN: dict[str, tuple[Callable[[], object], str]] = {
    "empty": (lambda: root(b""), "an offset points to byte 0 of a file of 0 bytes"),
    "root": (lambda: root(b"\xff\xff\xff\x7f"), "an offset points to byte 2147483647 of a file of 4 bytes"),
    "field list": (lambda: patched(lambda t: t.position, "<i", 2**31 - 1), "an offset points to byte -"),
    "field list too long": (lambda: patched(field_list, "<H", 60_000), "has a field list that does not fit"),
    "table too long": (
        lambda: patched(lambda t: field_list(t) + 2, "<H", 60_000),
        "has 60000 bytes and does not fit the file",
    ),
    "field outside its table": (
        lambda: patched(lambda t: field_list(t) + 4, "<H", 3_000).number(0, "int32"),
        "field 0 of the table at byte [0-9]+ lies outside the table",
    ),
    "vector outside the file": (
        lambda: patched(field(4), "<I", 2**32 - 1).numbers(4, "int64"),
        "an offset points to byte 4294967[0-9]+ of a file",
    ),
    "vector too long": (
        lambda: patched(vector_length, "<I", 2**32 - 1).numbers(4, "int64"),
        "has 4294967295 entries and does not fit the file",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_the_file_is_damage(case: str) -> None:
    read, text = BROKEN[case]
    with pytest.raises(Damaged, match=text):
        read()
