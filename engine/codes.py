"""One release of a code system, and what it answers: validity on a day, titles, hierarchy, notes, axes.

Contract
--------
* A ``CodeSystem`` is a verified, memory-mapped pack behind typed results. It is read-only and safe to share
  between threads.
* Codes may be given with or without dot, in either case, with blanks; str or bytes. Answers have the code
  both ways: ``normalized`` (``A000``) and as the book prints it (``A00.0``).
* Dates are integers CCYYMMDD; where one is asked for, "CCYYMMDD" and ``datetime.date`` do as well.
* Validity comes from the dated history of the source, not from the release's own list, so one release
  answers for any date; the tree, titles and notes are the release's own.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import marisa_trie
import numpy as np
import numpy.typing as npt

from . import _core
from .compile_codes import KINDS, NOTE_KINDS
from .errors import InvalidFieldError, UnknownCodeError
from .pack import Manifest, Pack
from .tables import OPEN_END

__all__ = [
    "EXAMPLES",
    "LONGEST_SHOWN",
    "SENTENCES",
    "SHOWN_OF_LONGER",
    "Axis",
    "CodeInfo",
    "CodeSystem",
    "Codes",
    "Date",
    "NoteInfo",
    "Status",
    "Subsumption",
    "Validation",
    "ValidationColumns",
]

Date: TypeAlias = int | str | datetime.date
"""A day: CCYYMMDD as int or str, or a date."""

Codes: TypeAlias = Sequence[str] | Sequence[bytes] | npt.NDArray[Any]
"""Many codes: a list or tuple (the fast ones) or another sequence, or a NumPy array of bytes ("S8") or str
with one axis.
"""


class Status(enum.IntEnum):
    """What a code is on a day. The numbers are those of ``CodeStatus`` in the API on the wire."""

    UNSPECIFIED = 0
    """Never an answer."""
    VALID = 1
    """Complete and in force."""
    HEADER = 2
    """In the release, but needs more characters."""
    NOT_YET = 3
    """In force only from a later day."""
    EXPIRED = 4
    """Was in force until an earlier day. A code that has a gap is EXPIRED in it."""
    UNKNOWN = 5
    """Well-formed, but no code the source knows, of any time. Chapters and blocks are none."""
    MALFORMED = 6
    """Cannot be a code: empty, longer than 8 characters without dots and blanks, or other characters than
    letters, digits and '-'.
    """


class Subsumption(enum.Enum):
    """Outcome of ``subsumes``; the values are the codes of the FHIR operation $subsumes."""

    EQUIVALENT = "equivalent"
    SUBSUMES = "subsumes"
    SUBSUMED_BY = "subsumed-by"
    NOT_SUBSUMED = "not-subsumed"


class CodeInfo(NamedTuple):
    """One node of a release's tree.

    ``code`` is normalized ("A000"), ``display`` as the book prints it ("A00.0"), ``parent`` the display of
    the node above (None for a root). ``title`` and ``short_title`` are empty where the sources have none.
    ``depth`` is 0 for a root. ``effective_from`` and ``effective_to`` (CCYYMMDD) are the days of a billable
    code as of the ``CodeSystem``'s date; None for headers, and for an end that is not known.
    """

    system: str
    release: str
    code: str
    display: str
    kind: str
    title: str
    short_title: str
    billable: bool
    depth: int
    parent: str | None
    effective_from: int | None
    effective_to: int | None


class NoteInfo(NamedTuple):
    """One instructional note that applies to a code.

    ``kind`` is one of ``NOTE_KINDS``; the text of a ``seventh_character`` is the character, a TAB, and its
    meaning. ``from_code`` is the display of the node where the book prints the note; ``inherited`` says
    that it is a node above.
    """

    kind: str
    text: str
    from_code: str
    inherited: bool


class Axis(NamedTuple):
    """One character of an ICD-10-PCS code: position from 1, name of the axis, the character, its label (""
    if no source has it).
    """

    position: int
    name: str
    value: str
    label: str


class ValidationColumns(NamedTuple):
    """Answers to many codes, column by column, in the order asked.

    ``status``: Status numbers, uint8. ``billable``: bool, as in ``Validation``.
    ``effective_from``/``effective_to``: int32 CCYYMMDD, 0 where ``Validation`` has None.
    """

    status: npt.NDArray[np.uint8]
    billable: npt.NDArray[np.bool_]
    effective_from: npt.NDArray[np.int32]
    effective_to: npt.NDArray[np.int32]


class Validation(_core.Answer):
    """What one release says about one code on one day. Immutable; the text is worked out when asked for.

    ``code`` is as given, ``date`` the day (CCYYMMDD). ``valid`` means status VALID. ``billable`` means a
    complete code, whether the date is within its days or not. ``effective_from`` and ``effective_to``
    (CCYYMMDD or None) belong to the stretch of days the status speaks of: the one that contains the date,
    the last one that ended before it, or the first to come.
    """

    __slots__ = ()

    @property
    def system(self) -> str:
        """System id of the release that answers."""
        return self.index.system

    @property
    def release(self) -> str:
        """The release that answers."""
        return self.index.release

    @property
    def normalized(self) -> str:
        """The code in upper case without its dot; empty if it is malformed."""
        return _core.key_text(self.key)

    @property
    def display(self) -> str:
        """The code as the book prints it; empty if it is malformed."""
        return self.index.printed(self.key)

    @property
    def title(self) -> str:
        """Title in this release; empty if the code is not in its tree or no source has one."""
        node = self.node
        return self.index.title(node) if node >= 0 else ""

    @property
    def replaced_by(self) -> tuple[str, ...]:
        """Displays of the codes that official conversions name, up to the date, for a code that is not
        valid on it.

        Where such a code is itself out of force on the date, its own conversions are followed.
        """
        if self.valid:
            return ()
        return tuple(self.index.printed(key) for key in _replacements(self.index, self.key, self.date))

    @property
    def message(self) -> str:
        """One sentence for people."""
        return _message(self)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields; the status by name."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        return fields | {"status": self.status.name, "replaced_by": list(self.replaced_by)}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Validation):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[object, ...]:
        return (
            self.system,
            self.release,
            self.date,
            self.code,
            self.status,
            self.effective_from,
            self.effective_to,
        )

    def __repr__(self) -> str:
        return f"<Validation {self.system}/{self.release} {self.date} {self.code!r}: {self.status.name}>"


_FIELDS = (
    "code",
    "normalized",
    "display",
    "system",
    "release",
    "date",
    "status",
    "valid",
    "billable",
    "effective_from",
    "effective_to",
    "replaced_by",
    "title",
    "message",
)


SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "valid": "{display} is valid on {date}",
        "header": "{display} is not complete: it needs more characters",
        "examples": " ({examples})",
        "not_yet": "{display} is not valid before {effective_from}",
        "expired": "{display} was valid until {effective_to}",
        "again": " and is valid again from {again}",
        "group": "{normalized} is a {kind}, not a code",
        "unknown": "{display} is no code of {system}",
        "malformed": ("{code} cannot be a code: expected 1 to 8 letters, digits and hyphens, dots and blanks aside"),
        "replaced": "; replaced by {replaced_by}",
        "separator": ", ",
        "more": ", …",
        "cut": "…",
    }
)
"""What ``Validation.message`` is put together from: here and, for whole batches, in ``engine._wire_codes``."""

EXAMPLES = 3
"""Codes below a header that its sentence names."""

LONGEST_SHOWN = 60
"""Characters of a malformed code, quoted, that its sentence shows whole."""

SHOWN_OF_LONGER = 57
"""Characters that it shows of a longer one."""


def _replacements(index: _core.CodeIndex, key: int, date: int) -> list[int]:
    """Keys of the codes reported on ``date`` where ``key`` was; the direct ones if following them leads to
    none in force.
    """
    found: list[int] = []
    direct = [new for day, new in index.replacements_of(key) if day <= date]
    seen, waiting = {key}, direct[::-1]
    while waiting:
        new = waiting.pop()
        if new in seen:
            continue
        seen.add(new)
        if index.status(_core.key_text(new), date) == Status.VALID:
            found.append(new)
        else:
            waiting.extend([key for day, key in index.replacements_of(new) if day <= date][::-1])
    return found or list(dict.fromkeys(direct))


def _message(found: Validation) -> str:
    display, say = found.display, SENTENCES
    status = found.status
    if status == Status.VALID:
        return say["valid"].format(display=display, date=_iso(found.date))
    if status == Status.MALFORMED:
        return say["malformed"].format(code=_shortened(found.code))
    if status == Status.HEADER:
        index = found.index
        text = say["header"].format(display=display)
        below = [index.code_of(node) for node in index.children(found.node)]
        if below:
            examples = say["separator"].join(below[:EXAMPLES]) + (say["more"] if len(below) > EXAMPLES else "")
            text += say["examples"].format(examples=examples)
    elif status == Status.NOT_YET:
        text = say["not_yet"].format(display=display, effective_from=_iso(found.effective_from))
    elif status == Status.EXPIRED:
        text = say["expired"].format(display=display, effective_to=_iso(found.effective_to))
        again = [first for first, _ in found.index.spells(found.normalized) if first > found.date]
        if again:
            text += say["again"].format(again=_iso(again[0]))
    elif found.node >= 0:
        kind = KINDS[found.index.describe(found.node)[2]]
        text = say["group"].format(normalized=found.normalized, kind=kind)
    else:
        text = say["unknown"].format(display=display, system=found.system)
    replaced_by = found.replaced_by
    return text + (say["replaced"].format(replaced_by=say["separator"].join(replaced_by)) if replaced_by else "")


def _iso(date: int | None) -> str:
    return f"{(date or 0) // 10000:04d}-{(date or 0) // 100 % 100:02d}-{(date or 0) % 100:02d}"


def _shortened(code: object) -> str:
    text = repr(code)
    return text if len(text) <= LONGEST_SHOWN else text[:SHOWN_OF_LONGER] + SENTENCES["cut"]


class CodeSystem:
    """One release of one code system, opened.

    Get it from ``Library.code_system``. ``date`` is the day meant where a method is not told one: the day
    the system was asked for, or the release's own default, which is its first (of ICD-9-CM: its last).

    Methods that take ``kind`` (one of ``KINDS``) need it only where two nodes share a code: the block and
    the category ``B99``. Without it the code is meant, not the block.
    """

    def __init__(self, pack: Pack) -> None:
        self.manifest: Manifest = pack.manifest
        self.date = self.manifest.default_date
        self._index = _core.CodeIndex(
            pack, answer_type=Validation, statuses=tuple(Status), kinds=len(KINDS), note_kinds=len(NOTE_KINDS)
        )
        try:
            # From the verified bytes: the path may name another file by now.
            self._trie = marisa_trie.Trie().map(pack.buffer("codes.marisa"))
        except (RuntimeError, ValueError, OSError) as error:
            raise pack.corrupt("codes.marisa", f"it is not a trie ({error})") from None
        self._pack = pack

    def on(self, date: Date) -> CodeSystem:
        """Return the same release with another default date. Raises InvalidDateError."""
        system = object.__new__(CodeSystem)
        system.__dict__.update(self.__dict__)
        system.date = _core.as_date(date)
        return system

    @property
    def system(self) -> str:
        """System id, for example ``icd10cm``."""
        return self.manifest.system

    @property
    def release(self) -> str:
        """Release, for example ``2026-04``."""
        return self.manifest.release

    @property
    def effective_from(self) -> int:
        """First day (CCYYMMDD) that the release answers for."""
        return self.manifest.effective_from

    @property
    def effective_to(self) -> int:
        """Last day (CCYYMMDD) that the release answers for."""
        return self.manifest.effective_to

    @property
    def core(self) -> _core.CodeIndex:
        """The compiled tables, for other compiled modules."""
        return self._index

    def __len__(self) -> int:
        """Number of nodes of the tree, chapters to codes."""
        return len(self._index)

    def __repr__(self) -> str:
        return f"<CodeSystem {self.manifest.id}, {len(self):,} nodes>"

    # --- on a day

    def status(self, code: str | bytes, date: Date | None = None) -> Status:
        """Return the Status of ``code`` on ``date``. The quickest question; errors as of ``validate``."""
        return self._index.status(code, self.date if date is None else date)

    def validate(self, code: str | bytes, date: Date | None = None) -> Validation:
        """Return whether ``code`` may be reported on ``date``, and if not, why not.

        Raises InvalidDateError, and InvalidFieldError if ``code`` is no text at all. A malformed code is an
        answer, not an error.
        """
        return self._index.validate(code, self.date if date is None else date)

    def validate_many(self, codes: Codes, date: Date | None = None) -> npt.NDArray[np.uint8]:
        """Return the Status number of each code on ``date``, in order.

        An item that is neither str nor bytes is MALFORMED. Arrays of bytes are validated with the GIL
        released; NumPy drops trailing NULs from their items, so those cannot make a code malformed.

        Raises InvalidDateError, and InvalidFieldError if ``codes`` is no sequence of codes (one str is none).
        """
        return self._index.status_many(codes, self.date if date is None else date)

    def validate_columns(self, codes: Codes, date: Date | None = None) -> ValidationColumns:
        """Return status, billable and effective dates of each code on ``date``; otherwise like
        ``validate_many``.
        """
        status, billable, first, last = self._index.columns_many(codes, self.date if date is None else date)
        return ValidationColumns(status, billable.view(np.bool_), first, last)

    def valid_codes(self, date: Date | None = None) -> npt.NDArray[np.bytes_]:
        """Return all codes that are valid on ``date``, normalized and sorted, as an array of bytes (dtype
        S8).
        """
        return self._index.valid_codes(self.date if date is None else date)

    # --- the tree

    def lookup(self, code: str | bytes, kind: str | None = None) -> CodeInfo:
        """Return the node of ``code``. Raises UnknownCodeError if the release has none."""
        return self._info(self._node(code, kind))

    def parent(self, code: str | bytes, kind: str | None = None) -> CodeInfo | None:
        """Return the node directly above, None for a root. Raises UnknownCodeError."""
        parent = self._index.parent(self._node(code, kind))
        return self._info(parent) if parent >= 0 else None

    def children(self, code: str | bytes, kind: str | None = None) -> list[CodeInfo]:
        """Return the nodes directly below, in the book's order. Raises UnknownCodeError."""
        return [self._info(node) for node in self._index.children(self._node(code, kind))]

    def ancestors(self, code: str | bytes, kind: str | None = None) -> list[CodeInfo]:
        """Return all nodes above, nearest first. Raises UnknownCodeError."""
        return [self._info(node) for node in self._index.ancestors(self._node(code, kind))]

    def descendants(self, code: str | bytes, kind: str | None = None) -> list[CodeInfo]:
        """Return all nodes below, in the book's order. Raises UnknownCodeError."""
        return [self._info(node) for node in self._index.descendants(self._node(code, kind))]

    def roots(self) -> list[CodeInfo]:
        """Return the top of the tree (chapters or sections), in the book's order."""
        return [self._info(node) for node in self._index.roots()]

    def subsumes(
        self, a: str | bytes, b: str | bytes, kind_a: str | None = None, kind_b: str | None = None
    ) -> Subsumption:
        """Return how ``a`` stands to ``b``: SUBSUMES if it is above it. Raises UnknownCodeError."""
        node_a, node_b = self._node(a, kind_a), self._node(b, kind_b)
        if node_a == node_b:
            return Subsumption.EQUIVALENT
        if self._index.subsumes(node_a, node_b):
            return Subsumption.SUBSUMES
        return Subsumption.SUBSUMED_BY if self._index.subsumes(node_b, node_a) else Subsumption.NOT_SUBSUMED

    def prefix(self, prefix: str | bytes, limit: int = 100) -> list[CodeInfo]:
        """Return the first ``limit`` nodes whose code begins with ``prefix``, in order of the code; for
        auto-completion.

        An empty prefix begins every code; one that can begin none gives an empty list.
        """
        if limit < 0:
            raise InvalidFieldError(f"limit: expected 0 or more, got {limit}", field="limit")
        key = _core.key_of_code(prefix)
        if key == 0 and len(prefix) > 0:
            return []
        # A text may be two nodes, so there can be more of these than texts, never fewer.
        texts = islice(self._trie.iterkeys(_core.key_text(key)), limit)
        found = [node for text in texts for node in self._index.nodes(text)]
        return [self._info(node) for node in found[:limit]]

    # --- notes and axes

    def notes(self, code: str | bytes, inherited: bool = True, kind: str | None = None) -> list[NoteInfo]:
        """Return the notes that apply to ``code``: those printed at it, then (``inherited``) those of the
        nodes above, nearest first.

        As the book means them: a note at a chapter, block, category or subcategory applies to all below it,
        but inclusion terms are synonyms of their own code only, and of seventh characters the nearest list
        replaces those above it.

        Raises UnknownCodeError.
        """
        node = self._node(code, kind)
        found = []
        has_characters = False
        for place in [node, *(self._index.ancestors(node) if inherited else [])]:
            label = ""
            characters_here = False
            for number, text in self._index.notes(place):
                name = NOTE_KINDS[number]
                if name == "seventh_character":
                    characters_here = True
                    if has_characters:
                        continue
                elif name == "inclusion_term" and place != node:
                    continue
                label = label or self._index.code_of(place)
                found.append(NoteInfo(name, text, label, place != node))
            has_characters |= characters_here
        return found

    def axes(self, code: str | bytes) -> list[Axis]:
        """Return what each character of an ICD-10-PCS code (or of its beginning) says; an empty list for
        other systems.

        A code that has left the release, or is still to come, has its axes too. Raises UnknownCodeError.
        """
        if self.system != "icd10pcs":
            return []
        text = _core.key_text(_core.key_of_code(code))
        if not text or (self._index.node(text) < 0 and not self._index.spells(text)):
            self._node(code, None)
        axes = []
        for position, value in enumerate(text, 1):
            # The first three characters are each read after those before them; the others in the table of
            # the three.
            context = text[:position] if position <= 3 else f"{text[:3]}{position}{value}"
            axes.append(Axis(position, _AXIS_NAMES[position], value, self._index.axis_label(context)))
        return axes

    def _node(self, code: str | bytes, kind: str | None) -> int:
        number = -1
        if kind is not None:
            if kind not in KINDS:
                raise InvalidFieldError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}", field="kind")
            number = KINDS.index(kind)
        if not isinstance(code, (str, bytes)):
            raise InvalidFieldError(f"code: expected str or bytes, got {type(code).__name__}", field="code")
        node = self._index.node(code, number)
        if node < 0:
            known = "" if kind is None else f" as {kind}"
            raise UnknownCodeError(
                f"{self.manifest.id} has no code {_shortened(code)}{known}: {self.validate(code).message}",
                field="code",
            )
        return node

    def _info(self, node: int) -> CodeInfo:
        index = self._index
        key, display, kind, billable, depth, parent, title, short_title = index.describe(node)
        first, last = index.spell(key, self.date) if billable else (0, 0)
        return CodeInfo(
            self.manifest.system,
            self.manifest.release,
            _core.key_text(key),
            display,
            KINDS[kind],
            title,
            short_title,
            billable,
            depth,
            index.code_of(parent) if parent >= 0 else None,
            first or None,
            last if last not in (0, OPEN_END) else None,
        )


_AXIS_NAMES = ("", *KINDS[5:], "")
