"""Lines of the log: whole, in order, and soon."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine._calls import CALLER, METADATA, CallLines, MethodName, id_of
from engine.rpc import REQUEST_ID
from engine.server import calls as calls_module
from engine.server import logs
from engine.server.calls import Calls, Facts
from engine.server.config import ServerConfig


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The server's logger as a program finds it."""
    found = logging.getLogger(logs.LOGGER)
    before = found.handlers[:], found.propagate, found.level
    found.handlers, found.propagate = [], True
    yield found
    found.handlers, found.propagate, found.level = before


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def finish(calls: Calls, count: int = 1, **values: Any) -> None:
    facts = Facts()
    for name, value in values.items():
        setattr(facts, name, value)
    METADATA.set((("user-agent", "a test"), ("x-request-id", "asked-for.1")))
    for _ in range(count):
        calls.enter(MethodName("a.Service", "Method"), facts, ("OK", ""), 0.0, "", 10, 20)


async def in_a_loop(count: int = 1, **values: Any) -> None:
    finish(Calls(ServerConfig(), None), count, **values)  # type: ignore[arg-type]


def test_a_call_is_written_within_the_delay(logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure(stream, worker=3)

    async def run() -> None:
        await in_a_loop(items=7, errors=2, releases="msdrg/43.1")
        await asyncio.sleep(3 * logs.DELAY)

    asyncio.run(run())
    (line,) = lines(stream)
    assert line.pop("duration_ms") > 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "event": "call",
        "worker": 3,
        "service": "a.Service",
        "method": "Method",
        "request_id": "asked-for.1",
        "status": "OK",
        "items": 7,
        "errors": 2,
        "release": "msdrg/43.1",
    }


def test_many_are_written_without_waiting_and_none_is_lost(logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure(stream)
    asyncio.run(in_a_loop(1000))
    assert 900 < len(lines(stream)) <= 1000
    logs.flush()
    assert len(lines(stream)) == 1000


def test_a_loop_that_ended_early_keeps_nothing_back(logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure(stream)
    asyncio.run(in_a_loop())
    logs.flush()

    async def run() -> None:
        await in_a_loop()
        await asyncio.sleep(3 * logs.DELAY)

    asyncio.run(run())
    assert len(lines(stream)) == 2


def test_other_lines_keep_their_place(logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure(stream)

    async def run() -> None:
        await in_a_loop()
        logger.error("failure", extra={"fields": {"where": "there"}})
        await in_a_loop()

    asyncio.run(run())
    logs.flush()
    assert [line["event"] for line in lines(stream)] == ["call", "failure", "call"]
    times = [line["time"] for line in lines(stream)]
    assert times == sorted(times)


def test_names_of_releases_are_quoted(logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure(stream)
    asyncio.run(in_a_loop(releases='a "b" \\ é'))
    logs.flush()
    assert lines(stream)[0]["release"] == 'a "b" \\ é'


def test_a_program_with_a_handler_of_its_own_gets_records(logger: logging.Logger) -> None:
    class Keeping(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.records: list[logging.LogRecord] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.records.append(record)

    own = Keeping()
    logger.addHandler(own)
    logger.setLevel(logging.INFO)
    logs.configure()
    asyncio.run(in_a_loop(items=3))
    (record,) = own.records
    assert record.getMessage() == "call"
    assert record.fields["items"] == 3  # type: ignore[attr-defined]
    assert record.fields["request_id"] == "asked-for.1"  # type: ignore[attr-defined]


def test_where_lines_go_is_looked_at_again(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "_LOOK_SECONDS", 0.05)
    calls = Calls(ServerConfig(), None)  # type: ignore[arg-type]
    stream = io.StringIO()

    async def run() -> None:
        logger.setLevel(logging.WARNING)
        finish(calls)
        logs.configure(stream)
        await asyncio.sleep(0.06)
        finish(calls, 3)

    asyncio.run(run())
    logs.flush()
    assert len(lines(stream)) == 3


def test_a_request_id_is_the_callers_or_another_each_time() -> None:
    for fit in ("a", "A-z_0.9", "x" * 64):
        assert id_of((("user-agent", "x"), (REQUEST_ID, fit))) == fit
    unfit: list[Any] = ["", "x" * 65, "a b", 'a"b', "a/b", "é", "a\n", "a\0", b"bytes"]
    made = [id_of(((REQUEST_ID, value),)) for value in unfit] + [id_of(()) for _ in range(1000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in made)


@given(
    texts=st.tuples(*[st.text(max_size=50)] * 4),
    now=st.floats(0, 4e9),
    seconds=st.floats(0, 1e6),
    items=st.integers(0, 2**31),
    errors=st.integers(0, 2**31),
)
def test_lines_say_what_they_were_given(
    texts: tuple[str, str, str, str], now: float, seconds: float, items: int, errors: int
) -> None:
    service, method, releases, caller = texts
    facts = Facts()
    facts.items, facts.errors, facts.releases = items, errors, releases
    made = CallLines('"worker": 7')
    name = MethodName(service, method)
    before = CALLER.set(caller)
    for number in (1, 2):
        assert made.add(now, name, ("OK", "REASON"), facts, seconds, "given") == number
    CALLER.reset(before)
    first, second = made.take().splitlines()
    assert first == second
    assert (len(made), made.take()) == (0, "")
    line = json.loads(first)
    when = datetime.fromisoformat(line.pop("time")).timestamp()
    assert now - 0.0011 <= when <= now
    assert abs(line.pop("duration_ms") - seconds * 1000) <= max(0.00051, seconds * 1e-9)
    optional = {"errors": errors, "release": releases, "caller": caller}
    assert line == {
        "level": "info",
        "event": "call",
        "worker": 7,
        "service": service,
        "method": method,
        "request_id": "given",
        "status": "OK",
        "reason": "REASON",
        "items": items,
        **{name: value for name, value in optional.items() if value},
    }


def test_a_closed_stream_stops_nobody(logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure(stream)
    stream.close()
    asyncio.run(in_a_loop(200))
    logs.flush()
