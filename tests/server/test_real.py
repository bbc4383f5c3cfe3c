"""A server in a process of its own over real code sets, and both clients: the answers are the engine's
in process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import errors
from engine.client import AsyncClient, Client, Subsumption, raise_for_error, to_dict

Call = Callable[..., Any]

SERVE = """
import pathlib, sys
from engine.server import ServerConfig, serve
serve(ServerConfig(port=0, store=pathlib.Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def real_address(store: Path) -> Iterator[str]:
    """Address of a server that serves ``store``."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline().split()
        assert line[:1] == ["listening"], server.communicate()[1]
        # Read what it logs, or it stops when the pipe is full.
        drained = subprocess_log(server)
        try:
            yield line[1]
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
    calls = [json.loads(line) for line in drained()]
    assert {call["status"] for call in calls if call["event"] == "call"} <= {
        "OK",
        "NOT_FOUND",
        "INVALID_ARGUMENT",
        "OUT_OF_RANGE",
    }


def subprocess_log(server: subprocess.Popen[str]) -> Callable[[], list[str]]:
    """Collect standard error in the background; return a function that waits for its end and gives the
    lines.
    """
    import threading

    lines: list[str] = []

    def read() -> None:
        assert server.stderr is not None
        lines.extend(server.stderr)

    reader = threading.Thread(target=read)
    reader.start()

    def finish() -> list[str]:
        reader.join(30)
        return lines

    return finish


@pytest.fixture(scope="module")
def library(store: Path) -> engine.Library:
    """The same packs in process."""
    return engine.open(store)


def test_the_reference_answers(real_address: str, sample: Any, without_prefix: Any) -> None:
    with Client(real_address, chunk_items=1000) as client:
        results = client.group_drg_many(sample.claims)
    for result in results:
        raise_for_error(result)
    assert [without_prefix(to_dict(result)) for result in results] == sample.answers

    async def again() -> list[Any]:
        async with AsyncClient(real_address) as client:
            return await client.group_drg_many(sample.claims)

    assert asyncio.run(again()) == results


def test_json_of_a_result_is_that_in_process(real_address: str, library: engine.Library, sample: Any) -> None:
    claims = [
        *sample.claims[:500],
        {**sample.claims[0], "version": "1.0"},
        {**sample.claims[0], "poa": "Y" * 40},
    ]
    with Client(real_address) as client:
        over_the_wire = [to_dict(result) for result in client.group_drg_many(claims)]
    assert over_the_wire == [result.to_dict() for result in library.group_drg_many(claims)]


def test_one_claim_at_a_time(call: Call, real_address: str, library: engine.Library, sample: Any) -> None:
    for claim in sample.claims[:25]:
        result = call("group_drg", claim, target=real_address)
        assert to_dict(result) == library.group_drg(claim).to_dict()


def test_no_diagnosis(call: Call, real_address: str) -> None:
    result = call("group_drg", {"version": "43.1"}, target=real_address)
    assert to_dict(result)["final_grouping"]["return_code"] == "RETURN_CODE_INVALID_PDX"
    assert result.final_grouping.drg == 999


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        ({"version": "39.0"}, errors.UnknownVersionError, "version"),
        ({"version": "", "discharge_date": 19991231}, errors.DateOutsideCoverageError, "discharge_date"),
        ({"version": "", "discharge_date": 20260230}, errors.InvalidDateError, "discharge_date"),
        ({"version": "", "discharge_date": 0}, errors.InvalidDateError, "discharge_date"),
        ({"poa": "Y" * 99}, errors.PoaLengthError, "poa"),
        ({"sex": 77}, errors.InvalidFieldError, "sex"),
        ({"hospital_status": 77}, errors.InvalidFieldError, "hospital_status"),
    ],
)
def test_bad_claims(
    call: Call,
    real_address: str,
    sample: Any,
    change: dict[str, Any],
    error: type[errors.CodesetError],
    field: str,
) -> None:
    good, bad = sample.claims[0], {**sample.claims[0], **change}
    with pytest.raises(error) as raised:
        call("group_drg", bad, target=real_address)
    assert raised.value.field == field
    first, second, third = call("group_drg_many", [good, bad, good], target=real_address)
    assert (second.error.code, second.error.field) == (error.code, field)
    assert second.claim_id == bad["claim_id"]
    assert first == third
    assert first.HasField("final_grouping")


CODES = ["A00.0", "a000", "A00", "A00-A09", "B99", "Z99.89", "U07.1", "ZZZ", "", "A000\0x", "ä", "x" * 300]


@pytest.mark.parametrize(
    ("system", "date", "release"),
    [
        ("icd10cm", 20261001, None),
        ("http://hl7.org/fhir/sid/icd-10-cm", 20200101, None),
        ("icd10cm", None, "2024-04"),
        ("icd10cm", 20230101, "2027"),
        ("icd10pcs", 20251001, None),
    ],
)
def test_validation(
    call: Call, real_address: str, library: engine.Library, system: str, date: int | None, release: str | None
) -> None:
    codes = [*CODES, "0DB68ZX", "0DB68Z", "02HA3RZ"]
    found = call("validate_many", system, codes, date=date, release=release, target=real_address)
    for code, answer in zip(codes, found, strict=True):
        expected = library.validate(system, code, date=date, release=release).to_dict()
        got = to_dict(answer)
        got["status"] = got["status"].removeprefix("CODE_STATUS_")
        for name in ("effective_from", "effective_to"):
            got[name] = got[name] or None
        assert got == expected
    assert call("validate", system, "A00.0", date=date, release=release, target=real_address) == found[0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("icd11", "A000"), errors.UnknownSystemError),
        (("msdrg", "A000"), errors.UnknownSystemError),
        (("icd10cm", "A000", {"release": "1999"}), errors.UnknownReleaseError),
        (("icd10cm", "A000", {"date": 18991231}), errors.DateOutsideCoverageError),
        (("icd10cm", "A000", {"date": 20260231}), errors.InvalidDateError),
    ],
)
def test_questions_that_have_no_answer(
    call: Call, real_address: str, arguments: tuple[Any, ...], error: type[errors.CodesetError]
) -> None:
    system, code, options = (*arguments, {})[:3]
    for method in ("validate", "lookup", "children"):
        with pytest.raises(error):
            call(method, system, code, **options, target=real_address)
    item = {"code": code, "system": system, **options}
    good, bad = call("validate_many", "icd10cm", ["A000", item], target=real_address)
    assert good.valid
    assert bad.error.code == error.code


def test_the_tree(call: Call, real_address: str, library: engine.Library) -> None:
    system = library.code_system("icd10cm", date=20260401)
    for code, kind in (("A00.0", None), ("A00", None), ("B99", "block"), ("B99", "category"), ("1", None)):
        keywords = {"kind": kind, "date": 20260401, "target": real_address}
        for method in ("children", "ancestors", "descendants"):
            found = [c.display for c in call(method, "icd10cm", code, **keywords)]
            assert found == [info.display for info in getattr(system, method)(code, kind)]
        above = system.parent(code, kind)
        parent = call("parent", "icd10cm", code, **keywords)
        assert (above and above.display) == (parent and parent.display)
        looked_up = call("lookup", "icd10cm", code, **keywords)
        info = system.lookup(code, kind)
        assert looked_up.release == "2026-04"
        assert looked_up.concept.title == info.title != ""
        assert [n.text for n in looked_up.notes] == [n.text for n in system.notes(code, kind=kind)]
        assert looked_up.effective_from == (info.effective_from or 0)
    assert call("subsumes", "icd10cm", "A00", "A00.0", target=real_address) is Subsumption.SUBSUMES
    with pytest.raises(errors.UnknownCodeError):
        call("lookup", "icd10cm", "A00.000", target=real_address)


def test_a_long_expansion_comes_whole(call: Call, real_address: str, library: engine.Library) -> None:
    """Chapter 19 has tens of thousands of entries, more than a page."""
    found = call("descendants", "icd10cm", "19", date=20260401, target=real_address)
    expected = library.code_system("icd10cm", date=20260401).descendants("19")
    assert len(found) > 10_000
    assert [c.code for c in found] == [info.code for info in expected]


def test_axes(call: Call, real_address: str) -> None:
    found = call("lookup", "icd10pcs", "0DB68ZX", date=20261001, target=real_address)
    assert "".join(axis.value for axis in found.axes) == "0DB68ZX"
    assert [axis.position for axis in found.axes] == list(range(1, 8))
    assert found.axes[0].name == "section"


def test_the_catalog(call: Call, real_address: str, library: engine.Library) -> None:
    releases = call("releases", target=real_address)
    assert [(r.system, r.release) for r in releases] == [(info.system, info.release) for info in library.releases()]
    one = call("release", "icd10cm", date=20260401, target=real_address)
    info = library.release("icd10cm", date=20260401)
    assert (one.release, one.size_bytes) == (info.release, info.size)
    assert [s.sha256 for s in one.sources] == [s.sha256 for s in info.sources]
    assert set(to_dict(one)["facts"]) == set(info.facts)
