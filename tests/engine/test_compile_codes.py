"""The compiler refuses tables that contradict themselves, and says where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from codes_made_up import tables

from engine import _core
from engine.codes import Status
from engine.compile_codes import SLOT_DTYPE, compile_code_system
from engine.errors import SourceFormatError
from engine.tables import OPEN_END, CodeSystemTables, Node, Note, Replacement, Spell


def _spell(code: str, first: int, last: int) -> Callable[[CodeSystemTables], None]:
    return lambda made_up: made_up.spells.append(Spell(code, first, last))


def _node(*fields: object) -> Callable[[CodeSystemTables], None]:
    return lambda made_up: made_up.nodes.append(Node(*fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_spell("U00.*", 20151001, OPEN_END), r"spell 12 has code 'U00\.\*'"),
        (_spell("", 20151001, OPEN_END), "spell 12 has code ''"),
        (_spell("U00123456", 20151001, OPEN_END), "1 to 8 of A-Z"),
        (_spell("U0099", 20150229, OPEN_END), "first day 20150229"),
        (_spell("U0099", 20151001, 20151301), "last day 20151301"),
        (_spell("U0099", 19691231, OPEN_END), "from 1970-01-03"),
        (_spell("U0099", 20151001, 20151001 - 1), "last day 20151000"),
        (_spell("U0099", 20151001, 20150930), "spell of U0099: 20151001 is after 20150930"),
        (_spell("U009", 20181231, 20190101), "spells of U009 overlap: 20171001-20181231 and 20181231-20190101"),
        (_spell("U009", 20151001, 20160930), "spells of U009 overlap"),
        (_node("kategory", "U02", -1, False, ""), "node kind 'kategory'"),
        (_node("category", "U_2", -1, False, ""), "node 13 has code"),
        (_node("category", "u02", -1, False, ""), "node 13 is printed 'u02'"),
        (_node("subcategory", "U0.02", 12, False, ""), r"dot after \[2, 3\] characters"),
        (_node("subcategory", "U002", 12, False, ""), "node 13 is printed 'U002'"),
        (_node("category", "U02", 13, False, ""), r"node 13 \(U02\) has parent 13"),
        (_node("category", "U02", 99, False, ""), "has parent 99"),
        (_node("category", "U02", -2, False, ""), "has parent -2"),
        (_node("category", "U02", 1, False, ""), "subtree is still open"),
        (_node("category", "W99", 12, False, ""), "cannot be told apart"),
        (_node("subcategory", "U01", 12, False, ""), "cannot be told apart"),
        (_node("block", "U00-U09", 12, False, ""), "cannot be told apart"),
        (_node("category", "U02", 12, True, ""), r"node 13 \(U02\) is billable but has no spell"),
        (lambda t: t.notes.append(Note(13, "note", "")), "there are 13 nodes"),
        (lambda t: t.notes.append(Note(-1, "note", "")), "there are 13 nodes"),
        (lambda t: t.notes.append(Note(0, "hint", "")), "note kind 'hint'"),
        (lambda t: t.replacements.append(Replacement("?", "U01", 20201001)), "replaced code 5"),
        (lambda t: t.replacements.append(Replacement("U01", "?", 20201001)), "replacing code 5"),
        (lambda t: t.replacements.append(Replacement("U01", "U00", 2020)), "day of a replacement 2020"),
        (lambda t: t.axes.update({"0DB:4": {"%": "no"}}), "axis label"),
        (lambda t: t.axes.update({"0DB:4": {"Z": "a"}, "0DB4": {"Z": "b"}}), "axis value 0DB4Z has two labels"),
    ],
)
def test_contradictions_are_refused(change: Callable[[CodeSystemTables], None], text: str) -> None:
    made_up = tables()
    change(made_up)
    with pytest.raises(SourceFormatError, match=text) as raised:
        compile_code_system(made_up)
    assert str(raised.value).startswith("beasts/2021: ")


def test_order_of_spells_and_replacements_does_not_matter() -> None:
    made_up = tables()
    arrays, tries = compile_code_system(made_up)
    made_up.spells.reverse()
    made_up.replacements.reverse()
    again, _ = compile_code_system(made_up)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    assert tries["codes"]


def test_slots_hold_every_key_once_and_end_empty() -> None:
    """With many keys, so that they collide and overflow."""
    made_up = tables()
    count = 20_000
    made_up.spells += [Spell(f"X{i:05d}", 20151001, OPEN_END) for i in range(count)]
    arrays, _ = compile_code_system(made_up)
    slots = arrays["slots"]
    assert slots.dtype == SLOT_DTYPE
    assert slots["key"][-1] == 0
    keys = slots["key"][slots["key"] != 0]
    assert len(np.unique(keys)) == len(keys) == len(arrays["code_key"]) + 5
    bits = (len(slots) - 1).bit_length() - 1
    place = np.flatnonzero(slots["key"])
    home = (keys * np.uint64(_core.HASH_FACTOR)) >> np.uint64(64 - bits)
    distance = place - home.astype(np.int64)
    # In order of home, never before it, and close by: at most half of the slots are full.
    assert distance.min() == 0
    assert distance.max() < 32
    assert distance.mean() < 1
    assert (np.diff(home.astype(np.int64)) >= 0).all()


def test_dates_at_the_edges_of_what_a_slot_can_hold() -> None:
    from codes_made_up import in_memory

    made_up = tables()
    made_up.spells += [Spell("X1", 19700103, 21490604), Spell("X2", 21490604, OPEN_END)]
    system = in_memory(made_up)
    for date in (10101, 19691231, 19700101, 19700102, 19700103, 21490604, 21490605, 21490606, 99991231):
        first, second = system.validate("X1", date), system.validate("X2", date)
        assert first.status == (
            Status.NOT_YET if date < 19700103 else Status.VALID if date <= 21490604 else Status.EXPIRED
        ), date
        assert second.status == (Status.NOT_YET if date < 21490604 else Status.VALID), date
