"""What a code system answers, on the beasts that never were."""

from __future__ import annotations

import copy
import datetime
import pickle
from typing import Any

import numpy as np
import pytest
from codes_made_up import FROM, SYSTEM, in_memory, tables

from engine import errors
from engine.codes import Axis, CodeSystem, NoteInfo, Status, Subsumption, Validation


@pytest.fixture(scope="module")
def system() -> CodeSystem:
    return in_memory(tables())


@pytest.mark.parametrize(
    ("code", "date", "status", "message"),
    [
        ("U00.11", 20201001, Status.VALID, "U00.11 is valid on 2020-10-01"),
        (
            "u00",
            20201001,
            Status.HEADER,
            "U00 is not complete: it needs more characters (U00.1, U00.9)",
        ),
        (
            "U00.1",
            20201001,
            Status.HEADER,
            "U00.1 is not complete: it needs more characters (U00.11, U00.12); replaced by U00.11, U00.12",
        ),
        ("U00.1", 20170101, Status.VALID, "U00.1 is valid on 2017-01-01"),
        ("U0012", 20200930, Status.NOT_YET, "U00.12 is not valid before 2020-10-01"),
        ("U00.9", 20150101, Status.NOT_YET, "U00.9 is not valid before 2015-10-01"),
        (
            "U00.9",
            20170930,
            Status.EXPIRED,
            "U00.9 was valid until 2016-09-30 and is valid again from 2017-10-01",
        ),
        ("U01", 20310101, Status.EXPIRED, "U01 was valid until 2030-12-31"),
        # V00.0 became V00.1, and that U01.
        ("V00.0", 20201001, Status.EXPIRED, "V00.0 was valid until 2019-09-30; replaced by U01"),
        ("V00.0", 20200101, Status.EXPIRED, "V00.0 was valid until 2019-09-30; replaced by V00.1"),
        ("V00.1", 20211001, Status.EXPIRED, "V00.1 was valid until 2020-09-30; replaced by U01, V00.2"),
        ("U00-U09", 20201001, Status.UNKNOWN, "U00-U09 is a block, not a code"),
        ("1", 20201001, Status.UNKNOWN, "1 is a chapter, not a code"),
        ("Z00.0", 20201001, Status.UNKNOWN, f"Z00.0 is no code of {SYSTEM}"),
        ("Z00-Z99", 20201001, Status.UNKNOWN, f"Z00-Z99 is no code of {SYSTEM}"),
        (
            "U00.11\0",
            20201001,
            Status.MALFORMED,
            r"'U00.11\x00' cannot be a code: expected 1 to 8 letters, digits and hyphens, dots and blanks aside",
        ),
    ],
)
def test_status_and_sentence(system: CodeSystem, code: str, date: int, status: Status, message: str) -> None:
    found = system.validate(code, date)
    assert (found.status, found.message) == (status, message)
    assert system.status(code, date) is status
    assert found.valid is (status is Status.VALID)


def test_a_finding_has_all_fields(system: CodeSystem) -> None:
    assert system.validate(" v00.0", 20201001).to_dict() == {
        "code": " v00.0",
        "normalized": "V000",
        "display": "V00.0",
        "system": SYSTEM,
        "release": "2021",
        "date": 20201001,
        "status": "EXPIRED",
        "valid": False,
        "billable": True,
        "effective_from": 20151001,
        "effective_to": 20190930,
        "replaced_by": ["U01"],
        "title": "",
        "message": "V00.0 was valid until 2019-09-30; replaced by U01",
    }
    found = system.validate("U0011")
    assert (found.date, found.title, found.effective_to) == (FROM, "Gored by unicorn, right thigh", None)
    assert found == system.validate("U0011", str(FROM)) == system.validate("U0011", datetime.date(2020, 10, 1))
    assert found != system.validate("U0012")
    assert len({found, system.validate("U0011"), system.validate("U0012")}) == 2
    assert repr(found) == "<Validation beasts/2021 20201001 'U0011': VALID>"
    assert found != "U0011"
    malformed = system.validate("?")
    assert (malformed.normalized, malformed.display, malformed.title, malformed.replaced_by) == ("", "", "", ())


