"""Table 5: made-up ones in the layouts of several years, and the pinned one."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesets import catalog, drg_weights, fetch, msdrg
from engine.compile_weights import compile_weights
from engine.errors import SourceFormatError, SourceUnavailableError
from engine.tables import Source, WeightRow, WeightTables

SOURCE = Source("", "", "0" * 64, "table5.txt", "", ("weights",))
TITLE = '"TABLE 5.—LIST OF MEDICARE SEVERITY DIAGNOSIS-RELATED GROUPS,\nMEAN LENGTH OF STAY—FY 2026 Final Rule"'
HEADS = [
    "MS-DRG ", "FY 2026 Final Post-Acute DRG", "FY 2026 Final Special Pay DRG", "MDC", "TYPE", "MS-DRG Title",
    "Weights - Before Cap", "Weights - 10% Cap Applied ", "Geometric mean LOS", "Arithmetic mean LOS",
]  # fmt: skip
ROWS = [
    ["001", "No", "No", "PRE", "SURG", '"TEAPOT, HANDLE OR SPOUT"', "28.0239", "28.0239", "25.8", "36.2"],
    ["010", "Yes", "Yes", "PRE", "SURG", "LID", "3.0699", "7.1757", "5.9", "6"],
    ["291", "Yes", "No", "05", "MED", "LEAK", "1.2683", "1.2683", ".9", "5.0"],
    ["998", "No", "No", " ", "**", "INVALID", ".", ".", ".", "."],
    ["999", "No", "No", " ", "**", "UNGROUPABLE", "0.0000", "0.0000", "0.0", "0.0"],
]


def table(
    rows: list[list[str]] = ROWS, heads: list[str] = HEADS, title: str = TITLE, separator: str = "\t", after: str = ""
) -> bytes:
    lines = [title, *(separator.join(line) for line in (heads, *rows)), separator * 9, after]
    return "\r\n".join(lines).encode("cp1252")


def read(data: bytes, release: str | None = None) -> WeightTables:
    return drg_weights.read_table_5(io.BytesIO(data), SOURCE, release)


EXPECTED = [
    WeightRow(1, 280239, 280239, 258000, 362000, False, False),
    WeightRow(10, 71757, 30699, 59000, 60000, True, True),
    WeightRow(291, 12683, 12683, 9000, 50000, True, False),
]


def test_the_table_as_it_is_published() -> None:
    tables = read(table(after="MS-DRGs 998 and 999 contain cases that could not be assigned.\t\t\t\t\t\t\t\t\t"))
    assert tables.rows == EXPECTED
    assert (tables.release, tables.effective_from, tables.effective_to) == ("2026", 20251001, 20260930)
    assert tables.facts == {"drgs_without_weight": [998, 999]}
    assert tables.sources[0].release == "2026"


def test_commas_and_utf_8() -> None:
    data = table(separator=",").decode("cp1252").replace("\r\n", "\n").encode("utf-8-sig")
    assert read(data, "2026").rows == EXPECTED


def test_one_column_of_weights_as_before_2023() -> None:
    keep = [0, 1, 2, 3, 4, 5, 7, 8, 9]
    heads = [HEADS[i].replace("2026", "2022") for i in keep]
    heads[6] = "Weights"
    tables = read(table([[row[i] for i in keep] for row in ROWS], heads, "TABLE 5 FY 2022"))
    assert [row.relative_weight for row in tables.rows] == [280239, 71757, 12683]
    assert [row.weight_before_cap for row in tables.rows] == [None] * 3


def test_what_the_table_does_not_have_is_absent() -> None:
    rows = [["100", "", "", "1", "MED", "X", "", "1.5", ".", ""]]
    (row,) = read(table(rows)).rows
    assert row == WeightRow(100, 15000, None, None, None, None, None)


def test_the_year_is_given_or_named() -> None:
    assert read(table(title="TABLE 5", heads=[h.replace("FY 2026 ", "") for h in HEADS]), "2027").release == "2027"
    with pytest.raises(SourceFormatError, match="it is of FY 2026; expected FY 2025"):
        read(table(), "2025")
    with pytest.raises(SourceFormatError, match="they name none; say which"):
        read(table(title="TABLE 5", heads=[h.replace("FY 2026 ", "") for h in HEADS]))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no line begins with the head MS-DRG"),
        (b"\x89PNG\r\n\x1a\n\0\0", "table5.txt: "),
        (table(heads=[*HEADS[:7], "Weight", *HEADS[8:-1], "ALOS"]), "no column of arithmetic_mean_los"),
        (table(heads=[*HEADS[:3], "Weights A", *HEADS[4:]]), "several columns look like relative_weight"),
        (table([*ROWS, ROWS[0]]), "DRG 001 has two rows"),
        (table([["1000", *ROWS[0][1:]]]), "line 4: '1000' where an MS-DRG"),
        (table([ROWS[0][:-1]]), "line 4: 9 columns; expected 10"),
        (table([["001", "Maybe", *ROWS[0][2:]]]), "post_acute_transfer 'maybe'; expected Yes or No"),
        (table([[*ROWS[0][:7], "28.02391", "25.8", "36.2"]]), "relative_weight '28.02391'"),
        (table([[*ROWS[0][:7], "-1", "25.8", "36.2"]]), "relative_weight '-1'"),
        (table([[*ROWS[0][:7], "1e3", "25.8", "36.2"]]), "relative_weight '1e3'"),
        (table(ROWS[3:]), "no MS-DRG has a weight"),
    ],
)
def test_what_is_not_that_table_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(SourceFormatError, match=r"^table5\.txt: ") as raised:
        read(data)
    assert says in str(raised.value)


def test_a_file_by_path(tmp_path: Path) -> None:
    (tmp_path / "t5.txt").write_bytes(table())
    tables = drg_weights.read_weights(tmp_path / "t5.txt", "2026")
    assert tables.sources[0].file == "t5.txt"
    assert len(tables.sources[0].sha256) == 64
    with pytest.raises(SourceUnavailableError, match="nowhere"):
        drg_weights.read_weights(tmp_path / "nowhere")


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300), at=st.integers(0, 600))
def test_any_bytes_are_read_or_refused(data: bytes, at: int) -> None:
    good = table()
    for content in (data, good[:at] + data + good[at:], good[:at]):
        try:
            compile_weights(read(content))
        except SourceFormatError:
            continue


PUBLISHED = {
    291: (12838, 12838, 38000, 50000, True, False),
    470: (19289, 19289, 19000, 22000, True, False),
}
"""Read off the published table: DRG to weight, before the cap, GMLOS, AMLOS, post-acute, special pay."""


def test_the_pinned_table_has_a_weight_for_every_drg_of_its_year(blobs: Mapping[str, bytes]) -> None:
    (target,) = catalog.parse(["msdrg-weights"])
    (file,) = catalog.files(target)
    with fetch.Cache().open(file) as stream:
        tables = drg_weights.read_table_5(stream, file.source(), "2026")
    weights = {row.drg: row for row in tables.rows}
    assert len(weights) == 770
    for version in ("43.0", "43.1"):
        drgs = {row.drg for rows in msdrg.load_version(blobs, version, SOURCE).formulas.values() for row in rows}
        assert drgs - weights.keys() == {0, 998, 999}
        assert weights.keys() <= drgs
    assert {drg: tuple(weights[drg][1:]) for drg in PUBLISHED} == PUBLISHED
