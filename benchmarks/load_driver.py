"""Client processes that put load on a server, and what they saw.

A closed loop has ``senders`` that each send the next call when the last is answered: it finds the highest rate, and its
latencies hide what a caller with a schedule would have waited. An open loop sends at a rate, at random moments, whether
answers come or not, and counts a call's latency from the moment it was due: waiting for the driver itself is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

__all__ = ["Clients", "Outcome", "Phase", "clients", "corrected", "histogram"]

LONGEST_SECONDS = 900.0
MOST_CALLS = 20_000_000
MOST_OUTSTANDING = 128
"""Calls of an open loop that wait for their answers, all clients together. A server refuses more than it is told to
answer at once (256); what is due while so many wait is sent late, and its latency says so."""

DEADLINE_SECONDS = 60.0
_LONGEST_US = 120_000_000


@dataclass(frozen=True)
class Phase:
    """What to send for how long. ``mix``: name of a kind of call and its weight. ``rate``: calls a second of an open
    loop; 0: closed. ``senders``: of a closed loop. Both are for all clients together. ``client``: "wire", or "dicts"
    for ``engine.client`` with Python dictionaries, "process" for the library without a server.
    """

    name: str
    mix: dict[str, float]
    seconds: float
    senders: int = 16
    rate: float = 0.0
    calls: int = MOST_CALLS
    client: str = "wire"

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= LONGEST_SECONDS:
            raise ValueError(f"seconds: expected more than 0 and at most {LONGEST_SECONDS:g}, got {self.seconds:g}")
        if not 0 < self.calls <= MOST_CALLS:
            raise ValueError(f"calls: expected 1 to {MOST_CALLS:,}, got {self.calls:,}")


def histogram() -> HdrHistogram:
    """Return an empty histogram of microseconds, of three digits."""
    return HdrHistogram(1, _LONGEST_US, 3)


def corrected(raw: HdrHistogram) -> HdrHistogram:
    """Return latencies of a closed loop with those that it did not see: while a sender waited longer than the median,
    it would have sent further calls every median, and they would have waited for the rest.
    """
    found = histogram()
    interval = max(1, raw.get_value_at_percentile(50))
    for item in raw.get_recorded_iterator():
        found.record_corrected_value(item.value_iterated_to, interval, item.count_at_value_iterated_to)
    return found


@dataclass
class Outcome:
    """What came of a phase. ``latency``: microseconds of answered calls, by kind. ``errors``: by gRPC code, or
    WRONG_ANSWER. ``compared``, ``decoded``: answered items compared with the reference, and of these decoded."""

    seconds: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    items: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    decoded: int = 0
    late: int = 0
    """Calls of an open loop that were sent late because too many were waiting."""
    latency: dict[str, HdrHistogram] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    """Processor time of the clients."""

    def add(self, other: Outcome) -> None:
        """Add what another client, or another round, saw. Seconds stay."""
        self.calls += other.calls
        self.items += other.items
        self.errors += other.errors
        self.compared += other.compared
        self.decoded += other.decoded
        self.late += other.late
        self.cpu_seconds += other.cpu_seconds
        for name, latency in other.latency.items():
            self.latency.setdefault(name, histogram()).add(latency)

    def whole_latency(self) -> HdrHistogram:
        """Return the latencies of all kinds together."""
        whole = histogram()
        for latency in self.latency.values():
            whole.add(latency)
        return whole


class _Client:
    """One client process: its connections and its questions."""

    def __init__(self, target: str, store: Path | None, connections: int, seed: int) -> None:
        from .load_calls import Questions

        self._target = target
        self._questions = Questions(store, seed)
        self._rng = random.Random(seed)
        # Connections of their own: the kernel gives each to one of the workers.
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),
        ]
        self._channels = [grpc.aio.insecure_channel(target, options) for _ in range(connections)]
        self._stubs: dict[tuple[str, int], Any] = {}

    async def connect(self) -> None:
        await asyncio.gather(*(channel.channel_ready() for channel in self._channels))

    async def prepare(self, phase: Phase) -> Outcome:
        """Make the questions and ask each once, so that to compare an answer is to compare bytes. Return what came of
        it, without calls and latencies.
        """
        outcome = Outcome()
        for name in phase.mix:
            asking = self._questions[name]
            if phase.client == "wire":
                for i, index in enumerate(asking.unknown()):
                    await self._ask(name, i % len(self._channels), outcome, chosen=[index] * asking.parts)
            outcome.compared += asking.compared
            outcome.decoded += asking.decoded
            asking.compared = asking.decoded = 0
        # The questions of the driver are not for the collector to look through while a client is measured.
        gc.freeze()
        return Outcome(errors=outcome.errors, compared=outcome.compared, decoded=outcome.decoded)

    async def run(self, phase: Phase) -> Outcome:
        outcome = Outcome()
        askings = [self._questions[name] for name in phase.mix]
        cpu = time.process_time()
        started = time.perf_counter()
        if phase.client != "wire":
            await asyncio.to_thread(self._in_python, phase, outcome)
        elif phase.rate:
            await self._open(phase, outcome)
        else:
            await self._closed(phase, outcome)
        outcome.seconds = time.perf_counter() - started
        outcome.cpu_seconds = time.process_time() - cpu
        for asking in askings:
            outcome.compared += asking.compared
            outcome.decoded += asking.decoded
            asking.compared = asking.decoded = 0
        return outcome

    def _stub(self, path: str, parts: int, channel: int) -> Any:
        key = (path, channel)
        if key not in self._stubs:
            made = self._channels[channel]
            self._stubs[key] = made.unary_unary(path) if parts == 1 else made.stream_stream(path)
        return self._stubs[key]

    async def _ask(
        self,
        name: str,
        channel: int,
        outcome: Outcome,
        due: float | None = None,
        chosen: list[int] | None = None,
    ) -> None:
        from .load_calls import WrongAnswerError

        asking = self._questions[name]
        chosen = chosen or asking.choose(self._rng)
        stub = self._stub(asking.path, asking.parts, channel)
        due = time.perf_counter() if due is None else due
        try:
            if asking.parts == 1:
                answers = [await stub(asking.requests[chosen[0]], timeout=DEADLINE_SECONDS)]
            else:
                call = stub((asking.requests[i] for i in chosen), timeout=DEADLINE_SECONDS)
                answers = [answer async for answer in call]
        except grpc.aio.AioRpcError as error:
            outcome.errors[error.code().name] += 1
            return
        took = round((time.perf_counter() - due) * 1e6)
        try:
            for index, answer in zip(chosen, answers, strict=True):
                asking.check(index, answer, self._rng)
        except (WrongAnswerError, ValueError):  # ValueError: fewer answers than requests, or more
            outcome.errors["WRONG_ANSWER"] += 1
            return
        outcome.calls[name] += 1
        outcome.items += asking.items
        if name not in outcome.latency:
            outcome.latency[name] = histogram()
        outcome.latency[name].record_value(min(max(took, 1), _LONGEST_US))

    async def _closed(self, phase: Phase, outcome: Outcome) -> None:
        end = time.perf_counter() + phase.seconds
        names, weights = list(phase.mix), list(phase.mix.values())
        left = phase.calls

        async def send(sender: int) -> None:
            nonlocal left
            channel = sender % len(self._channels)
            while left > 0 and time.perf_counter() < end:
                left -= 1
                await self._ask(self._rng.choices(names, weights)[0], channel, outcome)

        await asyncio.gather(*(send(i) for i in range(phase.senders)))

    async def _open(self, phase: Phase, outcome: Outcome) -> None:
        names, weights = list(phase.mix), list(phase.mix.values())
        room = asyncio.Semaphore(phase.senders)
        waiting: set[asyncio.Task[None]] = set()
        due = started = time.perf_counter()
        for sent in range(phase.calls):
            due += self._rng.expovariate(phase.rate)
            if due - started >= phase.seconds:
                break
            pause = due - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            elif sent % 64 == 0:
                # Behind: let answers in.
                await asyncio.sleep(0)
            outcome.late += room.locked()
            await room.acquire()
            name = self._rng.choices(names, weights)[0]
            task = asyncio.ensure_future(self._ask(name, sent % len(self._channels), outcome, due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            task.add_done_callback(lambda _: room.release())
            if time.perf_counter() > started + 2 * phase.seconds + 10:
                break
        await asyncio.gather(*waiting)

    def _in_python(self, phase: Phase, outcome: Outcome) -> None:
        """Group Python dictionaries with ``engine.client`` or in process, one batch after the other."""
        from engine.client import Client
        from engine.drg import Detail, GroupingOptions

        from .load_calls import BATCH

        questions = self._questions
        (name,) = phase.mix
        detail = Detail.FULL if "full" in name else Detail.DRG
        batches = [questions.of_batch(batch, BATCH) for batch in range(4)]
        claims = [[questions.claims[i] for i in batch] for batch in batches]
        drgs = [[questions.answers[i]["final_grouping"]["drg"] for i in batch] for batch in batches]
        latency = outcome.latency[name] = histogram()
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(Client(self._target)) if phase.client == "dicts" else None
            end = time.perf_counter() + phase.seconds
            for call in range(phase.calls):
                started = time.perf_counter()
                if started >= end:
                    break
                i = call % len(batches)
                if client is None:
                    answered = questions.library.group_drg_many(claims[i], GroupingOptions(detail=detail))
                    found = answered.table["final_grouping"]["drg"].tolist()
                    wanted = drgs[i]
                else:
                    # Several requests' worth, so that the client has some in flight.
                    options = {"detail": f"DRG_DETAIL_{detail.name}"}
                    results = client.group_drg_many(claims[i] * 8, options=options)
                    found = [result.final_grouping.drg for result in results]
                    wanted = drgs[i] * 8
                latency.record_value(max(1, round((time.perf_counter() - started) * 1e6)))
                if found != wanted:
                    outcome.errors["WRONG_ANSWER"] += 1
                    continue
                outcome.calls[name] += 1
                outcome.items += len(found)
                outcome.compared += len(found)


def _client(pipe: Connection, target: str, store: Path | None, connections: int, seed: int) -> None:
    async def serve() -> None:
        client = _Client(target, store, connections, seed)
        await asyncio.wait_for(client.connect(), 60)
        pipe.send(os.getpid())
        while True:
            phase, start = await asyncio.to_thread(pipe.recv)
            if phase is None:
                return
            if not start:
                pipe.send(await client.prepare(phase))
                continue
            outcome = await client.run(phase)
            encoded = {name: latency.encode() for name, latency in outcome.latency.items()}
            outcome.latency = {}
            pipe.send((outcome, encoded))

    asyncio.run(serve())


class Clients:
    """Client processes. ``pids``: theirs."""

    def __init__(self, pipes: Sequence[Connection], pids: Sequence[int]) -> None:
        self._pipes = pipes
        self.pids = pids
        self._first = Outcome()

    def start(self, phase: Phase) -> None:
        """Begin ``phase`` in all of them at once. What has never been asked is asked once before it begins; an error of
        that counts as the phase's.
        """
        share = Phase(
            phase.name,
            phase.mix,
            phase.seconds,
            max(1, round((MOST_OUTSTANDING if phase.rate else phase.senders) / len(self._pipes))),
            phase.rate / len(self._pipes),
            max(1, phase.calls // len(self._pipes)),
            phase.client,
        )
        for begin in (False, True):
            for pipe in self._pipes:
                pipe.send((share, begin))
            if not begin:
                for pipe in self._pipes:
                    self._first.add(pipe.recv())

    def finished(self, seconds: float) -> bool:
        """Wait up to ``seconds``; say whether all have finished."""
        end = time.monotonic() + seconds
        return all(pipe.poll(max(0.0, end - time.monotonic())) for pipe in self._pipes)

    def finish(self) -> Outcome:
        """Wait for all and return what they saw together."""
        whole, self._first = self._first, Outcome()
        for pipe in self._pipes:
            outcome, encoded = pipe.recv()
            outcome.latency = {name: HdrHistogram.decode(data) for name, data in encoded.items()}
            whole.add(outcome)
            whole.seconds = max(whole.seconds, outcome.seconds)
        return whole

    def run(self, phase: Phase) -> Outcome:
        """Run ``phase`` in all of them."""
        self.start(phase)
        return self.finish()


@contextmanager
def clients(target: str, store: Path | None = None, count: int = 1, connections: int = 4) -> Iterator[Clients]:
    """Start ``count`` client processes of ``connections`` connections each; end them at the end."""
    # gRPC does not survive a fork.
    context = multiprocessing.get_context("spawn")
    started = []
    for i in range(count):
        here, there = context.Pipe()
        process = context.Process(target=_client, args=(there, target, store, connections, i + 1), daemon=True)
        process.start()
        there.close()
        started.append((here, process))
    try:
        yield Clients([pipe for pipe, _ in started], [pipe.recv() for pipe, _ in started])
    finally:
        for pipe, process in started:
            with contextlib.suppress(OSError):
                pipe.send((None, False))
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
