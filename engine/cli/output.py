"""How answers look: tables for people, JSON for programs, progress for terminals."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ..pack import Manifest

__all__ = [
    "bytes_text",
    "console",
    "content_text",
    "day_argument",
    "day_text",
    "print_json",
    "print_json_line",
    "status_text",
    "table",
]

_LOG_WIDTH = 160
_STATUS_STYLES = {"VALID": "green", "HEADER": "yellow", "NOT_YET": "yellow"}


def console(*, stderr: bool = False) -> Console:
    """Return a console for standard output or error.

    No markup: titles have brackets of their own. A log has no width; it gets one that rows of a table fit into.
    """
    stream = sys.stderr if stderr else sys.stdout
    # Rich itself honours COLUMNS and FORCE_COLOR; it is only told what it would guess wrong.
    width = None if stream.isatty() or "COLUMNS" in os.environ else _LOG_WIDTH
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


def table(*columns: str, right: tuple[str, ...] = (), fold: tuple[str, ...] = ()) -> Table:
    """Return an empty table. Columns ``right`` are numbers; only columns ``fold`` may break into lines."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column not in fold,
            overflow="fold",
        )
    return made


def print_json(document: Any) -> None:
    """Print one JSON document, indented."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_json_line(document: Any) -> None:
    """Print one JSON document on one line."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")


def day_text(date: int | None) -> str:
    """Return a day as people write it: 2026-10-01; empty for none."""
    return f"{date // 10000:04d}-{date // 100 % 100:02d}-{date % 100:02d}" if date else ""


def day_argument(text: str | None) -> str | None:
    """Return a day given as 2026-10-01 or 20261001 in the second form; what is neither, as it is, to be refused."""
    if text is not None and re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        return text.replace("-", "")
    return text


def bytes_text(size: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def content_text(manifest: Manifest) -> str:
    """Return how much a pack holds, in its own unit."""
    facts: Mapping[str, Any] = manifest.facts
    for name, unit in (("codes", "codes"), ("drgs", "DRGs"), ("hccs", "HCCs")):
        if isinstance(facts.get(name), int):
            return f"{facts[name]:,} {unit}"
    return ""


def status_text(name: str) -> Text:
    """Return the name of a status in its colour."""
    return Text(name, style=_STATUS_STYLES.get(name, "red"))
