"""The official distribution of the MS-DRG grouper: tables of every version in one file, as
``engine.tables.MsdrgTables``.

CMS ships the tables of its Java grouper in ``msdrg-binary-access-*.jar`` (a zip), entry
``runtime_buffers/msdrg_combined.bin``: one Protocol Buffers message whose schema is not published. Field numbers are
those of ``docs/load-a-release.md``; fields that nothing here names are skipped, as the format intends.

Every row lists the version numbers it holds for (431 is 43.1), not a range. A file holds whatever versions CMS put
into it, those to come included: their days follow from the number (``effective_dates``). The order of rows, the
numbers of patterns and the numbers of exclusion groups carry no meaning.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

from engine.errors import SourceFormatError, SourceUnavailableError, UnknownReleaseError
from engine.tables import Cluster, DiagnosisAttributes, Formula, MsdrgTables, Source

from ._files import wrong
from .protobuf_wire import Value, fields, int32, packed, text

__all__ = ["ENTRY", "FIRST_VERSION", "MsdrgRelease", "effective_dates", "read_release"]

ENTRY: Final = "runtime_buffers/msdrg_combined.bin"
"""The table file inside the jar."""
FIRST_VERSION: Final = "40.0"
"""The oldest version whose rules the grouper has: what changed before is in the CMS code, not in its tables."""

_FIRST = 400
_LARGEST = 1 << 30  # bytes of an unpacked table file; those of today have 11 million
_CODE = re.compile(r"[0-9A-Z@]{1,8}")
_SEVERITIES = ("MCC", "CC", "NCC")
_TYPES = ("SURGICAL", "MEDICAL", "NA")

# Numbers of the tables in the outermost message.
_DIAGNOSES, _PROCEDURES, _EXCLUSION_GROUPS, _EXCLUSIONS, _CLUSTERS, _GENDER_MDCS = 1, 2, 4, 5, 6, 7
_FORMULAS, _HAC_FORMULAS, _DX_PATTERNS, _PR_PATTERNS = 8, 9, 11, 12
_DRG_TITLES, _MDC_TITLES, _HAC_TITLES = 13, 14, 16
_NAMES: Final = {
    _DIAGNOSES: "diagnoses",
    _PROCEDURES: "procedures",
    _EXCLUSION_GROUPS: "exclusion groups",
    _EXCLUSIONS: "principal diagnoses' exclusion groups",
    _CLUSTERS: "clusters",
    _GENDER_MDCS: "MDCs by sex",
    _FORMULAS: "formulas",
    _HAC_FORMULAS: "HAC formulas",
    _DX_PATTERNS: "diagnosis patterns",
    _PR_PATTERNS: "procedure patterns",
    _DRG_TITLES: "DRG titles",
    _MDC_TITLES: "MDC titles",
    _HAC_TITLES: "HAC titles",
}

T = TypeVar("T")
_Key = TypeVar("_Key", str, int)
_Versioned = Mapping[int, T]
"""What a key has in each version number."""


def effective_dates(version: str) -> tuple[int, int]:
    """Return the first and last discharge date (CCYYMMDD) that ``version`` groups.

    Version N.0 begins with fiscal year 1983 + N, on 1 October; N.1 takes over on 1 April. (43.0: FY2026.)
    """
    major, _, minor = version.partition(".")
    year = 1983 + int(major)
    return (year * 10000 + 401, year * 10000 + 930) if int(minor) else ((year - 1) * 10000 + 1001, year * 10000 + 331)


def read_release(path: Path) -> MsdrgRelease:
    """Read the jar of a CMS release, or the bare ``msdrg_combined.bin``.

    Raises SourceUnavailableError if the file cannot be read, SourceFormatError if it is neither, is damaged, or holds
    no version from ``FIRST_VERSION`` on.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceUnavailableError(f"{path} cannot be read ({error.strerror}).") from None
    source = Source("", "", hashlib.sha256(data).hexdigest(), path.name, "", ("msdrg",))
    return MsdrgRelease(_unpacked(data, source), source)


