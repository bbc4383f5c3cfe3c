"""Health and reflection, whose streams end when the server does.

A watcher of health or a client of reflection keeps its stream open for as long as it lives. The servicers that come
with gRPC wait for it, so that a server that is told to end would have to cut off every call to be rid of them, and its
watchers share a lock that one of them holds while it does not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from .reload import REFUSED

__all__ = ["HEALTH", "Health", "add_reflection"]

HEALTH: str = health.SERVICE_NAME
"""Full name of the health service."""

_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """Says of each service whether it serves. ``refused`` goes into the trailing metadata of Check, whose answer has no
    place for a reason.
    """

    def __init__(self) -> None:
        self.refused = ""
        self.ended = asyncio.Event()
        self._serving: dict[str, bool] = {}
        self._changed = asyncio.Event()

    def report(self, serving: Mapping[str, bool]) -> None:
        """Say from now on what ``serving`` says of each service. Watchers are told of what changed."""
        if not self.ended.is_set():
            self._serving = dict(serving)
            self._wake()

    def end(self) -> None:
        """Say NOT_SERVING of all services, tell the watchers, and end their streams."""
        self._serving = dict.fromkeys(self._serving, False)
        self.ended.set()
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> Any:
        serving = self._serving.get(service)
        if serving is None:
            return _Response.SERVICE_UNKNOWN
        return _Response.SERVING if serving else _Response.NOT_SERVING

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Check."""
        status = self._status(request.service)
        if status == _Response.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        if self.refused:
            context.set_trailing_metadata(((REFUSED, self.refused),))
        return _Response(status=status)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """Watch."""
        last = None
        while True:
            changed, ended = self._changed, self.ended.is_set()
            status = self._status(request.service)
            if status != last:
                await context.write(_Response(status=status))
                last = status
            if ended:
                return
            await changed.wait()


class _Reflection(reflection.aio.ReflectionServicer):
    def __init__(self, services: tuple[str, ...], ended: asyncio.Event) -> None:
        super().__init__(services)
        self._ended = ended

    # The published types have a coroutine where gRPC has, and wants, an asynchronous generator.
    async def ServerReflectionInfo(  # type: ignore[override]  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[Any]:
        """ServerReflectionInfo."""
        answers: Any = super().ServerReflectionInfo(_until(self._ended, request_iterator), context)
        async for answer in answers:
            yield answer


def add_reflection(server: Any, services: tuple[str, ...], ended: asyncio.Event) -> None:
    """Let callers of ``server`` read the descriptors of ``services``, until ``ended``."""
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    add: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    add(_Reflection(names, ended), server)


async def _until(ended: asyncio.Event, requests: Any) -> AsyncIterator[Any]:
    """Yield ``requests`` until there are no more, or until ``ended``."""
    ending = asyncio.ensure_future(ended.wait())
    iterator = aiter(requests)
    try:
        while True:
            coming = asyncio.ensure_future(anext(iterator))
            await asyncio.wait((coming, ending), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                return
            try:
                request = coming.result()
            except StopAsyncIteration:
                return
            yield request
    finally:
        ending.cancel()
