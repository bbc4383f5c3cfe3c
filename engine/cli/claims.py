"""``codeset-engine group drg``: claims in, DRGs out, one JSON object a line.

Line N of the output answers line N of the input, whatever is on it. Lines are read, grouped and written a batch at a
time, so memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import typer
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..errors import CodesetError, InvalidFieldError, MalformedMessageError, PackNotFoundError
from . import FINDINGS
from .ndjson import read_lines, reading, writing
from .output import console

if TYPE_CHECKING:
    from ..library import Library

__all__ = [
    "Answers",
    "Fields",
    "Item",
    "Progress",
    "Refused",
    "Tally",
    "encode",
    "fields_of",
    "group_drg",
    "in_batches",
    "in_turn",
    "open_grouper",
    "read_claims",
    "read_objects",
    "refusal",
    "write_answers",
]

_BATCH: Final = 2_000


class Fields(NamedTuple):
    """What one line of an input is: its name for people, its id, and its fields by kind."""

    noun: str
    id: str
    names: Mapping[str, str]
    """Names that a proto3 JSON parser accepts, to those of the proto."""
    repeated: frozenset[str]
    integers: frozenset[str]


def fields_of(noun: str, id: str, names: Iterable[str], repeated: Iterable[str], integers: Iterable[str]) -> Fields:
    """Return the fields of a line, each under its own name and in camelCase."""
    accepted = {spelt: name for name in names for spelt in (name, _camel(name))}
    return Fields(noun, id, accepted, frozenset(repeated), frozenset(integers))


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


_CLAIM: Final = fields_of(
    "an inpatient claim",
    "claim_id",
    (
        "claim_id",
        "version",
        "discharge_date",
        "age",
        "sex",
        "discharge_status",
        "hospital_status",
        "length_of_stay",
        "admit_diagnosis",
        "diagnoses",
        "poa",
        "procedures",
        "icd_version",
    ),
    repeated={"diagnoses", "procedures"},
    integers={"discharge_date", "age", "discharge_status", "length_of_stay", "icd_version"},
)


class Refused(NamedTuple):
    """A line that is no claim, or no member: its answer."""

    id: str
    error: CodesetError


Item = dict[str, Any] | Refused
Answers = Callable[[Iterator[Item]], Iterator[dict[str, Any]]]
"""From claims, and lines that are none, to an answer each, in order."""


def group_drg(
    source: str,
    output: str,
    *,
    version: str | None,
    options: Mapping[str, str],
    server: str | None,
    store: Path | None,
) -> None:
    """Group the claims of ``source`` into ``output``.

    ``version``: for every claim, instead of its own. ``options``: names of the values of ``DrgOptions``. ``server``:
    group there, not in this process. Exits with FINDINGS if any line has no answer.
    """

    def group(stack: contextlib.ExitStack) -> Answers:
        return _in_process(store, version, options) if server is None else _on_server(stack, server, version, options)

    write_answers(source, output, version, group, Tally(), "grouping")


def write_answers(
    source: str,
    output: str,
    version: str | None,
    open_answers: Callable[[contextlib.ExitStack], Answers],
    tally: Tally,
    doing: str,
) -> None:
    """Answer the claims of ``source`` into ``output``, a batch at a time. ``version``: for every claim.

    ``open_answers`` opens the packs or the server that answer. Exits with FINDINGS if any line has no answer.
    """
    with contextlib.ExitStack() as stack:
        # The input first: without one there is nothing to say of packs or server.
        stream, position, size = stack.enter_context(reading(source))
        answer_all = open_answers(stack)
        out = stack.enter_context(writing(output))
        shown = stack.enter_context(Progress(position, size, doing))
        answers = answer_all(read_claims(stream, version))
        while batch := list(islice(answers, _BATCH)):
            for answer in batch:
                tally.add(answer)
            out.write(encode(batch))
            shown.update(tally.count)
    tally.report()


class Tally:
    """How many claims were answered, since when, by which versions, and how many were not, and why.

    ``label`` and ``version``: what answers, and the field of an answer that says which version of it.
    """

    def __init__(self, label: str = "MS-DRG", version: str = "version") -> None:
        self._label = label
        self._version = version
        self.count = 0
        self._begin = time.perf_counter()
        self._errors: Counter[str] = Counter()
        self._versions: set[str] = set()

    def add(self, answer: Mapping[str, Any]) -> None:
        """Count one result as JSON."""
        self.count += 1
        if "error" in answer:
            self.add_error(answer)
        else:
            self._versions.add(answer[self._version])

    def add_error(self, answer: Mapping[str, Any]) -> None:
        """Count the ``error`` of a result."""
        self._errors[answer["error"]["code"]] += 1

    def report(self) -> None:
        """Say it on standard error. Exits with FINDINGS if any claim has no answer."""
        seconds = time.perf_counter() - self._begin
        rate = f"{self.count / seconds:,.0f} claims/s" if self.count else "no claims"
        by = f", {self._label} {', '.join(sorted(self._versions))}" if self._versions else ""
        sys.stderr.write(f"{self.count:,} claims in {seconds:.2f} s, {rate}{by}\n")
        if self._errors:
            each = ", ".join(f"{code} {number:,}" for code, number in sorted(self._errors.items()))
            sys.stderr.write(f"{self._errors.total():,} without an answer: {each}\n")
            raise typer.Exit(FINDINGS)


# --- lines to claims ----------------------------------------------------------------------------------------


def read_claims(stream: Any, version: str | None) -> Iterator[Item]:
    """Yield a claim, or the answer of a line that is none, for each line. ``version``: for every claim."""
    for item in read_objects(stream, _CLAIM):
        if version is not None and isinstance(item, dict):
            item["version"] = version
        yield item


def read_objects(stream: Any, fields: Fields) -> Iterator[Item]:
    """Yield an object with ``fields``, or the answer of a line that is none, for each line."""
    for number, line in enumerate(read_lines(stream), 1):
        if isinstance(line, CodesetError):
            yield Refused("", type(line)(f"line {number}: {line}"))
            continue
        try:
            yield _object(line, fields)
        except MalformedMessageError as error:
            yield Refused("", MalformedMessageError(f"line {number}: {error}"))


def _object(line: bytes, fields: Fields) -> Item:
    """Read one object from proto3 JSON: names of the proto or camelCase, numbers also as texts, null for absent.

    What is wrong with the values of fields the engine says; here is only what JSON allows and the API does not.
    """
    try:
        pairs: Any = _decode(line.decode())
    except UnicodeDecodeError as error:
        raise MalformedMessageError(f"not UTF-8 at byte {error.start + 1}") from None
    except (ValueError, RecursionError) as error:
        # Of JSONDecodeError only what is wrong and where: its text goes on with the line.
        where = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise MalformedMessageError(f"not a JSON object: {what}{where}" if line.strip() else "it is blank") from None
    if not isinstance(pairs, _Object):
        raise MalformedMessageError(f"expected a JSON object, got {_json_type(pairs)}")
    claim: dict[str, Any] = {}
    try:
        for name, value in pairs:
            field = fields.names.get(name)
            if field is None:
                known = ", ".join(dict.fromkeys(fields.names.values()))
                raise InvalidFieldError(f"{name}: not a field of {fields.noun}. The fields are {known}.", field=name)
            if field in claim:
                raise InvalidFieldError(f"{field}: given twice", field=field)
            kind = type(value)
            if kind is float and value.is_integer():
                value = int(value)
            elif kind is str and field in fields.integers:
                value = _integer(field, value)
            elif kind is _Object or (field in fields.repeated and kind is not list and value is not None):
                expected = "a list of code strings" if field in fields.repeated else "one value"
                raise InvalidFieldError(f"{field}: expected {expected}, got {_json_type(value)}", field=field)
            claim[field] = value
        if b"\\u" in line:
            _check_text(claim)
    except InvalidFieldError as error:
        return Refused(_id_of(pairs, fields), error)
    return claim


class _Object(list[tuple[str, Any]]):
    """The members of a JSON object in order, so that a name given twice is seen."""


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


_decode = json.JSONDecoder(object_pairs_hook=_Object, parse_constant=_no_number).decode
_encode_one = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _integer(field: str, text: str) -> int:
    # proto3 JSON allows an integer to be a text.
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise InvalidFieldError(f"{field}: expected a whole number, got a text that is none", field=field)
    return int(text)


def _check_text(claim: dict[str, Any]) -> None:
    """Refuse lone surrogates, which JSON can escape and no text can hold."""
    for field, value in claim.items():
        for text in value if isinstance(value, list) else (value,):
            if isinstance(text, str):
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise InvalidFieldError(f"{field}: has half of a surrogate pair", field=field) from None


def _id_of(pairs: _Object, fields: Fields) -> str:
    """The object's id, if it is one that can be echoed."""
    for name, value in pairs:
        if fields.names.get(name) == fields.id and isinstance(value, str):
            return value.encode("utf-8", "replace").decode()
    return ""


