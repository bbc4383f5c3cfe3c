"""The real server, with a method beside its own that answers the bytes it was sent: the limit of gRPC itself.

Prints ``listening HOST:PORT`` as ``codeset-engine serve`` does, and serves the default store.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc

import engine
from engine.server import Server, ServerConfig

PATH = "/benchmark.Echo/Echo"


class _WithEcho(Server):
    """A server whose gRPC server has one more handler."""

    def add_echo(self) -> None:
        """Answer on ``PATH``. The server is running already; gRPC takes handlers at any time."""

        async def echo(raw: bytes, _context: Any) -> bytes:
            # Nothing of the request comes back: an answer of the size of ours is measured with ours.
            return b""

        handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
        server: Any = self._server
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmark.Echo", handlers),))


async def _main() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with _WithEcho(ServerConfig(port=0), engine.open(verify="now")) as server:
        server.add_echo()
        sys.stdout.write(f"listening {server.address}\n")
        sys.stdout.flush()
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(_main())
