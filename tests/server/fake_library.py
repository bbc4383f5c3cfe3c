"""A library made by hand: the methods that the server calls, with answers that a test can foresee.

It knows a few codes of one release and answers any claim, and it fails on cue. A code or claim id
``BOOM`` raises an unexpected error that quotes what it was given, ``RUIN`` meets a damaged pack,
``SLOW`` takes ``SLOW_SECONDS``.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine import errors
from engine.drg import (
    AdmitDiagnosisFlag,
    AffectsDrg,
    Detail,
    DiagnosisResult,
    DrgResult,
    Grouping,
    Hac,
    HacCriteria,
    HacStatus,
    HacUsage,
    MedSurg,
    PoaError,
    ProcedureResult,
    ReturnCode,
    Severity,
    SeverityUsage,
)
from engine.explain import Explanation

SECRET = "claim-4711-of-a-patient"
SLOW_SECONDS = 1.0
PARENTS = {
    "1": "",
    "A00-A09": "1",
    "A00": "A00-A09",
    "A000": "A00",
    "A001": "A00",
    "A009": "A00",
}
KINDS = {"1": "chapter", "A00-A09": "block", "A00": "category"}
DRG_TITLE = "OTHER DIGESTIVE SYSTEM DIAGNOSES WITHOUT CC/MCC"


class Status(enum.IntEnum):
    """The library's findings."""

    VALID = 1
    HEADER = 2
    NOT_YET = 3
    EXPIRED = 4
    UNKNOWN = 5
    MALFORMED = 6


class Outcome(enum.Enum):
    """How codes stand to one another."""

    EQUIVALENT = 1
    SUBSUMES = 2
    SUBSUMED_BY = 3
    NOT_SUBSUMED = 4


def info(code: str) -> Any:
    """Return the entry of ``code``."""
    if code not in PARENTS:
        raise errors.UnknownCodeError(f"{code!r} is not in icd10cm 2027", field="code")
    return SimpleNamespace(
        code=code,
        display=f"{code[:3]}.{code[3:]}" if len(code) == 4 else code,
        kind=KINDS.get(code, "code"),
        billable=code not in KINDS,
        title=f"Title of {code}",
        short_title="",
        effective_from=None if code in KINDS else 20151001,
        effective_to=None,
    )


@dataclass(frozen=True)
class CodeSystem:
    """The only release there is."""

    system: str = "icd10cm"
    release: str = "2027"

    def lookup(self, code: str, kind: str | None = None) -> Any:
        found = info(code)
        if kind is not None and found.kind != kind:
            raise errors.UnknownCodeError(f"no {kind} {code!r}", field="code")
        return found

    def ancestors(self, code: str, kind: str | None = None) -> list[Any]:
        found = []
        self.lookup(code, kind)
        while PARENTS[code]:
            code = PARENTS[code]
            found.append(info(code))
        return found

    def children(self, code: str, kind: str | None = None) -> list[Any]:
        self.lookup(code, kind)
        return [info(child) for child, parent in PARENTS.items() if parent == code]

    def descendants(self, code: str, kind: str | None = None) -> list[Any]:
        self.lookup(code, kind)
        return [info(c) for c in PARENTS if code in (a.code for a in self.ancestors(c))]

    def notes(self, code: str, *, kind: str | None = None) -> list[Any]:
        return [SimpleNamespace(kind="excludes1", text="a note", from_code="A00-A09", inherited=True)]

    def axes(self, code: str) -> list[Any]:
        return []

    def subsumes(self, a: str, b: str) -> Outcome:
        if info(a).code == info(b).code:
            return Outcome.EQUIVALENT
        if a in (x.code for x in self.ancestors(b)):
            return Outcome.SUBSUMES
        return Outcome.SUBSUMED_BY if b in (x.code for x in self.ancestors(a)) else Outcome.NOT_SUBSUMED


