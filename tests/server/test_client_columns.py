"""Tables to the server and tables from it: what dicts give, compiled and not, from whatever columns may be."""

from __future__ import annotations

import array
import asyncio
import datetime
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_harness import running
from test_thin_client import loaded

import engine
from engine import errors
from engine.client import AsyncClient, Client, _compiled, _fast, to_dict
from engine.client._batches import DRG, EDIT, HCC, VALIDATION, Limits
from engine.client._columns import DEFAULTS
from engine.client._requests import columns_of, drg_job, hcc_job, validation_job

ALL = Limits(10_000, 1 << 30)
MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def address(store: Any) -> Iterator[str]:
    with running(engine.open(store)) as listening:
        yield listening


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    with Client(address, chunk_items=300) as client:
        yield client


@pytest.fixture(params=[True, False], ids=["compiled", "plain"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the compiled module."""
    if not request.param:
        monkeypatch.setattr(_compiled, "fast", None)


def columns(items: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The same as columns of plain Python, None where an item does not have a field."""
    return {name: [item.get(name) for item in items] for name in sorted({name for item in items for name in item})}


def cell(value: Any, name: str) -> Any:
    """What stands under a name with dots in a dict."""
    head, _, rest = name.partition(".")
    if isinstance(value, list):
        return [cell(item, name) for item in value]
    value = value.get(head) if value is not None else None
    return cell(value, rest) if rest and value is not None else value


def expected(results: list[dict[str, Any]], message: str) -> dict[str, Any]:
    return {name: [cell(result, name) for result in results] for name in DEFAULTS[message]}


@pytest.mark.usefixtures("either")
def test_claims(client: Client, address: str, sample: Any) -> None:
    claims = sample.claims[:700]
    results = list(client.iter_drg_dicts(claims))
    assert client.group_drg_columns(columns(claims)) == expected(results, "codeset.v1.DrgResult")
    fields = ["error.message", "diagnoses.code", "diagnoses.hacs.status", "procedures.hac_usage", "claim_id"]
    found = client.group_drg_columns(columns(claims), fields=fields)
    assert found == {name: [cell(result, name) for result in results] for name in fields}
    assert list(found) == fields
    edited = list(client.iter_edits_dicts(claims, editor_release="43.1"))
    assert client.edit_claims_columns(columns(claims), editor_release="43.1") == expected(
        edited, "codeset.v1.EditResult"
    )
    both = client.edit_and_group_columns(columns(claims), editor_release="43.1")
    assert both == {
        f"{prefix}.{name}": column
        for prefix, some, message in (("result", edited, "EditResult"), ("drg_result", results, "DrgResult"))
        for name, column in expected(some, f"codeset.v1.{message}").items()
    }

    async def again() -> Any:
        async with AsyncClient(address, chunk_items=300) as other:
            return (
                await other.edit_and_group_columns(columns(claims), editor_release="43.1"),
                await other.edit_claims_columns(columns(claims), fields=["edit_type"], editor_release="43.1"),
                await other.group_drg_columns(columns(claims), fields=fields),
            )

    assert asyncio.run(again()) == (both, {"edit_type": both["result.edit_type"]}, found)


@pytest.mark.usefixtures("either")
def test_members(client: Client, address: str, hcc_sample: Any) -> None:
    members = hcc_sample.claims[:150]
    results = list(client.iter_hcc_dicts(members))
    found = client.score_hcc_columns(columns(members))
    assert found == expected(results, "codeset.v1.HccResult")
    assert any(found["scores.payment"])

    async def again() -> Any:
        async with AsyncClient(address) as other:
            return await other.score_hcc_columns(columns(members))

    assert asyncio.run(again()) == found


@pytest.mark.usefixtures("either")
def test_codes(client: Client, address: str) -> None:
    codes = ["A000", "A00", "nope", "", "E119"]
    results = list(client.iter_validations_dicts("icd10cm", codes, date=20250101))
    wanted = expected(results, "codeset.v1.CodeValidation")
    given: Any
    for given in (codes, tuple(codes), np.array(codes), np.array(codes, "S"), {"code": codes}, np.array(codes, object)):
        assert client.validate_columns("icd10cm", given, date=20250101) == wanted
    own = {"code": codes, "date": [20200101, None, 0, -1, 20250101]}
    found = client.validate_columns("icd10cm", own, fields=["code", "date", "error.code"], date=20250101)
    assert found["date"] == [20200101, 20250101, 20250101, None, 20250101]
    assert found["error.code"] == [None, None, None, "INVALID_DATE", None]
    assert found["code"] == codes

    async def again() -> Any:
        async with AsyncClient(address) as other:
            return await other.validate_columns("icd10cm", codes, date=20250101)

    assert asyncio.run(again()) == wanted


class Arrow:
    """Behaves as an array of Arrow does."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, at: Any) -> Any:
        return Arrow(self._values[at]) if isinstance(at, slice) else self._values[at]

    def to_pylist(self) -> list[Any]:
        return list(self._values)


class Lists(Arrow):
    """Behaves as an array of lists does, cut out of a longer one."""

    null_count = 0

    def __init__(self, rows: list[Any]) -> None:
        super().__init__(rows)
        flat = ["before", *(value for row in rows for value in row), "behind"]
        self.values = Arrow(flat)
        self.offsets = Arrow([1 + sum(map(len, rows[:i])) for i in range(len(rows) + 1)])

    def to_pylist(self) -> list[Any]:
        raise AssertionError("the values need not be made lists")


class Chunked:
    """Behaves as a column of a table of Arrow does."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def combine_chunks(self) -> Lists:
        return Lists(self._rows)


class Table:
    """Behaves as a table of Arrow does."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = columns

    @property
    def column_names(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]


class Series:
    """Behaves as a column of pandas does."""

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)
        self.dtype = self._values.dtype

    def __len__(self) -> int:
        return len(self._values)

    def isna(self) -> Any:
        return np.array([value is None or value != value for value in self._values.tolist()], bool)

    def astype(self, dtype: Any) -> Series:
        return Series(self._values.astype(dtype))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def to_numpy(self) -> Any:
        return self._values


class NAType:
    """Behaves as pandas.NA does."""

    def __ne__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


def offsets(rows: list[Any]) -> list[int]:
    return [sum(map(len, rows[:i])) for i in range(len(rows) + 1)]


def flat(rows: list[Any]) -> list[Any]:
    return [value for row in rows for value in row]


def requests(job: Any) -> Any:
    return [chunk[:2] for chunk in job.chunks(ALL)], [chunk.errors for chunk in job.chunks(ALL)]


def test_every_kind_of_column(either: None) -> None:
    ages, days = [45, 0, 99], [20250101, 20241231, 20240229]
    lists = [["A000", "E119"], [], ["I130"]]
    claims = [
        {"claim_id": f"c{i}", "discharge_date": days[i], "age": ages[i], "sex": "FEMALE", "diagnoses": lists[i]}
        for i in range(3)
    ]
    wanted = [chunk.request for chunk in drg_job(claims, None).chunks(ALL)]
    dates = [datetime.date(2025, 1, 1), datetime.date(2024, 12, 31), datetime.date(2024, 2, 29)]
    choices: dict[str, list[Any]] = {
        "claim_id": [
            np.array(["c0", "c1", "c2"]),
            np.array(["c0", "c1", "c2"], "S5"),
            np.array(["c0", "", "c1", "", "c2"], "S9")[::2],
            np.array(["c0", "c1", "c2"], ">U2"),
            np.array(["c0", "c1", "c2"], object),
            Arrow(["c0", "c1", "c2"]),
            Series(np.array(["c0", "c1", "c2"], object)),
            ("c0", "c1", "c2"),
            [b"c0", "c1", np.str_("c2")],
        ],
        "discharge_date": [
            dates,
            np.array(dates, "datetime64[D]"),
            np.array(dates, "datetime64[ns]"),
            Series(np.array(dates, "datetime64[ns]")),
            np.array(days, float),
            Arrow(dates),
            np.array(days, ">i4"),
            np.array(days, np.uint64),
        ],
        "age": [
            *(np.array(ages, dtype) for dtype in "bBhHiIlLqQ"),
            np.array(ages, object),
            array.array("h", ages),
            memoryview(array.array("q", ages)),
            np.array([45, 1, 0, 1, 99])[::2],
            np.array([99, 0, 45])[::-1],
            np.ma.MaskedArray(ages, [False] * 3),
            np.array(ages, np.float32),
            [45.0, np.int8(0), 99],
        ],
        "sex": [
            np.array(["FEMALE"] * 3),
            np.array(["FEMALE"] * 3, "S"),
            np.array([2, 2, 2], np.uint8),
            ["SEX_FEMALE", 2, 2.0],
        ],
        "diagnoses": [
            lists,
            tuple(map(tuple, lists)),
            (flat(lists), offsets(lists)),
            (np.array(flat(lists)), np.array(offsets(lists), np.int32)),
            (np.array(flat(lists), "S"), offsets(lists)),
            (np.array(flat(lists), object), array.array("q", offsets(lists))),
            (["no", *flat(lists), "no"], [1 + offset for offset in offsets(lists)]),
            np.array([["A000", "E119", ""], ["", "", ""], ["I130", "", ""]]),
            np.array([["A000", "E119"], ["", ""], ["I130", ""]], "S"),
            np.array([["A000", "E119"], [None, None], ["I130", None]], object),
            Lists(lists),
            Chunked(lists),
            [np.array(row, object) for row in lists],
            [np.array(row, "S4") for row in lists],
        ],
    }
    base = columns(claims)
    form = columns_of(DRG, None)
    for name, kinds in choices.items():
        for kind in kinds:
            for frame in ({**base, name: kind}, Table({**base, name: kind})):
                job = drg_job(frame, None, form)
                assert [chunk.request for chunk in job.chunks(ALL)] == wanted, (name, kind)
    nothing: list[Any] = [[None] * 3, [float("nan")] * 3, np.full(3, np.nan), Series(np.array([None] * 3)), None]
    nothing += [np.array(["NaT"] * 3, "datetime64[D]"), np.ma.MaskedArray(ages, [True] * 3), [NAType()] * 3]
    without = [{name: value for name, value in claim.items() if name != "age"} for claim in claims]
    wanted = [chunk.request for chunk in drg_job(without, None).chunks(ALL)]
    for kind in nothing:
        job = drg_job({**base, "age": kind}, None, form)
        assert [chunk.request for chunk in job.chunks(ALL)] == wanted, kind


BAD = [
    ("age", ["45", 45, 45], 0),
    ("age", [45, 45.5, 45], 1),
    ("age", [45, 45, 1 << 31], 2),
    ("age", np.array([45, 1 << 31, 45]), 1),
    ("age", np.array([45, 45, (1 << 64) - 1], np.uint64), 2),
    ("age", [45, True, 45], 1),
    ("claim_id", [b"\xff", "b", "c"], 0),
    ("claim_id", np.array([b"\xff", b"b", b"c"]), 0),
    ("claim_id", ["a", "\ud800", "c"], 1),
    ("claim_id", ["a", "b", 5], 2),
    ("sex", ["MALE", "?", None], 1),
    ("diagnoses", [["A000"], "A000", None], 1),
    ("diagnoses", [["A000"], ["A000", None], None], 1),
    ("diagnoses", (["A000", 5, "A000"], [0, 1, 2, 3]), 1),
]


@pytest.mark.parametrize(("name", "column", "row"), BAD, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(BAD)])
def test_a_bad_cell_is_the_error_of_its_row(either: None, client: Client, name: str, column: Any, row: int) -> None:
    base = {"claim_id": ["a", "b", "c"], "version": ["43.1"] * 3, "diagnoses": [["A000"]] * 3}
    fields = ["claim_id", "final_grouping.drg", "error.code", "error.field", "error.message"]
    found = client.group_drg_columns({**base, name: column}, fields=fields)
    others = [i for i in range(3) if i != row]
    assert [found["error.code"][i] for i in (row, *others)] == ["INVALID_FIELD", None, None]
    assert found["error.field"][row] == name
    assert found["final_grouping.drg"][row] is None
    assert all(found["final_grouping.drg"][i] for i in others)
    assert found["claim_id"][row] == ("" if name == "claim_id" else "abc"[row])


WRONG = [
    (5, "claims", "columns by name"),
    ([{"claim_id": "a"}], "claims", "columns by name"),
    ({}, "claims", "a column at least"),
    ({"claim_id": None}, "claims", "a column at least"),
    ({"claim_id": ["a"], "kode": ["A"]}, "kode", "not a field"),
    ({"claim_id": ["a"], "age": [1, 2]}, "age", "expected 1 rows like claim_id, got 2"),
    ({"claim_id": "a"}, "claim_id", "expected a column"),
    ({"claim_id": {"a": 1}}, "claim_id", "expected a column"),
    ({"claim_id": iter("a")}, "claim_id", "expected a column"),
    ({"diagnoses": np.array(["A"])}, "diagnoses", "a list a row"),
    ({"diagnoses": (["A"], [0, 2])}, "diagnoses", "offsets"),
    ({"diagnoses": (["A"], [-1, 1])}, "diagnoses", "offsets"),
    ({"diagnoses": (["A", "B"], [0, 2, 1])}, "diagnoses", "offsets"),
    ({"diagnoses": (["A"], [0, None])}, "diagnoses", "offsets"),
    ({"diagnoses": (["A"], [0, "1"])}, "diagnoses", "offsets"),
]


@pytest.mark.parametrize(("frame", "field", "words"), WRONG, ids=range(len(WRONG)))
def test_what_are_no_columns(either: None, frame: Any, field: str, words: str) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(errors.InvalidFieldError, match=words) as raised:
        client.group_drg_columns(frame)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["claim"], "'claim' is not in the answers. DrgResult has claim_id, "),
        (["final_grouping.drgs"], "Grouping has mdc, "),
        (["final_grouping"], "has fields of its own; name one of mdc, "),
        (["claim_id.x"], "not in the answers"),
        ("claim_id", "a list of names"),
        ([5], "expected names"),
        ([], "a name at least"),
        (5, "a list of names"),
    ],
)
def test_fields_that_answers_do_not_have(either: None, fields: Any, words: str) -> None:
    with Client("127.0.0.1:1") as client:
        with pytest.raises(errors.InvalidFieldError, match=words) as raised:
            client.group_drg_columns({"claim_id": ["a"]}, fields=fields)
        assert raised.value.field == "fields"
        with pytest.raises(errors.InvalidFieldError, match=r"begin with result\. or drg_result\."):
            client.edit_and_group_columns({"claim_id": ["a"]}, fields=["edit_type"])


def test_arrays(either: None, client: Client) -> None:
    frame = {"claim_id": ["a", "b"], "version": ["43.1"] * 2, "diagnoses": [["A000"], ["A000"]], "age": [4, "?"]}
    fields = [
        "claim_id",
        "final_grouping.drg",
        "final_grouping.weight.special_pay",
        "diagnoses.recognized",
        "hac_status",
    ]
    found = client.group_drg_columns(frame, fields=fields, arrays=True)
    drg = found["final_grouping.drg"]
    assert (drg.dtype, drg.tolist()) == (np.dtype(np.int32), [373, None])
    assert found["final_grouping.weight.special_pay"].dtype == bool
    assert (found["claim_id"].dtype, found["claim_id"].tolist()) == (np.dtype(object), ["a", "b"])
    assert found["diagnoses.recognized"].tolist() == [[True], None]
    members = {"member_id": ["m"], "model": ["V28"], "payment_year": [2026], "age": [70], "sex": ["MALE"], "orec": [0]}
    scores = client.score_hcc_columns(members, fields=["age", "scores.raw", "error.code"], arrays=True)
    assert scores["error.code"].tolist() == [None]
    assert scores["scores.raw"].shape == (1,)
    nobody = client.group_drg_columns({"claim_id": []}, fields=["final_grouping.drg", "claim_id"], arrays=True)
    assert [(column.dtype, len(column)) for column in nobody.values()] == [(np.dtype(np.int32), 0), (object, 0)]


def test_a_table_is_cut_and_put_together(either: None, address: str, sample: Any) -> None:
    """By items, by bytes, and where the server takes less at once than was sent."""
    claims = [*sample.claims[:100], {"claim_id": "bad", "age": "old"}, *sample.claims[100:200]]
    with running(max_items=40) as small, Client(small) as client:
        results = client.group_drg_columns(columns(claims), fields=["claim_id", "error.code"])
    assert results["claim_id"] == [claim["claim_id"] for claim in claims]
    assert results["error.code"][100] == "INVALID_FIELD"
    with Client(address) as client:
        whole = client.group_drg_columns(columns(claims))
    for limits in ({"chunk_items": 7}, {"chunk_bytes": 500}, {"chunk_items": 1}):
        with Client(address, **limits) as client:
            assert client.group_drg_columns(columns(claims)) == whole


CELLS = st.one_of(
    st.none(),
    st.text("AB0é\x00", max_size=4),
    st.binary(max_size=3),
    st.integers(-3, 200),
    st.integers(),
    st.booleans(),
    st.floats(),
    st.sampled_from(["MALE", "\ud800", datetime.date(2025, 1, 1)]),
)


@MANY
@given(st.data())
def test_any_cells_are_read_as_without_the_compiled_module(data: st.DataObject) -> None:
    job, batch = data.draw(st.sampled_from([(drg_job, DRG), (hcc_job, HCC), (validation_job, VALIDATION)]))
    rows = data.draw(st.integers(0, 5))
    fields = batch.kind.type.DESCRIPTOR.fields
    frame: dict[str, Any] = {}
    for field in data.draw(st.lists(st.sampled_from(list(fields)), min_size=1, max_size=4, unique=True)):
        cells = st.one_of(CELLS, st.lists(CELLS, max_size=3)) if field.is_repeated else CELLS
        frame[field.name] = data.draw(st.lists(cells, min_size=rows, max_size=rows))
        if not field.is_repeated and data.draw(st.booleans()):
            dtype = data.draw(st.sampled_from(["U3", "S3", "i8", "u1", "?", "f4"]))
            numbers = st.lists(st.integers(0, 255), min_size=rows, max_size=rows)
            texts = st.lists(st.text("AB0é", max_size=3), min_size=rows, max_size=rows)
            if dtype == "S3":
                frame[field.name] = np.array([text.encode()[:3] for text in data.draw(texts)], dtype)
            else:
                frame[field.name] = np.array(data.draw(texts if dtype == "U3" else numbers), dtype)

    def made() -> Any:
        more = ("icd10cm", frame, None, None) if job is validation_job else (frame, None)
        return requests_of(job(*more, columns_of(batch, None)))

    def requests_of(job: Any) -> Any:
        return list(job.chunks(Limits(3, 60)))

    found = made()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compiled, "fast", None)
        assert made() == found


def test_misuse_of_the_compiled_module() -> None:
    shape = _compiled.shape(DRG.kind.type)
    for bad in (np.array([1.5]), np.array([[1]]), np.array([1], ">i4"), np.array([1j]), (["A"], np.array([0]))):
        with pytest.raises(ValueError, match="expected"):
            _fast.Columns(shape, {"age": bad})
    with pytest.raises(TypeError):
        _fast.Columns(shape, {"age": 5})
    made = _fast.Columns(shape, {"age": [1, 2], "diagnoses": (["A"], [0, 1])})
    with pytest.raises(TypeError):
        made.__init__(shape, {"age": [1]})
    writer = _fast.Writer(shape, 1, b"")
    # A row that is not there is never plain, whatever the caller says.
    assert writer.fill_rows(made, 0, 5, 100) == 1
    assert writer.fill_rows(made, -1, 5, 100) == -1
    assert writer.fill_rows(_fast.Columns(shape, {"age": np.array([1])}), 0, 5, 100) == 1
    other = _fast.Columns(_compiled.shape(HCC.kind.type), {"age": [1]})
    for wrong in (other, _fast.Columns.__new__(_fast.Columns)):
        with pytest.raises(TypeError):
            writer.fill_rows(wrong, 0, 1, 100)
    response = _compiled.shape(EDIT.response)
    with pytest.raises(ValueError, match="number"):
        _fast.Table(response, 9, [("claim_id",)])
    with pytest.raises((TypeError, ValueError)):
        _fast.Table.__new__(_fast.Table).decode(b"")
    assert _fast.Table(response, 1, []).decode(b"") == []


def test_columns_load_numpy_only_for_arrays() -> None:
    code = (
        "from engine.client import Client; client = Client('127.0.0.1:1', attempts=1)\n"
        "try: client.group_drg_columns({'claim_id': ['a']})\n"
        "except Exception: pass\n"
        "client.close()"
    )
    assert not {name for name in loaded(code) if name.partition(".")[0] in ("numpy", "pandas", "pyarrow")}


def test_docs_name_the_defaults() -> None:
    for batch in (DRG, EDIT, HCC, VALIDATION):
        names = DEFAULTS[batch.result("results").DESCRIPTOR.full_name]
        assert to_dict(batch.result("results")())
        assert columns_of(batch, None).wanted.names == list(names)
