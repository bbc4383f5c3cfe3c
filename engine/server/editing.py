"""Edits of claims between messages and the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._pb.codeset.v1 import editing_pb2, grouping_pb2
from ..mce import EDITS, EditingOptions

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

    from ..mce import EditResult

__all__ = ["add_result", "editing_options", "edits"]


def editing_options(request: grouping_pb2.EditClaimRequest | grouping_pb2.BatchEditClaimsRequest) -> EditingOptions:
    """Return what a request says of the editor. That its numbers are edits the library checks."""
    options = request.options
    return EditingOptions(
        request.editor_release,
        options.suppress_on_principal,
        options.suppress_on_secondary,
        options.suppress_on_procedures,
    )


def add_result(results: RepeatedCompositeFieldContainer[editing_pb2.EditResult], result: EditResult) -> None:
    """Append a result that has no error to ``results``, in place: a message made first and appended is copied whole.

    Enumerations have the numbers of the proto.
    """
    message = results.add(
        claim_id=result.claim_id,
        editor_release=result.editor_release,
        edit_type=result.edit_type,
        admit_edits=result.admit_edits,
        admit_age_conflict=result.admit_age_conflict,
        age_conflicts=result.age_conflicts,
    )
    for found in result.edits:
        message.edits.add(edit=found.edit, count=found.count)
    add = message.diagnosis_edits.add
    for code, own in result.diagnosis_edits:
        add(code=code, edits=own)
    add = message.procedure_edits.add
    for code, own in result.procedure_edits:
        add(code=code, edits=own)


def edits() -> list[editing_pb2.EditInfo]:
    """Return what there is to know of every edit."""
    return [
        editing_pb2.EditInfo(
            edit=int(info.edit),  # type: ignore[arg-type]
            number=info.number,
            title=info.title,
            meaning=info.meaning,
            action=info.action,
            payment_type=int(info.payment),  # type: ignore[arg-type]
            raised_on=info.raised_on,
            icd_versions=info.icd_versions,
        )
        for info in EDITS.values()
    ]
