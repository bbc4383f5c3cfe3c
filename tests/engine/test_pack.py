"""Packs: published whole or not at all, stored once, and refused when anything about them is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from codes_made_up import FROM, SYSTEM, TO, tables, write

from engine import pack
from engine.errors import PackCorruptError, PackExistsError, PackIncompatibleError, PackNotFoundError

HERE = Path(__file__).parent
CASES = 400
HOSTILE_CASES = 600


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("store"))


def _in_processes(script: str, arguments: list[str], cases: int) -> list[str]:
    """Run the script on all cases, a quarter in each process; return a line per case."""
    share = cases // 4

    def run(first: int) -> list[str]:
        command = [sys.executable, str(HERE / script), *arguments, str(first), str(first + share)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500)
        # A negative status is a signal: the case that was printed last crashed the process.
        assert done.returncode == 0, (done.returncode, done.stdout[-300:], done.stderr[-2000:])
        return done.stdout.splitlines()

    with ThreadPoolExecutor(2) as pool:
        return [line for lines in pool.map(run, range(0, cases, share)) for line in lines]


def test_any_damage_is_refused_and_never_answered(published: Path, tmp_path: Path) -> None:
    lines = _in_processes("corrupt_packs.py", [str(published), str(tmp_path)], CASES)
    assert len(lines) == CASES
    assert [line for line in lines if not line.endswith(" refused")] == []
    # The damage reached every kind of file.
    files = Counter(line.split()[1] for line in lines)
    assert {"manifest.json", "codes.marisa", "slots.npy", "title_text.npy"} <= set(files)


def test_arrays_rewritten_with_their_checksums_cannot_crash_the_core() -> None:
    lines = _in_processes("hostile_arrays.py", [], HOSTILE_CASES)
    outcomes = Counter(line.split()[1] for line in lines)
    assert outcomes["refused"] + outcomes["opened"] == HOSTILE_CASES
    assert min(outcomes["refused"], outcomes["opened"]) > HOSTILE_CASES // 10


def test_a_pack_is_plain_numpy_files_and_a_manifest(published: Path) -> None:
    manifest = pack.read_manifest(published)
    assert (manifest.id, manifest.kind) == (f"{SYSTEM}/2021", "codes")
    assert (manifest.effective_from, manifest.effective_to) == (FROM, TO)
    assert manifest.facts == tables().facts
    assert manifest.sources == tuple(tables().sources)
    assert {p.name for p in published.iterdir()} == {*manifest.files, "manifest.json"}
    assert manifest.size == sum(p.stat().st_size for p in published.iterdir() if p.name != "manifest.json")
    for name, entry in manifest.files.items():
        if name.endswith(".npy"):
            array = np.load(published / name, mmap_mode="r")
            assert array.shape == entry.shape
    opened = pack.open_pack(published)
    assert opened.array("code_key", "<u8").flags.writeable is False
    with pytest.raises(PackCorruptError, match=r"code_key\.npy: dtype uint64"):
        opened.array("code_key", "<i4")
    with pytest.raises(PackCorruptError, match="does not list"):
        opened.array("nothing")


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_equal_files_of_two_releases_are_stored_once(tmp_path: Path) -> None:
    october = write(tmp_path)
    other = tables("2021-04", 20210401, 20210930)
    other.nodes = other.nodes[:-1]
    april = write(tmp_path, other)
    same = {p.name for p in october.iterdir() if p.samefile(april / p.name)}
    history = {"code_key", "code_spell", "spell_first", "spell_last", "rep_key", "rep_date", "rep_new", "code_format"}
    assert {f"{name}.npy" for name in history} <= same
    assert not same & {"manifest.json", "node_key.npy", "slots.npy"}
    # Neither is harmed when the other goes.
    for file in october.iterdir():
        file.unlink()
    assert pack.verify_pack(april) == []


def test_a_damaged_twin_is_not_linked(tmp_path: Path) -> None:
    october = write(tmp_path)
    data = bytearray((october / "code_key.npy").read_bytes())
    data[-1] ^= 1
    (october / "code_key.npy").write_bytes(data)
    april = write(tmp_path, tables("2021-04", 20210401, 20210930))
    assert pack.verify_pack(april) == []


def test_publishing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = Path.rename

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk on fire")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="disk on fire"):
        write(tmp_path)
    monkeypatch.setattr(Path, "rename", renamed)
    assert list((tmp_path / SYSTEM).iterdir()) == []
    assert list(pack.iter_manifests(tmp_path)) == []


def test_unfinished_directories_are_no_packs(tmp_path: Path) -> None:
    published = write(tmp_path)
    published.rename(published.with_name(".tmp-2021-abcd"))
    assert list(pack.iter_manifests(tmp_path)) == []


def test_a_pack_is_replaced_only_when_asked_and_stays_open(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(PackExistsError, match="--force"):
        write(tmp_path)
    opened = pack.open_pack(tmp_path / SYSTEM / "2021")
    before = opened.array("title_text", ndim=1).tobytes()
    changed = tables()
    changed.nodes[0] = changed.nodes[0]._replace(title="Injuries by other beasts")
    write(tmp_path, changed, replace=True)
    assert opened.array("title_text").tobytes() == before
    assert b"other beasts" in pack.open_pack(tmp_path / SYSTEM / "2021").array("title_text").tobytes()
    assert [p.name for p in (tmp_path / SYSTEM).iterdir()] == ["2021"]


def test_verify_lists_all_that_is_wrong(tmp_path: Path) -> None:
    published = write(tmp_path)
    assert pack.verify_pack(published) == []
    (published / "slots.npy").unlink()
    (published / "code_key.npy").write_bytes(b"\0" * (published / "code_key.npy").stat().st_size)
    (published / "extra.txt").write_text("?")
    text = "\n".join(map(str, pack.verify_pack(published)))
    assert "slots.npy: it is missing" in text
    assert "code_key.npy: its checksum is" in text
    assert "extra.txt: the manifest does not list it" in text
    (published / "manifest.json").unlink()
    assert "manifest.json: it is missing" in str(pack.verify_pack(published)[0])
    with pytest.raises(PackNotFoundError, match="codeset-engine build"):
        pack.verify_pack(tmp_path / SYSTEM / "1999")


@pytest.mark.parametrize("change", [{"format": 2}, {"byte_order": "big"}])
def test_packs_of_another_make_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    published = write(tmp_path)
    document = json.loads((published / "manifest.json").read_bytes())
    (published / "manifest.json").write_text(json.dumps(document | change))
    with pytest.raises(PackIncompatibleError):
        pack.open_pack(published)


def test_a_manifest_cannot_point_outside_its_pack(tmp_path: Path) -> None:
    published = write(tmp_path)
    document = json.loads((published / "manifest.json").read_bytes())
    del document["xxh3_128"]
    document["files"]["../secret.npy"] = document["files"]["slots.npy"]
    document["xxh3_128"] = pack._document_checksum(document)
    (published / "manifest.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    with pytest.raises(PackCorruptError, match="file name"):
        pack.open_pack(published)


def test_arrays_that_are_not_plain_little_endian_are_not_written(tmp_path: Path) -> None:
    for bad in (np.array([1], ">u4"), np.array([None])):
        with pytest.raises(TypeError, match="little-endian"):
            pack.write_pack(
                tmp_path, system="x", release="1", kind="codes", effective_from=1, effective_to=1, arrays={"a": bad}
            )
    assert list((tmp_path / "x").iterdir()) == []
