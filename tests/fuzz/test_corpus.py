"""The kept corpus, without the fuzzer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE))
sys.path.append(str(HERE.parent / "server"))

import fuzz_wire  # noqa: E402

import engine  # noqa: E402
from engine.server import ServerConfig  # noqa: E402
from engine.server.services import Services  # noqa: E402


@pytest.mark.parametrize("kept", sorted((HERE / "corpus").iterdir()), ids=lambda path: path.name)
def test_kept(store: Path, kept: Path) -> None:
    fuzz_wire.target(Services(engine.open(store), ServerConfig()))(kept.read_bytes())
