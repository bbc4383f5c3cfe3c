"""Overwrite numbers in the arrays of a risk adjustment pack, make the checksums right again, open it, and score with
what opens, in process and from the bytes of a request.

    python hcc_hostile.py STORE SCRATCH

Prints "tried refused scored". A crash of this process is the failure the caller looks for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from msdrg_hostile import keys, put

from engine import errors, hcc, pack
from engine._pb.codeset.v1 import scoring_pb2
from engine.server.calls import Facts
from engine.server.scoring import add_result
from engine.server.wire_hcc import HccWire

RELEASES = ("v28-2026", "esrd-v24-2026")
PER_ARRAY = 8


class One:
    """As much of a library as has one model."""

    def __init__(self, scorer: hcc.HccScorer) -> None:
        self._scorer = scorer

    def hcc_scorer(self, model: str, payment_year: int) -> hcc.HccScorer:
        return self._scorer


def nothing(*_: Any) -> Any:
    """Find the size of a batch right; no member is left over."""


def main(store: Path, scratch: Path) -> None:
    tried = refused = scored = 0
    random = np.random.default_rng(20260201)
    for release in RELEASES:
        opened = pack.open_pack(store / "cmshcc" / release)
        manifest = opened.manifest
        arrays = {n.removesuffix(".npy"): e for n, e in manifest.files.items() if e.dtype is not None}
        original = {name: opened.array(name, ndim=len(entry.shape)).copy() for name, entry in arrays.items()}
        diagnoses = [code.decode() for code in keys(original["dx_slot"])]
        members = [
            {
                "model": manifest.facts["model"],
                "payment_year": 2026,
                "age": int(random.integers(0, 126)),
                "sex": int(random.integers(1, 3)),
                "orec": int(random.integers(0, 4)),
                "lti": bool(random.integers(0, 2)),
                "fbdual": bool(random.integers(0, 2)),
                "diagnoses": random.choice(diagnoses, random.integers(1, 30)).tolist(),
            }
            for _ in range(50)
        ]
        # With itself: any model is this one here.
        blend = {str(manifest.facts["model"]): 0.25, "V0": 0.75}
        request = scoring_pb2.BatchScoreHccRequest(
            members=[scoring_pb2.RiskMember(**member) for member in members],
            options=scoring_pb2.HccOptions(
                detail=2,  # type: ignore[arg-type]
                blend=[scoring_pb2.BlendWeight(model=name, weight=weight) for name, weight in blend.items()],
            ),
        ).SerializeToString()
        path = pack.write_pack(
            scratch,
            system="cmshcc",
            release=release,
            kind="hcc",
            effective_from=manifest.effective_from,
            effective_to=manifest.effective_to,
            arrays=original,
            sources=manifest.sources,
            facts=manifest.facts,
        )
        for name in original:
            for attempt in range(PER_ARRAY):
                array = original[name].copy()
                raw = array.reshape(-1).view("u1")
                # From one wild byte to one in fifty, and half of the array gone.
                count = min(len(raw), 1 if attempt < 4 else max(2, len(raw) // 50))
                where = random.integers(0, max(len(raw), 1), count)
                raw[where] = random.integers(0, 256, count)
                if attempt == PER_ARRAY - 1:
                    array = array[: len(array) // 2]
                put(path, name, array)
                tried += 1
                try:
                    scorer = hcc.HccScorer(pack.open_pack(path))
                except errors.PackCorruptError:
                    refused += 1
                    continue
                results = hcc.score_many(
                    members,
                    lambda model, year, scorer=scorer: scorer,
                    hcc.ScoringOptions(detail=hcc.HccDetail.FULL, blend=blend),
                )
                response = scoring_pb2.BatchScoreHccResponse()
                for index in range(len(members)):
                    add_result(response.results, results[index])
                wire = HccWire(nothing, nothing)
                wire.serve(One(scorer))
                if wire.answer(request, Facts()) != response.SerializeToString():
                    sys.exit(f"{name}: from bytes another answer than through messages")
                scored += 1
            put(path, name, original[name])
    print(tried, refused, scored)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
