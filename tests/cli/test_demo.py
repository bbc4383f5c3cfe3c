"""The demonstration of ``make demo``: it ends well only if every claim has the reference answer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_agrees_with_the_reference_answers(store: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "CODESET_ENGINE_PACKS": str(store)},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = re.search(r"(\d+) of (\d+) claims agree", done.stdout)
    assert found
    assert found[1] == found[2]
