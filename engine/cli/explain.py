"""``codeset-engine explain drg``: why claims grouped as they did, as a tree for people or one JSON object a line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from ..errors import (
    CodesetError,
    DeadlineExceededError,
    InternalError,
    InvalidFieldError,
    RpcFailedError,
    ServiceUnavailableError,
    TooManyRequestsError,
)
from .claims import Item, Progress, Refused, Tally, encode, open_grouper, read_claims, refusal
from .ndjson import reading, writing
from .output import console

__all__ = ["explain_drg", "tree"]

Explain = Callable[[dict[str, Any]], dict[str, Any]]
"""A claim to its ``DrgExplanation`` as JSON; ``result`` alone, with an error, if it has none."""

Titles = Callable[[Mapping[str, Iterable[str]], int, str], dict[str, str]]
"""Codes by system, day of discharge (0 for none) and grouper version to the titles there are, by code."""

_NOT_OF_THE_CLAIM: Final = (
    ServiceUnavailableError,
    DeadlineExceededError,
    RpcFailedError,
    TooManyRequestsError,
    InternalError,
)


def explain_drg(
    source: str,
    output: str | None,
    *,
    claim_id: str | None,
    version: str | None,
    tie_breaker: str,
    server: str | None,
    store: Path | None,
    json: bool,
) -> None:
    """Explain the claims of ``source``; of one id only, if ``claim_id`` is given.

    Trees on standard output, or JSON if ``json`` or ``output`` says so. ``version``: for every claim, instead of its
    own. ``tie_breaker``: name of its value. ``server``: explain there, not in this process. Exits with FINDINGS if any
    claim has no explanation.
    """
    with contextlib.ExitStack() as stack:
        stream, position, size = stack.enter_context(reading(source))
        if server is None:
            explain, titles = _in_process(store, version, tie_breaker)
        else:
            explain, titles = _on_server(stack, server, version, tie_breaker)
        items = _chosen(read_claims(stream, version), claim_id, source)
        tally = Tally()
        if json or output is not None:
            out = stack.enter_context(writing(output or "-"))
            shown = stack.enter_context(Progress(position, size, "explaining"))
            for item in items:
                answer = {"result": refusal(item)} if isinstance(item, Refused) else explain(item)
                tally.add(answer["result"])
                out.write(encode([answer]))
                shown.update(tally.count)
        else:
            screen = console()
            for item in items:
                answer = {"result": refusal(item)} if isinstance(item, Refused) else explain(item)
                if tally.count:
                    screen.print()
                tally.add(answer["result"])
                _show(screen, item, answer, titles)
            sys.stdout.flush()
    tally.report()


def _chosen(items: Iterator[Item], claim_id: str | None, source: str) -> Iterator[Item]:
    found = False
    for item in items:
        own = item.id if isinstance(item, Refused) else item.get("claim_id", "")
        if claim_id is None or own == claim_id:
            found = True
            yield item
    if claim_id is not None and not found:
        name = "standard input" if source == "-" else source
        raise InvalidFieldError(f"claim_id: no claim of {name} has the id {claim_id!r}", field="claim_id")


# --- claims to explanations ---------------------------------------------------------------------------------


def _in_process(store: Path | None, version: str | None, tie_breaker: str) -> tuple[Explain, Titles]:
    from ..drg import GroupingOptions, TieBreaker

    library = open_grouper(store, version)
    options = GroupingOptions(tie_breaker=TieBreaker[tie_breaker])

    def explain(claim: dict[str, Any]) -> dict[str, Any]:
        return library.explain_drg(claim, options).to_dict()

    def titles(codes: Mapping[str, Iterable[str]], day: int, version: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for system, of_system in codes.items():
            # Without the release of the day a tree has codes alone.
            with contextlib.suppress(CodesetError):
                date = day or library.drg_grouper(version).manifest.effective_from
                release = library.code_system(system, date=date)
                found |= {code: release.validate(code).title for code in of_system}
        return found

    return explain, titles


def _on_server(
    stack: contextlib.ExitStack, server: str, version: str | None, tie_breaker: str
) -> tuple[Explain, Titles]:
    from ..client import Client, to_dict

    client = stack.enter_context(Client(server))
    # Now, so that a wrong address or version is one error and not one a claim.
    client.release("msdrg", version)
    options = {"tie_breaker": tie_breaker}

    def explain(claim: dict[str, Any]) -> dict[str, Any]:
        try:
            return to_dict(client.explain_drg(claim, options=options))
        except _NOT_OF_THE_CLAIM:
            raise
        except CodesetError as error:
            claim_id = claim.get("claim_id")
            return {"result": refusal(Refused(claim_id if isinstance(claim_id, str) else "", error))}

    def titles(codes: Mapping[str, Iterable[str]], day: int, version: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for system, of_system in codes.items():
            with contextlib.suppress(CodesetError):
                date = day or client.release("msdrg", version).effective_from
                found |= {answer.code: answer.title for answer in client.validate_many(system, of_system, date=date)}
        return found

    return explain, titles


# --- explanations to trees ----------------------------------------------------------------------------------


def _show(screen: Console, item: Item, answer: dict[str, Any], titles: Titles) -> None:
    result = answer["result"]
    if "error" in result:
        line = Text(f"claim {result['claim_id']}: " if result["claim_id"] else "")
        screen.print(line.append(result["error"]["code"], "red").append(f": {result['error']['message']}"))
        return
    codes = {
        "icd10cm": [diagnosis["code"] for diagnosis in result["diagnoses"]],
        "icd10pcs": [procedure["code"] for procedure in result["procedures"]],
    }
    day = item.get("discharge_date") if isinstance(item, dict) else 0
    screen.print(tree(answer, titles(codes, day if isinstance(day, int) else 0, result["version"])))


def tree(explanation: Mapping[str, Any], titles: Mapping[str, str]) -> Tree:
    """Return a ``DrgExplanation`` as a tree for people. ``titles``: of codes, as far as they are known."""
    result = explanation["result"]
    top = Tree(_headline(result))
    for sentence in explanation["summary"]:
        top.add(sentence)
    if explanation["without"]:
        rests = top.add(Text("What the DRG rests on", "bold"))
        for without in explanation["without"]:
            rests.add(_code(without["code"], titles)).add(_without(without["text"]))
    initial, final = explanation["initial"], explanation["final"]
    if initial == final or not final:
        _add_visits(top, "Lists of rules looked at", initial, titles)
    else:
        _add_visits(top, "Lists of rules looked at before hospital-acquired conditions", initial, titles)
        _add_visits(top, "Lists of rules looked at after hospital-acquired conditions", final, titles)
    if explanation["severities"]:
        severities = top.add(Text("CC and MCC", "bold"))
        for severity in explanation["severities"]:
            level = severity["severity"].removeprefix("SEVERITY_")
            counts = severity["reason"] == "SEVERITY_REASON_COUNTS"
            line = Text(f"{level:<4}").append_text(_code(severity["code"], titles))
            severities.add(line.append(": counts" if counts else f": does not count: {_reason(severity)}"))
    if explanation["hacs"]:
        hacs = top.add(Text("Hospital-acquired conditions", "bold"))
        for hac in explanation["hacs"]:
            line = _code(hac["code"], titles).append(f": HAC {hac['number']}, {hac['title']}")
            hacs.add(line).add(f"{_words(hac['status'].removeprefix('HAC_CRITERIA_HAC_'))}: {hac['text']}")
    return top


def _headline(result: Mapping[str, Any]) -> Text:
    final = result["final_grouping"]
    line = Text(f"claim {result['claim_id']}: " if result["claim_id"] else "")
    line.append(f"{final['drg']} {final['drg_title']}".rstrip(), "bold").append(f" (MS-DRG {result['version']})")
    facts = []
    if final["return_code"] != "RETURN_CODE_OK":
        facts.append(final["return_code"].removeprefix("RETURN_CODE_"))
    else:
        facts.append(f"MDC {final['mdc']} {final['mdc_title']}".rstrip())
        facts.append(_words(final["med_surg"].removeprefix("MED_SURG_")))
        facts.append(f"severity {final['severity'].removeprefix('SEVERITY_')}")
    weight = final.get("weight")
    if weight:
        facts.append(f"relative weight {weight['relative_weight']} (FY{weight['release']})")
        if "geometric_mean_los" in weight:
            facts.append(f"geometric mean stay {weight['geometric_mean_los']} days")
    return line.append(f"\n{', '.join(facts)}")


def _add_visits(top: Tree, heading: str, visits: Iterable[Mapping[str, Any]], titles: Mapping[str, str]) -> None:
    lists = top.add(Text(heading, "bold"))
    for visit in visits:
        name = visit["mdc_title"] if visit["mdc"] in (0, 29) else f"MDC {visit['mdc']} {visit['mdc_title']}".rstrip()
        place = lists.add(Text(name or f"MDC {visit['mdc']}", "cyan").append(f": {visit['text']}", "none"))
        for miss in visit["near_misses"]:
            near = place.add(Text("nearly ", "yellow").append(_leads_to(miss)).append(f": {_row(miss)}", "dim"))
            near.add(miss["text"])
        winner = visit.get("winner")
        if winner is None:
            place.add("no row is true: on to the next list")
            continue
        won = place.add(Text("true ", "green").append(_leads_to(winner), "bold").append(f": {_row(winner)}", "dim"))
        for atom in winner["atoms"]:
            held = won.add(Text(f"{atom['atom']}: {atom['meaning']}"))
            for code in dict.fromkeys(atom["codes"]):
                _add_code(held, code, titles)


def _add_code(place: Tree, code: str, titles: Mapping[str, str]) -> None:
    """Add a code, or a cluster with its members."""
    cluster, bracket, members = code.partition("(")
    if not bracket:
        place.add(_code(code, titles))
        return
    together = place.add(f"{cluster}, procedures that count as one:")
    for member in members.removesuffix(")").split("+"):
        together.add(_code(member, titles))


def _leads_to(row: Mapping[str, Any]) -> str:
    if row["drg"]:
        return f"{row['drg']} {row['drg_title']}".rstrip()
    return f"on to the list of MDC {row['reroute_mdc']}" if row["reroute_mdc"] else "ungroupable"


def _row(row: Mapping[str, Any]) -> str:
    return f"row {row['rank']}, {row['formula']}"


def _code(code: str, titles: Mapping[str, str]) -> Text:
    title = titles.get(code, "")
    return Text(code, "cyan").append(f" {title}" if title else "", "none")


def _reason(severity: Mapping[str, Any]) -> str:
    # The code begins the sentence, and is on the line already.
    return str(severity["text"]).replace(f"{severity['code']} ", "it ", 1)


def _without(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _words(name: str) -> str:
    return name.replace("_", " ").lower()
