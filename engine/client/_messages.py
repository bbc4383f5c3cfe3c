"""What callers give, as messages; and messages as dicts.

Requests may be given as messages or as mappings in the shape of their proto3 JSON with the names of the
proto, the shape of the reference claims and of the CLI's NDJSON.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.message import Message

from .._pb.codeset.v1 import error_pb2, grouping_pb2, terminology_pb2
from ..errors import CodesetError, InvalidDateError, InvalidFieldError

_fast: Any
try:
    from . import _fast
except ImportError:
    # Not compiled here: the generated classes do the same, more slowly.
    _fast = None

__all__ = [
    "Chunk",
    "claim_message",
    "code_chunks",
    "date_number",
    "drg_chunks",
    "drg_dicts",
    "fill_error",
    "kind_number",
    "options_message",
    "to_dict",
]

ClaimLike = grouping_pb2.InpatientClaim | Mapping[str, Any] | Any
"""A claim: the message, a mapping with its field names, or a dataclass with them (``engine.InpatientClaim``).

Values that are None count as absent. Enumerations may be given by number, full name or name without prefix.
"""

OptionsLike = grouping_pb2.DrgOptions | Mapping[str, Any]
"""Options of the grouper: the message, or a mapping with its field names (``{"detail": "DRG"}``)."""

CodeLike = str | terminology_pb2.CodeToValidate | Mapping[str, Any]
"""A code to validate: the code alone, or with a system, release or date of its own."""

Date = int | str | datetime.date
"""A day: CCYYMMDD as a number or text, or a date."""

_CLAIM_FIELDS: Final = grouping_pb2.InpatientClaim.DESCRIPTOR.fields_by_name
_BESIDE_ERROR: Final = {
    "codeset.v1.DrgResult": ("claim_id", "version", "error"),
    "codeset.v1.CodeValidation": ("code", "error"),
    "codeset.v1.EditResult": ("claim_id", "editor_release", "error"),
    "codeset.v1.HccResult": ("member_id", "model", "payment_year", "error"),
}
"""What is left of an item that has an error, by message."""
_KINDS: Final = terminology_pb2.NodeKind.DESCRIPTOR
_INTEGER: Final = FieldDescriptor.CPPTYPE_INT32
_ENUM: Final = FieldDescriptor.CPPTYPE_ENUM


def to_dict(message: Message) -> dict[str, Any]:
    """Return ``message`` as proto3 JSON with the names of the proto: what the CLI writes, one object a line.

    Numbers and lists are there also when zero or empty; messages that are not set are left out. A result
    with an ``error`` has only what says whose it is, beside the error. A DRG result is what
    ``to_dict()`` of the engine's result in process gives.
    """
    document = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    beside_error = _BESIDE_ERROR.get(message.DESCRIPTOR.full_name)
    if beside_error is not None and message.HasField("error"):
        return {name: document[name] for name in beside_error}
    return document


def date_number(date: Date | None) -> int:
    """Return ``date`` as CCYYMMDD, 0 for None.

    Raises InvalidDateError; that it is a day of the calendar the server checks.
    """
    if date is None:
        return 0
    if isinstance(date, datetime.date):
        return date.year * 10000 + date.month * 100 + date.day
    if isinstance(date, str) and len(date) == 8 and date.isascii() and date.isdigit():
        return int(date)
    if isinstance(date, int) and not isinstance(date, bool) and 0 < date <= 99991231:
        return date
    raise InvalidDateError(f"date: expected a day as CCYYMMDD or a datetime.date, got {date!r}", field="date")


def kind_number(kind: str | None) -> terminology_pb2.NodeKind:
    """Return the number of a level's name ("block"), 0 for None. Raises InvalidFieldError."""
    value = _KINDS.values_by_name.get(f"NODE_KIND_{kind.upper()}") if isinstance(kind, str) else None
    if kind is not None and (value is None or value.number == 0):
        names = ", ".join(v.name.removeprefix("NODE_KIND_").lower() for v in _KINDS.values[1:])
        raise InvalidFieldError(f"kind: expected one of {names}, got {kind!r}", field="kind")
    number: Any = 0 if value is None else value.number
    return number  # type: ignore[no-any-return]


def fill_error(target: error_pb2.ItemError, error: CodesetError) -> None:
    """Write ``error`` into the ``error`` of a batch item."""
    target.code, target.message, target.field = error.code, str(error), error.field


def claim_message(claim: ClaimLike) -> grouping_pb2.InpatientClaim:
    """Return ``claim`` as a message. Raises InvalidFieldError, naming the first field that is wrong."""
    if isinstance(claim, grouping_pb2.InpatientClaim):
        return claim
    request = grouping_pb2.BatchGroupDrgRequest()
    _add_claim(request.claims, claim)
    return request.claims[0]


