"""The core against a plain-Python oracle, on random code systems and questions."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from codes_made_up import DATES, Oracle, as_array, code_systems, in_memory, normalized, others, questions, tables
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import _core
from engine.codes import Status, Subsumption
from engine.compile_codes import KINDS


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_way_to_ask_agrees_with_the_oracle(data: st.DataObject) -> None:
    made_up = data.draw(code_systems())
    system, oracle = in_memory(made_up), Oracle(made_up)
    codes = data.draw(st.lists(questions(made_up), max_size=40))
    for date in data.draw(st.lists(DATES, min_size=1, max_size=4)):
        expected = [oracle.answer(code, date) for code in codes]
        statuses = [answer[0] for answer in expected]

        for code, (status, billable, first, last) in zip(codes, expected, strict=True):
            found = system.validate(code, date)
            assert system.status(code, date) is status
            assert found.status is status
            assert (found.valid, found.billable) == (status is Status.VALID, billable)
            assert (found.effective_from, found.effective_to) == (first, last)
            assert (found.code, found.date, found.normalized) == (code, date, normalized(code))
            assert found.message

        assert system.validate_many(codes, date).tolist() == statuses
        assert system.validate_many(tuple(codes), date).tolist() == statuses
        mixed = data.draw(st.lists(others(), max_size=5)) + codes
        assert system.validate_many(mixed, date).tolist() == [oracle.answer(code, date)[0] for code in mixed]

        columns = system.validate_columns(codes, date)
        assert columns.status.tolist() == statuses
        assert columns.billable.tolist() == [answer[1] for answer in expected]
        assert columns.effective_from.tolist() == [answer[2] or 0 for answer in expected]
        assert columns.effective_to.tolist() == [answer[3] or 0 for answer in expected]

        as_bytes = [code if isinstance(code, bytes) else code.encode("utf-8", "surrogatepass") for code in codes]
        for width in data.draw(st.sets(st.integers(1, 18), max_size=4)) | {None}:
            packed = as_array(as_bytes, width)
            assert packed.dtype.kind == "S" or not codes
            if codes:
                statuses = [oracle.answer(code, date)[0] for code in packed.tolist()]
                assert system.validate_many(packed, date).tolist() == statuses
                assert system.validate_many(packed[::-1], date).tolist() == statuses[::-1]
                assert system.validate_columns(packed, date).status.tolist() == statuses

        valid = sorted({normalized(s.code) for s in made_up.spells if s.first <= date <= s.last})
        assert [code.decode() for code in system.valid_codes(date).tolist()] == valid


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_tree_agrees_with_the_oracle(data: st.DataObject) -> None:
    made_up = data.draw(code_systems())
    system, oracle = in_memory(made_up), Oracle(made_up)
    nodes = made_up.nodes

    def names(found: list[int]) -> list[tuple[str, str]]:
        return [(nodes[i].kind, nodes[i].code) for i in found]

    assert len(system) == len(nodes)
    assert [(i.kind, i.display) for i in system.roots()] == names([i for i, n in enumerate(nodes) if n.parent < 0])
    for i, node in enumerate(nodes):
        code, kind = node.code.lower(), node.kind
        info = system.lookup(code, kind)
        assert (info.kind, info.display, info.code) == (kind, node.code, normalized(node.code))
        assert (info.title, info.billable, info.depth) == (node.title, node.billable, len(oracle.above(i)))
        assert [(x.kind, x.display) for x in system.ancestors(code, kind)] == names(oracle.above(i))
        assert [(x.kind, x.display) for x in system.children(code, kind)] == names(oracle.directly_below(i))
        assert [(x.kind, x.display) for x in system.descendants(code, kind)] == names(oracle.below(i))
        parent = system.parent(code, kind)
        assert ([] if parent is None else [(parent.kind, parent.display)]) == names(oracle.above(i)[:1])
        for j, other in enumerate(nodes):
            outcome = (
                Subsumption.EQUIVALENT
                if i == j
                else Subsumption.SUBSUMES
                if i in oracle.above(j)
                else Subsumption.SUBSUMED_BY
                if j in oracle.above(i)
                else Subsumption.NOT_SUBSUMED
            )
            assert system.subsumes(node.code, other.code, kind, other.kind) is outcome

    by_code = sorted((normalized(n.code), KINDS.index(n.kind), i) for i, n in enumerate(nodes))
    for prefix in data.draw(st.lists(questions(made_up), max_size=10)):
        start = normalized(prefix)
        begun = [i for key, _, i in by_code if key.startswith(start)] if start or not len(prefix) else []
        assert [(x.kind, x.display) for x in system.prefix(prefix, limit=1000)] == names(begun)
        assert system._index.begins_with(prefix) == begun
        limit = data.draw(st.integers(0, 5))
        assert [(x.kind, x.display) for x in system.prefix(prefix, limit)] == names(begun[:limit])


@given(st.integers(-(10**18), 10**18) | st.integers(0, 99999999))
def test_dates_are_those_of_the_calendar(number: int) -> None:
    try:
        day = datetime.date(number // 10000, number // 100 % 100, number % 100) if 0 < number < 10**8 else None
    except ValueError:
        day = None
    if day is None:
        assert _core.day_number(number) < -(2**30)
        with pytest.raises(ValueError, match="CCYYMMDD"):
            _core.as_date(number)
    else:
        assert _core.day_number(number) == (day - datetime.date(1970, 1, 1)).days
        assert _core.as_date(number) == _core.as_date(day) == _core.as_date(f"{number:08d}") == number
        assert _core.as_date(np.int32(number)) == number


@given(st.dates())
def test_every_day_has_a_number(day: datetime.date) -> None:
    number = day.year * 10000 + day.month * 100 + day.day
    assert _core.day_number(number) == (day - datetime.date(1970, 1, 1)).days


@given(st.text(alphabet="ABZ019-", min_size=1, max_size=8), st.text(alphabet="ABZ019-", min_size=1, max_size=8))
def test_keys_keep_text_and_order(a: str, b: str) -> None:
    key_a, key_b = _core.key_of_code(a), _core.key_of_code(b)
    assert (key_a < key_b, key_a == key_b) == (a < b, a == b)
    assert _core.key_text(key_a) == a
    assert _core.key_of_code(a.lower().encode()) == key_a
    assert _core.pack_keys([a, b, None, ""]).tolist() == [key_a, key_b, 0, 0]


def test_a_dot_behind_a_nul_is_no_dot_of_a_code() -> None:
    """It stands where the dot of a code does, and what is before it would pass for a shorter code."""
    system, date = in_memory(tables()), 20210101
    codes = ["U0\0.", "U\0\0.", "\0\0\0.", "U0\0.1", "U0\0.\0"]
    malformed = [int(Status.MALFORMED)] * len(codes)
    assert [int(system.status(code, date)) for code in codes] == malformed
    assert system.validate_many(codes, date).tolist() == malformed
    assert system.validate_many([code.encode() for code in codes], date).tolist() == malformed
    assert system.validate_many(np.array([code.encode() for code in codes], "S8"), date).tolist() == malformed
    assert system.status("U01.", date) is system.status("U01", date) is Status.VALID
