"""The Medicare Code Editor for people: options, results, and what every edit means, around ``engine._mce``.

The names are those of the API on the wire (``proto/codeset/v1/editing.proto``), and so are the numbers of the
enumerations. ``engine.Library`` chooses the release; this module edits.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from . import _mce
from .drg import Claim, DrgResult, DrgResults, GroupingOptions, MsdrgGrouper, batch_of, check_claims, group_batch
from .errors import CodesetError, InvalidFieldError, MissingFieldError
from .pack import Manifest, Pack

__all__ = [
    "EDITS",
    "AgeConflict",
    "CodeEdits",
    "EditCount",
    "EditInfo",
    "EditResult",
    "EditResults",
    "EditType",
    "EditedAndGrouped",
    "EditingOptions",
    "MceEdit",
    "MceEditor",
    "edit_and_group_many",
    "edit_many",
]


class EditType(enum.IntEnum):
    """What the edits of a claim come to: the type that all of them have, or BOTH."""

    NONE = 1
    PREPAYMENT = 2
    """To be resolved before the claim is paid."""
    POSTPAYMENT = 3
    """To be reviewed after the claim is paid."""
    BOTH = 4
    INVALID_DISCHARGE_DATE = 5
    """Not a date that the release edits: nothing else of the claim was looked at."""


class MceEdit(enum.IntEnum):
    """The edits, numbered one above the ordinals of CMS. Those that CMS reserves and never raises are left out.

    ``UNSPECIFIED_CODE`` is the edit that CMS calls UNSPECIFIED.
    """

    INVALID_CODE = 1
    SEX_CONFLICT = 2
    AGE_CONFLICT = 3
    QUESTIONABLE_ADMISSION = 4
    MANIFESTATION_AS_PDX = 5
    NONSPECIFIC_PDX = 6
    E_CODE_AS_PDX = 7
    UNACCEPTABLE_PDX = 8
    DUPLICATE_OF_PDX = 9
    MEDICARE_IS_SECONDARY_PAYER = 10
    REQUIRES_SDX = 11
    NONSPECIFIC_OR = 12
    OPEN_BIOPSY = 13
    NON_COVERED = 14
    BILATERAL = 15
    LIMITED_COVERAGE_LVRS = 16
    LIMITED_COVERAGE = 17
    LIMITED_COVERAGE_LUNG_TRANSPLANT = 18
    QUESTIONABLE_OBSTETRIC_ADMISSION = 19
    LIMITED_COVERAGE_COMBINATION_HEART_LUNG_TRANSPLANT = 20
    LIMITED_COVERAGE_HEART_TRANSPLANT = 21
    LIMITED_COVERAGE_HEART_IMPLANT = 22
    LIMITED_COVERAGE_INTESTINE_MULTI_VISCERAL_TRANSPLANT = 23
    LIMITED_COVERAGE_LIVER_TRANSPLANT = 24
    INVALID_ADMIT_DX = 25
    INVALID_AGE = 26
    INVALID_SEX = 27
    INVALID_DISCHARGE_STATUS = 28
    LIMITED_COVERAGE_KIDNEY_TRANSPLANT = 29
    LIMITED_COVERAGE_PANCREAS_TRANSPLANT = 30
    LIMITED_COVERAGE_ARTIFICIAL_HEART = 33
    WRONG_PROCEDURE_PERFORMED = 34
    INCONSISTENT_WITH_LENGTH_OF_STAY = 35
    UNSPECIFIED_CODE = 36


class AgeConflict(enum.IntEnum):
    """The group of diagnoses whose range of ages the patient is outside of."""

    NONE = 1
    NEWBORN = 2
    PEDIATRIC = 3
    MATERNITY = 4
    ADULT = 5


class EditInfo(NamedTuple):
    """What there is to know about an edit.

    ``number``: the ordinal of CMS. ``payment``: PREPAYMENT, POSTPAYMENT, or NONE for an edit that does not bear on
    payment. ``raised_on``: "principal diagnosis", "secondary diagnosis", "admitting diagnosis", "procedure", "claim".
    ``icd_versions``: those whose tables can lead to it. ``meaning`` and ``action`` are a sentence each.
    """

    edit: MceEdit
    number: int
    title: str
    meaning: str
    action: str
    payment: EditType
    raised_on: tuple[str, ...]
    icd_versions: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it in the shape of its proto3 JSON."""
        return {
            "edit": _NAMES[self.edit],
            "number": self.number,
            "title": self.title,
            "meaning": self.meaning,
            "action": self.action,
            "payment_type": f"EDIT_TYPE_{self.payment.name}",
            "raised_on": list(self.raised_on),
            "icd_versions": list(self.icd_versions),
        }


