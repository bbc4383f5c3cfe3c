"""Importer of ICD-10-PCS on small made-up files."""

from __future__ import annotations

import io
from pathlib import Path

import made_up
import pytest

from codesets import icd10pcs
from engine.errors import SourceFormatError

TEA = "Steeping: putting leaves into water"
ROWS = [
    (
        "0A100ZZ",
        "Steep pot",
        "Steeping of Pot, Open Approach",
        ("Kitchen", "Teapots", TEA, "Pot", "Open", "No Device", "No Qualifier"),
    ),
    (
        "0A103Y1",
        "",
        "Steeping of Pot, Sidelong",
        ("Kitchen", "Teapots", TEA, "Pot", "Sidelong", "Drip- stopper", "Electro lidded"),
    ),
    (
        "0B203ZZ",
        "Pour cup",
        "Pouring of Electrolidded Cup",
        ("Kitchen", "Cups", "Pouring: tilting", "Cup", "Sidelong", "No Device", "No Qualifier"),
    ),
]


def _rows(
    rows: list[tuple[str, str, str, tuple[str, ...]]], path: Path
) -> tuple[dict[str, icd10pcs.Title], icd10pcs.Labels]:
    return icd10pcs.read_tables(made_up.write_procedures(path, rows), made_up.SOURCE)


def test_code_list() -> None:
    stream = io.BytesIO(b"0A100ZZ Steeping of Pot\r\n\r\n0A10YZ1 Steeping, other\r\n")
    assert icd10pcs.read_code_list(stream, made_up.SOURCE) == {
        "0A100ZZ": ("Steeping of Pot", ""),
        "0A10YZ1": ("Steeping, other", ""),
    }


@pytest.mark.parametrize("line", [b"0A100Z Steeping", b"0A100ZZSteeping", b"0a100zz Steeping", b"0A100ZZ", b""])
def test_code_list_says_what_does_not_fit(line: bytes) -> None:
    with pytest.raises(SourceFormatError, match=r"line 1 is|no lines"):
        icd10pcs.read_code_list(io.BytesIO(line), made_up.SOURCE)


def test_axis_contexts() -> None:
    code = "0A103Y1"
    assert [icd10pcs.context_of(code[:n]) for n in range(1, 8)] == [
        "",
        "0",
        "0A",
        "0A1:4",
        "0A1:5",
        "0A1:6",
        "0A1:7",
    ]


def test_labels_of_tables_are_mended(tmp_path: Path) -> None:
    titles, labels = _rows(ROWS, tmp_path / "made-up.db")
    assert titles["0A100ZZ"] == ("Steeping of Pot, Open Approach", "Steep pot")
    assert [labels.label("0A103Y1"[:n]) for n in range(1, 8)] == [
        "Kitchen",
        "Teapots",
        "Steeping",
        "Pot",
        "Sidelong",
        "Drip-stopper",
        "Electrolidded",
    ]


def test_labels_of_values_the_tables_lack(tmp_path: Path) -> None:
    _, labels = _rows(ROWS, tmp_path / "made-up.db")
    assert labels.label("0B1") == "Steeping"  # operations mean the same in the whole section
    assert labels.label("0B1C") == ""
    assert labels.label("0A2C") == ""
    assert labels.label("0A21") == ""
    assert labels.label("0A203") == "Sidelong"  # approaches likewise
    assert labels.label("0A201Z") == "No Device"
    assert labels.label("0A2010Z") == "No Qualifier"
    assert labels.label("0A2011") == ""  # a device only in its own table
    assert labels.label("3") == "Administration"
    assert labels.label("3E0") == ""
    assert labels.label("3E0201Z") == ""


def test_a_value_with_two_labels_is_refused(tmp_path: Path) -> None:
    twice = (
        "0A113ZZ",
        "",
        "x",
        ("Kitchen", "Teapots", TEA, "Pan", "Sidelong", "Drip- stopper", "No Qualifier"),
    )
    with pytest.raises(SourceFormatError, match=r"0A1.* means"):
        _rows([*ROWS, ("0A100Y2", *ROWS[0][1:3], (*ROWS[0][3][:6], "Odd")), twice], tmp_path / "made-up.db")


@pytest.mark.parametrize("rows", [[], [("0A1", "", "x", ("",) * 7)]])
def test_databases_that_are_refused(tmp_path: Path, rows: list[tuple[str, str, str, tuple[str, ...]]]) -> None:
    with pytest.raises(SourceFormatError):
        _rows(rows, tmp_path / "made-up.db")
    (tmp_path / "text.db").write_bytes(b"no database" * 100)
    with pytest.raises(SourceFormatError, match="SQLite"):
        icd10pcs.read_tables(tmp_path / "text.db", made_up.SOURCE)
