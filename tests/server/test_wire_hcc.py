"""Risk scores from bytes to bytes are those of the path through the generated classes, whatever it is sent."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import grpc
import numpy as np
import pytest
import wire_check
import wire_shapes as shapes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import engine
from engine._pb.codeset.v1 import scoring_pb2
from engine._wire_hcc import EncodedScorer, HccChoice, HccRequest, answer_member
from engine.server import ServerConfig
from engine.server.calls import Facts
from engine.server.services import Services

Request = scoring_pb2.BatchScoreHccRequest
Response = scoring_pb2.BatchScoreHccResponse
Member = scoring_pb2.RiskMember
RANDOM = st.randoms(use_true_random=False)
MANY = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))

BLENDS: list[Any] = [{"model": "V28", "weight": 0.67}, {"model": "V22", "weight": 0.33}]
FACTORS: list[Any] = [
    {"model": "v28", "normalization": 1.5, "coding_adjustment": 0.0},
    {"model": "ESRD_V24", "dialysis_normalization": 0.1},
    {"model": "RXHCC_V08_X", "drug_plan_normalization": 2.0},
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"drug_plan": True},
    {"without_blend": True},
    {"blend": BLENDS},
    {"factors": FACTORS},
    {"factors": FACTORS, "blend": BLENDS, "drug_plan": True},
]


@pytest.fixture(scope="module")
def services(store: Path) -> Services:
    return Services(engine.open(store), ServerConfig(max_items=50_000))


def check(services: Services, raw: bytes) -> Any:
    got, expected = wire_check.scores(services, raw)
    assert got == expected
    one, expected_of_one = wire_check.score(services, raw)
    assert one == expected_of_one
    return got[0]


# --- the answers ----------------------------------------------------------------------------------------------------


def test_every_reference_member(services: Services, hcc_golden: Any) -> None:
    for start in range(0, len(hcc_golden.claims), 5000):
        request = Request(members=[Member(**member) for member in hcc_golden.claims[start : start + 5000]])
        got, expected = wire_check.scores(services, request.SerializeToString())
        assert got == expected
        answers = hcc_golden.answers[start : start + 5000]
        for result, answer in zip(Response.FromString(got[0]).results, answers, strict=True):
            assert {score.segment: score.raw for score in result.scores} == answer["scores"]
            assert list(result.hccs) == answer["hccs"]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "none")
@pytest.mark.parametrize("year", [2026, 2025, 2024])
def test_every_combination_of_options(services: Services, hcc_sample: Any, options: Any, year: int) -> None:
    """Of the sample's models V24 and V28 are there for the earlier years, and blended; V22 is not."""
    members = [Member(**member | {"payment_year": year}) for member in hcc_sample.claims]
    for detail in (0, 1, 2):
        request = Request(members=members, options=scoring_pb2.HccOptions(detail=detail, **options))  # type: ignore[arg-type]
        got, expected = wire_check.scores(services, request.SerializeToString())
        assert got == expected
        results = Response.FromString(got[0]).results
        scored = [result for result in results if not result.HasField("error")]
        assert len(scored) >= 100
        assert any(result.contributions for result in scored) == (detail == 2)
        blended = any(result.HasField("blend") for result in scored)
        assert blended == ("blend" in options if year == 2026 else not {"blend", "without_blend"} & options.keys())


def test_every_reference_member_alone(services: Services, hcc_sample: Any) -> None:
    for member in hcc_sample.claims[::7]:
        for detail in (0, 2):
            request = scoring_pb2.ScoreHccRequest(
                member=Member(**member),
                options=scoring_pb2.HccOptions(detail=detail),  # type: ignore[arg-type]
            )
            got, expected = wire_check.score(services, request.SerializeToString())
            assert got == expected
            assert isinstance(got[0], bytes)
            assert got[1] == (1, 0, f"cmshcc/{member['model'].lower().replace('_', '-')}-{member['payment_year']}")


@MANY
@given(RANDOM)
def test_any_request(services: Services, rng: Random) -> None:
    assert isinstance(check(services, shapes.hcc_request(rng)), bytes | tuple)


@MANY
@given(RANDOM)
def test_any_damage(services: Services, rng: Random) -> None:
    check(services, shapes.damaged(rng, shapes.hcc_request(rng)))


