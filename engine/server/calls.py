"""What surrounds every call: limits, decoding, errors to statuses, the log line.

Handlers take and return raw bytes. The messages are decoded here rather than by gRPC, because bytes that
are no message must end in INVALID_ARGUMENT with a reason, and because a large batch is decoded, answered
and encoded in a thread, off the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from ..errors import (
    CodesetError,
    DeadlineExceededError,
    InternalError,
    MalformedMessageError,
    MessageTooLargeError,
    PackCorruptError,
    PackIncompatibleError,
    PackNotFoundError,
    TooManyRequestsError,
)
from ..rpc import DOMAIN, REQUEST_ID, STATUS_DETAILS, Method, status_of
from .config import ServerConfig
from .logs import CALLER, LOGGER, where

__all__ = ["Answer", "Calls", "Facts", "public_error"]

_logger = logging.getLogger(f"{LOGGER}.call")

_INLINE_BYTES = 4096
"""Requests up to this size are answered on the event loop: a few hundred codes or tens of claims, about
a millisecond. Handing one to a thread costs a tenth of that.
"""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A request id of the caller that is fit for a log line. Others are replaced."""

_TEXT_BYTES = 1000
"""Error text in a status. It travels twice, percent-encoded once, in trailers that gRPC limits to 8 KiB."""


class Facts:
    """What a call did, for its log line: ``items`` answered, how many with an ``error``, and by which
    ``releases``.
    """

    __slots__ = ("errors", "items", "releases")

    def __init__(self) -> None:
        self.items = 1
        self.errors = 0
        self.releases: str = ""


Answer = Callable[[Any, Facts], Message]
"""Answers a decoded request. Runs on the event loop or in a thread; raises CodesetError."""

FromBytes = Callable[[bytes, Facts], bytes | None]
"""Answers the bytes of a request with those of its response. None: decode the request and ask the Answer. Raises
DecodeError if the bytes are no such request, and CodesetError.
"""

Observe = Callable[[str, str, tuple[str, str], Facts, float, int, int], None]
"""Told of every finished call: service, method, (status, reason), facts, seconds, bytes received, bytes sent."""

Handler = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


