"""Log lines: one JSON object each, and never anything of a claim.

What may be logged of a request is decided in ``calls``: method, number of items, status, duration,
release, request id. Texts of errors are not logged for requests, because they quote what the caller
sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from .._calls import CallLines

__all__ = ["JsonFormatter", "LineHandler", "configure", "direct", "flush", "where"]

LOGGER = "engine.server"

DELAY: Final = 0.1
"""Seconds that the line of a call may wait to be written. A process that is killed does not write what waits."""

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: ``time``, ``level``, ``event``, then the fields of
    ``extra["fields"]``. ``always``: fields of every line.
    """

    def __init__(self, **always: Any) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        return _encode({**line, **self._always, **getattr(record, "fields", {})})


class LineHandler(logging.Handler):
    """Writes lines to ``stream``; None: to what standard error is at that time, as a program may put another in its
    place.

    Lines of calls are added to ``calls`` and written many at once, within ``DELAY`` seconds: making a record of each
    and writing it by itself would take longer than answering. Any other line is written at once, behind those that
    wait.
    """

    def __init__(self, stream: TextIO | None = None, **always: Any) -> None:
        super().__init__()
        self._stream = stream
        self.setFormatter(JsonFormatter(**always))
        self.calls = CallLines(json.dumps(always, default=str)[1:-1])
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop that will write what waits."""

    def added(self, waiting: int) -> None:
        """Have the lines of calls written: soon when one waits, now when it is called again, for they are many. Called
        on an event loop.
        """
        if waiting > 1:
            self.flush()
            return
        loop = asyncio.get_running_loop()
        # A loop that ended before it wrote is no reason to wait for it.
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(DELAY, self._timed)

    def emit(self, record: logging.LogRecord) -> None:
        self.flush()
        try:
            self._write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits."""
        lines = self.calls.take()
        if lines:
            # As in logging: what cannot be logged does not keep a server from answering.
            with contextlib.suppress(OSError, ValueError):
                self._write(lines)

    def _timed(self) -> None:
        self._loop = None
        self.flush()

    def _write(self, text: str) -> None:
        stream = sys.stderr if self._stream is None else self._stream
        with self.lock or contextlib.nullcontext():
            stream.write(text)
            stream.flush()


def direct(logger: logging.Logger) -> LineHandler | None:
    """Return the handler that ``logger``'s records go to, if it is ours and the only one."""
    if not logger.handlers and logger.parent is not None:
        logger = logger.parent
    handler = logger.handlers[0] if len(logger.handlers) == 1 and not logger.propagate else None
    return handler if type(handler) is LineHandler else None


def configure(stream: TextIO | None = None, level: int | str = logging.INFO, **always: Any) -> None:
    """Send the server's log to ``stream`` (standard error if None), unless the program has set up its
    own handler. ``always``: fields of every line.
    """
    logger = logging.getLogger(LOGGER)
    if not logger.handlers:
        logger.addHandler(LineHandler(stream, **always))
        logger.propagate = False
        logger.setLevel(level.upper() if isinstance(level, str) else level)


def flush() -> None:
    """Write the lines that wait."""
    handler = direct(logging.getLogger(LOGGER))
    if handler is not None:
        handler.flush()


def where(error: BaseException) -> list[str]:
    """Return where ``error`` was raised, innermost last, without its text or any value.

    The text of an unexpected error may quote the claim it failed on.
    """
    return [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__, limit=-8)
    ]
