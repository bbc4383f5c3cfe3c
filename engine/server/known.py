"""What single calls ask of a library again and again, found once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ..library import Library

__all__ = ["Known"]

_Key = TypeVar("_Key")
_Found = TypeVar("_Found")


class Known(dict[_Key, _Found]):
    """What ``find`` makes of ``library`` and a key, by key; found when asked for. What it raises is not remembered.

    ``most``: keys remembered; a caller may name any day of the calendar. A library is replaced together with what is
    known of it; a call that has read the one it belongs to stays with both. Two threads may both look for a key; what
    they find is the same.
    """

    def __init__(self, library: Library, find: Callable[[Library, _Key], _Found], most: int = 8192) -> None:
        super().__init__()
        self.library = library
        self._find = find
        self._most = most

    def find(self, key: _Key) -> _Found:
        """Return what is found, not remembered."""
        return self._find(self.library, key)

    def __missing__(self, key: _Key) -> _Found:
        found = self.find(key)
        if len(self) >= self._most:
            self.clear()
        self[key] = found
        return found
