"""Figures for Prometheus, over HTTP on an address of their own.

Every figure is of the server: methods, statuses, releases. None has anything of a claim, nor a code or text that a
caller sent. A caller's own request id is not in them either.

One process counts for itself. Several count into files in a directory that they share, which prometheus-client adds up
(``PROMETHEUS_MULTIPROC_DIR``, set by the supervisor before they start); the supervisor serves the sums, and figures of
each worker's process. A worker that ends leaves its counts and takes its gauges with it.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from ..errors import AddressUnavailableError
from .config import ServerConfig
from .logs import LOGGER

if TYPE_CHECKING:
    from .calls import Calls, Facts
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


class ServerMetrics:
    """What one server process counts. ``registry``: None for that of the process."""

    def __init__(self, calls: Calls, registry: CollectorRegistry | None = None) -> None:
        to: dict[str, Any] = {"registry": registry or CollectorRegistry()}
        self.registry: CollectorRegistry = to["registry"]
        by_method = ("service", "method")
        self._requests = Counter(
            "codeset_requests", "Calls that ended, by gRPC status and reason.", (*by_method, "status", "reason"), **to
        )
        self._seconds = Histogram(
            "codeset_request_seconds",
            "Seconds from a request's arrival to its answer.",
            (*by_method, "status"),
            buckets=_SECONDS,
            **to,
        )
        self._items = Counter("codeset_items", "Items answered: claims, codes, members.", by_method, **to)
        self._errors = Counter("codeset_item_errors", "Items of batches answered with an error.", by_method, **to)
        self._batch = Histogram("codeset_request_items", "Items of a call.", by_method, buckets=_ITEMS, **to)
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
        in_flight = Gauge("codeset_requests_in_flight", "Calls begun and not ended.", multiprocess_mode="livesum", **to)
        queued = Gauge(
            "codeset_requests_queued", "Long requests that wait for a thread.", multiprocess_mode="livesum", **to
        )
        if os.environ.get(DIRECTORY):
            # Files cannot ask: written when a call ends.
            self._levels: tuple[Gauge, Gauge] | None = (in_flight, queued)
        else:
            in_flight.set_function(lambda: calls.active)
            queued.set_function(lambda: calls.queued)
            self._levels = None
        self._calls = calls
        self._children: dict[tuple[str, str, str, str], tuple[Any, ...]] = {}
        self._systems: set[str] = set()

    def call(
        self,
        service: str,
        method: str,
        outcome: tuple[str, str],
        facts: Facts,
        seconds: float,
        received: int,
        sent: int,
    ) -> None:
        """Count a call that ended."""
        key = (service, method, *outcome)
        children = self._children.get(key)
        if children is None:
            # Finding a labelled figure takes longer than counting.
            status, reason = outcome
            children = self._children[key] = (
                self._requests.labels(service, method, status, reason),
                self._seconds.labels(service, method, status),
                self._items.labels(service, method),
                self._errors.labels(service, method),
                self._batch.labels(service, method),
                self._received.labels(service, method),
                self._sent.labels(service, method),
            )
        requests, latency, items, errors, batch, bytes_in, bytes_out = children
        requests.inc()
        latency.observe(seconds)
        if outcome[0] == "OK":
            items.inc(facts.items)
            batch.observe(facts.items)
            bytes_out.inc(sent)
            if facts.errors:
                errors.inc(facts.errors)
        bytes_in.inc(received)
        if self._levels is not None:
            self._levels[0].set(self._calls.active)
            self._levels[1].set(self._calls.queued)

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
