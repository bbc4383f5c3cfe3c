"""Items as columns, and answers as columns. Arrow, pandas and Polars are known by how they behave and never imported,
NumPy only by who asks for answers as arrays.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from ..errors import InvalidFieldError
from . import _compiled
from ._messages import Kind, date_number, named

__all__ = ["ColumnItems", "Wanted", "wanted"]

Frame = Mapping[str, Any] | Any
"""Columns by name of a field: a mapping, or a table with ``column_names`` (Arrow) or ``columns`` (pandas, Polars)."""

DEFAULTS: Final = {
    "codeset.v1.DrgResult": (
        "claim_id",
        "version",
        "final_grouping.mdc",
        "final_grouping.drg",
        "final_grouping.severity",
        "final_grouping.return_code",
        "final_grouping.weight.relative_weight",
        "hac_status",
        "error.code",
    ),
    "codeset.v1.CodeValidation": ("code", "release", "date", "status", "valid", "billable", "error.code"),
    "codeset.v1.EditResult": ("claim_id", "editor_release", "edit_type", "edits.edit", "edits.count", "error.code"),
    "codeset.v1.HccResult": (
        "member_id",
        "model",
        "payment_year",
        "release",
        "hccs",
        "segment",
        "scores.segment",
        "scores.raw",
        "scores.payment",
        "error.code",
    ),
}
"""The columns of answers, by message, where none are named."""

_NUMBERS: Final = {
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_DOUBLE: "float64",
}


# --- columns of items -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    field: FieldDescriptor
    cells: Any
    """A list, or an array of whole numbers, bool, or texts of fixed width."""
    offsets: list[int] | None = None
    """Where the values of each row begin among the cells, and the last end. None: a row has one cell."""

    def __len__(self) -> int:
        return len(self.cells) if self.offsets is None else len(self.offsets) - 1

    def cell(self, row: int) -> Any:
        """Return what a row has, as a dict would; None for nothing."""
        if self.offsets is not None:
            start, stop = self.offsets[row], self.offsets[row + 1]
            return [_plain(self.field, self.cells[i]) for i in range(start, stop)]
        cell = self.cells[row]
        if isinstance(cell, list | tuple):
            return [_plain(self.field, item) for item in cell]
        return _plain(self.field, cell)


class ColumnItems:
    """The items of a batch as columns, and how far they are taken.

    Raises InvalidFieldError for what are no columns, names that ``kind`` does not have, and columns of unequal length.
    """

    def __init__(self, kind: Kind, frame: Frame) -> None:
        named = _named(frame)
        if named is None:
            raise InvalidFieldError(
                f"{kind.many}: expected columns by name, got {type(frame).__name__}", field=kind.many
            )
        self._columns: dict[str, _Column] = {}
        self._taken = 0
        self.size = 0
        for name, given in named.items():
            field = kind.field(name)
            if given is None:
                continue
            column = _column(field, given)
            if not self._columns:
                self.size = len(column)
            elif len(column) != self.size:
                other = next(iter(self._columns))
                raise InvalidFieldError(
                    f"{name}: expected {self.size:,} rows like {other}, got {len(column):,}", field=name
                )
            self._columns[name] = column
        if not self._columns:
            raise InvalidFieldError(f"{kind.many}: expected a column at least, got none", field=kind.many)
        self.fast: Any = None
        if _compiled.fast is not None:
            given = {
                name: column.cells if column.offsets is None else (column.cells, column.offsets)
                for name, column in self._columns.items()
            }
            self.fast = _compiled.fast.Columns(_compiled.shape(kind.type), given)

    def take(self, count: int) -> _Block:
        """Return the next rows, at most ``count``."""
        start = self._taken
        self._taken = min(start + count, self.size)
        return _Block(self, start, self._taken)

    def row(self, row: int) -> dict[str, Any]:
        """Return a row as the mapping that it stands for."""
        cells = {name: column.cell(row) for name, column in self._columns.items()}
        return {name: cell for name, cell in cells.items() if cell is not None}


class _Block:
    """Some rows of columns."""

    def __init__(self, items: ColumnItems, start: int, stop: int) -> None:
        self._items = items
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, at: int) -> dict[str, Any]:
        return self._items.row(self._start + at)

    def fill(self, writer: _compiled.Writer, at: int, size: int) -> int:
        """As ``Writer.fill``."""
        return writer.fill_rows(self._items.fast, self._start + at, self._stop, size) - self._start


def is_frame(given: Any) -> bool:
    """Whether ``given`` has columns by name."""
    return _named(given) is not None


def _named(frame: Frame) -> dict[str, Any] | None:
    if isinstance(frame, Mapping):
        return dict(frame)
    names = getattr(frame, "column_names", getattr(frame, "columns", None))
    return None if names is None or not hasattr(frame, "__getitem__") else {name: frame[name] for name in names}


def _column(field: FieldDescriptor, given: Any) -> _Column:
    if not field.is_repeated:
        return _Column(field, _cells(field, given))
    if hasattr(given, "combine_chunks"):
        given = given.combine_chunks()
    if hasattr(given, "offsets") and hasattr(given, "values") and not getattr(given, "null_count", 0):
        given = given.values, given.offsets
    if isinstance(given, tuple) and len(given) == 2 and not isinstance(given[1], str) and _is_numbers(given[1]):
        values, offsets = _cells(field, given[0]), _listed(given[1])
        if (
            set(map(type, offsets)) != {int}
            or offsets != sorted(offsets)
            or offsets[0] < 0
            or offsets[-1] > len(values)
        ):
            raise InvalidFieldError(
                f"{field.name}: expected offsets that ascend from 0 to the {len(values):,} values", field=field.name
            )
        return _Column(field, values, offsets)
    cells = _cells(field, given)
    if not isinstance(cells, list):
        raise InvalidFieldError(
            f"{field.name}: expected a list a row, or a pair of values and offsets, got an array of single values",
            field=field.name,
        )
    wide = getattr(given, "ndim", 1) == 2
    return _Column(field, [cell if type(cell) is list and not wide else _row_of(cell, wide) for cell in cells])


def _row_of(cell: Any, wide: bool) -> Any:
    """Return the values of a row; of one of an array of two dimensions, those before the empty cells at its end."""
    if not isinstance(cell, list | tuple | str) and hasattr(cell, "tolist"):
        cell = cell.tolist()
    while wide and cell and (cell[-1] in ("", b"") or _missing(cell[-1])):
        cell.pop()
    return cell


def _cells(field: FieldDescriptor, given: Any) -> Any:
    """Return the cells of a column: as an array if that can be read as it is, else as a list."""
    if isinstance(given, str | bytes | bytearray | Mapping) or not hasattr(given, "__len__"):
        raise InvalidFieldError(
            f"{field.name}: expected a column, a list or an array, got {type(given).__name__}", field=field.name
        )
    kind = getattr(getattr(given, "dtype", None), "kind", "")
    if hasattr(given, "isna") and kind != "M":
        # pandas, which has several ways to say that there is nothing.
        missing = given.isna()
        if missing.any():
            cells = [None if gone else cell for cell, gone in zip(given.astype(object), missing, strict=True)]
            return [_plain(field, cell) for cell in cells] if kind == "f" or field.name.endswith("date") else cells
        given = given.to_numpy()
        kind = given.dtype.kind
    text = field.cpp_type == FieldDescriptor.CPPTYPE_STRING
    if kind in tuple("biu") or (text and kind in tuple("SU")):
        if given.ndim == 1 and given.dtype.isnative and not hasattr(given, "mask"):
            return given
    elif kind == "M":
        # Days, whatever was counted in.
        given = (given.to_numpy() if hasattr(given, "to_numpy") else given).astype("datetime64[D]")
    cells = _listed(given)
    if kind == "f":
        cells = [_plain(field, cell) for cell in cells]
    elif kind == "S":
        cells = [_plain(field, cell) if isinstance(cell, bytes) else cell for cell in cells]
    elif field.name.endswith("date") and any(issubclass(one, datetime.date) for one in set(map(type, cells))):
        cells = [_plain(field, cell) for cell in cells]
    return cells


def _listed(given: Any) -> list[Any]:
    """Return a column as a list of its own."""
    for name in ("to_pylist", "tolist", "to_list"):
        if hasattr(given, name):
            found: list[Any] = getattr(given, name)()
            return found
    return list(given)


def _is_numbers(given: Any) -> bool:
    return hasattr(given, "__len__") and len(given) > 0 and hasattr(_listed(given[:1])[0], "__index__")


def _missing(cell: Any) -> bool:
    """Whether a cell says that there is nothing: None, and what is not even itself (NaN, NaT, pandas.NA)."""
    try:
        return cell is None or bool(cell != cell)
    except (TypeError, ValueError):
        return type(cell).__name__ == "NAType"


def _plain(field: FieldDescriptor, cell: Any) -> Any:
    """Return a cell as a dict would have it, None for nothing. Columns have what dicts do not: numbers of NumPy, texts
    as bytes, whole numbers as floats, and days.
    """
    if isinstance(cell, str | int) or _missing(cell):
        return cell if isinstance(cell, str | int) else None
    if hasattr(cell, "item"):
        cell = cell.item()
    if isinstance(cell, bytes):
        try:
            return cell.decode()
        except UnicodeDecodeError:
            return cell
    if isinstance(cell, float) and cell.is_integer() and field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
        return int(cell)
    if isinstance(cell, datetime.date) and field.name.endswith("date"):
        return date_number(cell)
    return cell


# --- columns of answers ---------------------------------------------------------------------------------------------


class _Path(NamedTuple):
    result: int
    """Which of the results of an answer."""
    names: tuple[str, ...]
    dtype: str
    """NumPy's name of the type of the cells."""


