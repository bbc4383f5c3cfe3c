"""Packs from official files given by path."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path

import made_up
import pytest
from test_drg_weights import table
from test_msdrg_release import NEXT, VERSIONS

from codesets import build
from codesets.from_file import SYSTEMS, Given, build_from_file
from engine import open, pack
from engine.errors import (
    InvalidDateError,
    InvalidFieldError,
    SourceFormatError,
    SourceUnavailableError,
    UnknownReleaseError,
    UnknownSystemError,
)


@pytest.fixture(scope="module")
def grouper_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up release with a version to come."""
    from msdrg_made_up import Encoder

    path = tmp_path_factory.mktemp("cms") / "msdrg_combined.bin"
    path.write_bytes(Encoder(VERSIONS).encode())
    return path


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up Table 5 of the year of MS-DRG 43."""
    path = tmp_path_factory.mktemp("cms") / "table5.txt"
    path.write_bytes(table())
    return path


def test_every_version_of_a_grouper_release(grouper_file: Path, tmp_path: Path) -> None:
    events: list[build.Event] = []
    made = build_from_file("msdrg", Given(grouper_file), tmp_path, progress=events.append)
    assert [item.target.id for item in made] == ["msdrg/43.1", "msdrg/45.0"]
    assert all(item.built and item.seconds > 0 for item in made)
    assert [(e.name, e.done, e.total) for e in events if e.step == "done"] == [
        ("msdrg/43.1", 1, 2),
        ("msdrg/45.0", 2, 2),
    ]
    manifest = pack.read_manifest(made[1].path)
    assert pack.verify_pack(made[1].path) == []
    assert (manifest.kind, manifest.effective_from, manifest.effective_to) == ("msdrg", 20271001, 20280331)
    (source,) = manifest.sources
    assert (source.wheel, source.file, source.release) == ("", "msdrg_combined.bin", "43.1 to 45.0")
    again = build_from_file("msdrg", Given(grouper_file), tmp_path)
    assert [(item.path, item.built, item.seconds) for item in again] == [(item.path, False, 0.0) for item in made]
    assert [item.built for item in build_from_file("msdrg", Given(grouper_file, "45.0"), tmp_path, replace=True)] == [
        True
    ]


def test_a_version_to_come_groups(grouper_file: Path, tmp_path: Path) -> None:
    build_from_file("msdrg", Given(grouper_file, "45.0"), tmp_path)
    library = open(tmp_path)
    assert [info.id for info in library.releases()] == ["msdrg/45.0"]
    result = library.group_drg({"discharge_date": 20280101, "diagnoses": ["U09.9", "A00.1"], "discharge_status": 1})
    assert result.final_grouping is not None
    assert (result.version, result.drg, result.final_grouping.drg_title) == ("45.0", 50, "Leaks with CC")
    assert result.final_grouping.weight is None
    assert NEXT.diagnoses["U099"].severity == "MCC"


def test_weights_of_the_year_come_with_the_drg(grouper_file: Path, weights_file: Path, tmp_path: Path) -> None:
    build_from_file("msdrg", Given(grouper_file), tmp_path)
    (made,) = build_from_file("msdrg-weights", Given(weights_file), tmp_path)
    assert made.target.id == "msdrg-weights/2026"
    (again,) = build_from_file("msdrg-weights", Given(weights_file, "2026"), tmp_path)
    assert not again.built
    library = open(tmp_path)
    claim = {"version": "43.1", "diagnoses": ["A000"], "procedures": ["0AB10ZZ"], "discharge_status": 1}
    result = library.group_drg(claim)
    assert result.final_grouping is not None
    assert (result.drg, result.final_grouping.weight) == (21, None)  # a DRG that the table does not have
    assert library.drg_weights("2026").keys() == {1, 10, 291}


def test_an_order_file(tmp_path: Path) -> None:
    (tmp_path / "order.txt").write_text(made_up.ORDER)
    (tmp_path / "tabular.xml").write_text(made_up.TABULAR_XML, encoding="utf-8")
    given = Given(tmp_path / "order.txt", "2028", tmp_path / "tabular.xml", 20271001, 20280331)
    (made,) = build_from_file("icd10cm", given, tmp_path / "store")
    assert pack.read_manifest(made.path).id == "icd10cm/2028"
    assert open(tmp_path / "store").code_system("icd10cm", date=20280101).lookup("A00").kind == "category"
    (again,) = build_from_file("icd10cm", given, tmp_path / "store")
    assert (made.built, again.built) == (True, False)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"release": None}, InvalidFieldError, "give icd10cm/RELEASE"),
        ({"release": "../2028"}, UnknownReleaseError, "2028-04"),
        ({"effective_to": None}, InvalidFieldError, "--effective-to is missing"),
        ({"effective_from": None, "effective_to": None}, InvalidFieldError, "--effective-from and --effective-to"),
        ({"effective_from": 20270931}, InvalidDateError, "--effective-from: expected a day"),
        ({"effective_to": 20270930}, InvalidFieldError, "before --effective-from"),
        ({"file": Path("nowhere.txt")}, SourceUnavailableError, "nowhere"),
    ],
)
def test_an_order_file_needs_its_release_and_days(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], says: str
) -> None:
    (tmp_path / "order.txt").write_text(made_up.ORDER)
    given = Given(tmp_path / "order.txt", "2028", None, 20271001, 20280331)
    with pytest.raises(error, match=says):
        build_from_file("icd10cm", dataclasses.replace(given, **changes), tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("system", "given", "error", "says"),
    [
        ("icd10pcs", Given(Path("x")), UnknownSystemError, ", ".join(SYSTEMS)),
        ("mce", Given(Path("x"), "../45.0"), UnknownReleaseError, r"such as 45\.0"),
        ("mce", Given(Path("x"), tabular=Path("y")), InvalidFieldError, "--tabular is for icd10cm only"),
        ("mce", Given(Path(__file__)), SourceFormatError, "test_from_file"),
        ("cmshcc", Given(Path("x"), "28"), UnknownReleaseError, "such as v28-2027"),
        ("cmshcc", Given(Path(__file__)), SourceFormatError, "test_from_file"),
        ("msdrg", Given(Path("x"), "45"), UnknownReleaseError, r"such as 45\.0"),
        ("msdrg", Given(Path("x"), "../45.0"), UnknownReleaseError, r"such as 45\.0"),
        ("msdrg", Given(Path("x"), effective_from=20271001), InvalidFieldError, "--effective-from is for icd10cm only"),
        ("msdrg-weights", Given(Path("x"), tabular=Path("y")), InvalidFieldError, "--tabular is for icd10cm only"),
        ("msdrg-weights", Given(Path("x"), "FY26"), UnknownReleaseError, "such as 2027"),
        ("msdrg", Given(Path(__file__)), SourceFormatError, "test_from_file"),
        ("msdrg-weights", Given(Path(__file__)), SourceFormatError, "test_from_file"),
    ],
)
def test_what_cannot_be_built(tmp_path: Path, system: str, given: Given, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        build_from_file(system, given, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_version_that_the_file_does_not_hold(grouper_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownReleaseError, match=r"no MS-DRG '44\.0'"):
        build_from_file("msdrg", Given(grouper_file, "44.0"), tmp_path)
    with pytest.raises(UnknownReleaseError, match=r"39\.1 is older than 40\.0"):
        build_from_file("msdrg", Given(grouper_file, "39.1"), tmp_path)


@pytest.mark.parametrize(
    ("system", "entry"),
    [
        ("msdrg", "runtime_buffers/msdrg_combined.bin"),
        ("mce", "runtime_buffers/mce.bin"),
        ("cmshcc", "ICD10_CC_mappings_CMS_HCC_2026_v28.csv"),
    ],
)
def test_archives_damaged_anywhere_are_refused(tmp_path: Path, system: str, entry: str) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, bytes(range(256)))
    good = content.getvalue()
    path = tmp_path / "release.jar"
    # Neither the archive's content nor what is left of it is a release: nothing else may come out.
    for at in range(len(good)):
        for data in (good[:at], good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]):
            path.write_bytes(data)
            with pytest.raises(SourceFormatError, match="release"):
                build_from_file(system, Given(path), tmp_path / "store")
