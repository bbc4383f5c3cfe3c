"""Log lines: one JSON object each, and never anything of a claim.

What may be logged of a request is decided in ``calls``: method, number of items, status, duration,
release, request id. Texts of errors are not logged for requests, because they quote what the caller
sent.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["CALLER", "JsonFormatter", "configure", "where"]

LOGGER = "engine.server"

CALLER: ContextVar[str] = ContextVar("caller", default="")
"""Name of the token that the call being answered came with."""


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: ``time``, ``level``, ``event``, then the fields of
    ``extra["fields"]``. ``always``: fields of every line.
    """

    def __init__(self, **always: Any) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(self._always)
        line.update(getattr(record, "fields", {}))
        return json.dumps(line, ensure_ascii=False, default=str)


class _StandardError(logging.Handler):
    """Writes to what standard error is at that time: a program may put another stream in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def configure(stream: TextIO | None = None, level: int | str = logging.INFO, **always: Any) -> None:
    """Send the server's log to ``stream`` (standard error if None), unless the program has set up its
    own handler. ``always``: fields of every line.
    """
    logger = logging.getLogger(LOGGER)
    if not logger.handlers:
        handler = _StandardError() if stream is None else logging.StreamHandler(stream)
        handler.setFormatter(JsonFormatter(**always))
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(level.upper() if isinstance(level, str) else level)


def where(error: BaseException) -> list[str]:
    """Return where ``error`` was raised, innermost last, without its text or any value.

    The text of an unexpected error may quote the claim it failed on.
    """
    return [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__, limit=-8)
    ]
