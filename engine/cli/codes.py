"""``codeset-engine lookup``, ``validate`` and ``tree``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.padding import Padding
from rich.text import Text
from rich.tree import Tree

from . import FINDINGS
from .output import console, day_argument, day_text, print_json, print_json_line, status_text, table

if TYPE_CHECKING:
    from rich.console import Console

    from ..codes import CodeInfo, CodeSystem, NoteInfo, Validation

__all__ = ["lookup", "tree", "validate"]

_NOTE_HEADINGS = {
    "includes": "Includes",
    "inclusion_term": "Inclusion terms",
    "excludes1": "Excludes1",
    "excludes2": "Excludes2",
    "code_first": "Code first",
    "use_additional": "Use additional code",
    "code_also": "Code also",
    "seventh_character": "Seventh character",
    "note": "Note",
}
_DIVISIONS = ("chapter", "block")


def _open(store: Path | None, system: str, release: str | None, date: str | None) -> CodeSystem:
    from ..library import open as open_packs

    return open_packs(store).code_system(system, release=release, date=day_argument(date))


# --- validate -----------------------------------------------------------------------------------------------


def validate(
    system: str,
    codes: list[str],
    file: Path | None,
    date: str | None,
    release: str | None,
    store: Path | None,
    *,
    json: bool,
) -> None:
    """Validate codes given on the command line and in a file, in that order."""
    if not codes and file is None:
        raise typer.BadParameter("give one or more codes, or --file.", param_hint="CODE")
    opened = _open(store, system, release, date)
    answers = (opened.validate(code) for code in _codes(codes, file))
    if json:
        valid = True
        for found in answers:
            valid &= found.valid
            print_json_line(_validation(found))
    else:
        valid = _print_validations(answers, opened)
    if not valid:
        raise typer.Exit(FINDINGS)


def _codes(codes: list[str], file: Path | None) -> Iterator[str]:
    yield from codes
    if file is None:
        return
    # A byte that is no UTF-8 is in no code either: it makes a code malformed, not the file unreadable.
    if str(file) == "-":
        yield from _lines(line.decode("utf-8", "replace") for line in sys.stdin.buffer)
    else:
        with file.open(encoding="utf-8-sig", errors="replace") as lines:
            yield from _lines(lines)


def _lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the codes, one a line; blank lines separate them."""
    for line in lines:
        code = line.strip()
        if code:
            yield code


def _validation(found: Validation) -> dict[str, Any]:
    """Return a ``CodeValidation`` message as JSON."""
    fields = found.to_dict()
    return fields | {
        "status": f"CODE_STATUS_{fields['status']}",
        "effective_from": found.effective_from or 0,
        "effective_to": found.effective_to or 0,
    }


def _print_validations(answers: Iterable[Validation], opened: CodeSystem) -> bool:
    out = console()
    shown = table("Code", "Status", "Title", "Finding", fold=("Title", "Finding"))
    count = valid = 0
    for found in answers:
        count += 1
        valid += found.valid
        shown.add_row(found.display or str(found.code), status_text(found.status.name), found.title, found.message)
    out.print(shown)
    out.print(f"{valid} of {count} valid on {day_text(opened.date)} ({opened.system}/{opened.release})")
    return valid == count


# --- lookup -------------------------------------------------------------------------------------------------


