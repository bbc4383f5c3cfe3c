"""Risk scores between messages and the library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._pb.codeset.v1 import scoring_pb2
from ..errors import InvalidFieldError
from ..hcc import HccDetail, PaymentFactors, ScoringOptions

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

    from ..hcc import HccResult

__all__ = ["add_result", "member_of", "scoring_options"]


def member_of(message: scoring_pb2.RiskMember) -> dict[str, Any]:
    """Return the fields that are set: what is absent is not given, also where a message would read 0."""
    return {field.name: value for field, value in message.ListFields()}


def scoring_options(options: scoring_pb2.HccOptions) -> ScoringOptions:
    """Convert the options.

    Raises InvalidFieldError for a number that the enumeration does not have, or two answers to one question.
    """
    try:
        detail = HccDetail(options.detail)
    except ValueError:
        names = ", ".join(f"{member.value} ({member.name})" for member in HccDetail)
        raise InvalidFieldError(f"detail: expected one of {names}, got {options.detail}", field="detail") from None
    factors = [
        PaymentFactors(**{field.name: value for field, value in own.ListFields()})
        if own.model
        else _without_model("factors")
        for own in options.factors
    ]
    blend = {part.model: part.weight if part.model else _without_model("blend") for part in options.blend}
    if blend and options.without_blend:
        raise InvalidFieldError("blend: given together with without_blend; give one of them", field="blend")
    return ScoringOptions(
        detail=detail,
        factors=factors,
        blend=blend if blend or options.without_blend else None,
        drug_plan=options.drug_plan,
    )


def _without_model(field: str) -> Any:
    raise InvalidFieldError(f"{field}: expected the model each of them is for, got one without", field=field)


def add_result(results: RepeatedCompositeFieldContainer[scoring_pb2.HccResult], result: HccResult) -> None:
    """Append a result that has no error to ``results``, in place: a message made first and appended is copied whole."""
    message = results.add(
        member_id=result.member_id,
        model=result.model,
        payment_year=result.payment_year,
        release=result.release,
        age=result.age,
        ccs=result.ccs,
        hccs=result.hccs,
        applicable=result.applicable,
        segment=result.segment,
    )
    add = message.scores.add
    for segment, raw, normalized, payment in result.scores:
        add(segment=segment, raw=raw, normalized=normalized, payment=payment)
    if result.blend is not None:
        for model, weight in result.blend.weights:
            message.blend.weights.add(model=model, weight=weight)
        for segment, payment in result.blend.scores:
            message.blend.scores.add(segment=segment, payment=payment)
    for segment, contributions, divisor in result.contributions:
        part = message.contributions.add(segment=segment, divisor=divisor)
        for variable, coefficient, label in contributions:
            part.contributions.add(variable=variable, coefficient=coefficient, label=label)
    for code, ccs, refused in result.diagnoses:
        message.diagnoses.add(code=code, ccs=ccs, refused=refused)
    for hcc, by, label in result.suppressed:
        message.suppressed.add(hcc=hcc, by=by, label=label)
    for hcc, label in result.hcc_labels:
        message.hcc_labels.add(hcc=hcc, label=label)