class MsdrgRelease:
    """The tables of one official file. ``data`` is the content of ``msdrg_combined.bin``.

    ``versions``: the versions it holds that the grouper can compile, oldest first ("43.0", "43.1"). ``older``: those
    before ``FIRST_VERSION``, which are left alone. Titles of base DRGs exist only in this format and are not read, so
    that a pack does not depend on which source it was made from.

    Raises SourceFormatError.
    """

    def __init__(self, data: bytes, source: Source) -> None:
        reader = _Reader(source)
        reader.open(data)
        self._dx_patterns = reader.names(_DX_PATTERNS, 1)
        self._pr_patterns = reader.names(_PR_PATTERNS, 2)
        self._exclusion_groups = reader.exclusion_groups()
        self._diagnoses = reader.by_code(_DIAGNOSES, 6, self._diagnosis)
        self._procedures = reader.by_code(_PROCEDURES, 2, self._procedure)
        self._exclusions = reader.by_code(_EXCLUSIONS, 2, self._exclusion)
        self._clusters = reader.by_code(_CLUSTERS, 4, _cluster)
        self._gender_mdcs = reader.by_code(_GENDER_MDCS, 2, _gender_mdcs)
        self._drg_titles = reader.by_number(_DRG_TITLES, 7, _title)
        self._mdc_titles = reader.by_number(_MDC_TITLES, 7, _title)
        self._hac_titles = reader.by_number(_HAC_TITLES, 7, _title)
        self._formulas = reader.formulas()
        self._hac_formulas = reader.hac_formulas()
        numbers = sorted({number for _, number in self._formulas})
        self.versions = tuple(_version(number) for number in numbers if number >= _FIRST)
        self.older = tuple(_version(number) for number in numbers if number < _FIRST)
        if not self.versions:
            held = f"MS-DRG {', '.join(self.older)}" if self.older else "no formulas of any version"
            raise wrong(source, f"it holds {held}; expected MS-DRG {FIRST_VERSION} or later")
        held = self.versions[0] if len(self.versions) == 1 else f"{self.versions[0]} to {self.versions[-1]}"
        self.source = Source("", "", source.sha256, source.file, held, source.provides)

    def tables(self, version: str) -> MsdrgTables:
        """Return the tables of one of ``versions``.

        Raises UnknownReleaseError for another one, SourceFormatError if the file has formulas of it but no codes.
        """
        if version not in self.versions:
            if version in self.older:
                raise UnknownReleaseError(
                    f"MS-DRG {version} is older than {FIRST_VERSION}, the first version whose rules this engine has. "
                    f"{self.source.file} also holds {', '.join(self.versions)}."
                )
            raise UnknownReleaseError(
                f"{self.source.file} has no MS-DRG {version!r}; it holds {', '.join(self.versions)}."
            )
        number = int(version.replace(".", ""))
        effective_from, effective_to = effective_dates(version)

        def current(table: Mapping[_Key, _Versioned[T]]) -> dict[_Key, T]:
            return {key: rows[number] for key, rows in table.items() if number in rows}

        diagnoses, procedures = current(self._diagnoses), current(self._procedures)
        for name, table in (("diagnoses", diagnoses), ("procedures", procedures)):
            if not table:
                raise wrong(self.source, f"it has formulas of MS-DRG {version}, but no {name}")
        return MsdrgTables(
            version=version,
            effective_from=effective_from,
            effective_to=effective_to,
            diagnoses=diagnoses,
            procedures=procedures,
            exclusions=current(self._exclusions),
            exclusion_groups=self._exclusion_groups,
            gender_mdcs=current(self._gender_mdcs),
            clusters=current(self._clusters),
            formulas={mdc: rows for (mdc, of), rows in self._formulas.items() if of == number},
            hac_formulas={hac: rows for (hac, of), rows in self._hac_formulas.items() if of == number},
            drg_titles=current(self._drg_titles),
            mdc_titles=current(self._mdc_titles),
            hac_titles=current(self._hac_titles),
            sources=[self.source],
        )

    # --- rows that refer to other tables

    def _diagnosis(self, row: Mapping[int, list[Value]]) -> DiagnosisAttributes:
        severity = _one(row, 2, "severity", 0, 2)
        operands, hacs, categories = (
            _looked_up(self._dx_patterns, _one(row, field, "diagnosis pattern"), "diagnosis pattern")
            for field in (3, 4, 5)
        )
        return DiagnosisAttributes(_one(row, 1, "MDC", 0, 99), _SEVERITIES[severity], operands, hacs, categories)

    def _procedure(self, row: Mapping[int, list[Value]]) -> tuple[str, ...]:
        return _looked_up(self._pr_patterns, _one(row, 1, "procedure pattern"), "procedure pattern")

    def _exclusion(self, row: Mapping[int, list[Value]]) -> int:
        group = _one(row, 1, "exclusion group")
        _looked_up(self._exclusion_groups, group, "exclusion group")
        return group


