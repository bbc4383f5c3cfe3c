"""Members to risk scores, in process. Peers where they are installed: hccinfhir, hccpy, risk-adjustment-model.

Every peer scores one segment a call; the engine scores all of them. The peers' agreement is the share of members whose
raw score in that segment (community, not dual) is the reference's.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import engine

from .conftest import read_answers, risk_members

Measure = Callable[..., Any]
MODELS = ("v22", "v24", "v28", "esrd_v21", "esrd_v24", "rxhcc_v08_t", "rxhcc_v08_x")
PEER_MEMBERS = 400
Peer = Callable[[dict[str, Any], int], float]
"""A member and its age to the raw score of its community segment, not dual."""


def _hccinfhir() -> Peer:
    from hccinfhir import HCCInFHIR

    processor = HCCInFHIR(model_name="CMS-HCC Model V28")

    def score(member: dict[str, Any], age: int) -> float:
        sex = "M" if member["sex"] == "SEX_MALE" else "F"
        found = processor.calculate_from_diagnosis(
            member["diagnoses"], age=age, sex=sex, orec=str(member["orec"]), dual_elgbl_cd="00"
        )
        return float(found.risk_score)

    return score


def _hccpy() -> Peer:
    from hccpy.hcc import HCCEngine

    scorer = HCCEngine("28")

    def score(member: dict[str, Any], age: int) -> float:
        found = scorer.profile(
            member["diagnoses"],
            age=age,
            sex="M" if member["sex"] == "SEX_MALE" else "F",
            elig="CNA" if age >= 65 else "CND",
            orec=str(member["orec"]),
        )
        return float(found["risk_score"])

    return score


def _risk_adjustment_model() -> Peer:
    from risk_adjustment_model import MedicareModelV28

    scorer = MedicareModelV28(2026)

    def score(member: dict[str, Any], age: int) -> float:
        found = scorer.score(
            gender="M" if member["sex"] == "SEX_MALE" else "F",
            orec=str(member["orec"]),
            medicaid=False,
            diagnosis_codes=member["diagnoses"],
            age=age,
            population="CNA" if age >= 65 else "CND",
        )
        return float(found.score_raw)

    return score


def _installed() -> dict[str, Peer]:
    found = {}
    for name, make in (
        ("hccinfhir", _hccinfhir),
        ("hccpy", _hccpy),
        ("risk-adjustment-model", _risk_adjustment_model),
    ):
        try:
            # Their warnings are no errors of ours.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = make()
        except Exception as error:
            # Not installed here, or not for this Python: there is no figure of it.
            sys.stderr.write(f"{name} is not measured: {error!r}\n")
    return found


PEERS = _installed()


def members_of(model: str, answers: bool = False) -> list[dict[str, Any]]:
    return read_answers(model, "answers" if answers else "members")


@pytest.mark.benchmark(group="HCC, all segments, ten diagnoses")
@pytest.mark.parametrize("model", MODELS)
def test_engine(measure: Measure, library: engine.Library, model: str) -> None:
    members, answers = members_of(model), members_of(model, answers=True)
    scorer = library.hcc_scorer(model.upper(), 2026)
    results = library.score_hcc_many(members)
    assert not results.errors
    for i, answer in enumerate(answers):
        raw = results.scores[0, i, : len(scorer.segments)]
        assert {s: int(v) / 1000 for s, v in zip(scorer.segments, raw, strict=True)} == answer["scores"]
    batch = risk_members(model, 20_000)
    measure(
        partial(library.score_hcc_many, batch),
        items=len(batch),
        unit="members",
        who=f"engine, {model.upper()}",
        budget=500e3,
        rounds=9,
    )


@pytest.mark.benchmark(group="HCC, all segments, ten diagnoses")
@pytest.mark.parametrize("name", PEERS)
def test_peer(measure: Measure, name: str) -> None:
    members = members_of("v28")[-PEER_MEMBERS:]
    answers = members_of("v28", answers=True)[-PEER_MEMBERS:]
    ages = [answer["age"] for answer in answers]
    score = PEERS[name]

    def run() -> list[float]:
        return [score(member, age) for member, age in zip(members, ages, strict=True)]

    expected = [answer["scores"]["COMMUNITY_NA" if answer["age"] >= 65 else "COMMUNITY_ND"] for answer in answers]
    right = sum(abs(got - want) < 0.0005 for got, want in zip(run(), expected, strict=True))
    measure(
        run,
        items=len(members),
        unit="members",
        who=f"{name}, one segment of V28",
        rounds=3,
        agreement=right / len(members),
    )
