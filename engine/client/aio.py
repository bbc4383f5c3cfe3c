"""The asyncio client: the methods of ``sync.Client``, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator
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
from ._base import ONE_SERVERS_OWN, STREAM, BaseClient, method_turns
from ._batches import DRG, EDIT, EDIT_AND_GROUP, HCC, VALIDATION, Chunk, Columns, Job
from ._channel import Metadata
from ._columns import Frame
from ._editing import EditOptionsLike
from ._errors import error_of
from ._messages import ClaimLike, CodeLike, Date, MemberLike, OptionsLike
from ._requests import (
    DICTS,
    Call,
    R,
    Subsumption,
    columns_of,
    drg_call,
    drg_job,
    edit_and_group_call,
    edit_and_group_job,
    edit_call,
    edit_job,
    edits_call,
    expand_request,
    explain_call,
    hcc_call,
    hcc_job,
    lookup_call,
    release_call,
    releases_call,
    subsumes_call,
    validate_call,
    validation_job,
)
from ._scoring import HccOptionsLike

__all__ = ["AsyncClient"]

_BROKEN = "Internal error from Core"
"""What grpc.aio says when a stream turns out to have ended while something is being written to it."""


class AsyncClient(BaseClient):
    """A connection to a codeset-engine server, for asyncio. Belongs to the event loop of its first call.

    ::

        async with AsyncClient() as client:
            print((await client.validate("icd10cm", "A00.0", date=20261001)).message)

    Parameters and errors are those of ``Client``. Iterables of items may also be asynchronous.
    """

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
        return await self._ask(validate_call(system, code, date, release), timeout)

    async def validate_many(
        self,
        system: str,
        codes: Iterable[CodeLike] | AsyncIterable[CodeLike],
        *,
        date: Date | None = None,
        release: str | None = None,
        timeout: float | None = None,
    ) -> list[terminology_pb2.CodeValidation]:
        """As ``Client.validate_many``."""
        return [
            result async for result in self.iter_validations(system, codes, date=date, release=release, timeout=timeout)
        ]

    def iter_validations(
        self,
        system: str,
        codes: Iterable[CodeLike] | AsyncIterable[CodeLike],
        *,
        date: Date | None = None,
        release: str | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[terminology_pb2.CodeValidation]:
        """As ``Client.iter_validations``."""
        return self._each(validation_job(system, codes, date, release), timeout)

    def iter_validations_dicts(
        self,
        system: str,
        codes: Iterable[CodeLike] | AsyncIterable[CodeLike],
        *,
        date: Date | None = None,
        release: str | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """As ``Client.iter_validations_dicts``."""
        return self._each(validation_job(system, codes, date, release, DICTS), timeout)

    async def validate_columns(
        self,
        system: str,
        codes: Frame,
        *,
        date: Date | None = None,
        release: str | None = None,
        fields: Iterable[str] | None = None,
        arrays: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """As ``Client.validate_columns``."""
        job = validation_job(system, codes, date, release, columns_of(VALIDATION, fields))
        return await self._columns(job, arrays, timeout)

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
        return await self._ask(lookup_call(system, code, date, release, kind), timeout)

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
        return await self._ask(subsumes_call(system, code_a, code_b, date, release), timeout)

    async def group_drg(
        self, claim: ClaimLike, *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> grouping_pb2.DrgResult:
        """As ``Client.group_drg``."""
        return await self._ask(drg_call(claim, options), timeout)

    async def explain_drg(
        self, claim: ClaimLike, *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> grouping_pb2.DrgExplanation:
        """As ``Client.explain_drg``."""
        return await self._ask(explain_call(claim, options), timeout)

    async def group_drg_many(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> list[grouping_pb2.DrgResult]:
        """As ``Client.group_drg_many``."""
        return [result async for result in self.iter_drg(claims, options=options, timeout=timeout)]

    def iter_drg(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[grouping_pb2.DrgResult]:
        """As ``Client.iter_drg``."""
        return self._each(drg_job(claims, options), timeout)

    def stream_drg(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[grouping_pb2.DrgResult]:
        """As ``Client.stream_drg``."""
        return self._stream(drg_job(claims, options), timeout)

    def iter_drg_dicts(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """As ``Client.iter_drg_dicts``."""
        return self._each(drg_job(claims, options, DICTS), timeout)

    async def group_drg_columns(
        self,
        claims: Frame,
        *,
        options: OptionsLike | None = None,
        fields: Iterable[str] | None = None,
        arrays: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """As ``Client.group_drg_columns``."""
        return await self._columns(drg_job(claims, options, columns_of(DRG, fields)), arrays, timeout)

    async def score_hcc(
        self, member: MemberLike, *, options: HccOptionsLike | None = None, timeout: float | None = None
    ) -> scoring_pb2.HccResult:
        """As ``Client.score_hcc``."""
        return await self._ask(hcc_call(member, options), timeout)

    async def score_hcc_many(
        self,
        members: Iterable[MemberLike] | AsyncIterable[MemberLike],
        *,
        options: HccOptionsLike | None = None,
        timeout: float | None = None,
    ) -> list[scoring_pb2.HccResult]:
        """As ``Client.score_hcc_many``."""
        return [result async for result in self.iter_hcc(members, options=options, timeout=timeout)]

    def iter_hcc(
        self,
        members: Iterable[MemberLike] | AsyncIterable[MemberLike],
        *,
        options: HccOptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[scoring_pb2.HccResult]:
        """As ``Client.iter_hcc``."""
        return self._each(hcc_job(members, options), timeout)

    def iter_hcc_dicts(
        self,
        members: Iterable[MemberLike] | AsyncIterable[MemberLike],
        *,
        options: HccOptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """As ``Client.iter_hcc_dicts``."""
        return self._each(hcc_job(members, options, DICTS), timeout)

    async def score_hcc_columns(
        self,
        members: Frame,
        *,
        options: HccOptionsLike | None = None,
        fields: Iterable[str] | None = None,
        arrays: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """As ``Client.score_hcc_columns``."""
        return await self._columns(hcc_job(members, options, columns_of(HCC, fields)), arrays, timeout)

    async def edit_claim(
        self,
        claim: ClaimLike,
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        timeout: float | None = None,
    ) -> editing_pb2.EditResult:
        """As ``Client.edit_claim``."""
        return await self._ask(edit_call(claim, editor_release, options), timeout)

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
        return await self._ask(edit_and_group_call(claim, editor_release, options, drg_options), timeout)

    async def edit_claims_many(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        timeout: float | None = None,
    ) -> list[editing_pb2.EditResult]:
        """As ``Client.edit_claims_many``."""
        return [
            result
            async for result in self.iter_edits(claims, editor_release=editor_release, options=options, timeout=timeout)
        ]

    def iter_edits(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[editing_pb2.EditResult]:
        """As ``Client.iter_edits``."""
        return self._each(edit_job(claims, editor_release, options), timeout)

    def iter_edits_dicts(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """As ``Client.iter_edits_dicts``."""
        return self._each(edit_job(claims, editor_release, options, DICTS), timeout)

    async def edit_claims_columns(
        self,
        claims: Frame,
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        fields: Iterable[str] | None = None,
        arrays: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """As ``Client.edit_claims_columns``."""
        job = edit_job(claims, editor_release, options, columns_of(EDIT, fields))
        return await self._columns(job, arrays, timeout)

    def iter_edit_and_group(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        drg_options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[tuple[editing_pb2.EditResult, grouping_pb2.DrgResult]]:
        """As ``Client.iter_edit_and_group``."""
        return self._each(edit_and_group_job(claims, editor_release, options, drg_options), timeout)

    def iter_edit_and_group_dicts(
        self,
        claims: Iterable[ClaimLike] | AsyncIterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        drg_options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[tuple[dict[str, Any], dict[str, Any]]]:
        """As ``Client.iter_edit_and_group_dicts``."""
        return self._each(edit_and_group_job(claims, editor_release, options, drg_options, DICTS), timeout)

    async def edit_and_group_columns(
        self,
        claims: Frame,
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        drg_options: OptionsLike | None = None,
        fields: Iterable[str] | None = None,
        arrays: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """As ``Client.edit_and_group_columns``."""
        form = columns_of(EDIT_AND_GROUP, fields)
        return await self._columns(
            edit_and_group_job(claims, editor_release, options, drg_options, form), arrays, timeout
        )

    async def edits(self, *, timeout: float | None = None) -> list[editing_pb2.EditInfo]:
        """As ``Client.edits``."""
        return await self._ask(edits_call(), timeout)

    async def releases(self, system: str | None = None, *, timeout: float | None = None) -> list[catalog_pb2.Release]:
        """As ``Client.releases``."""
        return await self._ask(releases_call(system), timeout)

    async def release(
        self,
        system: str,
        release: str | None = None,
        *,
        date: Date | None = None,
        timeout: float | None = None,
    ) -> catalog_pb2.Release:
        """As ``Client.release``."""
        return await self._ask(release_call(system, release, date), timeout)

    async def wait_until_ready(self, timeout: float = 30.0) -> None:
        """As ``Client.wait_until_ready``."""
        self._open()
        try:
            async with asyncio.timeout(timeout):
                for channel in self._channels:
                    await channel.channel_ready()
        except TimeoutError:
            raise self._unreachable(timeout) from None

    async def close(self) -> None:
        """Close all connections. Calls under way are cancelled."""
        channels = self._channels
        self._start()
        for channel in channels:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    _channels: list[grpc.aio.Channel]
    _turns: Iterator[dict[str, Any]]

    def _start(self) -> None:
        # Made by the first call: a channel belongs to the loop that runs when it is made.
        self._channels = []
        self._turns = iter(())

    def _open(self) -> dict[str, Any]:
        """Return the methods of the connection whose turn it is."""
        if not self._channels:
            self._channels = [
                grpc.aio.insecure_channel(self.target, self._options)
                if self._credentials is None
                else grpc.aio.secure_channel(self.target, self._credentials, self._options)
                for _ in range(self._connections)
            ]
            self._turns = method_turns(self._channels)
        return next(self._turns)

    async def _ask(self, call: Call[R], timeout: float | None) -> R:
        return call.answer(await self._call(call.method, call.request, timeout))

    async def _call(self, name: str, request: Any, timeout: float | None) -> Any:
        metadata = self._metadata()
        timeout = timeout or self.timeout
        try:
            if self._hedge_after is not None:
                return await self._hedged(name, request, timeout, metadata, self._hedge_after)
            return await self._open()[name](request, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as failed:
            raise error_of(failed, self.target, name, metadata) from None

    async def _hedged(self, name: str, request: Any, timeout: float, metadata: Metadata, after: float) -> Any:
        """Call, and once more if there is no answer ``after`` seconds; return what is answered first."""
        end = time.monotonic() + timeout

        def send() -> asyncio.Future[Any]:
            left = max(0.0, end - time.monotonic())
            call: Awaitable[Any] = self._open()[name](request, timeout=left, metadata=metadata)
            return asyncio.ensure_future(call)

        calls = [send()]
        try:
            done, pending = await asyncio.wait(calls, timeout=after)
            if not done:
                calls.append(send())
                done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                failed = done.copy().pop().exception()
                if pending and isinstance(failed, grpc.aio.AioRpcError) and failed.code() in ONE_SERVERS_OWN:
                    done, _ = await asyncio.wait(pending)
            return done.pop().result()
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

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

    async def _each(self, job: Job, timeout: float | None) -> AsyncIterator[Any]:
        async with contextlib.aclosing(self._batches(job, timeout)) as batches:
            async for answers in batches:
                for answer in answers:
                    yield answer

    async def _columns(self, job: Job, arrays: bool, timeout: float | None) -> dict[str, Any]:
        form: Columns = job.form
        return form.wanted.named(form.joined([answers async for answers in self._batches(job, timeout)]), arrays)

    async def _batches(self, job: Job, timeout: float | None) -> AsyncGenerator[Any, None]:
        timeout = timeout or self.batch_timeout
        waiting: deque[asyncio.Task[Any]] = deque()
        try:
            async for chunk in job.chunks_async(self._limits):
                waiting.append(asyncio.create_task(self._send(job, chunk, timeout)))
                # Lets the request leave before the next one is encoded.
                await asyncio.sleep(0)
                if len(waiting) >= self._in_flight:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _stream(self, job: Job, timeout: float | None) -> AsyncIterator[Any]:
        chunks = job.chunks_async(self._limits)
        unanswered: deque[Chunk] = deque()
        more = True
        failures = 0
        while more or unanswered:
            metadata = self._metadata()
            call = self._open()[STREAM](timeout=timeout, metadata=metadata)
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
                        raise RpcFailedError(f"{STREAM}: {self.target} ended the stream before its answers.")
                    failures = 0
                    for chunk in held:
                        outbox.put_nowait(chunk.request)
                    held = []
                    for result in job.answers(unanswered.popleft(), response):
                        yield result
                continue
            except grpc.aio.AioRpcError as failed:
                error = error_of(failed, self.target, STREAM, metadata)
                broken = failed.details() == _BROKEN
            finally:
                sending.cancel()
                call.cancel()
            if isinstance(error, BatchTooLargeError | MessageTooLargeError) and unanswered:
                # The server takes less at once than we sent: this one goes in pieces.
                for result in await self._in_parts(job, unanswered.popleft(), error, self.batch_timeout):
                    yield result
            elif (broken or isinstance(error, ServiceUnavailableError)) and failures + 1 < self._attempts:
                await asyncio.sleep(0.1 * 2**failures)
                failures += 1
            else:
                raise error

    async def _send(self, job: Job, chunk: Chunk, timeout: float) -> Any:
        method = self._open()[job.batch.method]
        try:
            return job.answers(chunk, await method(chunk.request, timeout=timeout, metadata=self._metadata()))
        except grpc.aio.AioRpcError as failed:
            error = error_of(failed, self.target, job.batch.method)
        if not isinstance(error, BatchTooLargeError | MessageTooLargeError):
            raise error
        return await self._in_parts(job, chunk, error, timeout)

    async def _in_parts(self, job: Job, chunk: Chunk, error: CodesetError, timeout: float) -> Any:
        """Send again, in pieces, what the server found too large."""
        parts = job.halves(chunk, error)
        if parts is None:
            return job.refused(chunk, error)
        answered = [await self._send(job, part, timeout) for part in parts]
        return job.merged(chunk, job.form.joined(answered))


async def _send_all(call: Any, outbox: asyncio.Queue[Any]) -> None:
    """Send what is put into ``outbox``, for as long as the call lives; what ends it, its reader is told."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            await call.write(await outbox.get())
