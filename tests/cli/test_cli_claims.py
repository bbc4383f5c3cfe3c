"""group drg: exact answers, one for each line, whatever is on it."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import stat
import subprocess
import sys
import threading
from typing import Any

import pytest
from google.protobuf import json_format

from engine._pb.codeset.v1 import grouping_pb2
from engine.cli import ndjson

CLAIM = {"claim_id": "c1", "version": "43.1", "sex": "SEX_FEMALE", "discharge_status": 1, "diagnoses": ["A000"]}


def lines_of(items: Any) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def answers_of(text: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def assert_equal(answers: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(answers) == len(expected)
    for answer, other in zip(answers, expected, strict=True):
        assert answer == other


@pytest.mark.parametrize("where", ["in process", "server"])
def test_reference_answers(run, golden, tmp_path, without_prefix, server, where):
    source, output = tmp_path / "claims.ndjson.gz", tmp_path / "answers.ndjson.xz"
    source.write_bytes(gzip.compress(lines_of(golden.claims), 1))
    more = ("--server", server) if where == "server" else ()
    found = run("group", "drg", source, "-o", output, *more)
    assert found.status == 0, found.err
    assert found.out == ""
    assert f"{len(golden.claims):,} claims in " in found.err
    assert "claims/s, MS-DRG 40.0, " in found.err
    answers = answers_of(lzma.decompress(output.read_bytes()))
    expected = [without_order(answer) for answer in golden.answers]
    assert_equal([without_prefix(answer) for answer in answers], expected)
    # The answers are messages of the API, and name the version that gave them.
    for answer, claim in zip(answers[:500], golden.claims, strict=False):
        message = json_format.ParseDict(answer, grouping_pb2.DrgResult())
        assert message.version == claim["version"]
        assert message.final_grouping.drg_title


def without_order(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        **answer,
        "diagnoses": [{**d, "hacs": sorted(d["hacs"])} for d in answer["diagnoses"]],
        "procedures": [{**p, "hac_usage": sorted(p["hac_usage"])} for p in answer["procedures"]],
    }


def test_detail_drg_leaves_the_codes_out(run, sample):
    claims = lines_of(sample.claims[:300])
    full = answers_of(run("group", "drg", "-", stdin=claims).out)
    short = answers_of(run("group", "drg", "-", "--detail", "drg", stdin=claims).out)
    assert_equal(short, [{**answer, "diagnoses": [], "procedures": []} for answer in full])


def test_options_reach_the_grouper(run, sample, server):
    """Both ways, for claims on which the options make a difference."""
    claims = lines_of(sample.claims)
    plain = answers_of(run("group", "drg", "-", stdin=claims).out)
    for option in (("--tie-breaker", "code-order"), ("--affect-flags", "do-not-compute")):
        here = answers_of(run("group", "drg", "-", *option, stdin=claims).out)
        there = answers_of(run("group", "drg", "-", *option, "--server", server, stdin=claims).out)
        assert here != plain
        assert_equal(here, there)


def test_version_for_every_claim(run):
    claims = [
        {**CLAIM, "version": "40.0"},
        {**CLAIM, "version": "", "discharge_date": 20240101},
        {"diagnoses": ["A000"]},
    ]
    found = run("group", "drg", "-", "--version", "42.1", stdin=lines_of(claims))
    assert found.status == 0
    assert [answer["version"] for answer in answers_of(found.out)] == ["42.1"] * 3
    own = run("group", "drg", "-", stdin=lines_of(claims))
    assert own.status == 1
    assert [answer["version"] for answer in answers_of(own.out)] == ["40.0", "41.0", ""]


BAD_LINES: list[tuple[bytes, str, str, str]] = [
    (b"", "", "MALFORMED_MESSAGE", ""),
    (b"not json", "", "MALFORMED_MESSAGE", ""),
    (b'{"claim_id": "x", "diagnoses": [', "", "MALFORMED_MESSAGE", ""),
    (b"[1, 2]", "", "MALFORMED_MESSAGE", ""),
    (b"null", "", "MALFORMED_MESSAGE", ""),
    (b'"\xff"', "", "MALFORMED_MESSAGE", ""),
    (b'{"age": NaN}', "", "MALFORMED_MESSAGE", ""),
    (b'{"age": 1' + b"0" * 5000 + b"}", "", "MALFORMED_MESSAGE", ""),
    (b"[" * 100_000, "", "MALFORMED_MESSAGE", ""),
    (b'{"claim_id": "x", "weight": 1}', "x", "INVALID_FIELD", "weight"),
    (b'{"claim_id": "x", "poa": "Y", "poa": "N"}', "x", "INVALID_FIELD", "poa"),
    (b'{"claimId": "x", "claim_id": "y"}', "x", "INVALID_FIELD", "claim_id"),
    (b'{"claim_id": "x", "version": "43.1", "diagnoses": "A000"}', "x", "INVALID_FIELD", "diagnoses"),
    (b'{"claim_id": "x", "version": "43.1", "diagnoses": {}}', "x", "INVALID_FIELD", "diagnoses"),
    (b'{"claim_id": "x", "version": "43.1", "diagnoses": [1]}', "x", "INVALID_FIELD", "diagnoses"),
    (b'{"claim_id": "x", "version": "43.1", "procedures": [null]}', "x", "INVALID_FIELD", "procedures"),
    (b'{"claim_id": "x", "version": "43.1", "sex": "F"}', "x", "INVALID_FIELD", "sex"),
    (b'{"claim_id": "x", "version": "43.1", "sex": 9}', "x", "INVALID_FIELD", "sex"),
    (b'{"claim_id": "x", "version": "43.1", "age": "old"}', "x", "INVALID_FIELD", "age"),
    (b'{"claim_id": "x", "version": "43.1", "age": true}', "x", "INVALID_FIELD", "age"),
    (b'{"claim_id": "x", "version": "43.1", "age": 1.5}', "x", "INVALID_FIELD", "age"),
    (b'{"claim_id": "x", "version": "43.1", "diagnoses": ["A000"], "poa": "YY"}', "x", "POA_LENGTH_MISMATCH", "poa"),
    (b'{"claim_id": "x", "version": "43.1", "diagnoses": ["\\ud800"]}', "x", "INVALID_FIELD", "diagnoses"),
    (b'{"claim_id": "x", "version": "99.9"}', "x", "UNKNOWN_VERSION", "version"),
    (b'{"claim_id": "x", "discharge_date": 19990101}', "x", "DATE_OUTSIDE_COVERAGE", "discharge_date"),
    (b'{"claim_id": "x", "discharge_date": 20260230}', "x", "INVALID_DATE", "discharge_date"),
    (b'{"claim_id": 5, "version": "43.1"}', "", "INVALID_FIELD", "claim_id"),
]


@pytest.mark.parametrize("where", ["in process", "server"])
def test_a_bad_line_is_answered_in_its_place(run, where, server):
    """Bad lines between good ones: line N answers line N, and the good ones are as if they were alone."""
    good = [{**CLAIM, "claim_id": f"good {i}"} for i in range(len(BAD_LINES) + 1)]
    parts = [json.dumps(good[0]).encode()]
    for (line, *_), claim in zip(BAD_LINES, good[1:], strict=True):
        parts += [line, json.dumps(claim).encode()]
    more = ("--server", server) if where == "server" else ()
    found = run("group", "drg", "-", *more, stdin=b"\n".join(parts))
    assert found.status == 1
    answers = answers_of(found.out)
    assert len(answers) == len(parts)
    alone = answers_of(run("group", "drg", "-", *more, stdin=lines_of(good)).out)
    assert_equal(answers[::2], alone)
    for answer, (line, claim_id, code, field) in zip(answers[1::2], BAD_LINES, strict=True):
        assert answer.keys() == {"claim_id", "version", "error"}, line
        assert (answer["claim_id"], answer["error"]["code"], answer["error"]["field"]) == (claim_id, code, field), line
        assert answer["error"]["message"], line
    assert f"{len(BAD_LINES)} without an answer" in found.err
    malformed = sum(code == "MALFORMED_MESSAGE" for _, _, code, _ in BAD_LINES)
    assert f"MALFORMED_MESSAGE {malformed}" in found.err


def test_malformed_lines_are_named_by_number_and_not_repeated(run):
    found = run("group", "drg", "-", stdin=b'{}\n{"claim_id": "secret", x}\n')
    message = answers_of(found.out)[1]["error"]["message"]
    assert "line 2" in message
    assert "secret" not in message


def test_a_line_too_long_to_be_a_claim_is_skipped(run, monkeypatch):
    monkeypatch.setattr(ndjson, "MAX_LINE", 200)
    fits = json.dumps(CLAIM).encode()
    fits += b" " * (200 - len(fits))
    found = run("group", "drg", "-", stdin=b"\n".join([fits, fits + b" ", fits * 10, fits, fits * 3]))
    codes = [answer.get("error", {}).get("code") for answer in answers_of(found.out)]
    assert codes == [None, "MESSAGE_TOO_LARGE", "MESSAGE_TOO_LARGE", None, "MESSAGE_TOO_LARGE"]


def test_what_a_proto3_json_parser_accepts(run):
    """camelCase names, enumerations by number, numbers as texts, null for absent, a byte order mark, CRLF."""
    same = [
        {
            "claimId": "c1",
            "version": "43.1",
            "sex": 2,
            "dischargeStatus": "1",
            "diagnoses": ["A000"],
            "hospitalStatus": "HOSPITAL_STATUS_NOT_EXEMPT",
            "lengthOfStay": None,
            "admitDiagnosis": None,
            "procedures": None,
            "poa": None,
            "age": 4.0,
            "dischargeDate": "20260401",
        },
        CLAIM,
    ]
    data = b"\xef\xbb\xbf" + lines_of(same).replace(b"\n", b"\r\n")
    found = run("group", "drg", "-", stdin=data)
    assert found.status == 0, found.out
    first, second = answers_of(found.out)
    assert first == second
    message = json_format.ParseDict({k: v for k, v in same[0].items() if v is not None}, grouping_pb2.InpatientClaim())
    assert message.sex == grouping_pb2.SEX_FEMALE


def test_a_claim_without_diagnoses_is_answered_as_cms_does(run):
    answer = answers_of(run("group", "drg", "-", stdin=b'{"version": "43.1"}').out)[0]
    assert answer["final_grouping"]["drg"] == 999
    assert answer["final_grouping"]["return_code"] == "RETURN_CODE_INVALID_PDX"


def test_no_claims_at_all(run, server):
    for more in ((), ("--server", server)):
        found = run("group", "drg", "-", *more, stdin=b"")
        assert found.status == 0
        assert found.out == ""
        assert "0 claims" in found.err


def test_text_beyond_ascii_stays_itself(run):
    claim = {**CLAIM, "claim_id": "Müller 日 \u2028", "diagnoses": ["A000", "ä"]}
    found = run("group", "drg", "-", stdin=json.dumps(claim, ensure_ascii=False).encode() + b"\n")
    assert found.out.count("\n") == 1
    answer = json.loads(found.out)
    assert answer["claim_id"] == claim["claim_id"]
    assert answer["diagnoses"][1]["code"] == "ä"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["missing.ndjson"], "ENOENT"),
        (["."], "EISDIR"),
        (["-", "--version", "99.9"], "UNKNOWN_VERSION"),
        (["-", "--store", "empty"], "PACK_NOT_FOUND"),
        (["-", "-o", "missing/answers.ndjson"], "ENOENT"),
        (["-", "--server", "127.0.0.1:1"], "SERVICE_UNAVAILABLE"),
        (["damaged.ndjson.gz"], "INVALID_FIELD"),
        (["damaged.ndjson.xz"], "INVALID_FIELD"),
        (["cut.ndjson.gz", "-o", "answers.ndjson"], "INVALID_FIELD"),
    ],
)
def test_unusable_input(run, tmp_path, monkeypatch, arguments, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.ndjson.gz").write_bytes(b"{}\n")
    (tmp_path / "damaged.ndjson.xz").write_bytes(b"{}\n")
    (tmp_path / "cut.ndjson.gz").write_bytes(gzip.compress(lines_of([CLAIM] * 100))[:-9])
    before = sorted(path.name for path in tmp_path.iterdir())
    found = run("group", "drg", *arguments, stdin=lines_of([CLAIM]))
    assert found.status == 2
    assert found.err.startswith(f"{code}: ")
    assert found.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_store_without_a_grouper(run, store, tmp_path):
    (tmp_path / "icd10cm").mkdir()
    (tmp_path / "icd10cm" / "2027").symlink_to(store / "icd10cm" / "2027")
    found = run("group", "drg", "-", "--store", tmp_path, stdin=lines_of([CLAIM]))
    assert found.status == 2
    assert found.err.startswith("PACK_NOT_FOUND: no MS-DRG version")


def test_output_appears_whole_or_not_at_all(run, tmp_path, monkeypatch):
    output = tmp_path / "answers.ndjson"
    output.write_text("before")
    (tmp_path / "cut.ndjson.gz").write_bytes(gzip.compress(lines_of([CLAIM] * 100))[:-9])
    assert run("group", "drg", tmp_path / "cut.ndjson.gz", "-o", output).status == 2
    assert output.read_text() == "before"
    # Bad lines are answers, and so is a file that has some.
    assert run("group", "drg", "-", "-o", output, stdin=b"{}\n").status == 1
    assert len(answers_of(output.read_text())) == 1
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(output.stat().st_mode) == 0o666 & ~umask
    # The input may be the output, and a link stays a link.
    link = tmp_path / "link.ndjson"
    link.symlink_to(output)
    output.write_bytes(lines_of([CLAIM]))
    assert run("group", "drg", link, "-o", link).status == 0
    assert link.is_symlink()
    assert answers_of(output.read_text())[0]["final_grouping"]["drg"] == 373
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.ndjson", "cut.ndjson.gz", "link.ndjson"]


def test_output_to_a_pipe_is_written_as_it_comes(run, tmp_path):
    pipe = tmp_path / "pipe.ndjson"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert run("group", "drg", "-", "-o", pipe, stdin=lines_of([CLAIM])).status == 0
    reader.join(30)
    assert len(answers_of(got[0])) == 1
    assert pipe.is_fifo()


def test_memory_does_not_grow_with_the_file(store, tmp_path):
    """A file of 40 times the size, in a process of its own: its peak stays where it was."""
    claim = lines_of([{**CLAIM, "diagnoses": ["A000", "E119", "I10"] * 3}])

    def peak(count: int) -> int:
        source = tmp_path / "claims.ndjson"
        source.write_bytes(claim * count)
        code = (
            "import resource, sys\n"
            "from engine.cli import main\n"
            "try:\n"
            "    main(sys.argv[1:])\n"
            "except SystemExit as ended:\n"
            "    assert ended.code in (None, 0), ended.code\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        arguments = ["group", "drg", str(source), "-o", str(tmp_path / "out.gz"), "--store", str(store)]
        command = [sys.executable, "-c", code, *arguments]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    few, many = peak(2_000), peak(40_000)
    assert many < few * 1.3, (few, many)
