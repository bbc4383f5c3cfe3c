"""What the readers of official files share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from engine.errors import SourceFormatError
from engine.tables import Source

__all__ = ["squeeze", "text_lines", "wrong"]


def wrong(source: Source, what: str) -> SourceFormatError:
    """Return the error to raise when ``source`` is not what it should be; ``what`` says got and expected."""
    where = f"{source.file} of {source.wheel} {source.version}" if source.wheel else source.file
    return SourceFormatError(f"{where}: {what}. The file is damaged or of a layout this version does not know.")


def text_lines(stream: IO[bytes], source: Source) -> Iterator[str]:
    """Yield the lines of a UTF-8 file without their ends (LF or CR LF)."""
    for number, raw in enumerate(stream, 1):
        try:
            yield raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise wrong(source, f"line {number} is {raw[:40]!r}; expected UTF-8 text") from None


def squeeze(text: str | None) -> str:
    """Return ``text`` on one line with single blanks; "" for None."""
    return " ".join(text.split()) if text else ""