_PDX, _SDX, _PX, _ADMIT, _CLAIM = (
    "principal diagnosis",
    "secondary diagnosis",
    "procedure",
    "admitting diagnosis",
    "claim",
)
_LIMITED = "is covered by Medicare in limited circumstances only"
_CHECK_COVERAGE = (
    "Check the stay against the national coverage determination and the facility's approval, then pay or deny."
)


def _info(
    edit: MceEdit,
    title: str,
    meaning: str,
    action: str,
    *raised_on: str,
    payment: EditType = EditType.PREPAYMENT,
    icd: tuple[int, ...] = (9, 10),
) -> EditInfo:
    return EditInfo(edit, edit - 1, title, meaning, action, payment, raised_on, icd)


EDITS: Final[Mapping[MceEdit, EditInfo]] = {
    info.edit: info
    for info in (
        _info(
            MceEdit.INVALID_CODE,
            "Invalid diagnosis or procedure code",
            "The code is not in the code set on the discharge date, or the principal diagnosis is blank or zeros.",
            "Correct the code, its missing characters or the discharge date, and submit the claim again.",
            _PDX,
            _SDX,
            _PX,
        ),
        _info(
            MceEdit.SEX_CONFLICT,
            "Sex conflict",
            "The code belongs to the other sex than the patient's, or to one sex while the patient's is unknown; "
            "ICD-10 claims discharged from 2024-10-01 on cannot have it.",
            "Check the code and the sex on the claim against the medical record, and correct whichever is wrong.",
            _PDX,
            _SDX,
            _ADMIT,
            _PX,
        ),
        _info(
            MceEdit.AGE_CONFLICT,
            "Age conflict",
            "The diagnosis is implausible at the patient's age; the age conflict says whether it is one of newborns, "
            "children, maternity or adults.",
            "Check the code and the age on the claim against the medical record, and correct whichever is wrong.",
            _PDX,
            _SDX,
            _ADMIT,
        ),
        _info(
            MceEdit.QUESTIONABLE_ADMISSION,
            "Questionable admission",
            "The principal diagnosis rarely is reason enough for a stay in an acute care hospital.",
            "Review whether the admission was necessary, and whether another condition was the reason for it.",
            _PDX,
        ),
        _info(
            MceEdit.MANIFESTATION_AS_PDX,
            "Manifestation code as principal diagnosis",
            "The code describes the manifestation of an underlying disease, not the disease itself.",
            "Put the underlying disease first, and the manifestation after it.",
            _PDX,
        ),
        _info(
            MceEdit.NONSPECIFIC_PDX,
            "Nonspecific principal diagnosis",
            "The principal diagnosis is too vague for an inpatient stay that the patient survived.",
            "Find a more specific diagnosis in the medical record, where there is one.",
            _PDX,
            payment=EditType.POSTPAYMENT,
            icd=(9,),
        ),
        _info(
            MceEdit.E_CODE_AS_PDX,
            "External cause of morbidity code as principal diagnosis",
            "The code says how an injury came about, not what the patient has.",
            "Put the injury or condition first, and the external cause after it.",
            _PDX,
        ),
        _info(
            MceEdit.UNACCEPTABLE_PDX,
            "Unacceptable principal diagnosis",
            "The code describes a circumstance that influences the patient's health, not a current illness or injury.",
            "Put the condition that was chiefly responsible for the admission first.",
            _PDX,
        ),
        _info(
            MceEdit.DUPLICATE_OF_PDX,
            "Duplicate of principal diagnosis",
            "A secondary diagnosis is the same code as the principal diagnosis.",
            "Remove it, or correct it to the code that was meant: it would count as a complication of itself.",
            _SDX,
        ),
        _info(
            MceEdit.MEDICARE_IS_SECONDARY_PAYER,
            "Medicare as secondary payer",
            "The diagnosis suggests that another payer is liable; codes say so for discharges before 2001-10-01 only.",
            "Find out whether another insurance pays before Medicare does.",
            _PDX,
            _SDX,
            payment=EditType.POSTPAYMENT,
            icd=(9,),
        ),
        _info(
            MceEdit.REQUIRES_SDX,
            "Requires secondary diagnosis",
            "The principal diagnosis is acceptable only beside a secondary diagnosis, and there is none.",
            "Add the condition that the care was for as a secondary diagnosis.",
            _PDX,
        ),
        _info(
            MceEdit.NONSPECIFIC_OR,
            "Nonspecific operating room procedure",
            "All operating room procedures of the claim are vague ones.",
            "Find a more specific procedure in the operative report, where there is one.",
            _PX,
            payment=EditType.POSTPAYMENT,
            icd=(9,),
        ),
        _info(
            MceEdit.OPEN_BIOPSY,
            "Open biopsy check",
            "The code stands for a biopsy through an open incision, which is often confused with a closed one.",
            "Check in the operative report that the biopsy was open, and correct the code if it was not.",
            _PX,
            payment=EditType.POSTPAYMENT,
            icd=(9,),
        ),
        _info(
            MceEdit.NON_COVERED,
            "Non-covered procedure",
            "Medicare does not pay for the procedure, ever or with these diagnoses, other procedures or this age.",
            "Deny the procedure, or add the diagnosis or procedure that makes it covered if the medical record has it.",
            _PX,
        ),
        _info(
            MceEdit.BILATERAL,
            "Bilateral procedure",
            "Two or more different joint replacements of the legs go with a principal diagnosis of the musculoskeletal "
            "system; counted once a claim.",
            "Check in the operative report that the replacements were of two joints: the claim is paid a higher DRG.",
            _PX,
            payment=EditType.POSTPAYMENT,
            icd=(9,),
        ),
        _info(
            MceEdit.LIMITED_COVERAGE_LVRS,
            "Limited coverage: lung volume reduction surgery",
            f"Lung volume reduction surgery {_LIMITED}.",
            _CHECK_COVERAGE,
            _PX,
            icd=(9,),
        ),
        _info(
            MceEdit.LIMITED_COVERAGE,
            "Limited coverage procedure",
            f"The procedure {_LIMITED}.",
            _CHECK_COVERAGE,
            _PX,
            icd=(10,),
        ),
        _info(
            MceEdit.LIMITED_COVERAGE_LUNG_TRANSPLANT,
            "Limited coverage: lung transplant",
            f"Lung transplantation {_LIMITED}.",
            _CHECK_COVERAGE,
            _PX,
            icd=(9,),
        ),
        _info(
            MceEdit.QUESTIONABLE_OBSTETRIC_ADMISSION,
            "Questionable obstetric admission",
            "The claim has a delivery procedure but no secondary diagnosis of the outcome of delivery.",
            "Add the outcome of delivery (Z37) as a secondary diagnosis, or correct the procedure.",
            _PX,
            icd=(10,),
        ),
        _info(
            MceEdit.LIMITED_COVERAGE_COMBINATION_HEART_LUNG_TRANSPLANT,
            "Limited coverage: combined heart and lung transplant",
            f"Combined heart and lung transplantation {_LIMITED}.",
            _CHECK_COVERAGE,
            _PX,
            icd=(9,),
        ),
        _info(
            MceEdit.LIMITED_COVERAGE_HEART_TRANSPLANT,
            "Limited coverage: heart transplant",
            f"Heart transplantation {_LIMITED}.",
            _CHECK_COVERAGE,
            _PX,
            icd=(9,),
        ),
        _info(
            MceEdit.LIMITED_COVERAGE_HEART_IMPLANT,
            "Limited coverage: implantable heart assist system",
            f"Implantation of a heart assist system {_LIMITED}.",
            _CHECK_COVERAGE,
            _PX,
            icd=(9,),
        ),
        _info(
            MceEdit.LIMITED_COVERAGE_INTESTINE_MULTI_VISCERAL_TRANSPLANT,
            "Limited coverage: intestine or multi-visceral transplant",
            f"Transplantation of the intestine or of several organs {_LIMITED}.",
            _CHECK_COVERAGE,
            _PX,
            icd=(9,),
        ),
        _info(
            MceEdit.LIMITED_COVERAGE_LIVER_TRANSPLANT,
            "Limited coverage: liver transplant",
            f"Liver transplantation {_LIMITED}.",
            _CHECK_COVERAGE,
            _PX,
            icd=(9,),
        ),
        _info(
            MceEdit.INVALID_ADMIT_DX,
            "Invalid admitting diagnosis",
            "The admitting diagnosis is not in the code set on the discharge date.",
            "Correct the admitting diagnosis; the edit does not bear on payment.",
            _ADMIT,
            payment=EditType.NONE,
        ),
        _info(
            MceEdit.INVALID_AGE,
            "Invalid age",
            "The age is not given, or not from 0 to 124 years.",
            "Correct the dates of birth and admission that the age comes from.",
            _CLAIM,
        ),
        _info(
            MceEdit.INVALID_SEX,
            "Invalid sex",
            "The sex is not given, or unknown on a claim discharged before 2024-10-01.",
            "Correct the sex on the claim.",
            _CLAIM,
        ),
        _info(
            MceEdit.INVALID_DISCHARGE_STATUS,
            "Invalid discharge status",
            "The patient discharge status is not given, or not a code that is in force on the discharge date.",
            "Correct the patient discharge status (UB-04 form locator 17).",
            _CLAIM,
        ),
        _info(
            MceEdit.LIMITED_COVERAGE_KIDNEY_TRANSPLANT,
            "Limited coverage: kidney transplant",
            f"Kidney transplantation {_LIMITED}.",
            _CHECK_COVERAGE,
            _PX,
            icd=(9,),
        ),
        _info(
            MceEdit.LIMITED_COVERAGE_PANCREAS_TRANSPLANT,
            "Limited coverage: pancreas transplant",
            f"Pancreas transplantation {_LIMITED}.",
            _CHECK_COVERAGE,
            _PX,
            icd=(9,),
        ),
        _info(
            MceEdit.LIMITED_COVERAGE_ARTIFICIAL_HEART,
            "Limited coverage: artificial heart transplant",
            f"Implantation of an artificial heart {_LIMITED}.",
            _CHECK_COVERAGE,
            _PX,
            icd=(9,),
        ),
        _info(
            MceEdit.WRONG_PROCEDURE_PERFORMED,
            "Wrong procedure performed",
            "The code reports a procedure that was wrong, or done on the wrong patient or body part.",
            "Deny the claim: Medicare does not pay for wrong surgery; bill related services as its rules say.",
            _PDX,
            _SDX,
        ),
        _info(
            MceEdit.INCONSISTENT_WITH_LENGTH_OF_STAY,
            "Procedure inconsistent with length of stay",
            "The claim has ventilation of more than 96 consecutive hours in a stay too short for it.",
            "Correct the procedure, or the dates that the length of stay comes from.",
            _PX,
        ),
        _info(
            MceEdit.UNSPECIFIED_CODE,
            "Unspecified code",
            "The code leaves the side of the body open although there are codes that give it; CMS calls this edit "
            "UNSPECIFIED.",
            "Report the code with the side; where the record truly has none, enter that it could not be determined.",
            _PDX,
            _SDX,
            icd=(10,),
        ),
    )
}
"""Every edit that can be raised, in the order of CMS."""