def _json_type(value: Any) -> str:
    names = {str: "a string", bool: "a boolean", list: "an array", type(None): "null", _Object: "an object"}
    return names.get(type(value), "a number")


# --- claims to answers --------------------------------------------------------------------------------------


def open_grouper(store: Path | None, version: str | None) -> Library:
    """Open the packs of ``store``. Raises PackNotFoundError or UnknownVersionError if no claim could be grouped."""
    from ..library import GROUPER
    from ..library import open as open_packs

    library = open_packs(store)
    if GROUPER not in {info.system for info in library.releases()}:
        raise PackNotFoundError(
            f"no MS-DRG version in {library.store}. `codeset-engine build {GROUPER}` makes them.", field="version"
        )
    if version is not None:
        library.drg_grouper(version)
    return library


def in_batches(
    ask: Callable[[list[dict[str, Any]]], Iterable[dict[str, Any]]], refuse: Callable[[Refused], dict[str, Any]]
) -> Answers:
    """Return what asks for the answers of claims a batch at a time, and answers by itself what is no claim."""

    def answers(items: Iterator[Item]) -> Iterator[dict[str, Any]]:
        while batch := list(islice(items, _BATCH)):
            results = iter(ask([item for item in batch if isinstance(item, dict)]))
            for item in batch:
                yield refuse(item) if isinstance(item, Refused) else next(results)

    return answers


