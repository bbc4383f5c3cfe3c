"""Put load on a server of this machine, and show what it took as a table and a picture.

    python -m benchmarks.load                     # every kind of call, closed and open loop; some minutes
    python -m benchmarks.load --workers 1 2       # the same for several numbers of server processes
    python -m benchmarks.load --soak 600          # everything mixed, memory watched
    python -m benchmarks.load --target 127.0.0.1:50051 --store DIR     # a server that is there, and its packs

Writes ``load.md`` and ``load.svg`` (``soak.md``, ``soak.svg``) in ``build/bench``; the pictures need matplotlib. Ends
with status 1 if a call failed, an answer was wrong, or memory grew. Sends to loopback addresses only, and is bounded in
time and calls.

The kinds of calls take turns, in several rounds, so that what else the machine does falls on all of them; figures are
medians over the rounds. What has a limit is measured between two runs of it: a virtual machine may be half as fast a
second later, and a ratio is of what was measured at nearly the same time. Server and clients share the machine's cores:
processor time of the server an item says what it took, whoever else was busy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from .load_calls import UNARY
from .load_driver import Outcome, Phase, clients, corrected
from .load_server import Serving, loopback, serving, workers_supported
from .soak import CLAIM_SYSTEM, Soak, soak

OUTPUT = Path(__file__).parents[1] / "build" / "bench"
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
OPEN_SHARES = (0.5, 0.8)
"""Rates of the open loops, as shares of the closed loop's."""


@dataclass
class Run:
    """What came of a phase in one round. ``rate``: items a second. ``cost``: seconds of processor time an item, the
    server's; in process, this process's; 0 where it is not known.
    """

    rate: float
    cost: float


@dataclass
class Figure:
    """A phase over its rounds, on one server. ``limit``: name of the phase that it is compared with."""

    workers: int
    phase: Phase
    limit: str = ""
    outcome: Outcome = field(default_factory=Outcome)
    calls: list[float] = field(default_factory=list)
    """Calls a second, by run."""
    runs: list[Run] = field(default_factory=list)
    around: list[Run] = field(default_factory=list)
    """Of each run of a phase with a limit, the mean of the two runs of the limit around it."""

    def add(self, outcome: Outcome, server_seconds: float) -> None:
        seconds = outcome.cpu_seconds if self.phase.client == "process" else server_seconds
        self.outcome.add(outcome)
        self.calls.append(sum(outcome.calls.values()) / outcome.seconds)
        self.runs.append(Run(outcome.items / outcome.seconds, seconds / outcome.items if outcome.items else 0.0))

    def compare(self, before: Run, after: Run) -> None:
        """Note what the limit made before and after the last run."""
        self.around.append(Run((before.rate + after.rate) / 2, (before.cost + after.cost) / 2))

    @property
    def rate(self) -> float:
        return median(run.rate for run in self.runs)

    def cost(self) -> float | None:
        """Return microseconds of processor time an item."""
        return median(run.cost for run in self.runs) * 1e6 or None

    def ratios(self) -> tuple[float, float] | None:
        """Return the rate by the limit's and the limit's cost by the own one (0: not known); None without a limit."""
        if not self.around:
            return None
        pairs = list(zip(self.runs, self.around, strict=True))
        return (
            median(run.rate / limit.rate for run, limit in pairs),
            median(limit.cost / run.cost if run.cost else 0.0 for run, limit in pairs),
        )

    def latency(self) -> Any:
        """Return the latencies as a caller with a schedule would see them."""
        whole = self.outcome.whole_latency()
        return whole if self.phase.rate else corrected(whole)


def phases(seconds: float, senders: int) -> list[tuple[Phase, str]]:
    """Return the closed loops and what each is compared with."""
    # Batches: one that is answered and one that waits.
    few = 2

    def one(name: str, how_many: int, limit: str = "") -> tuple[Phase, str]:
        return Phase(name, {name: 1.0}, seconds, how_many), limit

    found = [one("echo", senders), *(one(name, senders, "echo") for name in UNARY)]
    for detail in ("DRG", "full"):
        name = f"BatchGroupDrg, {detail}"
        inside = f"in process, {detail}"
        found += [
            (Phase(inside, {name: 1.0}, seconds, 1, client="process"), ""),
            one(name, few, inside),
            (Phase(f"engine.client, {detail}", {name: 1.0}, seconds, 1, client="dicts"), inside),
        ]
    found.append(one("StreamGroupDrg, full", few, "in process, full"))
    found += [one(name, few) for name in ("BatchValidateCodes", "BatchEditClaims", "BatchScoreHcc")]
    found.append((Phase("mixed", CLAIM_SYSTEM, seconds, senders), ""))
    return found


