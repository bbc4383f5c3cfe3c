"""Run the benchmarks and show them as a table with ratios, and as a picture.

    python -m benchmarks.report [pytest arguments]

Writes ``build/bench/report.json`` (pytest-benchmark's own), ``report.md`` and ``report.svg``. Figures are medians
over rounds in one run; machines differ and are noisy, ratios within a run are what to compare.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from . import instructions

OUTPUT = Path(__file__).parents[1] / "build" / "bench"


@dataclass(frozen=True)
class Figure:
    """One measured rate. ``rate``: items a second, median; ``low``/``high``: of the slowest and fastest round."""

    group: str
    who: str
    unit: str
    rate: float
    low: float
    high: float
    budget: float | None
    agreement: float | None

    @property
    def is_engine(self) -> bool:
        return self.who.startswith("engine")


def run(arguments: list[str]) -> list[Figure]:
    """Run pytest on the benchmarks; return the figures in the order they ran."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / "report.json"
    command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "-q", f"--benchmark-json={path}"]
    done = subprocess.run([*command, "--benchmark-columns=median", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return [figure(entry) for entry in json.loads(path.read_text())["benchmarks"]]


def figure(entry: dict[str, Any]) -> Figure:
    info, stats = entry["extra_info"], entry["stats"]
    items = info["items"]
    return Figure(
        entry["group"], info["who"], info["unit"], items / stats["median"], items / stats["max"], items / stats["min"],
        info["budget"], info["agreement"],
    )  # fmt: skip


def rows(figures: list[Figure]) -> list[tuple[str, ...]]:
    """Return the cells of the table: what, who, rate, range, ratio to the first of the group, budget and how much of
    it."""
    found = []
    for group, members in groupby(figures, key=lambda f: f.group):
        listed = list(members)
        first = next((f for f in listed if f.is_engine), listed[0])
        for i, f in enumerate(listed):
            note = f"{f.rate / f.budget:.0%} of {_number(f.budget)}/s" if f.budget else ""
            if f.agreement is not None:
                note = f"{f.agreement:.2%} of its answers right"
            found.append(
                (
                    group if i == 0 else "",
                    f.who,
                    f"{_number(f.rate)} {f.unit}/s",
                    f"{_number(f.low)} - {_number(f.high)}",
                    "1" if f is first else f"{f.rate / first.rate:.3g}",
                    note,
                )
            )
    return found


def _number(value: float) -> str:
    for size, suffix in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


HEADINGS = ("what", "who", "median rate", "slowest - fastest round", "ratio", "budget or note")


def picture(figures: list[Figure], path: Path) -> None:
    """Draw every group's rates as bars, budgets as marks, on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    labels = [f"{f.group}\n{f.who}" for f in figures]
    fig, axes = plt.subplots(figsize=(10, 0.55 * len(figures) + 1.5), layout="constrained")
    places = range(len(figures))
    axes.barh(places, [f.rate for f in figures], color=["#24628f" if f.is_engine else "#b9b9b9" for f in figures])
    for place, f in zip(places, figures, strict=True):
        axes.text(f.rate, place, f" {_number(f.rate)} {f.unit}/s", va="center", fontsize=8)
        if f.budget:
            axes.plot([f.budget, f.budget], [place - 0.45, place + 0.45], color="#c0392b", linewidth=2)
    axes.set_xscale("log")
    axes.set_yticks(list(places), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("items a second, median (red: budget)")
    axes.margins(x=0.15)
    fig.savefig(path, metadata={"Date": None})


def main() -> None:
    arguments = sys.argv[1:]
    figures = run(arguments)
    table = Table(title="codeset-engine benchmarks", show_lines=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if "rate" in heading or heading == "ratio" else "left")
    cells = rows(figures)
    for row in cells:
        table.add_row(*row, end_section=False)
    Console(width=None if sys.stdout.isatty() else 170).print(table)
    lines = [f"| {' | '.join(row)} |" for row in (HEADINGS, tuple("---" for _ in HEADINGS), *cells)]
    notes = []
    if shutil.which("valgrind"):
        # Repeatable where times are not: the same build and claims take the same instructions on every run.
        for detail, what in (("DRG", "DRG and MDC only"), ("FULL", "every output field")):
            notes.append(f"MS-DRG, {what}: {instructions.count(detail):,.0f} instructions a claim (callgrind)")
    print("\n".join(notes))
    command = " ".join(["python -m benchmarks.report", *arguments])
    (OUTPUT / "report.md").write_text("\n".join([*lines, "", *notes, "", f"`{command}`", ""]), encoding="utf-8")
    picture(figures, OUTPUT / "report.svg")
    print(f"{OUTPUT / 'report.md'}, {OUTPUT / 'report.svg'}; again with: {command}")


if __name__ == "__main__":
    main()
