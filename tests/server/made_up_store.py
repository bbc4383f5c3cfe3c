"""A store of made-up releases whose answers say which pack gave them: every title ends in its generation."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from codes_made_up import FROM, SYSTEM, TO, tables, write

__all__ = ["CODES", "SYSTEM", "generation_of", "spoil", "write_generation"]

CODES = ["U0011", "U0012", "U01", "W998XXA"]
"""Codes valid on the first day of either release."""

_SPANS = {"2021": (FROM, TO), "2021-04": (20210401, 20210930)}


def write_generation(store: Path, generation: int, release: str = "2021", *, replace: bool = False) -> Path:
    """Write a pack of ``release`` into ``store``; return its directory."""
    made_up = tables(release, *_SPANS[release])
    made_up.nodes[:] = [node._replace(title=f"{node.title} #{generation}") for node in made_up.nodes]
    return write(store, made_up, replace=replace)


def generation_of(title: str) -> int:
    """Return which generation's pack gave ``title``."""
    return int(title.rpartition("#")[2])


def spoil(pack: Path) -> None:
    """Change one byte of the largest file of the pack."""
    file = max(pack.glob("*.npy"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[-2] ^= 0x10
    # Not in place: the file may be a link to that of another pack.
    file.unlink()
    file.write_bytes(data)
