"""Relative weights: their packs, and how they come with a DRG."""

from __future__ import annotations

import dataclasses
import shutil
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine import errors, pack
from engine.compile_weights import compile_weights
from engine.tables import Source, WeightRow, WeightTables
from engine.weights import DrgWeight, DrgWeights

ROWS = [
    WeightRow(291, 12838, 12838, 38000, 50000, True, False),
    WeightRow(1, 280239, None, 258125, None, None, True),
]
CLAIM = {"version": "43.1", "diagnoses": ["I5021", "J189"], "discharge_status": 1}


def write(store: Path, rows: list[WeightRow] = ROWS, change: Any = None, release: str = "2026") -> Path:
    year = int(release)
    tables = WeightTables(
        release, (year - 1) * 10000 + 1001, year * 10000 + 930, rows, [Source("", "", "", "x", "", ())]
    )
    arrays, facts = compile_weights(tables)
    if change is not None:
        arrays = change(arrays)
    return pack.write_pack(
        store, system="msdrg-weights", release=release, kind="weights", effective_from=tables.effective_from,
        effective_to=tables.effective_to, arrays=arrays, facts=facts, sources=tables.sources, replace=True,
    )  # fmt: skip


def test_numbers_are_the_published_ones(tmp_path: Path) -> None:
    weights = DrgWeights(pack.open_pack(write(tmp_path)))
    assert list(weights) == [1, 291]
    assert len(weights) == 2
    assert weights[291] == DrgWeight(
        "2026", 291, Decimal("1.2838"), Decimal("1.2838"), Decimal("3.8"), Decimal("5.0"), True, False
    )
    assert 470 not in weights
    assert weights.release == "2026"
    assert repr(weights) == "<MS-DRG weights of FY2026: 2 DRGs>"


def test_what_the_table_does_not_say_is_left_out(tmp_path: Path) -> None:
    weights = DrgWeights(pack.open_pack(write(tmp_path)))
    assert weights[1].weight_before_cap is weights[1].arithmetic_mean_los is weights[1].post_acute_transfer is None
    assert weights[1].to_dict() == {
        "release": "2026",
        "relative_weight": "28.0239",
        "geometric_mean_los": "25.8125",
        "special_pay": True,
    }
    assert weights[291].to_dict() == {
        "release": "2026",
        "relative_weight": "1.2838",
        "weight_before_cap": "1.2838",
        "geometric_mean_los": "3.8",
        "arithmetic_mean_los": "5.0",
        "post_acute_transfer": True,
        "special_pay": False,
    }


def test_numbers_do_not_depend_on_the_callers_arithmetic(tmp_path: Path) -> None:
    with localcontext() as context:
        context.prec = 2
        found = DrgWeights(pack.open_pack(write(tmp_path)))[1]
    assert (str(found.relative_weight), str(found.geometric_mean_los)) == ("28.0239", "25.8125")


def test_compiling_refuses_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(errors.SourceFormatError, match="DRG 291 has two rows"):
        write(tmp_path, [ROWS[0], ROWS[0]._replace(special_pay=None)])
    for change in ({"drg": 1000}, {"relative_weight": 10_000_000}, {"geometric_mean_los": -2}):
        with pytest.raises(errors.SourceFormatError, match="in the weights of 2026"):
            write(tmp_path, [ROWS[0]._replace(**change)])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("drg", np.array([291, 1], "<i2")),
        ("drg", np.array([1, 1000], "<i2")),
        ("drg", np.array([-1, 1], "<i2")),
        ("relative_weight", np.array([-1, 5], "<i4")),
        ("relative_weight", np.array([1, 2, 3], "<i4")),
        ("relative_weight", np.array([1, 2], "<i8")),
        ("geometric_mean_los", np.array([-2, 5], "<i4")),
        ("weight_before_cap", np.array([10_000_000, 5], "<i4")),
        ("special_pay", np.array([2, 0], "i1")),
    ],
)
def test_arrays_that_cannot_be_right_are_refused(tmp_path: Path, name: str, values: Any) -> None:
    path = write(tmp_path, change=lambda arrays: arrays | {name: values})
    with pytest.raises(errors.PackCorruptError, match=f"{name}.npy"):
        DrgWeights(pack.open_pack(path))


