"""The gRPC service over a library.

Contract
--------
* The server only converts and calls: every answer is the library's. It keeps no state between calls.
* All methods read. Any of them may be repeated.
* A call fails with a gRPC status that carries ``google.rpc.ErrorInfo``: ``reason`` is the stable code of
  the error (``engine.errors``), ``domain`` is "codeset.v1". In a batch a bad item gets an ``error`` of
  its own.
* The log has one JSON line a call: method, number of items, status, duration, release, request id. It
  never has anything of a claim, nor any code or text that a caller sent. The same holds for metrics.
* It listens on the loopback interface only, unless there is TLS or it is told to do without.
* New releases come into use without a restart; a call is answered whole by the library it started with.
* ``calls`` decodes, limits and logs; ``services`` answers; ``convert`` fills messages; ``app`` starts
  and ends; ``workers`` runs several; ``config`` and ``settings`` say how; ``tls``, ``auth``, ``reload``,
  ``metrics`` and ``tracing`` are what their names say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import Server, open_library, serve
    from .config import ServerConfig

__all__ = ["Server", "ServerConfig", "open_library", "serve"]


def __getattr__(name: str) -> Any:
    # When asked for: the settings are read, and shown as help, without NumPy and the core.
    if name == "ServerConfig":
        from .config import ServerConfig

        return ServerConfig
    if name in __all__:
        from . import app

        return getattr(app, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