def measure(server: Serving, arguments: argparse.Namespace, workers: int, console: Console) -> list[Figure]:
    """Run all phases on ``server``: closed loops in rounds, then open loops at shares of the rates found."""
    figures = [Figure(workers, phase, limit) for phase, limit in phases(arguments.seconds, arguments.senders * workers)]
    named = {figure.phase.name: figure for figure in figures}

    def run(figure: Figure) -> None:
        before = server.cpu_seconds()
        outcome = load.run(figure.phase)
        figure.add(outcome, server.cpu_seconds() - before)

    with clients(server.target, arguments.store, arguments.clients) as load:
        for figure in figures:
            # Connections, packs and expected answers are made before it counts.
            load.run(Phase(figure.phase.name, figure.phase.mix, 1.0, figure.phase.senders, client=figure.phase.client))
        for round_ in range(arguments.rounds):
            for figure in figures:
                run(figure)
                if figure.limit:
                    limit = named[figure.limit]
                    before = limit.runs[-1]
                    run(limit)
                    figure.compare(before, limit.runs[-1])
            console.print(f"{workers} worker(s): round {round_ + 1} of {arguments.rounds} done", style="dim")
        seconds = min(arguments.seconds * arguments.rounds, 30.0)
        for name in ("GroupDrg", "mixed"):
            closed = named[name]
            for share in OPEN_SHARES:
                rate = arguments.rate or share * median(closed.calls)
                phase = Phase(f"{name}, open loop, {rate:,.0f}/s", closed.phase.mix, seconds, rate=rate)
                figures.append(Figure(workers, phase))
                run(figures[-1])
                if arguments.rate:
                    break
    return figures


HEADINGS = (
    "workers", "what", "calls/s", "items/s", "µs", "to", "rate", "per core", "50 %", "90 %", "99 %", "99.9 %", "max",
    "errors", "late", "compared", "decoded",
)  # fmt: skip


