"""The wire format of Protocol Buffers, read without a schema's generated classes: official table files are a few
messages of a few fields, and their ``.proto`` is not published.

Everything is checked against the bytes there are: malformed input raises SourceFormatError with the offset, never
anything else. Groups (wire types 3 and 4) were dropped from the format before these files were made and are rejected.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.errors import SourceFormatError

__all__ = ["FIXED32", "FIXED64", "LENGTH_DELIMITED", "VARINT", "Buffer", "Value", "fields", "int32", "packed", "text"]

Buffer = bytes | memoryview
Value = int | memoryview
"""The number of a varint or fixed field (unsigned, as on the wire), or the bytes of a length-delimited one."""

VARINT = 0
FIXED64 = 1
LENGTH_DELIMITED = 2
FIXED32 = 5

_MOST = 1 << 29


def fields(data: Buffer) -> Iterator[tuple[int, int, Value]]:
    """Yield (field number, wire type, value) of one message, in the order of the wire.

    A length-delimited value is a view of ``data``, not a copy. A field may occur any number of times: which
    occurrence counts (the last, for a scalar) is the caller's business.
    """
    view = memoryview(data)
    end = len(view)
    at = 0
    while at < end:
        start = at
        # Keys and lengths are nearly always one byte: these loops are where the time of an import goes.
        key = view[at]
        at += 1
        if key >= 0x80:
            key, at = _varint(view, start)
        wire_type = key & 7
        number = key >> 3
        if not 0 < number < _MOST:
            raise SourceFormatError(f"protobuf field number {number} at byte {start}: expected 1 to {_MOST - 1}")
        value: Value
        if wire_type == LENGTH_DELIMITED:
            if at < end and view[at] < 0x80:
                size = view[at]
                at += 1
            else:
                size, at = _varint(view, at)
            if size > end - at:
                raise SourceFormatError(
                    f"protobuf field {number} at byte {start} promises {size} bytes, {end - at} are left"
                )
            value = view[at : at + size]
            at += size
        elif wire_type == VARINT:
            if at < end and view[at] < 0x80:
                value = view[at]
                at += 1
            else:
                value, at = _varint(view, at)
        elif wire_type in (FIXED32, FIXED64):
            size = 8 if wire_type == FIXED64 else 4
            if size > end - at:
                raise SourceFormatError(f"protobuf field {number} at byte {start} is cut short: expected {size} bytes")
            value = int.from_bytes(view[at : at + size], "little")
            at += size
        else:
            raise SourceFormatError(f"protobuf wire type {wire_type} at byte {start}: expected 0, 1, 2 or 5")
        yield number, wire_type, value


def packed(value: Value, wire_type: int) -> list[int]:
    """Return the varints of one occurrence of a repeated number field, packed or not (parsers must accept both)."""
    if wire_type == VARINT and isinstance(value, int):
        return [value]
    if wire_type != LENGTH_DELIMITED or isinstance(value, int):
        raise SourceFormatError(f"a repeated number has protobuf wire type {wire_type}: expected 0 or 2")
    numbers = []
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return numbers


def int32(value: Value) -> int:
    """Return the varint of an ``int32`` field with its sign: negative numbers travel as 64-bit two's complement."""
    if not isinstance(value, int):
        raise SourceFormatError("a number field holds bytes in the protobuf message")
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def text(value: Value) -> str:
    """Return the text of a ``string`` field."""
    if isinstance(value, int):
        raise SourceFormatError("a text field holds a number in the protobuf message")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise SourceFormatError(f"a text field of the protobuf message is not UTF-8 ({error})") from None


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    start = at
    end = min(len(view), at + 10)
    number = shift = 0
    while at < end:
        byte = view[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >> 64:
                break
            return number, at
        shift += 7
    raise SourceFormatError(f"protobuf varint at byte {start} is cut short or longer than 64 bits")
