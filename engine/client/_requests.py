"""What the methods of both clients ask the server: calls, and batches of any length."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from .._pb.codeset.v1 import catalog_pb2, editing_pb2, grouping_pb2, scoring_pb2, terminology_pb2
from . import _compiled
from ._batches import DRG, EDIT, EDIT_AND_GROUP, HCC, VALIDATION, Batch, Columns, Job, Rows, checked
from ._columns import ColumnItems, is_frame, wanted
from ._editing import EditOptionsLike, edit_head
from ._messages import (
    CLAIM,
    MEMBER,
    ClaimLike,
    Date,
    Kind,
    MemberLike,
    OptionsLike,
    date_number,
    kind_number,
    options_message,
)
from ._scoring import HccOptionsLike, hcc_options_message

__all__ = [
    "DICTS",
    "MESSAGES",
    "Call",
    "Subsumption",
    "columns_of",
    "drg_call",
    "drg_job",
    "edit_and_group_call",
    "edit_and_group_job",
    "edit_call",
    "edit_job",
    "edits_call",
    "expand_request",
    "explain_call",
    "hcc_call",
    "hcc_job",
    "lookup_call",
    "release_call",
    "releases_call",
    "subsumes_call",
    "validate_call",
    "validation_job",
]

_PAGE = 10_000

R = TypeVar("R")

MESSAGES = Rows()
DICTS = Rows(dicts=True)


class Subsumption(enum.StrEnum):
    """How a code stands to another: the codes of FHIR's ConceptSubsumptionOutcome."""

    EQUIVALENT = "equivalent"
    SUBSUMES = "subsumes"
    SUBSUMED_BY = "subsumed-by"
    NOT_SUBSUMED = "not-subsumed"


class Call(NamedTuple, Generic[R]):
    """One call: its method, its request, and what of the response is the answer."""

    method: str
    request: Message | bytes
    answer: Callable[[Any], R]


def validate_call(
    system: str, code: str, date: Date | None, release: str | None
) -> Call[terminology_pb2.CodeValidation]:
    """ValidateCode."""
    request = terminology_pb2.ValidateCodeRequest(
        system=system, code=code, release=release or "", date=date_number(date)
    )
    return Call("ValidateCode", request, _result)


def lookup_call(
    system: str, code: str, date: Date | None, release: str | None, kind: str | None
) -> Call[terminology_pb2.LookupResponse]:
    """Lookup."""
    request = terminology_pb2.LookupRequest(
        system=system, code=code, release=release or "", date=date_number(date), kind=kind_number(kind)
    )
    return Call("Lookup", request, lambda response: response)


def expand_request(
    relation: str, system: str, code: str, date: Date | None, release: str | None, kind: str | None
) -> terminology_pb2.ExpandRequest:
    """Return the Expand request of the first page."""
    return terminology_pb2.ExpandRequest(
        system=system,
        code=code,
        relation=f"EXPAND_RELATION_{relation}",
        release=release or "",
        date=date_number(date),
        kind=kind_number(kind),
        page_size=_PAGE,
    )


def subsumes_call(system: str, code_a: str, code_b: str, date: Date | None, release: str | None) -> Call[Subsumption]:
    """Subsumes."""
    request = terminology_pb2.SubsumesRequest(
        system=system, code_a=code_a, code_b=code_b, release=release or "", date=date_number(date)
    )
    return Call("Subsumes", request, _subsumption)


def _subsumption(response: terminology_pb2.SubsumesResponse) -> Subsumption:
    name = terminology_pb2.SubsumptionOutcome.Name(response.outcome)
    return Subsumption[name.removeprefix("SUBSUMPTION_OUTCOME_")]


def drg_call(claim: ClaimLike, options: OptionsLike | None) -> Call[grouping_pb2.DrgResult]:
    """GroupDrg."""
    head = grouping_pb2.GroupDrgRequest(options=options_message(options))
    return Call("GroupDrg", _with(head, CLAIM, claim), _result)


def explain_call(claim: ClaimLike, options: OptionsLike | None) -> Call[grouping_pb2.DrgExplanation]:
    """ExplainDrg."""
    head = grouping_pb2.ExplainDrgRequest(options=options_message(options))
    return Call("ExplainDrg", _with(head, CLAIM, claim), lambda response: response.explanation)


def edit_call(
    claim: ClaimLike, editor_release: str | None, options: EditOptionsLike | None
) -> Call[editing_pb2.EditResult]:
    """EditClaim."""
    # A request for one claim has the fields of a request for many, by number.
    return Call("EditClaim", _with(edit_head(editor_release, options, False, None), CLAIM, claim), _result)


