"""Callers that vanish, do not read, lie about lengths, send rubbish or do not wait: the others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import raw_http2
from raw_http2 import DATA, END_HEADERS, END_STREAM, HEADERS, Connection, frame, headers, message
from server_harness import process, running

from engine import errors
from engine._pb.codeset.v1 import grouping_pb2
from engine.client import AsyncClient, Client

BATCH = "/codeset.v1.GroupingService/BatchGroupDrg"
VALIDATE = "/codeset.v1.TerminologyService/ValidateCode"
SLOW = {"claim_id": "SLOW", "version": "43.1"}
CLAIM = {"version": "43.1", "diagnoses": ["E1165"] * 10}


def batch(count: int) -> bytes:
    claims = [grouping_pb2.InpatientClaim(**CLAIM)] * count
    return grouping_pb2.BatchGroupDrgRequest(claims=claims).SerializeToString()


def ask(address: str) -> bool:
    with Client(address, attempts=1, timeout=10) as client:
        return client.validate("icd10cm", "A000").valid


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.fixture
def quick() -> Iterator[str]:
    """A server that finds out soon who is gone."""
    with running(keepalive_time=0.3, keepalive_timeout=0.5) as address:
        yield address


class TestHalfOpen:
    """Connections whose other end is not there any more, or never says anything."""

    def test_one_that_never_says_anything_is_closed(self, quick: str) -> None:
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(Connection(quick, hello=False)) for _ in range(50)]
            assert ask(quick)
            assert all(connection.is_closed(10) for connection in silent)

    def test_one_that_answers_no_probe_is_closed(self, quick: str) -> None:
        with Connection(quick) as unsettled:
            # Not even to what every connection begins with.
            assert unsettled.is_closed(10)
        with Connection(quick) as gone:
            gone.greet()
            # Half a request, and then nothing: neither the rest nor an answer to PING.
            gone.send(frame(HEADERS, END_HEADERS, 1, headers(BATCH)) + frame(DATA, 0, 1, message(b"", 1000)))
            assert ask(quick)
            assert gone.is_closed(10)
        assert ask(quick)

    def test_one_that_answers_probes_stays(self, quick: str) -> None:
        with Client(quick, attempts=1) as client:
            assert client.validate("icd10cm", "A000").valid
            time.sleep(1.5)
            assert client.validate("icd10cm", "A000").valid

    def test_a_network_that_drops_everything(self, quick: str) -> None:
        """Between a watcher of health and the server, a relay stops relaying."""
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        with relay(quick) as (through, cut, server_side_closed):
            channel = grpc.insecure_channel(through)
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watching = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=30)
            assert next(watching).status == 1
            cut.set()
            assert server_side_closed.wait(10)
            watching.cancel()
            channel.close()
        assert ask(quick)


@contextlib.contextmanager
def relay(address: str) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """Relay one connection until ``cut``; then hold both ends open and pass on nothing. Yields its address."""
    cut, closed = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def copy(source: socket.socket, target: socket.socket, note: bool) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65_536):
                    if not cut.is_set():
                        target.sendall(data)
            if note:
                closed.set()

        def run() -> None:
            near, _ = listening.accept()
            host, _, port = address.rpartition(":")
            far = socket.create_connection((host, int(port)))
            with near, far:
                back = threading.Thread(target=copy, args=(far, near, True))
                back.start()
                copy(near, far, False)
                back.join()

        thread = threading.Thread(target=run)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", cut, closed
        thread.join(10)


class TestSlowReader:
    """A caller that asks and does not read what it asked for."""

    def test_it_does_not_grow_the_memory_of_the_server(self) -> None:
        request = batch(1000)
        with process(max_streams=20, keepalive_time=0) as (server, address):
            threading.Thread(target=server.stderr.read, daemon=True).start()  # type: ignore[union-attr]
            with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
                answer = len(channel.unary_unary(BATCH)(request, timeout=30))
            assert answer > 200_000
            before = resident(server.pid)
            with Connection(address, window=0) as unread:
                unread.greet()
                for number in range(200):
                    with contextlib.suppress(OSError):
                        unread.call(2 * number + 1, BATCH, request)
                for _ in range(20):
                    assert ask(address)
                grown = resident(server.pid) - before
                # The answers to the calls that are open at once, encoded, and what they were made of.
                assert grown < 20 * answer * 4, f"{grown:,} bytes"
            assert ask(address)

    def test_it_is_cut_off(self, quick: str) -> None:
        with Connection(quick, window=0) as unread:
            unread.greet()
            for number in range(5):
                unread.call(2 * number + 1, BATCH, batch(100))
            assert ask(quick)
            assert unread.is_closed(10)
        assert ask(quick)


class TestRubbish:
    """Bytes that are no call."""

    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
            b"\x00" * 10_000,
            raw_http2.PREFACE + b"\xff" * 10_000,
            raw_http2.PREFACE + frame(HEADERS, END_HEADERS, 1, b"\xff" * 100),
            raw_http2.PREFACE + frame(DATA, END_STREAM, 7, b"x" * 100),
            raw_http2.PREFACE + frame(raw_http2.SETTINGS, 0, 0, b"\x00\x04\xff\xff\xff\xff"),
        ],
    )
    def test_no_http2(self, address: str, data: bytes) -> None:
        with Connection(address, hello=False) as connection:
            connection.send(data)
            assert ask(address)

    def test_random_frames(self, address: str) -> None:
        dice = random.Random(7)
        for _ in range(30):
            with Connection(address) as connection, contextlib.suppress(OSError):
                for _ in range(20):
                    kind, flags, stream = dice.randrange(12), dice.randrange(256), dice.choice([0, 1, 3, 2**31 - 1])
                    connection.send(frame(kind, flags, stream, dice.randbytes(dice.randrange(200))))
        assert ask(address)

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            (BATCH, message(b"\x0a\x02", 1 << 30)),
            (BATCH, message(b"\x0a\x02", 0xFFFFFFFF)),
            (BATCH, message(b"abc", 100)),
            (BATCH, message(b"abc", compressed=1)),
            (BATCH, b"\x00\x00"),
            (BATCH, b""),
            (VALIDATE, message(b"") + message(b"")),
            ("/codeset.v1.GroupingService/NoSuchMethod", message(b"")),
            ("/", message(b"")),
            ("", message(b"")),
        ],
    )
    def test_a_call_that_is_none(self, address: str, path: str, body: bytes) -> None:
        with Connection(address) as connection:
            connection.send(frame(HEADERS, END_HEADERS, 1, headers(path)) + frame(DATA, END_STREAM, 1, body))
            # gRPC answers some with a status or a reset, and leaves the others to the deadline of their callers.
            ended = [f for f in connection.frames(0.2) if f[2] == 1]
            if ended:
                assert ended[-1][1] & END_STREAM or ended[-1][0] == raw_http2.RST_STREAM
            assert ask(address)
        assert ask(address)

    def test_far_too_long_a_message_never_gets_into_memory(self) -> None:
        with process(max_message_bytes=1 << 20) as (server, address):
            threading.Thread(target=server.stderr.read, daemon=True).start()  # type: ignore[union-attr]
            assert ask(address)
            before = resident(server.pid)
            with Client(address, chunk_bytes=1 << 30) as client:
                for _ in range(3):
                    with pytest.raises(errors.MessageTooLargeError, match="2097152"):
                        client.group_drg({"claim_id": "x" * 50_000_000, "version": "43.1"})
            assert resident(server.pid) - before < 30_000_000
            assert ask(address)


class TestDeadlines:
    """Callers that do not wait, and calls that take too long."""

    def test_a_deadline_of_a_millisecond(self, address: str) -> None:
        claims = [CLAIM] * 2000
        outcomes = set()

        def hurry(number: int) -> None:
            with Client(address, attempts=1) as client:
                for _ in range(15):
                    try:
                        if number % 2:
                            client.group_drg_many(claims, timeout=0.001)
                        else:
                            client.validate("icd10cm", "A000", timeout=0.001)
                        outcomes.add("OK")
                    except errors.DeadlineExceededError:
                        outcomes.add("DEADLINE_EXCEEDED")

        async def hurry_asyncio() -> None:
            async with AsyncClient(address, attempts=1) as client:
                calls = [client.validate("icd10cm", "A000", timeout=0.001) for _ in range(100)]
                for outcome in await asyncio.gather(*calls, return_exceptions=True):
                    assert not isinstance(outcome, BaseException) or isinstance(outcome, errors.DeadlineExceededError)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(hurry, range(4)))
        asyncio.run(hurry_asyncio())
        assert "DEADLINE_EXCEEDED" in outcomes
        with Client(address) as client:
            assert len(client.group_drg_many(claims)) == 2000

    def test_what_nobody_waits_for_is_not_begun(self) -> None:
        """Twenty callers give up on a second's work each, on one thread."""
        with running(threads=1) as address, Client(address, attempts=1) as client:
            slow = [SLOW, *[CLAIM] * 500]
            with ThreadPoolExecutor(20) as pool:
                gave_up = [pool.submit(client.group_drg_many, slow, timeout=0.3) for _ in range(20)]
                for future in gave_up:
                    with pytest.raises(errors.DeadlineExceededError):
                        future.result()
            started = time.monotonic()
            assert len(client.group_drg_many([CLAIM] * 500)) == 500
            assert time.monotonic() - started < 10

    def test_the_limit_of_the_server(self) -> None:
        with running(request_timeout=0.2) as address, Client(address, attempts=1) as client:
            with pytest.raises(errors.DeadlineExceededError, match=r"0\.2 seconds, which is this server's limit"):
                client.group_drg_many([SLOW, *[CLAIM] * 500])
            assert len(client.group_drg_many([CLAIM] * 50)) == 50
