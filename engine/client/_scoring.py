"""Options of risk scores, as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._pb.codeset.v1 import scoring_pb2
from ..errors import InvalidFieldError
from ._messages import enum_number, named, wrong

__all__ = ["HccOptionsLike", "hcc_options_message"]

HccOptionsLike = scoring_pb2.HccOptions | Mapping[str, Any]
"""Options: the message, or a mapping with its field names (``{"detail": "HCC_DETAIL_FULL"}``)."""


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
        if named(fields, name) is None:
            raise InvalidFieldError(
                f"{name}: not an option of scoring. The options are {', '.join(fields)}.", field=str(name)
            )
        if value is None:
            continue
        try:
            if name == "detail":
                message.detail = enum_number(fields[name].enum_type, name, value)  # type: ignore[assignment]
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
                    raise wrong(name, "true or false", value)
                setattr(message, name, value)
        except (TypeError, ValueError) as error:
            if isinstance(error, InvalidFieldError):
                raise
            raise wrong(name, f"what HccOptions.{name} takes", value) from None
    return message
