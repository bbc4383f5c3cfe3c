"""The code editor over sockets: the answers of CMS, one by one and in batches, alone and with the DRG."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_harness import running

import engine
from engine import errors
from engine._pb.codeset.v1 import editing_pb2, grouping_pb2
from engine.client import AsyncClient, Client, MceEdit, raise_for_error, to_dict
from engine.mce import EDITS

CLAIM = {
    "claim_id": "c",
    "discharge_date": 20260401,
    "age": 60,
    "sex": "SEX_FEMALE",
    "discharge_status": 1,
    "diagnoses": ["I5021"],
}


@pytest.fixture(scope="module")
def library(store: Path) -> engine.Library:
    return engine.open(store)


@pytest.fixture(scope="module")
def address(library: engine.Library) -> Iterator[str]:
    """Address of a server in this process."""
    with running(library) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


def test_batches_answer_as_the_reference(client: Client, mce_golden: Any, plain_edits: Callable[[Any], Any]) -> None:
    results = client.edit_claims_many(mce_golden.claims, editor_release="43.1")
    for result, answer in zip(results, mce_golden.answers, strict=True):
        assert plain_edits(to_dict(result)) == answer


def test_the_answer_is_that_in_process(client: Client, library: engine.Library, mce_sample: Any) -> None:
    claims = mce_sample.claims[:300]
    here = [result.to_dict() for result in library.edit_claims_many(claims)]
    assert [to_dict(result) for result in client.iter_edits(claims)] == here
    assert [to_dict(client.edit_claim(claim)) for claim in claims[:20]] == here[:20]


def test_edit_and_group_in_one_call(client: Client, library: engine.Library, sample: Any) -> None:
    claims = sample.claims[:300]
    pairs = [(edited.to_dict(), grouped.to_dict()) for edited, grouped in library.edit_and_group_many(claims)]
    there = client.iter_edit_and_group(claims)
    assert [(to_dict(edited), to_dict(grouped)) for edited, grouped in there] == pairs
    edited, grouped = client.edit_and_group(claims[0])
    assert (to_dict(edited), to_dict(grouped)) == pairs[0]
    brief = list(client.iter_edit_and_group(claims[:3], drg_options={"detail": "DRG"}))
    assert not any(grouped.diagnoses for _, grouped in brief)


def test_the_asynchronous_client(address: str, library: engine.Library, mce_sample: Any) -> None:
    claims = mce_sample.claims[:200]
    here = [result.to_dict() for result in library.edit_claims_many(claims, engine.EditingOptions("43.1"))]

    async def all_of(client: AsyncClient) -> None:
        assert [to_dict(result) for result in await client.edit_claims_many(claims, editor_release="43.1")] == here
        assert to_dict(await client.edit_claim(claims[0], editor_release="43.1")) == here[0]

        async def one_by_one() -> AsyncIterator[Any]:
            for claim in claims:
                yield claim

        edited = [to_dict(result) async for result in client.iter_edits(one_by_one(), editor_release="43.1")]
        assert edited == here
        pairs = [pair async for pair in client.iter_edit_and_group(claims, editor_release="43.1")]
        assert [to_dict(edited) for edited, _ in pairs] == here
        result, grouped = await client.edit_and_group({**CLAIM, "version": "43.1"})
        assert result.edit_type == editing_pb2.EDIT_TYPE_NONE
        assert grouped.final_grouping.drg == 293
        assert len(await client.edits()) == len(EDITS)

    async def run() -> None:
        async with AsyncClient(address) as client:
            await all_of(client)

    asyncio.run(run())


def test_every_edit_is_described(client: Client) -> None:
    described = client.edits()
    assert [to_dict(info) for info in described] == [info.to_dict() for info in EDITS.values()]
    assert {info.edit for info in described} == set(MceEdit.values()) - {0}


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({"age": None}, errors.MissingFieldError, "age"),
        ({"sex": "SEX_UNSPECIFIED"}, errors.MissingFieldError, "sex"),
        ({"discharge_status": None}, errors.MissingFieldError, "discharge_status"),
        ({"procedures": ["5A1955Z"]}, errors.MissingFieldError, "length_of_stay"),
    ],
)
def test_what_is_wrong_with_a_claim(
    client: Client, changes: dict[str, Any], error: type[errors.CodesetError], field: str
) -> None:
    with pytest.raises(error) as raised:
        client.edit_claim({**CLAIM, **changes})
    assert raised.value.field == field
    results = client.edit_claims_many([CLAIM, {**CLAIM, **changes}, CLAIM])
    assert [result.HasField("error") for result in results] == [False, True, False]
    assert set(to_dict(results[1])) == {"claim_id", "editor_release", "error"}
    assert (results[1].claim_id, results[1].error.code, results[1].error.field) == ("c", error.code, field)
    with pytest.raises(error):
        raise_for_error(results[1])


def test_zero_is_not_missing(client: Client) -> None:
    result = client.edit_claim({**CLAIM, "age": 0, "length_of_stay": 0, "procedures": ["5A1955Z"]})
    assert [found.edit for found in result.edits] == [MceEdit.MCE_EDIT_INCONSISTENT_WITH_LENGTH_OF_STAY]


def test_errors_of_the_two_answers_are_apart(client: Client) -> None:
    claims = [{**CLAIM, "age": None}, {**CLAIM, "poa": "YYYY"}, {**CLAIM, "diagnoses": "I5021"}, CLAIM]
    pairs = list(client.iter_edit_and_group(claims))
    found = [(edited.error.code, grouped.error.code) for edited, grouped in pairs]
    assert found == [
        ("MISSING_FIELD", ""),
        ("", "POA_LENGTH_MISMATCH"),
        ("INVALID_FIELD", "INVALID_FIELD"),
        ("", ""),
    ]
    edited, grouped = client.edit_and_group({**CLAIM, "poa": "YYYY"})
    assert (edited.edit_type, grouped.error.code) == (editing_pb2.EDIT_TYPE_NONE, "POA_LENGTH_MISMATCH")


def test_what_is_said_once_for_all_claims(client: Client) -> None:
    for call in (client.edit_claim, client.edit_and_group):
        with pytest.raises(errors.UnknownReleaseError) as raised:
            call(CLAIM, editor_release="12.0")
        assert raised.value.field == "editor_release"
    with pytest.raises(errors.UnknownReleaseError):
        client.edit_claims_many([CLAIM], editor_release="12.0")
    for options in (5, {"no_option": []}, {"suppress_on_principal": "INVALID_CODE"}, {"suppress_on_principal": ["X"]}):
        with pytest.raises(errors.InvalidFieldError):
            client.edit_claims_many([CLAIM], options=options)
    with pytest.raises(errors.InvalidFieldError, match="editor_release"):
        client.edit_claim(CLAIM, editor_release=43)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidFieldError, match="suppress_on_procedures"):
        client.edit_claim(CLAIM, options=editing_pb2.MceOptions(suppress_on_procedures=[32]))  # type: ignore[list-item]


def test_suppressed_edits(client: Client) -> None:
    claim = {**CLAIM, "diagnoses": ["bad", "bad"], "procedures": ["bad"]}
    for names in (["INVALID_CODE"], ["MCE_EDIT_INVALID_CODE"], [1], [MceEdit.MCE_EDIT_INVALID_CODE]):
        result = client.edit_claim(claim, options={"suppress_on_principal": names, "suppress_on_procedures": names})
        assert [len(code.edits) for code in result.diagnosis_edits] == [0, 2]
        assert [len(code.edits) for code in result.procedure_edits] == [0]


def test_large_batches_are_cut(address: str, library: engine.Library, mce_sample: Any) -> None:
    claims = mce_sample.claims[:500]
    with Client(address, chunk_items=37) as client:
        results = client.edit_claims_many([*claims[:100], {"diagnoses": 5}, *claims[100:]])
    assert results.pop(100).error.code == "INVALID_FIELD"
    assert [to_dict(result) for result in results] == [result.to_dict() for result in library.edit_claims_many(claims)]


def test_a_request_without_a_claim(client: Client) -> None:
    with pytest.raises(errors.InvalidFieldError, match="claim"):
        client._call("EditClaim", grouping_pb2.EditClaimRequest(), None)
    assert client.edit_claims_many([]) == []
