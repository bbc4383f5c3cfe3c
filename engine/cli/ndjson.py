"""Files of JSON objects, one a line: read bounded, compressed by their names, written whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

from ..errors import CodesetError, InvalidFieldError, MessageTooLargeError

__all__ = ["MAX_LINE", "read_lines", "reading", "writing"]

MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes of one line; what is longer is no claim, and is skipped rather than held in memory."""

_BOM = b"\xef\xbb\xbf"


@contextlib.contextmanager
def reading(name: str) -> Iterator[tuple[IO[bytes], Callable[[], int], int]]:
    """Open ``name`` for reading ("-": standard input), decompressing .gz and .xz.

    Yields the stream, a function that says how many bytes of the file have been read, and the file's bytes (0 if it
    has none to speak of). Raises OSError, and InvalidFieldError if a compressed file is none, or is damaged.
    """
    if name == "-":
        yield sys.stdin.buffer, lambda: 0, 0
        return
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(Path(name).open("rb"))
        size = os.fstat(raw.fileno()).st_size
        # The position of the file below: that of a compressed stream is no measure of what is left.
        position = raw.tell
        if name.endswith(".gz"):
            stream = cast(IO[bytes], stack.enter_context(gzip.open(raw)))
        elif name.endswith(".xz"):
            stream = cast(IO[bytes], stack.enter_context(lzma.open(raw)))
        else:
            stream = raw
        try:
            yield stream, position, size
        except (gzip.BadGzipFile, lzma.LZMAError, EOFError) as error:
            raise InvalidFieldError(
                f"{name}: its name says compressed, and its content cannot be decompressed ({error}). Give the whole "
                "file, or a name without .gz or .xz if it is not compressed.",
                field="input",
            ) from None


def read_lines(stream: IO[bytes]) -> Iterator[bytes | CodesetError]:
    """Yield each line without its end; the error that stands for it if it is longer than MAX_LINE."""
    first = True
    # Room for the end of the longest line, so that it is told from a longer one.
    while line := stream.readline(MAX_LINE + 2):
        if first:
            first = False
            line = line.removeprefix(_BOM)
        content = line.rstrip(b"\r\n")
        if len(content) <= MAX_LINE:
            yield content
            continue
        length = len(line)
        while not line.endswith(b"\n") and (line := stream.readline(MAX_LINE)):
            length += len(line)
        yield MessageTooLargeError(f"a line of {length:,} bytes; at most {MAX_LINE:,} are read")


@contextlib.contextmanager
def writing(name: str) -> Iterator[IO[bytes]]:
    """Open ``name`` for writing ("-": standard output), compressing by .gz and .xz.

    The file appears under its name when all of it is written, and not at all if anything is raised. What is there and
    is no regular file (a device, a pipe) is written as it comes. Raises OSError.
    """
    if name == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    # A link stays one: what it names is replaced.
    path = Path(name).resolve()
    if path.exists() and not path.is_file():
        with path.open("wb") as special, _compressing(special, name) as stream:
            yield stream
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            with _compressing(file, name) as stream:
                yield stream
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # Nobody knows the temporary name.
        if error.filename == str(temporary):
            error.filename = name
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _compressing(file: IO[bytes], name: str) -> Iterator[Any]:
    if name.endswith(".gz"):
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as stream:
            yield stream
    elif name.endswith(".xz"):
        # Preset 6 writes a fifth smaller and takes five times as long: grouping would wait for it.
        with lzma.LZMAFile(file, "wb", preset=1) as stream:
            yield stream
    else:
        yield file
