"""Is this code valid on this date: one at a time, as a list of strings, as a packed array. Peers: simple-icd-10-cm, a
Python set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import engine

Measure = Callable[..., Any]
COUNT = 1_000_000
DATE = 20260501


@pytest.fixture(scope="module")
def system(library: engine.Library) -> engine.CodeSystem:
    return library.code_system("icd10cm", date=DATE)


@pytest.fixture(scope="module")
def valid(library: engine.Library) -> set[str]:
    """All valid ICD-10-CM codes of the day. The tests compare this list with the source, day by day."""
    return {code.decode() for code in library.code_system("icd10cm", date=DATE).valid_codes(DATE).tolist()}


@pytest.fixture(scope="module")
def codes(valid: set[str]) -> list[str]:
    """A million codes in random order, nine in ten valid, each a string of its own."""
    random = np.random.default_rng(1)
    known = np.array(sorted(valid))
    drawn = random.choice(known, COUNT)
    spoilt = random.random(COUNT) < 0.1
    return [f"{code[:-1]}?" if bad else str(code) for code, bad in zip(drawn, spoilt, strict=True)]


@pytest.mark.benchmark(group="validate ICD-10-CM, packed array")
def test_packed(measure: Measure, system: engine.CodeSystem, codes: list[str], valid: set[str]) -> None:
    packed = np.array(codes, "S8")
    statuses = measure(lambda: system.validate_many(packed, DATE), items=COUNT, unit="codes", budget=100e6)
    assert ((statuses == engine.Status.VALID) == np.array([code in valid for code in codes])).all()


@pytest.mark.benchmark(group="validate ICD-10-CM, list of strings")
def test_list(measure: Measure, system: engine.CodeSystem, codes: list[str], valid: set[str]) -> None:
    statuses = measure(lambda: system.validate_many(codes, DATE), items=COUNT, unit="codes", budget=40e6)
    assert ((statuses == engine.Status.VALID) == np.array([code in valid for code in codes])).all()


@pytest.mark.benchmark(group="validate ICD-10-CM, list of strings")
def test_list_python_set(measure: Measure, codes: list[str], valid: set[str]) -> None:
    found = measure(lambda: [code in valid for code in codes], items=COUNT, unit="codes", who="Python set", rounds=5)
    assert sum(found) > 0.8 * COUNT


@pytest.mark.benchmark(group="validate ICD-10-CM, list of strings")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of how the peer opens its data
def test_list_simple_icd_10_cm(measure: Measure, codes: list[str]) -> None:
    import simple_icd_10_cm

    some = codes[:50_000]
    found = measure(
        lambda: [simple_icd_10_cm.is_valid_item(code) for code in some],
        items=len(some),
        unit="codes",
        who="simple-icd-10-cm",
        rounds=5,
    )
    assert sum(found) > 0.8 * len(some)


@pytest.mark.benchmark(group="validate ICD-10-CM, one call")
def test_one(measure: Measure, system: engine.CodeSystem) -> None:
    calls = ["A000", "I5021", "S52001A", "Z999", "U071"] * 200

    def run() -> int:
        status = system.status
        for code in calls:
            status(code)
        return int(status("A000"))

    assert measure(run, items=len(calls) + 1, unit="codes", budget=5e6, iterations=20) == engine.Status.VALID


@pytest.mark.benchmark(group="validate ICD-10-CM, one call")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of how the peer opens its data
def test_one_simple_icd_10_cm(measure: Measure) -> None:
    import simple_icd_10_cm

    calls = ["A000", "I5021", "S52001A", "Z999", "U071"] * 200

    def run() -> bool:
        check = simple_icd_10_cm.is_valid_item
        for code in calls:
            check(code)
        return bool(check("A000"))

    assert measure(run, items=len(calls) + 1, unit="codes", who="simple-icd-10-cm", iterations=5)
