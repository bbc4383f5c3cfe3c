"""Opening: the default library with a first answer, and building one release from its sources."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from codesets import build, catalog

Measure = Callable[..., Any]


@pytest.mark.benchmark(group="open the default library and answer one question")
def test_open(measure: Measure, library: engine.Library) -> None:
    def run() -> Any:
        return engine.open(library.store).validate("icd10cm", "A00.0", date=20260501)

    assert measure(run, unit="opens", budget=1 / 0.050, rounds=15).valid


@pytest.mark.benchmark(group="open the default library and answer one question")
def test_open_simple_icd_10_cm(measure: Measure) -> None:
    """Importing it reads its tables; in a process of its own each time, the start of Python taken off."""
    question = "import simple_icd_10_cm as cm; assert cm.is_valid_item('A00.0')"

    def run() -> None:
        subprocess.run([sys.executable, "-c", question], check=True)

    measure(run, unit="opens", who="simple-icd-10-cm (new process)", rounds=3)


@pytest.mark.benchmark(group="open the default library and answer one question")
def test_open_in_a_new_process(measure: Measure, library: engine.Library) -> None:
    """The same as for the peer, the import of NumPy included."""
    question = "import engine; assert engine.open().validate('icd10cm', 'A00.0', date=20260501).valid"

    def run() -> None:
        subprocess.run([sys.executable, "-c", question], check=True)

    measure(run, unit="opens", who="engine (new process)", rounds=5)


@pytest.mark.benchmark(group="build one ICD-10-CM release")
def test_build(measure: Measure, library: engine.Library, tmp_path: Path) -> None:
    target = catalog.parse(["icd10cm/2026-04"])

    def run() -> Any:
        return build.build(target, tmp_path, replace=True)

    (built,) = measure(run, unit="releases", budget=1 / 3, rounds=3)
    assert built.built
    fresh = engine.open(tmp_path).code_system("icd10cm", release="2026-04")
    known = library.code_system("icd10cm", release="2026-04")
    assert (fresh.valid_codes() == known.valid_codes()).all()
