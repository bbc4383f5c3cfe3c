"""How a server is to run: every setting, with its default, its bounds and what it means.

The description of a field is the help of its flag and its row in docs/server.md. ``settings`` reads the fields from
flags, the environment and a file.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import NoDecode

from ..errors import AddressUnavailableError, InvalidFieldError
from ..rpc import DEFAULT_HOST, DEFAULT_PORT, MAX_ITEMS, MAX_MESSAGE_BYTES

__all__ = ["ServerConfig"]


def _words(value: Any) -> Any:
    """Split what the environment has of a list: by commas."""
    return tuple(filter(None, (word.strip() for word in value.split(",")))) if isinstance(value, str) else value


class ServerConfig(BaseModel):
    """Configuration of a server. Checked when made: InvalidFieldError names the field.

    An address that other machines can reach is refused with AddressUnavailableError, unless there is TLS or
    ``allow_remote_plaintext`` is set: claims are health data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)

    host: str = Field(DEFAULT_HOST, description="Address or name to listen on.")
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, description="Port; 0 takes a free one.")
    port_file: Path | None = Field(
        None, description="File for the port, written whole once the server answers, removed at the end."
    )
    allow_remote_plaintext: bool = Field(
        False, description="Allow an address that other machines can reach although there is no TLS."
    )
    store: Path | None = Field(
        None, description="Directory of the packs. Default: $CODESET_ENGINE_PACKS, else that of this environment."
    )
    releases: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_words)] = Field(
        None,
        description="What to serve, SYSTEM/RELEASE or SYSTEM; several: repeat the flag, or a list. Default: everything "
        "in the store.",
        json_schema_extra={"flag": "--release"},
    )
    verify: bool = Field(
        True,
        description="Verify and map all packs before the first request; otherwise each when it is first needed.",
        json_schema_extra={"flag": "--verify/--lazy"},
    )
    watch_interval: float = Field(
        5.0, ge=0, description="Seconds between two looks at the store for new releases; 0: only at SIGHUP."
    )
    workers: int = Field(1, ge=1, le=1024, description="Processes that share the port and the pages of the packs.")
    max_items: int = Field(MAX_ITEMS, ge=1, description="Items in one batch; more fail with BATCH_TOO_LARGE.")
    max_message_bytes: int = Field(
        MAX_MESSAGE_BYTES, ge=1024, le=1 << 30, description="Bytes of one request; more fail with MESSAGE_TOO_LARGE."
    )
    max_concurrent: int = Field(
        256, ge=1, description="Requests at once in a process; more fail with TOO_MANY_REQUESTS."
    )
    max_streams: int = Field(
        256, ge=1, description="Calls at once on one connection, answers not yet read included; more wait."
    )
    threads: int = Field(
        max(2, os.cpu_count() or 2),
        ge=1,
        description="Threads of a process for requests too long for the event loop. Default: one a core, two at least.",
    )
    request_timeout: float = Field(
        300.0,
        ge=0,
        description="Seconds a call may take, whatever deadline its caller gave; it ends with DEADLINE_EXCEEDED. "
        "0: no limit.",
    )
    grace: float = Field(30.0, ge=0, description="Seconds for requests in flight to finish after SIGTERM or SIGINT.")
    keepalive_time: float = Field(
        60.0, ge=0, description="Seconds without traffic after which a connection is probed; 0: never."
    )
    keepalive_timeout: float = Field(
        20.0, gt=0, description="Seconds a probe may go unanswered before the connection is given up."
    )
    keepalive_min_interval: float = Field(
        10.0, ge=0, description="Seconds between probes that a client has to keep to; one that does not is cut off."
    )
    max_connection_idle: float = Field(
        0.0, ge=0, description="Seconds after which a connection without a call is closed; 0: never."
    )
    max_connection_age: float = Field(
        0.0,
        ge=0,
        description="Seconds after which a connection is closed, its calls finished first, so that clients spread over "
        "workers and replicas again; 0: never.",
    )
    reflection: bool = Field(
        True,
        description="Let callers read the API's descriptors from the server.",
        json_schema_extra={"flag": "--reflection/--no-reflection"},
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of the certificate chain, leaf first. Read again when it changes."
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key. Read again when it changes.")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of the authorities whose client certificates are demanded: mutual TLS."
    )
    tokens: Path | None = Field(
        None, description="TOML file of bearer tokens and what each may call. Read again when it changes."
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of Prometheus metrics over HTTP; 0 takes a free one. Default: none."
    )
    metrics_host: str = Field(DEFAULT_HOST, description="Address that metrics are served on.")
    traces_endpoint: str | None = Field(
        None,
        min_length=1,
        description="OTLP collector that a span of every call is sent to, http://127.0.0.1:4317; needs the extra "
        "codeset-engine[traces]. OTEL_* variables say the rest. Default: none.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line written: debug, info (a line a call), warning or error."
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _invalid(error) from None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_certificate"
            raise InvalidFieldError(f"{missing}: a certificate and its key go together, got only one", field=missing)
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise InvalidFieldError(
                "tls_certificate: tls_client_ca asks for mutual TLS, which needs a certificate of the server too",
                field="tls_certificate",
            )
        if not self.allow_remote_plaintext:
            if self.tls_certificate is None and not _is_loopback(self.host):
                raise AddressUnavailableError(
                    f"host: {self.host!r} can be reached from other machines, and without TLS claims travel in the "
                    "clear. Give tls_certificate and tls_key, listen on 127.0.0.1 behind a proxy that encrypts, or "
                    "allow it explicitly (allow_remote_plaintext) on a network you trust.",
                    field="host",
                )
            if self.metrics_port is not None and not _is_loopback(self.metrics_host):
                raise AddressUnavailableError(
                    f"metrics_host: {self.metrics_host!r} can be reached from other machines, and metrics are served "
                    "without TLS. Use 127.0.0.1, or allow it explicitly (allow_remote_plaintext).",
                    field="metrics_host",
                )
        return self

    @property
    def address(self) -> str:
        """``host:port`` as gRPC reads it, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _invalid(failed: ValidationError) -> InvalidFieldError:
    error = failed.errors()[0]
    own = error.get("ctx", {}).get("error")
    if isinstance(own, InvalidFieldError):
        return own
    field = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        names = ", ".join(ServerConfig.model_fields)
        return InvalidFieldError(f"{field}: there is no such setting; there is {names}", field=field)
    return InvalidFieldError(f"{field}: {error['msg']}, got {error['input']!r:.80}", field=field)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
