"""score hcc and explain hcc: exact answers, one for each line, whatever is on it."""

from __future__ import annotations

import gzip
import json
import lzma
from typing import Any

import pytest
from google.protobuf import json_format

from engine._pb.codeset.v1 import scoring_pb2

MEMBER = {
    "member_id": "m1",
    "model": "V28",
    "payment_year": 2026,
    "birth_date": 19500101,
    "sex": "SEX_FEMALE",
    "orec": 0,
    "diagnoses": ["E1122", "E119", "R69"],
    "dual_status_code": "00",
}


def lines_of(items: Any) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def answers_of(text: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("where", ["in process", "server"])
def test_reference_answers(run, hcc_golden, tmp_path, server, where):
    source, output = tmp_path / "members.ndjson.gz", tmp_path / "answers.ndjson.xz"
    source.write_bytes(gzip.compress(lines_of(hcc_golden.claims), 1))
    more = ("--server", server) if where == "server" else ()
    found = run("score", "hcc", source, "-o", output, *more)
    assert found.status == 0, found.err
    assert found.out == ""
    assert f"{len(hcc_golden.claims):,} members in " in found.err
    assert "esrd-v21-2026, " in found.err
    answers = answers_of(lzma.decompress(output.read_bytes()))
    for got, answer in zip(answers, hcc_golden.answers, strict=True):
        expected = {name: answer[name] for name in ("member_id", "model", "age", "ccs", "hccs")}
        assert {name: got[name] for name in expected} == expected
        assert {score["segment"]: score["raw"] for score in got["scores"]} == answer["scores"]
    # The answers are messages of the API.
    json_format.ParseDict(answers[0], scoring_pb2.HccResult())


@pytest.mark.parametrize("where", ["in process", "server"])
def test_every_line_has_its_answer(run, server, where):
    more = ("--server", server) if where == "server" else ()
    source = b"\n".join(
        [
            json.dumps(MEMBER).encode(),
            b"",
            b"{not json",
            json.dumps(MEMBER | {"weight": 80}).encode(),
            json.dumps(MEMBER | {"orec": 5}).encode(),
            json.dumps(
                {"memberId": "camel", "skipMceEdits": True} | {k: v for k, v in MEMBER.items() if k != "member_id"}
            ).encode(),
            json.dumps(MEMBER | {"payment_year": "2026", "orec": 0.0}).encode(),
        ]
    )
    found = run("score", "hcc", "-", *more, stdin=source)
    assert found.status == 1
    answers = answers_of(found.out)
    assert [answer.get("error", {}).get("code") for answer in answers] == [
        None,
        "MALFORMED_MESSAGE",
        "MALFORMED_MESSAGE",
        "INVALID_FIELD",
        "INVALID_FIELD",
        None,
        None,
    ]
    assert answers[1]["error"]["message"].startswith("line 2: ")
    assert (answers[3]["member_id"], answers[3]["error"]["field"]) == ("m1", "weight")
    assert answers[5]["member_id"] == "camel"
    assert answers[0] == answers[6]
    assert "4 without an answer: INVALID_FIELD 2, MALFORMED_MESSAGE 2" in found.err


def test_model_and_year_for_members_without(run):
    bare = {name: value for name, value in MEMBER.items() if name not in ("model", "payment_year")}
    found = run("score", "hcc", "-", "--model", "V24", "--payment-year", "2025", stdin=lines_of([bare, MEMBER]))
    assert found.status == 0, found.err
    first, second = answers_of(found.out)
    assert (first["release"], second["release"]) == ("cmshcc/v24-2025", "cmshcc/v28-2026")
    assert [part["model"] for part in first["blend"]["weights"]] == ["V24", "V28"]


def test_factors_and_blends(run):
    found = run(
        *("score", "hcc", "-", "--normalization", "v28=1.0", "--coding-adjustment", "V28=0"),
        *("--blend", "V22=0.9", "--blend", "V28=0.1"),
        stdin=lines_of([MEMBER]),
    )
    (answer,) = answers_of(found.out)
    assert all(score["payment"] == score["raw"] for score in answer["scores"])
    assert answer["blend"]["weights"] == [{"model": "V22", "weight": 0.9}, {"model": "V28", "weight": 0.1}]
    in_2025 = lines_of([MEMBER | {"payment_year": 2025}])
    assert "blend" not in answers_of(run("score", "hcc", "-", "--no-blend", stdin=in_2025).out)[0]
    assert run("score", "hcc", "-", "--drug-plan", stdin=lines_of([MEMBER | {"model": "RXHCC_V08_X"}])).status == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--normalization", "1.0"),
        ("--normalization", "V28=much"),
        ("--normalization", "V28=99"),
        ("--blend", "V28=1"),
        ("--blend", "V22=0.9", "--no-blend"),
    ],
)
def test_unusable_options(run, options):
    found = run("score", "hcc", "-", *options, stdin=lines_of([MEMBER]))
    assert found.status == 2
    assert found.err.startswith("INVALID_FIELD: ")
    assert found.out == ""


@pytest.mark.parametrize("where", ["in process", "server"])
def test_explain_as_a_tree(run, server, where):
    more = ("--server", server) if where == "server" else ()
    found = run("explain", "hcc", "-", *more, stdin=lines_of([MEMBER, MEMBER | {"member_id": "m2", "sex": 9}]))
    assert found.status == 1
    assert "m1: v28-2026, age 76" in found.out
    assert "E1122: CC 37" in found.out
    assert "R69: no category" in found.out
    assert "not 38" in found.out
    assert "under HCC 37" in found.out
    assert "COMMUNITY_NA: 0.631, normalized 0.591, payment 0.556" in found.out
    assert "0.166 HCC37  Diabetes with Chronic Complications" in found.out
    assert "INSTITUTIONAL" not in found.out
    assert "m2: INVALID_FIELD: sex" in found.out


def test_explain_one_member_and_segment(run):
    two = lines_of([MEMBER, MEMBER | {"member_id": "m2", "payment_year": 2025}])
    found = run("explain", "hcc", "-", "--member-id", "m2", "--segment", "INSTITUTIONAL", stdin=two)
    assert found.status == 0, found.err
    assert "m1" not in found.out
    assert "INSTITUTIONAL: " in found.out
    assert "blended: 0.33 V24 + 0.67 V28" in found.out
    assert run("explain", "hcc", "-", "--member-id", "m3", stdin=two).status == 2
    assert run("explain", "hcc", "-", "--segment", "ELSEWHERE", stdin=two).status == 2


def test_explain_as_json(run, tmp_path):
    esrd = MEMBER | {"model": "ESRD_V24", "fbdual": True}
    found = run("explain", "hcc", "-", "--json", stdin=lines_of([esrd]))
    (answer,) = answers_of(found.out)
    divisors = {part["segment"]: part["divisor"] for part in answer["contributions"]}
    assert divisors["GRAFT_NE_GE65_DUR4_9_FBD"] == 0.905
    output = tmp_path / "answers.ndjson"
    run("explain", "hcc", "-", "-o", output, stdin=lines_of([esrd]))
    assert answers_of(output.read_bytes()) == [answer]
    tree = run("explain", "hcc", "-", stdin=lines_of([esrd])).out
    assert "over 0.905" in tree
    assert "GRAFT_NE_LT65_DUR4_9_FBD" not in tree


def test_a_store_without_models(run, tmp_path, store):
    (tmp_path / "msdrg").symlink_to(store / "msdrg")
    found = run("score", "hcc", "-", "--store", tmp_path, stdin=b"")
    assert found.status == 2
    assert found.err.startswith("PACK_NOT_FOUND: no risk adjustment model")