def in_turn(
    ask: Callable[[Iterator[dict[str, Any]]], Iterable[dict[str, Any]]], refuse: Callable[[Refused], dict[str, Any]]
) -> Answers:
    """As ``in_batches``, for what takes claims as it needs them, ahead of the answers it gives."""

    def answers(items: Iterator[Item]) -> Iterator[dict[str, Any]]:
        # What was refused in between waits here for its turn.
        waiting: deque[Refused | None] = deque()

        def claims() -> Iterator[dict[str, Any]]:
            for item in items:
                if isinstance(item, Refused):
                    waiting.append(item)
                else:
                    waiting.append(None)
                    yield item

        for answer in ask(claims()):
            while (refused := waiting.popleft()) is not None:
                yield refuse(refused)
            yield answer
        for refused in waiting:
            assert refused is not None
            yield refuse(refused)

    return answers


def _in_process(store: Path | None, version: str | None, options: Mapping[str, str]) -> Answers:
    from ..drg import AffectFlags, Detail, GroupingOptions, TieBreaker

    library = open_grouper(store, version)
    chosen = GroupingOptions(
        tie_breaker=TieBreaker[options["tie_breaker"]],
        affect_flags=AffectFlags[options["affect_flags"]],
        detail=Detail[options["detail"]],
    )

    return in_batches(lambda claims: (result.to_dict() for result in library.group_drg_many(claims, chosen)), refusal)


def _on_server(stack: contextlib.ExitStack, server: str, version: str | None, options: Mapping[str, str]) -> Answers:
    from ..client import Client

    client = stack.enter_context(Client(server))
    # Now, so that a wrong address or version is one error and not one a claim.
    client.release("msdrg", version)

    return in_turn(lambda claims: client.iter_drg_dicts(claims, options=options), refusal)


def refusal(refused: Refused) -> dict[str, Any]:
    """Return a ``DrgResult`` with an error as JSON."""
    error = refused.error
    return {
        "claim_id": refused.id,
        "version": "",
        "error": {"code": error.code, "message": str(error), "field": error.field},
    }


def encode(answers: Iterable[dict[str, Any]]) -> bytes:
    """Return JSON objects, one a line."""
    return "".join(f"{_encode_one(answer)}\n" for answer in answers).encode()


class Progress:
    """How much of the input is read, on a terminal; nothing elsewhere."""

    def __init__(self, position: Callable[[], int], size: int, doing: str = "grouping", items: str = "claims") -> None:
        self._position = position
        self._items = items
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console(stderr=True),
            transient=True,
        )
        self._terminal = sys.stderr.isatty()
        self._task = self._bar.add_task(doing, total=size or None)

    def __enter__(self) -> Progress:
        if self._terminal:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._terminal:
            self._bar.stop()

    def update(self, count: int) -> None:
        """Show that ``count`` lines are answered."""
        if self._terminal:
            self._bar.update(self._task, completed=self._position(), description=f"{count:,} {self._items}")
