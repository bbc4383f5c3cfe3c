"""A span of every call, for OpenTelemetry: optional, with the extra ``codeset-engine[traces]``.

The span continues the trace that the caller's W3C ``traceparent`` names, by the conventions for RPC servers
(https://opentelemetry.io/docs/specs/semconv/rpc/grpc/). It has nothing of a claim: method, status, number of items,
releases, the caller's token by name. Everything else (sampling, resource attributes, batching) is set as OpenTelemetry
has it, by OTEL_* variables.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import grpc

from .._calls import CALLER
from ..errors import InvalidFieldError
from ..rpc import TRACE_CONTEXT

if TYPE_CHECKING:
    from .._calls import Facts, MethodName

__all__ = ["Tracer"]

_SERVICE_NAME: Final = "codeset-engine"
_NUMBERS: Final = {status.name: status.value[0] for status in grpc.StatusCode}
_OURS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Statuses that make a server's span an error, by the conventions. Others are the caller's."""


class Tracer:
    """Makes a span of every call that ended, and sends it to the collector at ``endpoint``.

    Raises InvalidFieldError if OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise InvalidFieldError(
                "traces_endpoint: traces need OpenTelemetry, which is not installed: pip install "
                "'codeset-engine[traces]'",
                field="traces_endpoint",
            ) from None
        resource = Resource.create()
        if not os.environ.get("OTEL_SERVICE_NAME"):
            resource = resource.merge(Resource({SERVICE_NAME: _SERVICE_NAME}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        # http:// or nothing: without TLS, as a collector beside the server is spoken to.
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https://"))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("engine.server")
        self._parent = TraceContextTextMapPropagator().extract
        self._kind = trace.SpanKind.SERVER
        self._error = trace.Status(trace.StatusCode.ERROR)

    def call(
        self,
        name: MethodName,
        outcome: tuple[str, str],
        facts: Facts,
        seconds: float,
        metadata: Iterable[tuple[str, Any]],
    ) -> None:
        """Make the span of a call that ended now. ``outcome``: its status and, if it failed, the reason."""
        ended = time.time_ns()
        status, reason = outcome
        parent = self._parent({key: value for key, value in metadata if key in TRACE_CONTEXT})
        attributes: dict[str, Any] = {
            "rpc.system": "grpc",
            "rpc.service": name.service,
            "rpc.method": name.method,
            "rpc.grpc.status_code": _NUMBERS[status],
            "codeset.items": facts.items,
        }
        if reason:
            attributes["error.type"] = reason
        if facts.errors:
            attributes["codeset.item_errors"] = facts.errors
        if facts.releases:
            attributes["codeset.releases"] = facts.releases.split(",")
        caller = CALLER.get()
        if caller:
            attributes["codeset.caller"] = caller
        span = self._tracer.start_span(
            f"{name.service}/{name.method}",
            context=parent,
            kind=self._kind,
            attributes=attributes,
            start_time=ended - round(seconds * 1e9),
        )
        if status in _OURS:
            span.set_status(self._error)
        span.end(ended)

    def stop(self) -> None:
        """Send what is left, and no more."""
        self._provider.shutdown()
