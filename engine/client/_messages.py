"""What callers give, as messages; and messages as dicts.

Requests may be given as messages or as mappings in the shape of their proto3 JSON with the names of the
proto, the shape of the reference claims and of the CLI's NDJSON.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from .._pb.codeset.v1 import error_pb2, grouping_pb2, scoring_pb2, terminology_pb2
from ..errors import CodesetError, InvalidDateError, InvalidFieldError

__all__ = [
    "BESIDE_ERROR",
    "CLAIM",
    "CODE",
    "MEMBER",
    "Kind",
    "date_number",
    "enum_number",
    "fill_error",
    "kind_number",
    "named",
    "options_message",
    "to_dict",
    "wrong",
]

ClaimLike = grouping_pb2.InpatientClaim | Mapping[str, Any] | Any
"""A claim: the message, a mapping with its field names, or a dataclass with them (``engine.InpatientClaim``).

Values that are None count as absent. Enumerations may be given by number, full name or name without prefix.
"""

OptionsLike = grouping_pb2.DrgOptions | Mapping[str, Any]
"""Options of the grouper: the message, or a mapping with its field names (``{"detail": "DRG"}``)."""

MemberLike = scoring_pb2.RiskMember | Mapping[str, Any] | Any
"""A member: the message, a mapping with its field names, or a dataclass with them (``engine.RiskMember``).

