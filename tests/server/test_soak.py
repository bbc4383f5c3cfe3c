"""Half a minute of what `python -m benchmarks.load --soak` does for as long as it is told: no error, no wrong answer,
flat memory. And what the load driver refuses.
"""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MIB = 2**20


def benchmarks(module: str) -> Any:
    """Import a module of the benchmarks, which are no part of what is installed."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return importlib.import_module(f"benchmarks.{module}")


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.load", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_half_a_minute_of_saturation(store: Path, tmp_path: Path) -> None:
    done = load("--soak", "30", "--store", str(store), "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"soak.json", "soak.md"}


@pytest.mark.parametrize(
    ("leak", "flat"),
    [(0, True), (6 * MIB, True), (40 * MIB, False), (400 * MIB, False)],
)
def test_what_is_flat(leak: int, flat: bool) -> None:
    """100 MiB with noise, steep in the warm-up, a spike of a tenth of the time, and ``leak`` bytes lost in the rest."""
    rng = random.Random(1)
    memory = benchmarks("soak").Memory("server")
    for i in range(300):
        level = 100 * MIB if i >= 30 else (70 + i) * MIB
        spike = 50 * MIB if 150 <= i < 180 else 0
        memory.seconds.append(i / 10)
        memory.private.append(level + spike + leak * max(0, i - 30) // 270 + rng.randrange(4 * MIB))
    assert memory.is_flat(3.0) is flat
    assert abs(memory.growth(3.0) - leak) < 3 * MIB + leak / 10


def test_a_closed_loop_is_corrected_for_what_it_did_not_see() -> None:
    driver = benchmarks("load_driver")
    raw = driver.histogram()
    for _ in range(999):
        raw.record_value(1_000)
    raw.record_value(1_000_000)
    found = driver.corrected(raw)
    # A second without an answer: a thousand calls would have been due in it.
    assert raw.get_value_at_percentile(99) < 1_010
    assert found.get_total_count() == pytest.approx(2_000, rel=0.01)
    assert found.get_value_at_percentile(75) == pytest.approx(500_000, rel=0.01)


def test_wrong_answers_are_found() -> None:
    calls = benchmarks("load_calls")
    rng = random.Random(1)
    asking = calls.Asking(
        "two", "/x/Y", [b"ask"], lambda raw: raw.split(), lambda index, at, got: got != b"yes", items=2
    )
    assert asking.unknown() == [0]
    for wrong in (b"yes no", b"yes", b"yes yes yes", b""):
        with pytest.raises(calls.WrongAnswerError):
            asking.check(0, wrong, rng)
    assert (asking.compared, asking.decoded, asking.unknown()) == (0, 0, [0])
    for _ in range(5_000):
        asking.check(0, b"yes yes", rng)
    assert asking.compared == 10_000
    # The first, and a sample of the others.
    assert 2 < asking.decoded < 200
    with pytest.raises(calls.WrongAnswerError):
        asking.check(0, b"yes no", rng)


@pytest.mark.parametrize(
    "target", ["10.0.0.1:1", "192.168.1.1:1", "example.com:1", "0.0.0.0:1", "[::]:1", "127.0.0.1", ":1"]
)
def test_load_is_for_this_machine_only(target: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        benchmarks("load_server").loopback(target)


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.9.9.9:65535"])
def test_load_is_for_this_machine(target: str) -> None:
    assert benchmarks("load_server").loopback(target) == target


def test_a_target_elsewhere_is_refused() -> None:
    done = load("--target", "10.0.0.1:50051")
    assert done.returncode == 2
    assert "servers of this machine only" in done.stderr


@pytest.mark.parametrize("arguments", [["--soak", "1e9"], ["--workers", "1000"]])
def test_load_is_bounded(arguments: list[str]) -> None:
    done = load(*arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
