"""The wire reader: what protobuf itself writes is read back; anything else is a SourceFormatError."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from codesets import protobuf_wire as wire
from engine.errors import SourceFormatError


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@given(
    st.lists(
        st.tuples(st.integers(1, (1 << 29) - 1), st.one_of(st.integers(0, (1 << 64) - 1), st.binary(max_size=200))),
        max_size=8,
    )
)
def test_reads_what_was_written(message: list[tuple[int, int | bytes]]) -> None:
    data = b""
    for number, value in message:
        if isinstance(value, int):
            data += varint(number << 3) + varint(value)
        else:
            data += varint(number << 3 | 2) + varint(len(value)) + value
    expected = [(n, 0, v) if isinstance(v, int) else (n, 2, v) for n, v in message]
    assert [(n, t, v if isinstance(v, int) else bytes(v)) for n, t, v in wire.fields(data)] == expected


def test_reads_a_message_of_protobuf() -> None:
    message = descriptor_pb2.FileDescriptorProto(name="a.proto", public_dependency=[-1, 3], weak_dependency=[300])
    message.message_type.add(name="é" * 100)
    got = list(wire.fields(message.SerializeToString()))
    assert [number for number, _, _ in got] == [1, 4, 10, 10, 11]
    assert wire.text(got[0][2]) == "a.proto"
    assert [wire.text(value) for _, _, value in wire.fields(got[1][2])] == ["é" * 100]
    assert [wire.int32(n) for _, kind, value in got[2:] for n in wire.packed(value, kind)] == [-1, 3, 300]


def test_fixed_numbers() -> None:
    assert list(wire.fields(b"\x0d\x01\x02\x00\x00\x11" + b"\xff" * 8)) == [(1, 5, 513), (2, 1, (1 << 64) - 1)]


def test_packed_numbers() -> None:
    assert wire.packed(memoryview(b"\x01\xac\x02\x00"), wire.LENGTH_DELIMITED) == [1, 300, 0]
    assert wire.packed(7, wire.VARINT) == [7]
    with pytest.raises(SourceFormatError, match="wire type 5"):
        wire.packed(7, wire.FIXED32)
    with pytest.raises(SourceFormatError, match="cut short"):
        wire.packed(memoryview(b"\x01\x80"), wire.LENGTH_DELIMITED)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",  # field number 0
        b"\x80\x80\x80\x80\x10",  # field number 2**29
        b"\x0b",  # a group
        b"\x0f",  # no wire type
        b"\x08",  # no value
        b"\x08\x80",  # half a varint
        b"\x08" + b"\xff" * 9 + b"\x02",  # 65 bits
        b"\x08" + b"\x80" * 10 + b"\x00",  # 11 bytes
        b"\x0a",  # no length
        b"\x0a\x02a",  # a length past the end
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0d\x00\x00",  # half a fixed number
        b"\x09\x00\x00\x00\x00",
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(SourceFormatError):
        list(wire.fields(data))


def test_values_of_the_wrong_kind() -> None:
    with pytest.raises(SourceFormatError, match="holds a number"):
        wire.text(3)
    with pytest.raises(SourceFormatError, match="holds bytes"):
        wire.int32(memoryview(b""))
    with pytest.raises(SourceFormatError, match="UTF-8"):
        wire.text(memoryview(b"\xff"))


@given(st.binary(max_size=60))
def test_nothing_but_source_format_errors(data: bytes) -> None:
    with contextlib.suppress(SourceFormatError):
        for _, kind, value in wire.fields(data):
            if kind == wire.LENGTH_DELIMITED:
                wire.packed(value, kind)