class Wanted:
    """The columns of answers that are wanted."""

    def __init__(self, response: type[Message], results: Sequence[str], paths: dict[str, _Path]) -> None:
        self.names = list(paths)
        self._paths = list(paths.values())
        self._tables: list[tuple[Any, list[int]]] = []
        self._results = len(results)
        if _compiled.fast is not None:
            for i, field in enumerate(results):
                number = response.DESCRIPTOR.fields_by_name[field].number
                places = [place for place, path in enumerate(self._paths) if path.result == i]
                # One column at least, to know how many results there are.
                names = [self._paths[place].names for place in places] or [("error", "code")]
                self._tables.append((_compiled.fast.Table(_compiled.shape(response), number, names), places))

    def decode(self, response: bytes) -> list[list[Any]]:
        """Return one list a column from the bytes of a response. Raises ValueError if it is none."""
        columns: list[list[Any]] = [[] for _ in self.names]
        counts = set()
        for table, places in self._tables:
            found = table.decode(response)
            counts.add(len(found[0]))
            for place, column in zip(places, found, strict=False):
                columns[place] = column
        if len(counts) > 1:
            raise ValueError("not as many results of one kind as of the other")
        return columns

    def cells(self, answers: Sequence[tuple[dict[str, Any], ...]]) -> list[list[Any]]:
        """Return one list a column from answers as dicts."""
        return [[_at(answer[path.result], path.names) for answer in answers] for path in self._paths]

    def named(self, columns: list[list[Any]], arrays: bool) -> dict[str, Any]:
        """Return the columns by name, as lists or as arrays of NumPy."""
        if not arrays:
            return dict(zip(self.names, columns, strict=True))
        return {
            name: _array(path.dtype, column)
            for name, path, column in zip(self.names, self._paths, columns, strict=True)
        }


