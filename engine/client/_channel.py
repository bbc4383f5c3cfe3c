"""Options of the client's channel, alike for both clients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from ..rpc import DEFAULT_HOST, DEFAULT_PORT

__all__ = [
    "BATCH_TIMEOUT",
    "CHUNK_BYTES",
    "CHUNK_ITEMS",
    "DEFAULT_TARGET",
    "IN_FLIGHT",
    "TIMEOUT",
    "options",
]

DEFAULT_TARGET: Final = f"{DEFAULT_HOST}:{DEFAULT_PORT}"

TIMEOUT: Final = 10.0
"""Seconds for a call, retries included."""

BATCH_TIMEOUT: Final = 60.0
"""Seconds for one request of a batch, retries included."""

CHUNK_ITEMS: Final = 5_000
CHUNK_BYTES: Final = 4 * 1024 * 1024

IN_FLIGHT: Final = 2
"""Requests of a batch under way at once: one is encoded or decoded here while the server works on the
other.
"""


def options(attempts: int, more: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the options of a channel that tries a call up to ``attempts`` times while the server is
    UNAVAILABLE.

    All methods only read, so trying again is safe. Nothing else is retried: other errors would come again.
    """
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    method: dict[str, Any] = {"name": [{}]}
    if attempts > 1:
        method["retryPolicy"] = policy
    config = {"methodConfig": [method]}
    return [
        ("grpc.service_config", json.dumps(config)),
        # gRPC does not retry a request that does not fit in here, and the default is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", 64 * 1024 * 1024),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        *more,
    ]
