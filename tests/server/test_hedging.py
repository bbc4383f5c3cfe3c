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


class Server:
    """Answers ListReleases ``after`` seconds, or at once with ``status``. ``ids``: request ids it has seen."""

    def __init__(self, after: float, status: grpc.StatusCode | None) -> None:
        self.ids: list[str] = []
        self.cancelled = threading.Event()
        self.target = ""
        self._after = after
        self._status = status

    def answer(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        self.ids.append(dict(context.invocation_metadata())["x-request-id"])
        ended = threading.Event()
        context.add_callback(ended.set)
        if ended.wait(self._after):
            self.cancelled.set()
        if self._status is not None:
            context.abort(self._status, "by the book")
        return catalog_pb2.ListReleasesResponse(
            releases=[catalog_pb2.Release(release="slow" if self._after else "fast")]
        ).SerializeToString()


@contextmanager
def serving(after: float = 0.0, status: grpc.StatusCode | None = None) -> Iterator[Server]:
    found = Server(after, status)
    handlers = {"ListReleases": grpc.unary_unary_rpc_method_handler(found.answer)}
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("codeset.v1.CatalogService", handlers),))
    found.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield found
    finally:
        server.stop(0).wait()


def both(*servers: Server) -> str:
    return "ipv4:" + ",".join(server.target for server in servers)


def names(found: Any) -> list[str]:
    return [release.release for release in found]


def test_the_first_answer_counts(call: Call) -> None:
    with serving(SLOW) as slow, serving() as fast:
        started = time.monotonic()
        # The turns of addresses begin anywhere: two calls to each at least.
        for _ in range(4):
            found = call("releases", target=both(slow, fast), client={"hedge_after": SOON, "attempts": 1})
            assert names(found) == ["fast"]
        assert time.monotonic() - started < SLOW
        assert slow.ids == [] or slow.cancelled.wait(SLOW)


def test_both_calls_are_one_request() -> None:
    with serving(SLOW) as slow, serving() as fast:
        with Client(both(slow, fast), hedge_after=SOON) as client:
            client.wait_until_ready()
            for _ in range(4):
                client.releases()
        assert slow.ids
        assert set(slow.ids) <= set(fast.ids)


def test_off_by_default(call: Call) -> None:
    with serving(2 * SOON) as slow:
        assert names(call("releases", target=slow.target)) == ["slow"]
        assert len(slow.ids) == 1


def test_an_answer_in_time_is_not_asked_for_again(call: Call) -> None:
    with serving() as fast:
        assert names(call("releases", target=fast.target, client={"hedge_after": SLOW})) == ["fast"]
        assert len(fast.ids) == 1


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
def test_one_servers_failure_waits_for_the_other(call: Call, status: grpc.StatusCode) -> None:
    with serving(4 * SOON) as slow, serving(2 * SOON, status) as failing:
        answered = 0
        for _ in range(4):
            try:
                found = call("releases", target=both(slow, failing), client={"hedge_after": SOON, "attempts": 1})
            except errors.CodesetError:
                # Both calls may have been for the one that fails, where the other was not connected yet.
                assert len(failing.ids) >= 2
            else:
                assert names(found) == ["slow"]
                answered += 1
        assert answered >= 2


def test_a_refusal_is_an_answer(call: Call) -> None:
    with serving(2 * SOON, grpc.StatusCode.INVALID_ARGUMENT) as refusing, pytest.raises(errors.RpcFailedError):
        call("releases", target=refusing.target, client={"hedge_after": SOON})


def test_the_timeout_is_of_both_together(call: Call) -> None:
    with serving(SLOW) as slow:
        started = time.monotonic()
        with pytest.raises(errors.DeadlineExceededError):
            call("releases", target=slow.target, client={"hedge_after": SOON, "timeout": 0.4})
        assert time.monotonic() - started < 2.0


@pytest.mark.parametrize("value", [0, -1.0])
def test_a_wrong_delay_is_refused(value: float) -> None:
    with pytest.raises(errors.InvalidFieldError) as raised:
        Client(hedge_after=value)
    assert raised.value.field == "hedge_after"
