"""Run the command line: in this process where that is enough, in one of its own where it is not."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cli_harness import serving

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


@pytest.fixture(scope="session")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server over the store of the tests."""
    with serving(store, tmp_path_factory.mktemp("server"), "--lazy") as (address, _):
        yield address
