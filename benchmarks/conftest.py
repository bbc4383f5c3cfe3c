"""What the benchmarks share: the packs `make setup` built, the reference claims, and how a figure is labelled."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
WHOLE_GOLDEN = Path(__file__).parents[2] / "shared" / "golden"


@pytest.fixture(scope="session")
def library() -> engine.Library:
    """The default library."""
    return engine.open()


def _read(name: str) -> list[dict[str, Any]]:
    directory = WHOLE_GOLDEN if (WHOLE_GOLDEN / name).is_file() else GOLDEN
    with lzma.open(directory / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_answers(model: str, kind: str) -> list[dict[str, Any]]:
    """Members of a risk adjustment model, or the reference answers to them (``kind`` "members" or "answers")."""
    if (WHOLE_GOLDEN / f"hcc_{model}_{kind}.ndjson.xz").is_file():
        return _read(f"hcc_{model}_{kind}.ndjson.xz")
    return [entry for entry in _read(f"hcc_{kind}.ndjson.xz") if entry["model"] == model.upper()]


def risk_members(model: str, count: int) -> list[dict[str, Any]]:
    """Members of a risk adjustment model with ten diagnoses on average: the reference members, over and over.

    Those have seven; some get more, that map to nothing of the model or again.
    """
    members = [
        member | {"diagnoses": (member["diagnoses"] * 2)[: len(member["diagnoses"]) + 3]}
        for member in read_answers(model, "members")
    ]
    return (members * (count // len(members) + 1))[:count]


@pytest.fixture(scope="session")
def claims() -> list[dict[str, Any]]:
    """The reference claims: 5 to 6 diagnoses and 2 procedures on average."""
    return _read("inpatient_claims.ndjson.xz")


@pytest.fixture(scope="session")
def answers() -> list[dict[str, Any]]:
    """What the CMS software answers to ``claims``."""
    return _read("msdrg_answers.ndjson.xz")


@pytest.fixture(scope="session")
def edit_answers() -> list[dict[str, Any]]:
    """What the CMS code editor answers to ``claims``."""
    return _read("mce_answers.ndjson.xz")


@pytest.fixture
def measure(benchmark: Any) -> Callable[..., Any]:
    """Return ``measure(function, items=…, unit=…, who=…, budget=…, rounds=…)``: run, label, return the last answer.

    ``who``: "engine", or the name of a peer or limit. ``budget``: items a second the design asks for (None: no
    budget); for a single long action ``items`` is 1 and ``budget`` 1 / seconds. ``agreement``: share of right
    answers, for peers that are not always right.
    """

    def run(
        function: Callable[[], Any],
        *,
        items: int = 1,
        unit: str = "",
        who: str = "engine",
        budget: float | None = None,
        rounds: int = 7,
        iterations: int = 1,
        agreement: float | None = None,
    ) -> Any:
        benchmark.extra_info.update(items=items, unit=unit, who=who, budget=budget, agreement=agreement)
        return benchmark.pedantic(function, rounds=rounds, iterations=iterations, warmup_rounds=1)

    return run
