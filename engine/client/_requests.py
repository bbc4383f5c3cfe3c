"""Requests and answers, alike for both clients."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from .._pb.codeset.v1 import grouping_pb2, terminology_pb2
from ..errors import BatchTooLargeError, CodesetError, RpcFailedError
from ._messages import Chunk, Date, date_number, drg_dicts, fill_error, kind_number, to_dict

__all__ = [
    "DRG",
    "DRG_DICTS",
    "STREAM",
    "VALIDATION",
    "Batch",
    "Subsumption",
    "expand_request",
    "halves",
    "is_batch",
    "lookup_request",
    "merged",
    "refused",
    "results",
    "serialized",
    "subsumes_request",
    "subsumption",
    "validate_request",
]

_PAGE = 10_000


class Subsumption(enum.StrEnum):
    """How a code stands to another: the codes of FHIR's ConceptSubsumptionOutcome."""

    EQUIVALENT = "equivalent"
    SUBSUMES = "subsumes"
    SUBSUMED_BY = "subsumed-by"
    NOT_SUBSUMED = "not-subsumed"


class Batch(NamedTuple):
    """What a batch method needs beside its chunks: its items, the results in a response, and a result that is an
    error.
    """

    method: str
    request: type[Message]
    items: Callable[[Any], Any]
    results: Callable[[bytes], Sequence[Any]]
    part: Callable[[Any, Sequence[Any]], Any]
    failed: Callable[[Any, CodesetError], Any]
    shown: Callable[[Any], Any] | None = None
    """Makes of a result that is a message what ``results`` has. None: they are messages."""


def validate_request(
    system: str, code: str, date: Date | None, release: str | None
) -> terminology_pb2.ValidateCodeRequest:
    """Return a ValidateCode request."""
    return terminology_pb2.ValidateCodeRequest(system=system, code=code, release=release or "", date=date_number(date))


def lookup_request(
    system: str, code: str, date: Date | None, release: str | None, kind: str | None
) -> terminology_pb2.LookupRequest:
    """Return a Lookup request."""
    return terminology_pb2.LookupRequest(
        system=system, code=code, release=release or "", date=date_number(date), kind=kind_number(kind)
    )


def expand_request(
    relation: str, system: str, code: str, date: Date | None, release: str | None, kind: str | None
) -> terminology_pb2.ExpandRequest:
    """Return the Expand request of the first page."""
    return terminology_pb2.ExpandRequest(
        system=system,
        code=code,
        relation=f"EXPAND_RELATION_{relation}",
        release=release or "",
        date=date_number(date),
        kind=kind_number(kind),
        page_size=_PAGE,
    )


def subsumes_request(
    system: str, code_a: str, code_b: str, date: Date | None, release: str | None
) -> terminology_pb2.SubsumesRequest:
    """Return a Subsumes request."""
    return terminology_pb2.SubsumesRequest(
        system=system, code_a=code_a, code_b=code_b, release=release or "", date=date_number(date)
    )


def subsumption(response: terminology_pb2.SubsumesResponse) -> Subsumption:
    """Return the outcome of a Subsumes response."""
    name = terminology_pb2.SubsumptionOutcome.Name(response.outcome)
    return Subsumption[name.removeprefix("SUBSUMPTION_OUTCOME_")]


def serialized(request: Message | bytes) -> bytes:
    """Return the bytes of a request that may be bytes already."""
    return request if isinstance(request, bytes) else request.SerializeToString()


def results(batch: Batch, response: bytes) -> Sequence[Any]:
    """Return the results in a response. Raises RpcFailedError if it is none."""
    try:
        return batch.results(response)
    except (DecodeError, ValueError):
        raise RpcFailedError(
            f"{batch.method}: the {len(response):,} bytes that were answered are no response of this API. What is at "
            "that address?"
        ) from None


def merged(batch: Batch, chunk: Chunk, answered: Sequence[Any]) -> Sequence[Any]:
    """Return the results of a chunk in order: those answered, and in between the items that were never
    sent.
    """
    if not chunk.errors:
        return answered
    errors = chunk.errors if batch.shown is None else {i: batch.shown(error) for i, error in chunk.errors.items()}
    left = iter(answered)
    return [errors[i] if i in errors else next(left) for i in range(chunk.size)]


def halves(batch: Batch, chunk: Chunk, error: CodesetError) -> list[Chunk] | None:
    """Cut a request that the server found too large in two; None if it has a single item."""
    request = batch.request.FromString(serialized(chunk.request))
    items = batch.items(request)
    if len(items) < 2:
        if isinstance(error, BatchTooLargeError):
            raise error
        return None
    middle = len(items) // 2
    return [Chunk(batch.part(request, part), len(part), {}) for part in (items[:middle], items[middle:])]


def refused(batch: Batch, chunk: Chunk, error: CodesetError) -> list[Any]:
    """Return the result of the only item of a request that the server found too large."""
    failed = batch.failed(batch.request.FromString(serialized(chunk.request)), error)
    return [failed if batch.shown is None else batch.shown(failed)]


def _drg_failed(request: grouping_pb2.BatchGroupDrgRequest, error: CodesetError) -> grouping_pb2.DrgResult:
    result = grouping_pb2.DrgResult(claim_id=request.claims[0].claim_id)
    fill_error(result.error, error)
    return result


def _code_failed(
    request: terminology_pb2.BatchValidateCodesRequest, error: CodesetError
) -> terminology_pb2.CodeValidation:
    result = terminology_pb2.CodeValidation()
    fill_error(result.error, error)
    return result


DRG = Batch(
    "BatchGroupDrg",
    grouping_pb2.BatchGroupDrgRequest,
    lambda request: request.claims,
    lambda response: grouping_pb2.BatchGroupDrgResponse.FromString(response).results,
    lambda request, claims: grouping_pb2.BatchGroupDrgRequest(
        claims=claims, options=request.options if request.HasField("options") else None
    ),
    _drg_failed,
)

DRG_DICTS = DRG._replace(results=drg_dicts, shown=to_dict)

STREAM = DRG._replace(method="StreamGroupDrg")
"""A request of the stream has the bytes of a request of the batch, and so has a response."""

VALIDATION = Batch(
    "BatchValidateCodes",
    terminology_pb2.BatchValidateCodesRequest,
    lambda request: request.items,
    lambda response: terminology_pb2.BatchValidateCodesResponse.FromString(response).results,
    lambda request, items: terminology_pb2.BatchValidateCodesRequest(
        system=request.system, release=request.release, date=request.date, items=items
    ),
    _code_failed,
)

_BATCHES = frozenset({DRG.method, VALIDATION.method, "BatchScoreHcc", "BatchEditClaims"})


def is_batch(method: str) -> bool:
    """Whether responses of a method come as bytes, for ``results``."""
    return method in _BATCHES
