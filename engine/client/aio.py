"""The asyncio client: the methods of ``sync.Client``, awaited."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from .._pb.codeset.v1 import catalog_pb2, editing_pb2, grouping_pb2, scoring_pb2, terminology_pb2
from ..errors import (
    BatchTooLargeError,
    CodesetError,
    MessageTooLargeError,
    RpcFailedError,
    ServiceUnavailableError,
)
from ..rpc import SERVICES, methods
from ._channel import (
    BATCH_TIMEOUT,
    CHUNK_BYTES,
    CHUNK_ITEMS,
    DEFAULT_TARGET,
    IN_FLIGHT,
    TIMEOUT,
    Pem,
    call_metadata,
    channel_credentials,
    options,
)
from ._editing import (
    EDIT,
    EDIT_AND_GROUP,
    EditOptionsLike,
    Wanted,
    edit_chunks,
    edit_chunks_async,
    edit_request,
    wanted_of,
)
from ._errors import error_of
from ._messages import (
    Chunk,
    ClaimLike,
    CodeLike,
    Date,
    OptionsLike,
    claim_message,
    code_chunks,
    date_number,
    drg_chunks,
    options_message,
)
from ._requests import (
    DRG,
    DRG_DICTS,
    STREAM,
    VALIDATION,
    Batch,
    Subsumption,
    expand_request,
    halves,
    is_batch,
    lookup_request,
    merged,
    refused,
    results,
    serialized,
    subsumes_request,
    subsumption,
    validate_request,
)
from ._scoring import HCC, HccOptionsLike, MemberLike, hcc_chunks, hcc_options_message, member_message

__all__ = ["AsyncClient"]

_BROKEN = "Internal error from Core"
"""What grpc.aio says when a stream turns out to have ended while something is being written to it."""


class AsyncClient:
    """A connection to a codeset-engine server, for asyncio. Belongs to the event loop of its first call.

    ::

        async with AsyncClient() as client:
            print((await client.validate("icd10cm", "A00.0", date=20261001)).message)

    Parameters and errors are those of ``Client``.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = TIMEOUT,
        batch_timeout: float = BATCH_TIMEOUT,
        tls: bool = False,
        root_certificates: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        attempts: int = 4,
        chunk_items: int = CHUNK_ITEMS,
        chunk_bytes: int = CHUNK_BYTES,
        in_flight: int = IN_FLIGHT,
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self.target = target
        self.timeout = timeout
        self.batch_timeout = batch_timeout
        credentials = channel_credentials(credentials, tls, root_certificates, client_certificate, client_key)
        self._credentials = credentials
        self._metadata = call_metadata(metadata, token, target, credentials is not None)
        self._chunk_items = max(1, chunk_items)
        self._chunk_bytes = max(1, chunk_bytes)
        self._in_flight = max(1, in_flight)
        self._options = options(attempts, channel_options)
        self._attempts = attempts
        # Made by the first call: a channel belongs to the loop that runs when it is made.
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Any] = {}

    async def validate(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        timeout: float | None = None,
    ) -> terminology_pb2.CodeValidation:
        """As ``Client.validate``."""
        request = validate_request(system, code, date, release)
        response: terminology_pb2.ValidateCodeResponse = await self._call("ValidateCode", request, timeout)
        return response.result

    async def validate_many(
        self,
        system: str,
        codes: Iterable[CodeLike],
        *,
        date: Date | None = None,
        release: str | None = None,
        timeout: float | None = None,
    ) -> list[terminology_pb2.CodeValidation]:
        """As ``Client.validate_many``."""
        chunks = code_chunks(codes, self._chunk_items, self._chunk_bytes, system, release, date)
        return [result async for result in self._batches(VALIDATION, _each(chunks), timeout)]

    async def lookup(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        kind: str | None = None,
        timeout: float | None = None,
    ) -> terminology_pb2.LookupResponse:
        """As ``Client.lookup``."""
        request = lookup_request(system, code, date, release, kind)
        response: terminology_pb2.LookupResponse = await self._call("Lookup", request, timeout)
        return response

    async def parent(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        kind: str | None = None,
        timeout: float | None = None,
    ) -> terminology_pb2.Concept | None:
        """As ``Client.parent``."""
        above = await self._expand("ANCESTORS", system, code, date, release, kind, timeout)
        return above[0] if above else None

    async def children(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        kind: str | None = None,
        timeout: float | None = None,
    ) -> list[terminology_pb2.Concept]:
        """As ``Client.children``."""
        return await self._expand("CHILDREN", system, code, date, release, kind, timeout)

    async def ancestors(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        kind: str | None = None,
        timeout: float | None = None,
    ) -> list[terminology_pb2.Concept]:
        """As ``Client.ancestors``."""
        return await self._expand("ANCESTORS", system, code, date, release, kind, timeout)

    async def descendants(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        kind: str | None = None,
        timeout: float | None = None,
    ) -> list[terminology_pb2.Concept]:
        """As ``Client.descendants``."""
        return await self._expand("DESCENDANTS", system, code, date, release, kind, timeout)

    async def subsumes(
        self,
        system: str,
        code_a: str,
        code_b: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        timeout: float | None = None,
    ) -> Subsumption:
        """As ``Client.subsumes``."""
        request = subsumes_request(system, code_a, code_b, date, release)
        response: terminology_pb2.SubsumesResponse = await self._call("Subsumes", request, timeout)
        return subsumption(response)

    async def group_drg(
        self, claim: ClaimLike, *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> grouping_pb2.DrgResult:
        """As ``Client.group_drg``."""
        request = grouping_pb2.GroupDrgRequest(claim=claim_message(claim), options=options_message(options))
        response: grouping_pb2.GroupDrgResponse = await self._call("GroupDrg", request, timeout)
        return response.result

    async def explain_drg(
        self, claim: ClaimLike, *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> grouping_pb2.DrgExplanation:
        """As ``Client.explain_drg``."""
        request = grouping_pb2.ExplainDrgRequest(claim=claim_message(claim), options=options_message(options))
        response: grouping_pb2.ExplainDrgResponse = await self._call("ExplainDrg", request, timeout)
        return response.explanation

    async def group_drg_many(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> list[grouping_pb2.DrgResult]:
        """As ``Client.group_drg_many``; also takes an asynchronous iterable."""
        return [result async for result in self.iter_drg(claims, options=options, timeout=timeout)]

    def iter_drg(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[grouping_pb2.DrgResult]:
        """As ``Client.iter_drg``; also takes an asynchronous iterable."""
        return self._batches(DRG, self._drg_chunks(claims, options), timeout)

    def stream_drg(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[grouping_pb2.DrgResult]:
        """As ``Client.stream_drg``; also takes an asynchronous iterable."""
        return self._stream(STREAM, self._drg_chunks(claims, options), timeout)

    def iter_drg_dicts(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """As ``Client.iter_drg_dicts``; also takes an asynchronous iterable."""
        return self._batches(DRG_DICTS, self._drg_chunks(claims, options), timeout)

    def _drg_chunks(
        self, claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike], options: OptionsLike | None
    ) -> AsyncIterator[Chunk]:
        wanted = options_message(options)
        if isinstance(claims, AsyncIterable):
            return _drg_chunks(claims, self._chunk_items, self._chunk_bytes, wanted)
        return _each(drg_chunks(claims, self._chunk_items, self._chunk_bytes, wanted))

    async def score_hcc(
        self, member: MemberLike, *, options: HccOptionsLike | None = None, timeout: float | None = None
    ) -> scoring_pb2.HccResult:
        """As ``Client.score_hcc``."""
        request = scoring_pb2.ScoreHccRequest(member=member_message(member), options=hcc_options_message(options))
        response: scoring_pb2.ScoreHccResponse = await self._call("ScoreHcc", request, timeout)
        return response.result

    async def score_hcc_many(
        self, members: Iterable[MemberLike], *, options: HccOptionsLike | None = None, timeout: float | None = None
    ) -> list[scoring_pb2.HccResult]:
        """As ``Client.score_hcc_many``."""
        return [result async for result in self.iter_hcc(members, options=options, timeout=timeout)]

    def iter_hcc(
        self, members: Iterable[MemberLike], *, options: HccOptionsLike | None = None, timeout: float | None = None
    ) -> AsyncIterator[scoring_pb2.HccResult]:
        """As ``Client.iter_hcc``."""
        wanted = hcc_options_message(options)
        return self._batches(HCC, _each(hcc_chunks(members, self._chunk_items, self._chunk_bytes, wanted)), timeout)

    async def edit_claim(
        self,
        claim: ClaimLike,
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        timeout: float | None = None,
    ) -> editing_pb2.EditResult:
        """As ``Client.edit_claim``."""
        request = edit_request(claim, wanted_of(editor_release, options, False))
        response: grouping_pb2.EditClaimResponse = await self._call("EditClaim", request, timeout)
        return response.result

    async def edit_and_group(
        self,
        claim: ClaimLike,
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        drg_options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> tuple[editing_pb2.EditResult, grouping_pb2.DrgResult]:
        """As ``Client.edit_and_group``."""
        request = edit_request(claim, wanted_of(editor_release, options, True, drg_options))
        response: grouping_pb2.EditClaimResponse = await self._call("EditClaim", request, timeout)
        return response.result, response.drg_result

    async def edit_claims_many(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        timeout: float | None = None,
    ) -> list[editing_pb2.EditResult]:
        """As ``Client.edit_claims_many``; also takes an asynchronous iterable."""
        edited = self.iter_edits(claims, editor_release=editor_release, options=options, timeout=timeout)
        return [result async for result in edited]

    def iter_edits(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[editing_pb2.EditResult]:
        """As ``Client.iter_edits``; also takes an asynchronous iterable."""
        wanted = wanted_of(editor_release, options, False)
        return self._batches(EDIT, self._edit_chunks(claims, wanted), timeout)

    def iter_edit_and_group(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        drg_options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[tuple[editing_pb2.EditResult, grouping_pb2.DrgResult]]:
        """As ``Client.iter_edit_and_group``; also takes an asynchronous iterable."""
        wanted = wanted_of(editor_release, options, True, drg_options)
        return self._batches(EDIT_AND_GROUP, self._edit_chunks(claims, wanted), timeout)

    async def edits(self, *, timeout: float | None = None) -> list[editing_pb2.EditInfo]:
        """As ``Client.edits``."""
        request = grouping_pb2.ListEditsRequest()
        response: grouping_pb2.ListEditsResponse = await self._call("ListEdits", request, timeout)
        return list(response.edits)

    async def releases(self, system: str | None = None, *, timeout: float | None = None) -> list[catalog_pb2.Release]:
        """As ``Client.releases``."""
        request = catalog_pb2.ListReleasesRequest(system=system or "")
        response: catalog_pb2.ListReleasesResponse = await self._call("ListReleases", request, timeout)
        return list(response.releases)

    async def release(
        self,
        system: str,
        release: str | None = None,
        *,
        date: Date | None = None,
        timeout: float | None = None,
    ) -> catalog_pb2.Release:
        """As ``Client.release``."""
        request = catalog_pb2.GetReleaseRequest(system=system, release=release or "", date=date_number(date))
        response: catalog_pb2.GetReleaseResponse = await self._call("GetRelease", request, timeout)
        return response.release

    async def wait_until_ready(self, timeout: float = 30.0) -> None:
        """As ``Client.wait_until_ready``."""
        channel = self._open()
        try:
            await asyncio.wait_for(channel.channel_ready(), timeout)
        except TimeoutError:
            raise ServiceUnavailableError(
                f"no server could be reached at {self.target} within {timeout:g} s. Is it running there "
                "(`codeset-engine serve`), and is the address right?"
            ) from None

    async def close(self) -> None:
        """Close the connection. Calls under way are cancelled."""
        channel, self._channel, self._methods = self._channel, None, {}
        if channel is not None:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = channel = (
                grpc.aio.insecure_channel(self.target, self._options)
                if self._credentials is None
                else grpc.aio.secure_channel(self.target, self._credentials, self._options)
            )
            for service in SERVICES:
                for method in methods(service):
                    kind = channel.stream_stream if method.streaming else channel.unary_unary
                    raw = method.streaming or is_batch(method.name)
                    self._methods[method.name] = kind(
                        method.path,
                        request_serializer=serialized,
                        response_deserializer=None if raw else method.response.FromString,
                    )
        return self._channel

    def _edit_chunks(
        self, claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike], wanted: Wanted
    ) -> AsyncIterator[Chunk]:
        if isinstance(claims, AsyncIterable):
            return edit_chunks_async(claims, self._chunk_items, self._chunk_bytes, wanted)
        return _each(edit_chunks(claims, self._chunk_items, self._chunk_bytes, wanted))

    async def _call(self, name: str, request: Any, timeout: float | None) -> Any:
        self._open()
        metadata = self._metadata()
        try:
            return await self._methods[name](request, timeout=timeout or self.timeout, metadata=metadata)
        except grpc.aio.AioRpcError as failed:
            raise error_of(failed, self.target, name, metadata) from None

    async def _expand(
        self,
        relation: str,
        system: str,
        code: str,
        date: Date | None,
        release: str | None,
        kind: str | None,
        timeout: float | None,
    ) -> list[terminology_pb2.Concept]:
        request = expand_request(relation, system, code, date, release, kind)
        concepts: list[terminology_pb2.Concept] = []
        while True:
            response: terminology_pb2.ExpandResponse = await self._call("Expand", request, timeout)
            concepts.extend(response.concepts)
            if not response.next_page_token:
                return concepts
            request.page_token = response.next_page_token

    async def _batches(self, batch: Batch, chunks: AsyncIterator[Chunk], timeout: float | None) -> AsyncIterator[Any]:
        timeout = timeout or self.batch_timeout
        waiting: deque[asyncio.Task[Sequence[Any]]] = deque()
        try:
            async for chunk in chunks:
                waiting.append(asyncio.create_task(self._send(batch, chunk, timeout)))
                # Lets the request leave before the next one is encoded.
                await asyncio.sleep(0)
                if len(waiting) >= self._in_flight:
                    for result in await waiting.popleft():
                        yield result
            while waiting:
                for result in await waiting.popleft():
                    yield result
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _stream(self, batch: Batch, chunks: AsyncIterator[Chunk], timeout: float | None) -> AsyncIterator[Any]:
        unanswered: deque[Chunk] = deque()
        more = True
        failures = 0
        while more or unanswered:
            self._open()
            metadata = self._metadata()
            call = self._methods[batch.method](timeout=timeout, metadata=metadata)
            outbox: asyncio.Queue[Any] = asyncio.Queue()
            # After a failure one at a time: what a write finds wrong hides what the server said was wrong.
            held = list(unanswered)[1:] if failures else []
            for chunk in list(unanswered)[: len(unanswered) - len(held)]:
                outbox.put_nowait(chunk.request)
            # Apart: a request may have to wait until the answer to the one before is read.
            sending = asyncio.create_task(_send_all(call, outbox))
            try:
                while more or unanswered:
                    while more and not held and len(unanswered) < self._in_flight:
                        sent = await anext(chunks, None)
                        if sent is None:
                            more = False
                        else:
                            unanswered.append(sent)
                            outbox.put_nowait(sent.request)
                    if not unanswered:
                        break
                    response = await call.read()
                    if response is grpc.aio.EOF:
                        raise RpcFailedError(f"{batch.method}: {self.target} ended the stream before its answers.")
                    failures = 0
                    for chunk in held:
                        outbox.put_nowait(chunk.request)
                    held = []
                    for result in merged(batch, unanswered.popleft(), results(batch, response)):
                        yield result
                continue
            except grpc.aio.AioRpcError as failed:
                error = error_of(failed, self.target, batch.method, metadata)
                broken = failed.details() == _BROKEN
            finally:
                sending.cancel()
                call.cancel()
            if isinstance(error, BatchTooLargeError | MessageTooLargeError) and unanswered:
                # The server takes less at once than we sent: this one goes in pieces.
                for result in await self._in_parts(DRG, unanswered.popleft(), error, self.batch_timeout):
                    yield result
            elif (broken or isinstance(error, ServiceUnavailableError)) and failures + 1 < self._attempts:
                await asyncio.sleep(0.1 * 2**failures)
                failures += 1
            else:
                raise error

    async def _send(self, batch: Batch, chunk: Chunk, timeout: float) -> Sequence[Any]:
        self._open()
        try:
            response = await self._methods[batch.method](chunk.request, timeout=timeout, metadata=self._metadata())
            return merged(batch, chunk, results(batch, response))
        except grpc.aio.AioRpcError as failed:
            error = error_of(failed, self.target, batch.method)
        if not isinstance(error, BatchTooLargeError | MessageTooLargeError):
            raise error
        return await self._in_parts(batch, chunk, error, timeout)

    async def _in_parts(self, batch: Batch, chunk: Chunk, error: CodesetError, timeout: float) -> Sequence[Any]:
        """Send again, in pieces, what the server found too large."""
        parts = halves(batch, chunk, error)
        if parts is None:
            return merged(batch, chunk, refused(batch, chunk, error))
        return merged(batch, chunk, [result for part in parts for result in await self._send(batch, part, timeout)])


async def _send_all(call: Any, outbox: asyncio.Queue[Any]) -> None:
    """Send what is put into ``outbox``, for as long as the call lives; what ends it, its reader is told."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            await call.write(await outbox.get())


async def _each(chunks: Iterator[Chunk]) -> AsyncIterator[Chunk]:
    for chunk in chunks:
        yield chunk


async def _drg_chunks(
    claims: AsyncIterable[ClaimLike], items: int, size: int, wanted: grouping_pb2.DrgOptions | None
) -> AsyncIterator[Chunk]:
    """Collect claims as they come until a request is full, then cut as ``drg_chunks`` does."""
    pending: list[ClaimLike] = []
    async for claim in claims:
        pending.append(claim)
        if len(pending) >= items:
            for chunk in drg_chunks(pending, items, size, wanted):
                yield chunk
            pending = []
    for chunk in drg_chunks(pending, items, size, wanted):
        yield chunk
