"""Importing the client, beside what it is made of: a process of its own each time, with the start of Python in all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Measure = Callable[..., Any]


@pytest.mark.benchmark(group="import the client")
@pytest.mark.parametrize("modules", ["engine.client", "grpc", "grpc, grpc.aio, grpc_status.rpc_status", "sys"])
def test_import(measure: Measure, modules: str) -> None:
    """``sys`` is there already: that is Python alone. A client cannot do with less than the third."""
    statement = f"import {modules}"

    def run() -> None:
        subprocess.run([sys.executable, "-c", statement], check=True)

    measure(run, unit="imports", who=statement, rounds=9)
