"""What both clients are made of: their options, and the methods of their connections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

import grpc
from google.protobuf.message import Message

from ..errors import InvalidFieldError, ServiceUnavailableError
from ..rpc import SERVICES, methods
from ._batches import Limits
from ._channel import (
    BATCH_TIMEOUT,
    CHUNK_BYTES,
    CHUNK_ITEMS,
    DEFAULT_TARGET,
    TIMEOUT,
    Pem,
    call_metadata,
    channel_credentials,
    options,
)

__all__ = ["ONE_SERVERS_OWN", "STREAM", "BaseClient", "method_turns"]

STREAM = "StreamGroupDrg"

ONE_SERVERS_OWN = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)
"""Failures that another server need not have: of two calls for the same, the other may be answered."""


class BaseClient(ABC):
    """Options that both clients take; see ``Client``."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = TIMEOUT,
        batch_timeout: float = BATCH_TIMEOUT,
        tls: bool = False,
        root_certificates: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        attempts: int = 4,
        hedge_after: float | None = None,
        connections: int = 1,
        chunk_items: int = CHUNK_ITEMS,
        chunk_bytes: int = CHUNK_BYTES,
        in_flight: int | None = None,
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        if connections < 1:
            raise InvalidFieldError(f"connections: expected 1 or more, got {connections}", field="connections")
        if hedge_after is not None and not hedge_after > 0:
            raise InvalidFieldError(
                f"hedge_after: expected seconds, more than 0, or None, got {hedge_after}", field="hedge_after"
            )
        self.target = target
        self.timeout = timeout
        self.batch_timeout = batch_timeout
        self._credentials = channel_credentials(credentials, tls, root_certificates, client_certificate, client_key)
        self._metadata = call_metadata(metadata, token, target, self._credentials is not None)
        self._limits = Limits(max(1, chunk_items), max(1, chunk_bytes))
        # While one is encoded or decoded here, the servers have the others; with fewer they run out of work.
        self._in_flight = max(1, connections + 3 if in_flight is None else in_flight)
        self._attempts = attempts
        self._hedge_after = hedge_after
        self._connections = connections
        # Channels with equal options would otherwise share one connection.
        own = [("grpc.use_local_subchannel_pool", 1)] if connections > 1 else []
        self._options = options(attempts, [*own, *channel_options])
        self._start()

    @abstractmethod
    def _start(self) -> None:
        """Make what is there before the first call."""

    def _unreachable(self, timeout: float) -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"no server could be reached at {self.target} within {timeout:g} s. Is it running there "
            "(`codeset-engine serve`), and is the address right?"
        )


def method_turns(channels: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Return the methods of channels by name, those of one channel after those of the other, for ever."""
    return cycle([_methods(channel) for channel in channels])


def _methods(channel: Any) -> dict[str, Any]:
    made = {}
    for service in SERVICES:
        for method in methods(service):
            kind = channel.stream_stream if method.streaming else channel.unary_unary
            # Responses with many answers are read by whoever wants them, in one form or another.
            raw = method.streaming or method.name.startswith("Batch")
            made[method.name] = kind(
                method.path,
                request_serializer=_serialized,
                response_deserializer=None if raw else method.response.FromString,
            )
    return made


def _serialized(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()