def lookup(
    system: str,
    code: str,
    date: str | None,
    release: str | None,
    kind: str | None,
    store: Path | None,
    *,
    json: bool,
) -> None:
    """Show one node of the tree with its notes and axes."""
    opened = _open(store, system, release, date)
    found = opened.lookup(code, kind)
    ancestors = opened.ancestors(code, kind)
    children = opened.children(code, kind)
    notes = opened.notes(code, kind=kind)
    axes = opened.axes(code)
    if json:
        print_json(
            {
                "system": found.system,
                "release": found.release,
                "concept": _concept(found),
                "ancestors": [_concept(above) for above in ancestors],
                "child_count": len(children),
                "notes": [
                    {
                        "kind": f"NOTE_KIND_{note.kind.upper()}",
                        "text": note.text,
                        "from_code": note.from_code,
                        "inherited": note.inherited,
                    }
                    for note in notes
                ],
                "axes": [axis._asdict() for axis in axes],
                "effective_from": found.effective_from or 0,
                "effective_to": found.effective_to or 0,
            }
        )
        return
    out = console()
    out.print(_label(found))
    out.print(f"{found.system}/{found.release}, {found.kind.replace('_', ' ')}, {_days(found)}")
    if ancestors:
        out.print("\nAbove", style="bold")
        for above in reversed(ancestors):
            out.print(Text("  ").append_text(_label(above)))
    if children:
        out.print("\nBelow", style="bold")
        for below in children:
            out.print(Text("  ").append_text(_label(below)))
    if axes:
        out.print("\nAxes", style="bold")
        shown = table("", "Axis", "Value", "Meaning", fold=("Meaning",))
        for axis in axes:
            shown.add_row(str(axis.position), axis.name, axis.value, axis.label)
        out.print(shown)
    if notes:
        _print_notes(out, notes)


def _days(found: CodeInfo) -> str:
    if not found.billable:
        return "not complete: needs more characters" if found.kind not in _DIVISIONS else "not a code"
    until = f" to {day_text(found.effective_to)}" if found.effective_to else ""
    return f"complete, valid from {day_text(found.effective_from)}{until}"


def _print_notes(out: Console, notes: Iterable[NoteInfo]) -> None:
    heading = None
    for note in notes:
        if heading != (note.kind, note.from_code):
            heading = (note.kind, note.from_code)
            where = f" (at {note.from_code})" if note.inherited else ""
            out.print(f"\n{_NOTE_HEADINGS[note.kind]}{where}", style="bold")
        # The character and its meaning are separated by a TAB.
        out.print(Padding(note.text.replace("\t", "  "), (0, 0, 0, 2)))


# --- tree ---------------------------------------------------------------------------------------------------


def tree(
    system: str,
    code: str,
    date: str | None,
    release: str | None,
    kind: str | None,
    store: Path | None,
    *,
    up: bool,
    depth: int | None,
    json: bool,
) -> None:
    """Show the way from the root to a code (``up``), and what is below it.

    ``depth``: levels below, -1 for all, None for what is above only.
    """
    opened = _open(store, system, release, date)
    found = opened.lookup(code, kind)
    above = list(reversed(opened.ancestors(code, kind))) if up else []
    node = _below(opened, found, 0 if depth is None else depth)
    if json:
        for info in reversed(above):
            node = (info, [node])
        print_json(_nested(node))
        return
    top: Tree | None = None
    place: Tree | None = None
    for info in above:
        place = Tree(_label(info)) if place is None else place.add(_label(info))
        top = top or place
    place = Tree(_label(found, "bold")) if place is None else place.add(_label(found, "bold"))
    top = top or place
    _grow(place, node[1])
    console().print(top)


def _below(opened: CodeSystem, found: CodeInfo, depth: int) -> tuple[CodeInfo, list[Any]]:
    if depth == 0:
        return found, []
    children = opened.children(found.code, found.kind)
    return found, [_below(opened, child, depth - 1) for child in children]


def _grow(place: Tree, children: list[Any]) -> None:
    for info, below in children:
        _grow(place.add(_label(info)), below)


def _nested(node: tuple[CodeInfo, list[Any]]) -> dict[str, Any]:
    info, children = node
    return {**_concept(info), "children": [_nested(child) for child in children]}


def _concept(found: CodeInfo) -> dict[str, Any]:
    """Return a ``Concept`` message as JSON."""
    return {
        "code": found.code,
        "display": found.display,
        "kind": f"NODE_KIND_{found.kind.upper()}",
        "billable": found.billable,
        "title": found.title,
        "short_title": found.short_title,
    }


def _label(found: CodeInfo, style: str = "") -> Text:
    text = Text(style=style)
    text.append(found.display, style="cyan" if found.billable else "")
    return text.append(f" {found.title}" if found.title else "")
