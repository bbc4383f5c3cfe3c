"""The Medicare Code Editor against the answers of the CMS software, against a plain-Python oracle, and against bad
input."""

from __future__ import annotations

import datetime
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mce_oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from codesets import build
from engine import compile_mce, errors, mce, pack
from engine.mce import EDITS, AgeConflict, EditingOptions, EditType, MceEdit
from engine.tables import AgeRange, DischargeStatus, FlaggedCode, MceTables

REFERENCE = EditingOptions("43.1")
CLAIM = {
    "claim_id": "c",
    "discharge_date": 20260401,
    "age": 60,
    "sex": "SEX_FEMALE",
    "discharge_status": 1,
    "length_of_stay": 3,
    "diagnoses": ["I5021"],
    "procedures": [],
}
OLD = {**CLAIM, "icd_version": 9, "discharge_date": 20100101, "diagnoses": ["4280"]}


@pytest.fixture(scope="module")
def library(store: Path) -> engine.Library:
    return engine.open(store)


def names(edits: Any) -> list[str]:
    return [edit.name for edit in edits]


# --- the reference --------------------------------------------------------------------------------------------------


def test_every_answer_is_that_of_the_reference(
    library: engine.Library, mce_golden: Any, plain_edits: Callable[[Any], Any]
) -> None:
    results = library.edit_claims_many(mce_golden.claims, REFERENCE)
    assert not results.errors
    for result, answer in zip(results, mce_golden.answers, strict=True):
        assert plain_edits(result.to_dict()) == answer


def test_the_sample_reaches_every_edit(mce_sample: Any, mce_set: str) -> None:
    if mce_set == "mce_claims":
        reached = {edit for answer in mce_sample.answers for edit in answer["edits"]}
        assert reached == {mce_name(edit) for edit in MceEdit}
        assert {claim.get("icd_version", 10) for claim in mce_sample.claims} == {9, 10}
        assert {answer["edit_type"] for answer in mce_sample.answers} == {kind.name for kind in EditType}


def mce_name(edit: MceEdit) -> str:
    return "UNSPECIFIED" if edit is MceEdit.UNSPECIFIED_CODE else edit.name


def test_both_releases_agree_up_to_the_end_of_the_older(library: engine.Library, mce_sample: Any) -> None:
    claims = [claim for claim in mce_sample.claims if claim["discharge_date"] <= 20260930]
    older = library.edit_claims_many(claims, REFERENCE)
    newer = library.edit_claims_many(claims, EditingOptions("44.0"))
    assert (older.table == newer.table).all()
    assert (older.diagnoses == newer.diagnoses).all()
    assert (older.procedures == newer.procedures).all()


def test_the_newest_release_edits_unless_one_is_named(library: engine.Library) -> None:
    claim = {**CLAIM, "discharge_date": 20261001}
    result = library.edit_claim(claim)
    assert (result.editor_release, result.edit_type) == ("44.0", EditType.NONE)
    result = library.edit_claim(claim, REFERENCE)
    assert (result.editor_release, result.edit_type) == ("43.1", EditType.INVALID_DISCHARGE_DATE)
    assert library.mce_editor("43.1").version == 431
    assert library.mce_editor().termination == 20270331
    with pytest.raises(errors.UnknownReleaseError, match=r"43\.1, 44\.0") as raised:
        library.edit_claims_many([claim], EditingOptions("12.0"))
    assert raised.value.field == "editor_release"


# --- single rules ---------------------------------------------------------------------------------------------------


def test_edits_come_in_the_order_they_are_raised(library: engine.Library) -> None:
    # Z370: adult and maternity flags; O3680X1 as principal diagnosis of a boy.
    result = library.edit_claim(
        {**CLAIM, "discharge_date": 20200101, "sex": "MALE", "age": 5, "diagnoses": ["O3680X1", "O3680X1", "nonsense"]}
    )
    assert names(result.diagnosis_edits[0].edits) == ["UNACCEPTABLE_PDX", "AGE_CONFLICT", "SEX_CONFLICT"]
    assert names(result.diagnosis_edits[1].edits) == ["DUPLICATE_OF_PDX", "AGE_CONFLICT", "SEX_CONFLICT"]
    assert result.diagnosis_edits[2] == ("nonsense", (MceEdit.INVALID_CODE,))
    assert result.age_conflicts == (AgeConflict.MATERNITY, AgeConflict.MATERNITY, AgeConflict.NONE)
    assert {found.edit.name: found.count for found in result.edits} == {
        "INVALID_CODE": 1,
        "SEX_CONFLICT": 2,
        "AGE_CONFLICT": 2,
        "UNACCEPTABLE_PDX": 1,
        "DUPLICATE_OF_PDX": 1,
    }
    assert [found.edit for found in result.edits] == sorted(found.edit for found in result.edits)


