"""MS-DRGs for people: claims, results and enumerations around the compiled grouper (``engine._msdrg``).

The names are those of the API on the wire (``proto/codeset/v1/grouping.proto``), and so are the numbers of
the enumerations. ``engine.Library`` chooses the version; this module groups.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

from . import _msdrg
from .compile_msdrg import HAC_DISPLAYS
from .errors import CodesetError, GroupingFailedError, InvalidFieldError
from .pack import Manifest, Pack
from .weights import DrgWeight

__all__ = [
    "AdmitDiagnosisFlag",
    "AffectFlags",
    "AffectsDrg",
    "Detail",
    "DiagnosisResult",
    "DrgResult",
    "DrgResults",
    "Grouping",
    "GroupingOptions",
    "Hac",
    "HacCriteria",
    "HacStatus",
    "HacUsage",
    "HospitalStatus",
    "InpatientClaim",
    "MedSurg",
    "MsdrgGrouper",
    "PoaError",
    "ProcedureResult",
    "ReturnCode",
    "Severity",
    "SeverityUsage",
    "Sex",
    "TieBreaker",
    "group_many",
    "grouping_failed",
]


class Sex(enum.IntEnum):
    """Sex of the patient. UNSPECIFIED counts as unknown."""

    UNSPECIFIED = 0
    MALE = 1
    FEMALE = 2
    UNKNOWN = 3


class HospitalStatus(enum.IntEnum):
    """Whether the hospital is exempt from POA reporting. UNSPECIFIED counts as NOT_EXEMPT."""

    UNSPECIFIED = 0
    NOT_EXEMPT = 1
    EXEMPT = 2
    UNKNOWN = 3


class MedSurg(enum.IntEnum):
    """Type of a DRG; NONE for ungroupable claims."""

    NONE = 1
    MEDICAL = 2
    SURGICAL = 3


class Severity(enum.IntEnum):
    """Severity level; NONE for ungroupable claims and DRG 998."""

    NONE = 1
    NON_CC = 2
    CC = 3
    MCC = 4


class ReturnCode(enum.IntEnum):
    """Return code of the CMS grouper. Everything but OK means DRG 999."""

    OK = 1
    DX_CANNOT_BE_PDX = 2
    INVALID_SEX = 3
    INVALID_DISCHARGE_STATUS = 4
    INVALID_PDX = 5
    HAC_MISSING_ONE_POA = 6
    HAC_STATUS_INVALID_POA_N_OR_U = 7
    HAC_STATUS_INVALID_POA_INVALID_OR_1 = 8
    HAC_STATUS_INVALID_MULT_HACS_POA_NOT_Y_W = 9


class HacStatus(enum.IntEnum):
    """What the hospital-acquired conditions did to the DRG."""

    NOT_APPLICABLE = 1
    FINAL_DRG_NO_CHANGE = 2
    FINAL_DRG_CHANGES = 3
    FINAL_DRG_UNGROUPABLE = 4


class AdmitDiagnosisFlag(enum.IntEnum):
    """Validity of the admitting diagnosis in the grouper's version."""

    DX_NOT_GIVEN = 1
    DX_VALID = 2
    DX_INVALID = 3


class SeverityUsage(enum.IntEnum):
    """How the severity of one diagnosis was used."""

    NEITHER = 1
    CC = 2
    MCC = 3
    CC_EXCLUDED = 4
    MCC_EXCLUDED = 5
    CC_EXCLUDED_BY_DRG_LOGIC = 6
    MCC_EXCLUDED_BY_DRG_LOGIC = 7


class AffectsDrg(enum.IntEnum):
    """Which of the two groupings a code affected."""

    NONE = 1
    INITIAL = 2
    FINAL = 3
    BOTH = 4


class PoaError(enum.IntEnum):
    """Finding on the POA indicator of a diagnosis that is on a HAC list."""

    POA_NOT_CHECKED = 1
    POA_NOT_RECOGNIZED = 2
    POA_RECOGNIZED_NOT_POA = 3
    POA_RECOGNIZED_YES_POA = 4
    HOSPITAL_EXEMPT = 5