def test_findings_are_immutable_and_stay_in_their_process(system: CodeSystem) -> None:
    found = system.validate("U0011")
    for name in ("status", "code", "date", "index", "anything"):
        with pytest.raises(AttributeError):
            setattr(found, name, 1)
    for stay in (found, system._index):
        with pytest.raises(TypeError):
            pickle.dumps(stay)
        with pytest.raises(TypeError):
            copy.copy(stay)
    # Made by hand they have nothing to ask; that must not crash.
    empty = Validation.__new__(Validation)
    for name in ("status", "effective_from", "effective_to", "node"):
        with pytest.raises(TypeError):
            getattr(empty, name)
    with pytest.raises(TypeError):
        type(system._index)()  # type: ignore[call-arg]


def test_the_default_date_goes_with_the_system(system: CodeSystem) -> None:
    assert system.status("U00.12") is Status.VALID
    earlier = system.on("20200930")
    assert earlier.status("U00.12") is Status.NOT_YET
    assert earlier.validate_many(["U00.12"]).tolist() == [Status.NOT_YET]
    assert (earlier.release, earlier.date, system.date) == ("2021", 20200930, FROM)
    assert system.lookup("U00.9").effective_from == 20201001
    assert system.on(20170101).lookup("U00.9").effective_from == 20151001


@pytest.mark.parametrize(
    "date",
    [0, -1, 20210229, 20201301, 20201000, 10**20, "2020-10-01", "", "2020100\uff11", 20201001.0, True, b"20201001"],
)
def test_impossible_dates(system: CodeSystem, date: Any) -> None:
    for ask in (system.status, system.validate, system.on):
        with pytest.raises(errors.InvalidDateError, match="expected a day of the calendar as CCYYMMDD") as raised:
            ask(*(("U00", date) if ask != system.on else (date,)))
        assert raised.value.field == "date"
    for ask_many in (system.validate_many, system.validate_columns):
        with pytest.raises(errors.InvalidDateError):
            ask_many(["U00"], date)


def test_many_in_every_form(system: CodeSystem) -> None:
    codes = ["U00.11", "u0012", "U00", "nothing at all", ""]
    expected = [Status.VALID, Status.VALID, Status.HEADER, Status.MALFORMED, Status.MALFORMED]
    forms: list[Any] = [
        codes,
        tuple(codes),
        [code.encode() for code in codes],
        np.array(codes),
        np.array(codes, "S"),
        np.array(codes, object),
        np.array(["-", *codes], "S16")[1:],
        np.array([c for code in codes for c in (code, "x")])[::2],
        _Codes(codes),
    ]
    for form in forms:
        assert system.validate_many(form).tolist() == expected, form
        assert system.validate_columns(form).status.tolist() == expected, form
    for empty in ([], (), np.array([], "S8"), np.array([], object)):
        assert system.validate_many(empty).shape == (0,)
    assert system.validate_many([None, 5, b"U00.11", ["U00.11"], "U00.11"]).tolist() == [6, 6, 1, 6, 1]


class _Codes(list[str]):
    """A list of its own kind."""


@pytest.mark.parametrize(
    "codes",
    ["U00", b"U00", 5, None, {"U00"}, {"U00": 1}, np.array([1, 2]), np.array([["U00"]]), np.array("U00"), iter([])],
)
def test_what_is_no_sequence_of_codes(system: CodeSystem, codes: Any) -> None:
    for ask in (system.validate_many, system.validate_columns):
        with pytest.raises(errors.InvalidFieldError, match="codes: expected") as raised:
            ask(codes)
        assert raised.value.field == "codes"


@pytest.mark.parametrize("code", [None, 5, ["U00"], object()])
def test_one_code_is_text(system: CodeSystem, code: Any) -> None:
    for ask in (system.status, system.validate, system.lookup, system.children, system.notes):
        with pytest.raises(errors.InvalidFieldError, match="code: expected str or bytes"):
            ask(code)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 9, 10, 15, 16, 17, 64])
@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 1000])
def test_batches_of_every_shape(system: CodeSystem, size: int, count: int) -> None:
    """Block boundaries, and items at the very end of their memory."""
    texts = ["U00", "U01", "U00.11", "W99.8XXA", "Z", "", "U00.11 ", "u0011", "U-"]
    codes = np.array([texts[i * i % len(texts)] for i in range(count)], f"S{size}")
    expected = [system.status(code) for code in codes.tolist()]
    assert system.validate_many(codes).tolist() == expected
    assert system.validate_many(codes.tolist()).tolist() == expected
    assert system.validate_columns(codes).status.tolist() == expected


