"""Choose the sample of risk adjustment members that is kept beside this file.

    python tests/golden/choose_hcc.py DIRECTORY STORE

DIRECTORY holds the whole set, STORE packs of its models. The sample reaches, in every model, every HCC, every category
that is no HCC in the end, every variable (age and sex cells, status flags, interactions, counts, add-ons) of every
segment, every kind of member, and what the answers list as components, as far as the whole set does. The choice depends
on the order of the set only.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine
from engine.hcc import HccDetail, HccResult, ScoringOptions

HERE = Path(__file__).parent
MODELS = ("v22", "v24", "v28", "esrd_v21", "esrd_v24", "rxhcc_v08_t", "rxhcc_v08_x")


def read(path: Path) -> list[str]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return lines.read().splitlines()


def features(member: dict[str, Any], answer: dict[str, Any], result: HccResult) -> Iterator[tuple[Any, ...]]:
    """Yield everything about a member and its answer that the sample must have."""
    for hcc in answer["hccs"]:
        yield "hcc", hcc
    for cc in set(answer["ccs"]) - set(answer["hccs"]):
        yield "suppressed", cc
    for segment, contributions, _ in result.contributions:
        for contribution in contributions:
            yield "variable", segment.partition("_DUR")[0], contribution.variable
    yield "flags", *(name for name, value in member.items() if value is True)
    yield "orec", member["orec"], answer["age"] >= 65, answer["age"] == 64, member["sex"]
    yield "born", member["birth_date"] % 10000 if member["birth_date"] % 10000 in (131, 201, 202, 229) else 0
    for segment in answer.get("components", ()):
        yield "components", segment
    for code in result.diagnoses:
        if code.refused:
            yield "refused", code.code[:3]


def choose(found: list[set[tuple[Any, ...]]]) -> list[int]:
    """Return the positions of a small set of members that together have every feature: rarest first, then the member
    that adds most."""
    holders: dict[tuple[Any, ...], list[int]] = {}
    for i, own in enumerate(found):
        for feature in own:
            holders.setdefault(feature, []).append(i)
    missing = set(holders)
    chosen: list[int] = []
    for feature in sorted(holders, key=lambda f: (len(holders[f]), repr(f))):
        if feature in missing:
            best = max(holders[feature], key=lambda i: (len(found[i] & missing), -i))
            chosen.append(best)
            missing -= found[best]
    return sorted(chosen)


def main(directory: Path, store: Path) -> None:
    library = engine.open(store)
    kept: tuple[list[str], list[str]] = ([], [])
    for model in MODELS:
        members = read(directory / f"hcc_{model}_members.ndjson.xz")
        answers = read(directory / f"hcc_{model}_answers.ndjson.xz")
        read_members = [json.loads(line) for line in members]
        results = library.score_hcc_many(read_members, ScoringOptions(detail=HccDetail.FULL))
        found = [
            set(features(member, json.loads(answer), result))
            for member, answer, result in zip(read_members, answers, results, strict=True)
        ]
        chosen = choose(found)
        print(model, len(chosen), "of", len(members))
        for i in chosen:
            kept[0].append(members[i])
            kept[1].append(answers[i])
    for name, lines in zip(("hcc_members", "hcc_answers"), kept, strict=True):
        with lzma.open(HERE / f"{name}.ndjson.xz", "wt", encoding="utf-8", preset=9) as out:
            out.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
