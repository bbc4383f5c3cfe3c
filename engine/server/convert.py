"""From the library's results to messages.

Field by field and by hand: a batch has tens of thousands of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from .._pb.codeset.v1 import catalog_pb2, error_pb2, grouping_pb2, terminology_pb2
from ..errors import CodesetError, InvalidFieldError

if TYPE_CHECKING:
    from ..codes import Axis, CodeInfo, NoteInfo, Validation
    from ..library import ReleaseInfo

__all__ = [
    "axis_message",
    "concept_message",
    "fill_drg_result",
    "fill_error",
    "kind_name",
    "note_message",
    "release_message",
    "validation_message",
]

_NODE_KINDS = {
    value.name.removeprefix("NODE_KIND_").lower(): value.number
    for value in terminology_pb2.NodeKind.DESCRIPTOR.values
}
_NODE_KIND_NAMES = {number: name for name, number in _NODE_KINDS.items()}
_NOTE_KINDS = {
    value.name.removeprefix("NOTE_KIND_").lower(): value.number
    for value in terminology_pb2.NoteKind.DESCRIPTOR.values
}


def kind_name(number: int) -> str | None:
    """Return the library's name of a level, None for unspecified.

    Raises InvalidFieldError for a number without one.
    """
    if number == 0:
        return None
    try:
        return _NODE_KIND_NAMES[number]
    except KeyError:
        raise InvalidFieldError(f"kind: expected a number of NodeKind, got {number}", field="kind") from None


def concept_message(info: CodeInfo) -> terminology_pb2.Concept:
    """Convert one entry of a tree."""
    return terminology_pb2.Concept(
        code=info.code,
        display=info.display,
        kind=_NODE_KINDS[info.kind],  # type: ignore[arg-type]
        billable=info.billable,
        title=info.title,
        short_title=info.short_title,
    )


def note_message(note: NoteInfo) -> terminology_pb2.Note:
    """Convert one note."""
    return terminology_pb2.Note(
        kind=_NOTE_KINDS[note.kind],  # type: ignore[arg-type]
        text=note.text,
        from_code=note.from_code,
        inherited=note.inherited,
    )


def axis_message(axis: Axis) -> terminology_pb2.Axis:
    """Convert one axis of an ICD-10-PCS code."""
    return terminology_pb2.Axis(position=axis.position, name=axis.name, value=axis.value, label=axis.label)


def validation_message(found: Validation) -> terminology_pb2.CodeValidation:
    """Convert one finding."""
    return terminology_pb2.CodeValidation(
        code=found.code,
        normalized=found.normalized,
        display=found.display,
        system=found.system,
        release=found.release,
        date=found.date,
        status=int(found.status),  # type: ignore[arg-type]
        valid=found.valid,
        billable=found.billable,
        effective_from=found.effective_from or 0,
        effective_to=found.effective_to or 0,
        replaced_by=found.replaced_by,
        title=found.title,
        message=found.message,
    )


def release_message(info: ReleaseInfo) -> catalog_pb2.Release:
    """Convert one release."""
    message = catalog_pb2.Release(
        system=info.system,
        release=info.release,
        kind=info.kind,
        effective_from=info.effective_from,
        effective_to=info.effective_to,
        size_bytes=info.size,
        sources=[
            catalog_pb2.Source(
                wheel=source.wheel,
                version=source.version,
                sha256=source.sha256,
                file=source.file,
                release=source.release,
                provides=source.provides,
            )
            for source in info.sources
        ],
    )
    # Facts are JSON values by contract, and nested ones are not taken by Struct.update in their tuple form.
    json_format.ParseDict(json.loads(json.dumps(dict(info.facts))), message.facts)
    return message


def fill_error(target: error_pb2.ItemError, error: CodesetError) -> None:
    """Write ``error`` into the ``error`` of a batch item."""
    target.code, target.message, target.field = error.code, str(error), error.field


def fill_drg_result(target: grouping_pb2.DrgResult, result: Any) -> None:
    """Fill ``target`` from a grouping result that has no error."""
    target.claim_id = result.claim_id
    target.version = result.version
    _fill_grouping(target.initial_grouping, result.initial_grouping)
    _fill_grouping(target.final_grouping, result.final_grouping)
    target.hac_status = int(result.hac_status)  # type: ignore[assignment]
    target.hac_categories = result.hac_categories
    target.admit_diagnosis_flag = int(result.admit_diagnosis_flag)  # type: ignore[assignment]


def _fill_grouping(target: grouping_pb2.Grouping, grouping: Any) -> None:
    target.mdc = grouping.mdc
    target.drg = grouping.drg
    target.base_drg = grouping.base_drg
    target.med_surg = int(grouping.med_surg)  # type: ignore[assignment]
    target.severity = int(grouping.severity)  # type: ignore[assignment]
    target.sdx_severity = int(grouping.sdx_severity)  # type: ignore[assignment]
    target.return_code = int(grouping.return_code)  # type: ignore[assignment]
    target.mdc_title = grouping.mdc_title
    target.drg_title = grouping.drg_title
