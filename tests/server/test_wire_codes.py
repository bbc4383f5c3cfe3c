"""Codes validated from bytes to bytes are answered as through the generated classes, whatever is sent."""

from __future__ import annotations

import datetime
import gc
import threading
import weakref
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import wire_check
import wire_shapes as shapes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import engine
from engine import _core
from engine._pb.codeset.v1 import terminology_pb2
from engine._wire_codes import CodesRequest, ReleaseOnDay, Wording, answer_code
from engine.codes import EXAMPLES, LONGEST_SHOWN, SENTENCES, SHOWN_OF_LONGER, Status
from engine.compile_codes import KINDS
from engine.server import ServerConfig
from engine.server.calls import Facts
from engine.server.services import Services

Item = terminology_pb2.CodeToValidate
Request = terminology_pb2.BatchValidateCodesRequest
Response = terminology_pb2.BatchValidateCodesResponse
One = terminology_pb2.ValidateCodeRequest
RANDOM = st.randoms(use_true_random=False)
MANY = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
URI = "http://hl7.org/fhir/sid/icd-10-cm"


@pytest.fixture(scope="module")
def services(store: Path) -> Services:
    return Services(engine.open(store), ServerConfig(max_items=400_000))


@pytest.fixture
def through_messages(services: Services, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The codes of batches that were answered through messages after all, on the way from bytes."""
    seen: list[str] = []
    own = services._validate_codes

    def spied(request: Request, facts: Facts, library: Any) -> Response:
        seen.extend(item.code for item in request.items)
        return own(request, facts, library)

    monkeypatch.setattr(services, "_validate_codes", spied)
    monkeypatch.setattr(services._codes_wire, "_through_messages", spied)
    return seen


def check(services: Services, raw: bytes) -> Any:
    got, expected = wire_check.codes(services, raw)
    assert got == expected
    return got[0]


def check_one(services: Services, raw: bytes) -> Any:
    got, expected = wire_check.code(services, raw)
    assert got == expected
    return got[0]


def known_to(services: Services, system: str, release: str) -> list[str]:
    """Every code of the history, and every node of the tree as printed."""
    info = services.library.release(system, release=release)
    core = services.library.code_system(system, release=release).core
    keys = [_core.key_text(key) for key in np.load(info.path / "code_key.npy").tolist()]
    return keys + [core.code_of(node) for node in range(len(core))]


@pytest.mark.parametrize(
    ("system", "release", "dates"),
    [
        ("icd10cm", "2027", [20181231, 20261001]),
        ("icd10cm", "2021-04", [20400101]),
        ("icd10cm", "2016", [20160101]),
        ("icd10pcs", "2026", [20260301]),
        ("icd9cm", "2015", [19850101, 19951001, 20100101, 20151001]),
        ("icd9proc", "2015", [19951001, 20160101]),
    ],
)
def test_every_code(
    services: Services, through_messages: list[str], system: str, release: str, dates: list[int]
) -> None:
    codes = known_to(services, system, release)
    statuses: Counter[int] = Counter()
    for date in dates:
        del through_messages[:]
        items = [Item(code=code) for code in codes]
        raw = Request(system=system, release=release, date=date, items=items).SerializeToString()
        facts = Facts()
        answer = services.from_bytes()["BatchValidateCodes"](raw, facts)
        assert through_messages == []
        results = Response.FromString(answer or b"").results
        assert [result.code for result in results] == codes
        assert (facts.items, facts.errors, facts.releases) == (len(codes), 0, f"{system}/{release}")
        statuses.update(result.status for result in results)
        assert answer == check(services, raw)
    assert statuses[Status.VALID]
    assert statuses[Status.EXPIRED] + statuses[Status.NOT_YET]


def test_the_findings_are_all_met(services: Services, through_messages: list[str]) -> None:
    """Every status, every kind of sentence, and none of them takes the way through messages."""
    asked = {
        ("A00.0", 20260301): "A00.0 is valid on 2026-03-01",
        ("a000 ", 20260301): "A00.0 is valid on 2026-03-01",
        ("A00", 20260301): "A00 is not complete: it needs more characters (A00.0, A00.1, A00.9)",
        ("A01.0", 20260301): "A01.0 is not complete: it needs more characters (A01.00, A01.01, A01.02, …)",
        ("A000", 20140101): "A00.0 is not valid before 2015-10-01",
        ("A00-A09", 20260301): "A00-A09 is a block, not a code",
        ("1", 20260301): "1 is a chapter, not a code",
        ("Z99.99Z", 20260301): "Z99.99Z is no code of icd10cm",
        ("", 20260301): ("'' cannot be a code: expected 1 to 8 letters, digits and hyphens, dots and blanks aside"),
    }
    items = [Item(code=code, date=date, release="2026") for code, date in asked]
    raw = Request(system="icd10cm", items=items).SerializeToString()
    results = Response.FromString(services.from_bytes()["BatchValidateCodes"](raw, Facts()) or b"").results
    assert [result.message for result in results] == list(asked.values())
    assert through_messages == []
    check(services, raw)


def test_replaced_codes(services: Services, through_messages: list[str]) -> None:
    """Codes with one and with many successors, in force, expired in their turn, and not yet there."""
    core = services.library.code_system("icd10cm", release="2027").core
    replaced = [code for code in known_to(services, "icd10cm", "2027") if core.replacements_of(_core.key_of_code(code))]
    assert len(replaced) > 100
    lengths: Counter[int] = Counter()
    for date in (20161001, 20201001, 20261001, 99991231):
        items = [Item(code=code, date=date, release="2027") for code in replaced]
        raw = Request(system="icd10cm", items=items).SerializeToString()
        lengths.update(len(result.replaced_by) for result in Response.FromString(check(services, raw)).results)
    assert {0, 1, 2} <= set(lengths)
    assert max(lengths) > 20
    assert through_messages.count(replaced[0]) == 4  # the other way of the check


QUOTED = [
    *[
        "'",
        '"',
        "'\"",
        "it's",
        'so "called"',
        "\\",
        "\n",
        "\r\t",
        "\x00",
        "A000\x00",
        "\x1f\x7f",
        " . ",
        ".",
        "-",
        "A00-",
    ],
    *["-" * 8, "'" * 57 + '"', "'" * 29 + '"', "'" * 28 + '"', "a00." + " " * 3000 + "0", "." * 4000, "A" * 5000],
    *["A" * length for length in (8, 9, 56, 57, 58, 59, 60, 61)],
    *["A" * length + "\x01" for length in range(52, 60)],
    *["\\" * length + "A" * more for length in range(26, 32) for more in range(3)],
    *["\x80", "é", "\u017f00", "日本", "😀", "A00\u2028", "\uff21", "A" * 60 + "é"],
]


def test_what_cannot_be_a_code_is_quoted_alike(services: Services, through_messages: list[str]) -> None:
    raw = Request(system="icd10cm", items=[Item(code=code) for code in QUOTED]).SerializeToString()
    answer = services.from_bytes()["BatchValidateCodes"](raw, Facts())
    # What Python thinks of the characters of the others is not known to the core.
    assert through_messages == [code for code in QUOTED if not code.isascii()]
    assert answer == check(services, raw)
    for code in QUOTED:
        check_one(services, One(system="icd10cm", code=code).SerializeToString())


@MANY
@given(
    st.lists(st.text(alphabet=st.characters(max_codepoint=0x17F, exclude_categories=["Cs"]), max_size=70), max_size=9)
)
def test_any_text(services: Services, codes: list[str]) -> None:
    check(services, Request(system="icd10cm", date=20260301, items=[Item(code=c) for c in codes]).SerializeToString())


@MANY
@given(RANDOM)
def test_any_request(services: Services, rng: Random) -> None:
    assert check(services, shapes.code_request(rng)) != "no protobuf"
    assert check_one(services, shapes.one_code_request(rng)) != "no protobuf"


@MANY
@given(RANDOM)
def test_any_damage(services: Services, rng: Random) -> None:
    check(services, shapes.damaged(rng, shapes.code_request(rng)))
    check_one(services, shapes.damaged(rng, shapes.one_code_request(rng)))


@MANY
@given(st.binary(max_size=60))
def test_any_bytes(services: Services, raw: bytes) -> None:
    check(services, raw)
    check_one(services, raw)


def test_the_shapes_are_worth_it(services: Services) -> None:
    """Most of them are answered, some items are not, and damage is mostly refused but not always."""
    rng = Random(4711)
    kinds: Counter[str] = Counter()
    for i in range(600):
        raw = shapes.code_request(rng)
        got = check(services, raw if i % 3 else shapes.damaged(rng, raw))
        if isinstance(got, str):
            kinds[got] += 1
        else:
            results = Response.FromString(got).results
            kinds["item errors" if any(result.HasField("error") for result in results) else "answered"] += 1
            kinds.update(f"status {result.status}" for result in results)
        one = shapes.one_code_request(rng)
        kinds["one plain" if services.from_bytes()["ValidateCode"](one, Facts()) is not None else "one not plain"] += 1
    assert {f"status {status}" for status in (1, 2, 3, 4, 5, 6)} <= set(kinds)
    for kind in ("no protobuf", "item errors", "answered", "one plain", "one not plain", "status 1"):
        assert kinds[kind] > 50, kinds


CM = shapes.text(1, "icd10cm")
CODE = shapes.text(1, "A000")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        shapes.text(4, b""),
        shapes.text(4, CODE),
        shapes.text(4, CODE) + CM,
        CM + shapes.text(4, CODE) + shapes.text(1, "icd10pcs"),
        CM + shapes.text(4, CODE) + shapes.text(1, ""),
        CM + shapes.text(4, CODE + shapes.text(1, "A001")),
        CM + shapes.text(4, CODE + shapes.text(1, "")),
        CM + shapes.text(4, CODE + shapes.text(2, "icd10pcs") + shapes.text(2, "")),
        # Release and date of a batch stand together.
        CM + shapes.text(2, "2026") + shapes.number(3, 20250101) + shapes.text(4, CODE),
        CM + shapes.text(2, "2026") + shapes.number(3, 20250101) + shapes.text(4, CODE + shapes.number(4, 20240101)),
        CM + shapes.text(2, "2026") + shapes.number(3, 20250101) + shapes.text(4, CODE + shapes.text(3, "2027")),
        CM + shapes.text(2, "1999") + shapes.text(4, CODE + shapes.number(4, 20240101)) + shapes.text(4, CODE),
        CM + shapes.number(3, 20260230) + shapes.text(4, CODE),
        CM + shapes.number(3, 18000101) + shapes.text(4, CODE),
        CM + shapes.number(3, -20261121) + shapes.text(4, CODE),
        CM + shapes.number(3, (1 << 32) + 20260301) + shapes.text(4, CODE),
        CM + shapes.number(3, 20260301, 5) + shapes.text(4, CODE, 2),
        CM + shapes.number(3, 20260301) + shapes.number(3, 0) + shapes.text(4, CODE),
        shapes.text(1, URI) + shapes.text(4, CODE),
        shapes.text(1, "msdrg") + shapes.text(4, CODE),
        shapes.text(1, "ICD10CM") + shapes.text(4, CODE),
        # Known numbers, other wire types: unknown fields.
        CM + shapes.text(3, "2026") + shapes.number(4, 7) + shapes.text(4, shapes.number(1, 3) + CODE),
        CM + shapes.text(4, CODE + shapes.text(4, "x") + shapes.tag(3, 5) + b"abcd"),
    ],
)
def test_corners(services: Services, raw: bytes) -> None:
    assert isinstance(check(services, raw), bytes)


@pytest.mark.parametrize("depth", [98, 99, 100, 101])
@pytest.mark.parametrize("field", [1, 13])
def test_groups_within_groups(services: Services, depth: int, field: int) -> None:
    groups = shapes.tag(field, shapes.GROUP) * depth + shapes.tag(field, shapes.END_GROUP) * depth
    for raw in (groups, shapes.text(4, groups), CM + shapes.text(4, CODE + groups)):
        check(services, raw)
    check_one(services, groups + CM)


def test_many_choices(services: Services, through_messages: list[str]) -> None:
    """More than are remembered while reading, those that fail among them."""
    rng = Random(1)
    days = [20221001 + i % 28 + 100 * (i % 3) + 10000 * (i % 4) for i in range(336)]
    items = [
        Item(code=rng.choice(shapes.CODES), system=rng.choice(["", "icd10pcs", URI, "icd9cm", "nope"]), date=date)
        for date in days * 12
    ]
    items += [Item(code="A000", release=f"{i}") for i in range(3000)]
    items += [Item(code="A000", date=10101 + i // 28 % 12 * 100 + i // 336 * 10000 + i % 28) for i in range(3000)]
    items += [Item(code="A000", release="2026", date=20000101 + i % 28 + i // 28 * 10000) for i in range(3000)]
    rng.shuffle(items)
    raw = Request(system="icd10cm", items=items).SerializeToString()
    answer = services.from_bytes()["BatchValidateCodes"](raw, Facts())
    plain = Response.FromString(answer or b"").results
    assert len(through_messages) < sum(result.HasField("error") for result in plain) + len(items) / 10
    assert answer == check(services, raw)


def test_a_batch_too_large(store: Path) -> None:
    services = Services(engine.open(store), ServerConfig(max_items=2))
    assert check(services, CM + shapes.text(4, CODE) * 3)[0] == "BATCH_TOO_LARGE"


ONES = [
    One(system="icd10cm", code="A00.0"),
    One(system="icd10cm", code="A00.0", date=20260301),
    One(system="icd10cm", code="A00.0", release="2021"),
    One(system="icd10cm", code="A00.0", release="2021", date=20260301),
    One(system=URI, code="A00", date=20260301),
    One(system="icd10pcs", code="0DTJ4ZZ"),
    One(system="icd9cm", code="E800.1"),
    One(system="icd9cm", code="", release="2015"),
    One(system="icd10cm", code="Z99.99Z"),
    One(system="icd10cm", code="A00.0\x00"),
]


@pytest.mark.parametrize("request_", ONES)
def test_one_code_is_plain(services: Services, request_: One) -> None:
    raw = request_.SerializeToString()
    for _ in range(2):
        assert services.from_bytes()["ValidateCode"](raw, Facts()) is not None
        check_one(services, raw)


@pytest.mark.parametrize(
    "request_",
    [
        One(),
        One(code="A000"),
        One(system="nope", code="A000"),
        One(system="icd10cm", code="é"),
        One(system="icd10cm", code="A000", release="1999"),
        One(system="icd10cm", code="A000", date=20260230),
        One(system="icd10cm", code="A000", date=-1),
        One(system="icd10cm", code="A000", date=18000101),
        One(system="icd10cm", code="A000", release="2026", date=-20260101),
        One(system="icd10cm", code=" " * 5000 + "A000"),
    ],
)
def test_one_code_that_is_not_plain_leaves_no_trace(services: Services, request_: One) -> None:
    raw = request_.SerializeToString()
    facts = Facts()
    assert services.from_bytes()["ValidateCode"](raw, facts) is None
    assert (facts.items, facts.errors, facts.releases) == (1, 0, "")
    check_one(services, raw)


def test_a_date_is_not_taken_for_today(services: Services) -> None:
    """Minus the current day is how the current day is remembered."""
    today = datetime.date.today()
    number = today.year * 10000 + today.month * 100 + today.day
    check_one(services, One(system="icd10cm", code="A000").SerializeToString())
    assert (
        services.from_bytes()["ValidateCode"](
            One(system="icd10cm", code="A000", date=-number).SerializeToString(), Facts()
        )
        is None
    )
    raw = Request(system="icd10cm", items=[Item(code="A000"), Item(code="A000", date=-number)]).SerializeToString()
    results = Response.FromString(check(services, raw)).results
    assert [result.HasField("error") for result in results] == [False, True]


def test_the_day_changes(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was remembered yesterday is not said today."""

    class Calendar(datetime.date):
        now: Any

        @classmethod
        def today(cls) -> Any:
            return cls.now

    monkeypatch.setattr(datetime, "date", Calendar)
    one = One(system="icd10cm", code="A000").SerializeToString()
    many = Request(system="icd10cm", items=[Item(code="A000")]).SerializeToString()
    for day, release in ((30, "2026-04"), (1, "2027"), (30, "2026-04")):
        Calendar.now = datetime.date(2026, 9 if day == 30 else 10, day)
        for response in (
            services.from_bytes()["ValidateCode"](one, Facts()),
            services.from_bytes()["BatchValidateCodes"](many, Facts()),
        ):
            result = Response.FromString(response or b"").results[0]
            assert (result.release, result.date % 100) == (release, day)
        check(services, many)
        check_one(services, one)


def test_a_library_that_was_replaced_is_let_go(store: Path) -> None:
    services = Services(engine.open(store), ServerConfig())
    raw = One(system="icd10cm", code="A000", date=20260301).SerializeToString()
    assert services.from_bytes()["ValidateCode"](raw, Facts()) is not None
    core = services.library.code_system("icd10cm", date=20260301)
    old, pack = weakref.ref(services.library), weakref.ref(core._pack)
    del core
    services.library = engine.open(store, releases=["icd10cm/2027"])
    gc.collect()
    assert (old(), pack()) == (None, None)
    # The new one has no release for the day.
    assert services.from_bytes()["ValidateCode"](raw, Facts()) is None
    assert check_one(services, raw)[0] == "DATE_OUTSIDE_COVERAGE"
    assert (
        Response.FromString(
            check(services, Request(system="icd10cm", date=20260301, items=[Item(code="A000")]).SerializeToString())
        )
        .results[0]
        .HasField("error")
    )


def test_any_number_of_days_is_not_remembered(services: Services) -> None:
    for year in range(1, 800):
        for month in range(1, 13):
            raw = One(system="icd10cm", code="A000", release="2026", date=year * 10000 + month * 100 + 1)
            assert services.from_bytes()["ValidateCode"](raw.SerializeToString(), Facts()) is not None
    assert 0 < len(services._codes_wire._known or ()) < 9000
    check_one(services, ONES[0].SerializeToString())


def test_threads_share_what_is_remembered(store: Path) -> None:
    services = Services(engine.open(store), ServerConfig())
    items = [Item(code=code, date=date) for code in shapes.CODES for date in (20240101, 20250101, 20260101)]
    raw = Request(system="icd10cm", items=items).SerializeToString()
    one = ONES[1].SerializeToString()
    found: list[Any] = []

    def ask() -> None:
        found.extend(
            (
                services.from_bytes()["BatchValidateCodes"](raw, Facts()),
                services.from_bytes()["ValidateCode"](one, Facts()),
            )
            for _ in range(5)
        )

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(check(services, raw), check_one(services, one))] * 20


