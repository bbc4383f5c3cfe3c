"""Several processes on one port.

The supervisor holds the port and answers nothing; its workers listen on it with SO_REUSEPORT, and the kernel spreads
*connections* over them. Each opens the packs for itself: their pages are in memory once. A worker that ends without
being told is started again, later each time if it keeps ending. SIGTERM and SIGINT let all of them finish what is in
flight; SIGHUP makes all of them look at the store. If the supervisor is killed, the workers see their standard input
end, and finish too.

Nothing here loads the core or a pack: the supervisor stays small.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..errors import AddressUnavailableError, CodesetError, InternalError, all_errors
from .config import ServerConfig
from .files import write_whole
from .logs import LOGGER, configure

if TYPE_CHECKING:
    from .metrics import Exporter, SharedCounts

__all__ = ["Supervisor", "supervise"]

_logger = logging.getLogger(LOGGER)

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 10.0
_SETTLED: Final = 30.0
"""Seconds after which a worker counts as well: when it ends then, the next one is started soon again."""

_MARGIN: Final = 5.0
"""Seconds beyond the grace after which a worker that was told to end is killed."""


class _Worker:
    """A worker's process. ``number`` stays with the place it has, ``process`` is the one there now."""

    __slots__ = ("number", "process", "ready", "started")

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.ready = False
        self.started = 0.0