def wanted(response: type[Message], results: Mapping[str, str], fields: Iterable[str] | None) -> Wanted:
    """Return which columns of the answers are wanted: ``fields``, or those of ``DEFAULTS``.

    ``results``: fields of the response with the results; by each what the names of its columns begin with. Raises
    InvalidFieldError for names that the answers do not have.
    """
    of: dict[str, Any] = {field: response.DESCRIPTOR.fields_by_name[field].message_type for field in results}
    if fields is None:
        fields = [results[field] + name for field in results for name in DEFAULTS[of[field].full_name]]
    if isinstance(fields, str | bytes) or not isinstance(fields, Iterable):
        raise InvalidFieldError(f"fields: expected a list of names, got {type(fields).__name__}", field="fields")
    paths: dict[str, _Path] = {}
    for name in fields:
        for i, (field, prefix) in enumerate(results.items()):
            if isinstance(name, str) and name.startswith(prefix):
                paths[name] = _path(i, of[field], name, name.removeprefix(prefix))
                break
        else:
            prefixes = " or ".join(filter(None, results.values()))
            expected = f"names that begin with {prefixes}" if prefixes else "names"
            raise InvalidFieldError(f"fields: expected {expected}, got {name!r:.80}", field="fields")
    if not paths:
        raise InvalidFieldError("fields: expected a name at least, got none", field="fields")
    return Wanted(response, list(results), paths)


def _path(result: int, message: Descriptor, name: str, rest: str) -> _Path:
    names = tuple(rest.split("."))
    at: Descriptor | None = message
    dtype = ""
    for part in names:
        field = named(at.fields_by_name, part) if at is not None else None
        if field is None:
            has = f" {at.name} has {', '.join(at.fields_by_name)}." if at is not None else ""
            raise InvalidFieldError(f"fields: {name!r:.80} is not in the answers.{has}", field="fields")
        if field.is_repeated:
            dtype = "object"
        at = field.message_type
        dtype = dtype or ("" if at is not None else _NUMBERS.get(field.cpp_type, "object"))
    if at is not None:
        raise InvalidFieldError(
            f"fields: {name!r:.80} has fields of its own; name one of {', '.join(at.fields_by_name)} behind it.",
            field="fields",
        )
    return _Path(result, names, dtype)


def _at(value: Any, names: tuple[str, ...]) -> Any:
    """Return what stands at the end of ``names`` within a dict, None if nothing does; below a list, a list."""
    for i, name in enumerate(names):
        if isinstance(value, list):
            return [_at(item, names[i:]) for item in value]
        value = value.get(name)
        if value is None:
            return None
    return value


def _array(dtype: str, column: list[Any]) -> Any:
    import numpy

    if dtype == "object":
        return numpy.fromiter(column, dtype=object, count=len(column))
    values = numpy.array([0 if cell is None else cell for cell in column], dtype=dtype)
    return numpy.ma.MaskedArray(values, [cell is None for cell in column])
