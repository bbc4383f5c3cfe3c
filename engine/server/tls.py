"""TLS from files that may change while the server runs.

The files are looked at on every handshake: a new certificate is used from the next connection on, and connections
that are there stay. What does not fit together is not used; the server goes on with what it had, and logs why.
"""

from __future__ import annotations

import logging
import ssl
import threading
from pathlib import Path
from typing import Any

import grpc

from ..errors import InvalidFieldError
from .config import ServerConfig
from .logs import LOGGER

__all__ = ["Certificates"]

_logger = logging.getLogger(LOGGER)

Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """The certificate, key and client authorities of ``config``, which has to name the first two.

    Raises InvalidFieldError if they cannot be used.
    """

    def __init__(self, config: ServerConfig) -> None:
        assert config.tls_certificate is not None
        assert config.tls_key is not None
        self._certificate, self._key, self._client_ca = config.tls_certificate, config.tls_key, config.tls_client_ca
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._initial = self._load()
        self.reloads = 0

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a server listens with. Client certificates are demanded if there are authorities for them."""
        return grpc.dynamic_ssl_server_credentials(
            self._initial, self._changed, require_client_authentication=self._client_ca is not None
        )

    def _changed(self) -> Any:
        """Return the new configuration, or None for no change. gRPC asks before every handshake, in its own threads."""
        with self._lock:
            try:
                stamp = self._look()
                if stamp == self._stamp:
                    return None
                found = self._load()
                # Replaced while they were read: the next handshake sees what is there then.
                if self._look() != stamp:
                    return None
            except InvalidFieldError as error:
                _logger.error("certificate refused", extra={"fields": {"error": str(error)}})
                return None
            self._stamp = stamp
            self.reloads += 1
            _logger.info("certificate", extra={"fields": {"file": str(self._certificate)}})
            return found

    def _files(self) -> list[tuple[str, Path]]:
        files = [("tls_certificate", self._certificate), ("tls_key", self._key)]
        return files if self._client_ca is None else [*files, ("tls_client_ca", self._client_ca)]

    def _look(self) -> Stamp:
        stamps = []
        for field, path in self._files():
            try:
                about = path.stat()
            except OSError as error:
                raise InvalidFieldError(f"{field}: {path} cannot be read: {error.strerror}", field=field) from None
            stamps.append((about.st_mtime_ns, about.st_size, about.st_ino))
        return tuple(stamps)

    def _load(self) -> grpc.ServerCertificateConfiguration:
        contents = []
        for field, path in self._files():
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise InvalidFieldError(f"{field}: {path} cannot be read: {error.strerror}", field=field) from None
        # gRPC would take anything and fail every handshake.
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidFieldError(
                f"tls_certificate: {self._certificate} and {self._key} are not a certificate and its key in PEM "
                f"({error}). The key must be the certificate's own, without a password.",
                field="tls_certificate",
            ) from None
        if self._client_ca is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=contents[2].decode("ascii"))
            except (ssl.SSLError, ValueError) as error:
                raise InvalidFieldError(
                    f"tls_client_ca: {self._client_ca} has no certificates in PEM ({error})", field="tls_client_ca"
                ) from None
        return grpc.ssl_server_certificate_configuration(
            [(contents[1], contents[0])], contents[2] if self._client_ca is not None else None
        )
