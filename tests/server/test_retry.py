"""The clients against a server that fails by the book: what is tried again, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from engine import errors, rpc
from engine._pb.codeset.v1 import catalog_pb2, grouping_pb2
from engine.client import AsyncClient, Client

Call = Callable[..., Any]


@contextmanager
def scripted(*statuses: grpc.StatusCode) -> Iterator[tuple[str, list[str]]]:
    """Run a server that fails calls with ``statuses``, one after the other, and then answers; yield
    address and calls.
    """
    left = list(statuses)
    calls: list[str] = []

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            name = details.method.rpartition("/")[2]

            def answer(raw: bytes, context: grpc.ServicerContext) -> bytes:
                calls.append(name)
                if left:
                    context.abort(left.pop(0), "by the book")
                if name == "BatchGroupDrg":
                    request = grouping_pb2.BatchGroupDrgRequest.FromString(raw)
                    return grouping_pb2.BatchGroupDrgResponse(
                        results=[grouping_pb2.DrgResult(claim_id=c.claim_id) for c in request.claims]
                    ).SerializeToString()
                return catalog_pb2.ListReleasesResponse().SerializeToString()

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", calls
    finally:
        server.stop(0).wait()


def test_unavailable_is_tried_again(call: Call) -> None:
    with scripted(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE) as (target, calls):
        assert call("releases", target=target) == []
    assert calls == ["ListReleases"] * 3


def test_not_for_ever(call: Call) -> None:
    with (
        scripted(*[grpc.StatusCode.UNAVAILABLE] * 9) as (target, calls),
        pytest.raises(errors.ServiceUnavailableError, match="by the book"),
    ):
        call("releases", target=target)
    assert len(calls) == 4


def test_what_a_server_that_ends_cut_off_is_tried_again(call: Call) -> None:
    with scripted(grpc.StatusCode.CANCELLED) as (target, calls):
        call("releases", target=target)
    assert len(calls) == 2


def test_once_if_told_so(call: Call) -> None:
    with (
        scripted(grpc.StatusCode.UNAVAILABLE) as (target, calls),
        pytest.raises(errors.ServiceUnavailableError),
    ):
        call("releases", target=target, client={"attempts": 1})
    assert len(calls) == 1


@pytest.mark.parametrize(
    "status",
    [
        status
        for status in grpc.StatusCode
        if status not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    ],
)
def test_nothing_else_is_tried_again(call: Call, status: grpc.StatusCode) -> None:
    with (
        scripted(status) as (target, calls),
        pytest.raises(errors.CodesetError) as raised,
    ):
        call("releases", target=target)
    assert len(calls) == 1
    expected: type[errors.CodesetError] = errors.RpcFailedError
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        expected = errors.DeadlineExceededError
    assert type(raised.value) is expected
    assert target in str(raised.value)


def test_a_large_request_is_tried_again_too(call: Call) -> None:
    claims = [{"claim_id": f"{i:0100d}"} for i in range(20_000)]
    with scripted(grpc.StatusCode.UNAVAILABLE) as (target, calls):
        results = call("group_drg_many", claims, target=target, client={"chunk_items": 20_000})
    assert len(calls) == 2
    assert [r.claim_id for r in results] == [c["claim_id"] for c in claims]


def test_no_server_at_all(call: Call) -> None:
    with scripted() as (target, _):
        pass
    with pytest.raises(errors.ServiceUnavailableError, match=target):
        call("releases", target=target, timeout=5)
    with pytest.raises(errors.ServiceUnavailableError, match=target):
        call("wait_until_ready", 0.2, target=target)


def test_a_server_of_another_kind(call: Call) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(errors.RpcFailedError, match="does not have this method"):
            call("releases", target=f"127.0.0.1:{port}")
    finally:
        server.stop(0).wait()


def test_long_input_is_taken_as_it_is_needed() -> None:
    taken = 0

    def claims() -> Iterator[dict[str, str]]:
        nonlocal taken
        for i in range(1_000_000):
            taken += 1
            yield {"claim_id": str(i)}

    with scripted() as (target, calls), Client(target, chunk_items=100, in_flight=3) as client:
        results = client.iter_drg(claims())
        assert [next(results).claim_id for _ in range(250)] == [str(i) for i in range(250)]
        results.close()  # type: ignore[attr-defined]
    assert taken <= 600
    assert len(calls) <= 6


def test_an_asynchronous_iterable_is_taken_too() -> None:
    async def main() -> list[str]:
        async def claims() -> Any:
            for i in range(1050):
                await asyncio.sleep(0)
                yield {"claim_id": str(i)}

        async with AsyncClient(target, chunk_items=100) as client:
            return [result.claim_id async for result in client.iter_drg(claims())]

    with scripted() as (target, calls):
        assert asyncio.run(main()) == [str(i) for i in range(1050)]
    assert len(calls) == 11


def test_chunks_stay_below_the_bytes_given() -> None:
    claims = [{"claim_id": "x" * 1000} for _ in range(100)]
    with scripted() as (target, calls), Client(target, chunk_bytes=10_000) as client:
        assert len(client.group_drg_many(claims)) == 100
    assert len(calls) == 10


def test_a_batch_that_fails_fails(call: Call) -> None:
    claims = [{"claim_id": str(i)} for i in range(100)]
    with (
        scripted(grpc.StatusCode.INTERNAL) as (target, _),
        pytest.raises(errors.RpcFailedError, match="BatchGroupDrg"),
    ):
        call("group_drg_many", claims, target=target, client={"chunk_items": 10})


def test_an_empty_batch_sends_nothing(call: Call) -> None:
    with scripted() as (target, calls):
        assert call("group_drg_many", [], target=target) == []
        assert call("validate_many", "icd10cm", [], target=target) == []
    assert calls == []


@pytest.mark.parametrize("claims", ["A000", b"A000", {"claim_id": "1"}])
def test_one_thing_where_many_are_expected(call: Call, claims: Any) -> None:
    with pytest.raises(errors.InvalidFieldError, match="iterable"):
        call("group_drg_many", claims)
    with pytest.raises(errors.InvalidFieldError, match="iterable"):
        call("validate_many", "icd10cm", claims)


def test_every_method_of_the_api_has_a_client_method() -> None:
    methods = {method.name for service in rpc.SERVICES for method in rpc.methods(service)}
    client_methods = {
        "Lookup": "lookup",
        "ValidateCode": "validate",
        "BatchValidateCodes": "validate_many",
        "Subsumes": "subsumes",
        "Expand": "descendants",
        "GroupDrg": "group_drg",
        "BatchGroupDrg": "group_drg_many",
        "ExplainDrg": "explain_drg",
        "StreamGroupDrg": "stream_drg",
        "EditClaim": "edit_claim",
        "BatchEditClaims": "edit_claims_many",
        "ListEdits": "edits",
        "ScoreHcc": "score_hcc",
        "BatchScoreHcc": "score_hcc_many",
        "ListReleases": "releases",
        "GetRelease": "release",
    }
    assert methods == set(client_methods)
    for name in client_methods.values():
        assert callable(getattr(Client, name))
        assert callable(getattr(AsyncClient, name))
