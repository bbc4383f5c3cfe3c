"""What orchestrators and generic clients ask a server."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from server_harness import running

from engine import rpc
from engine.client import Client

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_of_every_service(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", *rpc.SERVICES):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == SERVING, service
        try:
            stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=10)
        except grpc.RpcError as failed:
            error: Any = failed
            assert error.code() is grpc.StatusCode.NOT_FOUND
        else:
            raise AssertionError("a service that is not there has a health")


def test_a_watcher_is_told_of_the_end_and_does_not_hold_it_up() -> None:
    seen: list[int] = []
    with running(grace=20.0) as address:
        channel = grpc.insecure_channel(address)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        started = threading.Event()

        def watch() -> None:
            try:
                for answer in stub.Watch(health_pb2.HealthCheckRequest(service=rpc.GROUPING), timeout=30):
                    seen.append(answer.status)
                    started.set()
            except grpc.RpcError:
                started.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert started.wait(10)
        ending = time.monotonic()
    assert time.monotonic() - ending < 10
    watcher.join(10)
    channel.close()
    assert seen == [SERVING, NOT_SERVING]


def ask(stub: Any, **request: Any) -> Any:
    (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=10)
    return answer


def test_reflection_gives_the_whole_api(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        listed = {s.name for s in ask(stub, list_services="").list_services_response.service}
        assert listed == {
            *rpc.SERVICES,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        for service in rpc.SERVICES:
            answer = ask(stub, file_containing_symbol=service)
            files = [
                descriptor_pb2.FileDescriptorProto.FromString(raw)
                for raw in answer.file_descriptor_response.file_descriptor_proto
            ]
            assert files[0].name.startswith("codeset/v1/")
            assert files[0].package == "codeset.v1"
            methods = {m.name for s in files[0].service for m in s.method}
            assert methods == {method.name for method in rpc.methods(service)}


def test_reflection_can_be_off() -> None:
    with running(reflection=False) as address:
        with grpc.insecure_channel(address) as channel:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            try:
                ask(stub, list_services="")
            except grpc.RpcError as failed:
                error: Any = failed
                assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            else:
                raise AssertionError("reflection answers")
        with Client(address) as client:
            assert client.validate("icd10cm", "A000").valid