def test_another_library_is_asked_through_messages() -> None:
    from fake_library import FakeLibrary

    services = Services(FakeLibrary(), ServerConfig())  # type: ignore[arg-type]
    assert services.from_bytes()["BatchValidateCodes"](b"", Facts()) is None
    assert services.from_bytes()["ValidateCode"](b"", Facts()) is None


def test_misuse_is_refused(services: Services) -> None:
    core = services.library.code_system("icd10cm", release="2026").core
    with pytest.raises(ValueError, match="expected the sentences"):
        Wording({}, KINDS, 3, 60, 57)
    with pytest.raises(ValueError, match="'colour'"):
        Wording({**SENTENCES, "valid": "{colour}"}, KINDS, 3, 60, 57)
    with pytest.raises(ValueError, match="no more shown"):
        Wording(SENTENCES, KINDS, 3, 60, 61)
    words = Wording(SENTENCES, KINDS, EXAMPLES, LONGEST_SHOWN, SHOWN_OF_LONGER)
    with pytest.raises(TypeError):
        words.__init__(SENTENCES, KINDS, 3, 60, 57)  # type: ignore[misc]
    with pytest.raises(ValueError, match="20260230"):
        ReleaseOnDay(core, words, 20260230, b"")
    with pytest.raises(ValueError, match="kinds"):
        ReleaseOnDay(core, Wording(SENTENCES, KINDS[:-1], 3, 60, 57), 20260301, b"")
    with pytest.raises(ValueError, match="kinds"):
        ReleaseOnDay(core, Wording.__new__(Wording), 20260301, b"")
    day = ReleaseOnDay(core, words, 20260301, b"")
    with pytest.raises(TypeError):
        day.__init__(core, words, 20260301, b"")  # type: ignore[misc]
    request = CodesRequest(CM + shapes.text(4, shapes.text(1, "é")))
    with pytest.raises(TypeError):
        request.__init__(b"")  # type: ignore[misc]
    with pytest.raises(ValueError, match="1 releases"):
        request.answer([], list)
    for wrong in ("2026", ReleaseOnDay.__new__(ReleaseOnDay)):
        with pytest.raises(TypeError):
            request.answer([wrong], list)  # type: ignore[list-item]
        with pytest.raises(TypeError):
            answer_code(CM, {("icd10cm", "", -20260101): wrong}, lambda: 20260101)  # type: ignore[dict-item]
    for broken in (lambda items: [], lambda items: [1], lambda items: None):
        with pytest.raises((TypeError, ValueError)):
            request.answer([day], broken)


