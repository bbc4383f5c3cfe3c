"""Choose the sample of reference answers that is kept beside this file.

    python tests/golden/choose.py DIRECTORY

DIRECTORY holds the whole set: inpatient claims with what the CMS MS-DRG software and the CMS Medicare Code Editor
answer, and claims aimed at the editor with its answers. The sample of inpatient claims reaches every final DRG of every
version, every initial DRG, and every value that any enumerated field takes in the whole set, with two claims for each
where there are two. The sample of the editor's claims reaches every edit, with ICD-9 and ICD-10, on every kind of code,
every set of edits that a code has, and every kind of result and of claim. The choice depends on the order of the set
only.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ONCE = ("final", "edit", "edits", "age", "status")


def read(path: Path) -> list[str]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return lines.read().splitlines()


def features(claim: dict[str, Any], answer: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield everything about a claim and its answer that the sample must have."""
    version = claim["version"]
    initial, final = answer["initial_grouping"], answer["final_grouping"]
    yield ("final", version, final["drg"])
    yield ("initial", initial["drg"])
    yield ("changed", initial["drg"], final["drg"] if initial["drg"] != final["drg"] else None)
    for name, value in [*initial.items(), *final.items(), *answer.items()]:
        if isinstance(value, str) and name != "claim_id":
            yield (version, name, value)
    for code in [*answer["diagnoses"], *answer["procedures"]]:
        for name, value in code.items():
            if name in ("hacs", "hac_usage"):
                yield (name, *value)
            elif name != "code":
                yield (version, name, value)
    for name in ("sex", "hospital_status", "discharge_status"):
        yield (name, claim[name])
    yield ("lower case", any(code != code.upper() for code in claim["diagnoses"] + claim["procedures"]))
    yield ("cluster", sum(code.startswith("Z@") for code in claim["procedures"]))


def edit_features(claim: dict[str, Any], answer: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield everything about a claim of the editor and its answer that the sample must have."""
    edition = claim.get("icd_version", 10)
    day = claim["discharge_date"]
    yield ("edit_type", edition, answer["edit_type"])
    for edit, count in answer["edits"].items():
        yield ("edit", edition, edit, day // 10000)
        yield ("count", edit, min(count, 3))
    yield ("edits", edition, *answer["edits"])
    yield ("admit", edition, *answer["admit_edits"])
    for i, edits in enumerate(answer["diagnosis_edits"]):
        yield ("diagnosis", i > 0, edition, *edits)
    for edits in answer["procedure_edits"]:
        yield ("procedure", edition, *edits)
    yield ("empty", bool(claim["diagnoses"]), bool(claim["procedures"]), claim.get("admit_diagnosis", "") != "")
    yield ("day", day) if day % 10000 in (930, 1001) else ("day of month", day % 100)
    yield ("status", claim["discharge_status"], "INVALID_DISCHARGE_STATUS" in answer["edits"])
    yield ("age", claim["age"])
    codes = claim["diagnoses"] + claim["procedures"]
    yield ("lower case", edition, any(code != code.upper() for code in codes))
    yield ("zeros", any(set(code) == {"0"} for code in codes), set(claim["diagnoses"][:1]) == {"0"})


def choose(
    claims: list[str],
    answers: list[str],
    features: Callable[[dict[str, Any], dict[str, Any]], Iterator[tuple[Any, ...]]],
) -> list[int]:
    reached: Counter[tuple[Any, ...]] = Counter()
    chosen = []
    for i, (claim, answer) in enumerate(zip(claims, answers, strict=True)):
        found = set(features(json.loads(claim), json.loads(answer)))
        wanted = {f for f in found if reached[f] < (1 if f[0] in ONCE else 2)}
        if wanted:
            chosen.append(i)
            reached.update(found)
    print(f"{len(chosen)} of {len(claims)} claims")
    return chosen


def write(name: str, lines: list[str], chosen: list[int]) -> None:
    text = "".join(f"{lines[i]}\n" for i in chosen)
    (HERE / f"{name}.ndjson.xz").write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def main(directory: Path) -> None:
    names = ("inpatient_claims", "msdrg_answers", "mce_answers", "mce_claims", "mce_claims_answers")
    lines = {name: read(directory / f"{name}.ndjson.xz") for name in names}
    chosen = choose(lines["inpatient_claims"], lines["msdrg_answers"], features)
    for name in names[:3]:
        write(name, lines[name], chosen)
    chosen = choose(lines["mce_claims"], lines["mce_claims_answers"], edit_features)
    for name in names[3:]:
        write(name, lines[name], chosen)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