def test_conflicts_of_the_admitting_diagnosis_are_not_counted(library: engine.Library) -> None:
    result = library.edit_claim({**CLAIM, "discharge_date": 20200101, "age": 5, "admit_diagnosis": "N400"})
    assert names(result.admit_edits) == ["AGE_CONFLICT", "SEX_CONFLICT"]
    assert result.admit_age_conflict is AgeConflict.ADULT
    assert result.edits == ()
    assert result.edit_type is EditType.NONE
    result = library.edit_claim({**CLAIM, "admit_diagnosis": "nonsense"})
    assert names(result.admit_edits) == ["INVALID_ADMIT_DX"]
    assert result.edit_type is EditType.NONE
    assert [(found.edit.name, found.count) for found in result.edits] == [("INVALID_ADMIT_DX", 1)]


def test_bilateral_is_counted_once(library: engine.Library) -> None:
    claim = {**OLD, "diagnoses": ["71595"], "procedures": ["8151", "8154", "8151"]}
    result = library.edit_claim(claim)
    assert [names(code.edits) for code in result.procedure_edits] == [["BILATERAL"]] * 3
    assert [(found.edit.name, found.count) for found in result.edits] == [("BILATERAL", 1)]
    assert result.edit_type is EditType.POSTPAYMENT
    # The same joint twice is one joint.
    assert library.edit_claim({**claim, "procedures": ["8151", "8151"]}).edits == ()


@pytest.mark.parametrize(
    ("given", "day"),
    [
        (20250231, 20250228),
        (20240231, 20240229),
        (20250431, 20250430),
        ("20250101", 20250101),
        (" \t20250101\x00", 20250101),
        ("+020250101", 20250101),
        (datetime.date(2025, 1, 1), 20250101),
        ("20250231", 20250228),
    ],
)
def test_dates_are_read_as_cms_reads_them(library: engine.Library, given: Any, day: int) -> None:
    from engine import _core, _mce

    assert _mce.day_of(given) == _core.day_number(day)
    assert library.edit_claim({**CLAIM, "discharge_date": given}).edit_type is EditType.NONE


@pytest.mark.parametrize(
    "given",
    [0, None, 19850930, 20270401, 20251301, 20250001, 20250100, 20250132, 2025010, 202501011, -20250101, 1 << 80, "",
     "2025-01-01", "2025 0101", "+20250101", "-020250101", "٢٠٢٥٠١٠١", "02025010", "+99999999999999999990101"],
)  # fmt: skip
def test_other_dates_stop_the_claim(library: engine.Library, given: Any) -> None:
    result = library.edit_claim({**CLAIM, "sex": None, "discharge_date": given, "admit_diagnosis": "x"})
    assert result.error is None
    assert result.edit_type is EditType.INVALID_DISCHARGE_DATE
    assert (result.edits, result.admit_edits) == ((), ())
    assert [code.edits for code in result.diagnosis_edits] == [()]


@pytest.mark.parametrize(
    ("code", "same", "valid"),
    [
        ("I5021", "I5021", True),
        ("I50.21", "I5021", True),
        ("i5021", "i5021", True),
        (" I5021", " I5021", False),
        ("I5021 ", "I5021 ", False),
        ("I50 21", "I50 21", False),
        ("I5021\x00", "I5021\x00", False),
        ("\u01315021", "\u01315021", True),  # upper case of the dotless i is the plain I
        ("\uff21000", "\uff21000", False),  # a wide A
        ("I5021I5021", "I5021I50.21", False),
        ("é", "é", False),
    ],
)
def test_codes_are_compared_as_cms_does(library: engine.Library, code: str, same: str, valid: bool) -> None:
    """Case does not matter to validity, but to what is a duplicate; blanks matter to both. Dots never do."""
    result = library.edit_claim({**CLAIM, "diagnoses": [code, same, "I5021", "E119"]})
    assert (MceEdit.INVALID_CODE in result.diagnosis_edits[0].edits) is not valid
    duplicates = [MceEdit.DUPLICATE_OF_PDX in found.edits for found in result.diagnosis_edits]
    assert duplicates == [False, True, code in ("I5021", "I50.21"), False]
    assert result.diagnosis_edits[0].code == code


