"""Fixtures of the importer tests."""

from __future__ import annotations

import pytest
from source_survey import Survey

from codesets import fetch


@pytest.fixture(scope="session")
def survey() -> Survey:
    """Every release of ICD-10-CM and ICD-10-PCS, imported from the pinned sources and compared with the oracle."""
    return Survey(fetch.default_cache())
