"""The server itself: listening, health, reflection, and an end that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TextIO

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from .._calls import Finder
from ..errors import AddressUnavailableError, InvalidFieldError
from ..library import Library
from ..rpc import CATALOG, GROUPING, SERVICES, TERMINOLOGY, methods
from .auth import Guard
from .calls import Calls
from .config import ServerConfig
from .files import write_whole
from .health import Health, add_reflection
from .logs import LOGGER, configure, flush
from .metrics import DIRECTORY, Exporter, ServerMetrics
from .reload import RELEASES, Reloader, ReloadOutcome
from .services import Services
from .tls import Certificates
from .tracing import Tracer
from .workers import supervise

__all__ = ["Server", "open_library", "serve"]

_logger = logging.getLogger(LOGGER)

_NEVER = 2**31 - 1

_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""

_SLOW = frozenset({"Expand", "ExplainDrg", "ListReleases"})
"""Methods whose answer to a short request may be long, or long in coming."""


class Server:
    """A server on the running event loop.

    ``async with Server(config, library) as server`` listens from entry to exit; ``server.port`` is the
    port. The library is not closed at the end: it belongs to the caller. ``share_port``: let other servers, of other
    processes, listen at the same address.
    """

    def __init__(self, config: ServerConfig, library: Library, *, share_port: bool = False) -> None:
        self._share_port = share_port
        self.config = config
        self.services = Services(library, config)
        self.port = 0
        self._executor = ThreadPoolExecutor(config.threads, thread_name_prefix="codeset-batch")
        self._calls = Calls(config, self._executor)
        self._health = Health()
        self.reloader: Reloader | None = None
        self.metrics: ServerMetrics | None = None
        self.exporter: Exporter | None = None
        self.tracer: Tracer | None = None
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        """``host:port`` that the server listens on."""
        return f"{self.config.address.rpartition(':')[0]}:{self.port}"

    async def start(self) -> None:
        """Listen and answer. Raises AddressUnavailableError if the address cannot be had."""
        config = self.config
        credentials = None if config.tls_certificate is None else Certificates(config).credentials()
        guards = [] if config.tokens is None else [Guard(config.tokens, self._calls.refuse)]
        server = grpc.aio.server(interceptors=guards, options=_channel_options(config, self._share_port))
        answers, from_bytes = self.services.answers(), self.services.from_bytes()
        handlers: dict[str, Any] = {
            method.path: grpc.stream_stream_rpc_method_handler(
                self._calls.stream_handler(method, answers[method.name], from_bytes.get(method.name))
            )
            if method.streaming
            else grpc.unary_unary_rpc_method_handler(
                self._calls.handler(
                    method, answers[method.name], from_bytes.get(method.name), slow=method.name in _SLOW
                )
            )
            for service in SERVICES
            for method in methods(service)
        }
        # As good as a GenericRpcHandler, which is a class of Python.
        finder: Any = Finder(handlers)
        server.add_generic_rpc_handlers((finder,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if config.reflection:
            add_reflection(server, tuple(SERVICES), self._health.ended)
        try:
            self.port = (
                server.add_insecure_port(config.address)
                if credentials is None
                else server.add_secure_port(config.address, credentials)
            )
        except RuntimeError as error:
            raise AddressUnavailableError(
                f"cannot listen on {config.address}: {error}. Is another server running there? Name "
                "another port, or "
                "port 0 for a free one.",
                field="port",
            ) from None
        if isinstance(self.services.library, Library):
            self.reloader = Reloader(self.services.library, self._serve_from, interval=config.watch_interval)
        if config.metrics_port is not None or os.environ.get(DIRECTORY):
            self._count()
        if config.traces_endpoint is not None:
            self.tracer = Tracer(config.traces_endpoint)
            self._calls.trace = self.tracer.call
        self._report_health()
        await server.start()
        self._server = server
        if self.reloader is not None:
            self.reloader.start()
        if config.port_file is not None:
            write_whole(config.port_file, f"{self.port}\n")

    async def stop(self, grace: float | None = None) -> None:
        """Refuse new calls, let those in flight finish for ``grace`` seconds (``config.grace`` if None),
        and end.
        """
        server, self._server = self._server, None
        if server is None:
            return
        self._health.end()
        if self.reloader is not None:
            await self.reloader.stop()
        self._calls.end_streams()
        await server.stop(self.config.grace if grace is None else grace)
        if self.exporter is not None:
            self.exporter.stop()
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self.metrics is not None:
            self.metrics.flush()
        flush()
        if self.tracer is not None:
            await asyncio.to_thread(self.tracer.stop)
        if self.config.port_file is not None:
            self.config.port_file.unlink(missing_ok=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _count(self) -> None:
        """Count from now on, and serve the figures unless a supervisor does."""
        self.metrics = ServerMetrics(self._calls)
        if self.config.metrics_port is not None:
            self.exporter = Exporter(self.config, self.metrics.registry, lambda: {0: os.getpid()})

    async def reload(self) -> ReloadOutcome | None:
        """Take up what the store has now, whether it is another or not; None if the library has no store."""
        return await self.reloader.reload() if self.reloader is not None else None

    async def _serve_from(self, outcome: ReloadOutcome) -> None:
        """Serve from another library. Calls that read the reference before go on with what they read."""
        self.services.library = outcome.library
        self.services.store_error = outcome.refused.get("")
        self._report_health()
        if self.metrics is not None:
            self.metrics.reload(outcome)

    def _report_health(self) -> None:
        refused = {f"{path.parent.name}/{path.name}": error for path, error in self.services.library.unusable}
        if self.services.store_error is not None:
            refused[""] = self.services.store_error
        # Names of directories: whatever is in them, a header takes printable ASCII only.
        names = (f"{name}={error.code}" for name, error in sorted(refused.items()))
        self._health.refused = ", ".join(names).encode("ascii", "replace").decode()[:1000]
        kinds = {info.kind for info in self.services.library.releases()}
        self._health.report(
            {
                "": True,
                CATALOG: True,
                TERMINOLOGY: "codes" in kinds,
                GROUPING: not kinds.isdisjoint({"msdrg", "mce", "hcc"}),
                RELEASES: not refused,
            }
        )
        if self.metrics is not None:
            systems = Counter(info.system for info in self.services.library.releases())
            self.metrics.releases(systems, len(refused))


def _channel_options(config: ServerConfig, share_port: bool) -> list[tuple[str, int]]:
    return [
        # Twice our own limit: a request a little too long gets an answer with a reason, one far
        # too long is cut off by gRPC before more of it than a window (4 MiB) is in memory.
        ("grpc.max_receive_message_length", 2 * config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Off, unless we are one of several: with it a second server on the same port starts without a word and takes
        # half the calls.
        ("grpc.so_reuseport", int(share_port)),
        # A caller that does not read its answers keeps its streams open, and cannot open more.
        ("grpc.max_concurrent_streams", config.max_streams),
        # Whoever connects has to say something: TLS, then HTTP/2.
        ("grpc.server_handshake_timeout_ms", _milliseconds(config.keepalive_timeout)),
        ("grpc.keepalive_time_ms", _milliseconds(config.keepalive_time)),
        ("grpc.keepalive_timeout_ms", _milliseconds(config.keepalive_timeout)),
        # A probe that measures bandwidth may be under way when the connection breaks: no other is sent then.
        ("grpc.http2.ping_timeout_ms", _milliseconds(config.keepalive_timeout)),
        ("grpc.http2.settings_timeout", _milliseconds(config.keepalive_timeout)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", round(config.keepalive_min_interval * 1000)),
        ("grpc.max_connection_idle_ms", _milliseconds(config.max_connection_idle)),
        ("grpc.max_connection_age_ms", _milliseconds(config.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(config.grace)),
    ]


def _milliseconds(seconds: float) -> int:
    """Return what gRPC reads as ``seconds``, and as never for 0."""
    return min(max(1, round(seconds * 1000)), _NEVER) if seconds else _NEVER


def _share_arenas() -> None:
    """Have all threads of this process allocate from two arenas, unless MALLOC_ARENA_MAX says otherwise.

    By default glibc gives each thread one of its own, and each comes to keep the memory of the largest batch that it
    has answered: a third more in all, reached after minutes only. Elsewhere there is nothing to do.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def open_library(config: ServerConfig) -> Library:
    """Open the library that ``config`` names."""
    # Here, so that reading a configuration does not load the core.
    from ..library import open as open_packs

    return open_packs(config.store, releases=config.releases, verify="now" if config.verify else "lazy")