@pytest.mark.parametrize("code", ["", "  ", "\t\x00\x1f", "0", "0000000", "000000000000"])
def test_blanks_and_zeros_pass_but_as_principal_diagnosis(library: engine.Library, code: str) -> None:
    result = library.edit_claim({**CLAIM, "diagnoses": ["I5021", code], "procedures": [code], "admit_diagnosis": code})
    assert result.edits == ()
    assert result.admit_edits == ()
    result = library.edit_claim({**CLAIM, "diagnoses": [code, code, "I5021"]})
    assert [names(found.edits) for found in result.diagnosis_edits] == [["INVALID_CODE"], ["DUPLICATE_OF_PDX"], []]


@pytest.mark.parametrize("code", [".", "0 ", " 0", "0A"])
def test_what_is_neither_blank_nor_zeros_is_invalid(library: engine.Library, code: str) -> None:
    result = library.edit_claim({**CLAIM, "diagnoses": ["I5021", code]})
    assert names(result.diagnosis_edits[1].edits) == ["INVALID_CODE"]


def test_any_icd_version_but_9_is_10(library: engine.Library) -> None:
    for edition in (None, 0, 10, 11):
        assert library.edit_claim({**CLAIM, "icd_version": edition}).edit_type is EditType.NONE
    assert library.edit_claim({**CLAIM, "icd_version": 9}).edit_type is EditType.PREPAYMENT
    assert library.edit_claim(OLD).edit_type is EditType.NONE


def test_suppressed_edits(library: engine.Library) -> None:
    claim = {**CLAIM, "diagnoses": ["nonsense", "nonsense", "bad"], "procedures": ["bad"], "admit_diagnosis": "bad"}
    options = EditingOptions(suppress_on_principal=["INVALID_CODE"])
    result = library.edit_claim(claim, options)
    assert [names(found.edits) for found in result.diagnosis_edits] == [
        [],
        ["INVALID_CODE", "DUPLICATE_OF_PDX"],
        ["INVALID_CODE"],
    ]
    options = EditingOptions(suppress_on_secondary=[1, MceEdit.INVALID_ADMIT_DX], suppress_on_procedures=[1])
    result = library.edit_claim(claim, options)
    assert [names(found.edits) for found in result.diagnosis_edits] == [["INVALID_CODE"], ["DUPLICATE_OF_PDX"], []]
    assert result.admit_edits == ()
    assert result.procedure_edits[0].edits == ()
    # A non-covered procedure has no limited coverage, unless it is not to be called non-covered.
    heart = {**OLD, "procedures": ["3752"]}
    assert names(library.edit_claim(heart).procedure_edits[0].edits) == ["NON_COVERED"]
    result = library.edit_claim(heart, EditingOptions(suppress_on_procedures=["MCE_EDIT_NON_COVERED"]))
    assert names(result.procedure_edits[0].edits) == ["LIMITED_COVERAGE_ARTIFICIAL_HEART"]


def test_suppressing_hides_what_it_lists_and_nothing_else(library: engine.Library, mce_sample: Any) -> None:
    plain = library.edit_claims_many(mce_sample.claims, REFERENCE)
    hidden = [edit for edit in MceEdit if edit not in (MceEdit.NON_COVERED, MceEdit.BILATERAL)]
    options = EditingOptions("43.1", hidden, hidden, hidden)
    left = library.edit_claims_many(mce_sample.claims, options)
    kept = np.uint64(1 << (MceEdit.NON_COVERED - 1) | 1 << (MceEdit.BILATERAL - 1))
    ages = np.uint64(0xF << 60)
    assert (left.procedures == plain.procedures & kept).all()
    assert (left.diagnoses == plain.diagnoses & ages).all()


@pytest.mark.parametrize("edits", ["INVALID_CODE", ["NO_SUCH_EDIT"], [0], [31], [None], [2.5]])
def test_an_unknown_edit_cannot_be_suppressed(library: engine.Library, edits: Any) -> None:
    with pytest.raises(errors.InvalidFieldError, match="suppress_on_procedures") as raised:
        library.edit_claims_many([CLAIM], EditingOptions(suppress_on_procedures=edits))
    assert raised.value.field == "suppress_on_procedures"


