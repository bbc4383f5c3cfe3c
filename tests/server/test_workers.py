"""Several processes on one port: killed, told to end, and told to reload, while they answer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from made_up_store import CODES, SYSTEM, generation_of, write_generation
from server_harness import ROOT

from engine import errors
from engine.client import AsyncClient, Client
from engine.publish import publish

DAY = 20201001
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
"""Otherwise all clients of a process share one connection, and with it one worker."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_generation(tmp_path / "store", 0)
    return tmp_path / "store"


class Service:
    """``codeset-engine serve`` in processes of its own."""

    def __init__(self, process: subprocess.Popen[str], address: str, log: Path) -> None:
        self.process = process
        self.address = address
        self._log = log

    @property
    def log(self) -> list[dict[str, Any]]:
        # The last line may be under way.
        return [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def events(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == event]

    @property
    def pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(store: Path, *arguments: str, workers: int = 2) -> Iterator[Service]:
    log = store.parent / f"log-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "engine.cli", "serve", "--port", "0", "--store", str(store)]
    with (
        log.open("w") as err,
        subprocess.Popen(
            [*command, "--workers", str(workers), *arguments],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            cwd=ROOT,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline().split()
            assert line[:1] == ["listening"], log.read_text()
            yield Service(process, line[1], log)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


class Load:
    """Clients that ask until told to end, each over a connection of its own."""

    def __init__(self, target: str, clients: int = 3, **options: Any) -> None:
        self.answered = 0
        self.failures: list[errors.CodesetError] = []
        self._target = target
        self._options = {"channel_options": OWN_CONNECTION, **options}
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.answered > 30)
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self) -> None:
        codes = CODES * 50
        with Client(self._target, **self._options) as client:
            while not self._ended.is_set():
                try:
                    found = client.validate_many(SYSTEM, codes, date=DAY)
                    assert [validation.code for validation in found] == codes
                    assert all(validation.valid for validation in found)
                    with self._lock:
                        self.answered += 1
                except errors.CodesetError as error:
                    with self._lock:
                        self.failures.append(error)
                    self._ended.wait(0.05)


def test_connections_are_spread(store: Path) -> None:
    with serving(store, workers=3) as service:
        for _ in range(40):
            with Client(service.address, channel_options=OWN_CONNECTION) as client:
                assert client.validate(SYSTEM, "U01", date=DAY).valid
        eventually(lambda: {call["worker"] for call in service.events("call")} == {0, 1, 2})
        assert service.end() == 0


def test_one_client_has_several_connections(store: Path) -> None:
    """Dealt out by chance: that one of two workers gets none of twelve happens once in two thousand times."""
    codes = CODES * 300
    with serving(store) as service:
        with Client(service.address, connections=12, chunk_items=100) as client:
            client.wait_until_ready()
            for _ in range(12):
                assert client.validate(SYSTEM, "U01", date=DAY).valid
            found = client.validate_many(SYSTEM, codes, date=DAY)
            assert [validation.code for validation in found] == codes

        async def again() -> None:
            async with AsyncClient(service.address, connections=12, chunk_items=100) as client:
                await client.wait_until_ready()
                assert all([(await client.validate(SYSTEM, "U01", date=DAY)).valid for _ in range(12)])
                found = [result async for result in client.iter_validations(SYSTEM, codes, date=DAY)]
                assert [validation.code for validation in found] == codes

        def workers(method: str) -> set[int]:
            return {call["worker"] for call in service.events("call") if call["method"] == method}

        eventually(lambda: workers("ValidateCode") == {0, 1} == workers("BatchValidateCodes"))
        before = len(service.events("call"))
        asyncio.run(again())
        eventually(lambda: {call["worker"] for call in service.events("call")[before:]} == {0, 1})
        assert service.end() == 0


def test_a_connection_at_least() -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(errors.InvalidFieldError, match="connections"):
            client("127.0.0.1:1", connections=0)


def test_connections_that_break_are_made_again(store: Path) -> None:
    with serving(store) as service:
        with Load(service.address, channel_options=[], connections=6) as load:
            before = load.answered
            os.kill(service.pids[-1], signal.SIGKILL)
            eventually(lambda: len(service.events("worker ended")) == 1)
            eventually(lambda: load.answered > before + 100)
        assert load.failures == []
        assert service.end() == 0


def test_a_killed_worker_loses_nothing(store: Path) -> None:
    with serving(store) as service:
        with Load(service.address) as load:
            for round_ in range(1, 4):
                before = load.answered
                victim = service.pids[-1]
                os.kill(victim, signal.SIGKILL)
                eventually(lambda n=round_: len(service.events("worker ended")) == n)
                eventually(lambda n=round_: len(service.events("listening")) == 2 + n)
                eventually(lambda at=before: load.answered > at + 100)
        assert load.failures == []
        assert service.end() == 0
    ended = service.events("worker ended")
    assert [line["status"] for line in ended] == [-signal.SIGKILL] * 3


def test_one_that_keeps_ending_is_started_later_each_time(store: Path) -> None:
    with serving(store) as service:
        (keep, victim) = service.pids
        delays: list[float] = []
        for round_ in range(1, 4):
            os.kill(victim, signal.SIGKILL)
            eventually(lambda n=round_: len(service.events("listening")) == 2 + n)
            (victim,) = set(service.pids) - {keep}
            delays.append(service.events("worker ended")[-1]["again_in_s"])
        assert delays == [0.1, 0.2, 0.4]
        assert service.end() == 0


def test_sigterm_under_load_loses_no_answer(store: Path) -> None:
    """What a server began it answers, and who comes later is told to go elsewhere."""
    with serving(store) as service:
        with Load(service.address, attempts=1) as load:
            assert service.end() == 0
        assert {type(failure) for failure in load.failures} <= {errors.ServiceUnavailableError}
        calls = service.events("call")
        assert {call["status"] for call in calls} == {"OK"}
        assert len(calls) == load.answered


def test_a_client_of_two_servers_notices_nothing(store: Path) -> None:
    """One after the other is replaced, as in an upgrade."""
    with serving(store) as first, serving(store) as second:
        target = f"ipv4:{first.address},{second.address}"
        with Load(target) as load:
            # Both have their turns while both are there.
            eventually(lambda: all(service.events("call") for service in (first, second)))
            assert first.end() == 0
            before = load.answered
            eventually(lambda: load.answered > before + 100)
        assert load.failures == []
        assert second.end() == 0


def test_sighup_reloads_all(store: Path, tmp_path: Path) -> None:
    with serving(store, "--watch-interval", "0") as service:
        with Load(service.address) as load:
            publish(write_generation(tmp_path / "staging", 1), store, replace=True)
            service.process.send_signal(signal.SIGHUP)
            eventually(lambda: len(service.events("reload")) == 2)
        assert load.failures == []
        for _ in range(10):
            with Client(service.address, channel_options=OWN_CONNECTION) as client:
                assert generation_of(client.validate(SYSTEM, "U01", date=DAY).title) == 1
        assert {line["worker"] for line in service.events("reload")} == {0, 1}
        assert service.end() == 0


def test_workers_do_not_outlive_their_supervisor(store: Path) -> None:
    with serving(store) as service:
        pids = service.pids
        service.process.kill()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_a_port_that_is_taken_and_a_store_that_is_empty(store: Path, tmp_path: Path) -> None:
    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "engine.cli", "serve", "--workers", "2", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)

    with serving(store) as service:
        done = start("--store", str(store), "--port", service.address.rpartition(":")[2])
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("ADDRESS_UNAVAILABLE: ")
    done = start("--store", str(tmp_path / "nothing"), "--port", "0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("PACK_NOT_FOUND: ")
    assert done.stdout == ""


def test_port_file(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "port"
    with serving(store, "--port-file", str(file)) as service:
        assert service.address.endswith(f":{int(file.read_text())}")
        assert service.end() == 0
    assert not file.exists()
