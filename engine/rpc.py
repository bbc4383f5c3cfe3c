"""What the server and the client agree on beside the messages: names, limits, and how an error travels.

An error of ``engine.errors`` travels as a gRPC status with one ``google.rpc.ErrorInfo``: ``reason`` is
the error's stable code, ``domain`` is ``DOMAIN``, and the metadata may name the ``field`` at fault and
the ``limit`` exceeded.

Needs grpcio and protobuf only: the client imports this module, and never NumPy or the core.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from ._pb.codeset.v1 import catalog_pb2, grouping_pb2, terminology_pb2

__all__ = [
    "CATALOG",
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "DOMAIN",
    "GROUPING",
    "MAX_ITEMS",
    "MAX_MESSAGE_BYTES",
    "METADATA_READ",
    "REQUEST_ID",
    "SERVICES",
    "STATUS_DETAILS",
    "TERMINOLOGY",
    "TRACE_CONTEXT",
    "Method",
    "methods",
    "status_of",
]

DOMAIN: Final = "codeset.v1"
"""``google.rpc.ErrorInfo.domain`` of every error."""

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 50051

MAX_ITEMS: Final = 10_000
"""Items in one batch request, unless the server is configured otherwise."""

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of one request message, unless the server is configured otherwise."""

REQUEST_ID: Final = "x-request-id"
"""Metadata key: the caller's id for a call, or the one the server made up; it comes back and is in the
log.
"""

TRACE_CONTEXT: Final = ("traceparent", "tracestate")
"""Metadata keys: the trace that a call belongs to, by W3C Trace Context."""

METADATA_READ: Final = frozenset({REQUEST_ID, *TRACE_CONTEXT})
"""What answering a call reads of its metadata."""

STATUS_DETAILS: Final = "grpc-status-details-bin"
"""Trailing metadata key of the serialised ``google.rpc.Status``, as gRPC defines it."""


class Method(NamedTuple):
    """One method of a service, from its descriptor. ``streaming``: requests and responses come as streams."""

    service: str
    name: str
    request: type[Message]
    response: type[Message]
    streaming: bool = False

    @property
    def path(self) -> str:
        """``/codeset.v1.GroupingService/GroupDrg``."""
        return f"/{self.service}/{self.name}"


def methods(service: str) -> list[Method]:
    """Return the methods of ``service`` (full name), in the order of the proto."""
    return [
        Method(
            service,
            method.name,
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
            method.client_streaming and method.server_streaming,
        )
        for method in _DESCRIPTORS[service].methods
    ]


def _service(file: FileDescriptor, name: str) -> ServiceDescriptor:
    return file.services_by_name[name]


_DESCRIPTORS: Final = {
    str(descriptor.full_name): descriptor
    for descriptor in (
        _service(terminology_pb2.DESCRIPTOR, "TerminologyService"),
        _service(grouping_pb2.DESCRIPTOR, "GroupingService"),
        _service(catalog_pb2.DESCRIPTOR, "CatalogService"),
    )
}

TERMINOLOGY, GROUPING, CATALOG = SERVICES = tuple(_DESCRIPTORS)
"""Full names of the services, as health and reflection know them."""

_STATUS: Final = {
    "ADDRESS_UNAVAILABLE": grpc.StatusCode.INTERNAL,
    "BATCH_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DATE_OUTSIDE_COVERAGE": grpc.StatusCode.OUT_OF_RANGE,
    "DEADLINE_EXCEEDED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "GROUPING_FAILED": grpc.StatusCode.INVALID_ARGUMENT,
    "INTERNAL_ERROR": grpc.StatusCode.INTERNAL,
    "INVALID_DATE": grpc.StatusCode.INVALID_ARGUMENT,
    "INVALID_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "MALFORMED_MESSAGE": grpc.StatusCode.INVALID_ARGUMENT,
    "MESSAGE_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "MISSING_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "PACK_CORRUPT": grpc.StatusCode.DATA_LOSS,
    "PACK_EXISTS": grpc.StatusCode.INTERNAL,
    "PACK_INCOMPATIBLE": grpc.StatusCode.FAILED_PRECONDITION,
    "PACK_NOT_FOUND": grpc.StatusCode.FAILED_PRECONDITION,
    "PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "POA_LENGTH_MISMATCH": grpc.StatusCode.INVALID_ARGUMENT,
    "RPC_FAILED": grpc.StatusCode.INTERNAL,
    "SERVICE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "SOURCE_DIGEST_MISMATCH": grpc.StatusCode.INTERNAL,
    "SOURCE_FORMAT": grpc.StatusCode.INTERNAL,
    "SOURCE_UNAVAILABLE": grpc.StatusCode.INTERNAL,
    "TOO_MANY_REQUESTS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "UNKNOWN_CODE": grpc.StatusCode.NOT_FOUND,
    "UNKNOWN_RELEASE": grpc.StatusCode.NOT_FOUND,
    "UNKNOWN_SYSTEM": grpc.StatusCode.NOT_FOUND,
    "UNKNOWN_MODEL": grpc.StatusCode.NOT_FOUND,
    "UNKNOWN_VERSION": grpc.StatusCode.NOT_FOUND,
}


def status_of(code: str) -> grpc.StatusCode:
    """Return the gRPC status that an error with the stable ``code`` travels as; INTERNAL if it has none."""
    return _STATUS.get(code, grpc.StatusCode.INTERNAL)
