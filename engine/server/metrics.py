"""Figures for Prometheus, over HTTP on an address of their own.

Every figure is of the server: methods, statuses, releases. None has anything of a claim, nor a code or text that a
caller sent. A caller's own request id is not in them either.

One process counts for itself. Several count into files in a directory that they share, which prometheus-client adds up
(``PROMETHEUS_MULTIPROC_DIR``, set by the supervisor before they start); the supervisor serves the sums, and figures of
each worker's process. A worker that ends leaves its counts and takes its gauges with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from .._calls import Figures
from ..errors import AddressUnavailableError
from .config import ServerConfig
from .logs import LOGGER

if TYPE_CHECKING:
    from .calls import Calls
    from .reload import ReloadOutcome

__all__ = ["DIRECTORY", "Exporter", "ServerMetrics", "SharedCounts"]

_logger = logging.getLogger(LOGGER)

DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
_ITEMS: Final = (1, 10, 100, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000)


_DELAY: Final = 0.1
"""Seconds that the counts of a worker may wait to be in its file. One that is killed never writes them."""


class _Buckets(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add observations: how many are in each bucket, the last of which has no bound, and what they come to."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class _Entering(Collector):
    """Has no figures, and calls ``flush`` when asked for them."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush

    def collect(self) -> Iterator[Any]:
        self._flush()
        return iter(())


class ServerMetrics:
    """What one server process counts."""

    def __init__(self, calls: Calls) -> None:
        self.registry = CollectorRegistry()
        # The first to be asked: what is counted and not entered yet is entered then.
        self.registry.register(_Entering(self.flush))
        to: dict[str, Any] = {"registry": self.registry}
        by_method = ("service", "method")
        self._requests = Counter(
            "codeset_requests", "Calls that ended, by gRPC status and reason.", (*by_method, "status", "reason"), **to
        )
        self._seconds = _Buckets(
            "codeset_request_seconds",
            "Seconds from a request's arrival to its answer.",
            (*by_method, "status"),
            buckets=_SECONDS,
            **to,
        )
        self._items = Counter("codeset_items", "Items answered: claims, codes, members.", by_method, **to)
        self._errors = Counter("codeset_item_errors", "Items of batches answered with an error.", by_method, **to)
        self._batch = _Buckets("codeset_request_items", "Items of a call.", by_method, buckets=_ITEMS, **to)
        self._received = Counter("codeset_received_bytes", "Bytes of requests.", by_method, **to)
        self._sent = Counter("codeset_sent_bytes", "Bytes of answers.", by_method, **to)
        self._releases = Gauge(
            "codeset_releases", "Releases that answer, by system.", ("system",), multiprocess_mode="livemin", **to
        )
        self._refused = Gauge(
            "codeset_releases_refused", "Packs in the store that cannot be used.", multiprocess_mode="livemax", **to
        )
        self._reloads = Counter(
            "codeset_reloads", "Looks at a changed store, by what came of them.", ("outcome",), **to
        )
        self._reload_seconds = Gauge(
            "codeset_reload_seconds", "Seconds that the last reload took.", multiprocess_mode="livemax", **to
        )
        self._reloaded = Gauge(
            "codeset_reload_timestamp_seconds",
            "When the last reload ended, Unix time.",
            multiprocess_mode="livemostrecent",
            **to,
        )
        self._in_flight = Gauge(
            "codeset_requests_in_flight", "Calls begun and not ended.", multiprocess_mode="livesum", **to
        )
        self._queued = Gauge(
            "codeset_requests_queued", "Long requests that wait for a thread.", multiprocess_mode="livesum", **to
        )
        self._shared = bool(os.environ.get(DIRECTORY))
        if not self._shared:
            self._in_flight.set_function(lambda: calls.active)
            self._queued.set_function(lambda: calls.queued)
        self._calls = calls
        # The files of workers are read by another process, which cannot ask for what is not in them yet.
        calls.figures = self._figures = Figures(_SECONDS, _ITEMS, self._flush_soon if self._shared else None)
        self._lock = threading.Lock()
        self._systems: set[str] = set()

    def _flush_soon(self) -> None:
        asyncio.get_running_loop().call_later(_DELAY, self.flush)

    def flush(self) -> None:
        """Enter the calls counted since the last time into the figures."""
        with self._lock:
            for (service, method, (status, reason)), of in self._figures.take().items():
                self._requests.labels(service, method, status, reason).inc(of.calls)
                self._seconds.labels(service, method, status).add(of.by_seconds, of.seconds)
                self._received.labels(service, method).inc(of.received)
                self._items.labels(service, method).inc(of.items)
                self._errors.labels(service, method).inc(of.errors)
                self._batch.labels(service, method).add(of.by_items, of.items)
                self._sent.labels(service, method).inc(of.sent)
            if self._shared:
                self._in_flight.set(self._calls.active)
                self._queued.set(self._calls.queued)

    def releases(self, by_system: Mapping[str, int], refused: int) -> None:
        """Note what answers."""
        for system in self._systems - by_system.keys():
            self._releases.labels(system).set(0)
        for system, count in by_system.items():
            self._releases.labels(system).set(count)
        self._systems.update(by_system)
        self._refused.set(refused)

    def reload(self, outcome: ReloadOutcome) -> None:
        """Count a reload."""
        self._reloads.labels(outcome.name).inc()
        self._reload_seconds.set(outcome.seconds)
        self._reloaded.set_to_current_time()


