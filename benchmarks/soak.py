"""A soak: a server saturated with mixed calls for a while, and what its memory did meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from .load_driver import Clients, Outcome, Phase, clients
from .load_server import Serving, serving

WARM_UP = 0.3
"""Share of the time before memory counts: packs are mapped, caches fill, and every thread has its largest batch."""

FLAT = 0.05
"""Growth over the time that counts, as a share of the median, that still is flat."""

NOISE = 16 * 2**20
"""Growth in bytes that says nothing: what a few batches hold that happen to be under way at once. A byte kept for every
claim is more than that after half a minute.
"""

CLAIM_SYSTEM = {
    "ValidateCode": 30.0,
    "GroupDrg": 40.0,
    "EditClaim": 10.0,
    "ScoreHcc": 10.0,
    "BatchGroupDrg, DRG": 1.0,
    "BatchGroupDrg, full": 1.0,
    "StreamGroupDrg, full": 1.0,
}
"""Calls by weight: most are single, most items are in batches."""

MIX = {"echo": 4.0, **CLAIM_SYSTEM, "BatchValidateCodes": 1.0, "BatchEditClaims": 1.0, "BatchScoreHcc": 1.0}
"""With everything else that has memory to lose."""


@dataclass
class Memory:
    """Private memory (bytes, without mapped files) of some processes over time (seconds)."""

    who: str
    seconds: list[float] = field(default_factory=list)
    private: list[int] = field(default_factory=list)

    def sample(self, at: float, processes: list[psutil.Process]) -> None:
        found = [process.memory_info() for process in processes]
        self.seconds.append(at)
        self.private.append(sum(info.rss - info.shared for info in found))

    def growth(self, warm_up: float) -> float:
        """Return the bytes that memory grew after ``warm_up`` seconds: the slope of Theil and Sen times the time.
        Spikes do not count, as long as fewer than 29 % of the samples are in one."""
        points = [p for p in zip(self.seconds, self.private, strict=True) if p[0] >= warm_up]
        # All pairs of a long run are many: its samples are thinned out evenly.
        points = points[:: max(1, len(points) // 400)]
        slopes = [(b - a) / (t - s) for i, (s, a) in enumerate(points) for t, b in points[i + 1 :] if t > s]
        return median(slopes) * (points[-1][0] - points[0][0]) if slopes else 0.0

    def level(self, warm_up: float) -> float:
        """Return the median after ``warm_up`` seconds."""
        return median([bytes_ for at, bytes_ in zip(self.seconds, self.private, strict=True) if at >= warm_up])

    def is_flat(self, warm_up: float) -> bool:
        """Whether memory did not grow beyond noise."""
        return self.growth(warm_up) <= max(NOISE, FLAT * self.level(warm_up))


@dataclass
class Soak:
    """What came of a soak. ``cpu``: processor time of the server, in seconds of a core a second."""

    outcome: Outcome
    memory: list[Memory]
    warm_up: float
    cpu: float
    workers: int

    def faults(self) -> list[str]:
        """Return what is wrong, as sentences; none if all is well."""
        found = [f"{count} calls ended with {code}" for code, count in sorted(self.outcome.errors.items())]
        found += [
            f"memory of the {memory.who} grew by {memory.growth(self.warm_up) / 2**20:.1f} MiB from "
            f"{memory.level(self.warm_up) / 2**20:.1f} MiB"
            for memory in self.memory
            if not memory.is_flat(self.warm_up)
        ]
        if not sum(self.outcome.calls.values()):
            found.append("no call was answered")
        return found


def soak(
    seconds: float, *, workers: int = 1, store: Path | None = None, client_count: int = 1, senders: int = 24
) -> Soak:
    """Saturate a server with every kind of call for ``seconds``, with ``senders`` calls under way at any time."""
    with serving(workers, store) as server, clients(server.target, store, client_count) as load:
        return _run(server, load, Phase("soak", MIX, seconds, senders), workers)


def _run(server: Serving, load: Clients, phase: Phase, workers: int) -> Soak:
    callers = [psutil.Process(pid) for pid in load.pids]
    memory = [Memory("server"), Memory("clients")]
    load.start(phase)
    started, cpu = time.monotonic(), server.cpu_seconds()
    interval = max(0.25, phase.seconds / 1200)
    while not load.finished(interval):
        at = time.monotonic() - started
        if at > phase.seconds + 90:
            raise RuntimeError("the clients did not end")
        if at < phase.seconds:
            memory[0].sample(at, server.processes())
            memory[1].sample(at, callers)
    used = server.cpu_seconds() - cpu
    outcome = load.finish()
    warm_up = WARM_UP * phase.seconds
    return Soak(outcome, memory, warm_up, used / outcome.seconds, workers)
