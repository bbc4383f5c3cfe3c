"""The path from bytes to bytes of the code editor gives the answers of the path through the generated classes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import wire_check
import wire_shapes as shapes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import engine
from engine._pb.codeset.v1 import editing_pb2, grouping_pb2
from engine._wire import InpatientRequest
from engine._wire_mce import EditRequest, EncodedEditor
from engine.server import ServerConfig
from engine.server.calls import Facts
from engine.server.services import Services

Request = grouping_pb2.BatchEditClaimsRequest
Response = grouping_pb2.BatchEditClaimsResponse
RANDOM = st.randoms(use_true_random=False)
MANY = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def services(store: Path) -> Services:
    return Services(engine.open(store), ServerConfig(max_items=50_000))


def check(services: Services, raw: bytes, answer: Callable[..., Any] = wire_check.edits) -> Any:
    got, expected = answer(services, raw)
    assert got == expected
    return got[0]


@pytest.mark.parametrize("group", [False, True])
def test_every_reference_claim(services: Services, mce_golden: Any, plain_edits: Any, group: bool) -> None:
    for start in range(0, len(mce_golden.claims), 5000):
        request = Request(editor_release="43.1", group=group)
        for claim in mce_golden.claims[start : start + 5000]:
            request.claims.add(**claim)
        raw = request.SerializeToString()
        assert services.from_bytes()["BatchEditClaims"](raw, Facts()) is not None
        response = Response.FromString(check(services, raw))
        answers = mce_golden.answers[start : start + 5000]
        assert [result.edit_type for result in response.results] == [
            editing_pb2.EditType.Value(f"EDIT_TYPE_{answer['edit_type']}") for answer in answers
        ]
        assert len(response.drg_results) == (len(answers) if group else 0)


def test_one_by_one(services: Services, mce_sample: Any) -> None:
    for i, claim in enumerate(mce_sample.claims[:300]):
        request = grouping_pb2.EditClaimRequest(claim=claim, group=i % 3 == 0)
        raw = request.SerializeToString()
        if i % 3:
            assert services.from_bytes()["EditClaim"](raw, Facts()) is not None
        check(services, raw, wire_check.edit)


@MANY
@given(RANDOM)
def test_any_request(services: Services, rng: Random) -> None:
    check(services, shapes.edit_request(rng))


@MANY
@given(RANDOM)
def test_any_claim_alone(services: Services, rng: Random) -> None:
    check(services, shapes.edit_request(rng, [0, 1, 1, 1, 1, 2]), wire_check.edit)


@MANY
@given(RANDOM, st.sampled_from([wire_check.edits, wire_check.edit]))
def test_any_damage(services: Services, rng: Random, answer: Callable[..., Any]) -> None:
    check(services, shapes.damaged(rng, shapes.edit_request(rng)), answer)


@MANY
@given(st.binary(max_size=60), st.sampled_from([wire_check.edits, wire_check.edit]))
def test_any_bytes(services: Services, raw: bytes, answer: Callable[..., Any]) -> None:
    check(services, raw, answer)


@MANY
@given(RANDOM, st.data())
def test_reference_claims_mutated(services: Services, mce_sample: Any, rng: Random, data: Any) -> None:
    """Claims that raise edits, with a field replaced, taken away or added."""
    claims = data.draw(st.lists(st.sampled_from(mce_sample.claims), min_size=1, max_size=4))
    raw = b"".join(
        shapes.text(1, grouping_pb2.InpatientClaim(**claim).SerializeToString() + rng.choice(MUTATIONS))
        for claim in claims
    )
    check(services, raw + shapes.text(3, shapes.unwanted_edits(rng)) + shapes.number(4, rng.randrange(2)))


MUTATIONS = [
    b"",
    shapes.number(3, 20041001) + shapes.number(13, 9),
    shapes.number(3, 20260231),
    shapes.number(3, 0),
    shapes.number(4, 200),
    shapes.number(5, 0),
    shapes.number(5, 3),
    shapes.number(5, 4),
    shapes.number(6, -5),
    shapes.number(7, 9),
    shapes.number(8, 2) + shapes.text(12, "5A1955Z"),
    shapes.text(10, "0 0"),
    shapes.text(10, "ß"),
    shapes.text(11, "YYY"),
    shapes.text(12, "123456789"),
]


def test_the_shapes_are_worth_it(services: Services) -> None:
    """Most of them edit claims, on both ways; some do not; and damage is mostly refused but not always."""
    rng = Random(4711)
    kinds = dict.fromkeys(
        ["answered", "item errors", "edits", "groups", "through messages", "refused", "no protobuf"], 0
    )
    for i in range(900):
        raw = shapes.edit_request(rng)
        if i % 3 == 0:
            raw = shapes.damaged(rng, raw)
        got = check(services, raw)
        if got == "no protobuf":
            kinds["no protobuf"] += 1
            continue
        if isinstance(got, tuple):
            kinds["refused"] += 1
            continue
        response = Response.FromString(got)
        failed = any(result.HasField("error") for result in response.results)
        kinds["item errors" if failed else "answered"] += 1
        kinds["edits"] += any(result.edits for result in response.results)
        kinds["groups"] += any(result.HasField("final_grouping") for result in response.drg_results)
        kinds["through messages"] += (
            len(response.results) == 1 and services.from_bytes()["EditClaim"](raw, Facts()) is None
        )
    assert min(kinds.values()) > 20, kinds


CLAIM = (
    shapes.number(3, 20260401)
    + b"".join(shapes.number(field, 1) for field in (4, 5, 6, 8))
    + shapes.text(10, "I130")
    + shapes.text(10, "I5023")
    + shapes.text(12, "02HK0KZ")
)
WITHOUT_AGE = shapes.number(3, 20260401) + shapes.number(5, 1) + shapes.number(6, 1) + shapes.text(10, "I130")


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_truncated(services: Services, mce_sample: Any, cut: int) -> None:
    raw = Request(claims=[grouping_pb2.InpatientClaim(**claim) for claim in mce_sample.claims[:3]]).SerializeToString()
    check(services, raw[:-cut])


@pytest.mark.parametrize("answer", [wire_check.edits, wire_check.edit])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        shapes.text(1, b""),
        shapes.text(1, CLAIM) + shapes.text(1, shapes.number(4, 7)),
        shapes.text(1, CLAIM + shapes.number(3, 20260231)),
        shapes.text(1, CLAIM + shapes.number(4, 0)),
        shapes.text(1, CLAIM + shapes.number(5, (1 << 32) + 2)),
        shapes.text(1, CLAIM + shapes.number(5, 4)),
        shapes.text(1, CLAIM + shapes.number(6, -1)),
        shapes.text(1, CLAIM + shapes.number(8, -1)),
        shapes.text(1, CLAIM + shapes.text(9, " ")),
        shapes.text(1, CLAIM + shapes.text(9, "I130\0")),
        shapes.text(1, CLAIM + shapes.text(10, "i13.0")),
        shapes.text(1, CLAIM + shapes.text(10, "\N{LATIN SMALL LETTER DOTLESS I}130")),
        shapes.text(1, CLAIM + shapes.text(10, "123456789") * 2),
        shapes.text(1, CLAIM + shapes.number(13, 9)),
        shapes.text(1, CLAIM + shapes.text(13, "9")),
        shapes.text(1, CLAIM + shapes.text(11, "YN")),
        shapes.text(1, CLAIM + shapes.text(11, "YNU")) + shapes.number(4, 1),
        shapes.text(1, CLAIM + shapes.text(2, "9.9")) + shapes.number(4, 1),
        # More than 127 of an edit, and an answer whose length takes three bytes.
        shapes.text(1, CLAIM + shapes.text(10, "I130") * 3000) + shapes.number(4, 1),
        shapes.text(1, CLAIM + shapes.text(12, "Z") * 65_536),
        shapes.text(1, CLAIM + shapes.text(10, "Z") * 65_536) + shapes.number(4, 1),
        shapes.text(1, WITHOUT_AGE),
        shapes.text(1, WITHOUT_AGE) + shapes.number(4, 1),
        shapes.text(1, CLAIM) + shapes.text(2, "43.1"),
        shapes.text(1, CLAIM) + shapes.text(2, "43.1") + shapes.text(2, ""),
        shapes.text(1, CLAIM) + shapes.text(2, "9.9"),
        shapes.text(1, CLAIM) + shapes.text(2, b"\xff"),
        shapes.text(1, CLAIM) + shapes.text(3, shapes.text(2, b"\x01\x09")) + shapes.text(3, shapes.number(1, 9)),
        shapes.text(1, CLAIM) + shapes.text(3, shapes.text(2, b"")),
        shapes.text(1, CLAIM) + shapes.text(3, shapes.text(2, b"\x81")),
        shapes.text(1, CLAIM) + shapes.text(3, shapes.number(2, 0)),
        shapes.text(1, CLAIM) + shapes.text(3, shapes.number(2, 31)),
        shapes.text(1, CLAIM) + shapes.text(3, shapes.number(2, (1 << 32) + 1)),
        shapes.text(1, CLAIM) + shapes.number(4, 1 << 63),
        shapes.text(1, CLAIM) + shapes.number(4, 1) + shapes.number(4, 0),
        shapes.text(1, CLAIM) + shapes.number(4, 1) + shapes.text(5, shapes.number(3, 1)),
        shapes.text(1, CLAIM) + shapes.number(4, 1) + shapes.text(5, shapes.number(3, 7)),
        shapes.text(1, CLAIM) + shapes.text(5, shapes.number(3, 7)),
        shapes.text(5, shapes.number(3, 7)) + shapes.number(4, 1),
    ],
)
def test_corners(services: Services, raw: bytes, answer: Callable[..., Any]) -> None:
    check(services, raw, answer)


@pytest.mark.parametrize("depth", [98, 99, 100, 101])
@pytest.mark.parametrize("field", [1, 13])
def test_groups_within_groups(services: Services, depth: int, field: int) -> None:
    groups = shapes.tag(field, shapes.GROUP) * depth + shapes.tag(field, shapes.END_GROUP) * depth
    for raw in (groups, shapes.text(1, groups), shapes.text(3, groups), shapes.text(5, groups)):
        check(services, raw)
        check(services, raw, wire_check.edit)


def test_a_bad_claim_leaves_the_others_alone(services: Services) -> None:
    bad = [shapes.number(5, 4), shapes.text(10, "é"), shapes.text(11, "Y")]
    raw = b"".join(shapes.text(1, CLAIM + each) + shapes.text(1, CLAIM) for each in bad) + shapes.text(1, WITHOUT_AGE)
    response = Response.FromString(check(services, raw + shapes.number(4, 1)))
    errors = [result.error.code for result in response.results]
    assert errors == ["INVALID_FIELD", "", "", "", "", "", "MISSING_FIELD"]
    assert [result.error.code for result in response.drg_results][4:] == ["POA_LENGTH_MISMATCH", "", ""]


def test_a_batch_too_large(store: Path) -> None:
    services = Services(engine.open(store), ServerConfig(max_items=2))
    assert check(services, shapes.text(1, CLAIM) * 3)[0] == "BATCH_TOO_LARGE"


def test_threads_share_an_editor(services: Services, mce_sample: Any) -> None:
    request = Request(claims=[grouping_pb2.InpatientClaim(**claim) for claim in mce_sample.claims], group=True)
    raw = request.SerializeToString()
    expected = services.from_bytes()["BatchEditClaims"](raw, Facts())
    found: list[bytes | None] = []
    threads = [
        threading.Thread(
            target=lambda: found.extend(services.from_bytes()["BatchEditClaims"](raw, Facts()) for _ in range(5))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 20


def test_misuse_is_refused(services: Services) -> None:
    core = services.library.mce_editor().core
    orders: Any = {name: [1] for name in ("principal", "secondary", "admitting", "procedures")}
    editor = EncodedEditor(core, **orders, once=0, missing=[b""] * 5)
    request = EditRequest(shapes.text(1, CLAIM))
    assert request.answer(editor)[1:] == (0, None)
    with pytest.raises(TypeError):
        request.__init__(b"")  # type: ignore[misc]
    with pytest.raises(TypeError):
        editor.__init__(core, **orders, once=0, missing=[b""] * 5)  # type: ignore[misc]
    with pytest.raises(TypeError):
        request.answer(EncodedEditor.__new__(EncodedEditor))
    with pytest.raises(ValueError, match="1 versions"):
        request.answer(editor, None, [])
    with pytest.raises(ValueError, match="from 1 to 64"):
        EncodedEditor(core, **{**orders, "principal": [65]}, once=0, missing=[b""] * 5)
    with pytest.raises(ValueError, match="5 errors"):
        EncodedEditor(core, **orders, once=0, missing=[])
    with pytest.raises(ValueError, match="not a message"):
        InpatientRequest(b"")
    odd = EditRequest(shapes.text(1, shapes.text(10, "é")))
    broken: list[Any] = [None, lambda claims: [], lambda claims: [1], lambda claims: None]
    for other in broken:
        with pytest.raises((TypeError, ValueError)):
            odd.answer(editor, other)
