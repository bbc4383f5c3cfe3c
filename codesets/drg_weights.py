"""MS-DRG relative weights: Table 5 of the IPPS final rule, as CMS publishes it, as ``engine.tables.WeightTables``.

The table comes as text with tabs or commas, in Windows-1252 or UTF-8. Above the column heads stand lines that name the
fiscal year; below the last DRG there may be footnotes. Columns are found by their heads, which change a little from
year to year: until FY2022 there is one column of weights, since the 10 % cap on yearly reductions there are two.
A blank or a period stands for a number that does not exist, and so does zero, which older tables print for DRGs 998
and 999.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from engine.errors import SourceFormatError, SourceUnavailableError
from engine.tables import Source, WeightRow, WeightTables
from engine.weights import SYSTEM

from ._files import squeeze, wrong

__all__ = ["SYSTEM", "effective_dates", "read_table_5", "read_weights"]

_LARGEST: Final = 16 << 20
_HEADS: Final[Mapping[str, re.Pattern[str]]] = {
    "post_acute_transfer": re.compile(r"post-?acute", re.IGNORECASE),
    "special_pay": re.compile(r"special pay", re.IGNORECASE),
    "weight_before_cap": re.compile(r"weights?\b.*before cap", re.IGNORECASE),
    "relative_weight": re.compile(r"(relative )?weights?\b(?!.*before cap)", re.IGNORECASE),
    "geometric_mean_los": re.compile(r"geometric mean", re.IGNORECASE),
    "arithmetic_mean_los": re.compile(r"arithmetic mean", re.IGNORECASE),
}
_REQUIRED: Final = ("relative_weight", "geometric_mean_los", "arithmetic_mean_los")
_YEAR: Final = re.compile(r"\bFY\s*(20\d\d)\b")
_DRG: Final = re.compile(r"\d{1,3}", re.ASCII)
_NUMBER: Final = re.compile(r"(\d{1,3})(?:\.(\d{1,4}))?|\.(\d{1,4})", re.ASCII)
_NONE: Final = frozenset(("", ".", "*", "**", "-", "n/a"))
_FLAGS: Final[Mapping[str, bool | None]] = {"yes": True, "no": False, "": None}


def effective_dates(release: str) -> tuple[int, int]:
    """Return the first and last discharge date (CCYYMMDD) of fiscal year ``release`` ("2026")."""
    year = int(release)
    return (year - 1) * 10000 + 1001, year * 10000 + 930


def read_weights(path: Path, release: str | None = None) -> WeightTables:
    """Read Table 5 from a file; see ``read_table_5``. Raises SourceUnavailableError if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceUnavailableError(f"{path} cannot be read ({error.strerror}).") from None
    source = Source("", "", hashlib.sha256(data).hexdigest(), path.name, release or "", ("weights",))
    return read_table_5(io.BytesIO(data), source, release)


def read_table_5(stream: IO[bytes], source: Source, release: str | None = None) -> WeightTables:
    """Read Table 5. ``release`` is the fiscal year it must be of ("2026"); None: the one that it names.

    Raises SourceFormatError if it is not that table, or is of another year.
    """
    data = stream.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise wrong(source, f"it has more than {_LARGEST:,} bytes; expected the text of CMS Table 5")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Five bytes have no meaning in Windows-1252; none of them is in a number.
        text = data.decode("cp1252", "replace")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in text else ",")
        numbers, lines = [], []
        for line in reader:
            numbers.append(reader.line_num)
            lines.append(line)
    except csv.Error as error:
        raise wrong(source, f"it is not a table ({error}); expected the text or CSV of CMS Table 5") from None
    at = next((i for i, line in enumerate(lines) if line and squeeze(line[0]).upper() == "MS-DRG"), None)
    if at is None:
        raise wrong(source, "no line begins with the head MS-DRG; expected the text or CSV of CMS Table 5")
    named = set(_YEAR.findall(" ".join(cell for line in lines[: at + 1] for cell in line)))
    if release is None:
        if len(named) != 1:
            found = ", ".join(sorted(named)) or "none"
            raise wrong(source, f"its heads should name one fiscal year (FY 2026), they name {found}; say which it is")
        (release,) = named
    elif named and release not in named:
        raise wrong(source, f"it is of FY {', '.join(sorted(named))}; expected FY {release}")
    columns = _columns(lines[at], source)
    rows: list[WeightRow] = []
    without: list[int] = []
    for number, line in zip(numbers[at + 1 :], lines[at + 1 :], strict=True):
        cells = [squeeze(cell) for cell in line]
        if not any(cells) or (sum(map(bool, cells)) == 1 and not _DRG.fullmatch(cells[0])):
            continue  # a blank line, or a footnote
        try:
            row = _row(cells, columns, len(lines[at]))
        except SourceFormatError as error:
            raise wrong(source, f"line {number}: {error}") from None
        if isinstance(row, int):
            without.append(row)
        else:
            rows.append(row)
    drgs = [row.drg for row in rows] + without
    if len(set(drgs)) < len(drgs):
        raise wrong(source, f"DRG {next(drg for drg in drgs if drgs.count(drg) > 1):03d} has two rows; expected one")
    if not rows:
        raise wrong(source, "no MS-DRG has a weight; expected the text or CSV of CMS Table 5")
    effective_from, effective_to = effective_dates(release)
    return WeightTables(
        release=release,
        effective_from=effective_from,
        effective_to=effective_to,
        rows=rows,
        sources=[replace(source, release=release)],
        facts={"drgs_without_weight": sorted(without)},
    )


def _columns(heads: Sequence[str], source: Source) -> dict[str, int]:
    columns: dict[str, int] = {}
    for name, pattern in _HEADS.items():
        found = [i for i, head in enumerate(heads) if pattern.search(squeeze(head)) and "title" not in head.lower()]
        if len(found) > 1:
            raise wrong(source, f"several columns look like {name}: {[squeeze(heads[i]) for i in found]}; expected one")
        if found:
            columns[name] = found[0]
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        raise wrong(source, f"there is no column of {', '.join(missing)}; its heads are {[squeeze(h) for h in heads]}")
    return columns


def _row(cells: Sequence[str], columns: Mapping[str, int], width: int) -> WeightRow | int:
    """Return a row, or the DRG alone if it has no weight."""
    if not _DRG.fullmatch(cells[0]) or not 0 < int(cells[0]) <= 999:
        raise SourceFormatError(f"{cells[0][:40]!r} where an MS-DRG of up to three digits is expected")
    if len(cells) != width:
        raise SourceFormatError(f"{len(cells)} columns; expected {width} as in the heads")
    drg = int(cells[0])

    def number(name: str) -> int | None:
        cell = cells[columns[name]] if name in columns else ""
        if cell.lower() in _NONE:
            return None
        match = _NUMBER.fullmatch(cell)
        if match is None:
            raise SourceFormatError(f"{name} {cell[:40]!r}; expected a number with up to four decimals")
        whole, decimals, alone = match.groups()
        return int(whole or 0) * 10_000 + int((decimals or alone or "0").ljust(4, "0")) or None

    def flag(name: str) -> bool | None:
        cell = cells[columns[name]].lower() if name in columns else ""
        try:
            return _FLAGS[cell]
        except KeyError:
            raise SourceFormatError(f"{name} {cell[:40]!r}; expected Yes or No") from None

    weight = number("relative_weight")
    if weight is None:
        return drg
    return WeightRow(
        drg,
        weight,
        number("weight_before_cap"),
        number("geometric_mean_los"),
        number("arithmetic_mean_los"),
        flag("post_acute_transfer"),
        flag("special_pay"),
    )