def rows(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    """Return the cells of the table. Latencies are in milliseconds."""
    found = []
    for figure in figures:
        latency, cost = figure.latency(), figure.cost()
        ratios = figure.ratios()
        outcome = figure.outcome
        found.append(
            (
                str(figure.workers) if figure.phase.client != "process" else "",
                figure.phase.name,
                f"{median(figure.calls):,.0f}" if median(figure.calls) >= 10 else f"{median(figure.calls):.1f}",
                f"{figure.rate:,.0f}",
                "" if cost is None else f"{cost:,.1f}",
                figure.limit,
                f"{ratios[0]:.2f}" if ratios else "",
                f"{ratios[1]:.2f}" if ratios and ratios[1] else "",
                *(f"{latency.get_value_at_percentile(p) / 1000:,.2f}" for p in PERCENTILES),
                f"{latency.get_max_value() / 1000:,.1f}",
                ", ".join(f"{count} {code}" for code, count in sorted(outcome.errors.items())) or "0",
                str(outcome.late) if figure.phase.rate else "",
                f"{outcome.compared:,}",
                f"{outcome.decoded:,}",
            )
        )
    return found


def notes(arguments: argparse.Namespace) -> list[str]:
    """Return what has to be known to read the table."""
    return [
        f"{os.cpu_count()} cores for the server, {arguments.clients} client process(es) and whatever else ran; "
        f"{platform.python_implementation()} {platform.python_version()}; medians over {arguments.rounds} rounds of "
        f"{arguments.seconds:g} s.",
        "Latencies in ms. Closed loops: corrected for coordinated omission with the median as the interval. Open "
        "loops: from the moment a call was due; late: sent later than that because too many were waiting.",
        "echo: an empty message, sent back.",
        "µs: processor time an item (call, claim or code), the server's alone except in process. rate: items/s by "
        "those of the limit right before and after. per core: the limit's processor time likewise by this one's.",
        "compared: items whose answer was compared with the reference (CMS's, or the engine's in process); decoded: of "
        "these, those compared field by field, the others by the bytes of one compared so.",
    ]


def picture(figures: Sequence[Figure], path: Path) -> None:
    """Draw rates as bars, and for each number of workers latencies by percentile."""
    plt = _pyplot()
    numbers = sorted({figure.workers for figure in figures})
    size = (8 + 6 * len(numbers), 0.3 * len(figures) + 2.5)
    fig, (left, *others) = plt.subplots(1, 1 + len(numbers), figsize=size, layout="constrained")
    labels = [f"{f.phase.name} ({f.workers})" if len(numbers) > 1 else f.phase.name for f in figures]
    colours = [
        "#b9b9b9" if f.phase.name.startswith("echo") or f.phase.client == "process" else "#24628f" for f in figures
    ]
    left.barh(range(len(figures)), [f.rate for f in figures], color=colours)
    for place, figure in enumerate(figures):
        left.text(figure.rate, place, f" {figure.rate:,.0f}", va="center", fontsize=7)
    left.set_xscale("log")
    left.set_yticks(range(len(figures)), labels, fontsize=7)
    left.invert_yaxis()
    left.margins(x=0.15, y=0.01)
    left.set_xlabel(
        "items (calls, claims, codes) a second; grey: limits" + "; in brackets: workers" * (len(numbers) > 1)
    )
    # What a percentile leaves out, so that the axis is logarithmic in the rest.
    tails = [1 - p / 100 for p in (50, 75, 90, 95, 99, 99.5, 99.9, 99.99)]
    for workers, right in zip(numbers, others, strict=True):
        right.sharey(others[0])
        for figure in figures:
            if figure.workers != workers or figure.phase.client != "wire":
                continue
            latency = figure.latency()
            values = [latency.get_value_at_percentile(100 * (1 - tail)) / 1000 for tail in tails]
            style = "-" if figure.phase.rate else "--"
            right.plot(tails, values, label=figure.phase.name, linestyle=style, linewidth=1.2)
        right.set_xscale("log")
        right.invert_xaxis()
        right.set_yscale("log")
        right.set_xticks([0.5, 0.1, 0.01, 0.001, 0.0001], ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
        right.set_xlabel("percentile of calls (dashed: closed loop, corrected; solid: open loop)")
        right.set_ylabel("ms")
        right.set_title(f"latency, {workers} worker{'s' * (workers > 1)}", fontsize=9)
        right.grid(alpha=0.3)
        right.legend(fontsize=7, loc="lower right")
    fig.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(fig)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    return plt


def _show(console: Console, title: str, headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Print a table; return it in Markdown."""
    table = Table(title=title)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if heading in ("what", "to", "errors") or i == 0 else "right")
    for row in cells:
        table.add_row(*row)
    console.print(table)
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *cells))


def _write(path: Path, parts: Sequence[str]) -> None:
    command = " ".join(["python -m benchmarks.load", *sys.argv[1:]])
    path.write_text("\n\n".join([*parts, f"`{command}`"]) + "\n", encoding="utf-8")
    print(f"{path}; again with: {command}")


def run_load(arguments: argparse.Namespace, console: Console) -> list[str]:
    """Measure, show and write; return what is wrong."""
    figures: list[Figure] = []
    for workers in arguments.workers:
        there = nullcontext(Serving(arguments.target, None)) if arguments.target else None
        with there or serving(workers, arguments.store) as server:
            figures += measure(server, arguments, workers, console)
    markdown = _show(console, "codeset-engine under load", HEADINGS, rows(figures))
    said = notes(arguments)
    console.print("\n".join(said))
    if find_spec("matplotlib"):
        picture(figures, arguments.output / "load.svg")
    _write(arguments.output / "load.md", [markdown, *said])
    errors = sum((figure.outcome.errors for figure in figures), start=Outcome().errors)
    return [f"{count} calls ended with {code}" for code, count in sorted(errors.items())]


def run_soak(arguments: argparse.Namespace, console: Console) -> list[str]:
    """Soak, show and write; return what is wrong."""
    (workers,) = arguments.workers[:1]
    done = soak(
        arguments.soak,
        workers=workers,
        store=arguments.store,
        client_count=arguments.clients,
        senders=arguments.senders,
    )
    outcome = done.outcome
    cells = []
    for name, latency in outcome.latency.items():
        whole = corrected(latency)
        cells.append(
            (
                name,
                f"{outcome.calls[name]:,}",
                f"{outcome.calls[name] / outcome.seconds:,.1f}",
                *(f"{whole.get_value_at_percentile(p) / 1000:,.1f}" for p in PERCENTILES),
                f"{whole.get_max_value() / 1000:,.1f}",
            )
        )
    headings = ("what", "calls", "calls/s", *(f"{p:g} %" for p in PERCENTILES), "max")
    calls = _show(console, f"{outcome.seconds:,.0f} s of mixed load, {workers} worker(s)", headings, cells)
    memory = _show(
        console,
        "private memory, without mapped packs",
        ("what", "start, MiB", "median, MiB", "end, MiB", "growth, MiB", "flat"),
        [
            (
                kept.who,
                f"{kept.private[0] / 2**20:.1f}",
                f"{kept.level(done.warm_up) / 2**20:.1f}",
                f"{kept.private[-1] / 2**20:.1f}",
                f"{kept.growth(done.warm_up) / 2**20:+.2f}",
                "yes" if kept.is_flat(done.warm_up) else "NO",
            )
            for kept in done.memory
        ],
    )
    said = [
        f"{sum(outcome.calls.values()):,} calls, {outcome.items:,} items ({outcome.items / outcome.seconds:,.0f}/s), "
        f"{sum(outcome.errors.values())} errors; {outcome.compared:,} answers compared with the reference, "
        f"{outcome.decoded:,} of them field by field. The server took {done.cpu:.2f} cores of {os.cpu_count()}.",
        f"Growth: slope of Theil and Sen over {outcome.seconds - done.warm_up:.0f} s, after {done.warm_up:.0f} s of "
        "warm-up. Latencies in ms, corrected for coordinated omission.",
    ]
    console.print("\n".join(said))
    if find_spec("matplotlib"):
        _soak_picture(done, arguments.output / "soak.svg")
    samples = {kept.who: {"seconds": kept.seconds, "private": kept.private} for kept in done.memory}
    (arguments.output / "soak.json").write_text(json.dumps(samples))
    _write(arguments.output / "soak.md", [calls, memory, *said])
    return done.faults()


def _soak_picture(done: Soak, path: Path) -> None:
    plt = _pyplot()
    fig, axes = plt.subplots(figsize=(10, 4), layout="constrained")
    for kept in done.memory:
        axes.plot(kept.seconds, [private / 2**20 for private in kept.private], label=kept.who, linewidth=1)
    axes.axvspan(0, done.warm_up, color="#b9b9b9", alpha=0.3, label="warm-up")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("s")
    axes.set_ylabel("private memory, MiB")
    axes.legend()
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)


def _target(text: str) -> str:
    try:
        return loopback(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.load", description="Put load on a server of this machine.")
    parser.add_argument(
        "--target", type=_target, help="loopback host:port of a server that is there; default: start one"
    )
    parser.add_argument(
        "--store", type=Path, help="packs of the server; default: $CODESET_ENGINE_PACKS or the built ones"
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=None, help="numbers of server processes; default: 1 and 2"
    )
    parser.add_argument("--clients", type=int, default=1, help="client processes")
    parser.add_argument("--senders", type=int, default=24, help="calls under way in a closed loop, for each worker")
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds of a run")
    parser.add_argument("--rounds", type=int, default=12, help="runs of each closed loop")
    parser.add_argument("--rate", type=float, default=0.0, help="calls a second of the open loops; default: shares")
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="soak instead")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="DIR", help="where to write; default: build/bench"
    )
    arguments = parser.parse_args()
    if arguments.workers is None:
        arguments.workers = [1, 2] if workers_supported() and not arguments.soak and not arguments.target else [1]
    for name, least, most in (
        ("clients", 1, 16), ("senders", 1, 64), ("seconds", 0.1, 120), ("rounds", 1, 100), ("rate", 0, 1e6),
    ):  # fmt: skip
        if not least <= getattr(arguments, name) <= most:
            parser.error(f"--{name}: expected {least} to {most:g}, got {getattr(arguments, name):g}")
    if not all(1 <= workers <= 16 for workers in arguments.workers):
        parser.error(f"--workers: expected 1 to 16, got {arguments.workers}")
    if arguments.soak is not None and not 1 <= arguments.soak <= 840:
        parser.error(f"--soak: expected 1 to 840 seconds, got {arguments.soak:g}")
    return arguments


def main() -> None:
    arguments = _arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    faults = (run_soak if arguments.soak else run_load)(arguments, console)
    for fault in faults:
        console.print(fault, style="bold red")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
