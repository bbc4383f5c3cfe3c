"""The client's compiled encoder and decoder do what the generated classes do."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
import wire_shapes as shapes
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_harness import ROOT, running

import engine.drg
from engine import errors
from engine._pb.codeset.v1 import catalog_pb2, grouping_pb2, terminology_pb2
from engine.client import AsyncClient, Client, _fast, _messages, to_dict

Result = grouping_pb2.DrgResult
Response = grouping_pb2.BatchGroupDrgResponse
MANY = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
RANDOM = st.randoms(use_true_random=False)

TEXT = st.one_of(
    st.sampled_from(["", "I130", "43.1", "YN"]), st.text(max_size=8), st.just("\ud800"), st.just("x" * 300)
)
NUMBER = st.one_of(st.integers(-5, 130), st.integers(), st.booleans(), st.floats(allow_nan=False), st.just(None))
SEX = st.one_of(st.sampled_from(["SEX_MALE", "FEMALE", "UNSPECIFIED", "?", *engine.drg.Sex]), NUMBER)
CODES = st.one_of(st.lists(TEXT, max_size=4), st.lists(TEXT, max_size=2).map(tuple), TEXT, st.none(), st.lists(NUMBER))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "claim_id": TEXT,
    "version": TEXT,
    "discharge_date": NUMBER,
    "age": NUMBER,
    "sex": SEX,
    "discharge_status": NUMBER,
    "hospital_status": st.one_of(st.sampled_from(["EXEMPT", "HOSPITAL_STATUS_UNKNOWN", "MALE"]), NUMBER),
    "length_of_stay": NUMBER,
    "admit_diagnosis": TEXT,
    "diagnoses": CODES,
    "poa": TEXT,
    "procedures": CODES,
}
CLAIM = st.one_of(
    st.fixed_dictionaries({}, optional=FIELDS),
    st.fixed_dictionaries({"claim_id": st.just("c"), "diagnoses": st.lists(st.text("AB01.", max_size=7), max_size=9)}),
    st.just({"kode": 1}),
    st.just({1: 2}),
    st.just(None),
    st.just(["A"]),
    st.builds(engine.drg.InpatientClaim),
    st.builds(grouping_pb2.InpatientClaim, claim_id=st.just("m"), diagnoses=st.just(["I130"])),
)


@pytest.fixture
def without_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_messages, "_fast", None)


def chunks(fast: Any, *arguments: Any) -> list[tuple[Any, int, Any]]:
    """Return the chunks as messages, made with ``fast`` in place of the compiled module."""
    used, _messages._fast = _messages._fast, fast
    try:
        made = list(_messages.drg_chunks(*arguments))
    finally:
        _messages._fast = used
    read = grouping_pb2.BatchGroupDrgRequest.FromString
    return [(read(c.request) if isinstance(c.request, bytes) else c.request, c.size, c.errors) for c in made]


@MANY
@given(st.lists(CLAIM, max_size=12), st.integers(1, 5), st.sampled_from([1, 40, 1 << 20]), st.booleans())
def test_requests_are_those_of_the_generated_classes(claims: Any, items: int, size: int, with_options: bool) -> None:
    options = grouping_pb2.DrgOptions(detail="DRG_DETAIL_DRG") if with_options else None
    assert chunks(_fast, claims, items, 1 << 20, options) == chunks(None, claims, items, 1 << 20, options)
    # Where a request is full is a matter of a few bytes; what is in it is not.
    fast, slow = (chunks(which, claims, items, size, options) for which in (_fast, None))
    assert [claim for request, _, _ in fast for claim in request.claims] == [
        claim for request, _, _ in slow for claim in request.claims
    ]
    assert sum(n for _, n, _ in fast) == sum(n for _, n, _ in slow) == len(claims)


def test_requests_of_reference_claims_are_the_same_bytes(sample: Any) -> None:
    def raw() -> list[bytes]:
        made = [chunk.request for chunk in _messages.drg_chunks(sample.claims, 700, 1 << 20, None)]
        return [request if isinstance(request, bytes) else request.SerializeToString() for request in made]

    fast = raw()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_messages, "_fast", None)
        assert raw() == fast


def test_claims_are_taken_as_they_are_needed() -> None:
    taken = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal taken
        while True:
            taken += 1
            yield {"claim_id": str(taken)}

    made = _messages.drg_chunks(source(), 10, 1 << 20, None)
    next(made)
    next(made)
    assert taken == 20


def scrambled(rng: Random, descriptor: Descriptor, raw: bytes) -> bytes:
    """Encode the same message as another encoder might: in other order, in pieces, not packed, with unknown fields."""
    fields: list[tuple[int, bytes]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(raw):
        number, kind = divmod(varint(), 8)
        if kind == shapes.VARINT:
            fields.append((number, shapes.number(number, varint(), rng.choice([0, 0, 1]))))
            continue
        size = varint()
        data = raw[at : at + size]
        at += size
        field = descriptor.fields_by_number[number]
        if field.message_type is not None:
            data = scrambled(rng, field.message_type, data)
            if not field.is_repeated and rng.random() < 0.3:
                # A piece that another one replaces or completes.
                half = field.message_type.name
                first = b"" if half != "Grouping" else shapes.number(2, 7) + shapes.text(8, "old")
                keeps = half != "Grouping" or (b"\x10" in data and b"\x42" in data)
                fields.append((number, shapes.text(number, first if keeps else b"")))
        elif field.enum_type is not None:
            values = list(data)
            if rng.random() < 0.5:
                fields += [(number, shapes.number(number, value)) for value in values]
                continue
        fields.append((number, shapes.text(number, data, rng.choice([0, 0, 2]))))
    if rng.random() < 0.5:
        # Fields in any order, those of one number in theirs.
        order = [number for number, _ in fields]
        rng.shuffle(order)
        queues: dict[int, list[bytes]] = {}
        for number, data in fields:
            queues.setdefault(number, []).append(data)
        fields = [(number, queues[number].pop(0)) for number in order]
    for _ in range(rng.choice([0, 0, 1])):
        fields.insert(rng.randrange(len(fields) + 1), (0, shapes.text(900, b"?")))
    return b"".join(data for _, data in fields)


def any_result(rng: Random) -> Any:
    def grouping() -> Any:
        return grouping_pb2.Grouping(
            mdc=rng.randrange(26),
            drg=rng.choice([0, 311, 999, -1]),
            severity=rng.choice([0, 1, 4, 77, -5]),
            mdc_title=rng.choice(["", "é", "x" * 200]),
            return_code=rng.choice([0, 1, 9]),
            drg_title=rng.choice(["", "TITLE"]),
            weight=grouping_pb2.DrgWeight(release="2026", weight_before_cap="") if rng.random() < 0.3 else None,
        )

    result = Result(claim_id=rng.choice(["", "c", "日"]), version="43.1", hac_categories=rng.choice([0, 3, -1]))
    if rng.random() < 0.2:
        result.error.code = "INVALID_FIELD"
        return result
    if rng.random() < 0.9:
        result.initial_grouping.CopyFrom(grouping())
        result.final_grouping.CopyFrom(grouping())
    for _ in range(rng.randrange(3)):
        hacs = [grouping_pb2.Hac(name="HAC05", status=rng.randrange(7)) for _ in range(rng.randrange(3))]  # type: ignore[arg-type]
        result.diagnoses.add(code=rng.choice(shapes.CODES), recognized=rng.random() < 0.5, hacs=hacs)
    for _ in range(rng.randrange(3)):
        result.procedures.add(code="0DB68ZX", hac_usage=[rng.randrange(9) for _ in range(rng.randrange(4))])
    return result


def outcome(decode: Callable[[], Any]) -> Any:
    try:
        return decode()
    except (DecodeError, ValueError):
        return "no protobuf"


def through_messages(raw: bytes) -> Any:
    return outcome(lambda: [to_dict(result) for result in Response.FromString(raw).results])


@MANY
@given(RANDOM)
def test_responses_are_read_as_the_generated_classes_read_them(rng: Random) -> None:
    message = Response(results=[any_result(rng) for _ in range(rng.randrange(4))])
    expected = [to_dict(result) for result in message.results]
    raw = message.SerializeToString()
    assert _messages.drg_dicts(raw) == expected
    other = scrambled(rng, Response.DESCRIPTOR, raw)
    assert through_messages(other) == _messages.drg_dicts(other)
    broken = shapes.damaged(rng, other)
    assert outcome(lambda: _messages.drg_dicts(broken)) == through_messages(broken)


@MANY
@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_the_generated_classes_read_them(raw: bytes) -> None:
    assert outcome(lambda: _messages.drg_dicts(raw)) == through_messages(raw)


def test_the_merged_is_the_last_said() -> None:
    grouping = shapes.text(3, shapes.number(2, 1) + shapes.text(8, "a")) + shapes.text(3, shapes.number(2, 5))
    raw = shapes.text(1, grouping + shapes.text(3, shapes.text(10, shapes.text(1, "2026"))))
    assert _messages.drg_dicts(raw) == through_messages(raw)
    assert _messages.drg_dicts(raw)[0]["initial_grouping"]["drg"] == 5
    assert _messages.drg_dicts(raw)[0]["initial_grouping"]["mdc_title"] == "a"


CLAIMS: list[Any] = [
    {"claim_id": str(i), "version": "43.1", "diagnoses": ["A000"], "poa": "Y" * (1 + i % 7 // 6)} for i in range(50)
] + [{"claim_id": "bad", "sex": "?"}, None, {"claim_id": "x", "version": "1.0"}]


@pytest.mark.parametrize("accelerated", [True, False])
def test_dicts_over_the_wire(accelerated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not accelerated:
        monkeypatch.setattr(_messages, "_fast", None)
    with running(max_items=20) as address:
        with Client(address) as client:
            expected = [to_dict(result) for result in client.group_drg_many(CLAIMS)]
            assert list(client.iter_drg_dicts(CLAIMS)) == expected

        async def again() -> list[Any]:
            async with AsyncClient(address) as client:
                return [result async for result in client.iter_drg_dicts(CLAIMS)]

        assert asyncio.run(again()) == expected
    assert expected[50]["error"]["field"] == "sex"
    assert expected[6]["error"]["code"] == "POA_LENGTH_MISMATCH"


def test_a_response_that_is_none_is_said_to_be(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    from engine.client import _requests

    def broken(raw: bytes) -> Any:
        return _messages.drg_dicts(raw + b"\x0a")

    monkeypatch.setattr("engine.client.sync.DRG_DICTS", _requests.DRG_DICTS._replace(results=broken))
    with pytest.raises(errors.RpcFailedError, match="no response of this API"):
        list(client.iter_drg_dicts([{"version": "43.1"}]))


def test_without_the_compiled_module_the_client_works() -> None:
    code = """