class HacCriteria(enum.IntEnum):
    """Finding on one hospital-acquired condition of one diagnosis."""

    NOT_ON_HAC_LIST = 1
    HAC_CRITERIA_MET = 2
    HAC_CRITERIA_NOT_MET = 3
    HAC_NOT_APPLICABLE_EXCLUSION = 4
    HAC_NOT_APPLICABLE_EXEMPT = 5


class HacUsage(enum.IntEnum):
    """Hospital-acquired condition whose criteria a procedure is part of."""

    HAC_08 = 1
    HAC_10 = 2
    HAC_11 = 3
    HAC_12 = 4
    HAC_13 = 5
    HAC_14 = 6


class TieBreaker(enum.IntEnum):
    """Order in which rules walk the codes. UNSPECIFIED counts as CLINICAL_SIGNIFICANCE, the default of
    CMS."""

    UNSPECIFIED = 0
    CLINICAL_SIGNIFICANCE = 1
    CODE_ORDER = 2


class AffectFlags(enum.IntEnum):
    """Whether to find out which codes affected the DRG. UNSPECIFIED counts as COMPUTE, the default of CMS."""

    UNSPECIFIED = 0
    COMPUTE = 1
    DO_NOT_COMPUTE = 2


class Detail(enum.IntEnum):
    """How much of the answer to work out. UNSPECIFIED counts as FULL."""

    UNSPECIFIED = 0
    DRG = 1
    """The claim's own fields; ``diagnoses`` and ``procedures`` of the result stay empty."""
    FULL = 2


@dataclass(frozen=True, slots=True)
class GroupingOptions:
    """Options of the grouper, for all claims of a call."""

    tie_breaker: TieBreaker = TieBreaker.UNSPECIFIED
    affect_flags: AffectFlags = AffectFlags.UNSPECIFIED
    detail: Detail = Detail.UNSPECIFIED

    def flags(self) -> int:
        """Return the options as the bits the compiled grouper takes."""
        return (
            (_msdrg.DETAIL if self.detail != Detail.DRG else 0)
            | (_msdrg.CODE_ORDER if self.tie_breaker == TieBreaker.CODE_ORDER else 0)
            | (_msdrg.NO_AFFECT if self.affect_flags == AffectFlags.DO_NOT_COMPUTE else 0)
        )


@dataclass(slots=True)
class InpatientClaim:
    """One inpatient stay. A mapping with the same keys does as well, and so does the protobuf message.

    ``version`` ("43.1") decides; when it is empty the version that covers ``discharge_date`` (CCYYMMDD) does.
    ``age`` (years) and
    ``length_of_stay`` (days) never influence an MS-DRG. ``diagnoses``: the first is the principal diagnosis.
    ``poa`` has one character per diagnosis, in order (Y N U W 1 E or a blank), or is empty.
    ``discharge_status`` None or a number CMS does not define counts as none. Enumerations may be given by
    name or number. Codes may have dots and lower case.

    ``icd_version`` (9 or 10), age, length of stay and ``sex`` matter to the Medicare Code Editor (``engine.mce``), to
    which an unspecified sex is one that is missing.
    """

    claim_id: str = ""
    version: str = ""
    discharge_date: int = 0
    age: int | None = None
    sex: Sex | int | str = Sex.UNSPECIFIED
    discharge_status: int | None = None
    hospital_status: HospitalStatus | int | str = HospitalStatus.NOT_EXEMPT
    length_of_stay: int | None = None
    admit_diagnosis: str = ""
    diagnoses: Sequence[str] = ()
    poa: str = ""
    procedures: Sequence[str] = ()
    icd_version: int = 10


T = TypeVar("T")

Claim: TypeAlias = Mapping[str, Any] | InpatientClaim | Any
"""A claim as callers may give it."""


class Grouping(NamedTuple):
    """One grouping of a claim, before (initial) or after (final) hospital-acquired conditions.

    ``severity`` is the highest severity among the secondary diagnoses that count for the row that won,
    ``sdx_severity`` the one the row asked for: NON_CC when the DRG does not depend on severity. An
    ungroupable claim has MDC 0 and DRG 999. ``weight`` is that of the DRG in the fiscal year of the version, None if
    there is none: no weights are loaded for that year, or the DRG has none (998, 999).
    """

    mdc: int
    drg: int
    base_drg: int
    med_surg: MedSurg
    severity: Severity
    sdx_severity: Severity
    return_code: ReturnCode
    mdc_title: str = ""
    drg_title: str = ""
    weight: DrgWeight | None = None


