"""Compile the tables of one release of the Medicare Code Editor into the arrays that ``engine._mce`` edits from.

A code's flags are bits of one 64-bit number; rows with the same flags share one entry of ``flag_set``. Arrays
(dates are days since 1970-01-01, both ends inclusive):

``i10_dx_slot`` ...    Slot[] open-addressing table of one code master: ``i10_dx``, ``i10_px``, ``i9_dx``, ``i9_px``
``flag_set``           u8[n] flags of rows, as bits; [0] has none
``age_range``          AgeRange[] in the order of the source; the first of a group that is in force counts
``status_row``         StatusRow[] spans of discharge status codes, by code
``status_start``       u4[257] rows of each code 0 to 255
``limits``             u2[3] first and last discharge date, version number (431)

Slots: a key is up to eight ASCII characters, big-endian; its home is the top bits of ``key * HASH``. Codes go, in
order of their home slot, to the first free slot at or after it, without wrap-around. The rows of one code have
consecutive slots, in the order of the source; the last slot is empty, so that every probe ends.

Section numbers refer to ``docs/mce.md``.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import SourceFormatError
from .tables import AgeRange, DischargeStatus, FlaggedCode, MceTables

__all__ = ["AGE_GROUPS", "FIRST_DISCHARGE", "FLAGS", "MASTERS", "compile_mce", "uncovered_group"]

Array: TypeAlias = npt.NDArray[Any]

HASH: Final = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: the high bits of ``key * HASH`` spread keys that differ in any byte."""

SLOT: Final = np.dtype([("key", "<u8"), ("first", "<u2"), ("last", "<u2"), ("flags", "<u2"), ("pad", "<u2")])
AGE_RANGE: Final = np.dtype(
    [("first_age", "<i4"), ("last_age", "<i4"), ("first", "<u2"), ("last", "<u2"), ("group", "u1"), ("pad", "u1", (3,))]
)
STATUS_ROW: Final = np.dtype([("first", "<u2"), ("last", "<u2")])

MASTERS: Final = ("i10_dx", "i10_px", "i9_dx", "i9_px")

FIRST_DISCHARGE: Final = 19851001
"""The first discharge date any release edits."""

AGE_GROUPS: Final = ("pediatric", "newborn", "maternity", "adult")
"""Groups in the order in which their rules are tried (4.4)."""

FLAGS: Final = (
    *("female", "male", "nonspecific", "ncov6", "ncov7", "ncov_z302", "ncov2", "ncov3"),
    *("pediatric", "newborn", "maternity", "adult"),
    *("clintrial", "delout", "ecodepdx", "diabtypeI", "qadm", "reqsdx", "unacceptable", "wrngproc", "unspecified"),
    *("msp", "mdc08", "manifestation", "ncov4", "ncov5", "ncov2agelt78", "ncov2agelt64", "ncov89"),
    *("lcov_artheartxpa", "lcov_artheartxpb", "csect", "vagdel", "lcov", "los", "noncovered", "kidneyxp", "ncov45"),
    *("ncov12agele60", "biopsy", "bilateral", "or_indic", "ncov8", "ncov9", "ncov13a", "ncov13b"),
    *("lcov_lvrs", "lcov_lungxp", "lcov_heartlungxp", "lcov_heartxp", "lcov_heartsys", "lcov_intxp", "lcov_liverxp"),
    *("lcov_kidneyxp", "lcov_pancreasxp", "lcov_artheartxp"),
)
"""Flags that a rule asks for; the index is the bit. The CMS tables have others (``cc``), which influence nothing."""

_BIT: Final = {flag: 1 << i for i, flag in enumerate(FLAGS)}
_EPOCH: Final = datetime.date(1970, 1, 1).toordinal()
_LAST_DAY: Final = 65535


