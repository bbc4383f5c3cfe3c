"""edit and edits: exact answers, one for each line, in this process and on a server."""

from __future__ import annotations

import gzip
import json
import lzma
from typing import Any

import pytest
from google.protobuf import json_format

from engine._pb.codeset.v1 import editing_pb2, grouping_pb2
from engine.mce import EDITS

CLAIM = {
    "claim_id": "c1",
    "discharge_date": 20260401,
    "age": 60,
    "sex": "SEX_FEMALE",
    "discharge_status": 1,
    "diagnoses": ["I50.21"],
}


def lines_of(items: Any) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def answers_of(text: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("where", ["in process", "server"])
def test_reference_answers(run, mce_golden, tmp_path, plain_edits, server, where):
    source, output = tmp_path / "claims.ndjson.gz", tmp_path / "answers.ndjson.xz"
    source.write_bytes(gzip.compress(lines_of(mce_golden.claims), 1))
    more = ("--server", server) if where == "server" else ()
    found = run("edit", source, "-o", output, "--release", "43.1", *more)
    assert found.status == 0, found.err
    assert found.out == ""
    assert f"{len(mce_golden.claims):,} claims in " in found.err
    assert "claims/s, code editor 43.1" in found.err
    answers = answers_of(lzma.decompress(output.read_bytes()))
    for answer, expected in zip(answers, mce_golden.answers, strict=True):
        assert plain_edits(answer) == expected
    # The answers are messages of the API.
    for answer in answers[:200]:
        assert json_format.ParseDict(answer, editing_pb2.EditResult()).editor_release == "43.1"


def test_both_ways_give_the_same(run, mce_sample, server):
    claims = lines_of(mce_sample.claims[:400])
    for options in ((), ("--group",), ("--release", "43.1", "--group")):
        here = run("edit", "-", *options, stdin=claims)
        there = run("edit", "-", *options, "--server", server, stdin=claims)
        assert answers_of(here.out) == answers_of(there.out)
        assert here.status == there.status


def test_group_answers_with_both_results(run, sample, without_prefix):
    found = run("edit", "-", "--group", stdin=lines_of(sample.claims[:100]))
    assert found.status == 0
    for answer, expected in zip(answers_of(found.out), sample.answers, strict=False):
        message = json_format.ParseDict(answer, grouping_pb2.EditClaimResponse())
        assert message.result.editor_release == "44.0"
        assert message.drg_result.final_grouping.drg == expected["final_grouping"]["drg"]


@pytest.mark.parametrize("where", ["in process", "server"])
def test_what_is_wrong_with_a_line_is_its_answer(run, server, where):
    lines = lines_of([CLAIM, {**CLAIM, "age": None}, {**CLAIM, "colour": "red"}]) + b"{\n" + lines_of([CLAIM])
    more = ("--server", server) if where == "server" else ()
    found = run("edit", "-", *more, stdin=lines)
    assert found.status == 1
    answers = answers_of(found.out)
    assert [answer.get("error", {}).get("code") for answer in answers] == [
        None,
        "MISSING_FIELD",
        "INVALID_FIELD",
        "MALFORMED_MESSAGE",
        None,
    ]
    assert answers[1]["claim_id"] == answers[2]["claim_id"] == "c1"
    assert "3 without an answer: INVALID_FIELD 1, MALFORMED_MESSAGE 1, MISSING_FIELD 1" in found.err
    found = run("edit", "-", "--group", *more, stdin=lines)
    assert found.status == 1
    codes = [
        tuple(answer[name].get("error", {}).get("code") for name in ("result", "drg_result"))
        for answer in answers_of(found.out)
    ]
    assert codes == [
        (None, None),
        ("MISSING_FIELD", None),
        ("INVALID_FIELD", "INVALID_FIELD"),
        ("MALFORMED_MESSAGE", "MALFORMED_MESSAGE"),
        (None, None),
    ]


def test_a_claim_that_cannot_be_grouped_only_is_counted_too(run):
    found = run("edit", "-", "--group", stdin=lines_of([{**CLAIM, "poa": "YYYY"}]))
    assert found.status == 1
    assert "1 without an answer: POA_LENGTH_MISMATCH 1" in found.err


@pytest.mark.parametrize("where", ["in process", "server"])
def test_an_unknown_release_is_one_error(run, server, where):
    more = ("--server", server) if where == "server" else ()
    found = run("edit", "-", "--release", "12.0", *more, stdin=lines_of([CLAIM]))
    assert found.status == 2
    assert "UNKNOWN_RELEASE" in found.err
    assert "43.1, 44.0" in found.err


def test_icd9_claims(run):
    old = {**CLAIM, "icdVersion": "9", "discharge_date": 20100101, "diagnoses": ["428.0"]}
    (answer,) = answers_of(run("edit", "-", stdin=lines_of([old])).out)
    assert answer["edit_type"] == "EDIT_TYPE_NONE"


def test_the_edits_are_listed(run):
    found = run("edits", "--json")
    assert found.status == 0
    assert json.loads(found.out) == {"edits": [info.to_dict() for info in EDITS.values()]}
    text = run("edits").out
    for info in EDITS.values():
        assert info.edit.name in text
