"""Handlers of the core: what they answer at once and what they leave, and what is counted."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
from bisect import bisect_left
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine._calls import METADATA, Book, Facts, Figures, Finder, Handler, MethodName
from engine.client import Client
from engine.rpc import REQUEST_ID

NAME = MethodName("a.Service", "Method")
SECONDS = (0.001, 0.01, 1.0)
ITEMS = (1, 10)


class Left:
    """What a handler leaves to be answered otherwise."""

    def __init__(self) -> None:
        self.errors: list[Exception | None] = []

    def __call__(self, raw: bytes, context: Any, started: float, facts: Facts, error: Exception | None) -> Any:
        self.errors.append(error)
        assert (facts.items, started > 0) == (1, True)

        async def answer() -> bytes:
            return b"otherwise " + raw

        return answer()


def book(most: int = 1) -> Book:
    made = Book(most, lambda: (None, lambda _: None), 1.0)
    made.figures = Figures(SECONDS, ITEMS)
    return made


def ask(handler: Handler, raw: bytes) -> bytes:
    async def run() -> bytes:
        return await handler(raw, None)

    return asyncio.run(run())


def test_a_short_request_is_answered_at_once() -> None:
    calls, left = book(), Left()
    handler = Handler(calls, NAME, lambda raw, _: raw * 2, 3, left)
    answered = handler(b"abc", None)
    assert not inspect.iscoroutine(answered)
    assert ask(handler, b"abc") == b"abcabc"
    assert left.errors == []
    assert calls.figures is not None
    (counted,) = calls.figures.take().values()
    assert (counted.calls, counted.received, counted.sent) == (2, 6, 12)


def test_what_is_long_or_left_or_refused_or_too_much_is_answered_otherwise() -> None:
    calls, left, error = book(), Left(), ValueError("no")

    def refuse(raw: bytes, facts: Facts) -> bytes:
        raise error

    never = Handler(calls, NAME, None, 3, left)
    long = Handler(calls, NAME, lambda raw, _: raw, 2, left)
    leaving = Handler(calls, NAME, lambda raw, _: None, 3, left)
    for handler in (never, long, leaving, Handler(calls, NAME, refuse, 3, left)):
        assert ask(handler, b"abc") == b"otherwise abc"
    calls.active = 1
    assert ask(Handler(calls, NAME, lambda raw, _: raw, 3, left), b"abc") == b"otherwise abc"
    assert left.errors == [None, None, None, error, None]
    assert calls.figures is not None
    assert calls.figures.take() == {}


def test_a_handler_is_no_function_to_run_in_a_thread() -> None:
    """gRPC asks this, and would run what is not awaitable in a thread of its own."""
    handler = Handler(book(), NAME, None, 3, Left())
    assert inspect.isawaitable(handler)
    with pytest.raises(TypeError, match="called"):
        handler.__await__()


def test_metadata_is_kept_where_there_is_something_to_read() -> None:
    finder = Finder({"/a/B": "handler"})

    def find(path: str, *metadata: tuple[str, str]) -> tuple[Any, Any]:
        details = SimpleNamespace(method=path, invocation_metadata=metadata)
        return finder.service(details), METADATA.get()

    def found(*arguments: Any) -> tuple[Any, Any]:
        return contextvars.copy_context().run(find, *arguments)

    assert found("/a/B") == ("handler", ())
    assert found("/a/C", ("user-agent", "x")) == (None, ())
    for key in (REQUEST_ID, "traceparent", "tracestate"):
        metadata = (("user-agent", "x"), (key, "1"))
        assert found("/a/B", *metadata) == ("handler", metadata)


@given(
    calls=st.lists(
        st.tuples(st.sampled_from(["OK", "INTERNAL"]), st.floats(0, 2), st.integers(0, 20), st.integers(0, 9)),
        max_size=30,
    )
)
def test_calls_are_counted_by_bounds(calls: list[tuple[str, float, int, int]]) -> None:
    begun: list[int] = []
    figures = Figures(SECONDS, ITEMS, lambda: begun.append(1))
    for status, seconds, items, size in calls:
        facts = Facts()
        facts.items, facts.errors = items, items // 2
        figures.add(NAME, (status, ""), facts, seconds, size, 2 * size)
    counted = figures.take()
    assert (len(begun), figures.take()) == (bool(calls), {})
    assert set(counted) == {("a.Service", "Method", (status, "")) for status, *_ in calls}
    for (_, _, (status, _)), of in counted.items():
        own = [(seconds, items, size) for found, seconds, items, size in calls if found == status]
        well = own if status == "OK" else []
        assert (of.calls, of.received) == (len(own), sum(size for *_, size in own))
        assert of.seconds == pytest.approx(sum(seconds for seconds, *_ in own))
        assert of.items == sum(items for _, items, _ in well)
        assert of.errors == sum(items // 2 for _, items, _ in well)
        assert of.sent == sum(2 * size for *_, size in well)
        for bounds, values, counts in (
            (SECONDS, [seconds for seconds, *_ in own], of.by_seconds),
            (ITEMS, [items for _, items, _ in well], of.by_items),
        ):
            wanted = [0] * (len(bounds) + 1)
            for value in values:
                wanted[bisect_left(bounds, value)] += 1
            assert counts == wanted


def test_bounds_are_limited() -> None:
    with pytest.raises(ValueError, match="24 bounds"):
        Figures(tuple(range(25)), ITEMS)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_client_leaves_the_collector_as_it_was(client: Client, enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        assert len(client.validate_many("icd10cm", ["A000"] * 10)) == 10
        assert len(list(client.iter_validations_dicts("icd10cm", ["A000"] * 10))) == 10
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
