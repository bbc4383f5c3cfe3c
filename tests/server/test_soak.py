"""Half a minute of what `python -m benchmarks.load --soak` does for as long as it is told: no error, no wrong answer,
flat memory. And what the load driver refuses.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("target", ["10.0.0.1:50051", "192.168.1.1:50051", "example.com:50051", "0.0.0.0:1", "[::]:1"])
def test_load_is_for_this_machine_only(target: str) -> None:
    done = load("--target", target)
    assert done.returncode == 2
    assert "loopback" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--soak", "1e9"], ["--seconds", "1e9"], ["--workers", "1000"], ["--senders", "0"]]
)
def test_load_is_bounded(arguments: list[str]) -> None:
    done = load(*arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
