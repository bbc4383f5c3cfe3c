"""One of several processes; started by ``workers``, which says on standard input how to run."""

from __future__ import annotations

import asyncio
import json
import sys

from ..errors import CodesetError
from .app import open_library, run
from .config import ServerConfig
from .logs import configure

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM, or until standard input ends: then the supervisor is gone.

    Writes ``listening HOST:PORT``, or the error that kept it from that as JSON.
    """
    config = ServerConfig(**json.loads(sys.stdin.readline()))
    configure(level=config.log_level, worker=int(sys.argv[1]))
    try:
        asyncio.run(run(config, open_library(config), share_port=True, until_end_of=sys.stdin))
    except CodesetError as error:
        sys.stdout.write(json.dumps({"code": error.code, "text": str(error), "field": error.field}) + "\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
