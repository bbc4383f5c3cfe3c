"""Spans of calls, as a collector gets them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from server_harness import running

from engine import errors
from engine.client import Client

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLAIM = {"claim_id": "a secret", "version": "43.1", "diagnoses": ["A000"]}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.endpoint = ""

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for of in request.resource_spans
            for in_ in of.scope_spans
            for span in in_.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)
    found.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield found
    server.stop(None).wait()


def attributes(span: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        return [plain(item) for item in value.array_value.values] if kind == "array_value" else getattr(value, kind)

    return {pair.key: plain(pair.value) for pair in span.attributes}


def test_every_call_is_a_span_of_the_callers_trace(collector: Collector) -> None:
    with running(traces_endpoint=collector.endpoint) as address:
        metadata = [("traceparent", f"00-{TRACE}-{SPAN}-01")]
        with Client(address, metadata=metadata) as client:
            client.group_drg(CLAIM)
            client.group_drg_many([CLAIM, {**CLAIM, "version": "none"}])
            with pytest.raises(errors.UnknownCodeError):
                client.lookup("icd10cm", "NOSUCH")
        with Client(address) as client:
            client.validate("icd10cm", "A000")
    one, batch, failed, alone = collector.spans()
    assert {span.trace_id.hex() for span in (one, batch, failed)} == {TRACE}
    assert {span.parent_span_id.hex() for span in (one, batch, failed)} == {SPAN}
    assert alone.trace_id.hex() != TRACE
    assert not alone.parent_span_id
    assert one.name == "codeset.v1.GroupingService/GroupDrg"
    assert one.kind == one.SPAN_KIND_SERVER
    assert 0 < one.end_time_unix_nano - one.start_time_unix_nano < 10e9
    assert abs(one.end_time_unix_nano - time.time_ns()) < 60e9
    assert attributes(one) == {
        "rpc.system": "grpc",
        "rpc.service": "codeset.v1.GroupingService",
        "rpc.method": "GroupDrg",
        "rpc.grpc.status_code": 0,
        "codeset.items": 1,
        "codeset.releases": ["msdrg/43.1"],
    }
    assert attributes(batch)["codeset.items"] == 2
    assert attributes(batch)["codeset.item_errors"] == 1
    assert attributes(failed)["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert attributes(failed)["error.type"] == "UNKNOWN_CODE"
    # The caller's mistake is no error of the server.
    assert failed.status.code == failed.status.STATUS_CODE_UNSET
    (resource,) = {
        pair.value.string_value
        for request in collector.requests
        for of in request.resource_spans
        for pair in of.resource.attributes
        if pair.key == "service.name"
    }
    assert resource == "codeset-engine"
    assert b"secret" not in b"".join(request.SerializeToString() for request in collector.requests)


def test_the_servers_own_failure_is_an_error(collector: Collector) -> None:
    with (
        running(traces_endpoint=collector.endpoint) as address,
        Client(address) as client,
        pytest.raises(errors.InternalError),
    ):
        client.validate("icd10cm", "BOOM")
    (span,) = collector.spans()
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "INTERNAL_ERROR"


def test_what_the_caller_does_not_sample_is_not_sent(collector: Collector) -> None:
    metadata = [("traceparent", f"00-{TRACE}-{SPAN}-00")]
    with running(traces_endpoint=collector.endpoint) as address, Client(address, metadata=metadata) as client:
        client.group_drg(CLAIM)
    assert collector.spans() == []


def test_a_collector_that_is_not_there_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    started = time.monotonic()
    with running(traces_endpoint="http://127.0.0.1:1") as address, Client(address) as client:
        for _ in range(20):
            client.group_drg(CLAIM)
    assert time.monotonic() - started < 20


def test_without_opentelemetry_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with (
        pytest.raises(errors.InvalidFieldError, match=r"codeset-engine\[traces\]"),
        running(traces_endpoint="http://x"),
    ):
        pass
