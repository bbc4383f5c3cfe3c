"""Explanations of MS-DRGs: they end where grouping ends, and what they claim is true when tried."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import atoms, drg, explain

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
                assert winner.reroute_mdc == 0


def test_every_reference_claim_is_explained_by_the_reference_drg(library: engine.Library, golden: Any) -> None:
    for claim, answer in zip(golden.claims, golden.answers, strict=True):
        explanation = library.explain_drg(claim)
        for visits, grouping in ((explanation.initial, "initial_grouping"), (explanation.final, "final_grouping")):
            # DRG 999 is no row's: a return code ended the walk.
            winner = visits[-1].winner if visits else None
            assert ((winner and winner.drg) or 999) == answer[grouping]["drg"], claim["claim_id"]


def test_every_list_is_looked_at_for_a_reason(explained: Explained) -> None:
    for claim, explanation in explained:
        for visits in (explanation.initial, explanation.final):
            for before, visit in zip((None, *visits), visits, strict=False):
                if before is None:
                    assert visit.mdc == 0
                    assert "always" in visit.text
                elif before.winner is not None:
                    assert visit.mdc == before.winner.reroute_mdc
                    assert f"row {before.winner.rank} " in visit.text
                else:
                    assert claim["diagnoses"][0] in visit.text


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
    assert set(missing.to_dict()) == {"result"}


def test_texts_are_sentences_of_people(explained: Explained) -> None:
    """Nothing empty, no value in Python's own notation; the summary names the DRGs."""
    ungroupable = set()
    for claim, explanation in explained:
        result = explanation.result
        assert result.initial_grouping is not None
        assert result.final_grouping is not None
        texts = [*explanation.summary]
        for visit in (*explanation.initial, *explanation.final):
            texts += [visit.text, *(miss.text for miss in visit.near_misses)]
            texts += [atom.meaning for atom in visit.winner.atoms] if visit.winner else []
        texts += [part.text for part in (*explanation.severities, *explanation.hacs, *explanation.without)]
        for text in texts:
            assert re.fullmatch(r"[A-Za-z0-9].*[^ ,:]", text), text
            assert not re.search(r"None|\(\)|\[|[{']|  ", text), text
        assert explanation.summary[0].startswith(f"{result.initial_grouping.drg} ") or (
            explanation.summary[0].startswith(f"{result.final_grouping.drg} ")
        )
        if result.final_grouping.return_code != drg.ReturnCode.OK:
            ungroupable.add(result.final_grouping.return_code)
            assert any(result.final_grouping.return_code.name in sentence for sentence in explanation.summary)
        if not explanation.without and result.initial_grouping.return_code == drg.ReturnCode.OK:
            assert "No single" in explanation.summary[-1]
        for without in explanation.without:
            assert without.text.startswith(f"without {without.code} this is {without.grouping.drg} ")
        assert claim["claim_id"] not in " ".join(texts)
    assert len(ungroupable) >= 5


def test_what_a_severity_rests_on_is_counted(library: engine.Library) -> None:
    """Heart failure: with one MCC the DRG rests on it, with two on either."""
    claim = {"version": "43.1", "sex": "MALE", "discharge_status": 1, "diagnoses": ["I5021", "J9601", "E119"]}
    alone = library.explain_drg(claim)
    assert alone.summary[1] == "Its MCC rests on J9601 alone."
    assert [(w.code, w.grouping.drg) for w in alone.without] == [("J9601", 293)]
    assert alone.without[0].text == "without J9601 this is 293 Heart Failure and Shock without CC/MCC"
    both = library.explain_drg(claim | {"diagnoses": ["I5021", "J9601", "A419", "E119"]})
    assert both.summary[1] == "Its MCC rests on J9601 and A419: any one of them is enough."
    assert both.without == ()


def test_a_near_miss_tells_what_stands_in_its_way(explained: Explained) -> None:
    seen = set()
    for claim, explanation in explained:
        codes = {*claim["diagnoses"], *claim["procedures"]}
        reason = {s.code: s.reason for s in explanation.severities}
        for visit in (*explanation.initial, *explanation.final):
            assert len(visit.near_misses) <= explain.NEAR_MISSES
            ranks = [miss.rank for miss in visit.near_misses]
            assert ranks == sorted(ranks)
            for miss in visit.near_misses:
                assert (miss.lacks == "") != (miss.must_not_have == "")
                assert miss.drg or miss.reroute_mdc
                assert visit.winner is None or miss.rank <= visit.winner.rank
                members = {m for code in miss.codes for m in re.split(r"[(+)]", code) if m and m[:2] != "Z@"}
                assert members <= codes | {c for c in codes if c.startswith("Z@")}
                assert all(code in miss.text for code in miss.codes)
                if miss.lacks in ("MCC", "CC"):
                    seen.add("severity" if miss.codes else "no severity")
                    assert all(code in reason for code in miss.codes)
                if miss.must_not_have:
                    seen.add("must not have")
                    assert miss.codes
    assert seen == {"severity", "no severity", "must not have"}


def test_every_atom_of_every_version_has_a_meaning(library: engine.Library) -> None:
    for info in library.releases("msdrg"):
        tables = library.drg_grouper(info.release).explaining(explain._Tables)
        for atom, meaning in zip(tables.atoms, tables.meanings, strict=True):
            name = atom.rpartition(":")[2]
            if name in atoms.SPECIAL:
                assert meaning == atoms.SPECIAL[name]
            # The tables write what is computed in capitals, beside the lists of MDCs that hold for no claim.
            elif name.isupper() and not re.match(r"MDC\d\d|HAC\d\d|ERRORDRG", name):
                assert name in {**atoms.SEVERITIES, **atoms.OPERATING_ROOM}, name
            assert meaning


def test_ranges_of_drgs() -> None:
    assert atoms.drg_ranges([]) == []
    assert atoms.drg_ranges([291, 292, 293, 300, 302]) == ["291-293", "300", "302"]
    assert atoms.meaning("PDX:dxc0505", [291, 292, 293]) == (
        "the principal diagnosis is on the list dxc0505 (DRG 291-293)"
    )
    assert atoms.meaning("x", range(1, 20, 2)) == "a procedure is on the list x"
    assert atoms.meaning("SDX:HAC05", (), {5: "Falls"}).endswith("hospital-acquired condition 5, Falls")


def test_a_very_long_claim_is_explained_without_removals(library: engine.Library) -> None:
    claim = {"version": "43.1", "sex": "MALE", "discharge_status": 1}
    long = library.explain_drg(claim | {"diagnoses": ["I5021", "J9601", *["E119"] * explain.MOST_CODES]})
    assert long.without == ()
    assert f"more than {explain.MOST_CODES} codes" in long.summary[-1]
    assert len(long.severities) == 1
