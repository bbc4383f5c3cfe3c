"""The pinned sources themselves: every release, every date on which a code comes or goes."""

from __future__ import annotations

import unicodedata

import pytest
from source_survey import Survey

from codesets import catalog, fetch, icd10cm, icd10pcs
from engine.tables import OPEN_END, CodeSystemTables, Replacement, Spell

RELEASES = [target.id for target in catalog.targets(all=True) if target.system in ("icd10cm", "icd10pcs")]


@pytest.mark.parametrize("release", RELEASES)
def test_valid_codes_are_those_of_the_source_on_every_date(survey: Survey, release: str) -> None:
    found = survey.releases[release]
    assert found.wrong == []
    assert found.dates_checked >= 2


@pytest.mark.parametrize("system", ["icd10cm", "icd10pcs"])
def test_every_date_of_the_source_is_in_a_release(survey: Survey, system: str) -> None:
    targets = [t for t in catalog.targets(all=True) if t.system == system]
    for day in survey.oracles[system].dates:
        assert sum(t.effective_from <= day <= t.effective_to for t in targets) == 1


def _path(tables: CodeSystemTables, code: str) -> list[str]:
    index = next(i for i, n in enumerate(tables.nodes) if n.code == code and n.kind not in ("chapter", "block"))
    path = []
    while index >= 0:
        path.append(tables.nodes[index].code)
        index = tables.nodes[index].parent
    return path


def _title(tables: CodeSystemTables, code: str) -> str:
    return next(n.title for n in tables.nodes if n.code == code and n.kind not in ("chapter", "block"))


def test_flag_changes_are_no_spells(survey: Survey) -> None:
    # On 2022-04-01 CMS gave 3,433 diagnoses another edit flag; I10 was among those whose row was cut in two.
    for system in ("icd10cm", "icd10pcs"):
        tables = survey.tables[f"{system}/2027"]
        assert len({spell.code for spell in tables.spells}) == len(tables.spells)
    spells = {spell.code: spell for spell in survey.tables["icd10cm/2027"].spells}
    assert len(spells) == 75909
    assert spells["I10"] == Spell("I10", 20151001, OPEN_END)
    assert spells["M358"] == Spell("M358", 20151001, 20201231)


def test_replacements(survey: Survey) -> None:
    tables = survey.tables["icd10cm/2027"]
    assert [r for r in tables.replacements if r.old == "A047"] == [
        Replacement("A047", "A0471", 20171001),
        Replacement("A047", "A0472", 20171001),
    ]
    # A41.59 is still valid: A41.54 was split off it.
    assert not [r for r in tables.replacements if r.old == "A4159"]
    assert len(tables.replacements) == 2816
    assert len(survey.tables["icd10pcs/2027"].replacements) == 3332


def test_titles_agree_with_the_order_file(survey: Survey) -> None:
    """Titles joined from the XML are, but for accents, those of the official order file: all 95,358 of January 2021."""
    (file,) = [f for wheel in fetch.pins() for f in wheel.files if f.format == "icd10cm-order"]
    with fetch.Cache().open(file) as stream:
        order = {line.code: line for line in icd10cm.read_order_file(stream, file.source())}
    tables = survey.tables["icd10cm/2021"]
    nodes = {n.code.replace(".", ""): n for n in tables.nodes if n.kind not in ("chapter", "block")}
    assert nodes.keys() == order.keys()
    for code, line in order.items():
        folded = unicodedata.normalize("NFKD", nodes[code].title).encode("ascii", "ignore").decode()
        assert folded == line.title
        assert nodes[code].short_title == line.short_title
        # M35.8 was billable until 2020-12-31 and is a header in this file of January.
        assert nodes[code].billable == (line.billable or code == "M358")


def test_blocks_nest_and_may_be_called_like_their_category(survey: Survey) -> None:
    for release in ("2025-04", "2026-04", "2027"):
        tables = survey.tables[f"icd10cm/{release}"]
        assert _path(tables, "C50.911") == ["C50.911", "C50.91", "C50.9", "C50", "C50", "C00-C75", "C00-C96", "2"]
        assert _path(tables, "B99.8") == ["B99.8", "B99", "B99", "1"]
        assert _path(tables, "T36.0X1A")[:3] == ["T36.0X1A", "T36.0X1", "T36.0X"]
        assert _path(tables, "V00.01XA")[:3] == ["V00.01XA", "V00.01", "V00.0"]


def test_codes_a_list_lacks(survey: Survey) -> None:
    # U07.0 and U07.1 came on 2020-04-01, between two lists: chapter and block come with them.
    assert _path(survey.tables["icd10cm/2020-04"], "U07.1") == ["U07.1", "U07", "U00-U49", "22"]
    assert _title(survey.tables["icd10cm/2020-04"], "U07.1") == "COVID-19"
    assert _path(survey.tables["icd10cm/2027"], "E89.830")[1:3] == ["E89.8", "E89"]
    assert _path(survey.tables["icd10cm/2027"], "QA1.71") == ["QA1.71", "QA1", "17"]


def test_notes_only_from_the_release_s_own_list(survey: Survey) -> None:
    with_notes = {
        release: found.facts["notes"] for release, found in survey.releases.items() if found.facts.get("notes")
    }
    assert with_notes == {"icd10cm/2021": 25189, "icd10cm/2025-04": 26712, "icd10cm/2026-04": 26966}
    tables = survey.tables["icd10cm/2026-04"]
    by_node: dict[str, list[tuple[str, str]]] = {}
    for note in tables.notes:
        by_node.setdefault(tables.nodes[note.node].code, []).append((note.kind, note.text))
    assert ("excludes1", "certain localized infections - see body system-related chapters") in by_node["1"]
    assert ("seventh_character", "A\tinitial encounter") in by_node["T36"]
    assert any(kind == "includes" for kind, _ in by_node["M00-M25"])


@pytest.mark.parametrize("release", [r for r in RELEASES if r.startswith("icd10cm")])
def test_diagnoses_without_title(survey: Survey, release: str) -> None:
    expected = 190 if release == "icd10cm/2027" else 0
    assert survey.releases[release].facts["codes_without_title"] == expected


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("2023", 5),
        ("2024", 0),
        ("2024-04", 3),
        ("2025", 99),
        ("2025-04", 137),
        ("2026", 293),
        ("2026-04", 373),
        ("2027", 474),
    ],
)
def test_procedures_without_title(survey: Survey, release: str, expected: int) -> None:
    assert survey.releases[f"icd10pcs/{release}"].facts["codes_without_title"] == expected


def test_procedure_axes(survey: Survey) -> None:
    tables = survey.tables["icd10pcs/2027"]
    code = "05U33KZ"
    labels = [tables.axes[icd10pcs.context_of(code[:n])][code[n - 1]] for n in range(1, 8)]
    assert labels == [
        "Medical and Surgical",
        "Upper Veins",
        "Supplement",
        "Innominate Vein, Right",
        "Percutaneous",
        "Nonautologous Tissue Substitute",
        "No Qualifier",
    ]
    assert sorted(tables.axes[""]) == sorted(icd10pcs.SECTIONS)
    assert not any("- " in label for table in tables.axes.values() for label in table.values())
    unlabelled = {n.code for n in tables.nodes if n.code[0] in "01" and not n.billable and not n.title}
    assert len(unlabelled) == 18