def _add_claim(
    claims: RepeatedCompositeFieldContainer[grouping_pb2.InpatientClaim], claim: ClaimLike
) -> grouping_pb2.InpatientClaim:
    """Append ``claim`` and return it as appended. On an error nothing is appended."""
    if isinstance(claim, grouping_pb2.InpatientClaim):
        claims.append(claim)
        return claim
    if dataclasses.is_dataclass(claim) and not isinstance(claim, type):
        # The claim class of the engine in process, which is not imported here.
        claim = {field.name: getattr(claim, field.name) for field in dataclasses.fields(claim)}
    if not isinstance(claim, Mapping):
        raise InvalidFieldError(
            f"a claim: expected an InpatientClaim or a mapping with its field names, got {type(claim).__name__}"
        )
    # The constructor is the fast check of most types. It takes a text given for a list as the list of
    # its characters, a mapping as that of its keys, and protobuf before 7 takes a bool for a number.
    wrong = isinstance(claim.get("diagnoses"), str | Mapping) or isinstance(claim.get("procedures"), str | Mapping)
    if not wrong and bool not in map(type, claim.values()):
        count = len(claims)
        try:
            return claims.add(**claim)
        except (TypeError, ValueError):
            del claims[count:]
    return claims.add(**{name: _field(name, value) for name, value in claim.items() if value is not None})


def _field(name: str, value: Any) -> Any:
    """Return ``value`` as the constructor takes it for claim field ``name``, or raise InvalidFieldError."""
    field = _CLAIM_FIELDS.get(name)
    if field is None:
        raise InvalidFieldError(
            f"{name}: not a field of an inpatient claim. The fields are {', '.join(_CLAIM_FIELDS)}.",
            field=str(name),
        )
    if field.enum_type is not None:
        return _enum(field.enum_type, name, value)
    if field.is_repeated:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return [_text(name, item) for item in value]
        raise _wrong(name, "a list of texts", value)
    if field.cpp_type == _INTEGER:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise _wrong(name, "a whole number", value)
        number = int(value)
        if not -(1 << 31) <= number < 1 << 31:
            raise _wrong(name, "a number of 32 bits", value)
        return number
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
    """Accept a number, a full name ("SEX_FEMALE"), or a name without its prefix ("FEMALE")."""
    if isinstance(value, str):
        prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
        found = enum.values_by_name.get(value) or enum.values_by_name.get(prefix + value)
        if found is not None:
            return int(found.number)
    elif hasattr(value, "__index__") and not isinstance(value, bool) and -(1 << 31) <= int(value) < 1 << 31:
        return int(value)
    raise _wrong(name, f"one of {', '.join(v.name for v in enum.values)}", value)


def _wrong(name: str, expected: str, value: Any) -> InvalidFieldError:
    return InvalidFieldError(f"{name}: expected {expected}, got {type(value).__name__} {value!r:.80}", field=name)


class Chunk(NamedTuple):
    """One request of a long batch: ``request``, a message or its bytes, holds the good items; ``errors`` the others, by
    position in the chunk.
    """

    request: Any
    size: int
    errors: dict[int, Any]


def options_message(options: OptionsLike | None) -> grouping_pb2.DrgOptions | None:
    """Return ``options`` as a message. Raises InvalidFieldError, naming the first field that is wrong."""
    if options is None or isinstance(options, grouping_pb2.DrgOptions):
        return options
    if not isinstance(options, Mapping):
        raise InvalidFieldError(
            f"options: expected DrgOptions or a mapping with its field names, got {type(options).__name__}",
            field="options",
        )
    fields = grouping_pb2.DrgOptions.DESCRIPTOR.fields_by_name
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in fields:
            raise InvalidFieldError(
                f"{name}: not an option of the grouper. The options are {', '.join(fields)}.", field=str(name)
            )
        if value is not None:
            values[name] = _enum(fields[name].enum_type, name, value)
    return grouping_pb2.DrgOptions(**values)


def drg_chunks(
    claims: Iterable[ClaimLike], items: int, size: int, options: grouping_pb2.DrgOptions | None
) -> Iterator[Chunk]:
    """Cut ``claims`` into requests of at most ``items`` claims and about ``size`` bytes, in order.

    A claim that cannot be encoded becomes a result with an ``error`` in its place. A single claim of
    more bytes is a request of its own.
    """
    if isinstance(claims, str | bytes | Mapping):
        raise InvalidFieldError(f"claims: expected an iterable of claims, got {type(claims).__name__}", field="claims")
    if _fast is not None:
        yield from _drg_bytes(claims, items, size, options)
        return
    request, count, length = grouping_pb2.BatchGroupDrgRequest(options=options), 0, 0
    errors: dict[int, grouping_pb2.DrgResult] = {}
    for claim in claims:
        try:
            # Three bytes of framing, five for a claim of more than 2 MiB.
            length += _add_claim(request.claims, claim).ByteSize() + 4
        except InvalidFieldError as error:
            errors[count] = _drg_error(claim, error)
        count += 1
        if count >= items or length >= size:
            yield Chunk(request, count, errors)
            request, count, length, errors = grouping_pb2.BatchGroupDrgRequest(options=options), 0, 0, {}
    if count:
        yield Chunk(request, count, errors)