@MANY
@given(st.binary(max_size=60))
def test_any_bytes(services: Services, raw: bytes) -> None:
    check(services, raw)


def test_the_shapes_are_worth_it(services: Services) -> None:
    """Most of them score members, some do not, and damage is mostly refused but not always."""
    rng = Random(4711)
    kinds = {"answered": 0, "item errors": 0, "refused": 0, "no protobuf": 0, "blended": 0, "explained": 0}
    for i in range(600):
        raw = shapes.hcc_request(rng)
        got = check(services, raw if i % 3 else shapes.damaged(rng, raw))
        if got == "no protobuf":
            kinds["no protobuf"] += 1
            continue
        if isinstance(got, tuple):
            kinds["refused"] += 1
            continue
        results = Response.FromString(got).results
        kinds["item errors" if any(result.HasField("error") for result in results) else "answered"] += 1
        kinds["blended"] += any(result.HasField("blend") for result in results)
        kinds["explained"] += any(result.contributions for result in results)
    assert min(kinds.values()) > 10, kinds


# --- the corners ----------------------------------------------------------------------------------------------------

WHO = shapes.text(2, "V28") + shapes.number(3, 2026) + shapes.number(6, 2)
MEMBER = WHO + shapes.number(5, 70) + shapes.number(7, 0) + shapes.text(16, "E119") + shapes.text(16, "I5022")
FULL = shapes.text(2, shapes.number(1, 2))


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_truncated(services: Services, hcc_sample: Any, cut: int) -> None:
    raw = Request(members=[Member(**member) for member in hcc_sample.claims[:3]]).SerializeToString()
    check(services, raw[:-cut])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        shapes.text(1, b""),
        shapes.text(1, MEMBER),
        shapes.text(1, MEMBER) + FULL,
        # Options in pieces are one message, whatever is between them; a member in pieces is one where there is one.
        FULL + shapes.text(1, MEMBER) + shapes.text(2, shapes.number(4, 1)) + shapes.text(2, shapes.number(1, 0)),
        shapes.text(1, WHO) + FULL + shapes.text(1, MEMBER[len(WHO) :]) + shapes.text(1, shapes.text(16, "N186")),
        shapes.text(2, shapes.text(2, shapes.text(1, "V28"))) * 2 + shapes.text(1, MEMBER),
        # The last of a field counts; what was given and what is zero.
        shapes.text(1, MEMBER + shapes.text(2, "V24") + shapes.number(3, 2025)),
        shapes.text(1, MEMBER + shapes.text(2, "")),
        shapes.text(1, MEMBER + shapes.number(3, 0)),
        shapes.text(1, MEMBER + shapes.number(3, (1 << 32) + 2026)),
        shapes.text(1, MEMBER + shapes.number(4, 0)),
        shapes.text(1, MEMBER + shapes.number(4, 20250201)),
        shapes.text(1, MEMBER + shapes.number(4, 19000201)),
        shapes.text(1, MEMBER + shapes.number(4, 20261231)),
        shapes.text(1, MEMBER + shapes.number(4, 20270101)),
        shapes.text(1, MEMBER + shapes.number(5, 0)),
        shapes.text(1, MEMBER + shapes.number(5, 125)),
        shapes.text(1, MEMBER + shapes.number(5, 126)),
        shapes.text(1, MEMBER + shapes.number(5, -1)),
        shapes.text(1, WHO + shapes.number(7, 0)),
        shapes.text(1, WHO + shapes.number(5, 70)),
        shapes.text(1, MEMBER + shapes.number(6, 0)),
        shapes.text(1, MEMBER + shapes.number(6, 3)),
        shapes.text(1, MEMBER + shapes.number(6, (1 << 32) + 1)),
        shapes.text(1, MEMBER + shapes.number(7, 4)),
        shapes.text(1, MEMBER + shapes.number(11, 1) + shapes.number(12, 1)),
        shapes.text(1, MEMBER + shapes.number(11, 1) + shapes.number(12, 1) + shapes.number(11, 0)),
        shapes.text(1, MEMBER + shapes.number(8, 1 << 40) + shapes.number(15, 2)),
        shapes.text(1, MEMBER + shapes.number(17, 1) + shapes.number(18, 1)),
        shapes.text(1, MEMBER + shapes.number(19, 1)),
        shapes.text(1, MEMBER + shapes.text(20, "é")),
        shapes.text(1, MEMBER + shapes.text(2, "RXHCC_V08_T") + shapes.number(21, 0)),
        shapes.text(1, MEMBER + shapes.text(2, "RXHCC_V08_T") + shapes.number(21, 1)),
        shapes.text(1, MEMBER + shapes.text(2, "ESRD_V21") + shapes.number(23, 2)),
        shapes.text(1, MEMBER + shapes.text(2, "ESRD_V24") + shapes.number(23, -1)),
        shapes.text(1, MEMBER + shapes.text(2, "ESRD_V24") + shapes.number(22, 1)) + FULL,
        shapes.text(1, MEMBER + shapes.text(2, "esrd-v24") + shapes.text(1, "m" * 20_000)) + FULL,
        # Known numbers, other wire types: unknown fields.
        shapes.text(1, MEMBER + shapes.text(6, b"\x02") + shapes.number(16, 1) + shapes.tag(8, 5) + b"abcd"),
        shapes.text(1, MEMBER + shapes.number(20, 1) + shapes.text(21, "x")),
        shapes.number(1, 7) + shapes.text(1, MEMBER),
        # Not codes.
        shapes.text(1, MEMBER + b"".join(shapes.text(16, code) for code in shapes.NO_CODES)) + FULL,
        # As many diagnoses as are taken, and one more.
        shapes.text(1, MEMBER + shapes.text(16, "E119") * 65_533),
        shapes.text(1, MEMBER + shapes.text(16, "E119") * 65_534),
        # Texts that are none.
        shapes.text(1, MEMBER) + shapes.text(2, shapes.text(2, shapes.text(1, b"\xff"))),
        shapes.text(1, MEMBER) + shapes.text(2, shapes.text(3, shapes.text(1, b"\xff"))),
        shapes.text(1, MEMBER) + shapes.text(2, shapes.text(3, shapes.text(2, b"\xff"))),
        # A detail that is none, no model, two answers to one question, half a blend.
        shapes.text(1, MEMBER) + shapes.text(2, shapes.number(1, 3)),
        shapes.text(2, shapes.number(1, -1)),
        shapes.text(1, MEMBER) + shapes.text(2, shapes.text(2, b"")),
        shapes.text(1, MEMBER) + shapes.text(2, shapes.text(3, b"")),
        shapes.text(2, shapes.text(3, shapes.text(1, "V28") + shapes.fixed(2, 1.0)) + shapes.number(4, 1)),
        shapes.text(2, shapes.text(3, shapes.text(1, "V28") + shapes.fixed(2, 1.0))),
        # A blend with a model that is not there.
        shapes.text(1, MEMBER)
        + shapes.text(
            2, shapes.text(3, shapes.text(1, "V28")) + shapes.text(3, shapes.text(1, "V9") + shapes.fixed(2, 1.0))
        ),
        # A factor for the payment score of nobody, and options too large to be remembered.
        shapes.text(1, MEMBER) + shapes.text(2, shapes.text(2, shapes.text(1, "V" * 3000) + shapes.fixed(2, 1.5))),
    ],
)
def test_corners(services: Services, raw: bytes) -> None:
    check(services, raw)