class Hac(NamedTuple):
    """Finding on one hospital-acquired condition. ``name`` is the reference's: "HAC05", "hac06_show",
    "null"."""

    name: str
    status: HacCriteria


class DiagnosisResult(NamedTuple):
    """What the grouper found on one diagnosis; ``code`` is as given."""

    code: str
    recognized: bool
    initial_severity: SeverityUsage
    final_severity: SeverityUsage
    affects_drg: AffectsDrg
    poa_error: PoaError
    hacs: tuple[Hac, ...]


class ProcedureResult(NamedTuple):
    """What the grouper found on one procedure; ``code`` is as given."""

    code: str
    recognized: bool
    operating_room: bool
    affects_drg: AffectsDrg
    hac_usage: tuple[HacUsage, ...]


@dataclass(frozen=True, slots=True)
class DrgResult:
    """Answer to one claim: a grouping, or the ``error`` that says why there is none.

    ``version`` is the grouper that answered. ``diagnoses`` and ``procedures`` have one entry a code, in order
    of the claim, at full detail. Without an answer the groupings and flags are None.
    """

    claim_id: str
    version: str
    initial_grouping: Grouping | None = None
    final_grouping: Grouping | None = None
    hac_status: HacStatus | None = None
    hac_categories: int = 0
    admit_diagnosis_flag: AdmitDiagnosisFlag | None = None
    diagnoses: tuple[DiagnosisResult, ...] = ()
    procedures: tuple[ProcedureResult, ...] = ()
    error: CodesetError | None = None

    @property
    def drg(self) -> int:
        """The final DRG; raises ``error`` if there is none."""
        if self.error is not None:
            raise self.error
        assert self.final_grouping is not None
        return self.final_grouping.drg

    def to_dict(self) -> dict[str, Any]:
        """Return the result in the shape of its proto3 JSON: snake_case names, enumerations by their full
        names."""
        if self.error is not None:
            error = {"code": self.error.code, "message": str(self.error), "field": self.error.field}
            return {"claim_id": self.claim_id, "version": self.version, "error": error}
        assert self.initial_grouping is not None
        assert self.final_grouping is not None
        assert self.hac_status is not None
        assert self.admit_diagnosis_flag is not None
        return {
            "claim_id": self.claim_id,
            "version": self.version,
            "initial_grouping": _grouping_to_dict(self.initial_grouping),
            "final_grouping": _grouping_to_dict(self.final_grouping),
            "hac_status": _NAME_OF_HAC_STATUS[self.hac_status],
            "hac_categories": self.hac_categories,
            "admit_diagnosis_flag": _NAME_OF_ADMIT[self.admit_diagnosis_flag],
            "diagnoses": [
                {
                    "code": d.code,
                    "recognized": d.recognized,
                    "initial_severity": _NAME_OF_USAGE[d.initial_severity],
                    "final_severity": _NAME_OF_USAGE[d.final_severity],
                    "affects_drg": _NAME_OF_AFFECTS[d.affects_drg],
                    "poa_error": _NAME_OF_POA_ERROR[d.poa_error],
                    "hacs": [{"name": h.name, "status": _NAME_OF_HAC_CRITERIA[h.status]} for h in d.hacs],
                }
                for d in self.diagnoses
            ],
            "procedures": [
                {
                    "code": p.code,
                    "recognized": p.recognized,
                    "operating_room": p.operating_room,
                    "affects_drg": _NAME_OF_AFFECTS[p.affects_drg],
                    "hac_usage": [_NAME_OF_HAC_USAGE[u] for u in p.hac_usage],
                }
                for p in self.procedures
            ],
        }


