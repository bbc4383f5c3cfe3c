"""Bearer tokens: who may call what.

The file is TOML, one table a token::

    [[token]]
    name = "claims-nightly"          # in the log, and in what a caller who may not is told
    sha256 = "9f86d081884c7d65…"     # of the token; or  token = "…", 16 characters or more
    allow = ["GroupingService/*", "TerminologyService/ValidateCode"]    # or ["*"]; "reflection" for reflection

A token arrives as ``authorization: Bearer TOKEN``. Only digests are kept and compared, each with every one of the
file's, in constant time. Health needs no token: it is what balancers ask.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from .._calls import CALLER
from ..errors import CodesetError, InvalidFieldError, PermissionDeniedError, UnauthenticatedError
from ..rpc import SERVICES, methods
from .logs import LOGGER

__all__ = ["Guard", "Token", "read_tokens"]

_logger = logging.getLogger(LOGGER)

_LOOK_SECONDS: Final = 1.0
_SHORTEST: Final = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PATHS: Final = {
    f"{service.rpartition('.')[2]}/{method.name}": method.path for service in SERVICES for method in methods(service)
}
_REFLECTION: Final = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
_HEALTH: Final = f"/{health.SERVICE_NAME}/"

Refuse = Callable[[str, CodesetError, Any], Awaitable[None]]
"""Ends a call (its path, why, its context) with the error and a log line."""


class Token(NamedTuple):
    """``digest``: SHA-256 of the token. ``paths``: what it may call, "/codeset.v1.GroupingService/GroupDrg"."""

    name: str
    digest: bytes
    paths: frozenset[str]


def read_tokens(path: Path) -> list[Token]:
    """Read a file of tokens. Raises InvalidFieldError, without any of their text, if it is not one."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidFieldError(f"tokens: {path} cannot be read: {error.strerror}", field="tokens") from None
    except ValueError:
        # What the parser says may quote the line.
        raise InvalidFieldError(f"tokens: {path} is not TOML", field="tokens") from None
    entries = document.get("token")
    if not isinstance(entries, list) or not entries or document.keys() != {"token"}:
        raise InvalidFieldError(f"tokens: {path}: expected [[token]] tables and nothing else", field="tokens")
    found = [_token(entry, f"tokens: {path}: token {number}") for number, entry in enumerate(entries, 1)]
    for what, distinct in (("name", {t.name for t in found}), ("token", {t.digest for t in found})):
        if len(distinct) != len(found):
            raise InvalidFieldError(f"tokens: {path}: two entries have the same {what}", field="tokens")
    return found


def _token(entry: Any, where: str) -> Token:
    if not isinstance(entry, dict) or not entry.keys() <= {"name", "token", "sha256", "allow"}:
        raise InvalidFieldError(f"{where}: expected name, token or sha256, and allow", field="tokens")
    name, secret, digest, allow = (entry.get(key) for key in ("name", "token", "sha256", "allow"))
    if not isinstance(name, str) or not name:
        raise InvalidFieldError(f"{where}: name: expected a text", field="tokens")
    if (secret is None) == (digest is None):
        raise InvalidFieldError(f"{where}: expected token or sha256, and not both", field="tokens")
    if secret is not None:
        if not isinstance(secret, str) or len(secret) < _SHORTEST or not secret.isascii() or not secret.isprintable():
            raise InvalidFieldError(
                f"{where}: token: expected {_SHORTEST} or more printable ASCII characters", field="tokens"
            )
        value = hashlib.sha256(secret.encode()).digest()
    elif isinstance(digest, str) and _DIGEST.fullmatch(digest):
        value = bytes.fromhex(digest)
    else:
        raise InvalidFieldError(f"{where}: sha256: expected 64 lower-case hexadecimal digits", field="tokens")
    if not isinstance(allow, list):
        raise InvalidFieldError(f"{where}: allow: expected a list of methods", field="tokens")
    paths: set[str] = set()
    for pattern in allow:
        if pattern == "reflection":
            paths.add(_REFLECTION)
            continue
        matching = [
            path
            for method, path in _PATHS.items()
            if pattern in ("*", method) or (str(pattern).endswith("/*") and method.startswith(str(pattern)[:-1]))
        ]
        if not matching:
            raise InvalidFieldError(
                f"{where}: allow: no method is {pattern!r}; there is *, GroupingService/*, GroupingService/GroupDrg, "
                "reflection, …",
                field="tokens",
            )
        paths.update(matching)
        if pattern == "*":
            paths.add(_REFLECTION)
    return Token(name, value, frozenset(paths))


class Guard(grpc.aio.ServerInterceptor):
    """Lets a call through if its token allows it. ``refuse`` ends the others."""

    def __init__(self, path: Path, refuse: Refuse) -> None:
        self._path = path
        self._refuse = refuse
        self._stamp = self._look()
        self._tokens = read_tokens(path)
        self._looked = time.monotonic()

    def caller(self, path: str, metadata: Any) -> str:
        """Return the name of the token that a call came with.

        Raises UnauthenticatedError if it is none of ours, PermissionDeniedError if it does not allow ``path``.
        """
        presented = [value for key, value in metadata or () if key == "authorization"]
        if len(presented) != 1 or not isinstance(presented[0], str) or not presented[0].startswith("Bearer "):
            raise UnauthenticatedError(
                "this server wants a token: metadata 'authorization: Bearer TOKEN', once (argument token of the client)"
            )
        digest = hashlib.sha256(presented[0][7:].encode("utf-8", "replace")).digest()
        found = None
        # All of them, whichever it is: how long it takes says nothing.
        for token in self._tokens:
            if hmac.compare_digest(digest, token.digest):
                found = token
        if found is None:
            raise UnauthenticatedError("the token is none that this server knows. Has it been replaced?")
        if path not in found.paths:
            raise PermissionDeniedError(
                f"the token {found.name!r} may not call {path.rpartition('.')[2]}. Ask the operator to allow it."
            )
        return found.name

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Return the handler of the call, or one that refuses it."""
        path: str = details.method
        handler = await continuation(details)
        if handler is None or path.startswith(_HEALTH):
            return handler
        self._read_again()
        try:
            CALLER.set(self.caller(path, details.invocation_metadata))
            return handler
        except CodesetError as error:
            return self._refusing(handler, path, error)

    def _refusing(self, handler: Any, path: str, error: CodesetError) -> Any:
        async def refuse(request: Any, context: Any) -> None:
            await self._refuse(path, error, context)

        kind = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        return kind(refuse)

    def _look(self) -> tuple[int, int, int]:
        try:
            about = self._path.stat()
        except OSError as error:
            raise InvalidFieldError(f"tokens: {self._path} cannot be read: {error.strerror}", field="tokens") from None
        return about.st_mtime_ns, about.st_size, about.st_ino

    def _read_again(self) -> None:
        """Read the file again if it changed, at most once a second. A broken one changes nothing."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._tokens = read_tokens(self._path)
            _logger.info("tokens", extra={"fields": {"count": len(self._tokens)}})
        except InvalidFieldError as error:
            _logger.error("tokens refused", extra={"fields": {"error": str(error)}})
