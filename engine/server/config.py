"""How a server is to run."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import AddressUnavailableError, InvalidFieldError
from ..rpc import DEFAULT_HOST, DEFAULT_PORT, MAX_ITEMS, MAX_MESSAGE_BYTES

__all__ = ["ServerConfig"]


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Configuration of one server process. Checked when made: InvalidFieldError names the field.

    An address that is not of the loopback interface is refused with AddressUnavailableError unless
    ``allow_remote`` is set: there is no encryption and no authentication, and claims are health data.
    """

    host: str = DEFAULT_HOST
    """Address or name to listen on."""

    port: int = DEFAULT_PORT
    """Port, 0 to 65535. 0: a free one, which the server reports."""

    port_file: Path | None = None
    """File to write the port to, whole or not at all, once the server answers. None: no file."""

    allow_remote: bool = False
    """Listen on an address that other machines can reach."""

    store: Path | None = None
    """Directory of the packs. None: the default store."""

    releases: tuple[str, ...] | None = None
    """Releases to serve, each ``system/release``. None: all that are in the store."""

    verify: bool = True
    """Verify and map all packs before the first request; otherwise each when it is first needed."""

    watch_interval: float = 5.0
    """Seconds between two looks at the store for new releases, 0 or more. 0: only at SIGHUP."""

    max_items: int = MAX_ITEMS
    """Items in one batch request, 1 or more."""

    max_message_bytes: int = MAX_MESSAGE_BYTES
    """Bytes of one request message, 1,024 to 1 GiB."""

    max_concurrent: int = 256
    """Requests answered or waiting at once, 1 or more."""

    threads: int = max(2, os.cpu_count() or 2)
    """Threads for requests too long for the event loop, 1 or more."""

    grace: float = 30.0
    """Seconds that requests in flight may take to finish after SIGTERM or SIGINT, 0 or more."""

    reflection: bool = True
    """Let callers read the API's descriptors from the server."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65535),
            ("max_items", 1, None),
            ("max_message_bytes", 1024, 1 << 30),
            ("max_concurrent", 1, None),
            ("threads", 1, None),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < low or (high is not None and value > high):
                bounds = f"{low:,} or more" if high is None else f"{low:,} to {high:,}"
                raise InvalidFieldError(f"{name}: expected {bounds}, got {value!r}", field=name)
        for name in ("grace", "watch_interval"):
            value = getattr(self, name)
            if not value >= 0:
                raise InvalidFieldError(f"{name}: expected seconds, 0 or more, got {value!r}", field=name)
        if not self.allow_remote and not _is_loopback(self.host):
            raise AddressUnavailableError(
                f"host: {self.host!r} can be reached from other machines, and the service neither "
                "encrypts nor "
                "authenticates. Listen on 127.0.0.1 behind a proxy that does, or allow it explicitly "
                "(allow_remote=True) on a network you trust.",
                field="host",
            )

    @property
    def address(self) -> str:
        """``host:port`` as gRPC reads it, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
