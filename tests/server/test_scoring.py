"""Risk scores over gRPC: a server on real packs, both clients, the reference answers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import errors
from engine.client import AsyncClient, Client, HccOptions, RiskMember, raise_for_error, to_dict
from engine.client._batches import Limits
from engine.client._messages import MEMBER as MEMBERS
from engine.client._requests import hcc_job
from engine.client._scoring import hcc_options_message
from engine.hcc import HccDetail, PaymentFactors, ScoringOptions

MEMBER: dict[str, Any] = {
    "member_id": "m1",
    "model": "V28",
    "payment_year": 2026,
    "birth_date": 19500101,
    "sex": "SEX_FEMALE",
    "orec": 0,
    "diagnoses": ["E11.22", "I5022", "E119"],
    "dual_status_code": "00",
}
SERVE = """
import pathlib, sys
from engine.server import ServerConfig, serve
serve(ServerConfig(port=0, store=pathlib.Path(sys.argv[1]), max_items=500))
"""


@pytest.fixture(scope="module")
def library(store: Path) -> engine.Library:
    return engine.open(store, releases=["cmshcc"])


@pytest.fixture(scope="module")
def serving(store: Path) -> Iterator[str]:
    """Address of a server that serves ``store``, 500 members at a time."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ),
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline().split()
        assert line[:1] == ["listening"]
        try:
            yield line[1]
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest, serving: str) -> Any:
    """Call a method of either client by name."""

    def blocking(method: str, *args: Any, **keywords: Any) -> Any:
        with Client(serving) as client:
            return getattr(client, method)(*args, **keywords)

    def asynchronous(method: str, *args: Any, **keywords: Any) -> Any:
        async def awaited() -> Any:
            async with AsyncClient(serving) as client:
                return await getattr(client, method)(*args, **keywords)

        return asyncio.run(awaited())

    return blocking if request.param == "blocking" else asynchronous


def test_reference_answers(call: Any, hcc_golden: Any) -> None:
    # More than the server takes at once: the client cuts the batch.
    results = call("score_hcc_many", hcc_golden.claims)
    for result, answer in zip(results, hcc_golden.answers, strict=True):
        got = to_dict(result)
        assert {name: got[name] for name in ("member_id", "model", "age", "ccs", "hccs")} == {
            name: answer[name] for name in ("member_id", "model", "age", "ccs", "hccs")
        }
        assert {score["segment"]: score["raw"] for score in got["scores"]} == answer["scores"]
        assert sorted(got["applicable"]) == answer.get("applicable", [])


@pytest.mark.parametrize("detail", ["SCORES", "FULL"])
def test_answers_are_those_in_process(call: Any, library: engine.Library, hcc_sample: Any, detail: str) -> None:
    years = [member | {"payment_year": 2025} for member in hcc_sample.claims if member["model"] in ("V24", "V28")]
    members = [*hcc_sample.claims[::5], *years[::20], MEMBER, MEMBER | {"orec": 7}, MEMBER | {"model": "V1"}]
    results = call("score_hcc_many", members, options={"detail": detail})
    expected = library.score_hcc_many(members, ScoringOptions(detail=HccDetail[detail]))
    assert [to_dict(result) for result in results] == [result.to_dict() for result in expected]
    assert any(result.HasField("blend") for result in results)


def test_one_member(call: Any, library: engine.Library) -> None:
    result = call("score_hcc", MEMBER, options={"detail": "HCC_DETAIL_FULL"})
    assert to_dict(result) == library.explain_hcc(MEMBER).to_dict()
    assert result.segment == "COMMUNITY_NA"
    same = call("score_hcc", engine.RiskMember(**MEMBER), options=HccOptions(detail=2))
    assert same == result
    assert call("score_hcc", MEMBERS.message(MEMBER), options={"detail": 2}) == result


@pytest.mark.parametrize(
    ("wrong", "error", "field"),
    [
        ({"model": "V99"}, errors.UnknownModelError, "model"),
        ({"payment_year": 1999}, errors.UnknownReleaseError, "payment_year"),
        ({"sex": 0}, errors.InvalidFieldError, "sex"),
        ({"sex": 3}, errors.InvalidFieldError, "sex"),
        ({"orec": None}, errors.InvalidFieldError, "orec"),
        ({"orec": 4}, errors.InvalidFieldError, "orec"),
        ({"birth_date": 19500230}, errors.InvalidDateError, "birth_date"),
        ({"birth_date": 0}, errors.InvalidFieldError, "birth_date"),
        ({"fbdual": True, "pbdual": True}, errors.InvalidFieldError, "pbdual"),
    ],
)
def test_bad_members(call: Any, wrong: dict[str, Any], error: type[errors.CodesetError], field: str) -> None:
    with pytest.raises(error) as caught:
        call("score_hcc", MEMBER | wrong)
    assert caught.value.field == field
    good, bad = call("score_hcc_many", [MEMBER, MEMBER | wrong])
    assert not good.HasField("error")
    assert (bad.member_id, bad.error.code, bad.error.field) == ("m1", error.code, field)
    with pytest.raises(error):
        raise_for_error(bad)


