"""Explanations of MS-DRGs: they end where grouping ends, and what they claim is true when tried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import drg, explain

CLAIMS = 1000


@pytest.fixture(scope="module")
def library(store: Path) -> engine.Library:
    return engine.open(store)


@pytest.fixture(scope="module")
def explained(library: engine.Library, sample: Any) -> list[tuple[dict[str, Any], explain.Explanation]]:
    """Every few claims of the sample, explained."""
    claims = sample.claims[:: len(sample.claims) // CLAIMS][:CLAIMS]
    assert len(claims) == CLAIMS
    return [(claim, library.explain_drg(claim)) for claim in claims]


Explained = list[tuple[dict[str, Any], explain.Explanation]]


def test_an_explanation_has_the_answer_of_grouping(library: engine.Library, explained: Explained) -> None:
    answers = library.group_drg_many([claim for claim, _ in explained])
    for (_, explanation), answer in zip(explained, answers, strict=True):
        assert explanation.result == answer
        json.dumps(explanation.to_dict())


def test_the_walk_ends_in_the_drg(explained: Explained) -> None:
    for _, explanation in explained:
        result = explanation.result
        for visits, grouping in (
            (explanation.initial, result.initial_grouping),
            (explanation.final, result.final_grouping),
        ):
            assert grouping is not None
            if visits is explanation.final and grouping.return_code != drg.ReturnCode.OK:
                assert visits == ()
                continue
            winner = visits[-1].winner
            if grouping.return_code == drg.ReturnCode.OK:
                assert winner is not None
                assert (winner.drg, winner.drg_title) == (grouping.drg, grouping.drg_title)
                assert grouping.severity in (winner.severity, drg.Severity.NONE)
            else:
                assert winner is not None
                assert winner.drg == 0


def test_the_codes_behind_the_winner_are_on_the_claim(explained: Explained) -> None:
    seen = set()
    for claim, explanation in explained:
        codes = {*claim["diagnoses"], *claim["procedures"]}
        for visit in explanation.initial:
            for atom in visit.winner.atoms if visit.winner else ():
                prefix = atom.atom.rpartition(":")[0]
                seen.add(prefix or atom.atom)
                for code in atom.codes:
                    # A cluster is shown with its members: Z@0217(02HK0KZ+0JH609Z).
                    members = code.partition("(")[2].rstrip(")").split("+") if "(" in code else [code]
                    assert codes.issuperset(members)
                if prefix in ("PDX", "SDX", "ANY") or atom.atom in ("MCC", "CC", "d468"):
                    assert atom.codes, (claim["claim_id"], atom)
                if prefix == "PDX":
                    assert atom.codes == (claim["diagnoses"][0],)
    assert seen >= {"PDX", "SDX", "ANY", "MCC", "CC", "d468"}


def test_without_a_code_the_drg_is_what_the_explanation_says(library: engine.Library, explained: Explained) -> None:
    changes = 0
    for claim, explanation in explained:
        final = explanation.result.final_grouping
        said = {(without.field, without.position): without for without in explanation.without}
        for field, first in (("diagnoses", 1), ("procedures", 0)):
            for i in range(first, len(claim[field])):
                less = claim | {field: claim[field][:i] + claim[field][i + 1 :]}
                if field == "diagnoses":
                    less["poa"] = claim["poa"][:i] + claim["poa"][i + 1 :]
                other = library.group_drg(less).final_grouping
                assert final is not None
                assert other is not None
                if (field, i) in said:
                    changes += 1
                    assert said[field, i].grouping == other
                    assert said[field, i].code == claim[field][i]
                    assert (other.drg, other.mdc, other.return_code) != (final.drg, final.mdc, final.return_code)
                else:
                    assert (other.drg, other.mdc, other.return_code) == (final.drg, final.mdc, final.return_code)
    assert changes > CLAIMS / 4


def test_severities_agree_with_the_usage_of_the_result(explained: Explained) -> None:
    reasons = set()
    usage = {
        explain.SeverityReason.EXCLUDED_BY_PRINCIPAL: {"CC_EXCLUDED", "MCC_EXCLUDED"},
        explain.SeverityReason.COUNTS: {"CC", "MCC"},
        explain.SeverityReason.DIED: {"NEITHER"},
        explain.SeverityReason.HOSPITAL_ACQUIRED: {"NEITHER"},
        # Versions before 41.1 do not tell.
        explain.SeverityReason.DRG_LOGIC: {
            "CC_EXCLUDED_BY_DRG_LOGIC",
            "MCC_EXCLUDED_BY_DRG_LOGIC",
            "CC",
            "MCC",
        },
    }
    for _, explanation in explained:
        assert explanation.result.final_grouping is not None
        if explanation.result.final_grouping.return_code != drg.ReturnCode.OK:
            continue
        for severity in explanation.severities:
            reasons.add(severity.reason)
            code = explanation.result.diagnoses[severity.position]
            assert code.code == severity.code
            assert code.final_severity.name in usage[severity.reason], (explanation.result.claim_id, severity)
    assert reasons == set(explain.SeverityReason)


def test_hospital_acquired_conditions_are_judged_one_by_one(explained: Explained) -> None:
    statuses = set()
    for _, explanation in explained:
        for hac in explanation.hacs:
            statuses.add(hac.status)
            shown = {entry.name: entry.status for entry in explanation.result.diagnoses[hac.position].hacs}
            assert shown.get(hac.name, hac.status) == hac.status
            assert hac.title
            assert hac.criteria
            assert hac.text
    assert len(statuses) >= 4


def test_a_near_miss_wins_once_it_has_what_it_lacked(library: engine.Library, sample: Any) -> None:
    """One that lacks an MCC: with one more MCC on the claim that row, or one ranked before it, wins."""
    tried = 0
    for claim in sample.claims:
        if claim["version"] != "43.1" or tried == 100:
            continue
        visit = library.explain_drg(claim).initial[-1]
        lacking = [miss for miss in visit.near_misses if miss.lacks == "MCC" and miss.drg]
        if not lacking or visit.winner is None:
            continue
        tried += 1
        # Cardiogenic shock and acute respiratory failure: one of them is an MCC that the principal does not exclude.
        more = claim | {"diagnoses": [*claim["diagnoses"], "R570", "J9601"], "poa": claim["poa"] + "YY"}
        if claim["discharge_status"] == 20:
            more["discharge_status"] = 1
        winner = library.explain_drg(more).initial[-1].winner
        assert winner is not None
        assert winner.rank <= lacking[0].rank
    assert tried == 100


def test_a_claim_in_error_explains_nothing(library: engine.Library) -> None:
    explanation = library.explain_drg({"version": "43.1", "diagnoses": ["A000"], "poa": "YY"})
    assert explanation.result.error is not None
    assert explanation.initial == ()
    missing = library.explain_drg({"version": "12.0"})
    assert missing.result.error is not None
    assert missing.result.error.code == "UNKNOWN_VERSION"
    assert library.explain_drg({"version": "43.1"}).initial[0].winner is not None