def _grouping_to_dict(g: Grouping) -> dict[str, Any]:
    found = {
        "mdc": g.mdc,
        "drg": g.drg,
        "base_drg": g.base_drg,
        "med_surg": _NAME_OF_MED_SURG[g.med_surg],
        "severity": _NAME_OF_SEVERITY[g.severity],
        "sdx_severity": _NAME_OF_SEVERITY[g.sdx_severity],
        "return_code": _NAME_OF_RETURN_CODE[g.return_code],
        "mdc_title": g.mdc_title,
        "drg_title": g.drg_title,
    }
    if g.weight is not None:
        found["weight"] = g.weight.to_dict()
    return found


class MsdrgGrouper:
    """One MS-DRG version, opened from its pack. Safe to share between threads.

    ``weights``: those of its fiscal year, which its groupings then show; None for none.
    """

    def __init__(self, pack: Pack, weights: Mapping[int, DrgWeight] | None = None) -> None:
        self.core = _msdrg.Grouper(pack)
        self.manifest: Manifest = pack.manifest
        self.drg_titles: Mapping[int, str] = _titles(pack, "drg")
        """DRG to its title in this version."""
        self.mdc_titles: Mapping[int, str] = _titles(pack, "mdc")
        """MDC to its title in this version."""
        self.weights: Mapping[int, DrgWeight] = {} if weights is None else weights
        """DRG to its weight; empty if there are none for this version."""
        self.groupings: dict[tuple[int, ...], Grouping] = {}
        """Every grouping that was an answer, by its numbers: there are a few thousand, and each is made once."""

        self._explaining: Any = None

    @property
    def version(self) -> str:
        """The version, "43.1"."""
        return self.manifest.release

    def explaining(self, read: Callable[[MsdrgGrouper], T]) -> T:
        """Return what ``read`` makes of this version, made once. Two threads at first use may both make it; it is the
        same."""
        if self._explaining is None:
            self._explaining = read(self)
        explaining: T = self._explaining
        return explaining

    def __repr__(self) -> str:
        return f"<MS-DRG {self.version}>"


def _titles(pack: Pack, name: str) -> dict[int, str]:
    numbers = pack.array(f"{name}_number", "<i2")
    start = pack.array(f"{name}_title_start", "<u4").astype(np.int64)
    text = pack.array(f"{name}_title_text", "u1").tobytes()
    if len(start) != len(numbers) + 1 or (np.diff(start) < 0).any() or start[-1] != len(text):
        raise pack.corrupt(f"{name}_title_start.npy", "its offsets are not those of the titles")
    try:
        return {int(n): text[start[i] : start[i + 1]].decode() for i, n in enumerate(numbers)}
    except UnicodeDecodeError:
        raise pack.corrupt(f"{name}_title_text.npy", "it is not UTF-8") from None


