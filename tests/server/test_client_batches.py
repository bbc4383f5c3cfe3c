"""All batch methods: the client's compiled encoder and decoder do what the generated classes do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import wire_shapes as shapes
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_harness import running

import engine
from engine._pb.codeset.v1 import scoring_pb2, terminology_pb2
from engine.client import AsyncClient, Client, _compiled, _fast, to_dict
from engine.client._batches import DRG, EDIT, EDIT_AND_GROUP, HCC, VALIDATION, Batch, Chunk, Columns, Limits
from engine.client._columns import wanted
from engine.client._requests import DICTS, columns_of, edit_job, hcc_job, validation_job

MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
BATCHES = {"drg": DRG, "edit": EDIT, "both": EDIT_AND_GROUP, "hcc": HCC, "codes": VALIDATION}
EACH_BATCH = pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
RANDOM = st.randoms(use_true_random=False)
TEXT = st.one_of(
    st.sampled_from(["", "E119", "V28", "20250101"]), st.text(max_size=6), st.just("\ud800"), st.just("x" * 300)
)
NUMBER = st.one_of(
    st.integers(-5, 130), st.sampled_from([0, 1, 20250101, 99991231, 99991232]), st.integers(), st.booleans(), st.none()
)
TRUTH = st.one_of(st.booleans(), st.integers(-1, 2), st.just("yes"), st.none())
CODES = st.one_of(st.lists(TEXT, max_size=4), st.lists(TEXT, max_size=2).map(tuple), TEXT, st.none(), st.lists(NUMBER))
SEX = st.one_of(st.sampled_from(["SEX_MALE", "FEMALE", "UNSPECIFIED", "?", 1]), NUMBER)


def values(message: type[Message]) -> dict[str, st.SearchStrategy[Any]]:
    """What may be given for each field, right or wrong."""

    def of(field: Any) -> st.SearchStrategy[Any]:
        if field.is_repeated:
            return CODES
        if field.enum_type is not None:
            return SEX
        return {field.CPPTYPE_STRING: TEXT, field.CPPTYPE_BOOL: TRUTH}.get(field.cpp_type, NUMBER)

    return {field.name: of(field) for field in message.DESCRIPTOR.fields}


MEMBER = st.one_of(
    st.fixed_dictionaries({}, optional=values(scoring_pb2.RiskMember)),
    st.sampled_from([None, {"kode": 1}, {1: 2}, ["A"], "E119", engine.RiskMember(member_id="d", model="V28")]),
    st.builds(scoring_pb2.RiskMember, member_id=st.just("m"), low_income=st.booleans()),
)
CODE = st.one_of(
    TEXT,
    st.fixed_dictionaries({}, optional=values(terminology_pb2.CodeToValidate)),
    st.sampled_from([None, {"kode": 1}, 5, b"A00"]),
    st.builds(terminology_pb2.CodeToValidate, code=st.just("A00"), date=st.integers(-5, 5)),
)


@contextmanager
def compiled(fast: Any) -> Iterator[None]:
    """Have ``fast`` in place of the compiled module."""
    used, _compiled.fast = _compiled.fast, fast
    try:
        yield
    finally:
        _compiled.fast = used


def chunks(fast: Any, make: Callable[[], Any], items: int, size: int) -> list[Chunk]:
    with compiled(fast):
        return list(make().chunks(Limits(items, size)))


@MANY
@given(st.lists(MEMBER, max_size=9), st.integers(1, 5), st.sampled_from([1, 40, 1 << 20]))
def test_members(members: Any, items: int, size: int) -> None:
    def make() -> Any:
        return hcc_job(members, {"detail": "FULL"})

    assert chunks(_fast, make, items, size) == chunks(None, make, items, size)


@MANY
@given(st.lists(CODE, max_size=9), st.integers(1, 5), st.sampled_from([1, 40, 1 << 20]))
def test_codes(codes: Any, items: int, size: int) -> None:
    def make() -> Any:
        return validation_job("icd10cm", codes, 20250101, "2025")

    assert chunks(_fast, make, items, size) == chunks(None, make, items, size)


def test_claims_to_edit(mce_sample: Any) -> None:
    def make() -> Any:
        return edit_job(mce_sample.claims, "43.1", {"suppress_on_principal": ["INVALID_CODE"]})

    assert chunks(_fast, make, 700, 1 << 20) == chunks(None, make, 700, 1 << 20)


def any_message(rng: Random, message: type[Message], depth: int = 0) -> Any:
    """A message with any of its fields, with values that a server may well give and others."""
    made: Any = message()
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.5 or (field.name == "error" and rng.random() < 0.7):
            continue
        count = rng.randrange(3) if field.is_repeated else 1
        for _ in range(count):
            if field.message_type is not None:
                value = any_message(rng, field.message_type._concrete_class, depth + 1)
                if field.is_repeated:
                    getattr(made, field.name).append(value)
                else:
                    getattr(made, field.name).CopyFrom(value)
                continue
            if field.enum_type is not None:
                value = rng.choice([0, 1, 2, 9, 77] if field.is_repeated else [0, 1, 2, 77, -5])
            elif field.cpp_type == field.CPPTYPE_STRING:
                value = rng.choice(["", "c", "日", "x" * 200])
            elif field.cpp_type == field.CPPTYPE_DOUBLE:
                value = rng.choice([0.0, 1.0, -0.25, 1e300, float("inf"), float("-inf"), float("nan")])
            elif field.cpp_type == field.CPPTYPE_BOOL:
                value = rng.random() < 0.5
            else:
                value = rng.choice([0, 1, 20250101, -1])
            if field.is_repeated:
                getattr(made, field.name).append(value)
            else:
                setattr(made, field.name, value)
    return made


def any_response(rng: Random, batch: Batch) -> bytes:
    made = batch.response()
    for _ in range(rng.randrange(4)):
        for field in batch.results:
            getattr(made, field).append(any_message(rng, batch.result(field)))
    return made.SerializeToString()


def leaves(message: Descriptor, depth: int = 0) -> Iterator[str]:
    """Names of all that can be a column."""
    for field in message.fields:
        if field.message_type is None:
            yield field.name
        elif depth < 4:
            for name in leaves(field.message_type, depth + 1):
                yield f"{field.name}.{name}"


def form_of(rng: Random, batch: Batch) -> Columns:
    prefixes = {"results": ""} if len(batch.results) == 1 else {"results": "a.", "drg_results": "b."}
    names = [prefixes[field] + leaf for field in batch.results for leaf in leaves(batch.result(field).DESCRIPTOR)]
    return Columns(wanted(batch.response, prefixes, rng.sample(names, rng.randint(1, min(len(names), 12)))))


def outcome(form: Any, batch: Batch, raw: bytes) -> Any:
    try:
        # As JSON, so that 1, 1.0 and true are three things.
        return json.dumps(form.read(batch, raw), sort_keys=True)
    except (DecodeError, ValueError):
        return "no protobuf"


@EACH_BATCH
@MANY
@given(RANDOM)
def test_responses(batch: Batch, rng: Random) -> None:
    raw = any_response(rng, batch)
    other = shapes.scrambled(rng, batch.response.DESCRIPTOR, raw)
    broken = shapes.damaged(rng, other)
    state = rng.getstate()
    for read in (raw, other, broken):
        found = []
        for fast in (_fast, None):
            with compiled(fast):
                rng.setstate(state)
                found.append((outcome(DICTS, batch, read), outcome(form_of(rng, batch), batch, read)))
        assert found[0] == found[1]


@EACH_BATCH
@MANY
@given(st.binary(max_size=60))
def test_any_bytes(batch: Batch, raw: bytes) -> None:
    found = []
    for fast in (_fast, None):
        with compiled(fast):
            found.append((outcome(DICTS, batch, raw), outcome(columns_of(batch, None), batch, raw)))
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    with running(engine.open(store)) as listening:
        yield listening


@pytest.mark.parametrize("accelerated", [True, False])
def test_dicts_over_the_wire(
    accelerated: bool, address: str, sample: Any, hcc_sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not accelerated:
        monkeypatch.setattr(_compiled, "fast", None)
    claims = [*sample.claims[:120], {"claim_id": "bad", "sex": "?"}, None, *sample.claims[120:130]]
    members = [*hcc_sample.claims[:60], {"model": 5}]
    codes: list[Any] = ["A000", {"code": "A00", "date": 20200101}, 5, "", {"code": "E11A", "date": -5}, "E119"]
    with Client(address, chunk_items=50) as client:
        edits = client.edit_claims_many(claims)
        pairs = list(client.iter_edit_and_group(claims))
        scores = client.score_hcc_many(members, options={"detail": "FULL"})
        found = client.validate_many("icd10cm", codes, date=20250101)
        expected = [
            list(map(to_dict, edits)),
            [(to_dict(edited), to_dict(grouped)) for edited, grouped in pairs],
            list(map(to_dict, scores)),
            list(map(to_dict, found)),
        ]
        assert [
            list(client.iter_edits_dicts(claims)),
            list(client.iter_edit_and_group_dicts(claims)),
            list(client.iter_hcc_dicts(members, options={"detail": "FULL"})),
            list(client.iter_validations_dicts("icd10cm", codes, date=20250101)),
        ] == expected

    async def again() -> list[Any]:
        async def slowly(items: list[Any]) -> Any:
            for item in items:
                yield item

        async with AsyncClient(address, chunk_items=50) as client:
            return [
                [result async for result in client.iter_edits_dicts(slowly(claims))],
                [result async for result in client.iter_edit_and_group_dicts(claims)],
                [result async for result in client.iter_hcc_dicts(slowly(members), options={"detail": "FULL"})],
                [result async for result in client.iter_validations_dicts("icd10cm", slowly(codes), date=20250101)],
            ]

    assert asyncio.run(again()) == expected
    assert expected[0][120]["error"]["field"] == "sex"
    assert (expected[3][2]["error"]["code"], expected[3][4]["code"]) == ("INVALID_FIELD", "E11A")
    assert expected[3][4]["error"]["code"] == "INVALID_DATE"