# --- in a library ---------------------------------------------------------------------------------------------------


def weight(library: engine.Library, **changes: Any) -> DrgWeight | None:
    result = library.group_drg(CLAIM | changes)
    assert result.final_grouping is not None
    return result.final_grouping.weight


def test_weights_come_with_the_versions_of_their_year(store: Path) -> None:
    library = engine.open(store)
    for version, expected in (("42.1", None), ("43.0", "1.2838"), ("43.1", "1.2838"), ("44.0", None)):
        found = weight(library, version=version)
        assert (found and str(found.relative_weight)) == expected
    by_date = weight(library, version="", discharge_date=20251001)
    assert by_date == weight(library) == library.drg_weights(date=20251001)[291]
    assert by_date is not None
    assert by_date.post_acute_transfer
    initial = library.group_drg(CLAIM).initial_grouping
    assert initial is not None
    assert initial.weight == by_date
    # Ungroupable: DRG 999 has none.
    assert weight(library, diagnoses=[]) is None


def test_every_answer_has_the_weight_of_its_drg(store: Path, sample: Any) -> None:
    library = engine.open(store)
    weights = library.drg_weights("2026")
    shown = 0
    for result in library.group_drg_many(sample.claims):
        for grouping in (result.initial_grouping, result.final_grouping):
            expected = weights.get(grouping.drg) if result.version in ("43.0", "43.1") else None
            assert grouping.weight == expected
            shown += expected is not None
    assert shown > 500


def test_as_a_dict(store: Path) -> None:
    library = engine.open(store)
    found = library.group_drg(CLAIM).to_dict()["final_grouping"]["weight"]
    assert found["relative_weight"] == "1.2838"
    assert "weight" not in library.group_drg(CLAIM | {"version": "42.0"}).to_dict()["final_grouping"]


def test_no_weights_in_the_store(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store / "msdrg" / "43.1", tmp_path / "msdrg" / "43.1")
    library = engine.open(tmp_path)
    assert weight(library) is None
    with pytest.raises(errors.UnknownSystemError, match="msdrg-weights"):
        library.drg_weights()


def test_damaged_weights_are_listed_and_no_reason_not_to_group(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store / "msdrg" / "43.1", tmp_path / "msdrg" / "43.1")
    path = write(tmp_path)
    data = bytearray((path / "relative_weight.npy").read_bytes())
    data[-1] ^= 1
    (path / "relative_weight.npy").write_bytes(data)
    library = engine.open(tmp_path)
    assert weight(library) is None
    assert [failed.name for failed, _ in library.unusable] == ["2026"]
    with pytest.raises(errors.PackCorruptError):
        library.drg_weights("2026")


def test_choosing_weights(store: Path, tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, [ROWS[0]._replace(relative_weight=13000)], release="2027")
    shutil.copytree(store / "msdrg" / "44.0", tmp_path / "msdrg" / "44.0")
    library = engine.open(tmp_path)
    assert str(library.drg_weights("2027")[291].relative_weight) == "1.3000"
    assert library.drg_weights(date="20260930").release == "2026"
    found = weight(library, version="44.0")
    assert found is not None
    assert str(found.relative_weight) == "1.3000"
    with pytest.raises(errors.UnknownReleaseError):
        library.drg_weights("2028")
    with pytest.raises(errors.DateOutsideCoverageError):
        library.drg_weights(date=20280101)
    with pytest.raises(errors.UnknownSystemError, match="holds no codes"):
        library.code_system("msdrg-weights")


def test_weights_are_keys_and_cannot_be_changed(tmp_path: Path) -> None:
    one, other = (DrgWeights(pack.open_pack(write(tmp_path)))[291] for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != dataclasses.replace(one, relative_weight=Decimal(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.drg = 1  # type: ignore[misc]
