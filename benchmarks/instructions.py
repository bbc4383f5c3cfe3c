"""Instructions a claim, counted by callgrind: repeatable to the instruction on one build, whatever else the machine
does.

    python -m benchmarks.instructions

Counts inside the grouper's own function only, for the claims of ``tests/golden``, DRG only and with every output
field. Needs valgrind.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CLAIMS = 2000
FUNCTION = "__pyx_f_6engine_6_msdrg_group"


def driver(detail: str) -> None:
    """Group the claims once: what runs under callgrind."""
    import json
    import lzma

    import engine
    from engine.drg import Detail, GroupingOptions

    golden = Path(__file__).parents[1] / "tests" / "golden" / "inpatient_claims.ndjson.xz"
    with lzma.open(golden, "rt", encoding="utf-8") as lines:
        claims = [json.loads(line) for _, line in zip(range(CLAIMS), lines, strict=False)]
    results = engine.open(releases=["msdrg"]).group_drg_many(claims, GroupingOptions(detail=Detail[detail]))
    assert not results.errors
    assert len(results) == CLAIMS


def count(detail: str) -> float:
    """Return the instructions a claim takes."""
    with tempfile.TemporaryDirectory() as directory:
        command = [
            "valgrind",
            "--tool=callgrind",
            f"--toggle-collect={FUNCTION}",
            f"--callgrind-out-file={directory}/out",
            sys.executable,
            "-m",
            "benchmarks.instructions",
            detail,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"callgrind failed: {done.stderr[-1000:]}")
    return int(found[1]) / CLAIMS


def main() -> None:
    if len(sys.argv) > 1:
        driver(sys.argv[1])
        return
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is needed to count instructions; install it and run this again.")
    for detail in ("DRG", "FULL"):
        print(f"{detail:5} {count(detail):8.0f} instructions a claim")


if __name__ == "__main__":
    main()
