"""Publishing: a reader sees all of a pack or none, and a store is as it was when anything goes wrong."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from codes_made_up import SYSTEM, tables, write

import engine
from engine import errors, pack
from engine import publish as module
from engine.publish import publish


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "built")


def listing(store: Path) -> list[tuple[str, int, int]]:
    """Everything below ``store``, hidden files too."""
    return sorted((str(p.relative_to(store)), p.stat().st_ino, p.stat().st_size) for p in store.rglob("*"))


def other(tmp_path: Path) -> Path:
    """Return another pack of the same release."""
    made_up = tables()
    made_up.nodes[0] = made_up.nodes[0]._replace(title="Another title")
    return write(tmp_path / "other", made_up, replace=True)


def test_published_whole(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert publish(source, store) == (f"{SYSTEM}/2021", store / SYSTEM / "2021", True)
    assert pack.verify_pack(store / SYSTEM / "2021") == []
    assert [path.name for path in (store / SYSTEM).iterdir()] == ["2021"]
    assert engine.open(store, verify="now").validate(SYSTEM, "U01", release="2021").valid
    # Again is no error and no change.
    before = listing(store)
    assert publish(source, store) == (f"{SYSTEM}/2021", store / SYSTEM / "2021", False)
    assert listing(store) == before
    # The source is a copy's source only.
    (source / "manifest.json").unlink()
    assert pack.verify_pack(store / SYSTEM / "2021") == []


def test_links(source: Path, tmp_path: Path) -> None:
    publish(source, tmp_path / "store", link=True)
    for file in source.glob("*.npy"):
        assert file.samefile(tmp_path / "store" / SYSTEM / "2021" / file.name)


def test_files_that_another_release_has_are_stored_once(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    publish(source, store)
    publish(write(tmp_path / "built", tables("2021-04", 20210401, 20210930)), store)
    shared = [f for f in (store / SYSTEM / "2021").iterdir() if f.stat().st_nlink == 2]
    assert len(shared) > 5


def test_another_pack_of_the_release(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    publish(source, store)
    opened = engine.open(store, verify="now")
    before = listing(store)
    with pytest.raises(errors.PackExistsError, match="--force"):
        publish(other(tmp_path), store)
    assert listing(store) == before
    assert publish(other(tmp_path), store, replace=True).changed
    assert [path.name for path in (store / SYSTEM).iterdir()] == ["2021"]
    assert engine.open(store).lookup(SYSTEM, "1", release="2021").title == "Another title"
    assert opened.lookup(SYSTEM, "1", release="2021").title == "Injuries by beasts"


def test_a_damaged_pack_there_is_replaced_when_told(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    publish(source, store)
    (store / SYSTEM / "2021" / "slots.npy").unlink()
    with pytest.raises(errors.PackExistsError):
        publish(source, store)
    assert publish(source, store, replace=True).changed
    assert pack.verify_pack(store / SYSTEM / "2021") == []


def test_without_an_atomic_exchange(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ctypes, "CDLL", lambda *args, **options: object())
    publish(source, tmp_path / "store")
    publish(other(tmp_path), tmp_path / "store", replace=True)
    assert [path.name for path in (tmp_path / "store" / SYSTEM).iterdir()] == ["2021"]
    assert engine.open(tmp_path / "store").lookup(SYSTEM, "1", release="2021").title == "Another title"


def test_a_spoilt_source_is_refused(source: Path, tmp_path: Path) -> None:
    file = source / "title_text.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(errors.PackCorruptError, match="title_text"):
        publish(source, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    with pytest.raises(errors.PackNotFoundError):
        publish(tmp_path / "nothing", tmp_path / "store")


def test_a_pack_that_would_not_open_is_refused(tmp_path: Path) -> None:
    """Every checksum is right, and an index points outside."""
    from engine.compile_codes import compile_code_system

    made_up = tables()
    arrays, tries = compile_code_system(made_up)
    arrays["node_parent"] = arrays["node_parent"] + 1_000_000
    source = pack.write_pack(
        tmp_path / "built",
        system=SYSTEM,
        release="2021",
        kind="codes",
        effective_from=20201001,
        effective_to=20210331,
        arrays=arrays,
        tries=tries,
    )
    with pytest.raises(errors.PackCorruptError):
        publish(source, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("at", [0, 1])
def test_a_disk_that_is_full(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    store = tmp_path / "store"
    write(store, tables("2021-04", 20210401, 20210930))
    before = listing(store)
    real, count = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="space") as raised:
            publish(source, store)
    assert raised.value.errno == errno.ENOSPC
    assert listing(store) == before
    assert engine.open(store, verify="now").unusable == []
    assert publish(source, store).changed


_LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from engine.cli import main
main(["publish", sys.argv[2], "--store", sys.argv[3]])
"""


@pytest.mark.parametrize("limit", [0, 100, 2000])
def test_a_quota_that_is_used_up(source: Path, tmp_path: Path, limit: int) -> None:
    store = tmp_path / "store"
    write(store, tables("2021-04", 20210401, 20210930))
    # No twins to link to: every file is written.
    for file in (store / SYSTEM / "2021-04").iterdir():
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data[::-1])
    before = listing(store)
    command = [sys.executable, "-c", _LIMITED, str(limit), str(source), str(store)]
    done: Any = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("EFBIG: ")
    assert "Traceback" not in done.stderr
    assert listing(store) == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
