"""Claims to edit and the options of the code editor, as messages."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .._pb.codeset.v1 import editing_pb2, grouping_pb2
from ..errors import CodesetError, InvalidFieldError
from ._messages import Chunk, ClaimLike, OptionsLike, claim_message, fill_error, options_message
from ._requests import Batch

__all__ = [
    "EDIT",
    "EDIT_AND_GROUP",
    "EditOptionsLike",
    "Wanted",
    "edit_chunks",
    "edit_chunks_async",
    "edit_request",
    "wanted_of",
]

EditOptionsLike = editing_pb2.MceOptions | Mapping[str, Any]
"""Options of the editor: the message, or a mapping with its field names to lists of edits, each a number, a full name
or a name without prefix (``{"suppress_on_procedures": ["OPEN_BIOPSY"]}``).
"""

Both = tuple[editing_pb2.EditResult, grouping_pb2.DrgResult]
"""What the editor and the grouper answer to one claim."""

_FIELDS = editing_pb2.MceOptions.DESCRIPTOR.fields_by_name
_PREFIX = "MCE_EDIT_"


class Wanted(NamedTuple):
    """What a call says once for all claims."""

    editor_release: str
    options: editing_pb2.MceOptions | None
    group: bool
    drg_options: grouping_pb2.DrgOptions | None

    def request(self, claims: Iterable[grouping_pb2.InpatientClaim] = ()) -> grouping_pb2.BatchEditClaimsRequest:
        """Return the request that edits ``claims``."""
        return grouping_pb2.BatchEditClaimsRequest(claims=claims, **self._asdict())


def wanted_of(
    editor_release: str | None, options: EditOptionsLike | None, group: bool, drg_options: OptionsLike | None = None
) -> Wanted:
    """Check what a call says once for all claims. Raises InvalidFieldError, naming the first field that is wrong."""
    if editor_release is not None and not isinstance(editor_release, str):
        raise InvalidFieldError(
            f"editor_release: expected a text like '43.1', got {type(editor_release).__name__}", field="editor_release"
        )
    return Wanted(editor_release or "", _edit_options(options), group, options_message(drg_options))


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
        if name not in _FIELDS:
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
        found = numbers.get(edit) or numbers.get(_PREFIX + edit)
        if found is not None:
            return int(found.number)
    elif hasattr(edit, "__index__") and not isinstance(edit, bool) and 0 < int(edit) < 1 << 31:
        return int(edit)
    raise InvalidFieldError(
        f"{field}: expected edits like INVALID_CODE or their numbers, got {edit!r:.80}", field=field
    )


def edit_request(claim: ClaimLike, wanted: Wanted) -> grouping_pb2.EditClaimRequest:
    """Return an EditClaim request."""
    return grouping_pb2.EditClaimRequest(claim=claim_message(claim), **wanted._asdict())


def edit_chunks(claims: Iterable[ClaimLike], items: int, size: int, wanted: Wanted) -> Iterator[Chunk]:
    """Cut ``claims`` into requests of at most ``items`` claims and about ``size`` bytes, in order.

    A claim that cannot be encoded becomes a result with an ``error`` in its place.
    """
    if isinstance(claims, str | bytes | Mapping):
        raise InvalidFieldError(f"claims: expected an iterable of claims, got {type(claims).__name__}", field="claims")
    request, count, length = wanted.request(), 0, 0
    errors: dict[int, Any] = {}
    for claim in claims:
        try:
            message = claim_message(claim)
            request.claims.append(message)
            length += message.ByteSize() + 4
        except InvalidFieldError as error:
            identifier = claim.get("claim_id") if isinstance(claim, Mapping) else getattr(claim, "claim_id", None)
            known = isinstance(identifier, str) and error.field != "claim_id"
            errors[count] = _failure(str(identifier) if known else "", error, wanted.group)
        count += 1
        if count >= items or length >= size:
            yield Chunk(request, count, errors)
            request, count, length, errors = wanted.request(), 0, 0, {}
    if count:
        yield Chunk(request, count, errors)


async def edit_chunks_async(
    claims: AsyncIterable[ClaimLike], items: int, size: int, wanted: Wanted
) -> AsyncIterator[Chunk]:
    """Collect claims as they come until a request is full, then cut as ``edit_chunks`` does."""
    pending: list[ClaimLike] = []
    async for claim in claims:
        pending.append(claim)
        if len(pending) >= items:
            for chunk in edit_chunks(pending, items, size, wanted):
                yield chunk
            pending = []
    for chunk in edit_chunks(pending, items, size, wanted):
        yield chunk


def _failure(claim_id: str, error: CodesetError, group: bool) -> editing_pb2.EditResult | Both:
    edited = editing_pb2.EditResult(claim_id=claim_id)
    fill_error(edited.error, error)
    if not group:
        return edited
    grouped = grouping_pb2.DrgResult(claim_id=claim_id)
    fill_error(grouped.error, error)
    return edited, grouped


def _part(
    request: grouping_pb2.BatchEditClaimsRequest, claims: Iterable[grouping_pb2.InpatientClaim]
) -> grouping_pb2.BatchEditClaimsRequest:
    part = grouping_pb2.BatchEditClaimsRequest(claims=claims)
    rest = grouping_pb2.BatchEditClaimsRequest()
    rest.CopyFrom(request)
    del rest.claims[:]
    part.MergeFrom(rest)
    return part


def _pairs(response: bytes) -> list[Both]:
    found = grouping_pb2.BatchEditClaimsResponse.FromString(response)
    return list(zip(found.results, found.drg_results, strict=True))


EDIT = Batch(
    "BatchEditClaims",
    grouping_pb2.BatchEditClaimsRequest,
    lambda request: request.claims,
    lambda response: grouping_pb2.BatchEditClaimsResponse.FromString(response).results,
    _part,
    lambda request, error: _failure(request.claims[0].claim_id, error, False),
)

EDIT_AND_GROUP = EDIT._replace(
    results=_pairs, failed=lambda request, error: _failure(request.claims[0].claim_id, error, True)
)
"""As ``EDIT``; a result is a pair, and so is one that is an error."""
