"""StreamGroupDrg: batches both ways over one call, in order, and never more of them than a reader asks for."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from server_harness import process, running

import engine
from engine import errors
from engine._pb.codeset.v1 import grouping_pb2
from engine.client import AsyncClient, Client, raise_for_error

PATH = "/codeset.v1.GroupingService/StreamGroupDrg"
Request = grouping_pb2.StreamGroupDrgRequest
Response = grouping_pb2.StreamGroupDrgResponse
CLAIM = {"version": "43.1", "diagnoses": ["A000", "A001"], "procedures": ["0DB68ZX"]}


def numbered(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{**CLAIM, "claim_id": str(i), **more} for i in range(count)]


@pytest.fixture(params=["blocking", "asyncio"])
def stream(request: pytest.FixtureRequest) -> Callable[..., list[Any]]:
    """Stream with either client: ``stream(address, claims, client={…}, options=…)``."""

    def blocking(address: str, claims: Any, client: Any = None, **keywords: Any) -> list[Any]:
        with Client(address, **(client or {})) as connected:
            return list(connected.stream_drg(claims, **keywords))

    async def awaited(address: str, claims: Any, client: Any = None, **keywords: Any) -> list[Any]:
        async with AsyncClient(address, **(client or {})) as connected:
            return [result async for result in connected.stream_drg(claims, **keywords)]

    def asynchronous(*arguments: Any, **keywords: Any) -> list[Any]:
        return asyncio.run(awaited(*arguments, **keywords))

    return blocking if request.param == "blocking" else asynchronous


def test_answers_come_in_order(stream: Callable[..., Any], address: str) -> None:
    claims = numbered(2500)
    claims[7]["poa"] = "Y"
    claims[1300]["sex"] = "?"
    results = stream(address, claims, client={"chunk_items": 100}, options={"detail": "DRG"})
    assert [result.claim_id for result in results] == [str(i) for i in range(2500)]
    assert [i for i, result in enumerate(results) if result.HasField("error")] == [7, 1300]
    assert results[0].final_grouping.drg == 395
    assert not results[0].diagnoses


def test_nothing_to_send(stream: Callable[..., Any], address: str) -> None:
    assert stream(address, []) == []


def test_a_stream_is_one_call_in_the_log(
    stream: Callable[..., Any], address: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="engine.server"):
        stream(address, numbered(250), client={"chunk_items": 100, "metadata": [("x-request-id", "this-one")]})

        def lines() -> list[Any]:
            calls = [vars(r)["fields"] for r in caplog.records if r.getMessage() == "call"]
            # A stream of another test may end only now.
            return [call for call in calls if call["request_id"] == "this-one"]

        deadline = time.monotonic() + 10
        while not lines() and time.monotonic() < deadline:
            time.sleep(0.01)
    (record,) = lines()
    assert (record["method"], record["items"], record["release"]) == ("StreamGroupDrg", 250, "msdrg/43.1")


def test_batches_that_are_too_large_go_in_pieces(stream: Callable[..., Any]) -> None:
    claims = numbered(250)
    claims[3]["sex"] = "?"
    with running(max_items=30) as address:
        results = stream(address, claims)
    assert [result.claim_id for result in results] == [str(i) for i in range(250)]
    with running(max_message_bytes=4096) as address:
        claims[9]["claim_id"] = "x" * 5000
        results = stream(address, claims[:40])
    assert [i for i, result in enumerate(results) if result.error.code == "MESSAGE_TOO_LARGE"] == [9]


def test_wrong_options_end_it(stream: Callable[..., Any], address: str) -> None:
    with pytest.raises(errors.InvalidFieldError, match="detail"):
        stream(address, numbered(3), options={"detail": 9})


def test_a_source_that_fails(stream: Callable[..., Any], address: str) -> None:
    def claims() -> Iterator[Any]:
        yield from numbered(30)
        raise KeyError("the file ends here")

    with pytest.raises(KeyError):
        stream(address, claims(), client={"chunk_items": 10})


def test_no_server(stream: Callable[..., Any]) -> None:
    with pytest.raises(errors.ServiceUnavailableError):
        stream("127.0.0.1:1", numbered(1), client={"attempts": 2})


def test_answers_before_a_bad_request_are_given(address: str) -> None:
    good = Request(claims=[grouping_pb2.InpatientClaim(**CLAIM)]).SerializeToString()
    with grpc.insecure_channel(address) as channel:
        answers = channel.stream_stream(PATH)(iter([good, good, b"\x0a\x05"]), timeout=30)
        assert len(Response.FromString(next(answers)).results) == 1
        assert len(Response.FromString(next(answers)).results) == 1
        with pytest.raises(grpc.RpcError) as raised:
            next(answers)
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_reader_who_stops_is_not_worked_for(address: str) -> None:
    """Of what is sent, only what the connection holds is read, and answered."""
    batch = Request(claims=[grouping_pb2.InpatientClaim(**CLAIM, claim_id="x" * 1000)] * 1000).SerializeToString()
    sent = 0

    def requests() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield batch

    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        answers = channel.stream_stream(PATH)(requests(), timeout=60)
        next(answers)
        before = peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        last, since = sent, time.monotonic()
        while time.monotonic() - since < 1.5:
            time.sleep(0.05)
            if sent != last:
                last, since = sent, time.monotonic()
            assert sent < 200, "the server reads on though nobody reads its answers"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Client and server are both in this process; 200 batches would be 200 MB and more.
        assert peak - before < 120_000
        next(answers)
        answers.cancel()


def test_results_are_asked_for_as_they_are_taken(address: str) -> None:
    taken = 0

    def claims() -> Iterator[Any]:
        nonlocal taken
        for claim in numbered(100_000):
            taken += 1
            yield claim

    with Client(address, chunk_items=10, in_flight=3) as client:
        results = client.stream_drg(claims())
        for _ in range(25):
            next(results)
        assert taken <= 60
        results.close()  # type: ignore[attr-defined]


def test_a_stream_is_among_the_limited_calls() -> None:
    with running(max_concurrent=1) as address, Client(address) as client:
        results = client.stream_drg(numbered(5), timeout=20)
        next(results)
        with pytest.raises(errors.TooManyRequestsError):
            client.validate("icd10cm", "A000")
        list(results)


def test_a_server_that_ends_closes_streams_at_once(stream: Callable[..., Any]) -> None:
    """The client goes on with another server at the address, and nothing is lost or answered twice."""
    with process() as (server, address):
        port = int(address.rpartition(":")[2])
        found: list[Any] = []
        stopped = threading.Event()

        def claims() -> Iterator[Any]:
            for i, claim in enumerate(numbered(200)):
                if i == 100:
                    server.send_signal(signal.SIGTERM)
                    assert server.wait(20) == 0
                    stopped.set()
                    restarted.append(context.__enter__())
                yield claim

        context = process(port=port)
        restarted: list[Any] = []
        try:
            found = stream(address, claims(), client={"chunk_items": 10, "attempts": 5})
        finally:
            if restarted:
                context.__exit__(None, None, None)
    assert stopped.is_set()
    assert [result.claim_id for result in found] == [str(i) for i in range(200)]


def test_real_answers(stream: Callable[..., Any], store: Any, sample: Any, without_prefix: Any) -> None:
    from wire_check import outcome

    from engine.server import ServerConfig
    from engine.server.services import Services

    services = Services(engine.open(store), ServerConfig())
    raw = Request(claims=[grouping_pb2.InpatientClaim(**claim) for claim in sample.claims[:50]]).SerializeToString()
    fast, _ = outcome(lambda facts: services.from_bytes()["StreamGroupDrg"](raw, facts))
    slow, _ = outcome(lambda facts: services.stream_group_drg(Request.FromString(raw), facts).SerializeToString())
    assert fast == slow
    for result in Response.FromString(fast).results:
        raise_for_error(result)


def test_the_messages_of_the_stream_are_those_of_the_batch() -> None:
    for ours, theirs in ((Request, grouping_pb2.BatchGroupDrgRequest), (Response, grouping_pb2.BatchGroupDrgResponse)):
        assert [(f.number, f.name, f.type, f.message_type) for f in ours.DESCRIPTOR.fields] == [
            (f.number, f.name, f.type, f.message_type) for f in theirs.DESCRIPTOR.fields
        ]


def test_texts_of_a_claim_are_those_the_wire_checks() -> None:
    """A text the core did not know would not be checked to be UTF-8."""
    texts = {f.number for f in grouping_pb2.InpatientClaim.DESCRIPTOR.fields if f.type == f.TYPE_STRING}
    assert texts == {1, 2, 9, 10, 11, 12}
