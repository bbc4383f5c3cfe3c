"""The blocking client."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import grpc

from .._pb.codeset.v1 import catalog_pb2, editing_pb2, grouping_pb2, scoring_pb2, terminology_pb2
from ..errors import (
    BatchTooLargeError,
    CodesetError,
    MessageTooLargeError,
    RpcFailedError,
    ServiceUnavailableError,
)
from ..rpc import SERVICES, Method, methods
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
from ._editing import EDIT, EDIT_AND_GROUP, EditOptionsLike, edit_chunks, edit_request, wanted_of
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

__all__ = ["Client"]


class Client:
    """A connection to a codeset-engine server, for blocking code. Safe to share between threads.

    ::

        with Client() as client:
            print(client.validate("icd10cm", "A00.0", date=20261001).message)

    ``target``: ``host:port``. ``timeout``: seconds a call may take, retries included; ``batch_timeout``:
    seconds each request of a batch may take. ``tls``: encrypt, and trust the authorities of the system;
    ``root_certificates``: trust these instead; ``client_certificate`` and ``client_key``: for mutual TLS; all of them
    PEM, a file's name or bytes. ``credentials``: gRPC's own, in their place. ``token``: bearer token, refused without
    TLS unless the target is this machine. ``metadata``: sent with every call, beside an ``x-request-id`` that is made
    for each unless it has one. ``attempts``: times a call is tried while the server is UNAVAILABLE, 1 to 5; nothing
    else is retried. ``chunk_items`` and ``chunk_bytes``: largest request of a batch. ``in_flight``:
    requests of a batch under way at once. ``channel_options``: further gRPC channel options.

    Calls raise the errors of ``engine.errors``: those of the server, and ServiceUnavailableError,
    DeadlineExceededError and RpcFailedError. No connection is made before the first call.
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
        self._metadata = call_metadata(metadata, token, target, credentials is not None)
        self._chunk_items = max(1, chunk_items)
        self._chunk_bytes = max(1, chunk_bytes)
        self._in_flight = max(1, in_flight)
        self._attempts = attempts
        opts = options(attempts, channel_options)
        self._channel = (
            grpc.insecure_channel(target, opts)
            if credentials is None
            else grpc.secure_channel(target, credentials, opts)
        )
        self._methods: dict[str, Any] = {}
        for service in SERVICES:
            for method in methods(service):
                self._methods[method.name] = self._multicallable(method)

    def validate(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        timeout: float | None = None,
    ) -> terminology_pb2.CodeValidation:
        """Say whether ``code`` is valid on ``date``; if not, ``status`` and ``message`` say why.

        ``system``: short id or canonical URI. ``date``: None for the first day of ``release``, or the
        server's current day.
        """
        request = validate_request(system, code, date, release)
        response: terminology_pb2.ValidateCodeResponse = self._call("ValidateCode", request, timeout)
        return response.result

    def validate_many(
        self,
        system: str,
        codes: Iterable[CodeLike],
        *,
        date: Date | None = None,
        release: str | None = None,
        timeout: float | None = None,
    ) -> list[terminology_pb2.CodeValidation]:
        """Validate codes, in order. A code that cannot be asked about has ``error`` set instead of a finding.

        Each of ``codes`` is a text, or a mapping or message with a ``system``, ``release`` or ``date``
        of its own. ``timeout`` is for each request that the batch is cut into.
        """
        chunks = code_chunks(codes, self._chunk_items, self._chunk_bytes, system, release, date)
        return list(self._batches(VALIDATION, chunks, timeout))

    def lookup(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        kind: str | None = None,
        timeout: float | None = None,
    ) -> terminology_pb2.LookupResponse:
        """Return title, ancestors, notes and axes of a code.

        ``kind``: its level where one code has several ("block"). Raises UnknownCodeError if the release
        does not have it.
        """
        request = lookup_request(system, code, date, release, kind)
        response: terminology_pb2.LookupResponse = self._call("Lookup", request, timeout)
        return response

    def parent(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        kind: str | None = None,
        timeout: float | None = None,
    ) -> terminology_pb2.Concept | None:
        """Return the entry one level above, None for a root."""
        above = self._expand("ANCESTORS", system, code, date, release, kind, timeout)
        return above[0] if above else None

    def children(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        kind: str | None = None,
        timeout: float | None = None,
    ) -> list[terminology_pb2.Concept]:
        """Return the entries one level below, in the order of the book."""
        return self._expand("CHILDREN", system, code, date, release, kind, timeout)

    def ancestors(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        kind: str | None = None,
        timeout: float | None = None,
    ) -> list[terminology_pb2.Concept]:
        """Return everything above, the nearest first."""
        return self._expand("ANCESTORS", system, code, date, release, kind, timeout)

    def descendants(
        self,
        system: str,
        code: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        kind: str | None = None,
        timeout: float | None = None,
    ) -> list[terminology_pb2.Concept]:
        """Return everything below, depth first, in the order of the book.

        ``timeout`` is for each page of 10,000.
        """
        return self._expand("DESCENDANTS", system, code, date, release, kind, timeout)

    def subsumes(
        self,
        system: str,
        code_a: str,
        code_b: str,
        *,
        date: Date | None = None,
        release: str | None = None,
        timeout: float | None = None,
    ) -> Subsumption:
        """Say how ``code_a`` stands to ``code_b``: SUBSUMES if it contains it."""
        request = subsumes_request(system, code_a, code_b, date, release)
        response: terminology_pb2.SubsumesResponse = self._call("Subsumes", request, timeout)
        return subsumption(response)

    def group_drg(
        self, claim: ClaimLike, *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> grouping_pb2.DrgResult:
        """Group one inpatient claim.

        ``options``: tie breaker, affect flags and level of detail; None for the defaults of CMS and all
        detail. Raises what is wrong with a claim that cannot be given to the grouper.
        """
        request = grouping_pb2.GroupDrgRequest(claim=claim_message(claim), options=options_message(options))
        response: grouping_pb2.GroupDrgResponse = self._call("GroupDrg", request, timeout)
        return response.result

    def explain_drg(
        self, claim: ClaimLike, *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> grouping_pb2.DrgExplanation:
        """Group one inpatient claim and explain the answer.

        ``options`` are as in ``group_drg``; the level of detail is not used. Raises what is wrong with a claim that
        cannot be given to the grouper.
        """
        request = grouping_pb2.ExplainDrgRequest(claim=claim_message(claim), options=options_message(options))
        response: grouping_pb2.ExplainDrgResponse = self._call("ExplainDrg", request, timeout)
        return response.explanation

    def group_drg_many(
        self, claims: Iterable[ClaimLike], *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> list[grouping_pb2.DrgResult]:
        """Group claims, in order; see ``iter_drg``."""
        return list(self.iter_drg(claims, options=options, timeout=timeout))

    def iter_drg(
        self, claims: Iterable[ClaimLike], *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> Iterator[grouping_pb2.DrgResult]:
        """Group any number of claims, yielding one result a claim, in order, as they come.

        A claim that cannot be grouped, or not even encoded, has ``error`` set in its result. Claims are
        taken from the iterable as they are needed, so memory stays bounded. ``timeout`` is for each
        request that the batch is cut into.

        ``options`` are for all claims: ``{"detail": "DRG"}`` is faster where findings on each code are
        not needed. What is wrong with the options raises.
        """
        wanted = options_message(options)
        return self._batches(DRG, drg_chunks(claims, self._chunk_items, self._chunk_bytes, wanted), timeout)

    def stream_drg(
        self, claims: Iterable[ClaimLike], *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> Iterator[grouping_pb2.DrgResult]:
        """As ``iter_drg``, over one call that stays open: StreamGroupDrg.

        Nothing is sent ahead of the answers but ``in_flight`` requests, so whoever takes results slowly slows the
        server down rather than filling anybody's memory. When the server ends meanwhile, or is another one by now, the
        stream is opened again, and what has no answer is sent again. ``timeout``: seconds for each stream, None for no
        limit.
        """
        wanted = options_message(options)
        return self._stream(STREAM, drg_chunks(claims, self._chunk_items, self._chunk_bytes, wanted), timeout)

    def iter_drg_dicts(
        self, claims: Iterable[ClaimLike], *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """As ``iter_drg``, with results as dicts in the shape of their proto3 JSON: what ``to_dict`` makes of them, but
        a hundred times as fast where the package is compiled.
        """
        wanted = options_message(options)
        return self._batches(DRG_DICTS, drg_chunks(claims, self._chunk_items, self._chunk_bytes, wanted), timeout)

    def score_hcc(
        self, member: MemberLike, *, options: HccOptionsLike | None = None, timeout: float | None = None
    ) -> scoring_pb2.HccResult:
        """Score one member of a health plan: every segment of its risk adjustment model.

        ``options``: level of detail, payment factors, blend; None for scores with the factors of the year. Raises what
        is wrong with a member that cannot be scored.
        """
        request = scoring_pb2.ScoreHccRequest(member=member_message(member), options=hcc_options_message(options))
        response: scoring_pb2.ScoreHccResponse = self._call("ScoreHcc", request, timeout)
        return response.result

    def score_hcc_many(
        self, members: Iterable[MemberLike], *, options: HccOptionsLike | None = None, timeout: float | None = None
    ) -> list[scoring_pb2.HccResult]:
        """Score members, in order; see ``iter_hcc``."""
        return list(self.iter_hcc(members, options=options, timeout=timeout))

    def iter_hcc(
        self, members: Iterable[MemberLike], *, options: HccOptionsLike | None = None, timeout: float | None = None
    ) -> Iterator[scoring_pb2.HccResult]:
        """Score any number of members, yielding one result a member, in order, as they come.

        A member that cannot be scored, or not even encoded, has ``error`` set in its result. Members are taken from the
        iterable as they are needed. ``timeout`` is for each request that the batch is cut into. What is wrong with the
        options raises.
        """
        wanted = hcc_options_message(options)
        return self._batches(HCC, hcc_chunks(members, self._chunk_items, self._chunk_bytes, wanted), timeout)

    def edit_claim(
        self,
        claim: ClaimLike,
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        timeout: float | None = None,
    ) -> editing_pb2.EditResult:
        """Edit one inpatient claim with the Medicare Code Editor.

        ``editor_release``: "43.1"; None for the newest the server has. ``options``: edits that are not to be raised.
        Raises what is wrong with a claim that cannot be edited.
        """
        request = edit_request(claim, wanted_of(editor_release, options, False))
        response: grouping_pb2.EditClaimResponse = self._call("EditClaim", request, timeout)
        return response.result

    def edit_and_group(
        self,
        claim: ClaimLike,
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        drg_options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> tuple[editing_pb2.EditResult, grouping_pb2.DrgResult]:
        """Edit and group one inpatient claim in one call; see ``edit_claim`` and ``group_drg``.

        Raises what is wrong with a claim that cannot be edited. One that cannot be grouped has ``error`` set in its DRG
        result.
        """
        request = edit_request(claim, wanted_of(editor_release, options, True, drg_options))
        response: grouping_pb2.EditClaimResponse = self._call("EditClaim", request, timeout)
        return response.result, response.drg_result

    def edit_claims_many(
        self,
        claims: Iterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        timeout: float | None = None,
    ) -> list[editing_pb2.EditResult]:
        """Edit claims, in order; see ``iter_edits``."""
        return list(self.iter_edits(claims, editor_release=editor_release, options=options, timeout=timeout))

    def iter_edits(
        self,
        claims: Iterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        timeout: float | None = None,
    ) -> Iterator[editing_pb2.EditResult]:
        """Edit any number of claims, yielding one result a claim, in order, as they come.

        A claim that cannot be edited, or not even encoded, has ``error`` set in its result. Claims are taken from the
        iterable as they are needed. ``timeout`` is for each request that the batch is cut into. What is wrong with the
        release or the options raises.
        """
        wanted = wanted_of(editor_release, options, False)
        return self._batches(EDIT, edit_chunks(claims, self._chunk_items, self._chunk_bytes, wanted), timeout)

    def iter_edit_and_group(
        self,
        claims: Iterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        drg_options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> Iterator[tuple[editing_pb2.EditResult, grouping_pb2.DrgResult]]:
        """Edit and group any number of claims in one pass, yielding a pair a claim, in order, as they come.

        Each of a pair has its own ``error``; otherwise as ``iter_edits`` and ``iter_drg``.
        """
        wanted = wanted_of(editor_release, options, True, drg_options)
        chunks = edit_chunks(claims, self._chunk_items, self._chunk_bytes, wanted)
        return self._batches(EDIT_AND_GROUP, chunks, timeout)

    def edits(self, *, timeout: float | None = None) -> list[editing_pb2.EditInfo]:
        """Return what there is to know of every edit: its title, meaning, what to do, and payment type."""
        response: grouping_pb2.ListEditsResponse = self._call("ListEdits", grouping_pb2.ListEditsRequest(), timeout)
        return list(response.edits)

    def releases(self, system: str | None = None, *, timeout: float | None = None) -> list[catalog_pb2.Release]:
        """Return the releases the server has, of one system or of all."""
        request = catalog_pb2.ListReleasesRequest(system=system or "")
        response: catalog_pb2.ListReleasesResponse = self._call("ListReleases", request, timeout)
        return list(response.releases)

    def release(
        self,
        system: str,
        release: str | None = None,
        *,
        date: Date | None = None,
        timeout: float | None = None,
    ) -> catalog_pb2.Release:
        """Return one release, by name or by a day it covers."""
        request = catalog_pb2.GetReleaseRequest(system=system, release=release or "", date=date_number(date))
        response: catalog_pb2.GetReleaseResponse = self._call("GetRelease", request, timeout)
        return response.release

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        """Wait until the server can be reached. Raises ServiceUnavailableError after ``timeout`` seconds."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout)
        except grpc.FutureTimeoutError:
            raise ServiceUnavailableError(
                f"no server could be reached at {self.target} within {timeout:g} s. Is it running there "
                "(`codeset-engine serve`), and is the address right?"
            ) from None

    def close(self) -> None:
        """Close the connection. Calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _multicallable(self, method: Method) -> Any:
        if method.streaming:
            return self._channel.stream_stream(method.path, request_serializer=serialized, response_deserializer=None)
        return self._channel.unary_unary(
            method.path,
            request_serializer=serialized,
            response_deserializer=None if is_batch(method.name) else method.response.FromString,
        )

    def _call(self, name: str, request: Any, timeout: float | None) -> Any:
        metadata = self._metadata()
        try:
            return self._methods[name](request, timeout=timeout or self.timeout, metadata=metadata)
        except grpc.RpcError as failed:
            raise error_of(failed, self.target, name, metadata) from None

    def _expand(
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
            response: terminology_pb2.ExpandResponse = self._call("Expand", request, timeout)
            concepts.extend(response.concepts)
            if not response.next_page_token:
                return concepts
            request.page_token = response.next_page_token

    def _batches(self, batch: Batch, chunks: Iterator[Chunk], timeout: float | None) -> Iterator[Any]:
        timeout = timeout or self.batch_timeout
        waiting: deque[tuple[Chunk, Any]] = deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, self._send(batch, chunk, timeout)))
                if len(waiting) >= self._in_flight:
                    yield from self._finished(batch, *waiting.popleft(), timeout)
            while waiting:
                yield from self._finished(batch, *waiting.popleft(), timeout)
        finally:
            for _, future in waiting:
                future.cancel()

    def _stream(self, batch: Batch, chunks: Iterator[Chunk], timeout: float | None) -> Iterator[Any]:
        unanswered: deque[Chunk] = deque()
        more = True
        failures = 0
        while more or unanswered:
            metadata = self._metadata()
            outbox: SimpleQueue[Any] = SimpleQueue()
            for chunk in unanswered:
                outbox.put(chunk.request)
            call = self._methods[batch.method](iter(outbox.get, None), timeout=timeout, metadata=metadata)
            try:
                while more or unanswered:
                    while more and len(unanswered) < self._in_flight:
                        sent = next(chunks, None)
                        if sent is None:
                            more = False
                        else:
                            unanswered.append(sent)
                            outbox.put(sent.request)
                    if not unanswered:
                        break
                    response = next(call, None)
                    if response is None:
                        raise RpcFailedError(f"{batch.method}: {self.target} ended the stream before its answers.")
                    failures = 0
                    yield from merged(batch, unanswered.popleft(), results(batch, response))
                continue
            except grpc.RpcError as failed:
                error = error_of(failed, self.target, batch.method, metadata)
            finally:
                # The thread of gRPC that sends waits for it.
                outbox.put(None)
                call.cancel()
            if isinstance(error, BatchTooLargeError | MessageTooLargeError) and unanswered:
                # The server takes less at once than we sent: this one goes in pieces.
                yield from self._in_parts(DRG, unanswered.popleft(), error, self.batch_timeout)
            elif isinstance(error, ServiceUnavailableError) and failures + 1 < self._attempts:
                time.sleep(0.1 * 2**failures)
                failures += 1
            else:
                raise error

    def _finished(self, batch: Batch, chunk: Chunk, future: Any, timeout: float) -> Sequence[Any]:
        try:
            return merged(batch, chunk, results(batch, future.result()))
        except grpc.RpcError as failed:
            error = error_of(failed, self.target, batch.method)
        if not isinstance(error, BatchTooLargeError | MessageTooLargeError):
            raise error
        return self._in_parts(batch, chunk, error, timeout)

    def _in_parts(self, batch: Batch, chunk: Chunk, error: CodesetError, timeout: float) -> Sequence[Any]:
        """Send again, in pieces, what the server found too large."""
        parts = halves(batch, chunk, error)
        if parts is None:
            return merged(batch, chunk, refused(batch, chunk, error))
        answered: list[Any] = []
        for part in parts:
            answered += self._finished(batch, part, self._send(batch, part, timeout), timeout)
        return merged(batch, chunk, answered)

    def _send(self, batch: Batch, chunk: Chunk, timeout: float) -> Any:
        return self._methods[batch.method].future(chunk.request, timeout=timeout, metadata=self._metadata())
