"""Choose the sample of reference answers that is kept beside this file.

    python tests/golden/choose.py DIRECTORY

DIRECTORY holds the whole set (``inpatient_claims.ndjson.xz`` and ``msdrg_answers.ndjson.xz``: claims and what the CMS
MS-DRG software answers). The sample reaches every final DRG of every version, every initial DRG, and every value that
any enumerated field takes in the whole set, with two claims for each where there are two. The choice depends on the
order of the set only.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


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


def main(directory: Path) -> None:
    claims, answers = (
        read(directory / "inpatient_claims.ndjson.xz"),
        read(directory / "msdrg_answers.ndjson.xz"),
    )
    reached: Counter[tuple[Any, ...]] = Counter()
    chosen = []
    for i, (claim, answer) in enumerate(zip(claims, answers, strict=True)):
        found = set(features(json.loads(claim), json.loads(answer)))
        wanted = {f for f in found if reached[f] < (1 if f[0] == "final" else 2)}
        if wanted:
            chosen.append(i)
            reached.update(found)
    for name, lines in (("inpatient_claims", claims), ("msdrg_answers", answers)):
        text = "".join(f"{lines[i]}\n" for i in chosen)
        (HERE / f"{name}.ndjson.xz").write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(chosen)} of {len(claims)} claims")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