@pytest.mark.parametrize(
    ("message", "wrap"),
    [
        (Member, lambda raw: shapes.text(1, MEMBER + raw)),
        (scoring_pb2.HccOptions, lambda raw: shapes.text(2, raw)),
        (scoring_pb2.PaymentFactors, lambda raw: shapes.text(2, shapes.text(2, shapes.text(1, "V28") + raw))),
        (scoring_pb2.BlendWeight, lambda raw: shapes.text(2, shapes.text(3, shapes.text(1, "V28") + raw))),
    ],
)
def test_every_field_is_known(services: Services, message: Any, wrap: Callable[[bytes], bytes]) -> None:
    """A text that the reader did not know would not be checked, and a number that it did not know would not count."""
    for field in message.DESCRIPTOR.fields:
        for value in (b"\xff", b"", b"\x0a\x01\xff"):
            check(services, wrap(shapes.text(field.number, value)))
        for value in (0, 1, 2, 3, 70, -1, 19500101, 1 << 40):
            check(services, wrap(shapes.number(field.number, value)))
        check(services, wrap(shapes.fixed(field.number, 0.5)))


@pytest.mark.parametrize("depth", [97, 98, 99, 100, 101])
@pytest.mark.parametrize("field", [1, 30])
def test_groups_within_groups(services: Services, depth: int, field: int) -> None:
    groups = shapes.tag(field, shapes.GROUP) * depth + shapes.tag(field, shapes.END_GROUP) * depth
    for raw in (
        groups,
        shapes.text(1, groups),
        shapes.text(2, groups),
        shapes.text(2, shapes.text(2, shapes.text(1, "V28") + groups)),
        shapes.text(2, shapes.text(3, shapes.text(1, "V28") + groups)),
    ):
        check(services, raw)


