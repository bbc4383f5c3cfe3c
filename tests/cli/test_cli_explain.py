"""explain drg: a tree that a coder can read, and JSON that is the engine's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

import engine
from engine._pb.codeset.v1 import grouping_pb2

GOLDEN = Path(__file__).parents[1] / "golden" / "inpatient_claims.ndjson.xz"
PAGE = Path(__file__).parents[2] / "docs" / "explain.md"

HEART_FAILURE = {
    "claim_id": "hf",
    "version": "43.1",
    "discharge_date": 20260501,
    "sex": "SEX_MALE",
    "discharge_status": 1,
    "diagnoses": ["I5021", "J9601", "E119"],
    "poa": "YYY",
    "procedures": [],
}
BAD = [b"not json", b'{"claim_id": "old", "version": "12.0"}', b'{"claim_id": "x", "weight": 1}']


def lines_of(items: Any) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def flat(text: str) -> str:
    """Return a tree as one line without its branches."""
    return " ".join(text.translate(str.maketrans("│├└─", "    ")).split())


@pytest.fixture(scope="module")
def library(store: Path) -> engine.Library:
    return engine.open(store)


@pytest.mark.parametrize("where", ["in process", "server"])
def test_json_is_that_of_the_engine(run, sample, library, server, tmp_path, where):
    claims = sample.claims[:: len(sample.claims) // 100]
    more = ("--server", server) if where == "server" else ()
    found = run("explain", "drg", "-", "--json", *more, stdin=lines_of(claims))
    assert found.status == 0
    assert f"{len(claims)} claims in " in found.err
    answers = [json.loads(line) for line in found.out.splitlines()]
    assert answers == [library.explain_drg(claim).to_dict() for claim in claims]
    for answer in answers:
        json_format.ParseDict(answer, grouping_pb2.DrgExplanation())
    output = tmp_path / "explanations.ndjson"
    assert run("explain", "drg", "-", "-o", output, *more, stdin=lines_of(claims)).out == ""
    assert output.read_text() == found.out


@pytest.mark.parametrize("where", ["in process", "server"])
def test_a_tree_tells_everything(run, server, where):
    more = ("--server", server) if where == "server" else ()
    found = run("explain", "drg", "-", *more, stdin=lines_of([HEART_FAILURE]))
    assert found.status == 0
    assert "\x1b" not in found.out
    shown = flat(found.out)
    for said in (
        "claim hf: 291 Heart Failure and Shock with MCC (MS-DRG 43.1)",
        "MDC 5 Diseases and Disorders of the Circulatory System, medical, severity MCC",
        "Its MCC rests on J9601 alone.",
        "J9601 Acute respiratory failure with hypoxia",
        "Without J9601 this is 293 Heart Failure and Shock without CC/MCC",
        "Pre-MDC: the pre-MDC list, always looked at first",
        "the MDC of principal diagnosis I5021",
        "PDX:dxc0505: the principal diagnosis is on the list dxc0505 (DRG 291-293)",
        "I5021 Acute systolic (congestive) heart failure",
        "MCC J9601 Acute respiratory failure with hypoxia: counts",
    ):
        assert said in shown, said


def test_trees_are_alike_in_process_and_on_a_server(run, sample, server):
    claims = lines_of(sample.claims[:: len(sample.claims) // 60])
    here = run("explain", "drg", "-", stdin=claims)
    assert here.out == run("explain", "drg", "-", "--server", server, stdin=claims).out
    assert here.status == 0
    assert here.out.count("\nclaim ") + 1 == claims.count(b"\n")


def test_without_code_releases_a_tree_has_codes_alone(run, store, tmp_path):
    (tmp_path / "msdrg").symlink_to(store / "msdrg")
    found = run("explain", "drg", "-", "--store", tmp_path, stdin=lines_of([HEART_FAILURE]))
    assert found.status == 0
    assert "Without J9601 this is 293" in flat(found.out)
    assert "hypoxia" not in found.out


def test_what_did_not_count_says_why(run):
    excluded = {**HEART_FAILURE, "diagnoses": ["T79A9XA", "S3509XA"], "poa": "YY"}
    died = {**HEART_FAILURE, "diagnoses": ["E883", "R578"], "poa": "YY", "discharge_status": 20}
    acquired = {**HEART_FAILURE, "diagnoses": ["I5021", "T80311A"], "poa": "YN"}
    shown = flat(run("explain", "drg", "-", stdin=lines_of([excluded, died, acquired])).out)
    assert "does not count: it is on the CC exclusion list of principal diagnosis T79A9XA" in shown
    assert "does not count: it counts as MCC only for patients discharged alive; the discharge status is 20" in shown
    assert "it is hospital-acquired, so the final grouping leaves it out" in shown
    assert "HAC 3, Blood Incompatibility criteria met: not present on admission (POA N)" in shown
    assert "Lists of rules looked at after hospital-acquired conditions" in shown


@pytest.mark.parametrize("where", ["in process", "server"])
def test_a_bad_line_is_answered_in_its_place(run, server, where):
    more = ("--server", server) if where == "server" else ()
    good = json.dumps(HEART_FAILURE).encode()
    lines = b"\n".join([good, *BAD, good])
    found = run("explain", "drg", "-", "--json", *more, stdin=lines)
    assert found.status == 1
    answers = [json.loads(line) for line in found.out.splitlines()]
    assert answers[0] == answers[-1]
    assert [answer["result"]["error"]["code"] for answer in answers[1:-1]] == [
        "MALFORMED_MESSAGE",
        "UNKNOWN_VERSION",
        "INVALID_FIELD",
    ]
    assert [answer["result"]["claim_id"] for answer in answers[1:-1]] == ["", "old", "x"]
    assert all(set(answer) == {"result"} for answer in answers[1:-1])
    assert "3 without an answer" in found.err
    shown = run("explain", "drg", "-", *more, stdin=lines)
    assert shown.status == 1
    assert "claim old: UNKNOWN_VERSION: " in shown.out
    assert "MALFORMED_MESSAGE: line 2: " in shown.out
    assert flat(shown.out).count("291 Heart Failure and Shock with MCC (MS-DRG") == 2


def test_one_claim_of_many(run, sample):
    chosen = sample.claims[77]
    found = run("explain", "drg", GOLDEN, "--claim-id", chosen["claim_id"], "--json")
    assert found.status == 0
    (answer,) = [json.loads(line) for line in found.out.splitlines()]
    assert answer["result"]["claim_id"] == chosen["claim_id"]
    nobody = run("explain", "drg", GOLDEN, "--claim-id", "nobody")
    assert nobody.status == 2
    assert nobody.err.startswith("INVALID_FIELD: claim_id: no claim of ")
    assert nobody.out == ""


def test_options_reach_the_grouper(run, sample):
    claims = lines_of([{**claim, "version": "40.0"} for claim in sample.claims[:300]])
    plain = run("explain", "drg", "-", "--json", stdin=claims)
    assert run("explain", "drg", "-", "--json", "--tie-breaker", "code-order", stdin=claims).out != plain.out
    newer = run("explain", "drg", "-", "--json", "--version", "43.1", stdin=claims)
    assert {json.loads(line)["result"]["version"] for line in newer.out.splitlines()} == {"43.1"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["missing.ndjson"], "ENOENT"),
        (["-", "--version", "99.9"], "UNKNOWN_VERSION"),
        (["-", "--store", "empty"], "PACK_NOT_FOUND"),
        (["-", "-o", "missing/answers.ndjson"], "ENOENT"),
        (["-", "--server", "127.0.0.1:1"], "SERVICE_UNAVAILABLE"),
    ],
)
def test_unusable_input(run, tmp_path, monkeypatch, arguments, code):
    monkeypatch.chdir(tmp_path)
    found = run("explain", "drg", *arguments, stdin=lines_of([HEART_FAILURE]))
    assert found.status == 2
    assert found.err.startswith(f"{code}: ")
    assert found.out == ""


def test_the_example_of_the_page_is_what_is_printed(run, monkeypatch):
    """The block after each command on the page is what the command prints, 100 columns wide."""
    parts = PAGE.read_text().split("```")
    commands = [part.removeprefix("sh\ncodeset-engine ").strip() for part in parts if part.startswith("sh\n")]
    printed = [part.removeprefix("text\n") for part in parts if part.startswith("text\n")]
    assert len(commands) >= len(printed) == 1
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(PAGE.parents[1])
    found = run(*commands[0].split())
    assert found.status == 0
    assert [line.rstrip() for line in found.out.splitlines()] == printed[0].splitlines()
