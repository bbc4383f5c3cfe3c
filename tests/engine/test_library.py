"""Which release answers, what a library does with packs it cannot use, and threads on one library."""

from __future__ import annotations

import datetime
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from codes_made_up import FROM, SYSTEM, TO, Oracle, tables, write

import engine
from engine import errors, library
from engine.codes import Status, Subsumption
from engine.library import Library

SPANS = {"2021": (FROM, TO), "2021-04": (20210401, 20210930), "2023": (20221001, 20230331)}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for release, span in SPANS.items():
        write(tmp_path, tables(release, *span))
    return tmp_path


def _spoil(pack: Path, file: str) -> None:
    data = bytearray((pack / file).read_bytes())
    data[-2] ^= 0x10
    # Not in place: the file may be a link to that of another release.
    (pack / file).unlink()
    (pack / file).write_bytes(data)


def test_the_date_chooses_the_release(store: Path) -> None:
    opened = engine.open(store)
    for date, release in [(FROM, "2021"), (TO, "2021"), ("20210401", "2021-04"), (datetime.date(2023, 1, 1), "2023")]:
        system = opened.code_system(SYSTEM, date=date)
        found = opened.validate(SYSTEM, "U01", date=date)
        assert system.release == found.release == opened.release(SYSTEM, date=date).release == release
        assert system.date == found.date == int(str(date).replace("-", ""))
    # Without a date: today if it is covered, else the newest.
    assert opened.code_system(SYSTEM).release == "2023"
    assert opened.code_system(SYSTEM).date == 20221001
    write(store, tables("now", 20230401, 99991231))
    now = engine.open(store).code_system(SYSTEM)
    assert now.release == "now"
    assert abs(now.date - int(datetime.date.today().strftime("%Y%m%d"))) <= 1


def test_the_release_chooses_itself(store: Path) -> None:
    opened = engine.open(store)
    assert opened.code_system(SYSTEM, release="2021-04").date == 20210401
    assert opened.validate(SYSTEM, "U00.12", release="2023", date=20200101).status is Status.NOT_YET
    assert opened.validate_many(SYSTEM, ["U00.12"], release="2021").tolist() == [Status.VALID]
    assert opened.lookup(SYSTEM, "W99", kind="block", date=FROM).title == "Wyverns"
    assert opened.subsumes(SYSTEM, "U00", "U0011", release="2021") is Subsumption.SUBSUMES


def test_unknown_things_are_named_with_what_there_is(store: Path) -> None:
    opened = engine.open(store)
    with pytest.raises(errors.UnknownSystemError, match="system 'icd12' is not loaded; there is beasts"):
        opened.validate("icd12", "U00")
    with pytest.raises(errors.UnknownSystemError):
        opened.validate(None, "U00")  # type: ignore[arg-type]
    with pytest.raises(errors.UnknownReleaseError, match="no release '1999' here; there is 2021, 2021-04, 2023"):
        opened.code_system(SYSTEM, release="1999")
    with pytest.raises(errors.UnknownReleaseError):
        opened.code_system(SYSTEM, release=2021)  # type: ignore[arg-type]
    for date in (20200930, 20211001, 20230401):
        with pytest.raises(
            errors.DateOutsideCoverageError,
            match=f"covers {date}; loaded are 20201001 to 20210930, 20221001 to 20230331",
        ):
            opened.validate(SYSTEM, "U00", date=date)
    with pytest.raises(errors.InvalidDateError):
        opened.validate(SYSTEM, "U00", date=20210230)
    with pytest.raises(errors.UnknownSystemError, match="there is beasts"):
        opened.drg_grouper("43.1")