# --- the table of edits ---------------------------------------------------------------------------------------------


def test_every_edit_is_described() -> None:
    assert list(EDITS) == list(MceEdit)
    post = {edit.name for edit, info in EDITS.items() if info.payment is EditType.POSTPAYMENT}
    assert post == mce_oracle.POSTPAYMENT
    assert [edit.name for edit, info in EDITS.items() if info.payment is EditType.NONE] == ["INVALID_ADMIT_DX"]
    for edit, info in EDITS.items():
        assert info.number == edit - 1
        for text in (info.title, info.meaning, info.action):
            assert text == text.strip()
        assert info.meaning.endswith(".")
        assert info.action.endswith(".")
        assert info.raised_on
    assert len({info.title for info in EDITS.values()}) == len(EDITS)


def test_the_table_says_where_edits_are_raised(mce_golden: Any) -> None:
    where: dict[str, set[str]] = {}
    editions: dict[str, set[int]] = {}
    for claim, answer in zip(mce_golden.claims, mce_golden.answers, strict=True):
        for edit in answer["admit_edits"]:
            where.setdefault(edit, set()).add("admitting diagnosis")
        for i, edits in enumerate(answer["diagnosis_edits"]):
            for edit in edits:
                where.setdefault(edit, set()).add("secondary diagnosis" if i else "principal diagnosis")
        for edits in answer["procedure_edits"]:
            for edit in edits:
                where.setdefault(edit, set()).add("procedure")
        for edit in answer["edits"]:
            editions.setdefault(edit, set()).add(claim.get("icd_version", 10))
    for edit, info in EDITS.items():
        assert where.get(mce_name(edit), set()) <= set(info.raised_on)
        assert editions.get(mce_name(edit), set()) <= set(info.icd_versions)


# --- missing fields -------------------------------------------------------------------------------------------------

VENTILATED = {**CLAIM, "procedures": ["5A1955Z"]}


@pytest.mark.parametrize(
    ("claim", "field"),
    [
        ({**CLAIM, "age": None}, "age"),
        ({**CLAIM, "age": None, "diagnoses": [], "admit_diagnosis": "I5021"}, "age"),
        ({**CLAIM, "sex": None}, "sex"),
        ({**CLAIM, "sex": 0}, "sex"),
        ({**CLAIM, "sex": "SEX_UNSPECIFIED"}, "sex"),
        ({**CLAIM, "sex": None, "diagnoses": [], "procedures": ["bad"]}, "sex"),
        ({**CLAIM, "sex": None, "diagnoses": [], "admit_diagnosis": " "}, "sex"),
        ({**CLAIM, "discharge_status": None}, "discharge_status"),
        ({**VENTILATED, "length_of_stay": None}, "length_of_stay"),
        ({**OLD, "discharge_date": 20130101, "procedures": ["9672"], "length_of_stay": None}, "length_of_stay"),
    ],
)
def test_a_field_without_which_cms_fails_is_the_claims_error(
    library: engine.Library, claim: dict[str, Any], field: str
) -> None:
    without = {name: value for name, value in claim.items() if value is not None}
    for lacking in (claim, without):
        results = library.edit_claims_many([CLAIM, lacking, CLAIM])
        assert list(results.errors) == [1]
        result = results[1]
        assert isinstance(result.error, errors.MissingFieldError)
        assert (result.error.code, result.error.field, result.claim_id) == ("MISSING_FIELD", field, "c")
        assert field in str(result.error)
        assert result.edit_type is None
        assert result.to_dict()["error"]["field"] == field
        assert results[0].edit_type is results[2].edit_type is EditType.NONE


