"""build, list, info, verify."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf import json_format

from codesets import catalog
from engine._pb.codeset.v1 import catalog_pb2


@pytest.fixture
def one_pack(store: Path, tmp_path: Path) -> Path:
    """A store of one pack that may be damaged."""
    copy = tmp_path / "packs"
    shutil.copytree(store / "msdrg" / "43.1", copy / "msdrg" / "43.1")
    return copy


def test_build_makes_packs_and_keeps_them(run, tmp_path):
    first = run("build", "msdrg/43.1", "--store", tmp_path)
    assert first.status == 0, first.err
    assert "1 pack built" in first.out
    assert "DRGs" in first.out
    assert "built msdrg/43.1 (1 of 1)" in first.err
    manifest = tmp_path / "msdrg" / "43.1" / "manifest.json"
    before = manifest.stat().st_mtime_ns

    second = run("build", "msdrg/43.1", "--store", tmp_path)
    assert second.status == 0
    assert "1 pack kept" in second.out
    assert manifest.stat().st_mtime_ns == before

    document = json.loads(run("build", "msdrg/43.1", "--store", tmp_path, "--force", "--json", "-j", 1).out)
    (release,) = document["releases"]
    assert release["built"]
    assert release["seconds"] > 0
    assert release["sources"][0]["sha256"]
    assert manifest.stat().st_mtime_ns != before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["build", "icd11"], "UNKNOWN_SYSTEM"),
        (["build", "icd10cm/2035"], "UNKNOWN_RELEASE"),
        (["info", "icd10cm/2035"], "PACK_NOT_FOUND"),
        (["info", "icd10cm"], "INVALID_FIELD"),
        (["info", "../icd10cm"], "INVALID_FIELD"),
        (["verify", "icd10cm/2035"], "UNKNOWN_RELEASE"),
    ],
)
def test_unusable_names(run, arguments, code):
    found = run(*arguments)
    assert found.status == 2
    assert found.err.startswith(f"{code}: ")
    assert found.err.count("\n") == 1
    assert found.out == ""


def test_build_without_network_or_cache_says_so(run, tmp_path):
    found = run("build", "msdrg/43.1", "--store", tmp_path / "s", "--cache", tmp_path / "c", "--offline")
    assert found.status == 2
    assert found.err.startswith("SOURCE_UNAVAILABLE: msdrg==")


def test_build_into_a_directory_that_cannot_be(run, tmp_path):
    (tmp_path / "file").write_text("")
    found = run("build", "msdrg/43.1", "--store", tmp_path / "file" / "packs", "-j", 1)
    assert found.status == 2
    assert found.err.startswith("ENOTDIR: ")


def test_list(run, store):
    found = run("list")
    assert found.status == 0
    for target in catalog.targets(all=True):
        assert f"{target.id} " in found.out
    assert str(store) in found.out

    document = json.loads(run("list", "--json").out)
    assert len(document["releases"]) == len(catalog.targets(all=True))
    del document["store"]
    message = json_format.ParseDict(document, catalog_pb2.ListReleasesResponse())
    assert [(r.system, r.effective_from) for r in message.releases] == sorted(
        (r.system, r.effective_from) for r in message.releases
    )


def test_list_of_nothing(run, tmp_path):
    found = run("list", "--store", tmp_path)
    assert found.status == 0
    assert "codeset-engine build" in found.out
    assert json.loads(run("list", "--store", tmp_path, "--json").out)["releases"] == []


def test_info(run, store):
    found = run("info", "icd10cm/2026-04")
    assert found.status == 0
    manifest = json.loads((store / "icd10cm" / "2026-04" / "manifest.json").read_text())
    for source in manifest["sources"]:
        for value in (source["wheel"], source["version"], source["sha256"], source["file"]):
            assert value in found.out
    for name in (*manifest["facts"], *manifest["files"]):
        assert name in found.out

    document = json.loads(run("info", "icd10cm/2026-04", "--json").out)
    for name in ("system", "release", "kind", "effective_from", "effective_to", "sources", "facts"):
        assert document[name] == manifest[name]
    assert document["files"].keys() == manifest["files"].keys()


def test_verify(run, one_pack):
    found = run("verify", "--store", one_pack)
    assert found.status == 0
    assert "msdrg/43.1" in found.out
    assert "1 pack verified, 0 damaged" in found.out
    document = json.loads(run("verify", "msdrg", "--store", one_pack, "--json").out)
    assert document["releases"][0]["findings"] == []


def test_verify_finds_every_damaged_file(run, one_pack):
    pack = one_pack / "msdrg" / "43.1"
    data = bytearray((pack / "row.npy").read_bytes())
    data[-1] ^= 1
    (pack / "row.npy").write_bytes(data)
    (pack / "step.npy").unlink()
    (pack / "notes.txt").write_text("")
    found = run("verify", "--store", one_pack)
    assert found.status == 1
    for name in ("row.npy", "step.npy", "notes.txt"):
        assert f"43.1: {name}: " in found.out
    assert "codeset-engine build msdrg/43.1 --force" in found.out
    document = json.loads(run("verify", "--store", one_pack, "--json").out)
    assert [f["code"] for f in document["releases"][0]["findings"]] == ["PACK_CORRUPT"] * 3


def test_a_manifest_that_cannot_be_read_is_listed_and_found(run, one_pack):
    (one_pack / "msdrg" / "43.1" / "manifest.json").write_text("{}")
    listed = run("list", "--store", one_pack)
    assert listed.status == 0
    assert "PACK_CORRUPT" in listed.out
    document = json.loads(run("list", "--store", one_pack, "--json").out)
    assert document["unusable"][0]["id"] == "msdrg/43.1"
    assert run("verify", "--store", one_pack).status == 1
    grouped = run("group", "drg", "-", "--store", one_pack, stdin=b"{}\n")
    assert grouped.status == 2
    assert grouped.err.startswith("PACK_CORRUPT: ")
