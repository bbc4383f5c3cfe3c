"""ExplainDrg: what the engine explains in process arrives whole, and names what the API names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_harness import running

import engine
from engine import drg, errors, explain
from engine._pb.codeset.v1 import grouping_pb2
from engine.client import Client, to_dict

Call = Callable[..., Any]

CLAIMS = 400


@pytest.fixture(scope="module")
def library(store: Path) -> engine.Library:
    """The packs of the tests, in process."""
    return engine.open(store)


@pytest.fixture(scope="module")
def explaining(library: engine.Library) -> Iterator[str]:
    """Address of a server over the same library."""
    with running(library) as address:
        yield address


def test_explanations_are_those_in_process(explaining: str, library: engine.Library, sample: Any) -> None:
    claims = sample.claims[:: len(sample.claims) // CLAIMS]
    assert len(claims) >= CLAIMS
    parts = set()
    with Client(explaining) as client:
        for claim in claims:
            expected = library.explain_drg(claim).to_dict()
            assert to_dict(client.explain_drg(claim)) == expected
            parts |= {name for name, part in expected.items() if part}
            parts |= {f"{name} without winner" for name in ("initial",) if "winner" not in expected[name][0]}
    assert parts == {
        "result",
        "summary",
        "initial",
        "initial without winner",
        "final",
        "severities",
        "hacs",
        "without",
    }


def test_either_client_explains(call: Call, explaining: str, library: engine.Library, sample: Any) -> None:
    for claim in sample.claims[:20]:
        found = call("explain_drg", claim, target=explaining)
        assert isinstance(found, grouping_pb2.DrgExplanation)
        assert to_dict(found) == library.explain_drg(claim).to_dict()


def test_the_result_is_that_of_grouping_whatever_the_detail(call: Call, explaining: str, sample: Any) -> None:
    claim = sample.claims[0]
    grouped = call("group_drg", claim, target=explaining)
    assert grouped.diagnoses
    assert call("explain_drg", claim, options={"detail": "DRG"}, target=explaining).result == grouped


def test_options_reach_the_grouper(call: Call, explaining: str, library: engine.Library, sample: Any) -> None:
    options = drg.GroupingOptions(tie_breaker=drg.TieBreaker.CODE_ORDER)
    claim = next(c for c in sample.claims if library.explain_drg(c) != library.explain_drg(c, options))
    found = call("explain_drg", claim, options={"tie_breaker": "CODE_ORDER"}, target=explaining)
    assert to_dict(found) == library.explain_drg(claim, options).to_dict()
    with pytest.raises(errors.InvalidFieldError, match="tie_breaker"):
        call("explain_drg", claim, options=grouping_pb2.DrgOptions(tie_breaker=9), target=explaining)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": "12.0"}, errors.UnknownVersionError),
        ({"version": "", "discharge_date": 19991231}, errors.DateOutsideCoverageError),
        ({"version": "", "discharge_date": 0}, errors.InvalidDateError),
        ({"poa": "Y" * 99}, errors.PoaLengthError),
        ({"sex": 77}, errors.InvalidFieldError),
    ],
)
def test_what_is_wrong_with_a_claim_fails_as_in_grouping(
    call: Call, explaining: str, sample: Any, change: dict[str, Any], error: type[errors.CodesetError]
) -> None:
    claim = {**sample.claims[0], **change}
    raised = []
    for method in ("group_drg", "explain_drg"):
        with pytest.raises(error) as caught:
            call(method, claim, target=explaining)
        raised.append((caught.value.code, caught.value.field, str(caught.value)))
    assert raised[0] == raised[1]


def test_a_claim_without_diagnoses_is_explained(call: Call, explaining: str) -> None:
    found = call("explain_drg", {"version": "43.1"}, target=explaining)
    assert found.result.final_grouping.return_code == grouping_pb2.RETURN_CODE_INVALID_PDX
    assert found.initial[0].winner.drg == 0
    assert not found.final


@pytest.mark.parametrize(
    "name",
    [
        "AtomExplanation",
        "HacExplanation",
        "ListVisit",
        "NearMiss",
        "RowExplanation",
        "SeverityExplanation",
        "WithoutCode",
    ],
)
def test_messages_have_the_fields_of_the_engine(name: str) -> None:
    fields = list(getattr(grouping_pb2, name).DESCRIPTOR.fields_by_name)
    assert fields == list(getattr(explain, name)._fields)


def test_the_explanation_has_the_fields_of_the_engine() -> None:
    fields = [field.name for field in dataclasses.fields(explain.Explanation)]
    assert list(grouping_pb2.DrgExplanation.DESCRIPTOR.fields_by_name) == fields