@pytest.mark.parametrize(
    ("changes", "edits"),
    [
        ({"diagnoses": [], "age": None}, ["INVALID_AGE"]),
        ({"diagnoses": [], "sex": None}, ["INVALID_SEX"]),
        ({"diagnoses": [], "discharge_status": None, "procedures": ["5A1955Z"], "length_of_stay": 9},
         ["INVALID_DISCHARGE_STATUS"]),
        ({"diagnoses": [], "discharge_status": None, "admit_diagnosis": "I5021"}, ["INVALID_DISCHARGE_STATUS"]),
        ({"length_of_stay": None}, []),
        # 5A1955Z is no code before 2015-10-01 and so has no flags.
        ({"discharge_date": 20150930, "procedures": ["5A1955Z"], "diagnoses": [], "length_of_stay": None},
         ["INVALID_CODE"]),
        ({"length_of_stay": -3, "procedures": ["5A1955Z"]}, ["INCONSISTENT_WITH_LENGTH_OF_STAY"]),
        ({"age": -1}, ["INVALID_AGE"]),
        ({"age": 125}, ["INVALID_AGE"]),
        ({"discharge_status": 0}, ["INVALID_DISCHARGE_STATUS"]),
        ({"discharge_status": -1}, ["INVALID_DISCHARGE_STATUS"]),
        ({"discharge_status": 256}, ["INVALID_DISCHARGE_STATUS"]),
        ({"sex": "SEX_UNKNOWN"}, []),
        ({"sex": 3, "discharge_date": 20240930}, ["INVALID_SEX"]),
    ],
)  # fmt: skip
def test_what_cms_answers_without_or_with_odd_fields(
    library: engine.Library, changes: dict[str, Any], edits: list[str]
) -> None:
    result = library.edit_claim({**CLAIM, **changes})
    assert result.error is None
    assert [found.edit.name for found in result.edits] == edits


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"discharge_date": [20260401]}, "discharge_date"),
        ({"discharge_date": True}, "discharge_date"),
        ({"discharge_date": 2026.0}, "discharge_date"),
        ({"age": "60"}, "age"),
        ({"age": True}, "age"),
        ({"age": 1 << 31}, "age"),
        ({"age": -(1 << 70)}, "age"),
        ({"length_of_stay": 2.0}, "length_of_stay"),
        ({"discharge_status": "01"}, "discharge_status"),
        ({"sex": "other"}, "sex"),
        ({"sex": 4}, "sex"),
        ({"sex": []}, "sex"),
        ({"icd_version": "9"}, "icd_version"),
        ({"claim_id": 5}, "claim_id"),
        ({"admit_diagnosis": 5}, "admit_diagnosis"),
        ({"diagnoses": "I5021"}, "diagnoses"),
        ({"diagnoses": [None]}, "diagnoses"),
        ({"diagnoses": [b"I5021"]}, "diagnoses"),
        ({"diagnoses": {"I5021": 1}}, "diagnoses"),
        ({"diagnoses": 5}, "diagnoses"),
        ({"procedures": ["5A1955Z", 5]}, "procedures"),
        ({"diagnoses": ["I5021"] * 65536}, "diagnoses"),
    ],
)
def test_bad_input_is_an_error_of_its_claim_alone(library: engine.Library, changes: dict[str, Any], field: str) -> None:
    results = library.edit_claims_many([CLAIM, {**CLAIM, **changes}, CLAIM])
    assert list(results.errors) == [1]
    error = results[1].error
    assert isinstance(error, errors.InvalidFieldError)
    assert error.field == field
    assert results[0].edit_type is results[2].edit_type is EditType.NONE
    assert results[0].diagnosis_edits == results[2].diagnosis_edits == (("I5021", ()),)


@pytest.mark.parametrize("claims", [None, 5, "claims", b"claims", CLAIM])
def test_what_is_no_batch_raises(library: engine.Library, claims: Any) -> None:
    with pytest.raises(errors.InvalidFieldError, match="claims"):
        library.edit_claims_many(claims)
    with pytest.raises(errors.InvalidFieldError, match="claims"):
        library.edit_and_group_many(claims)


@pytest.mark.parametrize("claim", [None, 5, "claim", object()])
def test_what_is_no_claim_is_an_error(library: engine.Library, claim: Any) -> None:
    (result,) = library.edit_claims_many([claim])
    assert isinstance(result.error, errors.InvalidFieldError)
    assert result.claim_id == ""


def test_a_batch_may_be_empty_or_an_iterator(library: engine.Library) -> None:
    assert list(library.edit_claims_many([])) == []
    assert len(library.edit_claims_many(dict(CLAIM) for _ in range(3))) == 3
    assert len(library.edit_and_group_many(dict(CLAIM) for _ in range(3))) == 3