def serve(config: ServerConfig | None = None, library: Library | None = None) -> None:
    """Run a server until SIGTERM or SIGINT, then let the requests in flight finish.

    Prints one line, ``listening HOST:PORT``, to standard output as soon as requests are answered, and
    logs to standard error, one JSON object a line. A second signal ends the process without waiting.

    With more than one worker this process only watches over them, and they serve. SIGHUP has the store looked at.

    ``library``: None opens the one that ``config`` names; workers open their own, and cannot be given one. Raises what
    ``open`` raises, InvalidFieldError and AddressUnavailableError.
    """
    config = config or ServerConfig()
    if config.workers > 1:
        if library is not None:
            raise InvalidFieldError(
                "workers: expected 1 with a library given, which other processes cannot share", field="workers"
            )
        supervise(config)
        return
    configure(level=config.log_level)
    asyncio.run(run(config, library or open_library(config)))


async def run(
    config: ServerConfig, library: Library, *, share_port: bool = False, until_end_of: TextIO | None = None
) -> None:
    """Serve on the running event loop as ``serve`` does. ``until_end_of``: end also when nothing more can be read from
    it.
    """
    _share_arenas()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def end() -> None:
        # The next signal finds the default action again.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if until_end_of is not None:
        descriptor = until_end_of.fileno()

        def read() -> None:
            if not os.read(descriptor, 4096):
                loop.remove_reader(descriptor)
                ended.set()

        loop.add_reader(descriptor, read)
    server = Server(config, library, share_port=share_port)
    await server.start()
    # What is loaded by now stays; collections that look at all of it would keep calls waiting.
    gc.freeze()
    tasks: set[asyncio.Task[Any]] = set()

    def reload() -> None:
        task = asyncio.ensure_future(server.reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    releases = [f"{info.system}/{info.release}" for info in library.releases()]
    _logger.info("listening", extra={"fields": {"address": server.address, "releases": releases}})
    sys.stdout.write(f"listening {server.address}\n")
    sys.stdout.flush()
    await ended.wait()
    _logger.info("draining", extra={"fields": {"grace_s": config.grace}})
    await server.stop()
    _logger.info("stopped")
