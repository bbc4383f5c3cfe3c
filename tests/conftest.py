"""Fixtures that all tests share: the code sets built from the pinned sources, and the reference answers."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import codesets
from codesets import build, catalog, fetch, lmdb_tables

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
# The whole set of reference answers lies beside some checkouts. Tests use it where it is, and the sample everywhere.
WHOLE_GOLDEN = ROOT.parent / "shared" / "golden"


class Golden(NamedTuple):
    """Claims and the answers of the CMS software, in the same order."""

    claims: list[dict[str, Any]]
    answers: list[dict[str, Any]]


def read_ndjson(path: Path) -> list[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _golden_directories() -> list[Any]:
    found = [pytest.param(GOLDEN, id="sample")]
    if (WHOLE_GOLDEN / "msdrg_answers.ndjson.xz").is_file():
        found.append(pytest.param(WHOLE_GOLDEN, id="whole"))
    return found


@pytest.fixture(scope="session", params=_golden_directories())
def golden(request: pytest.FixtureRequest) -> Golden:
    """The sample of reference answers, and the whole set where it is at hand."""
    directory: Path = request.param
    return Golden(
        read_ndjson(directory / "inpatient_claims.ndjson.xz"),
        read_ndjson(directory / "msdrg_answers.ndjson.xz"),
    )


@pytest.fixture(scope="session", params=["inpatient_claims", "mce_claims"])
def mce_set(request: pytest.FixtureRequest) -> str:
    """The inpatient claims, and those aimed at the edits."""
    name: str = request.param
    return name


@pytest.fixture(scope="session", params=_golden_directories())
def mce_golden(request: pytest.FixtureRequest, mce_set: str) -> Golden:
    """Claims with the answers of the Medicare Code Editor: the sample, and the whole set where it is at hand."""
    return read_mce(request.param, mce_set)


@pytest.fixture(scope="session")
def mce_sample(mce_set: str) -> Golden:
    """The sample of reference answers of the editor that is part of the repository."""
    return read_mce(GOLDEN, mce_set)


def read_mce(directory: Path, name: str) -> Golden:
    answers = "mce_answers" if name == "inpatient_claims" else "mce_claims_answers"
    return Golden(read_ndjson(directory / f"{name}.ndjson.xz"), read_ndjson(directory / f"{answers}.ndjson.xz"))


@pytest.fixture(scope="session")
def sample() -> Golden:
    """The sample of reference answers that is part of the repository."""
    return Golden(read_ndjson(GOLDEN / "inpatient_claims.ndjson.xz"), read_ndjson(GOLDEN / "msdrg_answers.ndjson.xz"))


def _hcc_sets(directory: Path) -> Golden:
    """Members and answers of all risk adjustment models."""
    names = sorted(path.name for path in directory.glob("hcc_*members.ndjson.xz"))
    members = [member for name in names for member in read_ndjson(directory / name)]
    answers = [
        answer for name in names for answer in read_ndjson(directory / name.replace("members.ndjson", "answers.ndjson"))
    ]
    return Golden(members, answers)


@pytest.fixture(scope="session", params=_golden_directories())
def hcc_golden(request: pytest.FixtureRequest) -> Golden:
    """The sample of risk adjustment members with their reference answers, and the whole set where it is at hand."""
    return _hcc_sets(request.param)


@pytest.fixture(scope="session")
def hcc_sample() -> Golden:
    """The sample of risk adjustment members that is part of the repository."""
    return _hcc_sets(GOLDEN)


def _digest_of_builders() -> str:
    """Digest of all code and pins that decide what is in a pack."""
    digest = hashlib.sha256()
    directory = Path(codesets.__file__).parent
    files = [*directory.glob("*.py"), *directory.glob("*.toml"), *(ROOT / "engine").glob("compile_*.py")]
    for file in sorted([*files, ROOT / "engine" / "pack.py", ROOT / "engine" / "tables.py"]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def store() -> Path:
    """A store with every release that can be built. Kept between runs for as long as nothing that makes it
    changes."""
    parent = ROOT / "build" / "test-packs"
    path = parent / _digest_of_builders()
    path.mkdir(parents=True, exist_ok=True)
    os.utime(path)
    # Not at once: another run may be using what this one no longer needs.
    for stale in parent.glob("*"):
        if stale.stat().st_mtime < time.time() - 6 * 3600:
            shutil.rmtree(stale)
    build.build(catalog.targets(all=True), path)
    return path


@pytest.fixture(scope="session")
def blobs(store: Path) -> Mapping[str, bytes]:
    """The tables of the pinned ``msdrg.mdb``, as they are in the file."""
    target = catalog.parse(["msdrg/43.1"])[0]
    file = next(file for file in catalog.files(target) if file.format == "msdrg-lmdb")
    return lmdb_tables.read_blobs(fetch.Cache().extract(file))


@pytest.fixture(scope="session")
def without_prefix() -> Any:
    """Return a function that brings a result (``DrgResult.to_dict()`` or proto3 JSON) into the form of the reference
    answers."""
    return plain


_PREFIXES = {
    "med_surg": "MED_SURG_",
    "severity": "SEVERITY_",
    "sdx_severity": "SEVERITY_",
    "return_code": "RETURN_CODE_",
    "hac_status": "HAC_STATUS_",
    "admit_diagnosis_flag": "ADMIT_DIAGNOSIS_FLAG_",
    "initial_severity": "SEVERITY_USAGE_",
    "final_severity": "SEVERITY_USAGE_",
    "affects_drg": "AFFECTS_DRG_",
    "poa_error": "POA_ERROR_",
}
_NOT_IN_ANSWERS = {"version", "mdc_title", "drg_title", "weight"}


def plain(result: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    for name, value in result.items():
        if name in _NOT_IN_ANSWERS:
            continue
        if name in _PREFIXES:
            assert value.startswith(_PREFIXES[name]), (name, value)
            value = value.removeprefix(_PREFIXES[name])
        elif name == "hacs":
            value = [f"{hac['name']}:{hac['status'].removeprefix('HAC_CRITERIA_')}" for hac in value]
            value.sort()
        elif name == "hac_usage":
            value = sorted(usage.removeprefix("HAC_USAGE_") for usage in value)
        elif isinstance(value, dict):
            value = plain(value)
        elif isinstance(value, list):
            value = [plain(item) for item in value]
        answer[name] = value
    return answer


@pytest.fixture(scope="session")
def plain_edits() -> Any:
    """Return a function that brings a result of the editor (``EditResult.to_dict()`` or proto3 JSON) into the form of
    the reference answers."""
    return _plain_edits


def _plain_edits(result: dict[str, Any]) -> dict[str, Any]:
    return {
        "claim_id": result["claim_id"],
        "edit_type": result["edit_type"].removeprefix("EDIT_TYPE_"),
        "edits": {_edit_name(found["edit"]): found["count"] for found in result.get("edits", [])},
        "admit_edits": sorted(map(_edit_name, result.get("admit_edits", []))),
        "diagnosis_edits": [
            sorted(map(_edit_name, code.get("edits", []))) for code in result.get("diagnosis_edits", [])
        ],
        "procedure_edits": [
            sorted(map(_edit_name, code.get("edits", []))) for code in result.get("procedure_edits", [])
        ],
    }


def _edit_name(name: str) -> str:
    assert name.startswith("MCE_EDIT_"), name
    return "UNSPECIFIED" if name == "MCE_EDIT_UNSPECIFIED_CODE" else name.removeprefix("MCE_EDIT_")
