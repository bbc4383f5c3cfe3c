"""MS-DRG 44.0, for which there are no reference answers, against the ``msdrg`` wheel: an independent port of the CMS
software.

The wheel is known to differ from CMS in a few ways (each seen on 40.0 to 43.1, where CMS's own answers decide). A
claim on which the two disagree must be of one of those kinds; the test names them all, and accepts no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msdrg
import numpy as np
import pytest

import engine
from codesets import msdrg as importer
from engine.tables import MsdrgTables, Source

VERSION = "44.0"
CLAIMS = 20_000


@pytest.fixture(scope="module")
def tables(blobs: Mapping[str, bytes]) -> MsdrgTables:
    return importer.load_version(blobs, VERSION, Source("", "", "", "msdrg.mdb", "", ()))


@pytest.fixture(scope="module")
def claims(tables: MsdrgTables, sample: Any) -> list[dict[str, Any]]:
    """The reference claims as of the new version, and claims over random codes of its tables."""
    random = np.random.default_rng(44)
    diagnoses = np.array(sorted(tables.diagnoses))
    severe = np.array([code for code in diagnoses if tables.diagnoses[code].severity != "NCC"])
    procedures = np.array(sorted(code for code in tables.procedures if "@" not in code))
    operating = np.array([code for code in procedures if {"d468", "d477"} & set(tables.procedures[code])])
    made = [claim | {"version": VERSION, "discharge_date": 20261101} for claim in sample.claims]
    while len(made) < CLAIMS:
        count = int(random.integers(1, 10))
        codes = [*random.choice(diagnoses, count), *random.choice(severe, random.integers(0, 3))]
        done = [*random.choice(procedures, random.integers(0, 3)), *random.choice(operating, random.integers(0, 2))]
        made.append(
            {
                "version": VERSION,
                "discharge_date": 20261101,
                "age": int(random.integers(0, 100)),
                "sex": str(random.choice(["SEX_MALE", "SEX_FEMALE", "SEX_UNKNOWN"], p=[0.45, 0.45, 0.1])),
                "discharge_status": int(random.choice([1, 1, 1, 2, 3, 7, 20, 62, 99])),
                "hospital_status": str(
                    random.choice(
                        [f"HOSPITAL_STATUS_{s}" for s in ("NOT_EXEMPT", "EXEMPT", "UNKNOWN")], p=[0.7, 0.2, 0.1]
                    )
                ),
                "diagnoses": [str(code) for code in codes],
                "poa": "".join(random.choice(list("YYYNUW1"), len(codes))),
                "procedures": [str(code) for code in done],
            }
        )
    return made[:CLAIMS]


def kinds(tables: MsdrgTables, claim: dict[str, Any], ours: Any, theirs: dict[str, Any]) -> Iterator[str]:
    """Yield the known differences that ``claim`` is a case of."""
    codes = [*claim["diagnoses"], *claim["procedures"]]
    if any(code != code.upper() for code in codes):
        yield "it looks codes up as they are written"
    codes_of_hacs = (ours.final_grouping.return_code.name, theirs["return_code"])
    if claim["hospital_status"] == "HOSPITAL_STATUS_UNKNOWN" and any(c.startswith("HAC_") for c in codes_of_hacs):
        yield "it judges hospital-acquired conditions otherwise where the hospital status is unknown"
    known = [tables.diagnoses.get(code.upper()) for code in claim["diagnoses"]]
    if any(a and "hac06_show" in a.hac_names for a in known[1:]):
        yield "it does not reset HAC 06 entries that are only shown"
    if ours.final_grouping.return_code.name == "INVALID_DISCHARGE_STATUS":
        yield "it never answers INVALID_DISCHARGE_STATUS"
    if claim["sex"] == "SEX_UNKNOWN" and claim["diagnoses"][0].upper() in tables.gender_mdcs:
        yield "it asks for the sex before the pre-MDC list"
    fused = [tables.procedures.get(code.upper(), ()) for code in claim["procedures"]]
    counts = Counter(name for names in fused for name in names)
    if max(counts["sglantfuse"], counts["sglpostfuse"]) >= 3 and 0 in (counts["sglantfuse"], counts["sglpostfuse"]):
        yield "it takes three single-level fusions of one kind for a combined one"


def test_disagreements_are_all_of_a_known_kind(store: Path, tables: MsdrgTables, claims: list[dict[str, Any]]) -> None:
    results = engine.open(store).group_drg_many(claims)
    found: Counter[str] = Counter()
    unknown = []
    with msdrg.MsdrgGrouper() as peer:
        for claim, ours in zip(claims, results, strict=True):
            theirs = peer.group(to_theirs(claim))
            final = ours.final_grouping
            assert final is not None
            if (theirs["final_drg"], theirs["final_mdc"], theirs["return_code"]) == (
                final.drg,
                final.mdc,
                final.return_code.name,
            ):
                continue
            reasons = list(kinds(tables, claim, ours, theirs))
            found.update(reasons[:1])
            if not reasons:
                unknown.append((claim, final, theirs["final_drg"], theirs["final_mdc"], theirs["return_code"]))
    assert unknown == [], found
    # Most claims agree, or the comparison would say nothing.
    assert sum(found.values()) < CLAIMS / 20


def to_theirs(claim: dict[str, Any]) -> dict[str, Any]:
    """Return ``claim`` as the wheel takes it."""
    coded = [
        {"code": code} | ({"poa": poa} if poa in "YNUW" else {})
        for code, poa in zip(claim["diagnoses"], claim["poa"], strict=True)
    ]
    return {
        "version": int(VERSION.replace(".", "")),
        "age": claim["age"],
        "sex": {"SEX_MALE": 0, "SEX_FEMALE": 1}.get(claim["sex"], 2),
        "discharge_status": claim["discharge_status"],
        "hospital_status": claim["hospital_status"].removeprefix("HOSPITAL_STATUS_"),
        "pdx": coded[0] if coded else {"code": ""},
        "sdx": coded[1:],
        "procedures": [{"code": code} for code in claim["procedures"]],
    }
