"""Servers over the fake library: in a thread of the test process, or in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fake_library import FakeLibrary

from engine.server import Server, ServerConfig

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@contextmanager
def running(library: Any = None, **options: Any) -> Iterator[str]:
    """Run a server over ``library`` (None: the fake one) in a thread; yield its address."""
    library = library or FakeLibrary()
    config = ServerConfig(**{"port": 0, "grace": 5.0, **options})
    ready = threading.Event()
    state: dict[str, Any] = {}

    async def main() -> None:
        state["ended"] = asyncio.Event()
        state["loop"] = asyncio.get_running_loop()
        async with Server(config, library) as server:
            state["address"] = server.address
            ready.set()
            await state["ended"].wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            state["error"] = error
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30)
    if "error" in state:
        thread.join()
        raise state["error"]
    try:
        yield state["address"]
    finally:
        state["loop"].call_soon_threadsafe(state["ended"].set)
        thread.join(30)
        assert not thread.is_alive()
        if "error" in state:
            raise state["error"]


@contextmanager
def process(**options: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server in a process of its own; yield the process and the address it printed."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "serve_fake.py"), json.dumps({"port": 0, **options})],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline().split()
            assert line[:1] == ["listening"], server.stderr.read() if server.stderr else ""
            yield server, line[1]
        finally:
            if server.poll() is None:
                server.kill()
