"""The blocking client."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
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

__all__ = ["Client"]


class Client(BaseClient):
    """A connection to a codeset-engine server, for blocking code. Safe to share between threads.

    ::

        with Client() as client:
            print(client.validate("icd10cm", "A00.0", date=20261001).message)

    ``target``: ``host:port``, or several as ``ipv4:host:port,host:port``; calls take turns over all addresses of a
    target. ``timeout``: seconds a call may take, retries included; ``batch_timeout``: seconds each request of a batch
    may take. ``tls``: encrypt, and trust the authorities of the system; ``root_certificates``: trust these instead;
    ``client_certificate`` and ``client_key``: for mutual TLS; all of them PEM, a file's name or bytes. ``credentials``:
    gRPC's own, in their place. ``token``: bearer token, refused without TLS unless the target is this machine.
    ``metadata``: sent with every call, beside an ``x-request-id`` that is made for each unless it has one.
    ``attempts``: times a call is tried while the server is UNAVAILABLE, 1 to 5; nothing else is retried.
    ``hedge_after``: seconds after which a call for a single item that has no answer is sent once more, to the next
    address or connection; the first answer counts, and the other call is cancelled. None, the default: never. It
    shortens the longest waits and costs servers work twice, so give about the 99th percentile. ``connections``: how
    many to ``target``, 1 by default; calls and the requests of a batch take turns over them. A connection belongs to
    one worker of a server, and the system deals them out by chance, so ask for a few times as many as there are
    workers. ``chunk_items`` and ``chunk_bytes``: largest request of a batch. ``in_flight``: requests of a batch under
    way at once; None for three more than there are connections. ``channel_options``: further gRPC channel options.

    Calls raise the errors of ``engine.errors``: those of the server, and ServiceUnavailableError,
    DeadlineExceededError and RpcFailedError. No connection is made before the first call.
    """

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
        return self._ask(validate_call(system, code, date, release), timeout)

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
        return list(self.iter_validations(system, codes, date=date, release=release, timeout=timeout))

    def iter_validations(
        self,
        system: str,
        codes: Iterable[CodeLike],
        *,
        date: Date | None = None,
        release: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[terminology_pb2.CodeValidation]:
        """As ``validate_many`` for any number of codes, yielding one result a code, in order, as they come."""
        return self._each(validation_job(system, codes, date, release), timeout)

    def iter_validations_dicts(
        self,
        system: str,
        codes: Iterable[CodeLike],
        *,
        date: Date | None = None,
        release: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """As ``iter_validations``, with results as dicts: what ``to_dict`` makes of them, but much faster."""
        return self._each(validation_job(system, codes, date, release, DICTS), timeout)

    def validate_columns(
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
        """Validate a column of codes, or a table with the columns of ``CodeToValidate``; see ``group_drg_columns``.

        ``fields``: names within ``CodeValidation``; None for code, release, date, status, valid, billable and
        error.code.
        """
        job = validation_job(system, codes, date, release, columns_of(VALIDATION, fields))
        return self._columns(job, arrays, timeout)

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
        return self._ask(lookup_call(system, code, date, release, kind), timeout)

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
        return self._ask(subsumes_call(system, code_a, code_b, date, release), timeout)

    def group_drg(
        self, claim: ClaimLike, *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> grouping_pb2.DrgResult:
        """Group one inpatient claim.

        ``options``: tie breaker, affect flags and level of detail; None for the defaults of CMS and all
        detail. Raises what is wrong with a claim that cannot be given to the grouper.
        """
        return self._ask(drg_call(claim, options), timeout)

    def explain_drg(
        self, claim: ClaimLike, *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> grouping_pb2.DrgExplanation:
        """Group one inpatient claim and explain the answer.

        ``options`` are as in ``group_drg``; the level of detail is not used. Raises what is wrong with a claim that
        cannot be given to the grouper.
        """
        return self._ask(explain_call(claim, options), timeout)

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
        return self._each(drg_job(claims, options), timeout)

    def stream_drg(
        self, claims: Iterable[ClaimLike], *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> Iterator[grouping_pb2.DrgResult]:
        """As ``iter_drg``, over one call that stays open: StreamGroupDrg.

        Nothing is sent ahead of the answers but ``in_flight`` requests, so whoever takes results slowly slows the
        server down rather than filling anybody's memory. When the server ends meanwhile, or is another one by now, the
        stream is opened again, and what has no answer is sent again. ``timeout``: seconds for each stream, None for no
        limit.
        """
        return self._stream(drg_job(claims, options), timeout)

    def iter_drg_dicts(
        self, claims: Iterable[ClaimLike], *, options: OptionsLike | None = None, timeout: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """As ``iter_drg``, with results as dicts in the shape of their proto3 JSON: what ``to_dict`` makes of them, but
        a hundred times as fast where the package is compiled.
        """
        return self._each(drg_job(claims, options, DICTS), timeout)

    def group_drg_columns(
        self,
        claims: Frame,
        *,
        options: OptionsLike | None = None,
        fields: Iterable[str] | None = None,
        arrays: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Group a table of claims; return columns with one value a claim, in order.

        ``claims``: columns of equal length by the names of ``InpatientClaim``: a mapping, or a table of Arrow, pandas
        or Polars. A column is an array of NumPy or Arrow, a Series, or a list. None for a whole column counts as
        absent, and so do in a cell None, NaN and what else stands for nothing. Days may be dates, and whole numbers
        floats. In ``diagnoses`` and ``procedures`` a claim has a list of codes; the column is a sequence of lists, an
        array of two dimensions with empty cells at the end of rows, an Arrow array of lists, or a pair ``(values,
        offsets)``: the codes of all claims, and n + 1 ascending numbers, where those of each claim begin and the last
        end.

        ``fields``: names within ``DrgResult`` with dots in between, down to a field that is no message: "claim_id",
        "final_grouping.drg", "diagnoses.code", "error.message". None for claim_id, version, hac_status, error.code, and
        mdc, drg, severity, return_code and weight.relative_weight of the final grouping. Cells are as in
        ``iter_drg_dicts``: enumerations by name, None where a claim has none, below a list of messages a list.

        ``arrays``: False for lists; True for arrays of NumPy: numbers and bool masked where there is none (int32, bool,
        float64), all else as objects.

        A claim with a bad cell has ``error`` set in its result, as in ``iter_drg``; its other cells are None. What is
        wrong with the columns as such, a name that is no field or another number of rows, raises InvalidFieldError
        before anything is sent, and so does a name in ``fields`` that answers do not have. ``timeout`` is for each
        request that the table is cut into.
        """
        return self._columns(drg_job(claims, options, columns_of(DRG, fields)), arrays, timeout)

    def score_hcc(
        self, member: MemberLike, *, options: HccOptionsLike | None = None, timeout: float | None = None
    ) -> scoring_pb2.HccResult:
        """Score one member of a health plan: every segment of its risk adjustment model.

        ``options``: level of detail, payment factors, blend; None for scores with the factors of the year. Raises what
        is wrong with a member that cannot be scored.
        """
        return self._ask(hcc_call(member, options), timeout)

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
        return self._each(hcc_job(members, options), timeout)

    def iter_hcc_dicts(
        self, members: Iterable[MemberLike], *, options: HccOptionsLike | None = None, timeout: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """As ``iter_hcc``, with results as dicts: what ``to_dict`` makes of them, but much faster."""
        return self._each(hcc_job(members, options, DICTS), timeout)

    def score_hcc_columns(
        self,
        members: Frame,
        *,
        options: HccOptionsLike | None = None,
        fields: Iterable[str] | None = None,
        arrays: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Score a table of members with the columns of ``RiskMember``; see ``group_drg_columns``.

        ``fields``: names within ``HccResult``; None for member_id, model, payment_year, release, hccs, segment,
        scores.segment, scores.raw, scores.payment and error.code. Those of scores are lists, one value a segment.
        """
        return self._columns(hcc_job(members, options, columns_of(HCC, fields)), arrays, timeout)

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
        return self._ask(edit_call(claim, editor_release, options), timeout)

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
        return self._ask(edit_and_group_call(claim, editor_release, options, drg_options), timeout)

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
        return self._each(edit_job(claims, editor_release, options), timeout)

    def iter_edits_dicts(
        self,
        claims: Iterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        timeout: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """As ``iter_edits``, with results as dicts: what ``to_dict`` makes of them, but much faster."""
        return self._each(edit_job(claims, editor_release, options, DICTS), timeout)

    def edit_claims_columns(
        self,
        claims: Frame,
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        fields: Iterable[str] | None = None,
        arrays: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Edit a table of claims; see ``group_drg_columns``.

        ``fields``: names within ``EditResult``; None for claim_id, editor_release, edit_type, edits.edit, edits.count
        and error.code. Those of edits are lists, one value an edit.
        """
        job = edit_job(claims, editor_release, options, columns_of(EDIT, fields))
        return self._columns(job, arrays, timeout)

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
        return self._each(edit_and_group_job(claims, editor_release, options, drg_options), timeout)

    def iter_edit_and_group_dicts(
        self,
        claims: Iterable[ClaimLike],
        *,
        editor_release: str | None = None,
        options: EditOptionsLike | None = None,
        drg_options: OptionsLike | None = None,
        timeout: float | None = None,
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """As ``iter_edit_and_group``, with results as dicts: what ``to_dict`` makes of them, but much faster."""
        return self._each(edit_and_group_job(claims, editor_release, options, drg_options, DICTS), timeout)

    def edit_and_group_columns(
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
        """Edit and group a table of claims in one pass; see ``group_drg_columns``.

        ``fields``: names as for ``edit_claims_columns`` behind "result." and as for ``group_drg_columns`` behind
        "drg_result.", as ``EditClaimResponse`` has them; None for the defaults of both.
        """
        job = edit_and_group_job(claims, editor_release, options, drg_options, columns_of(EDIT_AND_GROUP, fields))
        return self._columns(job, arrays, timeout)

    def edits(self, *, timeout: float | None = None) -> list[editing_pb2.EditInfo]:
        """Return what there is to know of every edit: its title, meaning, what to do, and payment type."""
        return self._ask(edits_call(), timeout)

    def releases(self, system: str | None = None, *, timeout: float | None = None) -> list[catalog_pb2.Release]:
        """Return the releases the server has, of one system or of all."""
        return self._ask(releases_call(system), timeout)

    def release(
        self,
        system: str,
        release: str | None = None,
        *,
        date: Date | None = None,
        timeout: float | None = None,
    ) -> catalog_pb2.Release:
        """Return one release, by name or by a day it covers."""
        return self._ask(release_call(system, release, date), timeout)

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        """Wait until the server can be reached. Raises ServiceUnavailableError after ``timeout`` seconds."""
        end = time.monotonic() + timeout
        try:
            for channel in self._channels:
                grpc.channel_ready_future(channel).result(timeout=max(0.0, end - time.monotonic()))
        except grpc.FutureTimeoutError:
            raise self._unreachable(timeout) from None

    def close(self) -> None:
        """Close all connections. Calls under way are cancelled."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._channels = [
            grpc.insecure_channel(self.target, self._options)
            if self._credentials is None
            else grpc.secure_channel(self.target, self._credentials, self._options)
            for _ in range(self._connections)
        ]
        self._turns = method_turns(self._channels)

    def _ask(self, call: Call[R], timeout: float | None) -> R:
        return call.answer(self._call(call.method, call.request, timeout))

    def _call(self, name: str, request: Any, timeout: float | None) -> Any:
        metadata = self._metadata()
        timeout = timeout or self.timeout
        try:
            if self._hedge_after is not None:
                return self._hedged(name, request, timeout, metadata, self._hedge_after)
            return next(self._turns)[name](request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as failed:
            raise error_of(failed, self.target, name, metadata) from None

    def _hedged(self, name: str, request: Any, timeout: float, metadata: Metadata, after: float) -> Any:
        """Call, and once more if there is no answer ``after`` seconds; return what is answered first."""
        end = time.monotonic() + timeout
        ended: SimpleQueue[Any] = SimpleQueue()
        calls: list[Any] = []

        def send() -> None:
            left = max(0.0, end - time.monotonic())
            calls.append(next(self._turns)[name].future(request, timeout=left, metadata=metadata))
            calls[-1].add_done_callback(ended.put)

        send()
        try:
            try:
                first = ended.get(timeout=after)
            except Empty:
                send()
                first = ended.get()
                if first.code() in ONE_SERVERS_OWN:
                    first = ended.get()
            return first.result()
        finally:
            for call in calls:
                call.cancel()

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

    def _each(self, job: Job, timeout: float | None) -> Iterator[Any]:
        for answers in self._batches(job, timeout):
            yield from answers

    def _columns(self, job: Job, arrays: bool, timeout: float | None) -> dict[str, Any]:
        form: Columns = job.form
        return form.wanted.named(form.joined(list(self._batches(job, timeout))), arrays)

    def _batches(self, job: Job, timeout: float | None) -> Iterator[Any]:
        timeout = timeout or self.batch_timeout
        waiting: deque[tuple[Chunk, Any]] = deque()
        try:
            for chunk in job.chunks(self._limits):
                waiting.append((chunk, self._send(job, chunk, timeout)))
                if len(waiting) >= self._in_flight:
                    yield self._finished(job, *waiting.popleft(), timeout)
            while waiting:
                yield self._finished(job, *waiting.popleft(), timeout)
        finally:
            for _, future in waiting:
                future.cancel()

    def _stream(self, job: Job, timeout: float | None) -> Iterator[Any]:
        chunks = job.chunks(self._limits)
        unanswered: deque[Chunk] = deque()
        more = True
        failures = 0
        while more or unanswered:
            metadata = self._metadata()
            outbox: SimpleQueue[Any] = SimpleQueue()
            for chunk in unanswered:
                outbox.put(chunk.request)
            call = next(self._turns)[STREAM](iter(outbox.get, None), timeout=timeout, metadata=metadata)
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
                        raise RpcFailedError(f"{STREAM}: {self.target} ended the stream before its answers.")
                    failures = 0
                    yield from job.answers(unanswered.popleft(), response)
                continue
            except grpc.RpcError as failed:
                error = error_of(failed, self.target, STREAM, metadata)
            finally:
                # The thread of gRPC that sends waits for it.
                outbox.put(None)
                call.cancel()
            if isinstance(error, BatchTooLargeError | MessageTooLargeError) and unanswered:
                # The server takes less at once than we sent: this one goes in pieces.
                yield from self._in_parts(job, unanswered.popleft(), error, self.batch_timeout)
            elif isinstance(error, ServiceUnavailableError) and failures + 1 < self._attempts:
                time.sleep(0.1 * 2**failures)
                failures += 1
            else:
                raise error

    def _send(self, job: Job, chunk: Chunk, timeout: float) -> Any:
        method = next(self._turns)[job.batch.method]
        return method.future(chunk.request, timeout=timeout, metadata=self._metadata())

    def _finished(self, job: Job, chunk: Chunk, future: Any, timeout: float) -> Any:
        try:
            return job.answers(chunk, future.result())
        except grpc.RpcError as failed:
            error = error_of(failed, self.target, job.batch.method)
        if not isinstance(error, BatchTooLargeError | MessageTooLargeError):
            raise error
        return self._in_parts(job, chunk, error, timeout)

    def _in_parts(self, job: Job, chunk: Chunk, error: CodesetError, timeout: float) -> Any:
        """Send again, in pieces, what the server found too large."""
        parts = job.halves(chunk, error)
        if parts is None:
            return job.refused(chunk, error)
        answered = [self._finished(job, part, self._send(job, part, timeout), timeout) for part in parts]
        return job.merged(chunk, job.form.joined(answered))
