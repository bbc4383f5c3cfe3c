"""The client's compiled encoder and decoder do what the generated classes do."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
import wire_shapes as shapes
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_harness import ROOT, running

import engine.drg
from engine import errors
from engine._pb.codeset.v1 import catalog_pb2, grouping_pb2, terminology_pb2
from engine.client import AsyncClient, Client, _compiled, _fast, to_dict
from engine.client._batches import DRG, Chunk, Job, Limits, Rows
from engine.client._requests import DICTS, drg_job

Result = grouping_pb2.DrgResult
Response = grouping_pb2.BatchGroupDrgResponse
MANY = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
RANDOM = st.randoms(use_true_random=False)

TEXT = st.one_of(
    st.sampled_from(["", "I130", "43.1", "YN"]), st.text(max_size=8), st.just("\ud800"), st.just("x" * 300)
)
NUMBER = st.one_of(st.integers(-5, 130), st.integers(), st.booleans(), st.floats(allow_nan=False), st.just(None))
SEX = st.one_of(st.sampled_from(["SEX_MALE", "FEMALE", "UNSPECIFIED", "?", "\ud800", *engine.drg.Sex]), NUMBER)
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
    st.sampled_from([{"kode": 1}, {"\ud800": 1}]),
    st.just({1: 2}),
    st.just(None),
    st.just(["A"]),
    st.builds(engine.drg.InpatientClaim),
    st.builds(grouping_pb2.InpatientClaim, claim_id=st.just("m"), diagnoses=st.just(["I130"])),
)


@contextmanager
def compiled(fast: Any) -> Iterator[None]:
    """Have ``fast`` in place of the compiled module."""
    used, _compiled.fast = _compiled.fast, fast
    try:
        yield
    finally:
        _compiled.fast = used


def chunks(fast: Any, job: Job, items: int, size: int) -> list[Chunk]:
    with compiled(fast):
        return list(job.chunks(Limits(items, size)))


def drg_dicts(raw: bytes, fast: Any = _fast) -> Any:
    with compiled(fast):
        return DICTS.read(DRG, raw)


@MANY
@given(st.lists(CLAIM, max_size=12), st.integers(1, 5), st.sampled_from([1, 40, 1 << 20]), st.booleans())
def test_requests_are_those_of_the_generated_classes(claims: Any, items: int, size: int, with_options: bool) -> None:
    job = drg_job(claims, {"detail": "DRG"} if with_options else None)
    assert chunks(_fast, job, items, size) == chunks(None, job, items, size)


def test_requests_of_reference_claims_are_the_same_bytes(sample: Any) -> None:
    job = drg_job(sample.claims, None)
    assert chunks(_fast, job, 700, 1 << 20) == chunks(None, job, 700, 1 << 20)


def test_claims_are_taken_as_they_are_needed() -> None:
    taken = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal taken
        while True:
            taken += 1
            yield {"claim_id": str(taken)}

    made = drg_job(source(), None).chunks(Limits(10, 1 << 20))
    next(made)
    next(made)
    assert taken == 20


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
    assert drg_dicts(raw) == expected
    other = shapes.scrambled(rng, Response.DESCRIPTOR, raw)
    assert through_messages(other) == drg_dicts(other)
    broken = shapes.damaged(rng, other)
    assert outcome(lambda: drg_dicts(broken)) == through_messages(broken)


@MANY
@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_the_generated_classes_read_them(raw: bytes) -> None:
    assert outcome(lambda: drg_dicts(raw)) == through_messages(raw)


def test_the_merged_is_the_last_said() -> None:
    grouping = shapes.text(3, shapes.number(2, 1) + shapes.text(8, "a")) + shapes.text(3, shapes.number(2, 5))
    raw = shapes.text(1, grouping + shapes.text(3, shapes.text(10, shapes.text(1, "2026"))))
    assert drg_dicts(raw) == through_messages(raw)
    assert drg_dicts(raw)[0]["initial_grouping"]["drg"] == 5
    assert drg_dicts(raw)[0]["initial_grouping"]["mdc_title"] == "a"


CLAIMS: list[Any] = [
    {"claim_id": str(i), "version": "43.1", "diagnoses": ["A000"], "poa": "Y" * (1 + i % 7 // 6)} for i in range(50)
] + [{"claim_id": "bad", "sex": "?"}, None, {"claim_id": "x", "version": "1.0"}]


@pytest.mark.parametrize("accelerated", [True, False])
def test_dicts_over_the_wire(accelerated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not accelerated:
        monkeypatch.setattr(_compiled, "fast", None)
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


@pytest.mark.parametrize("method", ["iter_drg", "iter_drg_dicts"])
def test_a_response_that_is_none_is_said_to_be(method: str, monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    read = Rows.read
    monkeypatch.setattr(Rows, "read", lambda form, batch, raw: read(form, batch, raw + b"\x0a"))
    with pytest.raises(errors.RpcFailedError, match="no response of this API"):
        list(getattr(client, method)([{"version": "43.1"}]))
    # An answer too many would be that of another claim.
    monkeypatch.setattr(Rows, "read", lambda form, batch, raw: read(form, batch, raw + b"\x0a\x00"))
    with pytest.raises(errors.RpcFailedError, match="expected 1 answers, got 2"):
        list(getattr(client, method)([{"version": "43.1"}]))


def test_without_the_compiled_module_the_client_works() -> None:
    code = """
import sys
sys.modules["engine.client._fast"] = None
from engine.client import _batches, _compiled, _requests
assert _compiled.fast is None
print([chunk.size for chunk in _requests.drg_job([{"claim_id": "a"}] * 3, None).chunks(_batches.Limits(2, 1000))])
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