class Calls:
    """Makes the handlers of one server and counts the calls in flight. Lives on the server's event loop."""

    def __init__(self, config: ServerConfig, executor: Executor) -> None:
        self._config = config
        self._executor = executor
        self.active = 0
        self.observe: Observe | None = None

    def handler(
        self, method: Method, answer: Answer, from_bytes: FromBytes | None = None, *, slow: bool = False
    ) -> Handler:
        self._ending = asyncio.Event()

    @property
    def queued(self) -> int:
        """Requests that wait for a thread."""
        queue = getattr(self._executor, "_work_queue", None)
        return queue.qsize() if queue is not None else 0
        """Return the handler of ``method``. ``from_bytes``: asked first. ``slow``: always in a thread, also for a short
        request.
        """
        limit = self._config.max_message_bytes
        concurrent = self._config.max_concurrent
        seconds = self._config.request_timeout or None

        def run(raw: bytes, facts: Facts) -> bytes:
            request = method.request()
            try:
                response = None if from_bytes is None else from_bytes(raw, facts)
                if response is not None:
                    return response
                request.ParseFromString(raw)
            except DecodeError:
                raise MalformedMessageError(
                    f"{method.name}: the {len(raw):,} bytes received are not a "
                    f"{method.request.DESCRIPTOR.full_name}. "
                    "Encode the message with classes generated from the API's own proto; texts must be UTF-8."
                ) from None
            return answer(request, facts).SerializeToString()

        async def handle(raw: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            started = time.perf_counter()
            facts = Facts()
            request_id = _request_id(context)
            outcome: tuple[str, str] = ("CANCELLED", "")
            sent = 0
            self.active += 1
            try:
                if self.active > concurrent:
                    raise TooManyRequestsError(
                        f"the server answers at most {concurrent:,} requests at once and has as many. "
                        "Try again later, with larger batches rather than more calls at once."
                    )
                if len(raw) > limit:
                    raise MessageTooLargeError(
                        f"{method.name}: the request has {len(raw):,} bytes, the limit is {limit:,}. "
                        "Send fewer items in one request."
                    )
                if slow or len(raw) > _INLINE_BYTES:
                    # The caller's own deadline is kept by gRPC, which cancels us; what still waits for a thread then
                    # is never begun.
                    try:
                        async with asyncio.timeout(seconds):
                            response = await asyncio.get_running_loop().run_in_executor(self._executor, run, raw, facts)
                    except TimeoutError as error:
                        if isinstance(error, CodesetError):
                            raise
                        raise DeadlineExceededError(
                            f"{method.name}: not done in {seconds:g} seconds, which is this server's limit for a call. "
                            "Send fewer items in one request, or try again when there is less load."
                        ) from None
                else:
                    response = run(raw, facts)
                outcome = ("OK", "")
                sent = len(response)
                context.set_trailing_metadata(((REQUEST_ID, request_id),))
                return response
            except CodesetError as error:
                shown = public_error(error)
                outcome = (status_of(shown.code).name, shown.code)
                if shown is not error:
                    # About a file of this machine, not about the request: the operator needs the text.
                    _logger.error("pack", extra={"fields": {"request_id": request_id, "error": str(error)}})
                await _abort(context, shown, request_id)
            except Exception as error:
                outcome = ("INTERNAL", InternalError.code)
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
                shown = InternalError(
                    f"{method.name}: the server failed on this request. Report the request id "
                    f"{request_id} to its "
                    "operator; the log has the place."
                )
                await _abort(context, shown, request_id)
            finally:
                self.active -= 1
                self.finished(method.service, method.name, facts, outcome, started, request_id, len(raw), sent)

        return handle

    def finished(
        self,
        service: str,
        method: str,
        facts: Facts,
        outcome: tuple[str, str],
        started: float,
        request_id: str,
        received: int,
        sent: int,
    ) -> None:
        """Log and count a call. ``outcome``: its status and, if it failed, the reason. ``started``: by perf_counter.
        ``received`` and ``sent``: bytes of its messages.
        """
        seconds = time.perf_counter() - started
        if self.observe is not None:
            self.observe(service, method, outcome, facts, seconds, received, sent)
        if _logger.isEnabledFor(logging.INFO):
            _log(service, method, facts, outcome, seconds, request_id)

    async def refuse(self, path: str, error: CodesetError, context: Any) -> NoReturn:
        """End a call that may not be made, before its request is read."""
        started = time.perf_counter()
        request_id = _request_id(context)
        facts = Facts()
        facts.items = 0
        service, _, method = path.lstrip("/").partition("/")
        self.finished(service, method, facts, (status_of(error.code).name, error.code), started, request_id, 0, 0)
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


def _log(service: str, method: str, facts: Facts, outcome: tuple[str, str], seconds: float, request_id: str) -> None:
    fields: dict[str, Any] = {
        "service": service,
        "method": method,
        "request_id": request_id,
        "status": outcome[0],
        "items": facts.items,
        "duration_ms": round(seconds * 1000, 3),
    }
    if outcome[1]:
        fields["reason"] = outcome[1]
    if facts.errors:
        fields["errors"] = facts.errors
    if facts.releases:
        fields["release"] = facts.releases
    caller = CALLER.get()
    if caller:
        fields["caller"] = caller
    _logger.info("call", extra={"fields": fields})


def _request_id(context: grpc.aio.ServicerContext[bytes, bytes]) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str) and _ID.fullmatch(value):
            return value
    return secrets.token_hex(8)


async def _abort(context: grpc.aio.ServicerContext[bytes, bytes], error: CodesetError, request_id: str) -> NoReturn:
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
