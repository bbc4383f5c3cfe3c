"""The path from bytes to bytes gives the answers of the path through the generated classes, whatever it is sent."""

from __future__ import annotations

import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
import wire_check
import wire_shapes as shapes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import engine
from engine._pb.codeset.v1 import grouping_pb2
from engine._wire import DrgRequest, EncodedVersion
from engine.server import ServerConfig
from engine.server.calls import Facts
from engine.server.services import Services

Request = grouping_pb2.BatchGroupDrgRequest
Response = grouping_pb2.BatchGroupDrgResponse
RANDOM = st.randoms(use_true_random=False)
MANY = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def services(store: Path) -> Services:
    return Services(engine.open(store), ServerConfig(max_items=50_000))


def check(services: Services, raw: bytes) -> Any:
    got, expected = wire_check.drg_one(services, raw)
    assert got == expected
    got, expected = wire_check.drg(services, raw)
    assert got == expected
    return got[0]


@pytest.mark.parametrize("detail", ["DRG_DETAIL_DRG", "DRG_DETAIL_FULL"])
@pytest.mark.parametrize("affect_flags", ["AFFECT_FLAGS_COMPUTE", "AFFECT_FLAGS_DO_NOT_COMPUTE"])
def test_every_reference_claim(services: Services, golden: Any, detail: Any, affect_flags: Any) -> None:
    options = grouping_pb2.DrgOptions(detail=detail, affect_flags=affect_flags)
    for start in range(0, len(golden.claims), 5000):
        request = Request(options=options)
        for claim in golden.claims[start : start + 5000]:
            request.claims.add(**claim)
        raw = check(services, request.SerializeToString())
        drgs = [result.final_grouping.drg for result in Response.FromString(raw).results]
        assert drgs == [answer["final_grouping"]["drg"] for answer in golden.answers[start : start + 5000]]


@pytest.mark.parametrize("detail", ["DRG_DETAIL_DRG", "DRG_DETAIL_FULL"])
def test_every_reference_claim_by_itself(services: Services, golden: Any, detail: Any) -> None:
    options = grouping_pb2.DrgOptions(detail=detail)
    left = 0
    for claim, answer in zip(golden.claims[:10_000], golden.answers, strict=False):
        raw = grouping_pb2.GroupDrgRequest(claim=claim, options=options).SerializeToString()
        got, expected = wire_check.drg_one(services, raw)
        assert got == expected
        response = grouping_pb2.GroupDrgResponse.FromString(got[0])
        assert response.result.final_grouping.drg == answer["final_grouping"]["drg"]
        left += services.from_bytes()["GroupDrg"](raw, Facts()) is None
    # Every claim that CMS answers is plain.
    assert left == 0


@MANY
@given(RANDOM)
def test_any_request(services: Services, rng: Random) -> None:
    assert isinstance(check(services, shapes.drg_request(rng)), bytes | tuple)


@MANY
@given(RANDOM)
def test_any_damage(services: Services, rng: Random) -> None:
    check(services, shapes.damaged(rng, shapes.drg_request(rng)))


@MANY
@given(st.binary(max_size=60))
def test_any_bytes(services: Services, raw: bytes) -> None:
    check(services, raw)


def test_the_shapes_are_worth_it(services: Services) -> None:
    """Most of them group claims, some do not, and damage is mostly refused but not always."""
    rng = Random(4711)
    kinds = {"answered": 0, "item errors": 0, "refused": 0, "no protobuf": 0}
    for i in range(600):
        raw = shapes.drg_request(rng)
        got = check(services, raw if i % 3 else shapes.damaged(rng, raw))
        if got == "no protobuf":
            kinds["no protobuf"] += 1
        elif isinstance(got, tuple):
            kinds["refused"] += 1
        else:
            failed = any(result.HasField("error") for result in Response.FromString(got).results)
            kinds["item errors" if failed else "answered"] += 1
    assert min(kinds.values()) > 10, kinds


CLAIM = shapes.text(2, "43.1") + shapes.text(10, "I130") + shapes.text(10, "I5023") + shapes.text(12, "02HK0KZ")


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_truncated(services: Services, sample: Any, cut: int) -> None:
    raw = Request(claims=[grouping_pb2.InpatientClaim(**claim) for claim in sample.claims[:3]]).SerializeToString()
    check(services, raw[:-cut])


