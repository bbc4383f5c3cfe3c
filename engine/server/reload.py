"""New releases without a restart: the store is watched, what is new is verified beside what serves, and one reference
is swapped.

Requests in flight finish with the library that they started with: each read the reference once. A pack that cannot be
used changes nothing for callers: the others come into use, an earlier pack of the same release goes on answering, and
the reason is in the log, in ListReleases, in the metrics and in the health of ``RELEASES``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ..errors import CodesetError
from .logs import LOGGER, where

if TYPE_CHECKING:
    from ..library import Library

__all__ = ["REFUSED", "RELEASES", "ReloadOutcome", "Reloader", "fingerprint"]

RELEASES: Final = "codeset.v1.Releases"
"""Name in the health service of what is loaded: NOT_SERVING as long as something in the store was refused."""

REFUSED: Final = "x-refused-releases"
"""Trailing metadata key of Health.Check: ``system/release=REASON``, separated by commas, where anything was refused."""

_logger = logging.getLogger(LOGGER)

_T = TypeVar("_T")

Fingerprint = frozenset[tuple[str, int, int, int]]


class ReloadOutcome:
    """What a look at the store came to.

    ``library``: what serves now. ``swapped``: whether that is another one than before. ``refused``: by
    ``system/release``, the error of every pack that cannot be used; under "" that of the store as a whole.
    ``seconds``: how long it took.
    """

    __slots__ = ("library", "refused", "seconds", "swapped")

    def __init__(self, library: Library, swapped: bool, refused: dict[str, CodesetError], seconds: float) -> None:
        self.library = library
        self.swapped = swapped
        self.refused = refused
        self.seconds = seconds

    @property
    def name(self) -> str:
        """``swapped``, ``swapped_some`` (something was refused), ``refused`` (nothing came of it) or ``unchanged``."""
        if self.swapped:
            return "swapped_some" if self.refused else "swapped"
        return "refused" if self.refused else "unchanged"


def fingerprint(store: Path) -> Fingerprint:
    """Return what tells a changed store from an unchanged one: name, size, time and inode of every file of every pack.

    Opens no file. About a thousand calls of the system for the default set: a few milliseconds.
    """
    found = set()
    try:
        systems = [entry for entry in os.scandir(store) if _is_shown(entry)]
        for system in systems:
            for release in os.scandir(system):
                if _is_shown(release):
                    for file in os.scandir(release):
                        about = file.stat()
                        name = f"{system.name}/{release.name}/{file.name}"
                        found.add((name, about.st_size, about.st_mtime_ns, about.st_ino))
    except OSError:
        # Something went away while it was listed, or the store is not there. Either is a difference to what was.
        found.add(("", time.monotonic_ns(), 0, 0))
    return frozenset(found)


def _is_shown(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


class Reloader:
    """Watches the store of ``library`` and keeps its successor serving. Lives on the server's event loop.

    ``serve``: called with what to serve, and with every outcome, on the event loop. ``interval``: seconds between two
    looks; 0: only when told.
    """

    def __init__(
        self, library: Library, serve: Callable[[ReloadOutcome], Awaitable[None]], *, interval: float = 0.0
    ) -> None:
        self.library = library
        self.interval = interval
        self._serve = serve
        self._seen = fingerprint(library.store)
        self._turn = asyncio.Lock()
        # A thread of its own: verifying must not wait behind batches, nor they behind it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="codeset-reload")
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        if self.interval > 0 and self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Watch no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def look(self) -> ReloadOutcome | None:
        """Reload if the store is another than at the last look; return None if it is not."""
        async with self._turn:
            seen = await self._run(fingerprint, self.library.store)
            if seen == self._seen:
                return None
            return await self._reload(seen, forget=False)

    async def reload(self) -> ReloadOutcome:
        """Reload whatever the store looks like, and give up releases that are no longer in it."""
        async with self._turn:
            seen = await self._run(fingerprint, self.library.store)
            return await self._reload(seen, forget=True)

    async def _reload(self, seen: Fingerprint, *, forget: bool) -> ReloadOutcome:
        # Remembered before it is read: what changes meanwhile is found by the next look.
        self._seen = seen
        started = time.perf_counter()
        old = self.library
        try:
            new = await self._run(lambda: old.reloaded(forget=forget))
            refused = {f"{path.parent.name}/{path.name}": error for path, error in new.unusable}
        except CodesetError as error:
            new, refused = old, {"": error}
        before, after = ({info.id: info.manifest for info in library.releases()} for library in (old, new))
        swapped = before != after
        # Also if only ``unusable`` is another: ListReleases reads it there.
        self.library = new
        outcome = ReloadOutcome(new, swapped, refused, time.perf_counter() - started)
        fields = {
            "outcome": outcome.name,
            "duration_ms": round(outcome.seconds * 1000, 1),
            "added": sorted(after.keys() - before.keys()),
            "removed": sorted(before.keys() - after.keys()),
            "replaced": sorted(name for name in before.keys() & after.keys() if before[name] != after[name]),
        }
        _logger.info("reload", extra={"fields": fields})
        for name, reason in refused.items():
            _logger.error("refused", extra={"fields": {"release": name, "reason": reason.code, "error": str(reason)}})
        await self._serve(outcome)
        return outcome

    async def _run(self, function: Callable[..., _T], *args: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.interval)
            try:
                await self.look()
            except Exception as error:
                # Whatever it is, what serves goes on serving, and the next look may go well.
                _logger.error(
                    "reload failed", extra={"fields": {"error": type(error).__qualname__, "where": where(error)}}
                )
