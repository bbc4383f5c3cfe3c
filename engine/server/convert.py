"""From the library's results to messages.

Field by field and by hand: a batch has tens of thousands of them.
"""

from __future__ import annotations

import enum
import json
from typing import TYPE_CHECKING, TypeVar

from google.protobuf import json_format

from .._pb.codeset.v1 import catalog_pb2, error_pb2, grouping_pb2, terminology_pb2
from ..drg import AffectFlags, Detail, GroupingOptions, TieBreaker
from ..errors import CodesetError, InvalidFieldError

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

    from ..codes import Axis, CodeInfo, NoteInfo, Validation
    from ..drg import DrgResult, Grouping
    from ..explain import Explanation, ListVisit
    from ..library import ReleaseInfo

__all__ = [
    "DrgMessages",
    "axis_message",
    "concept_message",
    "explanation_message",
    "fill_error",
    "grouping_options",
    "kind_name",
    "note_message",
    "release_message",
    "validation_message",
]

_Enum = TypeVar("_Enum", bound=enum.IntEnum)

_NODE_KINDS = {
    value.name.removeprefix("NODE_KIND_").lower(): value.number for value in terminology_pb2.NodeKind.DESCRIPTOR.values
}
_NODE_KIND_NAMES = {number: name for name, number in _NODE_KINDS.items()}
_NOTE_KINDS = {
    value.name.removeprefix("NOTE_KIND_").lower(): value.number for value in terminology_pb2.NoteKind.DESCRIPTOR.values
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


def validation_message(code: str, found: Validation) -> terminology_pb2.CodeValidation:
    """Convert the finding on ``code``."""
    return terminology_pb2.CodeValidation(
        code=code,
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


def grouping_options(options: grouping_pb2.DrgOptions) -> GroupingOptions:
    """Convert the options of the grouper.

    Raises InvalidFieldError for a number that an enumeration does not have.
    """
    return GroupingOptions(
        _member(TieBreaker, options.tie_breaker, "tie_breaker"),
        _member(AffectFlags, options.affect_flags, "affect_flags"),
        _member(Detail, options.detail, "detail"),
    )


def _member(kind: type[_Enum], number: int, field: str) -> _Enum:
    try:
        return kind(number)
    except ValueError:
        names = ", ".join(f"{member.value} ({member.name})" for member in kind)
        raise InvalidFieldError(f"{field}: expected one of {names}, got {number}", field=field) from None


class DrgMessages:
    """Writes grouping results into the messages of one response. Groupings repeat within a batch: each is made once."""

    def __init__(self) -> None:
        # By identity: an answer's grouping is made once a version, and hashing its nine fields takes longer than the
        # rest of a look-up. The grouping is kept, so that its identity stays its own.
        self._groupings: dict[int, tuple[Grouping, grouping_pb2.Grouping]] = {}

    def add(self, results: RepeatedCompositeFieldContainer[grouping_pb2.DrgResult], result: DrgResult) -> None:
        """Append a result that has no error to ``results``, in place: a message made first and appended
        is copied whole.
        """
        message = results.add(
            claim_id=result.claim_id,
            version=result.version,
            initial_grouping=self.grouping(result.initial_grouping),
            final_grouping=self.grouping(result.final_grouping),
            hac_status=result.hac_status,
            hac_categories=result.hac_categories,
            admit_diagnosis_flag=result.admit_diagnosis_flag,
        )
        add = message.diagnoses.add
        for dx in result.diagnoses:
            code, recognized, initial_severity, final_severity, affects_drg, poa_error, hacs = dx
            diagnosis = add(
                code=code,
                recognized=recognized,
                initial_severity=initial_severity,
                final_severity=final_severity,
                affects_drg=affects_drg,
                poa_error=poa_error,
            )
            for name, status in hacs:
                diagnosis.hacs.add(name=name, status=status)
        add_procedure = message.procedures.add
        for px in result.procedures:
            code, recognized, operating_room, affects_drg, hac_usage = px
            add_procedure(
                code=code,
                recognized=recognized,
                operating_room=operating_room,
                affects_drg=affects_drg,
                hac_usage=hac_usage,
            )

    def grouping(self, grouping: Grouping | None) -> grouping_pb2.Grouping | None:
        """Return one grouping as a message, which is not to be changed."""
        if grouping is None:
            return None
        found = self._groupings.get(id(grouping))
        if found is not None:
            return found[1]
        # Enumerations have the numbers of the proto; the field names are the proto's too.
        values = grouping._asdict()
        if grouping.weight is not None:
            values["weight"] = grouping.weight.to_dict()
        message = grouping_pb2.Grouping(**values)
        self._groupings[id(grouping)] = grouping, message
        return message


def explanation_message(explanation: Explanation) -> grouping_pb2.DrgExplanation:
    """Convert an explanation whose result has no error."""
    # The one result is written where a batch's are, and taken from there.
    results = grouping_pb2.BatchGroupDrgResponse().results
    groupings = DrgMessages()
    groupings.add(results, explanation.result)
    message = grouping_pb2.DrgExplanation(result=results[0], summary=explanation.summary)
    for visit in explanation.initial:
        _add_visit(message.initial, visit)
    for visit in explanation.final:
        _add_visit(message.final, visit)
    # Field names and numbers of enumerations are the proto's.
    for severity in explanation.severities:
        message.severities.add(**severity._asdict())
    for hac in explanation.hacs:
        message.hacs.add(**hac._asdict())
    for without in explanation.without:
        message.without.add(**{**without._asdict(), "grouping": groupings.grouping(without.grouping)})
    return message


def _add_visit(visits: RepeatedCompositeFieldContainer[grouping_pb2.ListVisit], visit: ListVisit) -> None:
    message = visits.add(mdc=visit.mdc, mdc_title=visit.mdc_title, text=visit.text)
    for miss in visit.near_misses:
        message.near_misses.add(**miss._asdict())
    if visit.winner is not None:
        row = visit.winner._asdict()
        row["atoms"] = [grouping_pb2.AtomExplanation(**atom._asdict()) for atom in visit.winner.atoms]
        message.winner.CopyFrom(grouping_pb2.RowExplanation(**row))
