"""The command line in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def serving(store: Path, directory: Path, *arguments: str) -> Iterator[tuple[str, Any]]:
    """Run ``codeset-engine serve`` on a free port; yield its address and the process."""
    port_file = directory / "port"
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "serve", "--port", "0", "--port-file", str(port_file), *arguments],
        env=os.environ | {"CODESET_ENGINE_PACKS": str(store)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            end = time.monotonic() + 120
            while not port_file.exists():
                assert process.poll() is None, "the server ended at once"
                assert time.monotonic() < end, "the server does not start"
                time.sleep(0.02)
            yield f"127.0.0.1:{int(port_file.read_text())}", process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
