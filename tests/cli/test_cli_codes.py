"""lookup, validate, tree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format

import engine
from engine._pb.codeset.v1 import terminology_pb2


def test_lookup(run):
    found = run("lookup", "icd10cm", "e1165", "--release", "2026-04")
    assert found.status == 0
    assert found.out.startswith("E11.65 Type 2 diabetes mellitus with hyperglycemia\n")
    for text in ("icd10cm/2026-04", "valid from 2015-10-01", "E08-E13 Diabetes mellitus", "Excludes1 (at E11)"):
        assert text in found.out


def test_lookup_prints_brackets_as_they_are(run):
    found = run("lookup", "icd10cm", "C88.4", "--date", "2024-01-01")
    assert "[MALT-lymphoma]" in found.out


def test_lookup_of_a_procedure_has_its_axes(run):
    found = run("lookup", "icd10pcs", "0DB64Z3")
    assert found.status == 0
    for text in ("Gastrointestinal System", "Excision", "Stomach", "Percutaneous Endoscopic", "Vertical"):
        assert text in found.out


@pytest.mark.parametrize(
    ("system", "code"), [("icd10cm", "A00.0"), ("icd10cm", "E11"), ("icd10pcs", "0DB64Z3"), ("icd10cm", "1")]
)
def test_lookup_json_is_the_answer_of_the_api(run, system, code, server):
    document = json.loads(run("lookup", system, code, "--date", "2026-06-01", "--json").out)
    message = json_format.ParseDict(document, terminology_pb2.LookupResponse())
    with engine.client.Client(server) as client:
        assert message == client.lookup(system, code, date=20260601)


def test_lookup_by_level(run):
    block = json.loads(run("lookup", "icd10cm", "B99", "--kind", "block", "--json").out)
    category = json.loads(run("lookup", "icd10cm", "B99", "--json").out)
    assert block["concept"]["kind"] == "NODE_KIND_BLOCK"
    assert category["concept"]["kind"] == "NODE_KIND_CATEGORY"
    assert category["ancestors"][0] == block["concept"]


@pytest.mark.parametrize("command", ["lookup", "validate", "tree"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["icd11", "A00"], "UNKNOWN_SYSTEM"),
        (["msdrg", "A00"], "UNKNOWN_SYSTEM"),
        (["icd10cm", "A00", "--release", "1999"], "UNKNOWN_RELEASE"),
        (["icd10cm", "A00", "--date", "20260230"], "INVALID_DATE"),
        (["icd10cm", "A00", "--date", "yesterday"], "INVALID_DATE"),
        (["icd10cm", "A00", "--date", "1999-01-01"], "DATE_OUTSIDE_COVERAGE"),
    ],
)
def test_questions_that_cannot_be_asked(run, command, arguments, code):
    found = run(command, *arguments)
    assert found.status == 2
    assert found.err.startswith(f"{code}: ")
    assert found.err.count("\n") == 1


@pytest.mark.parametrize("command", ["lookup", "tree"])
def test_a_code_that_is_none(run, command):
    found = run(command, "icd10cm", "ZZZ")
    assert found.status == 2
    assert found.err.startswith("UNKNOWN_CODE: ")
    assert run(command, "icd10cm", "A00", "--kind", "chapterr").err.startswith("INVALID_FIELD: ")


def test_validate(run):
    found = run("validate", "icd10cm", "A00.0", "e119", "--date", "2025-04-01")
    assert found.status == 0
    assert "2 of 2 valid on 2025-04-01 (icd10cm/2025-04)" in found.out


STATUSES = {
    "A00.0": "VALID",
    "A00": "HEADER",
    "H81.41": "EXPIRED",
    "E11.A": "NOT_YET",
    "Q99.XYZ": "UNKNOWN",
    "A00.0?": "MALFORMED",
    "": "MALFORMED",
}


def test_validate_json_is_the_answer_of_the_api(run, server):
    found = run("validate", "icd10cm", *STATUSES, "--date", "20250401", "--json")
    assert found.status == 1
    lines = [json.loads(line) for line in found.out.splitlines()]
    assert [line["status"] for line in lines] == [f"CODE_STATUS_{status}" for status in STATUSES.values()]
    messages = [json_format.ParseDict(line, terminology_pb2.CodeValidation()) for line in lines]
    with engine.client.Client(server) as client:
        assert messages == client.validate_many("icd10cm", list(STATUSES), date=20250401)


def test_validate_shows_every_status(run):
    found = run("validate", "icd10cm", *STATUSES, "--date", "20250401")
    assert found.status == 1
    for status in STATUSES.values():
        assert status in found.out
    assert "1 of 7 valid" in found.out
    assert "replaced by H81.4" in found.out


@pytest.mark.parametrize("dash", [False, True])
def test_validate_a_file(run, tmp_path, dash):
    data = "\ufeffA00.0\r\n\n e11.9 \nÄ00\n".encode() + b"\xff\xfe\n"
    if dash:
        found = run("validate", "icd10cm", "I21.9", "-f", "-", "--json", stdin=data.removeprefix(b"\xef\xbb\xbf"))
    else:
        (tmp_path / "codes.txt").write_bytes(data)
        found = run("validate", "icd10cm", "I21.9", "--file", tmp_path / "codes.txt", "--json")
    assert found.status == 1
    lines = [json.loads(line) for line in found.out.splitlines()]
    assert [line["code"] for line in lines[:4]] == ["I21.9", "A00.0", "e11.9", "Ä00"]
    assert [line["valid"] for line in lines] == [True, True, True, False, False]


def test_validate_needs_something_to_validate(run, tmp_path):
    assert run("validate", "icd10cm").status == 2
    missing = run("validate", "icd10cm", "--file", tmp_path / "none")
    assert missing.status == 2
    assert missing.err.startswith("ENOENT: ")


def test_tree(run):
    found = run("tree", "icd10cm", "E11.6", "--release", "2026-04", "--depth", 1)
    assert found.status == 0
    lines = found.out.splitlines()
    assert lines[0].startswith("4 Endocrine")
    assert any(line.strip("└─├│ ").startswith("E11.65 Type 2") for line in lines)
    assert not any("E11.641" in line for line in lines)


def codes(node: dict[str, Any]) -> list[str]:
    return [node["display"], *(code for child in node["children"] for code in codes(child))]


def test_tree_json_up_and_down(run):
    ask = ("tree", "icd10cm", "A00", "--json")
    everything = ["1", "A00-A09", "A00", "A00.0", "A00.1", "A00.9"]
    assert codes(json.loads(run(*ask).out)) == everything
    assert codes(json.loads(run(*ask, "--up", "--down").out)) == everything
    assert codes(json.loads(run(*ask, "--up").out)) == everything[:3]
    assert codes(json.loads(run(*ask, "--down").out)) == everything[2:]
    library = engine.open()
    below = [info.display for info in library.code_system("icd10cm").descendants("E11")]
    assert codes(json.loads(run("tree", "icd10cm", "E11", "--down", "--depth", 0, "--json").out)) == ["E11", *below]
