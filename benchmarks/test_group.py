"""Claims to MS-DRGs, in process. Peer: msdrg, a native port of the CMS software."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import engine
from engine.drg import Detail, GroupingOptions

Measure = Callable[..., Any]
BRIEF = GroupingOptions(detail=Detail.DRG)


def _check(results: Any, answers: list[dict[str, Any]]) -> None:
    drgs = results.table["final_grouping"]["drg"]
    assert drgs.tolist() == [answer["final_grouping"]["drg"] for answer in answers]


@pytest.mark.benchmark(group="MS-DRG, DRG and MDC only")
def test_brief(measure: Measure, library: engine.Library, claims: list[Any], answers: list[Any]) -> None:
    results = measure(
        lambda: library.group_drg_many(claims, BRIEF), items=len(claims), unit="claims", budget=500e3, rounds=9
    )
    _check(results, answers)


@pytest.mark.benchmark(group="MS-DRG, every output field")
def test_full(measure: Measure, library: engine.Library, claims: list[Any], answers: list[Any]) -> None:
    results = measure(lambda: library.group_drg_many(claims), items=len(claims), unit="claims", budget=250e3, rounds=9)
    _check(results, answers)


@pytest.mark.benchmark(group="MS-DRG, every output field")
def test_full_as_python_objects(
    measure: Measure, library: engine.Library, claims: list[Any], answers: list[Any]
) -> None:
    results = measure(
        lambda: list(library.group_drg_many(claims)),
        items=len(claims),
        unit="claims",
        who="engine, one Python object a result",
        rounds=5,
    )
    assert [result.drg for result in results] == [answer["final_grouping"]["drg"] for answer in answers]


@pytest.mark.benchmark(group="MS-DRG, every output field")
def test_msdrg(measure: Measure, claims: list[Any], answers: list[Any]) -> None:
    import msdrg

    some = claims[:4000]
    theirs = [_theirs(claim) for claim in some]
    with msdrg.MsdrgGrouper() as grouper:
        right = sum(
            grouper.group(claim)["final_drg"] == answer["final_grouping"]["drg"]
            for claim, answer in zip(theirs, answers, strict=False)
        )
        measure(
            lambda: [grouper.group(claim) for claim in theirs],
            items=len(theirs),
            unit="claims",
            who="msdrg 1.2.0",
            rounds=3,
            agreement=right / len(theirs),
        )
    assert right > 0.9 * len(theirs)


def _theirs(claim: dict[str, Any]) -> dict[str, Any]:
    diagnoses = [
        {"code": code, "poa": poa if poa in "YNUW" else ""}
        for code, poa in zip(claim["diagnoses"], claim["poa"], strict=True)
    ]
    for diagnosis in diagnoses:
        if not diagnosis["poa"]:
            del diagnosis["poa"]
    return {
        "version": int(claim["version"].replace(".", "")),
        "age": claim["age"],
        "sex": {"SEX_MALE": 0, "SEX_FEMALE": 1}.get(claim["sex"], 2),
        "discharge_status": claim["discharge_status"],
        "hospital_status": claim["hospital_status"].removeprefix("HOSPITAL_STATUS_"),
        "pdx": diagnoses[0] if diagnoses else {"code": ""},
        "sdx": diagnoses[1:],
        "procedures": [{"code": code} for code in claim["procedures"]],
    }
