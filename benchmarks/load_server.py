"""A server to put load on: ``codeset-engine serve`` with an empty echo beside its services, on a loopback port.

    python -m benchmarks.load_server [flags of codeset-engine serve]

The echo answers the bytes it gets, on the same gRPC server and event loop as everything else. It is what a call costs
when nothing is done for it, and so the limit of every unary call.
"""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

ECHO = "/benchmarks.Echo/Echo"
WORKER = "engine.server.worker"


@dataclass(frozen=True)
class Serving:
    """A server that answers. ``process``: its first process; None if it was there before."""

    target: str
    process: psutil.Process | None

    def processes(self) -> list[psutil.Process]:
        """Return the processes of the server, its workers included."""
        return [] if self.process is None else [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Return the seconds of processor time that the server has taken so far."""
        times = [process.cpu_times() for process in self.processes()]
        return sum(time.user + time.system for time in times)


def loopback(target: str) -> str:
    """Return ``target`` (``host:port``) if it is on this machine. Raises ValueError otherwise."""
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    try:
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside or not port.isdecimal():
        raise ValueError(
            f"{target!r}: expected a loopback address with a port, such as 127.0.0.1:50051 or [::1]:50051. The load "
            "driver sends to servers of this machine only."
        )
    return target


def workers_supported() -> bool:
    """Whether the server can run as several processes on one port."""
    return find_spec("engine.server.workers") is not None


@contextmanager
def serving(workers: int = 1, store: Path | None = None, flags: tuple[str, ...] = ()) -> Iterator[Serving]:
    """Run a server with ``workers`` processes over ``store`` (None: the default one); stop it at the end."""
    command = [sys.executable, "-m", "benchmarks.load_server", "--host", "127.0.0.1", "--port", "0", *flags]
    command += [] if workers == 1 else ["--workers", str(workers)]
    command += [] if store is None else ["--store", str(store)]
    # It logs a line a call, as in operation; where the lines go is not measured.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[1]
    ) as server:
        assert server.stdout is not None
        said = server.stdout.readline().split()
        if said[:1] != ["listening"]:
            raise RuntimeError(f"the server did not start; to see why: {' '.join(command)}")
        try:
            yield Serving(loopback(said[1]), psutil.Process(server.pid))
        finally:
            server.terminate()
            try:
                status = server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                status = server.wait()
    if status:
        raise RuntimeError(f"the server ended with status {status}")


async def _echo(raw: bytes, _: Any) -> bytes:
    return raw


def _add_echo() -> None:
    """Give every server that is made in this process the echo."""
    import grpc
    import grpc.aio

    service, method = ECHO.strip("/").split("/")
    made = grpc.aio.server

    def with_echo(*arguments: Any, **keywords: Any) -> Any:
        server = made(*arguments, **keywords)
        handlers: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(_echo)}
        start = server.start

        async def start_with_echo() -> None:
            # Last, as what the server has beside its services: gRPC looks for a method in the order of adding.
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
            await start()

        server.start = start_with_echo
        return server

    grpc.aio.server = with_echo


def _start_workers_with_echo() -> None:
    """Have the supervisor start this module where it would start ``engine.server.worker``."""
    import asyncio

    start = asyncio.create_subprocess_exec

    def start_worker(program: str, *arguments: str, **keywords: Any) -> Any:
        if arguments[:2] == ("-m", WORKER):
            arguments = ("-m", "benchmarks.load_server", WORKER, *arguments[2:])
        return start(program, *arguments, **keywords)

    asyncio.create_subprocess_exec = start_worker  # type: ignore[assignment]


def main() -> None:
    _add_echo()
    if sys.argv[1:2] == [WORKER]:
        from engine.server.worker import main as work

        del sys.argv[1]
        work()
        return
    from engine.cli import main as codeset_engine

    _start_workers_with_echo()
    sys.argv[1:1] = ["serve"]
    codeset_engine()


if __name__ == "__main__":
    main()
