"""The gRPC service over a library.

Contract
--------
* The server only converts and calls: every answer is the library's. It keeps no state between calls.
* All methods read. Any of them may be repeated.
* A call fails with a gRPC status that carries ``google.rpc.ErrorInfo``: ``reason`` is the stable code of
  the error (``engine.errors``), ``domain`` is "codeset.v1". In a batch a bad item gets an ``error`` of
  its own.
* The log has one JSON line a call: method, number of items, status, duration, release, request id. It
  never has anything of a claim, nor any code or text that a caller sent.
* It listens on the loopback interface only, unless told otherwise: no encryption, no authentication yet.
* ``calls`` decodes, limits and logs; ``services`` answers; ``convert`` fills messages; ``app`` starts
  and ends.
"""

from __future__ import annotations

from .app import Server, open_library, serve
from .config import ServerConfig

__all__ = ["Server", "ServerConfig", "open_library", "serve"]