@dataclass(frozen=True, slots=True)
class EditCount:
    """An edit and how often it was raised on the claim, 1 or more."""

    edit: MceEdit
    count: int


class CodeEdits(NamedTuple):
    """The edits of one code, in the order CMS raises them; ``code`` is as given."""

    code: str
    edits: tuple[MceEdit, ...]


@dataclass(frozen=True, slots=True)
class EditingOptions:
    """Options of the editor, for all claims of a call.

    ``editor_release`` ("43.1"): the release that edits; empty: the newest loaded. The others list edits, as members,
    numbers or names, that are not to be raised on the principal diagnosis, on secondary and admitting diagnoses, or on
    procedures. Edits of the claim itself, BILATERAL and conflicts of the admitting diagnosis cannot be suppressed; a
    procedure whose NON_COVERED is suppressed may have limited coverage in its place.
    """

    editor_release: str = ""
    suppress_on_principal: Sequence[MceEdit | int | str] = ()
    suppress_on_secondary: Sequence[MceEdit | int | str] = ()
    suppress_on_procedures: Sequence[MceEdit | int | str] = ()

    def sets(self) -> tuple[int, int, int]:
        """Return the three lists as the sets the compiled editor takes.

        Raises InvalidFieldError for what is no edit.
        """
        return (
            _set_of(self.suppress_on_principal, "suppress_on_principal"),
            _set_of(self.suppress_on_secondary, "suppress_on_secondary"),
            _set_of(self.suppress_on_procedures, "suppress_on_procedures"),
        )


