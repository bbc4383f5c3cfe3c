"""The official MS-DRG file: made-up ones everywhere, the real one where it is at hand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msdrg_made_up
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msdrg_made_up import Encoder, message, packed

from codesets import msdrg, msdrg_release
from engine.compile_msdrg import compile_msdrg
from engine.errors import SourceFormatError, SourceUnavailableError, UnknownReleaseError
from engine.tables import MsdrgTables, Source

REAL = Path(__file__).parents[3] / "shared" / "cms" / "msdrg_combined.bin"
SOURCE = Source("", "", "0" * 64, "made-up.bin", "", ("msdrg",))
OLD = msdrg_made_up.tables("39.1", 20220401, 20220930)
NOW = msdrg_made_up.tables("43.1", 20260401, 20260930)
NEXT = msdrg_made_up.tables("45.0", 20271001, 20280331, extra="U099")
VERSIONS = {391: OLD, 431: NOW, 450: NEXT}


def read(data: bytes) -> msdrg_release.MsdrgRelease:
    return msdrg_release.MsdrgRelease(data, SOURCE)


def same(left: MsdrgTables, right: MsdrgTables) -> bool:
    """Whether both compile to the same arrays."""
    a, facts_a = compile_msdrg(left)
    b, facts_b = compile_msdrg(right)
    assert a.keys() == b.keys()
    return facts_a == facts_b and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("version", "first", "last"),
    [
        ("39.1", 20220401, 20220930),
        ("43.0", 20251001, 20260331),
        ("45.0", 20271001, 20280331),
        ("45.1", 20280401, 20280930),
        ("60.0", 20421001, 20430331),
    ],
)
def test_days_follow_from_the_version(version: str, first: int, last: int) -> None:
    assert msdrg_release.effective_dates(version) == (first, last)


def test_days_are_those_of_the_pinned_versions() -> None:
    assert {version: msdrg_release.effective_dates(version) for version in msdrg.VERSIONS} == msdrg.VERSIONS


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_every_version_of_a_file_is_read_whatever_the_order_of_its_rows(seed: int, pack: bool) -> None:
    release = read(Encoder(VERSIONS, seed, pack).encode())
    assert release.versions == ("43.1", "45.0")
    assert release.older == ("39.1",)
    assert release.source.release == "43.1 to 45.0"
    for expected in (NOW, NEXT):
        got = release.tables(expected.version)
        for name in ("diagnoses", "procedures", "gender_mdcs", "clusters", "formulas", "hac_formulas"):
            assert getattr(got, name) == getattr(expected, name), name
        for name in ("drg_titles", "mdc_titles", "hac_titles"):
            assert getattr(got, name) == getattr(expected, name), name
        assert {code: got.exclusion_groups[group] for code, group in got.exclusions.items()} == {
            code: expected.exclusion_groups[group] for code, group in expected.exclusions.items()
        }
        assert (got.effective_from, got.effective_to) == (expected.effective_from, expected.effective_to)
        assert got.sources == [release.source]
        assert same(got, expected)


def test_versions_without_rules_here_are_refused() -> None:
    release = read(Encoder(VERSIONS).encode())
    with pytest.raises(UnknownReleaseError, match=r"39\.1 is older than 40\.0.*43\.1, 45\.0"):
        release.tables("39.1")
    with pytest.raises(UnknownReleaseError, match=r"no MS-DRG '44\.0'; it holds 43\.1, 45\.0"):
        release.tables("44.0")
    with pytest.raises(SourceFormatError, match=r"holds MS-DRG 39\.1; expected MS-DRG 40\.0 or later"):
        read(Encoder({391: OLD}).encode())


def jar(data: bytes, name: str = msdrg_release.ENTRY) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
        out.writestr(name, data)
    return archive.getvalue()


def test_the_jar_is_as_good_as_the_file_inside(tmp_path: Path) -> None:
    data = Encoder(VERSIONS).encode()
    (tmp_path / "msdrg-binary-access-1.0.jar").write_bytes(jar(data))
    (tmp_path / "msdrg_combined.bin").write_bytes(data)
    from_jar = msdrg_release.read_release(tmp_path / "msdrg-binary-access-1.0.jar")
    from_file = msdrg_release.read_release(tmp_path / "msdrg_combined.bin")
    assert from_jar.source.file == "msdrg-binary-access-1.0.jar"
    assert len(from_jar.source.sha256) == len(from_file.source.sha256) == 64
    assert from_jar.source.sha256 != from_file.source.sha256
    left, right = from_jar.tables("45.0"), from_file.tables("45.0")
    left.sources = right.sources = []
    assert left == right


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no table of diagnoses"),
        (b"<html>", "made-up"),
        (b"PK\3\4", "archive cannot be read"),
        (jar(b"", "another/file"), "no entry runtime_buffers/msdrg_combined.bin"),
        (jar(b""), "no table of diagnoses"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "made-up"
    path.write_bytes(data)
    with pytest.raises(SourceFormatError, match=says):
        msdrg_release.read_release(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="nowhere"):
        msdrg_release.read_release(tmp_path / "nowhere.jar")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    data = bytearray(jar(Encoder(VERSIONS).encode()))
    data[data.index(b"msdrg_combined.bin") + 40] ^= 0xFF
    (tmp_path / "release.jar").write_bytes(data)
    with pytest.raises(SourceFormatError, match=r"release\.jar: the archive cannot be read"):
        msdrg_release.read_release(tmp_path / "release.jar")


def _with(table: int, *rows: bytes) -> bytes:
    """A file whose ``table`` has further rows."""
    return Encoder(VERSIONS).encode() + message(*((table, row) for row in rows))


@pytest.mark.parametrize(
    ("table", "row", "says"),
    [
        (1, message((1, message((1, "B00"), (2, message((1, message((2, 3), (6, 431)))))))), "severity 3; expected 0"),
        (1, message((1, message((1, "B00"), (2, message((1, message((3, 77), (6, 431)))))))), "diagnosis pattern 77"),
        (1, message((1, message((1, "B00"), (2, message((1, message((6, 4310)))))))), None),
        (1, message((1, message((1, "B00"), (2, message((1, message((6, 435)))))))), "version number 435"),
        (1, message((1, message((1, "b00"), (2, b"")))), "code 'b00'"),
        (1, message((1, message((1, "A" * 9), (2, b"")))), "code 'AAAAAAAAA'"),
        (1, message((1, message((1, 7), (2, b"")))), "number"),
        (1, message((1, message((1, "B00"), (2, message((1, 5)))))), "number where the protobuf message"),
        (
            2,
            message((1, message((1, "0AB10ZZ"), (2, message((1, message((1, -1), (2, 431)))))))),
            "procedure pattern -1",
        ),
        (5, message((1, message((1, "A00"), (2, message((1, message((1, 5), (2, 431)))))))), "exclusion group 5"),
        (6, message((1, message((1, "Z@9"), (2, message((1, message((4, 431)))))))), "no choices"),
        (6, message((1, message((1, "Z@9"), (2, message((1, message((3, message((1, 1)))))))))), "has no codes"),
        (7, message((1, message((1, "A00"), (2, message((1, message((2, 431)))))))), "one sex only"),
        (8, message((1, message((1, 1), (2, message((1, message((1, 1000)))))))), "DRG 1000; expected 0 to 999"),
        (8, message((1, message((1, 1), (2, message((1, message((7, "BOTH")))))))), "type 'BOTH'"),
        (9, message((1, message((1, 99), (2, message((1, message((3, "x")))))))), "HAC 99"),
        (13, message((1, message((1, 1), (2, message((1, message((1, b"\xff"), (7, 431)))))))), "not UTF-8"),
        (14, b"\x08", "cut short"),
    ],
)
def test_what_cannot_be_right_is_refused_with_the_table(table: int, row: bytes, says: str | None) -> None:
    if says is None:
        assert read(_with(table, row)).versions == ("43.1", "45.0")
        return
    with pytest.raises(SourceFormatError, match=r"made-up\.bin: table of ") as raised:
        read(_with(table, row))
    assert says in str(raised.value)


def test_a_row_there_twice_is_fine_and_two_different_ones_are_not() -> None:
    """The real file has the cluster Z@1626 several times for one version."""
    title = message((1, message((1, "Leaks"), (7, 431))), (1, message((1, "Leaks"), packed(7, [431, 450]))))
    assert read(_with(13, message((1, message((1, 51), (2, title)))))).tables("45.0").drg_titles[51] == "Leaks"
    title = message((1, message((1, "Leaks"), (7, 431))), (1, message((1, "Cracks"), (7, 431))))
    with pytest.raises(SourceFormatError, match=r"two different rows for MS-DRG 43\.1"):
        read(_with(13, message((1, message((1, 51), (2, title))))))


def test_a_version_with_formulas_alone_is_refused() -> None:
    row = message((9, "ANYDX"), (7, "NA"), (13, message((1, 1), (2, 460))))
    release = read(_with(8, message((1, message((1, 1), (2, message((1, row))))))))
    assert release.versions == ("43.1", "45.0", "46.0")
    with pytest.raises(SourceFormatError, match=r"formulas of MS-DRG 46\.0, but no diagnoses"):
        release.tables("46.0")


# --- hostile bytes ----------------------------------------------------------------------------------------------------


def attempt(data: bytes) -> None:
    """Read all that is there. Nothing but SourceFormatError, naming the file, may come out."""
    said = "made-up.bin: "
    try:
        release = read(data)
        for version in release.versions:
            release.tables(version)
    except SourceFormatError as error:
        said = str(error)
    assert said.startswith("made-up.bin: ")


ENCODED = Encoder(VERSIONS).encode()


def test_every_truncation_is_read_or_refused() -> None:
    for length in range(len(ENCODED)):
        attempt(ENCODED[:length])


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    attempt(data)
    attempt(ENCODED + data)


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, len(ENCODED) - 1), st.integers(0, 255)), min_size=1, max_size=5))
def test_altered_bytes_are_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(ENCODED)
    for at, value in changes:
        data[at] = value
    attempt(bytes(data))


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200), at=st.integers(0, 200))
def test_any_archive_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("hostile") / "release.jar"
    archive = bytearray(jar(ENCODED))
    archive[at : at + len(data)] = data
    for content in (b"PK" + data, bytes(archive)):
        path.write_bytes(content)
        try:
            msdrg_release.read_release(path)
        except SourceFormatError:
            continue


# --- the real file ----------------------------------------------------------------------------------------------------

if REAL.is_file():
    # No mark skips: a checkout without the file has no test of it.

    @pytest.fixture(scope="module")
    def real() -> msdrg_release.MsdrgRelease:
        return msdrg_release.read_release(REAL)

    def test_the_official_file_holds_40_to_43(real: msdrg_release.MsdrgRelease) -> None:
        assert real.versions == tuple(v for v in msdrg.VERSIONS if v != "44.0")
        assert real.older == ()

    @pytest.mark.parametrize("version", [version for version in msdrg.VERSIONS if version != "44.0"])
    def test_packs_from_either_source_are_the_same(
        real: msdrg_release.MsdrgRelease, blobs: Mapping[str, bytes], version: str
    ) -> None:
        pinned = msdrg.load_version(blobs, version, SOURCE)
        official = real.tables(version)
        assert (official.effective_from, official.effective_to) == (pinned.effective_from, pinned.effective_to)
        assert same(official, pinned)