def test_systems_go_by_their_uris(tmp_path: Path) -> None:
    for system in ("icd10cm", "icd10pcs", "icd9cm", "icd9proc"):
        made_up = tables()
        made_up.system = system
        write(tmp_path, made_up)
    opened = engine.open(tmp_path)
    assert len(library.SYSTEM_URIS) == 8
    for uri, system in library.SYSTEM_URIS.items():
        assert opened.code_system(uri).system == system
        assert [info.system for info in opened.releases(uri)] == [system]
    assert opened.code_system("icd10pcs").axes("U00")[0].name == "section"


def test_releases_are_listed_from_manifests(store: Path) -> None:
    opened = engine.open(store)
    assert [info.id for info in opened.releases()] == [f"{SYSTEM}/{release}" for release in SPANS]
    info = opened.releases(SYSTEM)[0]
    assert (info.system, info.release, info.kind) == (SYSTEM, "2021", "codes")
    assert (info.effective_from, info.effective_to) == SPANS["2021"]
    assert info.sources[0].wheel == "made-up-beasts"
    assert info.facts["beasts"] == 2
    assert info.files["slots.npy"].size > 0
    assert info.size > 1000
    assert info.path == store / SYSTEM / "2021"
    assert "3 releases of beasts" in repr(opened)
    # Nothing was opened for that.
    assert all(release.opened is None for release in opened._systems[SYSTEM].all)


def test_only_the_releases_asked_for(store: Path) -> None:
    opened = engine.open(store, releases=[f"{SYSTEM}/2023"])
    assert [info.release for info in opened.releases()] == ["2023"]
    assert len(engine.open(store, releases=[SYSTEM]).releases()) == 3
    with pytest.raises(errors.UnknownReleaseError, match="there is 2021, 2021-04, 2023"):
        engine.open(store, releases=[f"{SYSTEM}/2022"])
    with pytest.raises(errors.UnknownSystemError, match="there is beasts"):
        engine.open(store, releases=["plants/2022"])
    with pytest.raises(errors.InvalidFieldError, match="expected a list"):
        engine.open(store, releases=f"{SYSTEM}/2023")
    with pytest.raises(errors.InvalidFieldError, match="verify"):
        engine.open(store, verify="never")  # type: ignore[arg-type]


def test_an_empty_store_says_how_to_fill_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in (tmp_path, str(tmp_path / "missing")):
        with pytest.raises(errors.PackNotFoundError, match="codeset-engine build"):
            engine.open(empty)
    monkeypatch.setenv("CODESET_ENGINE_PACKS", str(tmp_path / "configured"))
    with pytest.raises(errors.PackNotFoundError, match="configured"):
        engine.open()
    write(tmp_path / "configured")
    assert engine.open().store == tmp_path / "configured"


def test_one_unusable_release_does_not_take_down_the_others(store: Path) -> None:
    _spoil(store / SYSTEM / "2021-04", "title_text.npy")
    (store / SYSTEM / "2023" / "manifest.json").write_text("{}")
    opened = engine.open(store)
    # An unreadable manifest is known at once, a damaged file when it is needed.
    assert [path.name for path, _ in opened.unusable] == ["2023"]
    assert opened.validate(SYSTEM, "U01", date=FROM).valid
    for _ in range(2):
        with pytest.raises(errors.PackCorruptError, match=r"2021-04: title_text\.npy: its checksum"):
            opened.validate(SYSTEM, "U01", date=20210401)
    with pytest.raises(errors.PackCorruptError, match=r"2023: manifest\.json"):
        opened.validate(SYSTEM, "U01", release="2023")
    with pytest.raises(errors.DateOutsideCoverageError, match="Unusable: beasts/2023"):
        opened.validate(SYSTEM, "U01", date=20230101)
    assert sorted(path.name for path, _ in opened.unusable) == ["2021-04", "2023"]
    assert opened.validate(SYSTEM, "U01", date=FROM).valid

    at_once = engine.open(store, verify="now")
    assert [info.release for info in at_once.releases()] == ["2021"]
    assert sorted(path.name for path, _ in at_once.unusable) == ["2021-04", "2023"]
    with pytest.raises(errors.PackCorruptError):
        at_once.code_system(SYSTEM, release="2021-04")
    with pytest.raises(errors.PackCorruptError):
        engine.open(store, releases=[f"{SYSTEM}/2023"])