def _set_of(edits: Iterable[MceEdit | int | str], field: str) -> int:
    number = 0
    if isinstance(edits, str):
        raise InvalidFieldError(f"{field}: expected a list of edits, got {edits!r}", field=field)
    for edit in edits:
        try:
            member = MceEdit[edit.removeprefix(_PREFIX)] if isinstance(edit, str) else MceEdit(edit)
        except (KeyError, ValueError):
            raise InvalidFieldError(
                f"{field}: expected edits like INVALID_CODE or their numbers, got {edit!r}", field=field
            ) from None
        number |= 1 << (member - 1)
    return number


@dataclass(frozen=True, slots=True)
class EditResult:
    """Answer to one claim: what the editor found, or the ``error`` that says why it could not edit.

    ``edits``: each edit raised, with its count, in the order of CMS; ``admit_edits`` in the order raised.
    ``diagnosis_edits``, ``age_conflicts`` and ``procedure_edits`` have one entry a code, in order of the claim.
    Conflicts of the admitting diagnosis are not counted, as with CMS. Without an answer ``edit_type`` is None.
    """

    claim_id: str
    editor_release: str
    edit_type: EditType | None = None
    edits: tuple[EditCount, ...] = ()
    admit_edits: tuple[MceEdit, ...] = ()
    admit_age_conflict: AgeConflict = AgeConflict.NONE
    diagnosis_edits: tuple[CodeEdits, ...] = ()
    age_conflicts: tuple[AgeConflict, ...] = ()
    procedure_edits: tuple[CodeEdits, ...] = ()
    error: CodesetError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result in the shape of its proto3 JSON: snake_case names, enumerations by their full names."""
        if self.error is not None:
            error = {"code": self.error.code, "message": str(self.error), "field": self.error.field}
            return {"claim_id": self.claim_id, "editor_release": self.editor_release, "error": error}
        assert self.edit_type is not None
        return {
            "claim_id": self.claim_id,
            "editor_release": self.editor_release,
            "edit_type": f"EDIT_TYPE_{self.edit_type.name}",
            "edits": [{"edit": _NAMES[found.edit], "count": found.count} for found in self.edits],
            "admit_edits": [_NAMES[edit] for edit in self.admit_edits],
            "admit_age_conflict": _AGE_CONFLICT_NAMES[self.admit_age_conflict],
            "diagnosis_edits": [
                {"code": code, "edits": [_NAMES[edit] for edit in edits]} for code, edits in self.diagnosis_edits
            ],
            "age_conflicts": [_AGE_CONFLICT_NAMES[conflict] for conflict in self.age_conflicts],
            "procedure_edits": [
                {"code": code, "edits": [_NAMES[edit] for edit in edits]} for code, edits in self.procedure_edits
            ],
        }


class _Order(dict[int, tuple[MceEdit, ...]]):
    """Sets of edits to their members in order. Made once each: few of the possible ones occur."""

    def __init__(self, order: Iterable[MceEdit]) -> None:
        self.order = tuple(order)

    def __missing__(self, edits: int) -> tuple[MceEdit, ...]:
        found = self[edits] = tuple(edit for edit in self.order if edits >> (edit - 1) & 1)
        return found


_PREFIX: Final = "MCE_EDIT_"
# By number: the hash of an enumeration's member is that of its name, and slow.
_NAMES: Final = [""] * (max(MceEdit) + 1)
for _edit in MceEdit:
    _NAMES[_edit] = f"{_PREFIX}{_edit.name}"
_AGE_CONFLICT_NAMES: Final = ("", *(f"AGE_CONFLICT_{conflict.name}" for conflict in AgeConflict))
_EDIT_TYPES: Final = (None, *EditType)
# By the number that CMS gives the type of an age conflict, none being 0.
_AGE_CONFLICTS: Final = tuple(AgeConflict)
_AGE_CONFLICT_SHIFT: Final = 60

# The order in which CMS raises the edits of a code.
_DIAGNOSIS: Final = (MceEdit.AGE_CONFLICT, MceEdit.SEX_CONFLICT)
ON_PRINCIPAL: Final = _Order(
    (
        MceEdit.INVALID_CODE,
        MceEdit.E_CODE_AS_PDX,
        MceEdit.MANIFESTATION_AS_PDX,
        MceEdit.REQUIRES_SDX,
        MceEdit.UNACCEPTABLE_PDX,
        MceEdit.NONSPECIFIC_PDX,
        MceEdit.QUESTIONABLE_ADMISSION,
        *_DIAGNOSIS,
        MceEdit.WRONG_PROCEDURE_PERFORMED,
        MceEdit.MEDICARE_IS_SECONDARY_PAYER,
        MceEdit.UNSPECIFIED_CODE,
    )
)
ON_SECONDARY: Final = _Order(
    (
        MceEdit.INVALID_CODE,
        MceEdit.DUPLICATE_OF_PDX,
        MceEdit.MEDICARE_IS_SECONDARY_PAYER,
        MceEdit.UNSPECIFIED_CODE,
        MceEdit.WRONG_PROCEDURE_PERFORMED,
        *_DIAGNOSIS,
    )
)
ON_ADMITTING: Final = _Order((MceEdit.INVALID_ADMIT_DX, *_DIAGNOSIS))
_ON_CLAIM: Final = _Order(MceEdit)
ON_PROCEDURES: Final = _Order(
    (
        MceEdit.INVALID_CODE,
        MceEdit.SEX_CONFLICT,
        MceEdit.NONSPECIFIC_OR,
        MceEdit.OPEN_BIOPSY,
        MceEdit.INCONSISTENT_WITH_LENGTH_OF_STAY,
        MceEdit.NON_COVERED,
        *(edit for edit in MceEdit if edit.name.startswith("LIMITED_COVERAGE")),
        MceEdit.BILATERAL,
        MceEdit.QUESTIONABLE_OBSTETRIC_ADMISSION,
    )
)
# Counted once a claim, whatever is on its codes.
ONCE: Final = _set_of(
    [MceEdit.INVALID_ADMIT_DX, *(edit for edit, info in EDITS.items() if _CLAIM in info.raised_on), MceEdit.BILATERAL],
    "",
)


class MceEditor:
    """One release of the editor, opened from its pack. Safe to share between threads."""

    def __init__(self, pack: Pack) -> None:
        self.core = _mce.Editor(pack)
        self.manifest: Manifest = pack.manifest

    @property
    def release(self) -> str:
        """The release, "43.1"."""
        return self.manifest.release

    @property
    def version(self) -> int:
        """The number that CMS prints on results: 431 for release 43.1."""
        return self.core.version

    @property
    def termination(self) -> int:
        """The last discharge date it edits, CCYYMMDD. On a later one it answers INVALID_DISCHARGE_DATE."""
        return self.manifest.effective_to

    def __repr__(self) -> str:
        return f"<Medicare Code Editor {self.release}>"


class EditResults(Sequence[EditResult]):
    """Answers to a batch of claims, in order. Results are made when asked for; the arrays behind them are there at
    once.

    ``table`` has one element a claim (dtype ``engine._mce.RESULT_DTYPE``; all zero where there is an error): its
    ``edits`` and ``admit_edits`` are sets, bit ``edit - 1`` for each edit. ``diagnoses`` and ``procedures`` hold such
    a set for each code of all claims one after the other, those of claim i from ``starts[0, i]`` and ``starts[1, i]``
    on; the top four bits of a diagnosis and of ``admit_edits`` are its AgeConflict number less one.
    """

    def __init__(
        self,
        batch: _mce.EditBatch,
        editor: MceEditor,
        tables: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.uint32]],
    ) -> None:
        self._batch = batch
        self._editor = editor
        self.table, self.diagnoses, self.procedures, self.starts = tables

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> EditResult: ...
    @overload
    def __getitem__(self, index: slice) -> list[EditResult]: ...
    def __getitem__(self, index: int | slice) -> EditResult | list[EditResult]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return next(self._iterate(index, index + 1))

    def __iter__(self) -> Iterator[EditResult]:
        return self._iterate(0, len(self))

    @property
    def errors(self) -> Mapping[int, CodesetError]:
        """Position of every claim that has no answer, and why."""
        lacking = np.flatnonzero(self.table["missing"])
        return self._batch.errors | {int(i): missing_field(int(self.table["missing"][i])) for i in lacking}

    def _iterate(self, first: int, last: int) -> Iterator[EditResult]:
        rows = self.table[first:last].tolist()
        starts = self.starts[:, first : last + 1].tolist()
        dx_at, px_at = starts[0][0], starts[1][0]
        dx = self.diagnoses[dx_at : starts[0][-1]].tolist()
        px = self.procedures[px_at : starts[1][-1]].tolist()
        release = self._editor.release
        for i, (edits, admit, edit_type, missing) in enumerate(rows):
            claim = self._batch.claims[first + i]
            claim_id = _field(claim, "claim_id") or ""
            error = self._batch.errors.get(first + i) or (missing_field(missing) if missing else None)
            if error is not None:
                # The id itself may be what is wrong with the claim.
                yield EditResult(claim_id if isinstance(claim_id, str) else "", release, error=error)
                continue
            own_dx = dx[starts[0][i] - dx_at : starts[0][i + 1] - dx_at]
            own_px = px[starts[1][i] - px_at : starts[1][i + 1] - px_at]
            yield EditResult(
                claim_id,
                release,
                _EDIT_TYPES[edit_type],
                _counts(edits, own_dx, own_px) if edits else (),
                ON_ADMITTING[admit],
                _AGE_CONFLICTS[admit >> _AGE_CONFLICT_SHIFT],
                tuple(
                    CodeEdits(code, (ON_SECONDARY if k else ON_PRINCIPAL)[found])
                    for k, (code, found) in enumerate(zip(_field(claim, "diagnoses") or (), own_dx, strict=True))
                ),
                tuple(_AGE_CONFLICTS[found >> _AGE_CONFLICT_SHIFT] for found in own_dx),
                tuple(
                    CodeEdits(code, ON_PROCEDURES[found])
                    for code, found in zip(_field(claim, "procedures") or (), own_px, strict=True)
                ),
            )


class EditedAndGrouped(Sequence[tuple[EditResult, DrgResult]]):
    """Answers of the editor and of the grouper to the same claims, in order: pairs, or one by one in ``edited`` and
    ``grouped``. Each of a pair has its own error; an edit keeps no claim from being grouped.
    """

    def __init__(self, edited: EditResults, grouped: DrgResults) -> None:
        self.edited = edited
        self.grouped = grouped

    def __len__(self) -> int:
        return len(self.edited)

    @overload
    def __getitem__(self, index: int) -> tuple[EditResult, DrgResult]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[EditResult, DrgResult]]: ...
    def __getitem__(self, index: int | slice) -> tuple[EditResult, DrgResult] | list[tuple[EditResult, DrgResult]]:
        if isinstance(index, slice):
            return list(zip(self.edited[index], self.grouped[index], strict=True))
        return self.edited[index], self.grouped[index]

    def __iter__(self) -> Iterator[tuple[EditResult, DrgResult]]:
        return zip(self.edited, self.grouped, strict=True)


def edit_many(claims: Iterable[Claim], editor: MceEditor, options: EditingOptions | None = None) -> EditResults:
    """Edit claims; the answers come in their order, and what is wrong with one claim is its answer's ``error``.

    ``options.editor_release`` is not looked at: ``editor`` is the release. The GIL is released while the batch is
    edited.

    Raises InvalidFieldError if ``claims`` is not an iterable of claims at all, or an option is none.
    """
    check_claims(claims)
    sets = (options or EditingOptions()).sets()
    batch = _mce.EditBatch(claims)
    return EditResults(batch, editor, _mce.run(batch, editor.core, *sets))


def edit_and_group_many(
    claims: Iterable[Claim],
    editor: MceEditor,
    choose: Callable[[str, int], MsdrgGrouper],
    editing: EditingOptions | None = None,
    grouping: GroupingOptions | None = None,
) -> EditedAndGrouped:
    """Edit and group claims as ``edit_many`` and ``engine.drg.group_many`` do, and raise what they raise; each claim is
    read once."""
    check_claims(claims)
    sets = (editing or EditingOptions()).sets()
    if not isinstance(claims, (list, tuple)):
        claims = list(claims)
    groups, groupers = batch_of(claims, choose, later=True)
    edits = _mce.EditBatch(claims, groups)
    return EditedAndGrouped(
        EditResults(edits, editor, _mce.run(edits, editor.core, *sets)), group_batch(groups, groupers, grouping)
    )


def _counts(edits: int, dx: Iterable[int], px: Iterable[int]) -> tuple[EditCount, ...]:
    found = [own for own in (*dx, *px) if own]
    return tuple(
        EditCount(edit, 1 if ONCE >> (edit - 1) & 1 else sum(own >> (edit - 1) & 1 for own in found))
        for edit in _ON_CLAIM[edits]
    )


def missing_field(number: int) -> MissingFieldError:
    field = _mce.MISSING[number]
    why = {
        "age": "diagnoses are edited by it",
        "sex": "codes are edited by it",
        "discharge_status": "diagnoses are edited by it",
        "length_of_stay": "one of the claim's procedures is edited by it",
    }[field]
    return MissingFieldError(
        f"{field}: expected a value, got none; {why}, and the CMS software fails without it.", field=field
    )


def _field(claim: Claim, name: str) -> Any:
    return claim.get(name) if isinstance(claim, dict) else getattr(claim, name, None)
