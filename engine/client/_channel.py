"""Options of the client's channel, alike for both clients."""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from ..errors import InvalidFieldError
from ..rpc import DEFAULT_HOST, DEFAULT_PORT, REQUEST_ID

__all__ = [
    "BATCH_TIMEOUT",
    "CHUNK_BYTES",
    "CHUNK_ITEMS",
    "DEFAULT_TARGET",
    "TIMEOUT",
    "Metadata",
    "Pem",
    "call_metadata",
    "channel_credentials",
    "options",
]

Pem = Path | str | bytes
"""Certificates or a key in PEM: a file's name, or the content as bytes."""

Metadata = tuple[tuple[str, str], ...]

DEFAULT_TARGET: Final = f"{DEFAULT_HOST}:{DEFAULT_PORT}"

TIMEOUT: Final = 10.0
"""Seconds for a call, retries included."""

BATCH_TIMEOUT: Final = 60.0
"""Seconds for one request of a batch, retries included."""

CHUNK_ITEMS: Final = 5_000
CHUNK_BYTES: Final = 4 * 1024 * 1024


def options(attempts: int, more: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the options of a channel that tries a call up to ``attempts`` times while the server is UNAVAILABLE.

    All methods only read, so trying again is safe. Nothing else is retried: other errors would come again. CANCELLED is
    what gRPC makes of calls that have arrived at a server that is ending, and that it has not begun.
    """
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
    }
    method: dict[str, Any] = {"name": [{}]}
    if attempts > 1:
        method["retryPolicy"] = policy
    # Calls take turns over the addresses that a target has; gRPC by itself would stay with the first that answers.
    config = {"methodConfig": [method], "loadBalancingConfig": [{"round_robin": {}}]}
    return [
        ("grpc.service_config", json.dumps(config)),
        # gRPC does not retry a request that does not fit in here, and the default is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", 64 * 1024 * 1024),
        # A worker that dies takes with it connections that had just been given to it; by default the next attempt would
        # be a second later, when all tries of a call are over.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        *more,
    ]


def channel_credentials(
    credentials: grpc.ChannelCredentials | None,
    tls: bool,
    root_certificates: Pem | None,
    client_certificate: Pem | None,
    client_key: Pem | None,
) -> grpc.ChannelCredentials | None:
    """Return what to connect with; None for no TLS. Raises InvalidFieldError if the arguments do not go together, and
    OSError if a file cannot be read.
    """
    files = (root_certificates, client_certificate, client_key)
    if credentials is not None:
        if tls or any(files):
            raise InvalidFieldError("credentials: expected them or certificates, got both", field="credentials")
        return credentials
    if not tls and not any(files):
        return None
    if (client_certificate is None) != (client_key is None):
        raise InvalidFieldError("client_key: a certificate and its key go together, got only one", field="client_key")
    return grpc.ssl_channel_credentials(_pem(root_certificates), _pem(client_key), _pem(client_certificate))


def call_metadata(
    metadata: Sequence[tuple[str, str]], token: str | None, target: str, encrypted: bool
) -> Callable[[], Metadata]:
    """Return what makes the metadata of a call: the caller's own, the token, and a request id of its own for each.

    Raises InvalidFieldError if the token would travel in the clear to another machine.
    """
    fixed = tuple(metadata)
    if token is not None:
        if not encrypted and not _is_loopback(target):
            raise InvalidFieldError(
                f"token: without TLS anybody between here and {target} could read it. Give root_certificates, or "
                "tls=True for those of the system.",
                field="token",
            )
        if not token.isascii() or not token.isprintable() or not token:
            raise InvalidFieldError("token: expected printable ASCII characters", field="token")
        fixed = (*fixed, ("authorization", f"Bearer {token}"))
    if any(key == REQUEST_ID for key, _ in fixed):
        return lambda: fixed
    return lambda: (*fixed, (REQUEST_ID, secrets.token_hex(8)))


def _pem(given: Pem | None) -> bytes | None:
    return given if given is None or isinstance(given, bytes) else Path(given).read_bytes()


def _is_loopback(target: str) -> bool:
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    addresses = target.rpartition("/")[2].removeprefix("ipv4:").removeprefix("ipv6:").removeprefix("dns:")
    for address in addresses.split(","):
        host = address.rpartition(":")[0].strip("[]") or address
        try:
            if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
                return False
        except ValueError:
            return False
    return True