def test_kinds_tell_apart_what_shares_a_code(system: CodeSystem) -> None:
    assert system.lookup("w99").title == "Stung by wyvern — Stich"
    assert system.lookup("W99", "block").title == "Wyverns"
    assert system.parent("W99") == system.lookup("W99", "block")
    assert [info.kind for info in system.prefix("W99")][:2] == ["block", "category"]
    assert system.subsumes("W99", "W99", "block", "category") is Subsumption.SUBSUMES
    assert system.subsumes("W99", "W99") is Subsumption.EQUIVALENT
    assert system.validate("W99").status is Status.HEADER
    with pytest.raises(errors.UnknownCodeError, match="has no code 'W99' as chapter"):
        system.lookup("W99", "chapter")
    with pytest.raises(errors.InvalidFieldError, match="kind: expected one of chapter, block"):
        system.lookup("W99", "Block")


def test_lookup(system: CodeSystem) -> None:
    assert system.lookup("u0011")._asdict() == {
        "system": SYSTEM,
        "release": "2021",
        "code": "U0011",
        "display": "U00.11",
        "kind": "code",
        "title": "Gored by unicorn, right thigh",
        "short_title": "Gored by unicorn, r thigh",
        "billable": True,
        "depth": 4,
        "parent": "U00.1",
        "effective_from": 20181001,
        "effective_to": None,
    }
    header = system.lookup("U00")
    assert (header.billable, header.effective_from, header.parent) == (False, None, "U00-U09")
    assert system.lookup("1").parent is None
    assert system.lookup("U01").effective_to == 20301231
    with pytest.raises(
        errors.UnknownCodeError, match=r"beasts/2021 has no code 'V000': V00\.0 was valid until 2019-09-30"
    ):
        system.lookup("V000")
    with pytest.raises(errors.UnknownCodeError, match="cannot be a code"):
        system.ancestors("\0")


def test_prefix(system: CodeSystem) -> None:
    assert [info.display for info in system.prefix("u00.1")] == ["U00.1", "U00.11", "U00.12"]
    assert [info.display for info in system.prefix("U0", 2)] == ["U00", "U00-U09"]
    assert len(system.prefix("")) == len(system)
    assert system.prefix("U", 0) == system.prefix("?") == system.prefix("Q") == []
    with pytest.raises(errors.InvalidFieldError, match="limit"):
        system.prefix("U", -1)


def test_notes_are_inherited_as_the_book_means_them(system: CodeSystem) -> None:
    book = NoteInfo("note", "Use these only in tales", "1", True)
    narwhals = NoteInfo("excludes1", "narwhals (N00-N09)", "U00-U09", True)
    telling = NoteInfo("seventh_character", "A\tfirst telling", "U00", True)
    # Synonyms of U00 are none of the codes below it.
    assert system.notes("U00.11") == [
        NoteInfo("inclusion_term", "Right thigh pierced", "U00.11", False),
        telling,
        narwhals,
        book,
    ]
    assert system.notes("U00.11", inherited=False) == [
        NoteInfo("inclusion_term", "Right thigh pierced", "U00.11", False)
    ]
    # The nearest seventh characters stand alone.
    assert [n.text for n in system.notes("W99.8XXA") if n.kind == "seventh_character"] == ["X\tnearest"]
    assert system.notes("2") == []


def test_axes_of_procedures() -> None:
    made_up = tables()
    made_up.system = "icd10pcs"
    made_up.axes = {
        "": {"U": "Unicorn work"},
        "U": {"0": "Horn"},
        "U0": {"0": "Polishing"},
        "U00:4": {"1": "Tip"},
        "U00:5": {"1": "Open"},
        "U00:6": {"1": "Cloth"},
    }
    system = in_memory(made_up)
    assert system.axes("u00.11") == [
        Axis(1, "section", "U", "Unicorn work"),
        Axis(2, "body_system", "0", "Horn"),
        Axis(3, "operation", "0", "Polishing"),
        Axis(4, "body_part", "1", "Tip"),
        Axis(5, "approach", "1", "Open"),
    ]
    assert [axis.label for axis in system.axes("V000")] == ["", "", "", ""]
    with pytest.raises(errors.UnknownCodeError):
        system.axes("Z")
    assert in_memory(tables()).axes("U00") == []


def test_an_empty_release() -> None:
    made_up = tables()
    made_up.nodes, made_up.spells, made_up.notes, made_up.replacements = [], [], [], []
    system = in_memory(made_up)
    assert len(system) == 0
    assert system.validate_many(["U00", "?"]).tolist() == [Status.UNKNOWN, Status.MALFORMED]
    assert system.roots() == system.prefix("") == []
    assert system.valid_codes().tolist() == []