Values that are None count as absent. The sex may be given by number, full name or name without prefix.
"""

CodeLike = str | terminology_pb2.CodeToValidate | Mapping[str, Any]
"""A code to validate: the code alone, or with a system, release or date of its own."""

Date = int | str | datetime.date
"""A day: CCYYMMDD as a number or text, or a date."""

BESIDE_ERROR: Final = {
    "codeset.v1.DrgResult": ("claim_id", "version", "error"),
    "codeset.v1.CodeValidation": ("code", "error"),
    "codeset.v1.EditResult": ("claim_id", "editor_release", "error"),
    "codeset.v1.HccResult": ("member_id", "model", "payment_year", "error"),
}
"""What is left of an item that has an error, by message."""
_KINDS: Final = terminology_pb2.NodeKind.DESCRIPTOR
_BOOL: Final = FieldDescriptor.CPPTYPE_BOOL
_INTEGER: Final = FieldDescriptor.CPPTYPE_INT32


def to_dict(message: Message) -> dict[str, Any]:
    """Return ``message`` as proto3 JSON with the names of the proto: what the CLI writes, one object a line.

    Numbers and lists are there also when zero or empty; messages that are not set are left out. A result
    with an ``error`` has only what says whose it is, beside the error. A DRG result is what
    ``to_dict()`` of the engine's result in process gives.
    """
    document = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    beside_error = BESIDE_ERROR.get(message.DESCRIPTOR.full_name)
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
    value = named(_KINDS.values_by_name, f"NODE_KIND_{kind.upper()}") if isinstance(kind, str) else None
    if kind is not None and (value is None or value.number == 0):
        names = ", ".join(v.name.removeprefix("NODE_KIND_").lower() for v in _KINDS.values[1:])
        raise InvalidFieldError(f"kind: expected one of {names}, got {kind!r}", field="kind")
    number: Any = 0 if value is None else value.number
    return number  # type: ignore[no-any-return]


def fill_error(target: error_pb2.ItemError, error: CodesetError) -> None:
    """Write ``error`` into the ``error`` of a batch item."""
    # A name that was given may be a text that protobuf cannot have.
    message, field = (text.encode(errors="backslashreplace").decode() for text in (str(error), error.field))
    target.code, target.message, target.field = error.code, message, field


class Kind(NamedTuple):
    """What the items of a batch are: how they are called, and how they are read."""

    type: type[Message]
    what: str
    """"a claim"."""
    whose: str
    """What its fields are fields of: "an inpatient claim"."""
    many: str
    """"claims"."""
    bare: str = ""
    """The field that an item which is a text stands for."""
    date: str = ""
    """The field that takes what ``date_number`` takes."""

    def message(self, given: Any) -> Any:
        """Return an item as a message. Raises InvalidFieldError or InvalidDateError, naming the first field that is
        wrong.
        """
        if isinstance(given, self.type):
            return given
        if self.bare and isinstance(given, str):
            given = {self.bare: given}
        elif dataclasses.is_dataclass(given) and not isinstance(given, type):
            # The classes of the engine in process, which are not imported here.
            given = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
        if not isinstance(given, Mapping):
            text = "a text, " if self.bare else ""
            name = self.type.DESCRIPTOR.name
            raise InvalidFieldError(
                f"{self.what}: expected {text}{_article(name)} or a mapping with its field names, got "
                f"{type(given).__name__}",
                field=self.bare,
            )
        return self.type(**{name: self.value(name, value) for name, value in given.items() if value is not None})

    def field(self, name: str) -> Any:
        """Return the descriptor of a field. Raises InvalidFieldError if there is no such."""
        field = named(self.type.DESCRIPTOR.fields_by_name, name)
        if field is None:
            names = ", ".join(self.type.DESCRIPTOR.fields_by_name)
            raise InvalidFieldError(f"{name}: not a field of {self.whose}. The fields are {names}.", field=str(name))
        return field

    def value(self, name: str, value: Any) -> Any:
        """Return the value of one field as the generated class takes it. Raises as ``message`` does."""
        field = self.field(name)
        if name == self.date:
            return date_number(value) if value != 0 else 0
        if field.enum_type is not None:
            return enum_number(field.enum_type, name, value)
        if field.is_repeated:
            if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
                items = list(value)
                if all(isinstance(item, str) for item in items):
                    return [_text(name, item) for item in items]
            raise wrong(name, "a list of texts", value)
        if field.cpp_type == _BOOL:
            if not isinstance(value, bool) and (not isinstance(value, int) or value not in (0, 1)):
                raise wrong(name, "true or false", value)
            return bool(value)
        if field.cpp_type == _INTEGER:
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise wrong(name, "a whole number", value)
            number = int(value)
            if not -(1 << 31) <= number < 1 << 31:
                raise wrong(name, "a number of 32 bits", value)
            return number
        if not isinstance(value, str):
            raise wrong(name, "a text", value)
        return _text(name, value)


CLAIM: Final = Kind(grouping_pb2.InpatientClaim, "a claim", "an inpatient claim", "claims")
MEMBER: Final = Kind(scoring_pb2.RiskMember, "a member", "a member", "members")
CODE: Final = Kind(terminology_pb2.CodeToValidate, "a code", "a code to validate", "codes", "code", "date")


def _article(name: str) -> str:
    return f"an {name}" if name.startswith("I") else f"a {name}"


def named(table: Mapping[str, Any], name: Any) -> Any:
    """Return what a table of descriptors has under a name, None for nothing. By itself it fails over surrogates."""
    return table.get(name) if isinstance(name, str) and name.isascii() else None


def _text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong(name, "a text without lone surrogates", value) from None
    return value


def enum_number(enum: Any, name: str, value: Any) -> int:
    """Return the number that a number, a full name ("SEX_FEMALE") or a name without its prefix ("FEMALE") stands for.

    Raises InvalidFieldError for the field ``name``.
    """
    if isinstance(value, str):
        prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
        found = named(enum.values_by_name, value) or named(enum.values_by_name, prefix + value)
        if found is not None:
            return int(found.number)
    elif hasattr(value, "__index__") and not isinstance(value, bool) and -(1 << 31) <= int(value) < 1 << 31:
        return int(value)
    raise wrong(name, f"one of {', '.join(v.name for v in enum.values)}", value)


def wrong(name: str, expected: str, value: Any) -> InvalidFieldError:
    """Return the error of a field that is not what it should be."""
    return InvalidFieldError(f"{name}: expected {expected}, got {type(value).__name__} {value!r:.80}", field=name)


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
        if named(fields, name) is None:
            raise InvalidFieldError(
                f"{name}: not an option of the grouper. The options are {', '.join(fields)}.", field=str(name)
            )
        if value is not None:
            values[name] = enum_number(fields[name].enum_type, name, value)
    return grouping_pb2.DrgOptions(**values)
