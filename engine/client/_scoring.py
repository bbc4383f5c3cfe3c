"""Members to score and their options, as messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from .._pb.codeset.v1 import scoring_pb2
from ..errors import CodesetError, InvalidFieldError
from ._messages import Chunk, fill_error
from ._requests import Batch

__all__ = ["HCC", "HccOptionsLike", "MemberLike", "hcc_chunks", "hcc_options_message", "member_message"]

MemberLike = scoring_pb2.RiskMember | Mapping[str, Any] | Any
"""A member: the message, a mapping with its field names, or a dataclass with them (``engine.RiskMember``).

Values that are None count as absent. The sex may be given by number, full name or name without prefix.
"""

HccOptionsLike = scoring_pb2.HccOptions | Mapping[str, Any]
"""Options: the message, or a mapping with its field names (``{"detail": "HCC_DETAIL_FULL"}``)."""

_FIELDS: Final = scoring_pb2.RiskMember.DESCRIPTOR.fields_by_name
_BOOL: Final = FieldDescriptor.CPPTYPE_BOOL
_INTEGER: Final = FieldDescriptor.CPPTYPE_INT32


def member_message(member: MemberLike) -> scoring_pb2.RiskMember:
    """Return ``member`` as a message. Raises InvalidFieldError, naming the first field that is wrong."""
    if isinstance(member, scoring_pb2.RiskMember):
        return member
    if dataclasses.is_dataclass(member) and not isinstance(member, type):
        # The member class of the engine in process, which is not imported here.
        member = {field.name: getattr(member, field.name) for field in dataclasses.fields(member)}
    if not isinstance(member, Mapping):
        raise InvalidFieldError(
            f"a member: expected a RiskMember or a mapping with its field names, got {type(member).__name__}"
        )
    values = {name: _field(name, value) for name, value in member.items() if value is not None}
    return scoring_pb2.RiskMember(**values)


def _field(name: str, value: Any) -> Any:
    field = _FIELDS.get(name)
    if field is None:
        raise InvalidFieldError(
            f"{name}: not a field of a member. The fields are {', '.join(_FIELDS)}.", field=str(name)
        )
    if field.enum_type is not None:
        return _enum(field.enum_type, name, value)
    if field.is_repeated:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return [_text(name, item) for item in value]
        raise _wrong(name, "a list of texts", value)
    if field.cpp_type == _BOOL:
        if not isinstance(value, bool) and (not isinstance(value, int) or value not in (0, 1)):
            raise _wrong(name, "true or false", value)
        return bool(value)
    if field.cpp_type == _INTEGER:
        if isinstance(value, bool) or not hasattr(value, "__index__") or not -(1 << 31) <= int(value) < 1 << 31:
            raise _wrong(name, "a whole number of 32 bits", value)
        return int(value)
    if not isinstance(value, str):
        raise _wrong(name, "a text", value)
    return _text(name, value)


def _text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(name, "a text without lone surrogates", value) from None
    return value


def _enum(enum: Any, name: str, value: Any) -> int:
    if isinstance(value, str):
        prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
        found = enum.values_by_name.get(value) or enum.values_by_name.get(prefix + value)
        if found is not None:
            return int(found.number)
    elif isinstance(value, int) and not isinstance(value, bool) and -(1 << 31) <= value < 1 << 31:
        return int(value)
    raise _wrong(name, f"one of {', '.join(v.name for v in enum.values)}", value)


def _wrong(name: str, expected: str, value: Any) -> InvalidFieldError:
    return InvalidFieldError(f"{name}: expected {expected}, got {type(value).__name__}", field=name)


def hcc_options_message(options: HccOptionsLike | None) -> scoring_pb2.HccOptions | None:
    """Return ``options`` as a message. Raises InvalidFieldError, naming the field that is wrong.

    ``factors`` may be given as mappings; ``blend`` as a mapping of model to weight, empty for no blend.
    """
    if options is None or isinstance(options, scoring_pb2.HccOptions):
        return options
    if not isinstance(options, Mapping):
        raise InvalidFieldError(
            f"options: expected HccOptions or a mapping with its field names, got {type(options).__name__}",
            field="options",
        )
    message = scoring_pb2.HccOptions()
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in options.items():
        if name not in fields:
            raise InvalidFieldError(
                f"{name}: not an option of scoring. The options are {', '.join(fields)}.", field=str(name)
            )
        if value is None:
            continue
        try:
            if name == "detail":
                message.detail = _enum(fields[name].enum_type, name, value)  # type: ignore[assignment]
            elif name == "blend" and isinstance(value, Mapping):
                message.without_blend = not value
                for model, weight in value.items():
                    message.blend.add(model=model, weight=float(weight))
            elif name == "factors":
                for own in value:
                    message.factors.add(**own) if isinstance(own, Mapping) else message.factors.append(own)
            elif name == "blend":
                message.blend.extend(value)
            else:
                if not isinstance(value, bool):
                    raise _wrong(name, "true or false", value)
                setattr(message, name, value)
        except (TypeError, ValueError) as error:
            if isinstance(error, InvalidFieldError):
                raise
            raise _wrong(name, f"what HccOptions.{name} takes", value) from None
    return message


def hcc_chunks(
    members: Iterable[MemberLike], items: int, size: int, options: scoring_pb2.HccOptions | None
) -> Iterator[Chunk]:
    """Cut ``members`` into requests of at most ``items`` members and about ``size`` bytes, in order.

    A member that cannot be encoded becomes a result with an ``error`` in its place.
    """
    if isinstance(members, str | bytes | Mapping):
        raise InvalidFieldError(
            f"members: expected an iterable of members, got {type(members).__name__}", field="members"
        )
    request, count, length = scoring_pb2.BatchScoreHccRequest(options=options), 0, 0
    errors: dict[int, scoring_pb2.HccResult] = {}
    for member in members:
        try:
            message = member_message(member)
            request.members.append(message)
            # Three bytes of framing, five for a member of more than 2 MiB.
            length += message.ByteSize() + 4
        except InvalidFieldError as error:
            result = scoring_pb2.HccResult()
            for name in ("member_id", "model"):
                given = member.get(name) if isinstance(member, Mapping) else getattr(member, name, None)
                if isinstance(given, str) and error.field != name:
                    setattr(result, name, given)
            fill_error(result.error, error)
            errors[count] = result
        count += 1
        if count >= items or length >= size:
            yield Chunk(request, count, errors)
            request, count, length, errors = scoring_pb2.BatchScoreHccRequest(options=options), 0, 0, {}
    if count:
        yield Chunk(request, count, errors)


def _failed(request: scoring_pb2.BatchScoreHccRequest, error: CodesetError) -> scoring_pb2.HccResult:
    member = request.members[0]
    result = scoring_pb2.HccResult(member_id=member.member_id, model=member.model, payment_year=member.payment_year)
    fill_error(result.error, error)
    return result


HCC = Batch(
    "BatchScoreHcc",
    scoring_pb2.BatchScoreHccRequest,
    lambda request: request.members,
    lambda response: scoring_pb2.BatchScoreHccResponse.FromString(response).results,
    lambda request, members: scoring_pb2.BatchScoreHccRequest(
        members=members, options=request.options if request.HasField("options") else None
    ),
    _failed,
)
