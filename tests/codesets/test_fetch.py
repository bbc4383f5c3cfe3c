"""Fetching, verifying and caching wheels: pip itself, against a directory of made-up wheels."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from pathlib import Path

import made_up
import pytest

from codesets import fetch
from engine.errors import SourceDigestError, SourceFormatError, SourceUnavailableError


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fetch.Wheel:
    """A pinned wheel that pip finds in a directory, and nowhere else."""
    shelf = tmp_path / "shelf"
    path = made_up.make_wheel(shelf, "made-up-teapots", "1.0", {"made_up/data.txt": b"tea\n" * 1000})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return made_up.pin(path, [("made_up/data.txt", "text", ""), ("made_up/none.txt", "text", "")])


def _without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_pip_download", lambda *_: pytest.fail("it was fetched again"))


def test_fetched_once_then_read_from_the_cache(
    tmp_path: Path, wheel: fetch.Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[int] = []
    cache = fetch.Cache(tmp_path / "cache")
    assert not cache.has(wheel)
    path = cache.fetch(wheel, lambda _, done: arrived.append(done))
    assert arrived[-1] == wheel.size
    assert path.parent == tmp_path / "cache" / "wheels"
    _without_pip(monkeypatch)
    for again in (cache, fetch.Cache(tmp_path / "cache"), fetch.Cache(tmp_path / "cache", offline=True)):
        assert again.has(wheel)
        assert again.read(wheel.files[0]) == b"tea\n" * 1000
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["wheels"]


def test_a_wheel_put_into_the_cache_by_hand_is_used(
    tmp_path: Path, wheel: fetch.Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_pip(monkeypatch)
    cache = fetch.Cache(tmp_path / "cache", offline=True)
    with pytest.raises(SourceUnavailableError, match=r"made-up-teapots==1\.0.*put made_up_teapots.*into .*wheels"):
        cache.fetch(wheel)
    cache.path(wheel).parent.mkdir(parents=True)
    (tmp_path / "shelf" / wheel.filename).rename(cache.path(wheel))
    assert cache.read(wheel.files[0]).startswith(b"tea")


def test_another_file_under_the_pinned_name_is_refused(tmp_path: Path, wheel: fetch.Wheel) -> None:
    pinned = dataclasses.replace(wheel, sha256="0" * 64)
    cache = fetch.Cache(tmp_path / "cache")
    with pytest.raises(SourceDigestError, match=f"{wheel.sha256}, the pinned one is {'0' * 64}"):
        cache.fetch(pinned)
    assert not cache.has(pinned)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path: Path, wheel: fetch.Wheel, damage: str) -> None:
    path = fetch.Cache(tmp_path / "cache").fetch(wheel)
    good = path.read_bytes()
    path.write_bytes(good[:-100] if damage == "cut" else good[:200] + bytes([good[200] ^ 1]) + good[201:])
    with pytest.raises(SourceUnavailableError):
        fetch.Cache(tmp_path / "cache", offline=True).fetch(wheel)
    assert fetch.Cache(tmp_path / "cache").fetch(wheel).read_bytes() == good


def test_what_pip_says_is_passed_on(tmp_path: Path, wheel: fetch.Wheel) -> None:
    missing = dataclasses.replace(wheel, version="9.9")
    with pytest.raises(SourceUnavailableError, match=r"made-up-teapots==9\.9 could not be fetched: ERROR: No matching"):
        fetch.Cache(tmp_path / "cache").fetch(missing)
    assert list((tmp_path / "cache").iterdir()) == []


def _fake_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))


def test_no_pip(tmp_path: Path, wheel: fetch.Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_python(tmp_path, monkeypatch, "echo 'python: No module named pip' >&2; exit 1")
    with pytest.raises(SourceUnavailableError, match=r"no pip.*ensurepip"):
        fetch.Cache(tmp_path / "cache").fetch(wheel)


def test_an_interrupted_download_leaves_nothing(
    tmp_path: Path, wheel: fetch.Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip is killed with half the file on the disk: no file in the cache, and the next fetch starts anew."""
    half = 'while [ "$1" != --dest ]; do shift; done; printf half > "$2/' + wheel.filename + '"; kill -9 $$'
    _fake_python(tmp_path, monkeypatch, half)
    cache = fetch.Cache(tmp_path / "cache")
    with pytest.raises(SourceUnavailableError, match="status -9"):
        cache.fetch(wheel)
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    assert cache.read(wheel.files[0]).startswith(b"tea")


def test_ctrl_c_ends_pip_and_leaves_nothing(
    tmp_path: Path, wheel: fetch.Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_python(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid; exec sleep 60")

    def interrupt(*_: object) -> None:
        if (tmp_path / "pid").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.Cache(tmp_path / "cache").fetch(wheel, interrupt)
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_concurrent_fetches_agree(tmp_path: Path, wheel: fetch.Wheel) -> None:
    results: list[bytes] = []

    def run() -> None:
        results.append(fetch.Cache(tmp_path / "cache").extract(wheel.files[0]).read_bytes())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"tea\n" * 1000] * 4


def test_extract_again_if_the_unpacked_file_changed(tmp_path: Path, wheel: fetch.Wheel) -> None:
    cache = fetch.Cache(tmp_path / "cache")
    path = cache.extract(wheel.files[0])
    before = path.stat().st_mtime_ns
    assert cache.extract(wheel.files[0]).stat().st_mtime_ns == before
    path.write_bytes(b"tee\n" * 1000)
    assert cache.extract(wheel.files[0]).read_bytes() == b"tea\n" * 1000


def test_file_that_the_wheel_lacks(tmp_path: Path, wheel: fetch.Wheel) -> None:
    cache = fetch.Cache(tmp_path / "cache")
    with pytest.raises(SourceFormatError, match=r"no file made_up/none\.txt"):
        cache.read(wheel.files[1])


def test_cache_that_cannot_be_written(tmp_path: Path, wheel: fetch.Wheel) -> None:
    (tmp_path / "cache").write_text("a file, not a directory")
    with pytest.raises(SourceUnavailableError, match=r"cannot be written.*CODESET_ENGINE_CACHE"):
        fetch.Cache(tmp_path / "cache").fetch(wheel)


def test_what_a_killed_build_left_goes_after_a_day(tmp_path: Path, wheel: fetch.Wheel) -> None:
    for name, age in ((".tmp-old", 2 * 24 * 3600), (".tmp-running", 60)):
        left = tmp_path / "cache" / name
        left.mkdir(parents=True)
        os.utime(left, (time.time() - age,) * 2)
    fetch.Cache(tmp_path / "cache").fetch(wheel)
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [".tmp-running", "wheels"]


def test_default_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CODESET_ENGINE_CACHE", str(tmp_path))
    assert fetch.default_cache() == tmp_path
    monkeypatch.delenv("CODESET_ENGINE_CACHE")
    assert "codeset-engine" in str(fetch.default_cache())