class SharedCounts:
    """The directory that workers count into; ``environment`` is what they have to be told."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="codeset-metrics-"))
        self.environment = {DIRECTORY: str(self.path)}
        self.registry = CollectorRegistry()
        collector: Any = MultiProcessCollector
        collector(self.registry, path=str(self.path))

    def ended(self, pid: int) -> None:
        """Give up the gauges of a worker that has ended."""
        mark: Any = mark_process_dead
        mark(pid, path=str(self.path))

    def remove(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)


class _Processes(Collector):
    """Memory, processor time and files of processes, from /proc, as they are when asked for."""

    def __init__(self, pids: Callable[[], Mapping[int, int]], restarts: Callable[[], int] | None) -> None:
        self._pids = pids
        self._restarts = restarts

    def collect(self) -> Iterator[Any]:
        """Yield the figures of each process, by worker number."""
        resident = GaugeMetricFamily(
            "codeset_worker_resident_bytes",
            "Memory, pages of packs shared with other workers included.",
            None,
            ["worker"],
        )
        private = GaugeMetricFamily("codeset_worker_private_bytes", "Memory of the worker alone.", None, ["worker"])
        spent = CounterMetricFamily("codeset_worker_cpu_seconds", "Processor time.", None, ["worker"])
        files = GaugeMetricFamily("codeset_worker_open_files", "Open files and connections.", None, ["worker"])
        page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
        pids = self._pids()
        for number, pid in pids.items():
            try:
                sizes = Path(f"/proc/{pid}/statm").read_text().split()
                times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                count = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            except OSError:
                # It ended between being listed and being asked, or this is no Linux.
                continue
            worker = [str(number)]
            resident.add_metric(worker, int(sizes[1]) * page)
            private.add_metric(worker, (int(sizes[1]) - int(sizes[2])) * page)
            spent.add_metric(worker, (int(times[11]) + int(times[12])) / tick)
            files.add_metric(worker, count)
        yield from (resident, private, spent, files)
        yield GaugeMetricFamily("codeset_workers", "Processes that answer.", len(pids))
        if self._restarts is not None:
            yield CounterMetricFamily("codeset_worker_restarts", "Workers started again.", self._restarts())


class Exporter:
    """Serves a registry over HTTP at the metrics address of ``config``. ``port`` is the port.

    ``pids``: process ids by worker number. Raises AddressUnavailableError.
    """

    def __init__(
        self,
        config: ServerConfig,
        registry: CollectorRegistry,
        pids: Callable[[], Mapping[int, int]],
        restarts: Callable[[], int] | None = None,
    ) -> None:
        assert config.metrics_port is not None
        registry.register(_Processes(pids, restarts))
        try:
            self._server, self._thread = start_http_server(config.metrics_port, config.metrics_host, registry)
        except OSError as error:
            raise AddressUnavailableError(
                f"cannot serve metrics on {config.metrics_host}:{config.metrics_port}: {error.strerror or error}. Name "
                "another metrics_port, or 0 for a free one.",
                field="metrics_port",
            ) from None
        self.port: int = self._server.server_port
        _logger.info("metrics", extra={"fields": {"address": f"{config.metrics_host}:{self.port}"}})

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
