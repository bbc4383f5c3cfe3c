"""A server over the fake library that all tests share, and both clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from server_harness import running

from engine.client import AsyncClient, Client
from engine.server import calls


@pytest.fixture(scope="session", autouse=True)
def log_is_looked_at() -> Iterator[None]:
    """Tests set up the log of a server that runs already, and want the next call in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "_LOOK_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A server that all tests share."""
    with running() as listening:
        yield listening


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """A blocking client of the shared server."""
    with Client(address) as connected:
        yield connected


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest, address: str) -> Callable[..., Any]:
    """Call a method of either client by name, with a client made for the call: ``call("validate", …)``.

    Keywords of the client itself go into ``client=``.
    """

    def blocking(method: str, *args: Any, client: Any = None, target: str = address, **keywords: Any) -> Any:
        with Client(target, **(client or {})) as connected:
            return getattr(connected, method)(*args, **keywords)

    async def awaited(method: str, *args: Any, client: Any, target: str, **keywords: Any) -> Any:
        async with AsyncClient(target, **(client or {})) as connected:
            return await getattr(connected, method)(*args, **keywords)

    def asynchronous(method: str, *args: Any, client: Any = None, target: str = address, **keywords: Any) -> Any:
        return asyncio.run(awaited(method, *args, client=client, target=target, **keywords))

    return blocking if request.param == "blocking" else asynchronous
