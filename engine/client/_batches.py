"""Batches of any length: cut into requests, and put together from responses. Alike for both clients."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

from google.protobuf.message import DecodeError, Message

from .._pb.codeset.v1 import grouping_pb2, scoring_pb2, terminology_pb2
from ..errors import BatchTooLargeError, CodesetError, InvalidFieldError, RpcFailedError
from . import _compiled
from ._columns import ColumnItems, Wanted
from ._messages import CLAIM, CODE, MEMBER, Kind, fill_error, to_dict

__all__ = ["DRG", "EDIT", "EDIT_AND_GROUP", "HCC", "VALIDATION", "Batch", "Chunk", "Columns", "Job", "Limits", "Rows"]


class Batch(NamedTuple):
    """A batch method: what its requests and responses are made of."""

    method: str
    request: type[Message]
    response: type[Message]
    field: str
    """The field of the request that has the items."""
    kind: Kind
    results: tuple[str, ...]
    """Fields of the response, each with one result an item. Where there are two, the answer to an item is a tuple."""
    whose: tuple[str, ...]
    """Fields of an item that its result repeats also where it is an error."""

    def failed(self, item: Any, error: CodesetError) -> Any:
        """Return the answer to an item that the server was not or could not be asked about."""
        if self.kind.bare and isinstance(item, str):
            item = {self.kind.bare: item}
        known: dict[str, Any] = {}
        for name in self.whose:
            value = item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)
            try:
                if value is not None:
                    known[name] = self.kind.value(name, value)
            except CodesetError:
                # The error is of the first field that is wrong; this one may be wrong as well.
                continue
        answers = []
        for field in self.results:
            result: Any = self.result(field)(**known)
            fill_error(result.error, error)
            answers.append(result)
        return answers[0] if len(answers) == 1 else tuple(answers)

    def result(self, field: str) -> type[Message]:
        """Return the class of the results in a field of the response."""
        found: type[Message] = getattr(self.response(), field).add().__class__
        return found


class Limits(NamedTuple):
    """The largest request of a batch."""

    items: int
    size: int
    """Bytes; a single item of more is a request of its own."""


class Chunk(NamedTuple):
    """One request of a long batch: ``request`` has the good items; ``errors`` the answers to the others, by position in
    the chunk.
    """

    request: bytes
    size: int
    """Items, the others included."""
    errors: dict[int, Any]


class Form(Protocol):
    """How answers are given: one by one, or as columns."""

    def read(self, batch: Batch, response: bytes) -> Any:
        """Return the answers in a response. Raises ValueError or DecodeError if it is none."""

    def count(self, answers: Any) -> int:
        """Return how many answers these are."""

    def one(self, batch: Batch, failed: Any) -> Any:
        """Return answers of which there is one, that of ``Batch.failed``."""

    def joined(self, parts: Sequence[Any]) -> Any:
        """Return answers to requests that follow one another."""

    def merged(self, batch: Batch, answers: Any, errors: Mapping[int, Any], size: int) -> Any:
        """Return ``size`` answers: ``errors`` at their positions, and ``answers`` in between."""


class Rows(NamedTuple):
    """Answers one by one: messages, or dicts as ``to_dict`` makes of them."""

    dicts: bool = False

    def read(self, batch: Batch, response: bytes) -> Sequence[Any]:
        """As ``Form.read``."""
        found: Any
        if self.dicts and _compiled.fast is not None:
            found = _compiled.shape(batch.response).decode(response)
            lists = [found[field] for field in batch.results]
        else:
            found = batch.response.FromString(response)
            lists = [_compiled.listed(getattr(found, field)) for field in batch.results]
            if self.dicts:
                lists = [list(map(to_dict, results)) for results in lists]
        return lists[0] if len(lists) == 1 else list(zip(*lists, strict=True))

    def count(self, answers: Sequence[Any]) -> int:
        """As ``Form.count``."""
        return len(answers)

    def one(self, batch: Batch, failed: Any) -> list[Any]:
        """As ``Form.one``."""
        if not self.dicts:
            return [failed]
        return [tuple(map(to_dict, failed)) if isinstance(failed, tuple) else to_dict(failed)]

    def joined(self, parts: Sequence[Sequence[Any]]) -> list[Any]:
        """As ``Form.joined``."""
        return list(chain.from_iterable(parts))

    def merged(self, batch: Batch, answers: Sequence[Any], errors: Mapping[int, Any], size: int) -> list[Any]:
        """As ``Form.merged``."""
        left = iter(answers)
        return [self.one(batch, errors[i])[0] if i in errors else next(left) for i in range(size)]


class Columns(NamedTuple):
    """Answers as columns: one list for each that is wanted."""

    wanted: Wanted

    def read(self, batch: Batch, response: bytes) -> list[list[Any]]:
        """As ``Form.read``."""
        if _compiled.fast is None:
            answers = Rows(dicts=True).read(batch, response)
            return self.wanted.cells([a if isinstance(a, tuple) else (a,) for a in answers])
        return self.wanted.decode(response)

    def count(self, answers: list[list[Any]]) -> int:
        """As ``Form.count``."""
        return len(answers[0])

    def one(self, batch: Batch, failed: Any) -> list[list[Any]]:
        """As ``Form.one``."""
        return self.wanted.cells([tuple(map(to_dict, failed if isinstance(failed, tuple) else (failed,)))])

    def joined(self, parts: Sequence[list[list[Any]]]) -> list[list[Any]]:
        """As ``Form.joined``."""
        columns: list[list[Any]] = [[] for _ in self.wanted.names]
        for part in parts:
            for column, more in zip(columns, part, strict=True):
                column += more
        return columns

    def merged(self, batch: Batch, answers: list[list[Any]], errors: Mapping[int, Any], size: int) -> list[list[Any]]:
        """As ``Form.merged``."""
        failed = {i: self.one(batch, error) for i, error in errors.items()}
        left = list(map(iter, answers))
        return [
            [failed[i][k][0] if i in failed else next(column) for i in range(size)] for k, column in enumerate(left)
        ]


class Job(NamedTuple):
    """A batch that somebody wants answered: the items, what its requests begin with, and how answers are given."""

    batch: Batch
    items: Any
    head: Message
    form: Any

    def chunks(self, limits: Limits) -> Iterator[Chunk]:
        """Cut the items into requests, in order.

        Items are taken as they are needed. One that cannot be encoded becomes an error in its place.
        """
        return self._cut(self.items, limits)

    async def chunks_async(self, limits: Limits) -> AsyncIterator[Chunk]:
        """As ``chunks``; also of an asynchronous iterable, whose items are collected until a request is full."""
        if not isinstance(self.items, AsyncIterable):
            for chunk in self.chunks(limits):
                yield chunk
            return
        pending: list[Any] = []
        async for item in self.items:
            pending.append(item)
            if len(pending) >= limits.items:
                for chunk in self._cut(pending, limits):
                    yield chunk
                pending = []
        for chunk in self._cut(pending, limits):
            yield chunk

    def _cut(self, items: Iterable[Any] | ColumnItems, limits: Limits) -> Iterator[Chunk]:
        batch, kind = self.batch, self.batch.kind
        number = batch.request.DESCRIPTOR.fields_by_name[batch.field].number
        writer = _compiled.writer(kind, number, self.head.SerializeToString())
        source = items.take if isinstance(items, ColumnItems) else _taken(items)
        size, count = len(writer) + limits.size, 0
        errors: dict[int, Any] = {}
        while taken := source(limits.items - count):
            at = 0
            while at < len(taken):
                filled = writer.fill(taken, at, size) if isinstance(taken, list) else taken.fill(writer, at, size)
                count += filled - at
                at = filled
                if at < len(taken) and len(writer) < size:
                    item = taken[at]
                    try:
                        writer.add(kind.message(item).SerializeToString())
                    except CodesetError as error:
                        errors[count] = batch.failed(item, error)
                    count += 1
                    at += 1
                if count >= limits.items or len(writer) >= size:
                    yield Chunk(writer.take(), count, errors)
                    count, errors = 0, {}
        if count:
            yield Chunk(writer.take(), count, errors)

    def answers(self, chunk: Chunk, response: bytes) -> Any:
        """Return the answers to a chunk, in order. Raises RpcFailedError if ``response`` is none to it."""
        batch, expected = self.batch, chunk.size - len(chunk.errors)
        try:
            answers = self.form.read(batch, response)
        except (DecodeError, ValueError):
            raise RpcFailedError(
                f"{batch.method}: the {len(response):,} bytes that were answered are no response of this API. What is "
                "at that address?"
            ) from None
        if self.form.count(answers) != expected:
            raise RpcFailedError(
                f"{batch.method}: expected {expected:,} answers, got {self.form.count(answers):,}. What is at that "
                "address?"
            )
        return self.merged(chunk, answers)

    def merged(self, chunk: Chunk, answers: Any) -> Any:
        """Return the answers to a chunk, those that were never asked for included."""
        return self.form.merged(self.batch, answers, chunk.errors, chunk.size) if chunk.errors else answers

    def halves(self, chunk: Chunk, error: CodesetError) -> list[Chunk] | None:
        """Cut a request that the server found too large in two; None if it has a single item."""
        request = self.batch.request.FromString(chunk.request)
        items = list(getattr(request, self.batch.field))
        if len(items) < 2:
            if isinstance(error, BatchTooLargeError):
                raise error
            return None
        parts = []
        for some in (items[: len(items) // 2], items[len(items) // 2 :]):
            part = type(self.head)()
            part.CopyFrom(self.head)
            getattr(part, self.batch.field).extend(some)
            parts.append(Chunk(part.SerializeToString(), len(some), {}))
        return parts

    def refused(self, chunk: Chunk, error: CodesetError) -> Any:
        """Return the answers to a request with a single item that the server found too large."""
        request = self.batch.request.FromString(chunk.request)
        (item,) = getattr(request, self.batch.field)
        return self.merged(chunk, self.form.one(self.batch, self.batch.failed(item, error)))


def _taken(items: Iterable[Any]) -> Any:
    source = iter(items)
    return lambda count: list(islice(source, count))


def checked(kind: Kind, items: Any) -> Any:
    """Return ``items``. Raises InvalidFieldError for what is a single item, or none."""
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable | AsyncIterable):
        raise InvalidFieldError(
            f"{kind.many}: expected an iterable of {kind.many}, got {type(items).__name__}", field=kind.many
        )
    return items


DRG = Batch(
    "BatchGroupDrg",
    grouping_pb2.BatchGroupDrgRequest,
    grouping_pb2.BatchGroupDrgResponse,
    "claims",
    CLAIM,
    ("results",),
    ("claim_id",),
)
"""StreamGroupDrg as well: a request of the stream has the bytes of a request of the batch, and so has a response."""

EDIT = Batch(
    "BatchEditClaims",
    grouping_pb2.BatchEditClaimsRequest,
    grouping_pb2.BatchEditClaimsResponse,
    "claims",
    CLAIM,
    ("results",),
    ("claim_id",),
)

EDIT_AND_GROUP = EDIT._replace(results=("results", "drg_results"))

HCC = Batch(
    "BatchScoreHcc",
    scoring_pb2.BatchScoreHccRequest,
    scoring_pb2.BatchScoreHccResponse,
    "members",
    MEMBER,
    ("results",),
    ("member_id", "model", "payment_year"),
)

VALIDATION = Batch(
    "BatchValidateCodes",
    terminology_pb2.BatchValidateCodesRequest,
    terminology_pb2.BatchValidateCodesResponse,
    "items",
    CODE,
    ("results",),
    ("code",),
)