class FakeLibrary:
    """Stands in for ``engine.library.Library``."""

    store = Path("nowhere")
    unusable = ((Path("packs/icd10cm/2026"), errors.PackCorruptError("pack in /secret/place")),)

    def releases(self, system: str | None = None) -> list[Any]:
        if system not in (None, "icd10cm", "msdrg"):
            raise errors.UnknownSystemError(f"system: {system!r} is not loaded", field="system")
        source = SimpleNamespace(
            wheel="a-wheel", version="1.0", sha256="00", file="a.xml", release="2027", provides=("titles",)
        )
        return [
            SimpleNamespace(
                system=name,
                release=release,
                kind=kind,
                effective_from=20261001,
                effective_to=20270331,
                size=123,
                sources=(source,),
                facts={"codes": 3, "from": ["2026", {"deep": None}]},
            )
            for name, release, kind in (("icd10cm", "2027", "codes"), ("msdrg", "43.1", "msdrg"))
            if system in (None, name)
        ]

    def release(self, system: str, *, release: str | None = None, date: int | None = None) -> Any:
        found = [r for r in self.releases(system) if release in (None, r.release)]
        if not found:
            raise errors.UnknownReleaseError(f"release: {release!r} is not loaded", field="release")
        _check_date(date, "date")
        return found[0]

    def code_system(self, system: str, *, release: str | None = None, date: int | None = None) -> CodeSystem:
        if system != "icd10cm":
            raise errors.UnknownSystemError(f"system: {system!r} is not loaded", field="system")
        if release not in (None, "2027"):
            raise errors.UnknownReleaseError(f"release: {release!r} is not loaded", field="release")
        _check_date(date, "date")
        return CodeSystem()

    def validate(self, system: str, code: str, *, date: int | None = None, release: str | None = None) -> Any:
        self.code_system(system, release=release, date=date)
        _cue(code)
        key = code.replace(".", "").strip().upper()
        status = Status.VALID if key in PARENTS else Status.UNKNOWN if key else Status.MALFORMED
        return SimpleNamespace(
            code=code,
            normalized=key,
            display=key,
            system="icd10cm",
            release="2027",
            date=date or 20261001,
            status=status,
            valid=status is Status.VALID,
            billable=status is Status.VALID,
            effective_from=20151001 if status is Status.VALID else None,
            effective_to=None,
            replaced_by=("A001",) if key == "A009" else (),
            title="a title",
            message="a sentence",
        )

    def group_drg(self, claim: Any, options: Any = None) -> Any:
        return self.group_drg_many([claim], options)[0]

    def group_drg_many(self, claims: Iterable[Any], options: Any = None) -> list[Any]:
        detail = options.detail != Detail.DRG
        return [_group(claim, detail) for claim in claims]

    def explain_drg(self, claim: Any, options: Any = None) -> Explanation:
        return Explanation(_group(claim, True), ("A sentence.",))


def _group(claim: Any, detail: bool) -> DrgResult:
    try:
        if claim.version not in ("", "43.1"):
            raise errors.UnknownVersionError(f"version: {claim.version!r} is not loaded", field="version")
        if not claim.version:
            _check_date(claim.discharge_date or None, "discharge_date")
        if claim.poa and len(claim.poa) != len(claim.diagnoses):
            raise errors.PoaLengthError("poa: another length than diagnoses", field="poa")
        _cue(claim.claim_id)
    except errors.CodesetError as error:
        return DrgResult(claim.claim_id, "", error=error)
    grouping = Grouping(
        mdc=6,
        drg=395,
        base_drg=393,
        med_surg=MedSurg.MEDICAL,
        severity=Severity.NON_CC,
        sdx_severity=Severity.NON_CC,
        return_code=ReturnCode.OK if claim.diagnoses else ReturnCode.INVALID_PDX,
        mdc_title="DIGESTIVE SYSTEM",
        drg_title=DRG_TITLE,
    )
    return DrgResult(
        claim.claim_id,
        "43.1",
        grouping,
        grouping,
        HacStatus.NOT_APPLICABLE,
        0,
        AdmitDiagnosisFlag.DX_NOT_GIVEN,
        tuple(_diagnosis(code) for code in claim.diagnoses) if detail else (),
        tuple(_procedure(code) for code in claim.procedures) if detail else (),
    )


def _diagnosis(code: str) -> DiagnosisResult:
    return DiagnosisResult(
        code,
        True,
        SeverityUsage.MCC,
        SeverityUsage.MCC_EXCLUDED,
        AffectsDrg.INITIAL,
        PoaError.POA_RECOGNIZED_NOT_POA,
        (Hac("HAC05", HacCriteria.HAC_CRITERIA_MET),),
    )


def _procedure(code: str) -> ProcedureResult:
    return ProcedureResult(code, True, True, AffectsDrg.BOTH, (HacUsage.HAC_08, HacUsage.HAC_14))


def _check_date(date: int | None, field: str) -> None:
    if date is None:
        return
    if not 1 <= date % 100 <= 31:
        raise errors.InvalidDateError(f"{field}: {date} is no date", field=field)
    if not 20150101 <= date <= 20270331:
        raise errors.DateOutsideCoverageError(f"{field}: {date} is not covered", field=field)


def _cue(text: str) -> None:
    if text == "BOOM":
        raise RuntimeError(f"unexpected, while working on {SECRET}")
    if text == "RUIN":
        raise errors.PackCorruptError(f"pack in /secret/place is damaged, found by {SECRET}")
    if text == "SLOW":
        time.sleep(SLOW_SECONDS)