def _unpacked(data: bytes, source: Source) -> bytes:
    # A table file begins with the tag of one of its tables, never with the "P" of a zip.
    if not data.startswith(b"PK"):
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entry = archive.getinfo(ENTRY)
            if entry.file_size > _LARGEST:
                raise wrong(source, f"{ENTRY} has {entry.file_size:,} bytes; expected at most {_LARGEST:,}")
            return archive.read(entry)
    except KeyError:
        raise wrong(source, f"the archive has no entry {ENTRY}; expected msdrg-binary-access-*.jar of CMS") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        if isinstance(error, SourceFormatError):
            raise
        raise wrong(
            source, f"the archive cannot be read ({error}); expected msdrg-binary-access-*.jar of CMS"
        ) from None


class _Reader:
    """Reads the tables. What is wrong is reported with the file and the table."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._tables: dict[int, list[memoryview]] = {}

    def open(self, data: bytes) -> None:
        """Find the tables in the outermost message."""
        try:
            for number, _, content in fields(data):
                self._tables.setdefault(number, []).append(_bytes(content))
        except SourceFormatError as error:
            expected = "expected the table file of the CMS grouper (msdrg-binary-access-*.jar or msdrg_combined.bin)"
            raise wrong(self._source, f"{error}; {expected}") from None
        missing = [name for number, name in _NAMES.items() if number not in self._tables]
        if missing:
            expected = "expected the table file of the CMS MS-DRG grouper"
            raise wrong(self._source, f"there is no table of {', '.join(missing)}; {expected}")

    def names(self, table: int, field: int) -> dict[int, tuple[str, ...]]:
        """Return pattern number to names. Number 0 stands for no names."""
        patterns: dict[int, tuple[str, ...]] = {0: ()}
        with _Table(self._source, table):
            for key, content in self._entries(table):
                patterns[_key_number(key)] = tuple(text(v) for n, _, v in fields(content) if n == field)
        return patterns

    def exclusion_groups(self) -> dict[int, tuple[str, ...]]:
        """Return group number to codes."""
        groups = {}
        codes: dict[memoryview, str] = {}  # a code is in hundreds of groups: one string each
        with _Table(self._source, _EXCLUSION_GROUPS):
            for key, content in self._entries(_EXCLUSION_GROUPS):
                members = []
                for number, _, value in fields(content):
                    if number == 1:
                        raw = _bytes(value)
                        code = codes.get(raw)
                        if code is None:
                            code = codes[raw] = _code(raw)
                        members.append(code)
                groups[_key_number(key)] = tuple(members)
        return groups

    def by_code(
        self, table: int, versions: int, read: Callable[[Mapping[int, list[Value]]], T]
    ) -> dict[str, _Versioned[T]]:
        """Return code to what ``read`` makes of its row in each version; ``versions`` is the field that lists them."""
        return self._rows(table, versions, read, _code)

    def by_number(
        self, table: int, versions: int, read: Callable[[Mapping[int, list[Value]]], T]
    ) -> dict[int, _Versioned[T]]:
        """Return number to what ``read`` makes of its row in each version."""
        return self._rows(table, versions, read, _key_number)

    def formulas(self) -> dict[tuple[int, int], list[Formula]]:
        """Return (MDC, version number) to the rows of that list, by rank."""
        lists: dict[tuple[int, int], list[Formula]] = {}
        with _Table(self._source, _FORMULAS):
            for key, content in self._entries(_FORMULAS):
                mdc = _key_number(key)
                for row in _messages(content):
                    found = Formula(
                        0,
                        _one(row, 1, "DRG", 0, 999),
                        _one(row, 6, "base DRG", 0, 999),
                        _text(row, 7),
                        _one(row, 8, "MDC to go to", 0, 99),
                        _text(row, 9),
                        tuple(name for name in map(text, row.get(10, ())) if name),
                    )
                    if found.med_surg not in _TYPES:
                        raise SourceFormatError(f"type {found.med_surg!r}; expected {', '.join(_TYPES)}")
                    for ranked in row.get(13, ()):
                        rank = _message(ranked)
                        version = _checked_version(_one(rank, 2, "version"))
                        lists.setdefault((mdc, version), []).append(found._replace(rank=_one(rank, 1, "rank")))
        for rows in lists.values():
            # Ranks tie, nearly always with a row that is never true: the order of the file decides, as in the pinned
            # source. The tie that matters is rank 72 of MDC 8 in 43.0 and 43.1.
            rows.sort(key=lambda formula: formula.rank)
        return lists

    def hac_formulas(self) -> dict[tuple[int, int], tuple[str, ...]]:
        """Return (HAC, version number) to its formulas."""
        formulas: dict[tuple[int, int], tuple[str, ...]] = {}
        with _Table(self._source, _HAC_FORMULAS):
            for key, content in self._entries(_HAC_FORMULAS):
                hac = _within(_key_number(key), "HAC", 1, 15)
                for row in _messages(content):
                    for version in _versions(row, 4):
                        formulas[hac, version] = (*formulas.get((hac, version), ()), _text(row, 3))
        return formulas

    def _rows(
        self,
        table: int,
        versions: int,
        read: Callable[[Mapping[int, list[Value]]], T],
        read_key: Callable[[Value], _Key],
    ) -> dict[_Key, _Versioned[T]]:
        found: dict[_Key, _Versioned[T]] = {}
        # Tens of thousands of codes share a thousand different contents.
        known: dict[memoryview, _Versioned[T]] = {}
        with _Table(self._source, table):
            for key, content in self._entries(table):
                rows = known.get(content)
                if rows is None:
                    rows = known[content] = _by_version(content, versions, read)
                found[read_key(key)] = rows
        return found

    def _entries(self, table: int) -> Iterator[tuple[Value, memoryview]]:
        """Yield key and value of a ``map`` field: entries {1: key, 2: value} under field 1."""
        for chunk in self._tables[table]:
            for number, _, entry in fields(chunk):
                if number != 1:
                    continue
                key: Value = 0
                content = _NOTHING
                for field, _, value in fields(_bytes(entry)):
                    if field == 1:
                        key = value
                    elif field == 2:
                        content = _bytes(value)
                yield key, content


_NOTHING = memoryview(b"")


class _Table:
    """Context that names file and table in a SourceFormatError raised inside it."""

    def __init__(self, source: Source, table: int) -> None:
        self._source = source
        self._table = table

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SourceFormatError):
            raise wrong(self._source, f"table of {_NAMES[self._table]}: {error}") from None


def _by_version(content: memoryview, versions: int, read: Callable[[Mapping[int, list[Value]]], T]) -> _Versioned[T]:
    rows: dict[int, T] = {}
    for row in _messages(content):
        value = read(row)
        for version in _versions(row, versions):
            # A row may be there twice (the cluster Z@1626 is, in 42.1 and later); what may not be is another one.
            if rows.setdefault(version, value) != value:
                raise SourceFormatError(f"a key has two different rows for MS-DRG {_version(version)}; expected one")
    return rows


def _messages(content: memoryview) -> Iterator[dict[int, list[Value]]]:
    """Yield the messages under field 1, each as field number to values."""
    for number, _, row in fields(content):
        if number == 1:
            yield _message(row)


def _message(content: Value) -> dict[int, list[Value]]:
    found: dict[int, list[Value]] = {}
    for number, _, value in fields(_bytes(content)):
        found.setdefault(number, []).append(value)
    return found


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise SourceFormatError("a number where the protobuf message of a table or row is expected")
    return value


def _one(
    row: Mapping[int, list[Value]], field: int, name: str, low: int = -(1 << 31), high: int = (1 << 31) - 1
) -> int:
    """Return a number of ``row``, 0 if it is not there: the last occurrence counts."""
    values = row.get(field)
    return _within(int32(values[-1]) if values else 0, name, low, high)


def _within(number: int, name: str, low: int, high: int) -> int:
    if not low <= number <= high:
        raise SourceFormatError(f"{name} {number}; expected {low} to {high}")
    return number


def _text(row: Mapping[int, list[Value]], field: int) -> str:
    values = row.get(field)
    return text(values[-1]) if values else ""


def _versions(row: Mapping[int, list[Value]], field: int) -> Iterator[int]:
    for value in row.get(field, ()):
        if isinstance(value, int):
            yield _checked_version(int32(value))
        else:
            yield from map(_checked_version, packed(value, 2))


def _checked_version(number: int) -> int:
    # 39.0 is 390; there were never more than two versions a year.
    if not 100 <= number <= 9999 or number % 10 > 1:
        raise SourceFormatError(f"version number {number}; expected one as 430 for 43.0 or 431 for 43.1")
    return number


def _version(number: int) -> str:
    return f"{number // 10}.{number % 10}"


def _key_number(key: Value) -> int:
    return _within(int32(key), "key", 0, 32767)


def _code(key: Value) -> str:
    code = text(key)
    if not _CODE.fullmatch(code):
        raise SourceFormatError(f"code {code[:40]!r}; expected up to eight capital letters and digits")
    return code


def _looked_up(table: Mapping[int, T], number: int, name: str) -> T:
    try:
        return table[number]
    except KeyError:
        raise SourceFormatError(f"{name} {number}, which its table does not have") from None


def _cluster(row: Mapping[int, list[Value]]) -> Cluster:
    choices: dict[int, tuple[str, ...]] = {}
    for part in row.get(3, ()):
        choice = _message(part)
        number = _one(choice, 1, "choice")
        codes = tuple(_code(code) for code in choice.get(2, ()))
        if number in choices or not codes:
            raise SourceFormatError(f"choice {number} of a cluster is there twice or has no codes")
        choices[number] = codes
    if not choices:
        raise SourceFormatError("a cluster has no choices")
    suppressed = []
    for value in row.get(1, ()):
        numbers = [int32(value)] if isinstance(value, int) else packed(value, 2)
        suppressed += [_within(number, "MDC", 0, 99) for number in numbers]
    return Cluster(tuple(suppressed), tuple(choices[number] for number in sorted(choices)))


def _gender_mdcs(row: Mapping[int, list[Value]]) -> tuple[int, int]:
    mdcs = {}
    for part in row.get(1, ()):
        entry = _message(part)
        mdcs[_one(entry, 1, "sex", 1, 2)] = _one(entry, 2, "MDC", 0, 99)
    if len(mdcs) != 2:
        raise SourceFormatError("a code has an MDC for one sex only; expected both")
    return mdcs[1], mdcs[2]


def _title(row: Mapping[int, list[Value]]) -> str:
    return _text(row, 1)