import sys
sys.modules["engine.client._fast"] = None
from engine.client import _messages
assert _messages._fast is None
print([chunk.size for chunk in _messages.drg_chunks([{"claim_id": "a"}] * 3, 2, 1000, None)])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert json.loads(done.stdout) == [2, 1]


def test_misuse_is_refused() -> None:
    shape = _fast.Shape(grouping_pb2.InpatientClaim.DESCRIPTOR)
    with pytest.raises(TypeError):
        shape.__init__(grouping_pb2.InpatientClaim.DESCRIPTOR)
    with pytest.raises(ValueError, match="field number"):
        _fast.Writer(shape, 16, b"")
    with pytest.raises(NotImplementedError):
        _fast.Shape(catalog_pb2.Release.DESCRIPTOR)
    writer = _fast.Writer(shape, 1, b"")
    assert writer.fill([{"claim_id": "a"}], 7, 100) == 7
    assert writer.fill([{"claim_id": "a"}], -1, 100) == -1
    assert writer.take() == b""
    made = _fast.Shape.__new__(_fast.Shape)
    with pytest.raises((TypeError, ValueError)):
        made.decode(b"")
    blank = _fast.Writer.__new__(_fast.Writer)
    with pytest.raises((TypeError, ValueError)):
        blank.fill([{}], 0, 10)


def test_other_messages_too() -> None:
    shape = _fast.Shape(terminology_pb2.CodeValidation.DESCRIPTOR)
    message = terminology_pb2.CodeValidation(
        code="A00", replaced_by=["A01", ""], status="CODE_STATUS_VALID", valid=True
    )
    assert shape.decode(message.SerializeToString()) == to_dict(message)