def test_other_words_are_said_as_given(services: Services) -> None:
    """The words are nowhere but in the templates."""
    core = services.library.code_system("icd10cm", release="2026").core
    fields = (
        "{code}{normalized}{display}{date}{effective_from}{effective_to}{again}{kind}{system}{examples}{replaced_by}"
    )
    long = {name: name * 100 if name in ("separator", "more", "cut") else fields * 3 + "é" * 300 for name in SENTENCES}
    for sentences in (long, {**dict.fromkeys(SENTENCES, "")}, {**SENTENCES, "valid": "{{{display}}}"}):
        words = Wording(sentences, ["kind" * 50] * len(KINDS), 40, 200, 100)
        day = ReleaseOnDay(core, words, 20260301, b"")
        for code in [*shapes.CODES, "A00", "A01.0", "A00-A09", "1", "T81.12", "C81.1"]:
            raw = One(system="icd10cm", code=code, date=20260301).SerializeToString()
            found = answer_code(raw, {("icd10cm", "", 20260301): day}, int)
            if found is not None:
                result = Response.FromString(found[0]).results[0]
                assert result.code == code
                if sentences is not long and code == "A41.9":
                    assert result.message == ("{A41.9}" if sentences["valid"] else "")


def test_what_is_no_message_is_refused_over_the_wire(address: str) -> None:
    import grpc

    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/codeset.v1.TerminologyService/BatchValidateCodes")(b"\x0a\x05", timeout=30)
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