def compile_mce(tables: MceTables) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of a pack of kind "mce", and its facts.

    Raises SourceFormatError where a code, date or number cannot be held, and where an age group has no range on some
    day the release edits: the CMS software fails on such a day.
    """
    days = _Days()
    sets: dict[int, int] = {0: 0}
    arrays: dict[str, Array] = {}
    masters = (tables.icd10_diagnoses, tables.icd10_procedures, tables.icd9_diagnoses, tables.icd9_procedures)
    for name, rows in zip(MASTERS, masters, strict=True):
        arrays[f"{name}_slot"] = _slots(name, rows, sets, days)
    if len(sets) > 0xFFFF:
        raise SourceFormatError(f"{len(sets)} distinct sets of flags; a pack holds 65,535")
    arrays["flag_set"] = np.array(list(sets), "<u8")
    arrays["age_range"] = _age_ranges(tables.age_ranges, days)
    arrays["status_row"], arrays["status_start"] = _statuses(tables.discharge_statuses, days)
    first, last = days[FIRST_DISCHARGE], days[tables.termination]
    if first > last:
        raise SourceFormatError(f"the tables end on {tables.termination}; expected a day after {FIRST_DISCHARGE}")
    if not 0 <= tables.version <= 0xFFFF:
        raise SourceFormatError(f"version {tables.version}; expected a number like 431")
    arrays["limits"] = np.array([first, last, tables.version], "<u2")
    gap = uncovered_group(arrays["age_range"], first, last)
    if gap:
        raise SourceFormatError(
            f"age group {gap!r} has no range on some day from {FIRST_DISCHARGE} to {tables.termination}; "
            "expected one for every day."
        )
    facts = {
        "codes": sum(map(_distinct, masters)),
        "version": tables.version,
        "icd10_diagnoses": _distinct(tables.icd10_diagnoses),
        "icd10_procedures": _distinct(tables.icd10_procedures),
        "icd9_diagnoses": _distinct(tables.icd9_diagnoses),
        "icd9_procedures": _distinct(tables.icd9_procedures),
        "unused_flags": sorted({flag for rows in masters for row in rows for flag in row.flags} - set(FLAGS)),
    }
    return arrays, facts


def uncovered_group(ranges: Array, first: int, last: int) -> str:
    """Return the age group for which ``ranges`` (AGE_RANGE) leave a day from ``first`` to ``last`` out; "" if none."""
    for number, group in enumerate(AGE_GROUPS):
        day = first
        for row in sorted(ranges[ranges["group"] == number].tolist(), key=lambda row: row[2]):
            if row[2] <= day <= row[3]:
                day = row[3] + 1
        if day <= last:
            return group
    return ""


class _Days(dict[int, int]):
    """Dates CCYYMMDD to day numbers. Days that 16 bits do not hold are out of every claim's reach and cut."""

    def __missing__(self, date: int) -> int:
        try:
            day = datetime.date(date // 10000, date // 100 % 100, date % 100).toordinal() - _EPOCH
        except ValueError:
            raise SourceFormatError(f"{date} in a table of the code editor; expected a date CCYYMMDD") from None
        self[date] = day = min(max(day, 0), _LAST_DAY)
        return day


def _slots(name: str, rows: Sequence[FlaggedCode], sets: dict[int, int], days: Mapping[int, int]) -> Array:
    numbers = []
    for row in rows:
        bits = 0
        for flag in row.flags:
            bits |= _BIT.get(flag, 0)
        numbers.append(sets.setdefault(bits, len(sets)))
    try:
        packed = np.array([row.code.encode("ascii") for row in rows], "S").astype("S8", casting="safe")
    except (UnicodeEncodeError, TypeError):
        odd = next(row.code for row in rows if not row.code.isascii() or len(row.code) > 8)
        raise SourceFormatError(f"{name}: code {odd!r}; expected at most eight ASCII characters") from None
    keys = packed.view(">u8").astype("<u8") if len(rows) else np.zeros(0, "<u8")
    if not keys.all():
        raise SourceFormatError(f"{name}: a row without a code")
    bits = max(4, (len(rows) * 3 // 2).bit_length())
    with np.errstate(over="ignore"):
        homes = ((keys * np.uint64(HASH)) >> np.uint64(64 - bits)).astype(np.int64)
    # A stable sort: the rows of one code stay in the order of the source.
    order = np.lexsort((keys, homes))
    ranks = np.arange(len(rows))
    places = np.maximum.accumulate(homes[order] - ranks) + ranks
    slots = np.zeros(max(1 << bits, int(places[-1]) + 1 if len(places) else 0) + 1, SLOT)
    slots["key"][places] = keys[order]
    for field, values in (
        ("first", [days[row.first] for row in rows]),
        ("last", [days[row.last] for row in rows]),
        ("flags", numbers),
    ):
        slots[field][places] = np.array(values, "<u4")[order]
    return slots


def _age_ranges(ranges: Iterable[AgeRange], days: Mapping[int, int]) -> Array:
    rows = []
    for row in ranges:
        group = row.group.lower()
        if group not in AGE_GROUPS:
            continue
        rows.append((row.first_age, row.last_age, days[row.first], days[row.last], AGE_GROUPS.index(group), 0))
    return np.array(rows, AGE_RANGE)


def _statuses(statuses: Iterable[DischargeStatus], days: Mapping[int, int]) -> tuple[Array, Array]:
    by_code: list[list[tuple[int, int]]] = [[] for _ in range(256)]
    for code, first, last in statuses:
        if not 0 <= code < 256:
            raise SourceFormatError(f"discharge status {code}; expected a number from 0 to 255")
        by_code[code].append((days[first], days[last]))
    rows = np.array([row for rows in by_code for row in rows], STATUS_ROW)
    return rows, np.cumsum([0, *map(len, by_code)]).astype("<u4")


def _distinct(rows: Sequence[FlaggedCode]) -> int:
    return len({row.code for row in rows})