class Supervisor:
    """Runs ``config.workers`` processes. ``environment``: variables of theirs beside our own."""

    def __init__(self, config: ServerConfig, environment: dict[str, str] | None = None) -> None:
        self.config = config
        self.restarts = 0
        self._environment = {**os.environ, **(environment or {})}
        self._workers = [_Worker(number) for number in range(config.workers)]
        self._ending = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []
        self._reserved: socket.socket | None = None
        self._on_end: list[Callable[[int], None]] = []

    @property
    def pids(self) -> dict[int, int]:
        """Process ids of the workers that answer, by their numbers."""
        return {w.number: w.process.pid for w in self._workers if w.process is not None and w.ready}

    @property
    def address(self) -> str:
        """``host:port``."""
        return self.config.address

    def when_one_ends(self, call: Callable[[int], None]) -> None:
        """Call ``call`` with the process id of every worker that has ended."""
        self._on_end.append(call)

    async def start(self) -> None:
        """Take the port and start the workers; return when all of them answer.

        Raises AddressUnavailableError, and what keeps a worker from starting.
        """
        self._reserved, port = _reserve(self.config)
        self.config = self.config.model_copy(update={"port": port})
        try:
            await asyncio.gather(*(self._spawn(worker) for worker in self._workers))
        except BaseException:
            await self._kill()
            self._reserved.close()
            raise
        self._keepers = [asyncio.create_task(self._keep(worker)) for worker in self._workers]

    def reload(self) -> None:
        """Have all workers look at the store."""
        self._signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Let the workers finish what is in flight, and end."""
        self._ending.set()
        self._signal(signal.SIGTERM)
        if self._keepers:
            _, late = await asyncio.wait(self._keepers, timeout=self.config.grace + _MARGIN)
            if late:
                await self._kill()
                await asyncio.wait(late)
        if self._reserved is not None:
            self._reserved.close()

    async def _spawn(self, worker: _Worker) -> None:
        worker.ready = False
        worker.started = time.monotonic()
        worker.process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "engine.server.worker",
            str(worker.number),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
            # A terminal sends its signals to us only; what becomes of the workers is ours to say.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        config = self.config.model_dump_json(exclude={"port_file", "metrics_port", "metrics_host"})
        with contextlib.suppress(OSError):
            process.stdin.write(config.encode() + b"\n")
            await process.stdin.drain()
        said = await process.stdout.readline()
        if said.startswith(b"listening "):
            worker.ready = True
            return
        status = await process.wait()
        raise _error(said, worker.number, status)

    async def _keep(self, worker: _Worker) -> None:
        """Start the worker again whenever it ends, until all are to end."""
        delay = _FIRST_DELAY
        while True:
            assert worker.process is not None
            status = await worker.process.wait()
            worker.ready = False
            for call in self._on_end:
                call(worker.process.pid)
            if self._ending.is_set():
                return
            self.restarts += 1
            if time.monotonic() - worker.started > _SETTLED:
                delay = _FIRST_DELAY
            fields = {"number": worker.number, "pid": worker.process.pid, "status": status, "again_in_s": delay}
            _logger.error("worker ended", extra={"fields": fields})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay)
            if self._ending.is_set():
                return
            delay = min(2 * delay, _LONGEST_DELAY)
            try:
                await self._spawn(worker)
            except (CodesetError, OSError) as error:
                _logger.error("worker failed", extra={"fields": {"number": worker.number, "error": str(error)}})
            if self._ending.is_set():
                # It came up while the others were told.
                self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.send_signal(number)

    async def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        await asyncio.gather(*(w.process.wait() for w in self._workers if w.process is not None))


def supervise(config: ServerConfig) -> None:
    """Run ``config.workers`` processes until SIGTERM or SIGINT; as ``engine.server.serve`` otherwise."""
    configure(level=config.log_level)
    asyncio.run(_supervise(config))


async def _supervise(config: ServerConfig) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def end() -> None:
        # The next signal finds the default action again; the workers see us gone.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    counts: SharedCounts | None = None
    if config.metrics_port is not None:
        # Only where metrics are wanted: the client library decides by the environment when it is imported.
        from .metrics import SharedCounts

        counts = SharedCounts()
    supervisor = Supervisor(config, counts.environment if counts is not None else None)
    try:
        await _watch_over(supervisor, config, ended, counts)
    finally:
        if counts is not None:
            counts.remove()


async def _watch_over(
    supervisor: Supervisor, config: ServerConfig, ended: asyncio.Event, counts: SharedCounts | None
) -> None:
    await supervisor.start()
    loop = asyncio.get_running_loop()
    exporter: Exporter | None = None
    if counts is not None:
        from .metrics import Exporter

        supervisor.when_one_ends(counts.ended)
        try:
            exporter = Exporter(config, counts.registry, lambda: supervisor.pids, lambda: supervisor.restarts)
        except BaseException:
            await supervisor.stop()
            raise
    loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
    if config.port_file is not None:
        write_whole(config.port_file, f"{supervisor.config.port}\n")
    fields = {"address": supervisor.address, "workers": config.workers, "pids": list(supervisor.pids.values())}
    _logger.info("supervising", extra={"fields": fields})
    sys.stdout.write(f"listening {supervisor.address}\n")
    sys.stdout.flush()
    await ended.wait()
    _logger.info("draining", extra={"fields": {"grace_s": config.grace}})
    await supervisor.stop()
    if exporter is not None:
        exporter.stop()
    if config.port_file is not None:
        config.port_file.unlink(missing_ok=True)
    _logger.info("stopped")


def _reserve(config: ServerConfig) -> tuple[socket.socket, int]:
    """Return a socket that holds the address without listening, and its port.

    Raises AddressUnavailableError if anybody listens there: with SO_REUSEPORT the workers would share the port with
    them without a word.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
            port: int = alone.getsockname()[1]
        reserved = socket.socket(family, kind)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((address[0], port, *address[2:]))
    except OSError as error:
        raise AddressUnavailableError(
            f"cannot listen on {config.address}: {error.strerror or error}. Is another server running there? Name "
            "another port, or port 0 for a free one.",
            field="port",
        ) from None
    return reserved, port


def _error(said: bytes, number: int, status: int) -> CodesetError:
    """Return why a worker did not start, from what it wrote instead of its address."""
    with contextlib.suppress(ValueError):
        told: Any = json.loads(said)
        for cls in all_errors():
            if isinstance(told, dict) and cls.code == told.get("code"):
                return cls(str(told.get("text", "")), field=str(told.get("field", "")))
    return InternalError(f"worker {number} ended with status {status} before it answered; its log says why")