def test_a_library_is_a_snapshot(store: Path) -> None:
    opened = engine.open(store)
    early = opened.code_system(SYSTEM, release="2021")
    write(store, tables("2024", 20231001, 20240331))
    assert len(opened.releases()) == 3
    changed = tables("2023", *SPANS["2023"])
    changed.nodes[0] = changed.nodes[0]._replace(title="Other injuries")
    write(store, changed, replace=True)
    with pytest.raises(errors.PackNotFoundError, match="Open the library again"):
        opened.lookup(SYSTEM, "1", release="2023")
    with engine.open(store) as again:
        assert again.lookup(SYSTEM, "1", release="2023").title == "Other injuries"
        system = again.code_system(SYSTEM, release="2023")
    # Closed libraries let go; what was handed out stays.
    assert system.lookup("1").title == "Other injuries"
    assert early.lookup("1").title == "Injuries by beasts"


def test_packs_of_unknown_kind_are_refused(store: Path) -> None:
    from engine import pack

    pack.write_pack(
        store, system="plants", release="1", kind="herbarium", effective_from=FROM, effective_to=TO, arrays={}
    )
    opened = engine.open(store)
    with pytest.raises(errors.UnknownSystemError, match="kind 'herbarium'"):
        opened.code_system("plants")
    assert opened.validate(SYSTEM, "U01", date=FROM).valid


def test_threads_share_one_library(store: Path) -> None:
    """All begin at once on a library that has nothing open, and ask different things of it in different order."""
    oracle = Oracle(tables())
    codes = [*oracle.spells, "U00", "W99", "?", "Z00", "1"]
    dates = [20160101, 20170101, 20180930, 20190101, FROM, 20210401, 20230101]
    expected = {(code, date): oracle.answer(code, date) for code in codes for date in dates}
    for _ in range(5):
        opened = engine.open(store)
        count = 8
        barrier = threading.Barrier(count)

        def hammer(number: int, opened: Library = opened, barrier: threading.Barrier = barrier) -> int:
            asked = 0
            barrier.wait()
            for turn in range(30):
                release = list(SPANS)[(number + turn) % 3]
                system = opened.code_system(SYSTEM, release=release)
                for date in dates[turn % 3 :] + dates[: turn % 3]:
                    found = system.validate_many(codes * 20, date)
                    assert found.tolist() == [expected[code, date][0] for code in codes] * 20
                    for code in codes:
                        one = opened.validate(SYSTEM, code, date=date, release=release)
                        assert (one.status, one.billable, one.effective_from, one.effective_to) == expected[code, date]
                        asked += 1
                assert len(system.descendants("1")) == 11
                assert len(system.prefix("U0")) == 7
            return asked

        with ThreadPoolExecutor(count) as pool:
            assert sum(pool.map(hammer, range(count))) == count * 30 * len(dates) * len(codes)
        assert opened.code_system(SYSTEM, release="2021")._index is opened.code_system(SYSTEM, date=TO)._index


def _in_new_process(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_importing_the_package_loads_the_errors_only() -> None:
    _in_new_process(
        "import sys, engine\n"
        "heavy = {'numpy', 'marisa_trie', 'engine._core', 'engine.codes', 'engine.library', 'engine.drg', 'grpc'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert issubclass(engine.UnknownCodeError, engine.CodesetError)\n"
        "assert engine.Library is engine.Library and 'numpy' in sys.modules\n"
    )


def test_every_public_name_is_there() -> None:
    for name in engine.__all__:
        assert getattr(engine, name) is not None
        assert name in dir(engine)
    with pytest.raises(AttributeError, match="has no attribute 'shut'"):
        _: Any = engine.shut  # type: ignore[attr-defined]