@pytest.mark.parametrize(
    "raw",
    [
        shapes.text(1, CLAIM) + shapes.text(2, shapes.number(3, 1)),
        shapes.text(2, shapes.number(3, 1)) + shapes.text(1, CLAIM) + shapes.text(2, shapes.number(1, 2)),
        shapes.text(1, CLAIM + shapes.text(2, "42.0")),
        shapes.text(1, CLAIM + shapes.text(2, "")),
        shapes.text(1, b""),
        shapes.text(1, CLAIM + shapes.number(5, (1 << 32) + 2)),
        shapes.text(1, CLAIM + shapes.number(5, 4)),
        shapes.text(1, CLAIM + shapes.number(6, -1)),
        shapes.text(1, CLAIM + shapes.number(6, 4711)),
        shapes.text(1, CLAIM + shapes.number(7, 1 << 40)),
        shapes.text(1, CLAIM + shapes.text(11, "YN")),
        shapes.text(1, CLAIM + shapes.text(11, "Y")),
        shapes.text(1, CLAIM + shapes.text(11, "é")),
        shapes.text(1, CLAIM + shapes.text(11, "éé")),
        shapes.text(1, CLAIM + shapes.text(9, "nUlL")),
        shapes.text(1, CLAIM + shapes.text(9, "I130")),
        shapes.text(1, CLAIM + shapes.text(9, "é")),
        # Known numbers, other wire types: unknown fields.
        shapes.text(1, CLAIM + shapes.text(5, b"\x02") + shapes.number(10, 1) + shapes.tag(3, 5) + b"abcd"),
        shapes.number(1, 7) + shapes.text(1, CLAIM),
        # As many codes as are taken, and one more.
        shapes.text(1, shapes.text(2, "43.1") + shapes.text(10, "I130") * 300),
        shapes.text(1, shapes.text(2, "43.1") + shapes.text(12, "Z") * 65_536),
        shapes.text(1, shapes.text(2, "43.1") + shapes.text(10, "Z") * 65_536),
        shapes.text(2, shapes.number(3, 7)),
        b"",
    ],
)
def test_corners(services: Services, raw: bytes) -> None:
    assert check(services, raw) != "no protobuf"


@pytest.mark.parametrize("depth", [98, 99, 100, 101])
@pytest.mark.parametrize("field", [1, 13])
def test_groups_within_groups(services: Services, depth: int, field: int) -> None:
    groups = shapes.tag(field, shapes.GROUP) * depth + shapes.tag(field, shapes.END_GROUP) * depth
    for raw in (groups, shapes.text(1, groups), shapes.text(2, groups)):
        check(services, raw)


def test_many_versions_and_dates(services: Services) -> None:
    """More than are remembered while reading."""
    claims = [
        grouping_pb2.InpatientClaim(discharge_date=20221001 + i % 31 + 100 * (i % 3), diagnoses=["I130"])
        for i in range(3000)
    ]
    claims += [grouping_pb2.InpatientClaim(version=f"4{i % 50}.{i % 7}") for i in range(3000)]
    assert isinstance(check(services, Request(claims=claims).SerializeToString()), bytes)


def test_a_batch_too_large(store: Path) -> None:
    services = Services(engine.open(store), ServerConfig(max_items=2))
    assert check(services, shapes.text(1, CLAIM) * 3)[0] == "BATCH_TOO_LARGE"


def test_threads_share_a_version(services: Services, sample: Any) -> None:
    raw = Request(claims=[grouping_pb2.InpatientClaim(**claim) for claim in sample.claims]).SerializeToString()
    expected = services.from_bytes()["BatchGroupDrg"](raw, Facts())
    found: list[bytes | None] = []
    threads = [
        threading.Thread(
            target=lambda: found.extend(services.from_bytes()["BatchGroupDrg"](raw, Facts()) for _ in range(5))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 20


def test_misuse_is_refused(services: Services) -> None:
    raw = shapes.text(1, CLAIM)
    request = DrgRequest(raw)
    with pytest.raises(TypeError):
        request.__init__(raw)  # type: ignore[misc]
    with pytest.raises(ValueError, match="1 versions"):
        request.answer([], 0, list)
    with pytest.raises(TypeError):
        request.answer(["43.1"], 0, list)  # type: ignore[list-item]
    grouper = services.library.drg_grouper("43.1").core
    with pytest.raises(ValueError, match="numbers"):
        EncodedVersion(grouper, {-1: b""}, {}, [], b"")
    for broken in (lambda claims: [], lambda claims: [1], lambda claims: None):
        with pytest.raises((TypeError, ValueError)):
            request.answer([None], 0, broken)


def test_what_is_no_message_is_refused_over_the_wire(address: str) -> None:
    import grpc

    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/codeset.v1.GroupingService/BatchGroupDrg")(b"\x0a\x05", timeout=30)
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
