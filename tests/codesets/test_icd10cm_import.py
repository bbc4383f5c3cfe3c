"""Importer of ICD-10-CM on small made-up files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import made_up
import pytest

from codesets import icd10cm
from engine.errors import SourceFormatError, SourceUnavailableError
from engine.tables import OPEN_END, CodeSystemTables, Node, Spell


def _xml(text: str = made_up.TABULAR_XML) -> icd10cm.Tabular:
    return icd10cm.read_tabular_xml(io.BytesIO(text.encode()), "2021", made_up.SOURCE)


def _json(document: object) -> icd10cm.Tabular:
    return icd10cm.read_hierarchy_json(io.BytesIO(json.dumps(document).encode()), "2020", made_up.SOURCE)


def _path(nodes: list[Node], index: int) -> list[str]:
    path = []
    while index >= 0:
        path.append(f"{nodes[index].kind} {nodes[index].code}")
        index = nodes[index].parent
    return path


def _tree(valid: set[str], base: icd10cm.Tabular, *others: icd10cm.Tabular) -> icd10cm.Tree:
    return icd10cm.build_tree(valid, base, lambda: others, lambda code: f"borrowed {code}", {"A000": "short"})


# --- tabular XML --------------------------------------------------------------------------------------------


def test_xml_codes_in_book_order_with_implied_ones() -> None:
    tabular = _xml()
    assert list(tabular.titles.items()) == [
        ("A00", "Leak of spout"),
        ("A000", "Leak of spout, slow"),
        ("A001", "Leak of spout, féroce"),
        ("A0A", "Leak of lid"),
        ("A01", "Leak of handle"),
        ("A10", "Crack of teapot"),
        ("A100", "Crack of belly"),
        ("A100XXA", "Crack of belly, first pouring"),
        ("A100XXD", "Crack of belly, later pouring"),
        ("A1011", "Crack of base"),
        ("A1011XA", "Crack of base, first pouring"),
        ("A1011XD", "Crack of base, later pouring"),
        ("A102X", "Crack, other"),
        ("A102X1", "Crack, other, right"),
        ("A102X1A", "Crack, other, right, first pouring"),
        ("A102X1D", "Crack, other, right, later pouring"),
        ("B99", "Other and unspecified afflictions"),
        ("B999", "Unspecified affliction"),
    ]
    assert tabular.parents["A100XXA"] == "A100"
    assert tabular.parents["A00"] == ""


def test_xml_blocks_nest_by_range() -> None:
    tabular = _xml()
    assert [(d.kind, d.code, d.title, d.parent) for d in tabular.divisions] == [
        ("chapter", "1", "Afflictions of teapots (A00-B99)", -1),
        ("block", "A00-A19", "Leaks and cracks", 0),
        ("block", "A00-A09", "Leaks", 1),
        ("block", "A10-A19", "Cracks", 1),
        ("block", "B99", "Other afflictions", 0),
    ]
    assert tabular.category_division == {"A00": 2, "A0A": 2, "A01": 2, "A10": 3, "B99": 4}


def test_xml_notes_in_book_order() -> None:
    assert _xml().notes == [
        (True, "1", "includes", "teapots of any material"),
        (True, "1", "excludes1", "kettles (C00.-)"),
        (True, "A00-A19", "excludes2", "spilt milk (Z99)"),
        (False, "A00", "inclusion_term", "Dripping spout"),
        (False, "A00", "inclusion_term", "Weeping spout"),
        (False, "A001", "use_additional", "code for puddle (B99.-)"),
        (False, "A10", "note", "A seventh character is to be added"),
        (False, "A10", "seventh_character", "A\tfirst pouring"),
        (False, "A10", "note", "first pouring NOS"),
        (False, "A10", "seventh_character", "D\tlater pouring"),
        (False, "A1011", "code_first", "hot plate (B99)"),
        (True, "B99", "code_also", "owner (Z00)"),
        (True, "B99", "note", "Use sparingly."),
        (False, "B999", "note", "Category of sight 1: Less than: 6/18; At least: 6/60"),
    ]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda text: text[:900], "not well-formed"),
        (lambda text: text.replace("ICD10CM.tabular", "ICD10.tabular"), "root element is 'ICD10.tabular'"),
        (lambda text: text.replace("<name>A00.0</name>", "<name>A0.00</name>"), "code 'A0.00'"),
        (lambda text: text.replace("<name>A00.1</name>", "<name>A00.0</name>"), "A00.0 is there twice"),
        (lambda text: text.replace("<name>A00.1</name>", ""), "a <diag> without <name>"),
        (lambda text: text.replace("<desc>Leaks (A00-A09)</desc>", "<desc>Leaks</desc>"), "end in its range"),
        (lambda text: text.replace("codeAlso", "codeNever"), "element <codeNever> in B99; expected one of"),
        (lambda text: text.replace('char="D"', 'char="D2"'), "A10 defines seventh characters"),
        (lambda text: "<ICD10CM.tabular/>", "no codes"),
    ],
)
def test_xml_says_what_does_not_fit(change: Callable[[str], str], what: str) -> None:
    with pytest.raises(SourceFormatError, match=what) as caught:
        _xml(change(made_up.TABULAR_XML))
    assert "made-up.file of made-up 0" in str(caught.value)


# --- hierarchy JSON -----------------------------------------------------------------------------------------


def test_json_puts_the_lost_comma_back() -> None:
    tabular = _json(made_up.HIERARCHY)
    assert tabular.titles["A100XXA"] == "Crack of belly, first pouring"
    assert tabular.titles["A002"] == "Leak of spout, odd"
    assert [d.code for d in tabular.divisions] == ["1", "A00-A09", "A10-A19", "B99"]


def test_json_borrows_blocks_of_blocks() -> None:
    nested = icd10cm._with_wrappers(_json(made_up.HIERARCHY), _xml())
    assert [(d.code, d.parent) for d in nested.divisions] == [
        ("1", -1),
        ("A00-A19", 0),
        ("A00-A09", 1),
        ("A10-A19", 1),
        ("B99", 0),
    ]
    assert nested.category_division == {"A00": 2, "A10": 3, "B99": 4}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"tree": {}},
        {"tree": {"children": [{"id": "no range", "children": []}]}},
        {"tree": {"children": [{"id": "Made up (A00-B99)"}]}},
        {
            "tree": {
                "children": [
                    {
                        "id": "Made up (A00-B99)",
                        "children": [{"id": "Block (A00)", "children": [{"id": "A00"}]}],
                    }
                ]
            }
        },
        {
            "tree": {
                "children": [
                    {
                        "id": "Made up (A00-B99)",
                        "children": [
                            {
                                "id": "Block (A00)",
                                "children": [{"id": "A00", "description": "x", "children": 3}],
                            }
                        ],
                    }
                ]
            }
        },
    ],
)
def test_json_says_what_does_not_fit(document: object) -> None:
    with pytest.raises(SourceFormatError, match=r"made-up\.file"):
        _json(document)


def test_json_too_deep_is_refused() -> None:
    text = '{"tree": ' + '{"children": [' * 100_000
    with pytest.raises(SourceFormatError):
        icd10cm.read_hierarchy_json(io.BytesIO(text.encode()), "2020", made_up.SOURCE)


# --- order file, CCIR ---------------------------------------------------------------------------------------


def _order(text: str) -> list[icd10cm.OrderLine]:
    return icd10cm.read_order_file(io.BytesIO(text.encode()), made_up.SOURCE)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_order_file(newline: str) -> None:
    lines = _order(made_up.ORDER.replace("\n", newline) + newline)
    assert len(lines) == 8
    assert lines[0] == ("A00", False, "Leak of spout", "Leak of spout")
    assert lines[6] == ("A100XXA", True, "Crack of belly, first", "Crack of belly, first pouring")


@pytest.mark.parametrize(
    "line",
    [
        "A00 Leak of spout",
        made_up.order_line(1, "A00", 2, "x", "x"),
        made_up.order_line(1, "A00.1", 1, "x", "x"),
        made_up.order_line(1, "A00", 1, "x" * 61, "x"),
    ],
)
def test_order_file_names_the_line_that_does_not_fit(line: str) -> None:
    with pytest.raises(SourceFormatError, match="line 9 is"):
        _order(f"{made_up.ORDER}\n{line}")
    with pytest.raises(SourceFormatError, match="no lines"):
        _order("\n\n")


def test_ccir() -> None:
    read = icd10cm._read_ccir(io.BytesIO(made_up.ccir([("A009", "Leak,  retired")])), made_up.SOURCE)
    assert read == {"A009": "Leak, retired"}
    with pytest.raises(SourceFormatError, match="2 columns"):
        icd10cm._read_ccir(io.BytesIO(b"a,b\n"), made_up.SOURCE)


def test_order_file_in_sqlite(tmp_path: Path) -> None:
    path = made_up.write_diagnoses(tmp_path / "made-up.db", [("A00", 0, "short", "long")])
    columns = "code, billable, short_name, long_name"
    assert icd10cm._read_sqlite_order(path, made_up.SOURCE, "cm_codes", columns) == [("A00", False, "short", "long")]
    with pytest.raises(SourceFormatError, match="a table none"):
        icd10cm._read_sqlite_order(path, made_up.SOURCE, "none", columns)
    path.write_bytes(b"no database" * 100)
    with pytest.raises(SourceFormatError, match="SQLite"):
        icd10cm._read_sqlite_order(path, made_up.SOURCE, "cm_codes", columns)


# --- trees --------------------------------------------------------------------------------------------------


def test_tree_is_restricted_to_valid_codes_and_what_leads_to_them() -> None:
    tree = _tree({"A000", "A100XXA"}, _xml())
    assert [(n.kind, n.code, n.parent, n.billable, n.title, n.short_title) for n in tree.nodes] == [
        ("chapter", "1", -1, False, "Afflictions of teapots (A00-B99)", ""),
        ("block", "A00-A19", 0, False, "Leaks and cracks", ""),
        ("block", "A00-A09", 1, False, "Leaks", ""),
        ("category", "A00", 2, False, "Leak of spout", ""),
        ("code", "A00.0", 3, True, "Leak of spout, slow", "short"),
        ("block", "A10-A19", 1, False, "Cracks", ""),
        ("category", "A10", 5, False, "Crack of teapot", ""),
        ("subcategory", "A10.0", 6, False, "Crack of belly", ""),
        ("code", "A10.0XXA", 7, True, "Crack of belly, first pouring", ""),
    ]
    assert tree.missing == set()


def test_block_and_category_of_one_code_are_two_nodes() -> None:
    tree = _tree({"B999"}, _xml())
    assert _path(tree.nodes, len(tree.nodes) - 1) == ["code B99.9", "category B99", "block B99", "chapter 1"]
    assert tree.where[True, "B99"] != tree.where[False, "B99"]


def test_billable_category_and_billable_code_with_children() -> None:
    # A10.0 is billable for a part of the release, its children for the rest.
    tree = _tree({"A0A", "A100", "A100XXA"}, _xml())
    kinds = {node.code: (node.kind, node.billable) for node in tree.nodes}
    assert kinds["A0A"] == ("category", True)
    assert kinds["A10.0"] == ("code", True)
    assert _path(tree.nodes, tree.where[False, "A100XXA"])[1] == "code A10.0"


def test_missing_codes_go_under_their_longest_prefix_in_order() -> None:
    tree = _tree({"A000", "A001", "A0005", "A00Z", "A0009"}, _xml())
    codes = [node.code for node in tree.nodes if node.kind not in ("chapter", "block")]
    assert codes == ["A00", "A00.0", "A00.05", "A00.09", "A00.1", "A00.Z"]
    assert tree.missing == {"A0005", "A0009", "A00Z"}
    assert tree.nodes[tree.where[False, "A0005"]].title == "borrowed A0005"


def test_a_code_that_got_children_is_a_header_now() -> None:
    tree = _tree({"A0005"}, _xml())
    assert _path(tree.nodes, tree.where[False, "A0005"])[:2] == ["code A00.05", "subcategory A00.0"]


def test_missing_codes_take_their_headers_from_the_next_list() -> None:
    other = _xml(made_up.TABULAR_XML.replace("A00.1</name>", "A00.3</name>").replace("A10.11", "A00.31"))
    other.titles["A0031"] = "deeper"
    other.parents["A0031"] = "A003"
    tree = _tree({"A000", "A0031"}, _xml(), other)
    assert _path(tree.nodes, tree.where[False, "A0031"])[:3] == [
        "code A00.31",
        "subcategory A00.3",
        "category A00",
    ]
    assert tree.missing == {"A003", "A0031"}


def test_missing_category_goes_into_the_block_of_its_range() -> None:
    tree = _tree({"A051"}, _xml())
    assert _path(tree.nodes, tree.where[False, "A051"]) == [
        "code A05.1",
        "category A05",
        "block A00-A09",
        "block A00-A19",
        "chapter 1",
    ]


def test_missing_category_brings_its_block_and_chapter() -> None:
    more = made_up.TABULAR_XML.replace("Other afflictions (B99)", "Other afflictions (U00-U09)")
    more = more.replace('id="B99"', 'id="U00-U09"').replace("<name>B99", "<name>U07").replace("<name>1<", "<name>2<")
    base = _json(made_up.HIERARCHY)
    tree = _tree({"A000", "U079"}, base, _xml(more.replace("(A00-B99)", "(U00-U85)")))
    assert _path(tree.nodes, tree.where[False, "U079"]) == [
        "code U07.9",
        "category U07",
        "block U00-U09",
        "chapter 2",
    ]
    assert [node.code for node in tree.nodes if node.kind == "chapter"] == ["1", "2"]


def test_missing_category_goes_where_its_neighbours_in_the_block_are() -> None:
    """The block has been widened since: its categories are still in the narrower one."""
    wider = _xml(made_up.TABULAR_XML.replace("A10-A19", "A10-A1A").replace("<name>A01</name>", "<name>A1A</name>"))
    wider.category_division["A1A"] = 3
    base = _xml()
    tree = _tree({"A100XXA", "A1A"}, base, wider)
    assert _path(tree.nodes, tree.where[False, "A1A"])[1] == "block A10-A19"


def test_missing_category_without_any_block_goes_to_the_chapter_before_it() -> None:
    tree = _tree({"B999", "BA11"}, _xml())
    assert _path(tree.nodes, tree.where[False, "BA11"]) == ["code BA1.1", "category BA1", "chapter 1"]


def test_the_list_may_put_a_code_elsewhere_than_its_prefix() -> None:
    text = made_up.TABULAR_XML.replace("<name>A10.2X1</name>", "<name>A10.311</name>")
    tree = _tree({"A10311A"}, _xml(text))
    assert _path(tree.nodes, tree.where[False, "A10311A"])[1:3] == [
        "subcategory A10.311",
        "subcategory A10.2X",
    ]


# --- an official release by path ----------------------------------------------------------------------------


def _import(tmp_path: Path, xml: bool, history: list[Spell] | None = None) -> CodeSystemTables:
    order = tmp_path / "order.txt"
    order.write_text(made_up.ORDER)
    tabular = tmp_path / "tabular.xml"
    tabular.write_text(made_up.TABULAR_XML, encoding="utf-8")
    return icd10cm.import_release(
        order,
        tabular if xml else None,
        release="2028",
        effective_from=20271001,
        effective_to=20280331,
        history=history,
    )


def test_import_release_with_tabular(tmp_path: Path) -> None:
    tables = _import(tmp_path, xml=True)
    codes = {node.code: node for node in tables.nodes}
    assert tables.nodes[0].code == "1"
    assert codes["A10.0XXA"].short_title == "Crack of belly, first"
    assert codes["A10.911"].title == "Crack, new this year"
    assert tables.nodes[codes["A10.911"].parent].code == "A10"
    assert {spell.code for spell in tables.spells} == {"A000", "A001", "A0A", "A100XXA", "A10911"}
    assert all(spell[1:] == (20271001, OPEN_END) for spell in tables.spells)
    assert tables.facts["codes_not_in_hierarchy_source"] == 1
    assert tables.facts["notes"] == len(tables.notes) == 10
    assert [source.file for source in tables.sources] == ["order.txt", "tabular.xml"]
    assert all(len(source.sha256) == 64 for source in tables.sources)


def test_import_release_from_the_order_file_alone(tmp_path: Path) -> None:
    tables = _import(tmp_path, xml=False)
    assert [(n.kind, n.code, n.parent, n.billable) for n in tables.nodes] == [
        ("category", "A00", -1, False),
        ("code", "A00.0", 0, True),
        ("code", "A00.1", 0, True),
        ("category", "A0A", -1, True),
        ("category", "A10", -1, False),
        ("subcategory", "A10.0", 4, False),
        ("code", "A10.0XXA", 5, True),
        ("code", "A10.911", 4, True),
    ]
    assert tables.notes == []


def test_import_release_continues_a_history(tmp_path: Path) -> None:
    history = [
        Spell("A000", 20151001, OPEN_END),
        Spell("A001", 20151001, 20200930),
        Spell("A009", 20151001, OPEN_END),
        Spell("A0A", 20261001, 20270930),
        Spell("A100", 20271001, OPEN_END),
    ]
    assert _import(tmp_path, xml=True, history=history).spells == [
        Spell("A000", 20151001, OPEN_END),
        Spell("A001", 20151001, 20200930),
        Spell("A001", 20271001, OPEN_END),
        Spell("A009", 20151001, 20270930),
        Spell("A0A", 20261001, OPEN_END),
        Spell("A100XXA", 20271001, OPEN_END),
        Spell("A10911", 20271001, OPEN_END),
    ]


def test_import_release_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match=r"none\.txt cannot be read"):
        icd10cm.import_release(tmp_path / "none.txt", release="2028", effective_from=20271001, effective_to=20280331)


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(SourceFormatError, match=r"line 1 is.*UTF-8"):
        icd10cm.read_order_file(io.BytesIO(b"00001 A00     0 caf\xe9"), made_up.SOURCE)
