"""Risk scores against the reference answers, against a plain-Python oracle, and against bad input."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hcc_oracle
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import engine
from codesets import fetch, hcc
from engine import _hcc, errors
from engine.compile_hcc import compile_hcc
from engine.hcc import HccDetail, HccResult, PaymentFactors, ScoringOptions, _factor_row, factors_of, year_blend
from engine.tables import HccTables

FULL = ScoringOptions(detail=HccDetail.FULL)
MODELS_2026 = ("V22", "V24", "V28", "ESRD_V21", "ESRD_V24", "RXHCC_V08_T", "RXHCC_V08_X")
SOUND: dict[str, Any] = {
    "member_id": "m",
    "model": "V28",
    "payment_year": 2026,
    "birth_date": 19500101,
    "sex": "SEX_MALE",
    "orec": 0,
    "diagnoses": ["E119"],
}


@pytest.fixture(scope="module")
def library(store: Path) -> engine.Library:
    return engine.open(store)


@pytest.fixture(scope="module")
def importer(store: Path) -> hcc.Importer:
    return hcc.Importer(fetch.Cache())


# --- the reference --------------------------------------------------------------------------------------------------


def in_the_form_of_answers(result: HccResult) -> dict[str, Any]:
    assert result.error is None
    return {
        "member_id": result.member_id,
        "model": result.model,
        "age": result.age,
        "ccs": list(result.ccs),
        "hccs": list(result.hccs),
        "scores": {score.segment: score.raw for score in result.scores},
    }


def components(result: HccResult, scorer: engine.HccScorer) -> dict[str, dict[str, float]]:
    """Contributions of each column, without the add-ons of the single segments."""
    columns = scorer.columns
    return {
        column: {c.variable: c.coefficient for c in contributions if c.variable not in scorer.addon_names}
        for column, (_, contributions, _) in zip(columns, result.contributions, strict=True)
        if column
    }


def test_every_answer_is_that_of_the_reference(library: engine.Library, hcc_golden: Any) -> None:
    results = library.score_hcc_many(hcc_golden.claims, FULL)
    assert not results.errors
    with_components = 0
    for result, answer in zip(results, hcc_golden.answers, strict=True):
        expected = {name: answer[name] for name in ("member_id", "model", "age", "ccs", "hccs", "scores")}
        assert in_the_form_of_answers(result) == expected
        assert sorted(result.applicable) == answer.get("applicable", [])
        if "components" in answer:
            with_components += 1
            got = components(result, library.hcc_scorer(result.model, 2026))
            assert {name: got[name] for name in answer["components"]} == answer["components"]
    assert with_components >= 50


def test_the_sample_reaches_every_hcc_and_variable_of_every_model(library: engine.Library, hcc_sample: Any) -> None:
    assert 500 < len(hcc_sample.claims) < 1000
    reached: dict[str, set[str]] = {model: set() for model in MODELS_2026}
    for result in library.score_hcc_many(hcc_sample.claims, FULL):
        reached[result.model] |= {f"HCC{hcc}" for hcc in result.hccs}
        reached[result.model] |= {c.variable for _, items, _ in result.contributions for c in items}
    for model, found in reached.items():
        scorer = library.hcc_scorer(model, 2026)
        assert {f"HCC{cc}" for cc in scorer.ccs} - found <= NOT_REACHED.get(model, set())
        interactions = {scorer.variables[i] for i in scorer.core.arrays["interaction"]["variable"]}
        weighed = {name for i, name in enumerate(scorer.variables) if scorer.core.arrays["given"][i]}
        assert (interactions & weighed) - found <= NOT_REACHED.get(model, set())
        assert set(scorer.addon_names) <= found


NOT_REACHED = {"ESRD_V24": {*(f"HCC{n}" for n in range(134, 139)), "HCC85_gRenal_V24"}}
"""Kidney HCCs never count in ESRD V24."""


def assert_scores_are_sums(result: HccResult) -> None:
    for score, (segment, contributions, divisor) in zip(result.scores, result.contributions, strict=True):
        assert score.segment == segment
        total = sum((Decimal(str(c.coefficient)) for c in contributions), Decimal(0)) / Decimal(str(divisor))
        assert float(total.quantize(Decimal("0.001"))) == score.raw


def test_scores_are_the_sum_of_what_contributes(library: engine.Library, hcc_sample: Any) -> None:
    for result in library.score_hcc_many(hcc_sample.claims, FULL):
        assert_scores_are_sums(result)


def test_a_member_may_be_an_object_or_older_than_its_birth_date(library: engine.Library, hcc_sample: Any) -> None:
    members = hcc_sample.claims[:200]
    expected = [r.to_dict() for r in library.score_hcc_many(members)]
    objects = [engine.RiskMember(**member) for member in members]
    assert [r.to_dict() for r in library.score_hcc_many(objects)] == expected
    aged = [
        {k: v for k, v in m.items() if k != "birth_date"} | {"age": e["age"]}
        for m, e in zip(members, expected, strict=True)
    ]
    assert [r.to_dict() for r in library.score_hcc_many(iter(aged))] == expected


# --- what must not matter -------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_order_repetition_and_unmapped_codes_change_nothing(
    library: engine.Library, hcc_sample: Any, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(hcc_sample.claims), min_size=1, max_size=20))
    answers = [result.to_dict() for result in library.score_hcc_many(chosen)]
    changed = []
    for member in chosen:
        codes = data.draw(st.permutations(member["diagnoses"] + member["diagnoses"][:3]))
        unmapped = data.draw(st.lists(st.sampled_from(["Z0000", "R69", "XYZ", "", "\0", "É", "A" * 40]), max_size=3))
        spelt = [f" {c[:3].lower()}.{c[3:]} " if len(c) > 3 else c for c in codes]
        changed.append(member | {"diagnoses": [*unmapped, *spelt]})
    assert [result.to_dict() for result in library.score_hcc_many(changed)] == answers


@pytest.mark.parametrize("model", MODELS_2026)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_child_under_its_parent_changes_the_list_only(
    library: engine.Library, importer: hcc.Importer, model: str, data: st.DataObject
) -> None:
    tables = importer.base(model)
    kept_out = {223} | ({134, 135, 136, 137, 138} if model == "ESRD_V24" else set())
    parent = data.draw(
        st.sampled_from([cc for cc, below in tables.hierarchies.items() if below and cc not in kept_out])
    )
    child = data.draw(st.sampled_from(tables.hierarchies[parent]))
    by_cc = unconditional(tables)
    if parent not in by_cc or child not in by_cc:
        return
    above = data.draw(st.sampled_from(by_cc[parent]))
    below = data.draw(st.sampled_from(by_cc[child]))
    member = SOUND | {"model": model, "diagnoses": [above]}
    alone, both = library.score_hcc_many([member, member | {"diagnoses": [below, above]}], FULL)
    assert both.hccs == alone.hccs
    assert both.scores == alone.scores
    assert set(both.ccs) == {*alone.ccs, str(child)}
    (suppression,) = both.suppressed
    assert suppression.hcc == str(child)
    assert str(parent) in suppression.by


def unconditional(tables: HccTables) -> dict[int, list[str]]:
    """Categories to the codes that give nothing else, whoever has them."""
    rows: dict[str, list[Any]] = {}
    for rule in tables.rules:
        rows.setdefault(rule.code, []).append(rule)
    found: dict[int, list[str]] = {}
    for code, rules in rows.items():
        if len(rules) == 1 and rules[0].ages == rules[0].mce_ages == (0, 255) and not rules[0].sex:
            found.setdefault(rules[0].cc, []).append(code)
    return found


def test_threads_share_one_library(library: engine.Library, hcc_sample: Any) -> None:
    expected = library.score_hcc_many(hcc_sample.claims)
    differing: list[int] = []

    def hammer(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(hcc_sample.claims))
        results = library.score_hcc_many([hcc_sample.claims[i] for i in order])
        if not (results.table == expected.table[order]).all():
            differing.append(seed)
        if [r.scores for r in results] != [expected[i].scores for i in order.tolist()]:
            differing.append(seed)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differing == []


# --- the oracle -----------------------------------------------------------------------------------------------------


def test_the_oracle_agrees_with_the_reference(importer: hcc.Importer, hcc_sample: Any) -> None:
    """The oracle is only worth something if it is right itself."""
    for member, answer in list(zip(hcc_sample.claims, hcc_sample.answers, strict=True))[::9]:
        got = hcc_oracle.score(importer.base(member["model"]), member)
        assert got == (answer["age"], answer["ccs"], answer["hccs"], answer["scores"])


FLAGS = ("ltimcaid", "nemcaid", "mcaid", "fbdual", "pbdual", "lti", "esrd", "skip_mce_edits")


@pytest.mark.parametrize("model", MODELS_2026)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_member_scores_as_the_oracle_does(
    library: engine.Library, importer: hcc.Importer, model: str, data: st.DataObject
) -> None:
    tables = importer.base(model)
    codes = CODES.setdefault(model, sorted({rule.code for rule in tables.rules}))
    conditional = CONDITIONAL.setdefault(
        model, sorted({r.code for r in tables.rules if r.sex or r.ages != (0, 255) or r.mce_ages != (0, 255)})
    )
    age = data.draw(
        st.one_of(st.integers(0, 110), st.sampled_from([0, 1, 2, 17, 18, 34, 35, 63, 64, 65, 66, 69, 94, 95]))
    )
    day = data.draw(st.sampled_from([101, 131, 201, 202, 630, 1231]))
    member: dict[str, Any] = {
        "model": model,
        "payment_year": 2026,
        "birth_date": (2026 - age - (day > 201)) * 10000 + day,
        "sex": data.draw(st.sampled_from(["SEX_MALE", "SEX_FEMALE"])),
        "orec": data.draw(st.integers(0, 3)),
        "diagnoses": data.draw(st.lists(st.one_of(st.sampled_from(codes), st.sampled_from(conditional)), max_size=20)),
    } | {name: data.draw(st.booleans()) for name in FLAGS}
    member["pbdual"] = member["pbdual"] and not member["fbdual"]
    result = library.explain_hcc(member)
    expected = hcc_oracle.score(tables, member)
    assert result.error is None
    assert (result.age, list(result.ccs), list(result.hccs)) == expected[:3]
    assert {score.segment: score.raw for score in result.scores} == expected.scores
    assert_scores_are_sums(result)


CODES: dict[str, list[str]] = {}
CONDITIONAL: dict[str, list[str]] = {}


def test_pre_rules_come_before_hierarchies(library: engine.Library, importer: hcc.Importer) -> None:
    codes = unconditional(importer.base("V28"))
    lone = library.explain_hcc(SOUND | {"diagnoses": [codes[223][0], codes[227][0]]})
    assert (lone.ccs, lone.hccs) == (("223", "227"), ("227",))
    assert lone.suppressed == (("223", (), "Heart Assist Device/Artificial Heart"),)
    with_failure = library.score_hcc(SOUND | {"diagnoses": [codes[223][0], codes[226][0], codes[227][0]]})
    assert with_failure.hccs == ("223",)


def test_hierarchies_take_the_snapshot(library: engine.Library, importer: hcc.Importer) -> None:
    # 62 > 63 > 202, and 62 does not list 202 (D3).
    codes = unconditional(importer.base("V28"))
    result = library.score_hcc(SOUND | {"diagnoses": [codes[cc][0] for cc in (62, 63, 202)]})
    assert result.hccs == ("62",)


def test_v24_takes_64_with_orec_0_for_65(library: engine.Library) -> None:
    at_64 = {"birth_date": 19620101, "diagnoses": []}
    for model, cell in (("V24", "F65_69"), ("V28", "F60_64"), ("V22", "F60_64")):
        result = library.explain_hcc(SOUND | at_64 | {"model": model, "sex": 2})
        assert result.age == 64
        names = {c.variable for _, items, _ in result.contributions for c in items}
        assert cell in names
        assert "NMCAID_NORIGDIS_NEF65" in names


def test_code_editor_ages_can_be_left_out(library: engine.Library, importer: hcc.Importer) -> None:
    adults_only = next(r.code for r in importer.base("V28").rules if r.mce_ages == (15, 255) and r.ages == (0, 255))
    child = SOUND | {"birth_date": 20200101, "diagnoses": [adults_only]}
    with_edits, without = library.score_hcc_many([child, child | {"skip_mce_edits": True}], FULL)
    assert with_edits.ccs == ()
    assert without.ccs != ()
    assert with_edits.diagnoses[0].refused == without.diagnoses[0].ccs


def test_explanations_name_everything(library: engine.Library) -> None:
    result = library.explain_hcc(SOUND | {"diagnoses": ["E11.9", "e1122", "R69"], "dual_status_code": "00"})
    assert result.segment == "COMMUNITY_NA"
    assert [(d.code, d.ccs) for d in result.diagnoses] == [("E11.9", ("38",)), ("e1122", ("37",)), ("R69", ())]
    assert [(s.hcc, s.by) for s in result.suppressed] == [("38", ("37",))]
    assert dict(result.hcc_labels)["37"] == "Diabetes with Chronic Complications"
    assert result.score().raw == result.score("COMMUNITY_NA").raw
    with pytest.raises(errors.InvalidFieldError):
        result.score("COMMUNITY_XX")


# --- payment --------------------------------------------------------------------------------------------------------


def paid(model: str, year: int, raw: int, segment: str, **options: Any) -> tuple[float | None, float | None]:
    """Normalized and payment score of a made-up raw score (thousandths), by the factors of the model and year."""
    row = _factor_row((segment,), model, year, ScoringOptions(**options), None)
    if not row[0, 0]:
        return None, None
    normalized = _hcc.half_up_of(raw * 1000, int(row[0, 0]))
    return normalized / 1000, _hcc.half_up_of(normalized * int(row[1, 0]), 1000) / 1000


@pytest.mark.parametrize(
    ("model", "year", "segment", "raw", "normalized", "payment"),
    [
        ("V28", 2026, "COMMUNITY_NA", 1286, 1.205, 1.134),
        ("V22", 2026, "COMMUNITY_NA", 1407, 1.185, 1.115),
        ("V24", 2025, "COMMUNITY_NA", 1343, 1.165, 1.096),
        ("ESRD_V24", 2026, "G_COMM_FBD_LT65_DUR4_9", 3247, 2.941, 2.767),
        ("RXHCC_V08_T", 2026, "CE_NonLow_Aged", 663, 0.552, 0.552),
    ],
)
def test_worked_examples_of_payment_scores(
    model: str, year: int, segment: str, raw: int, normalized: float, payment: float
) -> None:
    """Section 11."""
    assert paid(model, year, raw, segment) == (normalized, payment)


def test_scores_of_members_are_paid_by_those_factors(library: engine.Library, hcc_sample: Any) -> None:
    for result in library.score_hcc_many(hcc_sample.claims):
        for segment, raw, normalized, payment in result.scores:
            expected = paid(result.model, 2026, round(raw * 1000), segment)
            assert (normalized, payment) == expected
            # No factor was announced for V24 in 2026: nothing is made up.
            assert (payment is None) == (result.model == "V24")


def test_dialysis_and_graft_have_their_own_normalization(library: engine.Library) -> None:
    result = library.score_hcc(SOUND | {"model": "ESRD_V24", "diagnoses": []})
    transplant = result.score("TRANSPLANT_KIDNEY_ONLY_1M")
    assert (transplant.raw, transplant.normalized) == (5.985, 5.636)  # over 1.062
    graft = result.score("G_COMM_ND_PBD_GE65_DUR4_9")
    assert graft.normalized == round(graft.raw / 1.104, 3)


def test_factors_can_be_overridden(library: engine.Library) -> None:
    usual = library.score_hcc(SOUND).score("COMMUNITY_NA")
    options = ScoringOptions(factors=[PaymentFactors("V28", normalization="1.0", coding_adjustment=0)])
    own = library.score_hcc(SOUND, options).score("COMMUNITY_NA")
    assert own.payment == own.normalized == own.raw == usual.raw
    only_one = ScoringOptions(factors=[PaymentFactors("V28", coding_adjustment=Decimal("0.06"))])
    assert library.score_hcc(SOUND, only_one).score("COMMUNITY_NA").normalized == usual.normalized
    x = SOUND | {"model": "RXHCC_V08_X"}
    drug_plan = library.score_hcc(x, ScoringOptions(drug_plan=True)).score("CE_NonLow_Aged")
    assert drug_plan.normalized == pytest.approx(drug_plan.raw / 0.887, abs=0.0005)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (ScoringOptions(factors=[PaymentFactors("V28", normalization="1.0001")]), "normalization"),
        (ScoringOptions(factors=[PaymentFactors("V28", normalization=0)]), "normalization"),
        (ScoringOptions(factors=[PaymentFactors("V28", normalization="NaN")]), "normalization"),
        (ScoringOptions(factors=[PaymentFactors("V28", coding_adjustment=1)]), "coding_adjustment"),
        (ScoringOptions(blend={"V28": "1"}), "blend"),
        (ScoringOptions(blend={"V28": "0.5", "V22": "0.6"}), "blend"),
        (ScoringOptions(blend={"V28": "1", "v28": "1"}), "blend"),
    ],
)
def test_impossible_options_are_refused(library: engine.Library, options: ScoringOptions, field: str) -> None:
    with pytest.raises(errors.InvalidFieldError) as caught:
        library.score_hcc_many([SOUND], options)
    assert caught.value.field == field


@pytest.mark.parametrize(("year", "v24", "v28"), [(2024, 0.67, 0.33), (2025, 0.33, 0.67)])
def test_years_that_blend_two_models(library: engine.Library, year: int, v24: float, v28: float) -> None:
    member = SOUND | {"payment_year": year, "diagnoses": ["E1122", "I5022", "J449", "C7951"]}
    of_24, of_28 = library.score_hcc_many([member | {"model": "V24"}, member | {"model": "V28"}])
    assert of_24.blend == of_28.blend
    assert of_24.blend is not None
    assert of_24.blend.weights == (("V24", v24), ("V28", v28))
    assert [score.segment for score in of_24.blend.scores] == [score.segment for score in of_24.scores]
    for blended, a, b in zip(of_24.blend.scores, of_24.scores, of_28.scores, strict=True):
        assert a.payment is not None
        assert b.payment is not None
        assert blended.payment == pytest.approx(v24 * a.payment + v28 * b.payment, abs=0.00051)
    assert library.score_hcc(member, ScoringOptions(blend={})).blend is None
    assert library.score_hcc(SOUND).blend is None
    pace = library.score_hcc(SOUND, ScoringOptions(blend={"V22": "0.9", "V28": "0.1"}))
    assert library.score_hcc(SOUND, ScoringOptions(blend={"v22": "0.9", "v28": "0.1"})).blend == pace.blend
    assert pace.blend is not None
    assert (
        library.score_hcc(SOUND | {"model": "RXHCC_V08_T"}, ScoringOptions(blend={"V22": "0.9", "V28": "0.1"})).blend
        is None
    )


def test_factors_have_a_source(library: engine.Library) -> None:
    for info in library.releases("cmshcc"):
        model, year = info.facts["model"], info.facts["payment_year"]
        factors = factors_of(model, year)
        if (model, year) == ("V24", 2026):
            assert factors.normalization is None
            continue
        assert str(year) in factors.source
        assert factors.normalization is not None
    assert sum(Decimal(str(w)) for w in year_blend(2024).values()) == 1
    assert year_blend(2026) == {}


# --- segments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "segment"),
    [
        ({}, ""),
        ({"dual_status_code": "00"}, "COMMUNITY_NA"),
        ({"dual_status_code": "09"}, "COMMUNITY_NA"),
        ({"dual_status_code": "02"}, "COMMUNITY_FBA"),
        ({"dual_status_code": "05", "birth_date": 19800101}, "COMMUNITY_PBD"),
        ({"dual_status_code": "05", "institutional": True}, "INSTITUTIONAL"),
        ({"new_enrollee": True, "institutional": True}, "NE"),
        ({"new_enrollee": True, "snp": True}, "NE_SNP"),
        ({"model": "V24", "dual_status_code": "00", "birth_date": 19620101}, "COMMUNITY_NA"),
        ({"model": "V28", "dual_status_code": "00", "birth_date": 19620101}, "COMMUNITY_ND"),
        ({"model": "RXHCC_V08_T"}, ""),
        ({"model": "RXHCC_V08_T", "low_income": False}, "CE_NonLow_Aged"),
        ({"model": "RXHCC_V08_T", "low_income": True, "birth_date": 19900101}, "CE_Low_NonAged"),
        ({"model": "RXHCC_V08_T", "low_income": True, "new_enrollee": True}, "NE_Low_Community"),
        ({"model": "RXHCC_V08_T", "institutional": True, "new_enrollee": True}, "NE_LTI"),
        ({"model": "RXHCC_V08_T", "institutional": True}, "CE_LTI"),
        ({"model": "ESRD_V24"}, ""),
        ({"model": "ESRD_V24", "dialysis": True}, "DIAL"),
        ({"model": "ESRD_V21", "dialysis": True, "new_enrollee": True}, "DIAL_NE"),
        ({"model": "ESRD_V24", "months_since_transplant": 2}, "TRANSPLANT_KIDNEY_ONLY_2M"),
        ({"model": "ESRD_V24", "months_since_transplant": 4, "fbdual": True}, "G_COMM_FBD_GE65_DUR4_9"),
        ({"model": "ESRD_V24", "months_since_transplant": 12, "lti": True}, "GRAFT_INST_ND_PBD_GE65_DUR10PL"),
        ({"model": "ESRD_V24", "months_since_transplant": 9, "new_enrollee": True}, "GRAFT_NE_GE65_DUR4_9_ND_PBD"),
        ({"model": "ESRD_V21", "months_since_transplant": 10, "birth_date": 19900101}, "GRAFT_COMM_DUR10PL_LT65"),
        ({"model": "ESRD_V21", "months_since_transplant": 10, "institutional": True}, "GRAFT_INST_DUR10PL_GE65"),
        ({"model": "ESRD_V21", "months_since_transplant": 5, "new_enrollee": True, "birth_date": 19620101},
         "GRAFT_NE_DUR4_9_GE65"),
    ],
)  # fmt: skip
def test_the_segment_where_it_can_be_told(library: engine.Library, given_: Mapping[str, Any], segment: str) -> None:
    result = library.score_hcc(SOUND | given_)
    assert result.error is None
    assert result.segment == segment
    if segment:
        assert result.score().segment == segment
        assert not result.applicable or segment in result.applicable


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error", "field"),
    [
        ({"sex": "SEX_UNKNOWN"}, errors.InvalidFieldError, "sex"),
        ({"sex": 0}, errors.InvalidFieldError, "sex"),
        ({"sex": True}, errors.InvalidFieldError, "sex"),
        ({"sex": []}, errors.InvalidFieldError, "sex"),
        ({"sex": None}, errors.InvalidFieldError, "sex"),
        ({"orec": 4}, errors.InvalidFieldError, "orec"),
        ({"orec": -1}, errors.InvalidFieldError, "orec"),
        ({"orec": "0"}, errors.InvalidFieldError, "orec"),
        ({"orec": None}, errors.InvalidFieldError, "orec"),
        ({"birth_date": 20010229}, errors.InvalidDateError, "birth_date"),
        ({"birth_date": 19501301}, errors.InvalidDateError, "birth_date"),
        ({"birth_date": -19500101}, errors.InvalidDateError, "birth_date"),
        ({"birth_date": 1 << 70}, errors.InvalidDateError, "birth_date"),
        ({"birth_date": 18990101}, errors.InvalidDateError, "birth_date"),
        ({"birth_date": 20270101}, errors.InvalidDateError, "birth_date"),
        ({"birth_date": "19500101"}, errors.InvalidFieldError, "birth_date"),
        ({"birth_date": None}, errors.InvalidFieldError, "birth_date"),
        ({"birth_date": 0, "age": 126}, errors.InvalidFieldError, "age"),
        ({"birth_date": 0, "age": -1}, errors.InvalidFieldError, "age"),
        ({"birth_date": 0, "age": 60.0}, errors.InvalidFieldError, "age"),
        ({"model": "V99"}, errors.UnknownModelError, "model"),
        ({"model": ""}, errors.InvalidFieldError, "model"),
        ({"model": 28}, errors.InvalidFieldError, "model"),
        ({"payment_year": 2019}, errors.UnknownReleaseError, "payment_year"),
        ({"payment_year": None}, errors.InvalidFieldError, "payment_year"),
        ({"payment_year": 10**30}, errors.InvalidFieldError, "payment_year"),
        ({"fbdual": True, "pbdual": True}, errors.InvalidFieldError, "pbdual"),
        ({"lti": "yes"}, errors.InvalidFieldError, "lti"),
        ({"ltimcaid": 2}, errors.InvalidFieldError, "ltimcaid"),
        ({"skip_mce_edits": 1.0}, errors.InvalidFieldError, "skip_mce_edits"),
        ({"diagnoses": "E119"}, errors.InvalidFieldError, "diagnoses"),
        ({"diagnoses": ["E119", None]}, errors.InvalidFieldError, "diagnoses"),
        ({"diagnoses": 7}, errors.InvalidFieldError, "diagnoses"),
        ({"member_id": 7}, errors.InvalidFieldError, "member_id"),
    ],
)
def test_one_bad_member_has_its_error_and_the_others_their_answers(
    library: engine.Library, wrong: Mapping[str, Any], error: type[errors.CodesetError], field: str
) -> None:
    results = library.score_hcc_many([SOUND, SOUND | wrong, SOUND])
    assert results[0].to_dict() == results[2].to_dict()
    assert results[0].error is None
    assert type(results[1].error) is error
    assert results[1].error.field == field
    assert list(results.errors) == [1]
    assert results[1].to_dict()["error"]["code"] == error.code
    with pytest.raises(error):
        results[1].score("COMMUNITY_NA")


@pytest.mark.parametrize("member", [None, 5, ["E119"], SimpleNamespace(model="V28")])
def test_what_is_no_member_at_all(library: engine.Library, member: Any) -> None:
    result = library.score_hcc(member)
    assert isinstance(result.error, errors.InvalidFieldError)


@pytest.mark.parametrize("members", [SOUND, "V28", None, 5])
def test_a_batch_that_is_none_is_refused(library: engine.Library, members: Any) -> None:
    with pytest.raises(errors.InvalidFieldError):
        library.score_hcc_many(members)


def test_nobody_is_scored_in_an_empty_batch(library: engine.Library) -> None:
    assert len(library.score_hcc_many([])) == 0
    assert library.score_hcc(SOUND | {"diagnoses": []}).hccs == ()
    assert library.score_hcc(SOUND | {"diagnoses": ["E119"] * 60000}).hccs == ("38",)


def test_errors_say_what_is_there(library: engine.Library) -> None:
    model = library.score_hcc(SOUND | {"model": "V25"}).error
    assert "ESRD_V24" in str(model)
    year = library.score_hcc(SOUND | {"payment_year": 2023}).error
    assert "2024, 2025, 2026, 2027" in str(year)
    assert "E119" not in str(library.score_hcc(SOUND | {"diagnoses": ["E119", 5]}).error)


# --- compiled tables ------------------------------------------------------------------------------------------------


def test_names_that_are_none_of_the_models_are_source_errors(importer: hcc.Importer) -> None:
    tables = importer.model_year("V28", 2026)
    broken = HccTables(
        **{name: getattr(tables, name) for name in HccTables.__dataclass_fields__}
        | {"interactions": [*tables.interactions, ("HF_HCC999", "HF_V28", "HCC999")]}
    )
    with pytest.raises(errors.SourceFormatError, match="HCC999"):
        compile_hcc(broken)


def test_hostile_indices_never_crash(store: Path, tmp_path: Path) -> None:
    """Numbers in the arrays are overwritten and the checksums made right again: opening refuses, or scoring stays in
    bounds."""
    script = Path(__file__).with_name("hcc_hostile.py")
    done = subprocess.run(
        [sys.executable, str(script), str(store), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    tried, refused, scored = map(int, done.stdout.split()[-3:])
    assert tried == refused + scored
    assert tried >= 300
    assert refused >= 100