def test_many_models_and_years(services: Services) -> None:
    """More than are remembered while reading."""
    names = ("V24", "V28", "RXHCC_V08_T", "RXHCC_V08_X", "rxhcc_v08_x")
    members = [
        Member(model=f"{name}{'' if i % 4 else i}", payment_year=2018 + i % 11, age=i % 126, sex=1 + i % 2, orec=i % 4)  # type: ignore[arg-type]
        for i in range(600)
        for name in names
    ]
    got = check(services, Request(members=members).SerializeToString())
    scored = [not result.HasField("error") for result in Response.FromString(got).results]
    assert 300 < sum(scored) < 2400


def test_a_batch_too_large(store: Path) -> None:
    services = Services(engine.open(store), ServerConfig(max_items=2))
    got, expected = wire_check.scores(services, shapes.text(1, MEMBER) * 3 + shapes.text(2, shapes.number(1, 7)))
    assert got == expected
    assert got[0][0] == "BATCH_TOO_LARGE"


def test_without_models(store: Path) -> None:
    services = Services(engine.open(store, releases=["msdrg/43.1"]), ServerConfig())
    assert Response.FromString(check(services, shapes.text(1, MEMBER))).results[0].error.code == "UNKNOWN_SYSTEM"


def test_one_model_of_a_blend(store: Path) -> None:
    """The year's blend is left out where the other model is not there, and one that was asked for is an error."""
    services = Services(engine.open(store, releases=["cmshcc/v28-2025"]), ServerConfig())
    raw = shapes.text(1, MEMBER + shapes.number(3, 2025))
    [result] = Response.FromString(check(services, raw)).results
    assert result.scores
    assert not result.HasField("blend")
    parts = [shapes.text(1, name) + shapes.fixed(2, 0.5) for name in ("V28", "V24")]
    asked = raw + shapes.text(2, b"".join(shapes.text(3, part) for part in parts))
    assert Response.FromString(check(services, asked)).results[0].error.code == "UNKNOWN_MODEL"


def test_a_pack_that_cannot_be_used(store: Path, tmp_path: Path) -> None:
    pack = tmp_path / "cmshcc" / "v28-2026"
    shutil.copytree(store / "cmshcc" / "v28-2026", pack)
    rules = (pack / "rule.npy").read_bytes()
    (pack / "rule.npy").unlink()
    (pack / "rule.npy").write_bytes(rules[:-1] + bytes([rules[-1] ^ 1]))
    services = Services(engine.open(tmp_path), ServerConfig())
    [result] = Response.FromString(check(services, shapes.text(1, MEMBER))).results
    assert result.error.code == "PACK_CORRUPT"
    assert str(tmp_path) not in result.error.message


# --- what is kept between requests ----------------------------------------------------------------------------------


def test_another_library_answers_at_once_and_the_one_before_it_goes(store: Path) -> None:
    services = Services(engine.open(store, releases=["cmshcc/v28-2026"]), ServerConfig())
    raw = shapes.text(1, MEMBER + shapes.number(3, 2025))
    assert Response.FromString(check(services, shapes.text(1, MEMBER) + FULL)).results[0].scores
    assert Response.FromString(check(services, raw)).results[0].HasField("error")
    before = weakref.ref(services.library)
    scorer = weakref.ref(services.library.hcc_scorer("V28", 2026))
    services.library = engine.open(store, releases=["cmshcc/v28-2025"])
    gc.collect()
    assert before() is None
    assert scorer() is None
    assert Response.FromString(check(services, raw)).results[0].release == "cmshcc/v28-2025"
    assert Response.FromString(check(services, shapes.text(1, MEMBER))).results[0].HasField("error")