def test_claims_of_every_form_are_the_same_claim(library: engine.Library) -> None:
    from engine._pb.codeset.v1 import grouping_pb2

    changes = {"diagnoses": ("Z370", "E119"), "procedures": ["bad"], "admit_diagnosis": "bad"}
    mapping = {**CLAIM, **changes}
    with_names = engine.InpatientClaim(**mapping)
    message = grouping_pb2.InpatientClaim(**mapping)
    answers = [result.to_dict() for result in library.edit_claims_many([mapping, with_names, message])]
    assert answers[0] == answers[1] == answers[2]
    # A number that is not in a message is missing, not zero.
    assert library.edit_claim(grouping_pb2.InpatientClaim(sex="SEX_MALE", discharge_date=20260401)).edit_type is (
        EditType.PREPAYMENT
    )
    message.ClearField("age")
    assert library.edit_claim(message).to_dict()["error"]["field"] == "age"
    message.age = 0
    assert library.edit_claim(message).error is None


def test_claims_have_any_number_of_codes(library: engine.Library) -> None:
    result = library.edit_claim({**CLAIM, "diagnoses": ["I5021"] * 5001, "procedures": ["bad"] * 3000})
    assert {found.edit.name: found.count for found in result.edits} == {
        "DUPLICATE_OF_PDX": 5000,
        "INVALID_CODE": 3000,
    }


def test_results_are_a_sequence(library: engine.Library, mce_sample: Any) -> None:
    results = library.edit_claims_many(mce_sample.claims[:50], REFERENCE)
    one_by_one = [library.edit_claim(claim, REFERENCE) for claim in mce_sample.claims[:50]]
    assert list(results) == one_by_one
    assert results[-1] == one_by_one[-1]
    assert results[10:20] == one_by_one[10:20]
    with pytest.raises(IndexError):
        results[50]


def test_threads_share_one_library(library: engine.Library, mce_sample: Any) -> None:
    expected = library.edit_claims_many(mce_sample.claims, REFERENCE)
    differing: list[int] = []

    def hammer(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(mce_sample.claims))
        results = library.edit_claims_many([mce_sample.claims[i] for i in order], REFERENCE)
        if not (results.table == expected.table[order]).all():
            differing.append(seed)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differing == []


# --- edit and group -------------------------------------------------------------------------------------------------


def test_edit_and_group_is_both_answers(
    library: engine.Library, sample: Any, without_prefix: Callable[[Any], Any], plain_edits: Callable[[Any], Any]
) -> None:
    pairs = library.edit_and_group_many(sample.claims[:500], REFERENCE)
    assert len(pairs) == 500
    edited = library.edit_claims_many(sample.claims[:500], REFERENCE)
    assert [pair[0] for pair in pairs] == list(edited)
    for (_, grouped), answer in zip(pairs, sample.answers, strict=False):
        assert without_prefix(grouped.to_dict()) == answer
    assert pairs[3] == pairs[3:4][0]


def test_an_error_of_one_answer_leaves_the_other(library: engine.Library) -> None:
    claims = [{**CLAIM, "age": None}, {**CLAIM, "poa": "YYYY"}, CLAIM]
    (no_age, grouped), (edited, bad_poa), both = library.edit_and_group_many(claims)
    assert isinstance(no_age.error, errors.MissingFieldError)
    assert grouped.drg == 293
    assert edited.edit_type is EditType.NONE
    assert isinstance(bad_poa.error, errors.PoaLengthError)
    assert both[0].error is both[1].error is None


# --- the oracle -----------------------------------------------------------------------------------------------------

DAYS = [19851001, 20060425, 20060426, 20240930, 20241001, 20260930]
DX = ["A00", "A01", "B02", "b02", "00", "A9", " ", "nonsense", "x y", ""]
PX = ["0A1", "0A2", "0B3", "0b3", "000", "0C4", "longer than any"]
DX_FLAGS = [*compile_mce.FLAGS[:29], "cc"]
PX_FLAGS = [*compile_mce.FLAGS[:8], *compile_mce.FLAGS[29:], "bmi"]


@st.composite
def rows(draw: st.DrawFn, codes: list[str], flags: list[str]) -> list[FlaggedCode]:
    """Rows of a code master, some overlapping: then the first counts."""
    found = []
    for code in sorted({code.upper() for code in codes if code.isalnum() and len(code) <= 8}):
        for _ in range(draw(st.integers(0, 2))):
            first, last = sorted(draw(st.lists(st.sampled_from([*DAYS, 19900101, 20200101]), min_size=2, max_size=2)))
            own = draw(st.sets(st.sampled_from(flags), max_size=6))
            found.append(FlaggedCode(code, first, last, tuple(sorted(own))))
    return found