def _drg_bytes(
    claims: Iterable[ClaimLike], items: int, size: int, options: grouping_pb2.DrgOptions | None
) -> Iterator[Chunk]:
    """As ``drg_chunks``, from dicts to bytes; what is no plain dict takes the way through the messages."""
    request = grouping_pb2.BatchGroupDrgRequest(options=options)
    writer = _fast.Writer(_shape(grouping_pb2.InpatientClaim), 1, request.SerializeToString())
    source, count = iter(claims), 0
    errors: dict[int, grouping_pb2.DrgResult] = {}
    size += len(writer)
    while taken := list(islice(source, items - count)):
        at = 0
        while at < len(taken):
            next_at = writer.fill(taken, at, size)
            count += next_at - at
            at = next_at
            if at < len(taken) and len(writer) < size:
                try:
                    writer.add(claim_message(taken[at]).SerializeToString())
                except InvalidFieldError as error:
                    errors[count] = _drg_error(taken[at], error)
                count += 1
                at += 1
            if count >= items or len(writer) >= size:
                yield Chunk(writer.take(), count, errors)
                count, errors = 0, {}
    if count:
        yield Chunk(writer.take(), count, errors)


def _drg_error(claim: ClaimLike, error: InvalidFieldError) -> grouping_pb2.DrgResult:
    """Return the result of a claim that cannot be encoded."""
    result = grouping_pb2.DrgResult()
    identifier = claim.get("claim_id") if isinstance(claim, Mapping) else getattr(claim, "claim_id", None)
    # The error is of the first field that is wrong; the id may be wrong as well.
    if isinstance(identifier, str) and identifier.encode(errors="replace").decode() == identifier:
        result.claim_id = identifier
    fill_error(result.error, error)
    return result


def drg_dicts(raw: bytes) -> list[dict[str, Any]]:
    """Return the results of a BatchGroupDrgResponse as ``to_dict`` has them. Raises ValueError or DecodeError."""
    if _fast is None:
        return [to_dict(result) for result in grouping_pb2.BatchGroupDrgResponse.FromString(raw).results]
    results: list[dict[str, Any]] = _shape(grouping_pb2.BatchGroupDrgResponse).decode(raw)["results"]
    return results


@functools.cache
def _shape(message: type[Message]) -> Any:
    return _fast.Shape(message.DESCRIPTOR, _BESIDE_ERROR)


def code_chunks(
    codes: Iterable[CodeLike], items: int, size: int, system: str, release: str | None, date: Date | None
) -> Iterator[Chunk]:
    """Cut ``codes`` into requests of at most ``items`` codes and about ``size`` bytes, in order."""

    def empty() -> terminology_pb2.BatchValidateCodesRequest:
        return terminology_pb2.BatchValidateCodesRequest(system=system, release=release or "", date=day)

    if isinstance(codes, str | bytes | Mapping):
        raise InvalidFieldError(f"codes: expected an iterable of codes, got {type(codes).__name__}", field="codes")
    day = date_number(date)
    request, count, length = empty(), 0, 0
    errors: dict[int, terminology_pb2.CodeValidation] = {}
    for code in codes:
        try:
            if isinstance(code, str):
                _text("code", code)
                request.items.add(code=code)
                length += len(code) + 4
            else:
                item = code if isinstance(code, terminology_pb2.CodeToValidate) else _code_item(code)
                request.items.append(item)
                length += item.ByteSize() + 4
        except CodesetError as error:
            result = terminology_pb2.CodeValidation()
            fill_error(result.error, error)
            errors[count] = result
        count += 1
        if count >= items or length >= size:
            yield Chunk(request, count, errors)
            request, count, length, errors = empty(), 0, 0, {}
    if count:
        yield Chunk(request, count, errors)


def _code_item(item: Any) -> terminology_pb2.CodeToValidate:
    if not isinstance(item, Mapping):
        raise InvalidFieldError(
            f"a code: expected a text, a CodeToValidate or a mapping with its field names, got {type(item).__name__}",
            field="code",
        )
    values = {name: value for name, value in item.items() if value is not None}
    for name, value in values.items():
        if name not in ("code", "system", "release", "date"):
            raise InvalidFieldError(
                f"{name}: not a field of a code to validate. The fields are code, system, release, date.",
                field=str(name),
            )
        if name == "date":
            values[name] = date_number(value) if value != 0 else 0
        elif not isinstance(value, str):
            raise _wrong(name, "a text", value)
        else:
            _text(name, value)
    return terminology_pb2.CodeToValidate(**values)
