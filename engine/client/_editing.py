"""What a call of the code editor says once for all claims, as messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._pb.codeset.v1 import editing_pb2, grouping_pb2
from ..errors import InvalidFieldError
from ._messages import OptionsLike, named, options_message

__all__ = ["EditOptionsLike", "edit_head"]

EditOptionsLike = editing_pb2.MceOptions | Mapping[str, Any]
"""Options of the editor: the message, or a mapping with its field names to lists of edits, each a number, a full name
or a name without prefix (``{"suppress_on_procedures": ["OPEN_BIOPSY"]}``).
"""

_FIELDS = editing_pb2.MceOptions.DESCRIPTOR.fields_by_name
_PREFIX = "MCE_EDIT_"


def edit_head(
    editor_release: str | None, options: EditOptionsLike | None, group: bool, drg_options: OptionsLike | None
) -> grouping_pb2.BatchEditClaimsRequest:
    """Return a request without claims. Raises InvalidFieldError, naming the first field that is wrong."""
    if editor_release is not None and not isinstance(editor_release, str):
        raise InvalidFieldError(
            f"editor_release: expected a text like '43.1', got {type(editor_release).__name__}", field="editor_release"
        )
    return grouping_pb2.BatchEditClaimsRequest(
        editor_release=editor_release or "",
        options=_edit_options(options),
        group=group,
        drg_options=options_message(drg_options),
    )


def _edit_options(options: EditOptionsLike | None) -> editing_pb2.MceOptions | None:
    if options is None or isinstance(options, editing_pb2.MceOptions):
        return options
    if not isinstance(options, Mapping):
        raise InvalidFieldError(
            f"options: expected MceOptions or a mapping with its field names, got {type(options).__name__}",
            field="options",
        )
    message = editing_pb2.MceOptions()
    for name, edits in options.items():
        if named(_FIELDS, name) is None:
            raise InvalidFieldError(
                f"{name}: not an option of the code editor. The options are {', '.join(_FIELDS)}.", field=str(name)
            )
        if edits is None:
            continue
        if isinstance(edits, str | bytes | Mapping) or not isinstance(edits, Iterable):
            raise InvalidFieldError(f"{name}: expected a list of edits, got {type(edits).__name__}", field=name)
        getattr(message, name).extend(_edit(name, edit) for edit in edits)
    return message


def _edit(field: str, edit: Any) -> int:
    numbers = editing_pb2.MceEdit.DESCRIPTOR.values_by_name
    if isinstance(edit, str):
        found = named(numbers, edit) or named(numbers, _PREFIX + edit)
        if found is not None:
            return int(found.number)
    elif hasattr(edit, "__index__") and not isinstance(edit, bool) and 0 < int(edit) < 1 << 31:
        return int(edit)
    raise InvalidFieldError(
        f"{field}: expected edits like INVALID_CODE or their numbers, got {edit!r:.80}", field=field
    )
