"""Every method, through both clients, over a socket."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from fake_library import DRG_TITLE, FakeLibrary

import engine.drg
from engine import errors
from engine.client import (
    CodeStatus,
    DrgOptions,
    InpatientClaim,
    NodeKind,
    NoteKind,
    ReturnCode,
    Subsumption,
    raise_for_error,
    to_dict,
)
from engine.drg import GroupingOptions

Call = Callable[..., Any]

CLAIM = {
    "claim_id": "c1",
    "version": "43.1",
    "discharge_date": 20261001,
    "age": 0,
    "sex": "SEX_FEMALE",
    "discharge_status": 1,
    "hospital_status": "HOSPITAL_STATUS_EXEMPT",
    "length_of_stay": 2,
    "diagnoses": ["A000", "A001"],
    "poa": "YN",
    "procedures": ["0DB68ZX"],
}


def test_validate(call: Call) -> None:
    found = call("validate", "icd10cm", "a00.0", date=datetime.date(2026, 10, 2))
    assert (found.code, found.normalized, found.system, found.release) == ("a00.0", "A000", "icd10cm", "2027")
    assert found.status == CodeStatus.CODE_STATUS_VALID
    assert found.valid
    assert found.date == 20261002
    assert found.effective_from == 20151001
    assert found.effective_to == 0
    assert not found.HasField("error")


def test_validate_says_what_is_wrong_as_an_answer(call: Call) -> None:
    assert call("validate", "icd10cm", "Z999").status == CodeStatus.CODE_STATUS_UNKNOWN
    assert call("validate", "icd10cm", "").status == CodeStatus.CODE_STATUS_MALFORMED


def test_validate_many_keeps_order_and_items_of_their_own(call: Call) -> None:
    codes = ["A000", "nothing", {"code": "A001", "date": 20200101}, {"code": "A009", "system": "icd10cm"}]
    found = call("validate_many", "icd10cm", codes * 50, date=20261001)
    assert [f.code for f in found] == ["A000", "nothing", "A001", "A009"] * 50
    assert [f.date for f in found[:4]] == [20261001, 20261001, 20200101, 20261001]
    assert [f.valid for f in found[:4]] == [True, False, True, True]
    assert list(found[3].replaced_by) == ["A001"]


def test_validate_many_answers_the_others(call: Call) -> None:
    codes: list[Any] = [
        "A000",
        {"code": "A000", "system": "icd11"},
        {"code": "A000", "release": "1999"},
        {"code": "A000", "date": 20261099},
        {"code": "A000", "date": 30000101},
        {"code": "RUIN"},
        {"code": 5},
        {"kode": "A000"},
        None,
        "\ud800",
        {"code": "A000", "date": "yesterday"},
        "A001",
    ]
    found = call("validate_many", "icd10cm", codes)
    assert [f.error.code for f in found] == [
        "",
        "UNKNOWN_SYSTEM",
        "UNKNOWN_RELEASE",
        "INVALID_DATE",
        "DATE_OUTSIDE_COVERAGE",
        "PACK_CORRUPT",
        "INVALID_FIELD",
        "INVALID_FIELD",
        "INVALID_FIELD",
        "INVALID_FIELD",
        "INVALID_DATE",
        "",
    ]
    assert [f.error.field for f in found[1:5]] == ["system", "release", "date", "date"]
    assert found[1].code == "A000"
    assert found[0].valid
    assert found[-1].valid
    assert "/secret" not in found[5].error.message
    assert set(to_dict(found[1])) == {"code", "error"}
    with pytest.raises(errors.UnknownSystemError, match="icd11"):
        raise_for_error(found[1])
    raise_for_error(found[0])


def test_lookup(call: Call) -> None:
    found = call("lookup", "icd10cm", "A000")
    assert (found.system, found.release) == ("icd10cm", "2027")
    assert found.concept.display == "A00.0"
    assert found.concept.kind == NodeKind.NODE_KIND_CODE
    assert [c.code for c in found.ancestors] == ["A00", "A00-A09", "1"]
    assert found.child_count == 0
    assert found.notes[0].kind == NoteKind.NOTE_KIND_EXCLUDES1
    assert found.effective_from == 20151001
    assert call("lookup", "icd10cm", "A00", kind="category").child_count == 3
    with pytest.raises(errors.UnknownCodeError):
        call("lookup", "icd10cm", "A00", kind="block")
    with pytest.raises(errors.InvalidFieldError, match="kind"):
        call("lookup", "icd10cm", "A00", kind="planet")


def test_relatives(call: Call) -> None:
    assert call("parent", "icd10cm", "A000").code == "A00"
    assert call("parent", "icd10cm", "1") is None
    assert [c.code for c in call("children", "icd10cm", "A00")] == ["A000", "A001", "A009"]
    assert [c.code for c in call("ancestors", "icd10cm", "A000")] == ["A00", "A00-A09", "1"]
    assert [c.code for c in call("descendants", "icd10cm", "1")] == ["A00-A09", "A00", "A000", "A001", "A009"]
    assert call("children", "icd10cm", "A000") == []
    with pytest.raises(errors.UnknownCodeError):
        call("descendants", "icd10cm", "B99")


def test_subsumes(call: Call) -> None:
    assert call("subsumes", "icd10cm", "A00", "A000") is Subsumption.SUBSUMES
    assert call("subsumes", "icd10cm", "A000", "A00") is Subsumption.SUBSUMED_BY
    assert call("subsumes", "icd10cm", "A000", "A000") is Subsumption.EQUIVALENT
    assert call("subsumes", "icd10cm", "A000", "A001") is Subsumption.NOT_SUBSUMED


def test_group_drg(call: Call) -> None:
    message: Any = InpatientClaim
    for claim in (CLAIM, message(**CLAIM), {**CLAIM, "sex": "FEMALE"}, {**CLAIM, "age": None}):
        result = call("group_drg", claim)
        assert (result.claim_id, result.version) == ("c1", "43.1")
        assert result.final_grouping.drg == 395
        assert result.final_grouping.drg_title == DRG_TITLE
        assert result.final_grouping.return_code == ReturnCode.RETURN_CODE_OK
        assert result.initial_grouping == result.final_grouping
        assert not result.HasField("error")


def test_no_diagnosis_is_an_answer(call: Call) -> None:
    result = call("group_drg", {"version": "43.1"})
    assert result.final_grouping.return_code == ReturnCode.RETURN_CODE_INVALID_PDX


GROUPING_JSON = {
    "mdc": 6,
    "drg": 395,
    "base_drg": 393,
    "med_surg": "MED_SURG_MEDICAL",
    "severity": "SEVERITY_NON_CC",
    "sdx_severity": "SEVERITY_NON_CC",
    "return_code": "RETURN_CODE_OK",
    "mdc_title": "DIGESTIVE SYSTEM",
    "drg_title": DRG_TITLE,
}
RESULT_JSON = {
    "claim_id": "c1",
    "version": "43.1",
    "initial_grouping": GROUPING_JSON,
    "final_grouping": GROUPING_JSON,
    "hac_status": "HAC_STATUS_NOT_APPLICABLE",
    "hac_categories": 0,
    "admit_diagnosis_flag": "ADMIT_DIAGNOSIS_FLAG_DX_NOT_GIVEN",
    "diagnoses": [
        {
            "code": code,
            "recognized": True,
            "initial_severity": "SEVERITY_USAGE_MCC",
            "final_severity": "SEVERITY_USAGE_MCC_EXCLUDED",
            "affects_drg": "AFFECTS_DRG_INITIAL",
            "poa_error": "POA_ERROR_POA_RECOGNIZED_NOT_POA",
            "hacs": [{"name": "HAC05", "status": "HAC_CRITERIA_HAC_CRITERIA_MET"}],
        }
        for code in ("A000", "A001")
    ],
    "procedures": [
        {
            "code": "0DB68ZX",
            "recognized": True,
            "operating_room": True,
            "affects_drg": "AFFECTS_DRG_BOTH",
            "hac_usage": ["HAC_USAGE_HAC_08", "HAC_USAGE_HAC_14"],
        }
    ],
}


def test_a_result_as_json_is_that_of_the_engine_in_process(call: Call) -> None:
    library: Any = FakeLibrary()
    assert to_dict(call("group_drg", CLAIM)) == RESULT_JSON
    local = library.group_drg(InpatientClaim(**CLAIM), GroupingOptions())
    assert local.to_dict() == RESULT_JSON


@pytest.mark.parametrize("options", [{"detail": "DRG"}, {"detail": 1}, DrgOptions(detail="DRG_DETAIL_DRG")])
def test_less_detail_on_request(call: Call, options: Any) -> None:
    expected = {**RESULT_JSON, "diagnoses": [], "procedures": []}
    assert to_dict(call("group_drg", CLAIM, options=options)) == expected
    assert [to_dict(r) for r in call("group_drg_many", [CLAIM] * 3, options=options)] == [expected] * 3


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"detail": 9}, "detail"),
        ({"detail": "LITTLE"}, "detail"),
        ({"details": 1}, "details"),
        (5, "options"),
    ],
)
def test_wrong_options(call: Call, options: Any, field: str) -> None:
    for method, claims in (("group_drg", CLAIM), ("group_drg_many", [CLAIM])):
        with pytest.raises(errors.InvalidFieldError, match=field) as raised:
            call(method, claims, options=options)
        assert raised.value.field == field


def test_the_claim_class_of_the_engine_is_taken_too(call: Call) -> None:
    claim = engine.drg.InpatientClaim("c1", "43.1", diagnoses=("A000", "A001"), procedures=["0DB68ZX"])
    assert to_dict(call("group_drg", claim)) == RESULT_JSON
    assert [to_dict(r) for r in call("group_drg_many", [claim])] == [RESULT_JSON]


BAD_CLAIMS: list[tuple[Any, type[errors.CodesetError], str]] = [
    ({**CLAIM, "version": "12.3"}, errors.UnknownVersionError, "version"),
    ({**CLAIM, "version": "", "discharge_date": 19000101}, errors.DateOutsideCoverageError, "discharge_date"),
    ({**CLAIM, "version": "", "discharge_date": 20261000}, errors.InvalidDateError, "discharge_date"),
    ({**CLAIM, "poa": "Y"}, errors.PoaLengthError, "poa"),
    ({**CLAIM, "age": "old"}, errors.InvalidFieldError, "age"),
    ({**CLAIM, "age": True}, errors.InvalidFieldError, "age"),
    ({**CLAIM, "age": 1.5}, errors.InvalidFieldError, "age"),
    ({**CLAIM, "length_of_stay": 1 << 40}, errors.InvalidFieldError, "length_of_stay"),
    ({**CLAIM, "sex": "SEX_OTHER"}, errors.InvalidFieldError, "sex"),
    ({**CLAIM, "sex": 1.0}, errors.InvalidFieldError, "sex"),
    ({**CLAIM, "diagnoses": "A000"}, errors.InvalidFieldError, "diagnoses"),
    ({**CLAIM, "procedures": [1]}, errors.InvalidFieldError, "procedures"),
    ({**CLAIM, "poa": ["Y", "N"]}, errors.InvalidFieldError, "poa"),
    ({**CLAIM, "claim_id": "\ud800"}, errors.InvalidFieldError, "claim_id"),
    ({**CLAIM, "diagnosis": "A000"}, errors.InvalidFieldError, "diagnosis"),
    ({**CLAIM, 5: "A000"}, errors.InvalidFieldError, "5"),
    (None, errors.InvalidFieldError, ""),
    (["A000"], errors.InvalidFieldError, ""),
]


@pytest.mark.parametrize(("claim", "error", "field"), BAD_CLAIMS)
def test_a_bad_claim_alone_raises(call: Call, claim: Any, error: type[errors.CodesetError], field: str) -> None:
    with pytest.raises(error) as raised:
        call("group_drg", claim)
    assert raised.value.field == field
    assert field in str(raised.value)


def test_bad_claims_in_a_batch_leave_the_others(call: Call) -> None:
    claims: list[Any] = []
    for bad, _, _ in BAD_CLAIMS:
        claims += [CLAIM, bad]
    results = call("group_drg_many", claims)
    assert len(results) == len(claims)
    assert all(r.final_grouping.drg == 395 for r in results[::2])
    for result, (bad, error, field) in zip(results[1::2], BAD_CLAIMS, strict=True):
        assert (result.error.code, result.error.field) == (error.code, field)
        assert not result.HasField("final_grouping")
        if isinstance(bad, dict) and field != "claim_id":
            assert result.claim_id == "c1"
        with pytest.raises(error):
            raise_for_error(result)


def test_releases(call: Call) -> None:
    releases = call("releases")
    assert [(r.system, r.release, r.kind) for r in releases] == [
        ("icd10cm", "2027", "codes"),
        ("msdrg", "43.1", "msdrg"),
    ]
    assert releases[0].size_bytes == 123
    assert list(releases[0].sources[0].provides) == ["titles"]
    assert to_dict(releases[0])["facts"] == {"codes": 3.0, "from": ["2026", {"deep": None}]}
    assert [r.system for r in call("releases", "msdrg")] == ["msdrg"]
    with pytest.raises(errors.UnknownSystemError):
        call("releases", "icd11")


def test_one_release(call: Call) -> None:
    assert call("release", "icd10cm", "2027").release == "2027"
    assert call("release", "msdrg", date="20261001").release == "43.1"
    with pytest.raises(errors.UnknownReleaseError):
        call("release", "icd10cm", "1999")
    with pytest.raises(errors.DateOutsideCoverageError):
        call("release", "icd10cm", date=19000101)
    for date in ("1.1.2026", 0, True, 2.5, "20261", 123456789):
        with pytest.raises(errors.InvalidDateError, match="date"):
            call("release", "icd10cm", date=date)
