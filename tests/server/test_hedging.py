"""A second call where the first is not answered soon, for those who ask for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from engine import errors
from engine._pb.codeset.v1 import catalog_pb2
from engine.client import Client

Call = Callable[..., Any]
SLOW = 5.0
SOON = 0.05


Answer = tuple[float, grpc.StatusCode]
"""After how many seconds, and with which status."""

FAST: Answer = (0.0, grpc.StatusCode.OK)


class Server:
    """Answers the first call with a request id as ``first``, the next as ``second``: "first", "second".

    ``ids``: request ids it has seen. ``cancelled``: set when a call is given up.
    """

    def __init__(self, first: Answer, second: Answer) -> None:
        self.ids: list[str] = []
        self.cancelled = threading.Event()
        self.target = ""
        self._answers = {"first": first, "second": second}

    def answer(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        own = dict(context.invocation_metadata())["x-request-id"]
        name = "second" if own in self.ids else "first"
        self.ids.append(own)
        seconds, status = self._answers[name]
        ended = threading.Event()
        context.add_callback(ended.set)
        if ended.wait(seconds):
            self.cancelled.set()
        if status is not grpc.StatusCode.OK:
            context.abort(status, "by the book")
        return catalog_pb2.ListReleasesResponse(releases=[catalog_pb2.Release(release=name)]).SerializeToString()


@contextmanager
def serving(first: Answer = FAST, second: Answer = FAST) -> Iterator[Server]:
    found = Server(first, second)
    handlers = {"ListReleases": grpc.unary_unary_rpc_method_handler(found.answer)}
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("codeset.v1.CatalogService", handlers),))
    found.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield found
    finally:
        server.stop(0).wait()


def names(found: Any) -> list[str]:
    return [release.release for release in found]


def test_the_first_answer_counts(call: Call) -> None:
    with serving(first=(SLOW, grpc.StatusCode.OK)) as server:
        started = time.monotonic()
        assert names(call("releases", target=server.target, client={"hedge_after": SOON})) == ["second"]
        assert time.monotonic() - started < SLOW
        # One request for whoever reads the log, and nobody works on for nothing.
        assert len(server.ids) == 2
        assert len(set(server.ids)) == 1
        assert server.cancelled.wait(SLOW)


def test_off_by_default(call: Call) -> None:
    with serving(first=(4 * SOON, grpc.StatusCode.OK)) as server:
        assert names(call("releases", target=server.target)) == ["first"]
        assert len(server.ids) == 1


def test_an_answer_in_time_is_not_asked_for_again(call: Call) -> None:
    with serving() as server:
        assert names(call("releases", target=server.target, client={"hedge_after": SLOW})) == ["first"]
        assert len(server.ids) == 1


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
def test_one_calls_failure_waits_for_the_other(call: Call, status: grpc.StatusCode) -> None:
    options = {"hedge_after": SOON, "attempts": 1}
    with serving((20 * SOON, grpc.StatusCode.OK), (0.0, status)) as server:
        assert names(call("releases", target=server.target, client=options)) == ["first"]
        assert len(server.ids) == 2


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
def test_two_failures_are_one(call: Call, status: grpc.StatusCode) -> None:
    options = {"hedge_after": SOON, "attempts": 1}
    with serving((4 * SOON, status), (0.0, status)) as server, pytest.raises(errors.CodesetError):
        call("releases", target=server.target, client=options)


def test_a_refusal_is_an_answer(call: Call) -> None:
    started = time.monotonic()
    refused = (0.0, grpc.StatusCode.INVALID_ARGUMENT)
    with serving((SLOW, grpc.StatusCode.OK), refused) as server, pytest.raises(errors.RpcFailedError):
        call("releases", target=server.target, client={"hedge_after": SOON})
    assert time.monotonic() - started < SLOW


def test_the_timeout_is_of_both_together(call: Call) -> None:
    slow = (SLOW, grpc.StatusCode.OK)
    with serving(slow, slow) as server:
        started = time.monotonic()
        with pytest.raises(errors.DeadlineExceededError):
            call("releases", target=server.target, client={"hedge_after": SOON, "timeout": 0.4})
        assert time.monotonic() - started < 2.0


@pytest.mark.parametrize("value", [0, -1.0])
def test_a_wrong_delay_is_refused(value: float) -> None:
    with pytest.raises(errors.InvalidFieldError) as raised:
        Client(hedge_after=value)
    assert raised.value.field == "hedge_after"
