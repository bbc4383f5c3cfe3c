"""The MS-DRG grouper against the answers of the CMS software, against a plain-Python oracle, and against bad
input."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msdrg_oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from codesets import msdrg
from engine import drg, errors, pack
from engine.compile_msdrg import compile_msdrg
from engine.tables import Cluster, DiagnosisAttributes, Formula, MsdrgTables, Source

SOURCE = Source("", "", "", "made up", "", ("everything",))


@pytest.fixture(scope="module")
def library(store: Path) -> engine.Library:
    return engine.open(store)


# --- the reference --------------------------------------------------------------------------------------------------


def test_every_output_field_is_that_of_the_reference(
    library: engine.Library, golden: Any, without_prefix: Callable[[Any], Any]
) -> None:
    results = library.group_drg_many(golden.claims)
    assert not results.errors
    for result, answer in zip(results, golden.answers, strict=True):
        assert without_prefix(result.to_dict()) == answer


def test_the_sample_reaches_every_drg_of_the_versions_it_covers(sample: Any) -> None:
    assert len(sample.claims) >= 3000
    reached = {answer["final_grouping"]["drg"] for answer in sample.answers}
    # 799 distinct DRGs are what the whole set of 43,824 claims reaches, over all versions.
    assert len(reached) == 799


def test_less_detail_is_the_same_answer_without_the_codes(library: engine.Library, sample: Any) -> None:
    full = library.group_drg_many(sample.claims)
    brief = library.group_drg_many(sample.claims, drg.GroupingOptions(detail=drg.Detail.DRG))
    assert (full.table == brief.table).all()
    assert brief[0].diagnoses == ()
    assert len(full[0].diagnoses) == len(sample.claims[0]["diagnoses"])


def test_the_version_is_chosen_by_discharge_date(library: engine.Library) -> None:
    days = {20221001: "40.0", 20230930: "40.1", 20231001: "41.0", 20260401: "43.1", 20270331: "44.0"}
    claims = [{"discharge_date": day, "diagnoses": ["I5021"]} for day in days]
    assert [result.version for result in library.group_drg_many(claims)] == list(days.values())


def test_titles_are_those_of_the_version(library: engine.Library) -> None:
    result = library.group_drg({"version": "43.1", "diagnoses": ["I50.21", "J18.9"], "discharge_status": 1})
    assert result.final_grouping is not None
    assert result.final_grouping.drg == 291
    assert result.final_grouping.drg_title == "Heart Failure and Shock with MCC"
    assert result.final_grouping.mdc_title == "Diseases and Disorders of the Circulatory System"


def test_a_claim_without_diagnoses_answers_invalid_pdx(library: engine.Library) -> None:
    for claim in (
        {"version": "43.1"},
        {"version": "43.1", "diagnoses": [], "poa": ""},
        {"version": "40.0", "diagnoses": [""]},
    ):
        result = library.group_drg(claim)
        assert result.error is None
        assert result.final_grouping is not None
        assert result.final_grouping.return_code is drg.ReturnCode.INVALID_PDX
        assert (result.final_grouping.mdc, result.final_grouping.drg) == (0, 999)


@pytest.mark.parametrize("write", [str.lower, lambda c: f"{c[:3]}.{c[3:]}" if len(c) > 3 else c, lambda c: f" {c} "])
def test_dots_blanks_and_case_make_no_difference(
    library: engine.Library, sample: Any, write: Callable[[str], str]
) -> None:
    claims = [c for c in sample.claims[:500] if all(code.isupper() or code.isdigit() for code in c["diagnoses"])]
    written = [c | {"diagnoses": [write(code) for code in c["diagnoses"]]} for c in claims]
    assert (library.group_drg_many(claims).table == library.group_drg_many(written).table).all()


# --- what must not matter -------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_cannot_matter_does_not(library: engine.Library, sample: Any, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(sample.claims), min_size=1, max_size=30))
    answers = [result.to_dict() for result in library.group_drg_many(chosen)]
    order = data.draw(st.permutations(range(len(chosen))))
    changed = [
        chosen[i] | {"age": data.draw(st.integers(0, 124)), "length_of_stay": data.draw(st.integers(0, 999))}
        for i in order
    ]
    again = [result.to_dict() for result in library.group_drg_many(changed)]
    assert again == [answers[i] for i in order]


def test_threads_share_one_library(library: engine.Library, sample: Any) -> None:
    expected = library.group_drg_many(sample.claims)
    differing: list[int] = []

    def hammer(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(sample.claims))
        results = library.group_drg_many([sample.claims[i] for i in order])
        if not (results.table == expected.table[order]).all():
            differing.append(seed)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differing == []


# --- the oracle -----------------------------------------------------------------------------------------------------


def test_the_oracle_agrees_with_the_reference(blobs: Mapping[str, bytes], sample: Any) -> None:
    """The oracle below is only worth something if it is right itself."""
    tables = {version: msdrg.load_version(blobs, version, SOURCE) for version in ("40.0", "41.1", "43.1")}
    compared = 0
    for claim, answer in zip(sample.claims, sample.answers, strict=True):
        if claim["version"] in tables and compared < 600:
            compared += 1
            expected = answer["initial_grouping"]
            got = msdrg_oracle.initial_grouping(tables[claim["version"]], claim)
            assert got == (expected["mdc"], expected["drg"], expected["severity"], expected["return_code"])
    assert compared == 600


NAMES = ["alpha", "beta", "gamma", "delta", "dxc0101", "d468", "d477", "nonor"]
DX = [f"A{i:02d}" for i in range(12)]
PX = [f"0{i:02d}0000" for i in range(8)]


@st.composite
def formula_texts(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0 or draw(st.booleans()):
        prefix = draw(st.sampled_from(["", "", "PDX:", "SDX:", "ANY:"]))
        return prefix + draw(st.sampled_from([*NAMES, "MCC", "CC"] if not prefix else NAMES))
    if draw(st.integers(0, 4)) == 0:
        return "~" + draw(formula_texts(depth - 1)) if draw(st.booleans()) else f"~({draw(formula_texts(depth - 1))})"
    operator = draw(st.sampled_from([" & ", " | ", "&", "|"]))
    parts = draw(st.lists(formula_texts(depth - 1), min_size=2, max_size=3))
    text = operator.join(f"({part})" if draw(st.booleans()) else part for part in parts)
    return f"({text})"


@st.composite
def grouper_tables(draw: st.DrawFn) -> MsdrgTables:
    """Made-up tables of a grouper: one MDC, the unrelated list, and everything that decides a DRG but HACs."""
    names = st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(tuple)
    diagnoses = {
        code: DiagnosisAttributes(
            draw(st.sampled_from([1, 1, 1, 2])),
            draw(st.sampled_from(["MCC", "CC", "NCC"])),
            draw(names),
            (),
            draw(names),
        )
        for code in DX[:10]
    }
    clusters = {
        f"Z@{i:04d}": Cluster(
            draw(st.sampled_from([(1, 29), (99,), (0,)])),
            tuple((PX[2 * i + j], PX[2 * i + j + 1]) for j in (0, 1)),
        )
        for i in range(draw(st.integers(0, 2)))
    }
    procedures = {code: draw(names) for code in [*PX[:7], *clusters]}

    def rows(first_drg: int, reroutes: bool) -> list[Formula]:
        found = []
        for i in range(draw(st.integers(1, 6))):
            suppression = draw(st.lists(st.sampled_from(NAMES), max_size=2).map(tuple))
            to_list = 29 if reroutes and draw(st.integers(0, 5)) == 0 else 0
            number = 0 if to_list else first_drg + i
            found.append(Formula(i, number, number, "MEDICAL", to_list, draw(formula_texts()), suppression))
        return [*found, Formula(99, first_drg + 9, first_drg + 9, "MEDICAL", 0, "ANYDX", ())]

    return MsdrgTables(
        version="43.1",
        effective_from=20260401,
        effective_to=20260930,
        diagnoses=diagnoses,
        procedures=procedures,
        exclusions={code: draw(st.integers(0, 2)) for code in DX[:4]},
        exclusion_groups={i: tuple(draw(st.lists(st.sampled_from(DX), min_size=1, unique=True))) for i in range(3)},
        gender_mdcs={},
        clusters=clusters,
        formulas={
            0: [Formula(0, 0, 0, "NA", 0, "INVALID_PDX", ())],
            1: rows(10, True),
            2: rows(30, True),
            29: rows(50, False),
        },
        hac_formulas={},
        drg_titles={},
        mdc_titles={},
        hac_titles={},
        sources=[SOURCE],
    )


def open_made_up(tables: MsdrgTables, directory: Path) -> drg.MsdrgGrouper:
    arrays, facts = compile_msdrg(tables)
    path = pack.write_pack(
        directory, system="msdrg", release=tables.version, kind="msdrg", effective_from=tables.effective_from,
        effective_to=tables.effective_to, arrays=arrays, facts=facts, sources=tables.sources, replace=True,
    )  # fmt: skip
    return drg.MsdrgGrouper(pack.open_pack(path))


@settings(max_examples=120, deadline=None)
@given(tables=grouper_tables(), data=st.data())
def test_made_up_tables_group_as_the_oracle_does(
    tmp_path_factory: pytest.TempPathFactory, tables: MsdrgTables, data: st.DataObject
) -> None:
    grouper = open_made_up(tables, tmp_path_factory.mktemp("made-up"))
    for _ in range(5):
        claim = {
            "diagnoses": data.draw(st.lists(st.sampled_from(DX), min_size=1, max_size=6)),
            "procedures": data.draw(st.lists(st.sampled_from(PX), max_size=6)),
            "sex": "SEX_MALE",
            "discharge_status": data.draw(st.sampled_from([0, 1, 20])),
        }
        result = drg.group_many([claim], lambda version, date: grouper)[0]
        assert result.initial_grouping is not None
        got = result.initial_grouping
        expected = msdrg_oracle.initial_grouping(tables, claim)
        assert (got.mdc, got.drg, got.severity.name, got.return_code.name) == expected


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "error", "field"),
    [
        ({"version": "39.0", "diagnoses": ["A000"]}, errors.UnknownVersionError, "version"),
        ({"version": "forty", "diagnoses": ["A000"]}, errors.UnknownVersionError, "version"),
        ({"version": 43.1, "diagnoses": ["A000"]}, errors.InvalidFieldError, "version"),
        ({"diagnoses": ["A000"]}, errors.InvalidDateError, "discharge_date"),
        ({"discharge_date": 19991231, "diagnoses": ["A000"]}, errors.DateOutsideCoverageError, "discharge_date"),
        ({"discharge_date": 20260231, "diagnoses": ["A000"]}, errors.InvalidDateError, "discharge_date"),
        ({"version": "43.1", "diagnoses": ["A000"], "poa": "YY"}, errors.PoaLengthError, "poa"),
        ({"version": "43.1", "diagnoses": ["A000"], "poa": ["Y"]}, errors.InvalidFieldError, "poa"),
        ({"version": "43.1", "diagnoses": "A000"}, errors.InvalidFieldError, "diagnoses"),
        ({"version": "43.1", "diagnoses": ["A000", 7]}, errors.InvalidFieldError, "diagnoses"),
        ({"version": "43.1", "diagnoses": [None]}, errors.InvalidFieldError, "diagnoses"),
        ({"version": "43.1", "diagnoses": ["A000"], "procedures": 5}, errors.InvalidFieldError, "procedures"),
        ({"version": "43.1", "diagnoses": ["A000"], "sex": "F"}, errors.InvalidFieldError, "sex"),
        ({"version": "43.1", "diagnoses": ["A000"], "sex": True}, errors.InvalidFieldError, "sex"),
        ({"version": "43.1", "diagnoses": ["A000"], "age": "80"}, errors.InvalidFieldError, "age"),
        ({"version": "43.1", "diagnoses": ["A000"], "age": -1}, errors.InvalidFieldError, "age"),
        ({"version": "43.1", "diagnoses": [], "discharge_status": 1.0}, errors.InvalidFieldError, "discharge_status"),
        ({"version": "43.1", "diagnoses": ["A000"], "hospital_status": 9}, errors.InvalidFieldError, "hospital_status"),
        ({"version": "43.1", "diagnoses": ["A000"], "admit_diagnosis": 1}, errors.InvalidFieldError, "admit_diagnosis"),
        ({"version": "43.1", "diagnoses": ["A000"], "claim_id": 1}, errors.InvalidFieldError, "claim_id"),
        (None, errors.InvalidFieldError, ""),
        (["A000"], errors.InvalidFieldError, ""),
    ],
)  # fmt: skip
def test_one_bad_claim_has_its_error_and_the_others_their_answers(
    library: engine.Library, claim: Any, error: type[errors.CodesetError], field: str
) -> None:
    good = {"claim_id": "good", "version": "43.1", "diagnoses": ["I5021"], "poa": "Y"}
    results = library.group_drg_many([good, claim, good])
    assert [result.drg for result in (results[0], results[2])] == [293, 293]
    assert type(results[1].error) is error
    assert results[1].error.field == field
    assert list(results.errors) == [1]
    assert "A000" not in str(results[1].error)
    with pytest.raises(error):
        _ = results[1].drg


@pytest.mark.parametrize("code", ["A000\0", "\0", "É000", "A" * 500, "", "💊", "A00 0 0 0 0 0 0 0 0", "\t"])
def test_garbage_codes_are_unknown_codes(library: engine.Library, code: str) -> None:
    result = library.group_drg({"version": "43.1", "diagnoses": ["I5021", code], "procedures": [code]})
    assert result.drg == 293
    assert result.diagnoses[1].code == code
    assert not result.diagnoses[1].recognized
    assert not result.procedures[0].recognized
    invalid = library.group_drg({"version": "43.1", "diagnoses": [code]})
    assert invalid.final_grouping is not None
    assert invalid.final_grouping.return_code is drg.ReturnCode.INVALID_PDX


def test_a_batch_that_is_none_is_refused(library: engine.Library) -> None:
    for claims in ({"version": "43.1"}, "claims", 5, None):
        with pytest.raises(errors.InvalidFieldError):
            library.group_drg_many(claims)
    assert len(library.group_drg_many([])) == 0


def test_long_claims_group(library: engine.Library) -> None:
    result = library.group_drg(
        {"version": "43.1", "diagnoses": ["I5021"] + ["J189"] * 5000, "procedures": ["02HK0KZ"] * 3000}
    )
    assert result.error is None
    assert len(result.diagnoses) == 5001


# --- compiled tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "a &", "(a", "a)", "a b", "& a", "~", "a | | b", "()"])
def test_a_formula_that_does_not_parse_is_a_source_error(text: str) -> None:
    tables = msdrg_oracle.smallest_tables()
    tables.formulas[1] = [Formula(0, 1, 1, "MEDICAL", 0, text, ())]
    with pytest.raises(errors.SourceFormatError, match="formula"):
        compile_msdrg(tables)


def test_hostile_indices_never_crash(store: Path, tmp_path: Path, sample: Any) -> None:
    """Numbers in the arrays are overwritten and the checksums made right again: opening refuses, or grouping stays in
    bounds."""
    script = Path(__file__).with_name("msdrg_hostile.py")
    done = subprocess.run(
        [sys.executable, str(script), str(store), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    tried, refused, grouped = map(int, done.stdout.split()[-3:])
    assert tried == refused + grouped
    assert tried >= 300
    assert refused >= 100