@st.composite
def made_up_tables(draw: st.DrawFn) -> MceTables:
    return MceTables(
        release="43.1",
        version=431,
        termination=20260930,
        icd10_diagnoses=draw(rows(DX, DX_FLAGS)),
        icd10_procedures=draw(rows(PX, PX_FLAGS)),
        icd9_diagnoses=draw(rows(DX, DX_FLAGS)),
        icd9_procedures=draw(rows(PX, PX_FLAGS)),
        age_ranges=[
            AgeRange(group, *sorted(draw(st.tuples(st.integers(0, 124), st.integers(0, 124)))), *span)
            for group in compile_mce.AGE_GROUPS
            for span in ((19840301, 20060425), (20060426, 20260930))
        ],
        discharge_statuses=[
            DischargeStatus(1, 19801001, 20260930),
            DischargeStatus(10, 19931001, 20030930),
            DischargeStatus(10, 20051001, 20060425),
            DischargeStatus(20, 19801001, 20260930),
        ],
    )


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, values, values, values, values, st.none())


CLAIMS = st.fixed_dictionaries(
    {
        "discharge_date": st.sampled_from([*DAYS, *DAYS, 20240931, 19850930, 20261001, 0]),
        "age": optional(st.one_of(st.integers(-1, 125), st.sampled_from([60, 61, 63, 64, 77, 78]))),
        "sex": optional(st.sampled_from(["MALE", "FEMALE", "UNKNOWN"])),
        "discharge_status": optional(st.sampled_from([1, 10, 20, 99, 0, 300])),
        "length_of_stay": optional(st.integers(-1, 6)),
        "icd_version": st.sampled_from([9, 10]),
        "admit_diagnosis": st.sampled_from([*DX, None]),
        "diagnoses": st.lists(st.sampled_from(DX), max_size=5),
        "procedures": st.lists(st.sampled_from(PX), max_size=4),
    }
).map(lambda claim: {name: value for name, value in claim.items() if value is not None})

SUPPRESSED = st.fixed_dictionaries(
    {kind: st.sets(st.sampled_from(list(MceEdit)), max_size=4) for kind in ("pdx", "sdx", "px")}
)


@settings(max_examples=150, deadline=None)
@given(tables=made_up_tables(), claims=st.lists(CLAIMS, min_size=1, max_size=25), suppressed=SUPPRESSED)
def test_made_up_tables_edit_as_the_oracle_does(
    tmp_path_factory: pytest.TempPathFactory,
    tables: MceTables,
    claims: list[dict[str, Any]],
    suppressed: dict[str, set[MceEdit]],
) -> None:
    path = build.write_mce(tables, tmp_path_factory.mktemp("mce"))
    editor = mce.MceEditor(pack.open_pack(path))
    options = EditingOptions("", *(sorted(suppressed[kind]) for kind in ("pdx", "sdx", "px")))
    hidden = {kind: {mce_name(edit) for edit in edits} for kind, edits in suppressed.items()}
    for claim, result in zip(claims, mce.edit_many(claims, editor, options), strict=True):
        if isinstance(result.error, errors.MissingFieldError):
            with pytest.raises(mce_oracle.MissingError, match=result.error.field):
                mce_oracle.edit(tables, claim, hidden)
            continue
        expected = mce_oracle.edit(tables, claim, hidden)
        assert result.error is None
        assert {
            "edit_type": result.edit_type.name,
            "edits": {mce_name(found.edit): found.count for found in result.edits},
            "admit_edits": [mce_name(edit) for edit in result.admit_edits],
            "diagnosis_edits": [[mce_name(edit) for edit in code.edits] for code in result.diagnosis_edits],
            "age_conflicts": [conflict.name for conflict in result.age_conflicts],
            "procedure_edits": [[mce_name(edit) for edit in code.edits] for code in result.procedure_edits],
        } == expected


# --- compiled tables ------------------------------------------------------------------------------------------------


