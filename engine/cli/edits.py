"""``codeset-engine edit``: claims in, what the Medicare Code Editor finds out, one JSON object a line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PackNotFoundError
from .claims import Answers, Refused, Tally, in_batches, in_turn, open_grouper, refusal, write_answers
from .output import console, print_json, table

if TYPE_CHECKING:
    from ..library import Library

__all__ = ["edit", "list_edits"]


def edit(source: str, output: str, *, release: str | None, group: bool, server: str | None, store: Path | None) -> None:
    """Edit the claims of ``source`` into ``output``.

    ``release``: of the editor, instead of the newest. ``group``: group the claims as well; an answer is then the
    ``EditClaimResponse``, with both results. ``server``: edit there, not in this process. Exits with FINDINGS if any
    line has no answer.
    """

    def answers(stack: contextlib.ExitStack) -> Answers:
        if server is None:
            return _in_process(store, release, group)
        return _on_server(stack, server, release, group)

    tally = _BothTally("code editor", "editor_release") if group else Tally("code editor", "editor_release")
    write_answers(source, output, None, answers, tally, "editing")


class _BothTally(Tally):
    """Counts claims by the editor's answers, and the errors of both."""

    def add(self, answer: Mapping[str, Any]) -> None:
        """Count one ``EditClaimResponse`` as JSON."""
        super().add(answer["result"])
        if "error" in answer["drg_result"] and "error" not in answer["result"]:
            self.add_error(answer["drg_result"])


def _in_process(store: Path | None, release: str | None, group: bool) -> Answers:
    from ..mce import EditingOptions

    library = _open_editor(store, release, group)
    options = EditingOptions(editor_release=release or "")

    def both(claims: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for edited, grouped in library.edit_and_group_many(claims, options):
            yield {"result": edited.to_dict(), "drg_result": grouped.to_dict()}

    def one(claims: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        return (result.to_dict() for result in library.edit_claims_many(claims, options))

    return in_batches(both if group else one, _both_refused if group else _refused)


def _open_editor(store: Path | None, release: str | None, group: bool) -> Library:
    from ..library import EDITOR
    from ..library import open as open_packs

    library = open_grouper(store, None) if group else open_packs(store)
    if EDITOR not in {info.system for info in library.releases()}:
        raise PackNotFoundError(
            f"no release of the code editor in {library.store}. `codeset-engine build {EDITOR}` makes them.",
            field="release",
        )
    library.mce_editor(release)
    return library


def _on_server(stack: contextlib.ExitStack, server: str, release: str | None, group: bool) -> Answers:
    from ..client import Client

    client = stack.enter_context(Client(server))
    # Now, so that a wrong address or release is one error and not one a claim.
    client.release("mce", release)

    def both(claims: Iterator[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        for edited, grouped in client.iter_edit_and_group_dicts(claims, editor_release=release):
            yield {"result": edited, "drg_result": grouped}

    def one(claims: Iterator[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        return client.iter_edits_dicts(claims, editor_release=release)

    return in_turn(both if group else one, _both_refused if group else _refused)


def _refused(refused: Refused) -> dict[str, Any]:
    """Return an ``EditResult`` with an error as JSON."""
    error = refused.error
    return {
        "claim_id": refused.id,
        "editor_release": "",
        "error": {"code": error.code, "message": str(error), "field": error.field},
    }


def _both_refused(refused: Refused) -> dict[str, Any]:
    return {"result": _refused(refused), "drg_result": refusal(refused)}


def list_edits(*, json: bool) -> None:
    """Print what there is to know of every edit."""
    from ..mce import EDITS

    if json:
        print_json({"edits": [info.to_dict() for info in EDITS.values()]})
        return
    shown = table(
        "No.",
        "Edit",
        "Payment",
        "What it means, what to do",
        right=("No.",),
        fold=("Edit", "What it means, what to do"),
    )
    for info in EDITS.values():
        text = f"{info.title}. {info.meaning} {info.action}"
        shown.add_row(str(info.number), info.edit.name, info.payment.name.lower(), text)
    console().print(shown)
