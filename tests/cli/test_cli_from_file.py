"""build --from: packs of official files given by path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

TABLE_5 = """TABLE 5: FY 2026 Final Rule
MS-DRG,Post-Acute DRG,Special Pay DRG,MDC,TYPE,MS-DRG Title,Weights,Geometric mean LOS,Arithmetic mean LOS
291,Yes,No,05,MED,HEART FAILURE,1.2838,3.8,5.0
998,No,No,,**,INVALID,.,.,.
"""
ORDER = """00001 A00     0 Leaks                                                        Leaks of teapots
00002 A000    1 Leak of spout                                                Leak of the spout of a teapot
"""


@pytest.fixture
def table_5(tmp_path: Path) -> Path:
    """A made-up Table 5."""
    path = tmp_path / "table5.csv"
    path.write_text(TABLE_5)
    return path


def test_weights_are_built_once(run, tmp_path, table_5):
    first = run("build", "msdrg-weights", "--from", table_5, "--store", tmp_path / "packs")
    assert first.status == 0, first.err
    assert "msdrg-weights/2026" in first.out
    assert "1 pack built" in first.out
    assert "built msdrg-weights/2026 (1 of 1)" in first.err
    second = run("build", "msdrg-weights/2026", "--from", table_5, "--store", tmp_path / "packs")
    assert "1 pack kept" in second.out
    arguments = ("build", "msdrg-weights", "--from", table_5, "--store", tmp_path / "packs", "--force", "--json")
    (release,) = json.loads(run(*arguments).out)["releases"]
    assert release["built"]
    assert (release["kind"], release["effective_from"], release["effective_to"]) == ("weights", 20251001, 20260930)
    assert release["sources"][0]["file"] == "table5.csv"
    assert run("verify", "--store", tmp_path / "packs").status == 0


def test_an_order_file_with_its_days(run, tmp_path):
    (tmp_path / "order.txt").write_text(ORDER)
    store = tmp_path / "packs"
    found = run(
        "build", "icd10cm/2028", "--from", tmp_path / "order.txt", "--store", store,
        "--effective-from", "2027-10-01", "--effective-to", "20280331",
    )  # fmt: skip
    assert found.status == 0, found.err
    assert run("validate", "icd10cm", "A00.0", "--date", "2028-01-01", "--store", store).status == 0


def test_a_file_without_a_grouper(run, tmp_path, table_5):
    found = run("build", "msdrg", "--from", table_5, "--store", tmp_path / "packs")
    assert found.status == 2
    assert found.err.startswith("SOURCE_FORMAT: table5.csv: ")
    assert found.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["build", "--from", "x"], "INVALID_FIELD: --from takes one system or release"),
        (["build", "msdrg", "icd10cm", "--from", "x"], "INVALID_FIELD: --from takes one system or release"),
        (["build", "msdrg/45.0", "--from", "nowhere.jar"], "SOURCE_UNAVAILABLE: nowhere.jar"),
        (["build", "icd10cm/2028", "--tabular", "x"], "INVALID_FIELD: --tabular, --effective-from"),
        (["build", "icd10cm/2028", "--from", "x"], "INVALID_FIELD: an order file does not tell the days"),
        (["build", "icd10cm/2028", "--from", "x", "--effective-from", "soon"], "INVALID_DATE: --effective-from"),
        (["build", "msdrg/", "--from", "x"], "UNKNOWN_RELEASE: msdrg has no release ''"),
        (["build", "icd11", "--from", "x"], "UNKNOWN_SYSTEM: "),
    ],
)
def test_what_cannot_be_built(run, arguments, error):
    found = run(*arguments)
    assert found.status == 2
    assert found.err.startswith(error)
    assert found.out == ""


def test_weights_are_in_the_answers(run):
    claim = json.dumps({"version": "43.1", "diagnoses": ["I5021", "J189"], "discharge_status": 1})
    found = run("group", "drg", "-", stdin=f"{claim}\n".encode())
    assert found.status == 0, found.err
    assert json.loads(found.out)["final_grouping"]["weight"] == {
        "release": "2026",
        "relative_weight": "1.2838",
        "weight_before_cap": "1.2838",
        "geometric_mean_los": "3.8",
        "arithmetic_mean_los": "5.0",
        "post_acute_transfer": True,
        "special_pay": False,
    }