def smallest_tables() -> MceTables:
    ages = [AgeRange(group, 0, 124, 19840301, 20260930) for group in compile_mce.AGE_GROUPS]
    return MceTables("43.1", 431, 20260930, [], [], [], [], ages, [])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"icd10_diagnoses": [FlaggedCode("A0000000X", 20200101, 20200101, ())]}, "A0000000X"),
        ({"icd10_diagnoses": [FlaggedCode("é", 20200101, 20200101, ())]}, "ASCII"),
        ({"icd10_procedures": [FlaggedCode("", 20200101, 20200101, ())]}, "without a code"),
        ({"icd9_diagnoses": [FlaggedCode("A", 20200230, 20200301, ())]}, "20200230"),
        ({"termination": 19850930}, "19850930"),
        ({"version": 70000}, "70000"),
        ({"discharge_statuses": [DischargeStatus(256, 20200101, 20200102)]}, "256"),
        ({"age_ranges": []}, "'pediatric'"),
        ({"age_ranges": [AgeRange(g, 0, 9, 19840301, 20260929) for g in compile_mce.AGE_GROUPS]}, "'pediatric'"),
    ],
)
def test_tables_that_cannot_be_compiled_are_a_source_error(changes: dict[str, Any], complaint: str) -> None:
    tables = smallest_tables()
    compile_mce.compile_mce(tables)
    for name, value in changes.items():
        setattr(tables, name, value)
    with pytest.raises(errors.SourceFormatError, match=complaint):
        compile_mce.compile_mce(tables)


def test_hostile_indices_never_crash(store: Path, tmp_path: Path) -> None:
    """Numbers in the arrays are overwritten and the checksums made right again: opening refuses, or editing stays in
    bounds."""
    script = Path(__file__).with_name("mce_hostile.py")
    done = subprocess.run(
        [sys.executable, str(script), str(store), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    tried, refused, edited = map(int, done.stdout.split()[-3:])
    assert tried == refused + edited
    assert tried >= 200
    assert refused >= 50


def test_read_together_is_as_read_alone(library: engine.Library, mce_sample: Any) -> None:
    """Each reader keeps its own complaints, whether it is the mapping, one field or one code that is wrong."""

    class Brief:
        """What the editor asks for, and not all that the grouper does."""

        def __init__(self, claim: dict[str, Any]) -> None:
            self.__dict__.update({"admit_diagnosis": "", **claim})
            self.__dict__.pop("poa", None)

    wrong: list[Any] = [
        {"version": "9.9"},
        {"age": -1},
        {"age": "60"},
        {"sex": "F"},
        {"discharge_status": -1},
        {"discharge_status": 1 << 31},
        {"hospital_status": 9},
        {"length_of_stay": -3},
        {"icd_version": "10"},
        {"claim_id": 7},
        {"diagnoses": ["I130", 5]},
        {"diagnoses": "I130"},
        {"procedures": ("02YA0Z0", None)},
        {"procedures": ["Z"] * 65_536},
        {"poa": "YN"},
        {"poa": 5},
    ]
    sane = [{**claim, "version": "43.1"} for claim in mce_sample.claims[: len(wrong)]]
    claims: list[Any] = [None, 7]
    for claim, change in zip(sane, wrong, strict=True):
        claims += [{**claim, **change}, claim, Brief(claim), engine.InpatientClaim(**{**claim, **change})]
    both = library.edit_and_group_many(claims)
    edited, grouped = library.edit_claims_many(claims), library.group_drg_many(claims)
    assert [result.to_dict() for result in both.edited] == [result.to_dict() for result in edited]
    assert [result.to_dict() for result in both.grouped] == [result.to_dict() for result in grouped]
    assert min(len(edited.errors), len(grouped.errors)) > 10
    assert edited.errors.keys() - grouped.errors.keys()
    assert grouped.errors.keys() - edited.errors.keys()
    generated = library.edit_and_group_many(claim for claim in sane)
    assert [pair[0].to_dict() for pair in generated] == [result.to_dict() for result in library.edit_claims_many(sane)]


def test_batches_that_do_not_belong_together_are_refused() -> None:
    from engine import _mce, _msdrg

    claims: list[Any] = [CLAIM]
    later = _msdrg.ClaimBatch(claims, lambda version, date: 0, later=True)
    assert len(later) == 0
    with pytest.raises(IndexError):
        later.grouper(0)
    with pytest.raises(ValueError, match="same claims"):
        _mce.EditBatch([CLAIM], later)
    assert len(_mce.EditBatch(claims, later)) == len(later) == 1
    with pytest.raises(ValueError, match="none of them read"):
        _mce.EditBatch(claims, later)


def test_editors_and_batches_are_whole_from_the_start() -> None:
    from engine import _mce, _msdrg

    for kind in (_mce.Editor, _mce.EditBatch, _msdrg.ClaimBatch):
        with pytest.raises(TypeError):
            kind.__new__(kind)  # type: ignore[call-arg]