class DrgResults(Sequence[DrgResult]):
    """Answers to a batch of claims, in order. Results are made when asked for; the arrays behind them are
    there at once.

    ``table`` has one element a claim (dtype ``engine._msdrg.RESULT_DTYPE``, enumerations by number; all zero
    where there is an error);
    ``diagnoses`` and ``procedures`` hold the codes of all claims one after the other, those of claim i from
    ``starts[0, i]`` and ``starts[1, i]`` on.
    """

    def __init__(
        self,
        batch: _msdrg.ClaimBatch,
        groupers: Sequence[MsdrgGrouper],
        tables: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.uint32]],
    ) -> None:
        self.batch = batch
        self.groupers = groupers
        self.table, self.diagnoses, self.procedures, self.starts = tables

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> DrgResult: ...
    @overload
    def __getitem__(self, index: slice) -> list[DrgResult]: ...
    def __getitem__(self, index: int | slice) -> DrgResult | list[DrgResult]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return next(self._iterate(index, index + 1))

    def __iter__(self) -> Iterator[DrgResult]:
        return self._iterate(0, len(self))

    @property
    def errors(self) -> Mapping[int, CodesetError]:
        """Position of every claim that has no answer, and why."""
        failed = np.flatnonzero(self.table["error"])
        return self.batch.errors | {int(i): grouping_failed(self._version(int(i))) for i in failed}

    def _version(self, index: int) -> str:
        grouper = self.batch.grouper(index)
        return self.groupers[grouper].version if grouper >= 0 else ""

    def _iterate(self, first: int, last: int) -> Iterator[DrgResult]:
        rows = self.table[first:last].tolist()
        starts = self.starts[:, first : last + 1].tolist()
        detail = len(self.diagnoses) + len(self.procedures) > 0
        dx = self.diagnoses[starts[0][0] : starts[0][-1]].tolist() if detail else []
        px = self.procedures[starts[1][0] : starts[1][-1]].tolist() if detail else []
        dx_at, px_at = starts[0][0], starts[1][0]
        for i, row in enumerate(rows):
            claim = self.batch.claims[first + i]
            grouper = self.batch.grouper(first + i)
            claim_id = _field(claim, "claim_id") or ""
            if grouper < 0:
                # The id itself may be what is wrong with the claim.
                yield DrgResult(claim_id if isinstance(claim_id, str) else "", "", error=self.batch.errors[first + i])
                continue
            versioned = self.groupers[grouper]
            initial, final, hac_status, categories, admit, failed = row
            if failed:
                yield DrgResult(claim_id, versioned.version, error=grouping_failed(versioned.version))
                continue
            before = _grouping(initial, versioned)
            diagnoses: tuple[DiagnosisResult, ...] = ()
            procedures: tuple[ProcedureResult, ...] = ()
            if detail:
                own = dx[starts[0][i] - dx_at : starts[0][i + 1] - dx_at]
                codes = _field(claim, "diagnoses") or ()
                diagnoses = tuple(_diagnosis(code, d) for code, d in zip(codes, own, strict=True))
                own = px[starts[1][i] - px_at : starts[1][i + 1] - px_at]
                codes = _field(claim, "procedures") or ()
                procedures = tuple(_procedure(code, p) for code, p in zip(codes, own, strict=True))
            yield DrgResult(
                claim_id,
                versioned.version,
                before,
                before if final == initial else _grouping(final, versioned),
                _HAC_STATUS[hac_status],
                categories,
                _ADMIT[admit],
                diagnoses,
                procedures,
            )


def group_many(
    claims: Iterable[Claim],
    choose: Callable[[str, int], MsdrgGrouper],
    options: GroupingOptions | None = None,
) -> DrgResults:
    """Group claims; the answers come in their order, and what is wrong with one claim is its answer's
    ``error``.

    ``choose(version, discharge_date)`` returns the grouper for a claim, or raises the CodesetError that
    becomes that claim's; it is called once for each distinct version, or date where no version is given. The
    GIL is released while the batch is grouped.

    Raises InvalidFieldError if ``claims`` is not an iterable of claims at all.
    """
    batch, groupers = batch_of(claims, choose)
    return group_batch(batch, groupers, options)


def batch_of(
    claims: Iterable[Claim], choose: Callable[[str, int], MsdrgGrouper], *, later: bool = False
) -> tuple[_msdrg.ClaimBatch, list[MsdrgGrouper]]:
    """Return claims as ``group_batch`` takes them. ``later``: they are to be read with a batch of another reader."""
    check_claims(claims)
    groupers: list[MsdrgGrouper] = []

    def resolve(version: str, date: int) -> int:
        grouper = choose(version, date)
        if grouper not in groupers:
            groupers.append(grouper)
        return groupers.index(grouper)

    return _msdrg.ClaimBatch(claims, resolve, later=later), groupers


def group_batch(
    batch: _msdrg.ClaimBatch, groupers: Sequence[MsdrgGrouper], options: GroupingOptions | None
) -> DrgResults:
    """Group what ``batch_of`` returned."""
    flags = (options or GroupingOptions()).flags()
    return DrgResults(batch, groupers, _msdrg.run(batch, [g.core for g in groupers], flags))


def check_claims(claims: object) -> None:
    """Raise InvalidFieldError if ``claims`` is not an iterable of claims at all."""
    if isinstance(claims, (str, bytes, Mapping)) or not isinstance(claims, Iterable):
        raise InvalidFieldError(f"claims: expected a sequence of claims, got {type(claims).__name__}", field="claims")


