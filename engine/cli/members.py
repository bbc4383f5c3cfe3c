"""``codeset-engine score hcc`` and ``explain hcc``: members in, risk scores out, one JSON object a line.

Line N of the output answers line N of the input, whatever is on it. Lines are read, scored and written a batch at a
time, so memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from ..errors import InvalidFieldError, PackNotFoundError
from . import FINDINGS
from .claims import Answers, Item, Progress, Refused, encode, fields_of, in_batches, in_turn, read_objects
from .ndjson import reading, writing
from .output import console

__all__ = ["explain_hcc", "options_of", "score_hcc"]

_BATCH: Final = 2_000
_MEMBER: Final = fields_of(
    "a member",
    "member_id",
    (
        "member_id",
        "model",
        "payment_year",
        "birth_date",
        "age",
        "sex",
        "orec",
        "ltimcaid",
        "nemcaid",
        "mcaid",
        "fbdual",
        "pbdual",
        "lti",
        "esrd",
        "skip_mce_edits",
        "diagnoses",
        "new_enrollee",
        "snp",
        "institutional",
        "dual_status_code",
        "low_income",
        "dialysis",
        "months_since_transplant",
    ),
    repeated={"diagnoses"},
    integers={"payment_year", "birth_date", "age", "orec", "months_since_transplant"},
)


def options_of(
    detail: str,
    normalization: Sequence[str],
    coding_adjustment: Sequence[str],
    blend: Sequence[str],
    *,
    no_blend: bool,
    drug_plan: bool,
) -> dict[str, Any]:
    """Return the options of a call from those of a command: ``MODEL=NUMBER`` each.

    Raises InvalidFieldError.
    """
    factors: dict[str, dict[str, Any]] = {}
    for name, given in (("normalization", normalization), ("coding_adjustment", coding_adjustment)):
        for model, number in _pairs(name, given).items():
            factors.setdefault(model, {"model": model})[name] = number
    options: dict[str, Any] = {"detail": detail, "factors": list(factors.values()), "drug_plan": drug_plan}
    if blend and no_blend:
        raise InvalidFieldError("blend: expected --blend or --no-blend, not both", field="blend")
    if blend or no_blend:
        options["blend"] = _pairs("blend", blend)
    return options


def _pairs(field: str, given: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in given:
        model, equals, number = text.partition("=")
        try:
            found[model.strip().upper()] = float(number)
        except ValueError:
            equals = ""
        if not equals or not model:
            raise InvalidFieldError(f"{field}: expected MODEL=NUMBER like V28=1.067, got {text!r}", field=field)
    return found


def score_hcc(
    source: str,
    output: str,
    *,
    defaults: Mapping[str, Any],
    options: Mapping[str, Any],
    server: str | None,
    store: Path | None,
) -> None:
    """Score the members of ``source`` into ``output``.

    ``defaults``: model and payment year of members that have none. ``options``: as of ``options_of``. ``server``:
    score there, not in this process. Exits with FINDINGS if any line has no answer.
    """
    with contextlib.ExitStack() as stack:
        stream, position, size = stack.enter_context(reading(source))
        score = _in_process(store, options) if server is None else _on_server(stack, server, options)
        out = stack.enter_context(writing(output))
        shown = stack.enter_context(Progress(position, size, "scoring", "members"))
        tally = _Tally()
        answers = score(_members(stream, defaults))
        while batch := list(islice(answers, _BATCH)):
            for answer in batch:
                tally.add(answer)
            out.write(encode(batch))
            shown.update(tally.count)
    tally.report()


def explain_hcc(
    source: str,
    output: str | None,
    *,
    member_id: str | None,
    segment: str | None,
    defaults: Mapping[str, Any],
    options: Mapping[str, Any],
    server: str | None,
    store: Path | None,
    json: bool,
) -> None:
    """Explain the scores of the members of ``source``; of one id only, if ``member_id`` is given.

    Trees on standard output, or JSON if ``json`` or ``output`` says so. ``segment``: show what this segment's score is
    made of, instead of the member's own or of every segment. Exits with FINDINGS if any member has no answer.
    """
    options = {**options, "detail": "FULL"}
    with contextlib.ExitStack() as stack:
        stream, position, size = stack.enter_context(reading(source))
        score = _in_process(store, options) if server is None else _on_server(stack, server, options)
        tally = _Tally()
        answers = score(_chosen(_members(stream, defaults), member_id, source))
        if json or output is not None:
            out = stack.enter_context(writing(output or "-"))
            shown = stack.enter_context(Progress(position, size, "explaining", "members"))
            for answer in answers:
                tally.add(answer)
                out.write(encode([answer]))
                shown.update(tally.count)
        else:
            screen = console()
            for answer in answers:
                if tally.count:
                    screen.print()
                tally.add(answer)
                _show(screen, answer, segment)
            sys.stdout.flush()
    tally.report()


def _members(stream: Any, defaults: Mapping[str, Any]) -> Iterator[Item]:
    for item in read_objects(stream, _MEMBER):
        if isinstance(item, dict):
            for name, value in defaults.items():
                if not item.get(name):
                    item[name] = value
        yield item


def _chosen(items: Iterator[Item], member_id: str | None, source: str) -> Iterator[Item]:
    found = False
    for item in items:
        own = item.id if isinstance(item, Refused) else item.get("member_id", "")
        if member_id is None or own == member_id:
            found = True
            yield item
    if member_id is not None and not found:
        name = "standard input" if source == "-" else source
        raise InvalidFieldError(f"member_id: no member of {name} has the id {member_id!r}", field="member_id")


class _Tally:
    """How many members were scored, since when, by which models, and how many were not, and why."""

    def __init__(self) -> None:
        self.count = 0
        self._begin = time.perf_counter()
        self._errors: Counter[str] = Counter()
        self._releases: set[str] = set()

    def add(self, answer: Mapping[str, Any]) -> None:
        """Count one ``HccResult`` as JSON."""
        self.count += 1
        if "error" in answer:
            self._errors[answer["error"]["code"]] += 1
        else:
            self._releases.add(answer["release"].partition("/")[2])

    def report(self) -> None:
        """Say it on standard error. Exits with FINDINGS if any member has no answer."""
        seconds = time.perf_counter() - self._begin
        rate = f"{self.count / seconds:,.0f} members/s" if self.count else "no members"
        by = f", {', '.join(sorted(self._releases))}" if self._releases else ""
        sys.stderr.write(f"{self.count:,} members in {seconds:.2f} s, {rate}{by}\n")
        if self._errors:
            each = ", ".join(f"{code} {number:,}" for code, number in sorted(self._errors.items()))
            sys.stderr.write(f"{self._errors.total():,} without an answer: {each}\n")
            raise typer.Exit(FINDINGS)


# --- members to answers ---------------------------------------------------------------------------------------------


def _in_process(store: Path | None, options: Mapping[str, Any]) -> Answers:
    from ..hcc import HccDetail, PaymentFactors, ScoringOptions
    from ..library import HCC
    from ..library import open as open_packs

    library = open_packs(store)
    if HCC not in {info.system for info in library.releases()}:
        raise PackNotFoundError(
            f"no risk adjustment model in {library.store}. `codeset-engine build {HCC}` makes them.", field="model"
        )
    chosen = ScoringOptions(
        detail=HccDetail[options["detail"]],
        factors=[PaymentFactors(**own) for own in options["factors"]],
        blend=options.get("blend"),
        drug_plan=options["drug_plan"],
    )

    return in_batches(
        lambda members: (result.to_dict() for result in library.score_hcc_many(members, chosen)), _refusal
    )


def _on_server(stack: contextlib.ExitStack, server: str, options: Mapping[str, Any]) -> Answers:
    from ..client import Client

    client = stack.enter_context(Client(server))
    # Now, so that a wrong address or a server without models is one error and not one a member.
    client.releases("cmshcc")

    return in_turn(lambda members: client.iter_hcc_dicts(members, options=options), _refusal)


def _refusal(refused: Refused) -> dict[str, Any]:
    error = refused.error
    return {
        "member_id": refused.id,
        "model": "",
        "payment_year": 0,
        "error": {"code": error.code, "message": str(error), "field": error.field},
    }


# --- for people -----------------------------------------------------------------------------------------------------


def _show(screen: Console, answer: Mapping[str, Any], segment: str | None) -> None:
    name = answer["member_id"] or "a member"
    if "error" in answer:
        screen.print(Tree(Text(f"{name}: {answer['error']['code']}: {answer['error']['message']}")))
        return
    labels = {entry["hcc"]: entry["label"] for entry in answer["hcc_labels"]}
    own = segment or answer["segment"]
    if segment and segment not in {score["segment"] for score in answer["scores"]}:
        names = ", ".join(score["segment"] for score in answer["scores"])
        raise InvalidFieldError(
            f"segment: {answer['model']} has no segment {segment!r}; it has {names}", field="segment"
        )
    tree = Tree(Text(f"{name}: {answer['release'].partition('/')[2]}, age {answer['age']}"))
    mapped = tree.add(Text("diagnoses"))
    for diagnosis in answer["diagnoses"]:
        gave = ", ".join(f"CC {cc}" for cc in diagnosis["ccs"]) or "no category"
        kept = ", ".join(f"CC {cc}" for cc in diagnosis["refused"])
        mapped.add(Text(f"{diagnosis['code']}: {gave}" + (f"; not for this age or sex: {kept}" if kept else "")))
    counted = tree.add(Text("HCCs"))
    for hcc in answer["hccs"]:
        counted.add(Text(f"{hcc} {labels[hcc]}"))
    for gone in answer["suppressed"]:
        why = f"under HCC {', '.join(gone['by'])}" if gone["by"] else "taken away by a rule of the model"
        counted.add(Text(f"not {gone['hcc']} {gone['label']}: {why}"))
    applicable = set(answer["applicable"])
    made_of = {part["segment"]: part for part in answer["contributions"]}
    for score in answer["scores"]:
        if (own and score["segment"] != own) or (not own and applicable and score["segment"] not in applicable):
            continue
        text = f"{score['segment']}: {score['raw']:.3f}"
        if "payment" in score:
            text += f", normalized {score['normalized']:.3f}, payment {score['payment']:.3f}"
        branch = tree.add(Text(text))
        part = made_of[score["segment"]]
        for item in part["contributions"]:
            branch.add(Text(f"{item['coefficient']:.3f} {item['variable']}  {item['label']}".rstrip()))
        if part["divisor"] != 1:
            branch.add(Text(f"over {part['divisor']:.3f}"))
    blend = answer.get("blend")
    if blend:
        parts = " + ".join(f"{weight['weight']:g} {weight['model']}" for weight in blend["weights"])
        branch = tree.add(Text(f"blended: {parts}"))
        for score in blend["scores"]:
            if not own or score["segment"] == own:
                branch.add(Text(f"{score['segment']}: {score['payment']:.3f}"))
    screen.print(tree)
