"""Made-up MS-DRG tables, and the official file format written from tables: the loader's other half, for tests only.

None of the codes' meanings, DRGs, titles or formulas is real.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from engine.tables import Cluster, DiagnosisAttributes, Formula, MsdrgTables

SEVERITIES = {"MCC": 0, "CC": 1, "NCC": 2}
Field = tuple[int, "int | str | bytes | list[Field]"]


def varint(number: int) -> bytes:
    """A varint; negative numbers as 64-bit two's complement."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(*fields: Field) -> bytes:
    """A message of (field number, value): numbers as varints, the rest length-delimited."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else message(*value) if isinstance(value, list) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def packed(field: int, numbers: Iterable[int]) -> Field:
    """A repeated number field in its packed form."""
    return field, b"".join(map(varint, numbers))


def _entry(key: int | str, value: bytes) -> Field:
    return 1, message((1, key), (2, value))


class Encoder:
    """Writes tables of several versions as one official file. ``seed`` shuffles everything whose order means nothing,
    and ``pack`` writes version lists packed."""

    def __init__(self, tables: Mapping[int, MsdrgTables], seed: int = 0, pack: bool = False) -> None:
        self.tables = tables
        self.random = random.Random(seed)
        self.pack = pack
        self.patterns: dict[str, dict[tuple[str, ...], int]] = {"dx": {(): 0}, "pr": {}}
        self.groups: dict[tuple[str, ...], int] = {}

    def encode(self) -> bytes:
        fields: list[Field] = [
            (1, self._table("diagnoses", self._diagnosis, 6)),
            (2, self._table("procedures", self._procedure, 2)),
            (3, b""),
            (5, self._table("exclusions", self._exclusion, 2)),
            (6, self._table("clusters", self._cluster, 4)),
            (7, self._table("gender_mdcs", self._gender, 2)),
            (8, self._formulas()),
            (9, self._hac_formulas()),
            (10, b""),
            (13, self._table("drg_titles", self._title, 7)),
            (14, self._table("mdc_titles", self._title, 7)),
            (15, b""),
            (16, self._table("hac_titles", self._title, 7)),
        ]
        # Patterns and groups are known once all that refers to them is written.
        fields.append((4, message(*self._shuffled([_entry(n, _strings(1, g)) for g, n in self.groups.items()]))))
        for number, kind, field in ((11, "dx", 1), (12, "pr", 2)):
            names = self.patterns[kind]
            fields.append((number, message(*self._shuffled([_entry(n, _strings(field, p)) for p, n in names.items()]))))
        fields.append((99, "a field to come"))
        return message(*self._shuffled(fields))

    def _shuffled(self, items: list[Any]) -> list[Any]:
        self.random.shuffle(items)
        return items

    def _versions(self, field: int, versions: Sequence[int]) -> list[Field]:
        return [packed(field, versions)] if self.pack else [(field, version) for version in versions]

    def _table(self, name: str, encode: Any, field: int) -> bytes:
        rows: dict[int | str, dict[Hashable, list[int]]] = {}
        for version, tables in self.tables.items():
            for key, value in getattr(tables, name).items():
                if name == "exclusions":
                    value = tables.exclusion_groups[value]
                rows.setdefault(key, {}).setdefault(value, []).append(version)
        entries = []
        for key, by_value in rows.items():
            content = [(1, message(*encode(value), *self._versions(field, of))) for value, of in by_value.items()]
            entries.append(_entry(key, message(*self._shuffled(content))))
        return message(*self._shuffled(entries))

    def _pattern(self, kind: str, names: tuple[str, ...]) -> int:
        known = self.patterns[kind]
        return known.setdefault(names, len(known) + 1)

    def _diagnosis(self, row: DiagnosisAttributes) -> list[Field]:
        numbers = (self._pattern("dx", names) for names in (row.operands, row.hac_names, row.categories))
        fields: list[Field] = [(1, row.mdc), (2, SEVERITIES[row.severity]), *zip((3, 4, 5), numbers, strict=True)]
        return [(field, value) for field, value in fields if value]  # zero is the default and not written

    def _procedure(self, names: tuple[str, ...]) -> list[Field]:
        return [(1, self._pattern("pr", names))]

    def _exclusion(self, codes: tuple[str, ...]) -> list[Field]:
        return [(1, self.groups.setdefault(codes, 1000 - len(self.groups)))]

    def _cluster(self, cluster: Cluster) -> list[Field]:
        choices: list[Field] = [
            (3, message((1, i), *((2, code) for code in codes))) for i, codes in enumerate(cluster.choices, 1)
        ]
        suppressed: list[Field] = [packed(1, cluster.suppressed_mdcs)] if self.pack else []
        if not self.pack:
            suppressed = [(1, mdc) for mdc in cluster.suppressed_mdcs]
        return [*suppressed, *self._shuffled(choices)]

    def _gender(self, mdcs: tuple[int, int]) -> list[Field]:
        return self._shuffled([(1, message((1, sex), (2, mdc))) for sex, mdc in zip((1, 2), mdcs, strict=True)])

    def _title(self, title: str) -> list[Field]:
        return [(1, title)]

    def _formulas(self) -> bytes:
        lists: dict[int, dict[Formula, list[tuple[int, int]]]] = {}
        for version, tables in self.tables.items():
            for mdc, rows in tables.formulas.items():
                for row in rows:
                    ranked = lists.setdefault(mdc, {}).setdefault(row._replace(rank=0), [])
                    ranked.append((version, row.rank))
        entries = []
        for mdc, by_row in lists.items():
            content = []
            for row, ranks in by_row.items():
                fields: list[Field] = [(1, row.drg), (2, mdc), (6, row.base_drg), (7, row.med_surg), (8, row.reroute)]
                fields += [(9, row.text), *((10, name) for name in ("", *row.suppression)), (11, 0), (12, 3)]
                fields += [(13, message((1, rank), (2, version))) for version, rank in ranks]
                content.append((1, message(*fields)))
            entries.append(_entry(mdc, message(*self._shuffled(content))))
        return message(*self._shuffled(entries))

    def _hac_formulas(self) -> bytes:
        rows: dict[int, dict[str, list[int]]] = {}
        for version, tables in self.tables.items():
            for hac, texts in tables.hac_formulas.items():
                for text in texts:
                    rows.setdefault(hac, {}).setdefault(text, []).append(version)
        return message(
            *(
                _entry(
                    hac, message(*((1, message((1, hac), (3, t), *self._versions(4, of))) for t, of in texts.items()))
                )
                for hac, texts in rows.items()
            )
        )


def _strings(field: int, texts: Iterable[str]) -> bytes:
    return message(*((field, text) for text in texts))


def tables(version: str, effective_from: int, effective_to: int, extra: str = "") -> MsdrgTables:
    """Made-up tables with at least one row of everything; ``extra`` is a diagnosis that only this version has."""
    diagnoses = {
        "A000": DiagnosisAttributes(1, "NCC", ("alpha",), (), ("dxc0101",)),
        "A001": DiagnosisAttributes(1, "CC", (), ("HAC06", "hac06_show"), ()),
        "A002": DiagnosisAttributes(0, "MCC", ("mccalive", "beta"), (), ()),
        "N400": DiagnosisAttributes(2, "NCC", (), (), ("dxc0201",)),
    }
    if extra:
        diagnoses[extra] = DiagnosisAttributes(1, "MCC", ("alpha",), (), ("dxc0101",))
    return MsdrgTables(
        version=version,
        effective_from=effective_from,
        effective_to=effective_to,
        diagnoses=diagnoses,
        procedures={"0AB10ZZ": ("d468", "cut"), "0AB20ZZ": ("ornec",), "Z@0001": ("both", "d468")},
        exclusions={"A000": 1, "A002": 1, "N400": 2},
        exclusion_groups={1: ("A001", "A002"), 2: ("A001",)},
        gender_mdcs={"N400": (12, 13)},
        clusters={"Z@0001": Cluster((1, 99), (("0AB10ZZ",), ("0AB20ZZ", "0AB30ZZ")))},
        formulas={
            0: [Formula(1, 0, 0, "NA", 0, "INVALID_PDX", ())],
            1: [
                Formula(1, 20, 20, "SURGICAL", 0, "both & MCC", ("alpha",)),
                Formula(2, 21, 20, "SURGICAL", 0, "cut | (d468 & ~PDX:alpha)", ()),
                Formula(3, 50, 50, "MEDICAL", 0, "ANYDX & CC", ("beta", "dxc0101")),
                Formula(4, 51, 50, "MEDICAL", 0, "ANYDX", ()),
                Formula(9, 0, 0, "NA", 29, "d468", ()),
            ],
            29: [Formula(1, 981, 981, "SURGICAL", 0, "d468", ())],
        },
        hac_formulas={6: ("HAC06",), 8: ("HAC08 & cut",)},
        drg_titles={20: "Handle surgery with MCC", 21: "Handle surgery without MCC", 50: "Leaks with CC", 51: "Leaks"},
        mdc_titles={0: "Pre-MDC", 1: "Diseases of the spout ½ and handle"},
        hac_titles={6: "Leaking lids"},
    )
