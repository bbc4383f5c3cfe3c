"""Run a server over the fake library in a process of its own: ``serve_fake.py '{"port": 0, …}'``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fake_library import FakeLibrary

from engine.server import ServerConfig, serve


def main() -> None:
    options: dict[str, Any] = json.loads(sys.argv[1])
    if "port_file" in options:
        options["port_file"] = Path(options["port_file"])
    library: Any = FakeLibrary()
    serve(ServerConfig(**options), library)


if __name__ == "__main__":
    main()
