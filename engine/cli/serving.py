"""``codeset-engine serve``."""

from __future__ import annotations

from typing import Any

__all__ = ["serve"]


def serve(*, threads: int | None, **options: Any) -> None:
    """Run a server with ``options`` (see ``engine.server.ServerConfig``) until it is told to end."""
    from ..server import ServerConfig
    from ..server import serve as run

    run(ServerConfig(**options) if threads is None else ServerConfig(**options, threads=threads))