def edit_and_group_call(
    claim: ClaimLike, editor_release: str | None, options: EditOptionsLike | None, drg_options: OptionsLike | None
) -> Call[tuple[editing_pb2.EditResult, grouping_pb2.DrgResult]]:
    """EditClaim, with the DRG."""
    request = _with(edit_head(editor_release, options, True, drg_options), CLAIM, claim)
    return Call("EditClaim", request, lambda response: (response.result, response.drg_result))


def edits_call() -> Call[list[editing_pb2.EditInfo]]:
    """ListEdits."""
    return Call("ListEdits", grouping_pb2.ListEditsRequest(), lambda response: list(response.edits))


def hcc_call(member: MemberLike, options: HccOptionsLike | None) -> Call[scoring_pb2.HccResult]:
    """ScoreHcc."""
    head = scoring_pb2.ScoreHccRequest(options=hcc_options_message(options))
    return Call("ScoreHcc", _with(head, MEMBER, member), _result)


def releases_call(system: str | None) -> Call[list[catalog_pb2.Release]]:
    """ListReleases."""
    request = catalog_pb2.ListReleasesRequest(system=system or "")
    return Call("ListReleases", request, lambda response: list(response.releases))


def release_call(system: str, release: str | None, date: Date | None) -> Call[catalog_pb2.Release]:
    """GetRelease."""
    request = catalog_pb2.GetReleaseRequest(system=system, release=release or "", date=date_number(date))
    return Call("GetRelease", request, lambda response: response.release)


def _result(response: Any) -> Any:
    return response.result


def _with(head: Message, kind: Kind, item: Any) -> bytes:
    """Return a request for one item, which is its field 1; ``head`` has the others. Raises as ``Kind.message`` does."""
    writer = _compiled.writer(kind, 1, head.SerializeToString())
    if not writer.fill([item], 0, len(writer) + 1):
        writer.add(kind.message(item).SerializeToString())
    return writer.take()


def drg_job(claims: Any, options: OptionsLike | None, form: Rows | Columns = MESSAGES) -> Job:
    """BatchGroupDrg, or StreamGroupDrg."""
    return _job(DRG, claims, grouping_pb2.BatchGroupDrgRequest(options=options_message(options)), form)


def edit_job(
    claims: Any, editor_release: str | None, options: EditOptionsLike | None, form: Rows | Columns = MESSAGES
) -> Job:
    """BatchEditClaims."""
    return _job(EDIT, claims, edit_head(editor_release, options, False, None), form)


def edit_and_group_job(
    claims: Any,
    editor_release: str | None,
    options: EditOptionsLike | None,
    drg_options: OptionsLike | None,
    form: Rows | Columns = MESSAGES,
) -> Job:
    """BatchEditClaims, with the DRG."""
    return _job(EDIT_AND_GROUP, claims, edit_head(editor_release, options, True, drg_options), form)


def hcc_job(members: Any, options: HccOptionsLike | None, form: Rows | Columns = MESSAGES) -> Job:
    """BatchScoreHcc."""
    return _job(HCC, members, scoring_pb2.BatchScoreHccRequest(options=hcc_options_message(options)), form)


def validation_job(
    system: str, codes: Any, date: Date | None, release: str | None, form: Rows | Columns = MESSAGES
) -> Job:
    """BatchValidateCodes. Columns may also be that of the codes alone."""
    head = terminology_pb2.BatchValidateCodesRequest(system=system, release=release or "", date=date_number(date))
    if isinstance(form, Columns) and not is_frame(codes):
        codes = {"code": codes}
    return _job(VALIDATION, codes, head, form)


def _job(batch: Batch, items: Any, head: Message, form: Rows | Columns) -> Job:
    items = ColumnItems(batch.kind, items) if isinstance(form, Columns) else checked(batch.kind, items)
    return Job(batch, items, head, form)


_UNARY = {"results": "result.", "drg_results": "drg_result."}
"""What EditClaim calls that which BatchEditClaims has lists of."""


def columns_of(batch: Batch, fields: Iterable[str] | None) -> Columns:
    """Return the form of answers to ``batch`` as columns. Raises InvalidFieldError for names that they do not have."""
    prefixes = _UNARY if len(batch.results) > 1 else {batch.results[0]: ""}
    return Columns(wanted(batch.response, prefixes, fields))