def test_options_travel(call: Any, library: engine.Library) -> None:
    options = {
        "factors": [{"model": "V28", "normalization": 1.1, "coding_adjustment": 0}],
        "blend": {"V22": "0.9", "V28": "0.1"},
    }
    expected = library.score_hcc(
        MEMBER,
        ScoringOptions(
            factors=[PaymentFactors("V28", normalization="1.1", coding_adjustment=0)],
            blend={"V22": "0.9", "V28": "0.1"},
        ),
    )
    assert to_dict(call("score_hcc", MEMBER, options=options)) == expected.to_dict()
    in_2025 = MEMBER | {"payment_year": 2025}
    assert call("score_hcc", in_2025).HasField("blend")
    assert not call("score_hcc", in_2025, options={"blend": {}}).HasField("blend")
    for impossible in (
        {"factors": [{"model": "V28", "normalization": 99.0}]},
        {"factors": [{"normalization": 1.0}]},
        {"blend": {"V28": 1}},
        {"blend": [{"weight": 0.5}, {"weight": 0.5}]},
        {"detail": 9},
    ):
        with pytest.raises(errors.InvalidFieldError):
            call("score_hcc_many", [MEMBER], options=impossible)


def test_a_request_without_a_member(serving: str) -> None:
    import grpc

    from engine._pb.codeset.v1 import scoring_pb2

    with grpc.insecure_channel(serving) as channel:
        method = channel.unary_unary(
            "/codeset.v1.GroupingService/ScoreHcc",
            request_serializer=scoring_pb2.ScoreHccRequest.SerializeToString,
            response_deserializer=scoring_pb2.ScoreHccResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as caught:
            method(scoring_pb2.ScoreHccRequest(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# --- members as messages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"sex": "X"}, "sex"),
        ({"sex": True}, "sex"),
        ({"birth_date": "19500101"}, "birth_date"),
        ({"payment_year": True}, "payment_year"),
        ({"payment_year": 1 << 40}, "payment_year"),
        ({"lti": "yes"}, "lti"),
        ({"diagnoses": "E119"}, "diagnoses"),
        ({"diagnoses": ["E119", 5]}, "diagnoses"),
        ({"model": 28}, "model"),
        ({"model": "\ud800"}, "model"),
        ({"weight": 80}, "weight"),
    ],
)
def test_what_cannot_be_encoded_is_the_error_of_its_member(call: Any, wrong: dict[str, Any], field: str) -> None:
    first, bad, last = call("score_hcc_many", [MEMBER, MEMBER | wrong, MEMBER])
    assert first == last
    assert (bad.member_id, bad.error.code, bad.error.field) == ("m1", "INVALID_FIELD", field)


def test_members_as_messages() -> None:
    message = MEMBERS.message(MEMBER | {"sex": "FEMALE", "age": None, "low_income": False, "snp": 1})
    assert (message.sex, message.HasField("age"), message.HasField("low_income")) == (2, False, True)
    assert message.low_income is False
    assert message.snp is True
    assert MEMBERS.message(message) is message
    with pytest.raises(errors.InvalidFieldError):
        MEMBERS.message(5)
    with pytest.raises(errors.InvalidFieldError):
        hcc_job("members", None)
    assert [chunk.size for chunk in hcc_job([MEMBER] * 25, None).chunks(Limits(10, 1 << 20))] == [10, 10, 5]


@pytest.mark.parametrize(
    "options",
    [5, {"details": "FULL"}, {"detail": "MORE"}, {"drug_plan": "yes"}, {"factors": 5}, {"blend": {"V28": "much"}}],
)
def test_options_that_are_none(options: Any) -> None:
    with pytest.raises(errors.InvalidFieldError):
        hcc_options_message(options)


def test_options_as_messages() -> None:
    message = hcc_options_message(
        {"detail": "FULL", "blend": {"V24": 0.5, "V28": 0.5}, "drug_plan": True, "factors": None}
    )
    assert message is not None
    assert (message.detail, [part.model for part in message.blend], message.drug_plan) == (2, ["V24", "V28"], True)
    assert hcc_options_message(message) is message
    assert hcc_options_message(None) is None
    assert RiskMember().HasField("orec") is False
