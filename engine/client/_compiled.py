"""The compiled encoder and decoder where there is one, and what does without it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol, TypeVar

from google.protobuf.message import Message

from ._messages import BESIDE_ERROR, Kind

__all__ = ["Writer", "listed", "shape", "writer"]

_T = TypeVar("_T")

fast: Any
try:
    from . import _fast as fast
except ImportError:
    # Not compiled here: the generated classes do the same, more slowly.
    fast = None

_WITHIN: Final = {"codeset.v1.CodeToValidate.date": (0, 99991231)}
"""Numbers that a field takes, where that is less than 32 bits."""


class Writer(Protocol):
    """Grows requests: the same fields at the beginning of each, and then items."""

    def __len__(self) -> int:
        """Bytes of the request so far."""

    def take(self) -> bytes:
        """Return the request, and begin another."""

    def add(self, message: bytes) -> None:
        """Append an item that is encoded already."""

    def fill(self, items: list[Any], at: int, size: int) -> int:
        """Append items from position ``at`` on, until the request has ``size`` bytes; return the position of the first
        that was not appended. It is for the generated classes to encode, or to refuse, if the request has room.
        """

    def fill_rows(self, columns: Any, at: int, stop: int, size: int) -> int:
        """As ``fill``, with the rows of columns."""


class _PlainWriter:
    """A writer that leaves all items to the generated classes."""

    def __init__(self, number: int, start: bytes) -> None:
        self._tag = bytes([number << 3 | 2])
        self._start = start
        self._parts = [start]
        self._size = len(start)

    def __len__(self) -> int:
        return self._size

    def take(self) -> bytes:
        request = b"".join(self._parts)
        self._parts = [self._start]
        self._size = len(self._start)
        return request

    def add(self, message: bytes) -> None:
        size, length = len(message), bytearray(self._tag)
        while size >= 0x80:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        length.append(size)
        self._parts += (bytes(length), message)
        self._size += len(length) + len(message)

    def fill(self, items: list[Any], at: int, size: int) -> int:
        return at

    def fill_rows(self, columns: Any, at: int, stop: int, size: int) -> int:
        return at


def writer(kind: Kind, number: int, start: bytes) -> Writer:
    """Return a writer of requests that begin with ``start`` and have items as their field ``number``, 1 to 15."""
    if fast is None:
        return _PlainWriter(number, start)
    bare = kind.type.DESCRIPTOR.fields_by_name[kind.bare].number if kind.bare else 0
    made: Writer = fast.Writer(shape(kind.type), number, start, bare)
    return made


def listed(repeated: Iterable[_T]) -> list[_T]:
    """Return the messages of a repeated field in a list."""
    if fast is None:
        return list(repeated)
    made: list[_T] = fast.listed(repeated)
    return made


_shapes: Final[dict[type[Message], Any]] = {}


def shape(message: type[Message]) -> Any:
    """Return the ``Shape`` of a message. There has to be a compiled module."""
    if message not in _shapes:
        _shapes[message] = fast.Shape(message.DESCRIPTOR, BESIDE_ERROR, _WITHIN)
    return _shapes[message]
