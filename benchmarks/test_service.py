"""The same over gRPC: a server process on loopback, the thin client in this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.client import Client

Measure = Callable[..., Any]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    command = [sys.executable, "-m", "engine.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        word, address = server.stdout.readline().split()
        assert word == "listening"
        with Client(address) as client:
            yield client
        server.terminate()


@pytest.mark.benchmark(group="MS-DRG over gRPC, batches")
@pytest.mark.parametrize("detail", ["DRG_DETAIL_DRG", "DRG_DETAIL_FULL"])
def test_batches(measure: Measure, client: Client, claims: list[Any], answers: list[Any], detail: str) -> None:
    some = claims[:10_000]
    options = {"detail": detail}
    results = measure(
        lambda: client.group_drg_many(some, options=options),
        items=len(some),
        unit="claims",
        who=f"engine, {detail.removeprefix('DETAIL_').lower()}",
        rounds=5,
    )
    assert [result.final_grouping.drg for result in results] == [
        a["final_grouping"]["drg"] for a in answers[: len(some)]
    ]


@pytest.mark.benchmark(group="one call at a time over gRPC")
def test_unary(measure: Measure, client: Client) -> None:
    answer = measure(lambda: client.validate("icd10cm", "A00.0", date=20260501), unit="calls", rounds=200, iterations=5)
    assert answer.valid
