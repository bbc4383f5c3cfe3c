"""What single calls ask of a library again and again, found once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from ..library import Library

__all__ = ["Known", "KnownOfLatest"]

_Key = TypeVar("_Key")
_Found = TypeVar("_Found")

_MOST = 8192
"""Keys remembered. A caller may name any day of the calendar."""


class Known(dict[_Key, _Found]):
    """What ``find`` makes of a library and a key, by key; found when asked for. What it raises is not remembered.

    Not to keep a library that was replaced: it goes, and so do its packs, when the last request on it ends.
    """

    def __init__(self, library: Library, find: Callable[[Library, _Key], _Found]) -> None:
        super().__init__()
        self.library = weakref.ref(library, self._forget)
        self._find = find

    def __missing__(self, key: _Key) -> _Found:
        library = self.library()
        # Who asks has it.
        assert library is not None
        found = self._find(library, key)
        if len(self) >= _MOST:
            self.clear()
        self[key] = found
        return found

    def _forget(self, _: object) -> None:
        self.clear()


class KnownOfLatest(Generic[_Key, _Found]):
    """What is known of the library that was asked last. Thread-safe."""

    def __init__(self, find: Callable[[Library, _Key], _Found]) -> None:
        self._find = find
        self._known: Known[_Key, _Found] | None = None

    def of(self, library: Library) -> Known[_Key, _Found]:
        """Return what is known of ``library``."""
        known = self._known
        if known is None or known.library() is not library:
            # Two threads may both begin anew; what they find is the same.
            known = self._known = Known(library, self._find)
        return known