def test_options_are_not_kept_without_end(services: Services) -> None:
    """Nor mixed up."""
    for i in range(300):
        options = shapes.text(2, shapes.text(1, "V28") + shapes.fixed(2, (100 + i) / 100))
        check(services, shapes.text(1, MEMBER) + shapes.text(2, options))
    assert len(services._hcc_wire._plans or ()) <= 64


def test_threads_share_what_is_kept(store: Path, hcc_sample: Any) -> None:
    services = Services(engine.open(store), ServerConfig())
    request = Request(members=[Member(**member) for member in hcc_sample.claims], options={"detail": 2})  # type: ignore[arg-type]
    raw = request.SerializeToString()
    expected = services.batch_score_hcc(request, Facts()).SerializeToString()
    found: list[bytes | None] = []
    threads = [
        threading.Thread(
            target=lambda: found.extend(services.from_bytes()["BatchScoreHcc"](raw, Facts()) for _ in range(5))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 20


# --- misuse ---------------------------------------------------------------------------------------------------------


def test_misuse_of_requests_is_refused(services: Services) -> None:
    request = HccRequest(shapes.text(1, MEMBER))
    with pytest.raises(TypeError):
        request.__init__(b"")  # type: ignore[misc]
    with pytest.raises(ValueError, match="1 choices"):
        request.answer([], False, list)
    with pytest.raises(TypeError):
        request.answer(["V28"], False, list)  # type: ignore[list-item]
    with pytest.raises(TypeError):
        request.answer([HccChoice.__new__(HccChoice)], False, list)
    broken: list[Callable[[Any], Any]] = [lambda members: [], lambda members: [1], lambda members: None]
    for other in broken:
        with pytest.raises((TypeError, ValueError)):
            request.answer([None], False, other)
    with pytest.raises(KeyError):
        answer_member(shapes.text(1, MEMBER), {})
    with pytest.raises(TypeError):
        answer_member(shapes.text(1, MEMBER), {b"": {("V28", 2026): "V28"}})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="message"):
        answer_member(b"\x0a", {})
    assert HccRequest(b"", True).answer([], True, list) == (b"", set())


def test_misuse_of_scorers_is_refused(services: Services) -> None:
    scorer = services.library.hcc_scorer("V28", 2026)
    services.from_bytes()["BatchScoreHcc"](shapes.text(1, MEMBER), Facts())
    encoded = services._hcc_wire._encoded[scorer]
    factors = np.zeros((2, 32), np.int32)
    with pytest.raises(ValueError, match="texts for every"):
        EncodedScorer(scorer.core, 0, b"", [], [], [], [], [], [], [])
    with pytest.raises(TypeError):
        encoded.__init__(scorer.core, 0, b"", [], [], [], [], [], [], [])  # type: ignore[misc]
    with pytest.raises(ValueError, match="factors"):
        HccChoice("", encoded, factors[:, :31].copy())
    with pytest.raises(ValueError, match="factors"):
        HccChoice("", encoded, factors, encoded)
    with pytest.raises(ValueError, match="every output"):
        HccChoice("", encoded, factors, encoded, factors, 1, [0])
    with pytest.raises(IndexError):
        HccChoice("", encoded, factors, encoded, factors, 1, [len(scorer.segments)] * len(scorer.segments))
    with pytest.raises(TypeError):
        HccChoice("", EncodedScorer.__new__(EncodedScorer), factors)
    choice = HccChoice("", encoded, factors)
    with pytest.raises(TypeError):
        choice.__init__("", encoded, factors)  # type: ignore[misc]


@pytest.mark.parametrize("method", ["ScoreHcc", "BatchScoreHcc"])
def test_what_is_no_message_is_refused_over_the_wire(address: str, method: str) -> None:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(f"/codeset.v1.GroupingService/{method}")(b"\x0a\x05", timeout=30)
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