def grouping_failed(version: str) -> GroupingFailedError:
    """Return the error of a claim that no row of ``version`` applies to."""
    return GroupingFailedError(
        f"no row of the MS-DRG {version} tables applies to this claim, where the CMS software fails too. "
        "Check its codes, and report it with the claim if they are right."
    )


def _field(claim: Claim, name: str) -> Any:
    return claim.get(name) if isinstance(claim, dict) else getattr(claim, name, None)


def _by_number(kind: type[enum.IntEnum], prefix: str) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Return the members of ``kind`` and their names on the wire, both by number."""
    members: list[Any] = [None] * (max(kind) + 1)
    names = [""] * len(members)
    for member in kind:
        members[member] = member
        names[member] = f"{prefix}_{member.name}"
    return tuple(members), tuple(names)


_MED_SURG, _NAME_OF_MED_SURG = _by_number(MedSurg, "MED_SURG")
_SEVERITY, _NAME_OF_SEVERITY = _by_number(Severity, "SEVERITY")
_RETURN_CODE, _NAME_OF_RETURN_CODE = _by_number(ReturnCode, "RETURN_CODE")
_HAC_STATUS, _NAME_OF_HAC_STATUS = _by_number(HacStatus, "HAC_STATUS")
_ADMIT, _NAME_OF_ADMIT = _by_number(AdmitDiagnosisFlag, "ADMIT_DIAGNOSIS_FLAG")
_USAGE, _NAME_OF_USAGE = _by_number(SeverityUsage, "SEVERITY_USAGE")
_AFFECTS, _NAME_OF_AFFECTS = _by_number(AffectsDrg, "AFFECTS_DRG")
_POA_ERROR, _NAME_OF_POA_ERROR = _by_number(PoaError, "POA_ERROR")
_HAC_CRITERIA, _NAME_OF_HAC_CRITERIA = _by_number(HacCriteria, "HAC_CRITERIA")
_, _NAME_OF_HAC_USAGE = _by_number(HacUsage, "HAC_USAGE")
_HAC_USAGE = tuple(tuple(u for u in HacUsage if bits >> (u - 1) & 1) for bits in range(64))


def _grouping(row: tuple[int, ...], grouper: MsdrgGrouper) -> Grouping:
    found = grouper.groupings.get(row)
    if found is None:
        # Two threads may both make it; the first one stays.
        found = grouper.groupings.setdefault(row, _new_grouping(row, grouper))
    return found


def _new_grouping(row: tuple[int, ...], grouper: MsdrgGrouper) -> Grouping:
    mdc, drg, base_drg, med_surg, severity, sdx_severity, return_code = row
    # MDC 0 of an ungroupable claim is no MDC; its table entry is the pre-MDC list.
    mdc_title = grouper.mdc_titles.get(mdc, "") if return_code == ReturnCode.OK else ""
    return Grouping(
        mdc,
        drg,
        base_drg,
        _MED_SURG[med_surg],
        _SEVERITY[severity],
        _SEVERITY[sdx_severity],
        _RETURN_CODE[return_code],
        mdc_title,
        grouper.drg_titles.get(drg, ""),
        grouper.weights.get(drg),
    )


def _diagnosis(code: str, row: tuple[Any, ...]) -> DiagnosisResult:
    recognized, initial, final, affects, poa_error, n_hacs, displays, statuses = row
    hacs = tuple(
        Hac("null" if displays[i] == 255 else HAC_DISPLAYS[displays[i]], _HAC_CRITERIA[statuses[i]])
        for i in range(n_hacs)
    )
    # The reference sorts its entries as text.
    return DiagnosisResult(
        code,
        bool(recognized),
        _USAGE[initial],
        _USAGE[final],
        _AFFECTS[affects],
        _POA_ERROR[poa_error],
        tuple(sorted(hacs, key=lambda hac: f"{hac.name}:{hac.status.name}")) if n_hacs > 1 else hacs,
    )


def _procedure(code: str, row: tuple[int, ...]) -> ProcedureResult:
    recognized, operating_room, affects, usage = row
    return ProcedureResult(code, bool(recognized), bool(operating_room), _AFFECTS[affects], _HAC_USAGE[usage])
