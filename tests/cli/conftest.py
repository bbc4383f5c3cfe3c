"""Run the command line: in this process where that is enough, in one of its own where it is not."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.cli import main


class Result(NamedTuple):
    """Exit status and what was printed."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Path) -> Run:
    """Return a function that runs ``codeset-engine ARGUMENTS``, on the store of the tests unless told otherwise."""
    monkeypatch.setenv("CODESET_ENGINE_PACKS", str(store))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        status = ended.value.code
        return Result(status if isinstance(status, int) else 0, printed.out, printed.err)

    return run


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


@pytest.fixture(scope="session")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server over the store of the tests."""
    with serving(store, tmp_path_factory.mktemp("server"), "--lazy") as (address, _):
        yield address
