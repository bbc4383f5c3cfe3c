"""What surrounds every call: limits, decoding, errors to statuses, the log line.

Handlers take and return raw bytes. The messages are decoded here rather than by gRPC, because bytes that
are no message must end in INVALID_ARGUMENT with a reason, and because a large batch is decoded, answered
and encoded in a thread, off the event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from time import perf_counter
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from .._calls import METADATA, Book, CallLines, Facts, Handler, MethodName, id_of
from ..errors import (
    CodesetError,
    DeadlineExceededError,
    InternalError,
    MalformedMessageError,
    MessageTooLargeError,
    PackCorruptError,
    PackIncompatibleError,
    PackNotFoundError,
    ServiceUnavailableError,
    TooManyRequestsError,
)
from ..rpc import DOMAIN, REQUEST_ID, STATUS_DETAILS, Method, status_of
from .config import ServerConfig
from .logs import LOGGER, direct, where

__all__ = ["Answer", "Calls", "Facts", "public_error"]

_logger = logging.getLogger(f"{LOGGER}.call")

_INLINE_BYTES = 4096
"""Requests up to this size are answered on the event loop: a few hundred codes or tens of claims, about
a millisecond. Handing one to a thread costs a tenth of that.
"""

_LOOK_SECONDS = 0.1
"""How often it is asked where lines of calls go."""

_TEXT_BYTES = 1000
"""Error text in a status. It travels twice, percent-encoded once, in trailers that gRPC limits to 8 KiB."""


Answer = Callable[[Any, Facts], Message]
"""Answers a decoded request. Runs on the event loop or in a thread; raises CodesetError."""

FromBytes = Callable[[bytes, Facts], bytes | None]
"""Answers the bytes of a request with those of its response. None: decode the request and ask the Answer. May raise
DecodeError if the bytes are no such request; raises CodesetError.
"""

_OK: tuple[str, str] = ("OK", "")
_CANCELLED: tuple[str, str] = ("CANCELLED", "")

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

StreamHandler = Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]


class Calls(Book):
    """Makes the handlers of one server and counts the calls in flight. Lives on the server's event loop."""

    def __init__(self, config: ServerConfig, executor: Executor) -> None:
        super().__init__(config.max_concurrent, self._look, _LOOK_SECONDS)
        self._config = config
        self._executor = executor
        self._ending = asyncio.Event()
        self._own_lines = CallLines()

    @property
    def queued(self) -> int:
        """Requests that wait for a thread."""
        queue = getattr(self._executor, "_work_queue", None)
        return queue.qsize() if queue is not None else 0

    def handler(
        self, method: Method, answer: Answer, from_bytes: FromBytes | None = None, *, slow: bool = False
    ) -> Handler:
        """Return the handler of a method whose request and response are one message. ``from_bytes``: asked first.
        ``slow``: always in a thread, also for a short request.
        """
        through_messages, _, respond = self._responding(method, answer, from_bytes)
        inline = -1 if slow else min(_INLINE_BYTES, self._config.max_message_bytes)
        name = MethodName(method.service, method.name)

        async def handle(raw: bytes, context: Context, started: float, facts: Facts, error: Exception | None) -> bytes:
            request_id = ""
            outcome = _CANCELLED
            received = len(raw)
            sent = 0
            self.active += 1
            try:
                if error is not None:
                    raise error
                if self.active > self.most:
                    self._refuse_more()
                response = through_messages(raw, facts) if received <= inline else await respond(raw, facts)
                outcome = _OK
                sent = len(response)
                return response
            except Exception as error:
                request_id = id_of(METADATA.get())
                shown = self._shown(error, method, request_id, received)
                outcome = (status_of(shown.code).name, shown.code)
                await _abort(context, shown, request_id)
            finally:
                self.active -= 1
                self.enter(name, facts, outcome, started, request_id, received, sent)

        return Handler(self, name, from_bytes, inline, handle)

    def stream_handler(self, method: Method, answer: Answer, from_bytes: FromBytes | None = None) -> StreamHandler:
        """Return the handler of a method that answers a stream of requests, each with one response, in order.

        One request at a time: the next is read when the response before it has been taken up by the connection, so a
        caller that does not read is not read from either. The whole stream is one call in the log, and one of those
        that are limited.
        """
        _, run, respond = self._responding(method, answer, from_bytes)
        inline = min(_INLINE_BYTES, self._config.max_message_bytes)
        name = MethodName(method.service, method.name)

        async def handle(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            started = perf_counter()
            total = Facts()
            total.items = 0
            request_id = id_of(METADATA.get())
            outcome = _CANCELLED
            received = sent = size = 0
            releases: set[str] = set()
            self.active += 1
            try:
                if self.active > self.most:
                    self._refuse_more()
                async for raw in self._until_ending(requests):
                    size = len(raw)
                    received += size
                    facts = Facts()
                    response = run(raw, facts) if size <= inline else await respond(raw, facts)
                    total.items += facts.items
                    total.errors += facts.errors
                    releases.update(filter(None, facts.releases.split(",")))
                    sent += len(response)
                    yield response
                outcome = _OK
            except Exception as error:
                shown = self._shown(error, method, request_id, size)
                outcome = (status_of(shown.code).name, shown.code)
                await _abort(context, shown, request_id)
            finally:
                self.active -= 1
                total.releases = ",".join(sorted(releases))
                self.enter(name, total, outcome, started, request_id, received, sent)

        return handle

    def end_streams(self) -> None:
        """Close every stream once the request at hand is answered. None would end by itself."""
        self._ending.set()

    async def _until_ending(self, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the requests of a stream; raise ServiceUnavailableError between two when the server is to end."""
        ending = asyncio.ensure_future(self._ending.wait())
        reading: asyncio.Future[bytes] | None = None
        try:
            while True:
                reading = asyncio.ensure_future(anext(requests))
                await asyncio.wait((reading, ending), return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    raise ServiceUnavailableError(
                        "this server is about to end. Open another stream, and send again what has no answer."
                    )
                try:
                    raw = reading.result()
                except StopAsyncIteration:
                    return
                yield raw
        finally:
            ending.cancel()
            if reading is not None:
                reading.cancel()

    def _refuse_more(self) -> NoReturn:
        raise TooManyRequestsError(
            f"the server answers at most {self._config.max_concurrent:,} requests at once and has as many. "
            "Try again later, with larger batches rather than more calls at once."
        )

    def _responding(
        self, method: Method, answer: Answer, from_bytes: FromBytes | None
    ) -> tuple[
        Callable[[bytes, Facts], bytes], Callable[[bytes, Facts], bytes], Callable[[bytes, Facts], Awaitable[bytes]]
    ]:
        """Return what answers the bytes of one request: through messages; by ``from_bytes`` where it does; and that in
        a thread and within the limits.
        """
        limit = self._config.max_message_bytes
        seconds = self._config.request_timeout or None

        def through_messages(raw: bytes, facts: Facts) -> bytes:
            return answer(method.request.FromString(raw), facts).SerializeToString()

        def run(raw: bytes, facts: Facts) -> bytes:
            response = None if from_bytes is None else from_bytes(raw, facts)
            return through_messages(raw, facts) if response is None else response

        async def respond(raw: bytes, facts: Facts) -> bytes:
            if len(raw) > limit:
                raise MessageTooLargeError(
                    f"{method.name}: the request has {len(raw):,} bytes, the limit is {limit:,}. "
                    "Send fewer items in one request."
                )
            # The caller's own deadline is kept by gRPC, which cancels us; what still waits for a thread then
            # is never begun.
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.get_running_loop().run_in_executor(self._executor, run, raw, facts)
            except TimeoutError as error:
                if isinstance(error, CodesetError):
                    raise
                raise DeadlineExceededError(
                    f"{method.name}: not done in {seconds:g} seconds, which is this server's limit for a call. "
                    "Send fewer items in one request, or try again when there is less load."
                ) from None

        return through_messages, run, respond

    def _shown(self, error: Exception, method: Method, request_id: str, size: int) -> CodesetError:
        """Return ``error`` as the caller may see it, and log what the operator needs of it. ``size``: bytes of the
        request.
        """
        if isinstance(error, DecodeError):
            return MalformedMessageError(
                f"{method.name}: the {size:,} bytes received are not a {method.request.DESCRIPTOR.full_name}. "
                "Encode the message with classes generated from the API's own proto; texts must be UTF-8."
            )
        if isinstance(error, CodesetError):
            shown = public_error(error)
            if shown is not error:
                # About a file of this machine, not about the request: the operator needs the text.
                _logger.error("pack", extra={"fields": {"request_id": request_id, "error": str(error)}})
            return shown
        _logger.error(
            "failure",
            extra={
                "fields": {
                    "method": method.name,
                    "request_id": request_id,
                    "error": type(error).__qualname__,
                    "where": where(error),
                }
            },
        )
        return InternalError(
            f"{method.name}: the server failed on this request. Report the request id {request_id} to its operator; "
            "the log has the place."
        )

    def _look(self) -> tuple[CallLines | None, Callable[[int], None]]:
        """Return where lines of calls go now, and what to call when some wait."""
        if not _logger.isEnabledFor(logging.INFO):
            return None, self._record
        handler = direct(_logger)
        return (self._own_lines, self._record) if handler is None else (handler.calls, handler.added)

    def _record(self, _: int) -> None:
        """Make a record of the call that ended: a program has handlers of its own, which take records."""
        fields = json.loads(self._own_lines.take())
        del fields["time"], fields["level"], fields["event"]
        _logger.info("call", extra={"fields": fields})

    async def refuse(self, path: str, error: CodesetError, context: Any) -> NoReturn:
        """End a call that may not be made, before its request is read."""
        started = perf_counter()
        request_id = id_of(METADATA.get())
        facts = Facts()
        facts.items = 0
        service, _, method = path.lstrip("/").partition("/")
        outcome = status_of(error.code).name, error.code
        self.enter(MethodName(service, method), facts, outcome, started, request_id, 0, 0)
        await _abort(context, error, request_id)


def public_error(error: CodesetError) -> CodesetError:
    """Return ``error`` as a caller may see it: what is wrong with a pack names files of this machine,
    and is replaced.
    """
    if isinstance(error, PackCorruptError | PackIncompatibleError | PackNotFoundError):
        return type(error)(
            "the release that would answer is listed but cannot be used; the server's log says why. Ask "
            "its operator "
            "to rebuild it, or name another release."
        )
    return error


async def _abort(context: Context, error: CodesetError, request_id: str) -> NoReturn:
    code = status_of(error.code)
    text = str(error).encode("utf-8", "replace")
    if len(text) > _TEXT_BYTES:
        text = text[:_TEXT_BYTES].decode("utf-8", "ignore").encode() + "…".encode()
    info = error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN)
    if error.field:
        info.metadata["field"] = error.field
    details = any_pb2.Any()
    details.Pack(info)
    status = status_pb2.Status(code=code.value[0], message=text.decode(), details=[details])
    await context.abort(
        code,
        text.decode(),
        trailing_metadata=((STATUS_DETAILS, status.SerializeToString()), (REQUEST_ID, request_id)),
    )
