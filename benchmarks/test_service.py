"""The same over gRPC: a server process on loopback, the thin client in this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import grpc
import pytest

import engine
from engine._pb.codeset.v1 import grouping_pb2, scoring_pb2, terminology_pb2
from engine.client import Client
from engine.drg import Detail, GroupingOptions
from engine.server import ServerConfig
from engine.server.calls import Facts
from engine.server.services import Services

from .conftest import read_answers, risk_members
from .load_server import ECHO, Serving, serving

Measure = Callable[..., Any]


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    """A server with an echo beside its own methods."""
    with serving() as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[Client]:
    with Client(server.target) as connected:
        yield connected


@pytest.fixture(scope="module")
def channel(server: Serving) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.target, options) as connected:
        yield connected


@pytest.mark.benchmark(group="MS-DRG over gRPC, batches")
@pytest.mark.parametrize("detail", ["DRG_DETAIL_DRG", "DRG_DETAIL_FULL"])
def test_batches(measure: Measure, client: Client, claims: list[Any], answers: list[Any], detail: str) -> None:
    some = claims[:10_000]
    options = {"detail": detail}
    results = measure(
        lambda: client.group_drg_many(some, options=options),
        items=len(some),
        unit="claims",
        who=f"engine, {detail.removeprefix('DETAIL_').lower()}",
        rounds=5,
    )
    assert [result.final_grouping.drg for result in results] == [
        a["final_grouping"]["drg"] for a in answers[: len(some)]
    ]


CLAIMS = 5_000
"""Claims a request."""
REQUESTS = 8
IN_FLIGHT = 2
PATH = "/codeset.v1.GroupingService/BatchGroupDrg"
SCORES = "/codeset.v1.GroupingService/BatchScoreHcc"


def _send(channel: grpc.Channel, path: str, raw: bytes) -> list[bytes]:
    """Send the same request ``REQUESTS`` times, ``IN_FLIGHT`` at once."""
    call = channel.unary_unary(path)
    waiting: deque[Any] = deque()
    found = []
    for _ in range(REQUESTS):
        waiting.append(call.future(raw))
        if len(waiting) >= IN_FLIGHT:
            found.append(waiting.popleft().result())
    return found + [future.result() for future in waiting]


def _raw(claims: list[Any], detail: str) -> bytes:
    request = grouping_pb2.BatchGroupDrgRequest(options={"detail": detail})  # type: ignore[arg-type]
    for claim in claims[:CLAIMS]:
        request.claims.add(**claim)
    return request.SerializeToString()


@pytest.mark.benchmark(group="BatchGroupDrg, 5,000 claims a request, DRG only")
@pytest.mark.parametrize("who", ["in process", "bytes", "echo", "dicts", "dicts to dicts", "dicts, stream"])
def test_wire_brief(
    measure: Measure,
    channel: grpc.Channel,
    client: Client,
    library: engine.Library,
    claims: Any,
    answers: Any,
    who: str,
) -> None:
    _wire(measure, channel, client, library, claims, answers, who, "DRG_DETAIL_DRG")


@pytest.mark.benchmark(group="BatchGroupDrg, 5,000 claims a request, every field")
@pytest.mark.parametrize("who", ["in process", "bytes", "echo", "dicts", "dicts to dicts", "dicts, stream"])
def test_wire_full(
    measure: Measure,
    channel: grpc.Channel,
    client: Client,
    library: engine.Library,
    claims: Any,
    answers: Any,
    who: str,
) -> None:
    _wire(measure, channel, client, library, claims, answers, who, "DRG_DETAIL_FULL")


def _wire(
    measure: Measure,
    channel: grpc.Channel,
    client: Client,
    library: engine.Library,
    claims: list[Any],
    answers: list[Any],
    who: str,
    detail: str,
) -> None:
    some = claims[:CLAIMS]
    many = some * REQUESTS
    options = {"detail": detail}
    brief = GroupingOptions(detail=Detail.DRG if detail == "DRG_DETAIL_DRG" else Detail.FULL)
    raw = _raw(claims, detail)
    actions: dict[str, Callable[[], Any]] = {
        "in process": lambda: [library.group_drg_many(some, brief) for _ in range(REQUESTS)],
        "bytes": lambda: _send(channel, PATH, raw),
        "echo": lambda: _send(channel, ECHO, raw),
        "dicts": lambda: client.group_drg_many(many, options=options),
        "dicts to dicts": lambda: list(client.iter_drg_dicts(many, options=options)),
        "dicts, stream": lambda: list(client.stream_drg(many, options=options)),
    }
    found = measure(actions[who], items=len(many), unit="claims", who=who, rounds=5)
    expected = [answer["final_grouping"]["drg"] for answer in answers[:CLAIMS]]
    if who == "in process":
        assert found[-1].table["final_grouping"]["drg"].tolist() == expected
    elif who == "bytes":
        results = grouping_pb2.BatchGroupDrgResponse.FromString(found[-1]).results
        assert [result.final_grouping.drg for result in results] == expected
    elif who == "echo":
        assert found == [raw] * REQUESTS
    elif who == "dicts to dicts":
        assert [result["final_grouping"]["drg"] for result in found[-CLAIMS:]] == expected
    else:
        assert [result.final_grouping.drg for result in found[-CLAIMS:]] == expected


@pytest.mark.benchmark(group="BatchScoreHcc, 5,000 members a request, V28, scores")
@pytest.mark.parametrize("who", ["in process", "bytes", "echo"])
def test_wire_scores(measure: Measure, channel: grpc.Channel, library: engine.Library, who: str) -> None:
    _score(measure, channel, library, who, "HCC_DETAIL_SCORES")


@pytest.mark.benchmark(group="BatchScoreHcc, 5,000 members a request, V28, every detail")
@pytest.mark.parametrize("who", ["bytes", "echo"])
def test_wire_scores_in_detail(measure: Measure, channel: grpc.Channel, library: engine.Library, who: str) -> None:
    # In process the detail is worked out where it is asked for, member by member.
    _score(measure, channel, library, who, "HCC_DETAIL_FULL")


def _score(measure: Measure, channel: grpc.Channel, library: engine.Library, who: str, detail: str) -> None:
    members = risk_members("v28", CLAIMS)
    request = scoring_pb2.BatchScoreHccRequest(options={"detail": detail})  # type: ignore[arg-type]
    for member in members:
        request.members.add(**member)
    raw = request.SerializeToString()
    actions: dict[str, Callable[[], Any]] = {
        "in process": lambda: [library.score_hcc_many(members) for _ in range(REQUESTS)],
        "bytes": lambda: _send(channel, SCORES, raw),
        "echo": lambda: _send(channel, ECHO, raw),
    }
    found = measure(actions[who], items=len(members) * REQUESTS, unit="members", who=who, rounds=5)
    if who == "echo":
        assert found == [raw] * REQUESTS
        return
    answers = read_answers("v28", "answers")
    if who == "in process":
        scores = [{score.segment: score.raw for score in result.scores} for result in found[-1][: len(answers)]]
    else:
        results = scoring_pb2.BatchScoreHccResponse.FromString(found[-1]).results[: len(answers)]
        scores = [{score.segment: score.raw for score in result.scores} for result in results]
        assert all(bool(result.contributions) == (detail == "HCC_DETAIL_FULL") for result in results)
    assert scores == [answer["scores"] for answer in answers[: len(scores)]]


CODES = 10_000
"""Codes a request."""
VALIDATE = "/codeset.v1.TerminologyService/BatchValidateCodes"
DAY = 20260501


@pytest.mark.benchmark(group="BatchValidateCodes, 10,000 codes a request")
@pytest.mark.parametrize("who", ["no network", "no network, through messages", "bytes", "echo"])
def test_wire_codes(measure: Measure, channel: grpc.Channel, library: engine.Library, who: str) -> None:
    codes = Random(6).sample(library.code_system("icd10cm", date=DAY).valid_codes(DAY).tolist(), CODES - 1000)
    # Some are not what they should be.
    codes += [code[:3] for code in codes[:500]] + [b"Z" + code for code in codes[:500]]
    request = terminology_pb2.BatchValidateCodesRequest(system="icd10cm", date=DAY)
    for code in codes:
        request.items.add(code=code.decode())
    raw = request.SerializeToString()
    services = Services(library, ServerConfig(max_items=CODES))

    def through_messages() -> bytes:
        decoded = terminology_pb2.BatchValidateCodesRequest.FromString(raw)
        return services.batch_validate_codes(decoded, Facts()).SerializeToString()

    actions: dict[str, Callable[[], Any]] = {
        "no network": lambda: [services.from_bytes()["BatchValidateCodes"](raw, Facts()) for _ in range(REQUESTS)],
        "no network, through messages": lambda: [through_messages() for _ in range(REQUESTS)],
        "bytes": lambda: _send(channel, VALIDATE, raw),
        "echo": lambda: _send(channel, ECHO, raw),
    }
    found = measure(actions[who], items=len(codes) * REQUESTS, unit="codes", who=who, rounds=5)
    if who == "echo":
        assert found == [raw] * REQUESTS
        return
    results = terminology_pb2.BatchValidateCodesResponse.FromString(found[-1]).results
    assert [result.status for result in results] == library.validate_many("icd10cm", codes, date=DAY).tolist()


@pytest.mark.benchmark(group="ValidateCode, no network")
@pytest.mark.parametrize("who", ["bytes", "through messages"])
def test_one_code(measure: Measure, library: engine.Library, who: str) -> None:
    services = Services(library, ServerConfig())
    raw = terminology_pb2.ValidateCodeRequest(system="icd10cm", code="A00.0", date=DAY).SerializeToString()

    def through_messages() -> bytes:
        request = terminology_pb2.ValidateCodeRequest.FromString(raw)
        return services.validate_code(request, Facts()).SerializeToString()

    actions: dict[str, Callable[[], Any]] = {
        "bytes": lambda: services.from_bytes()["ValidateCode"](raw, Facts()),
        "through messages": through_messages,
    }
    found = measure(actions[who], unit="calls", who=who, rounds=50, iterations=100)
    assert terminology_pb2.ValidateCodeResponse.FromString(found).result.valid


@pytest.mark.benchmark(group="one call at a time over gRPC")
def test_unary(measure: Measure, client: Client) -> None:
    answer = measure(lambda: client.validate("icd10cm", "A00.0", date=20260501), unit="calls", rounds=200, iterations=5)
    assert answer.valid
