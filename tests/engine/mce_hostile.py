"""Overwrite numbers in the arrays of a pack of the code editor, make the checksums right again, open it, and edit with
what opens.

    python mce_hostile.py STORE SCRATCH

Prints "tried refused edited". A crash of this process is the failure the caller looks for.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from msdrg_hostile import keys, put

from engine import errors, mce, pack
from engine.compile_mce import MASTERS

RELEASE = "43.1"
PER_ARRAY = 24


def main(store: Path, scratch: Path) -> None:
    opened = pack.open_pack(store / "mce" / RELEASE)
    manifest = opened.manifest
    arrays = {n.removesuffix(".npy"): e for n, e in manifest.files.items() if e.dtype is not None}
    original = {name: opened.array(name, ndim=len(entry.shape)).copy() for name, entry in arrays.items()}
    random = np.random.default_rng(20260401)
    codes = {name: [code.decode() for code in keys(original[f"{name}_slot"])] for name in MASTERS}
    claims = []
    for i in range(400):
        edition = ("i10", "i9")[i % 2]
        claims.append(
            {
                "icd_version": 10 if edition == "i10" else 9,
                "discharge_date": int(random.choice([20260401, 20200229, 20041001, 19900101, 20261001])),
                "age": int(random.integers(-1, 130)),
                "sex": ["MALE", "FEMALE", "UNKNOWN"][int(random.integers(0, 3))],
                "discharge_status": int(random.integers(-5, 300)),
                "length_of_stay": int(random.integers(0, 9)),
                "admit_diagnosis": str(random.choice(codes[f"{edition}_dx"])),
                "diagnoses": random.choice(codes[f"{edition}_dx"], random.integers(0, 9)).tolist(),
                "procedures": random.choice(codes[f"{edition}_px"], random.integers(0, 7)).tolist(),
            }
        )
    path = pack.write_pack(
        scratch,
        system="mce",
        release=RELEASE,
        kind="mce",
        effective_from=manifest.effective_from,
        effective_to=manifest.effective_to,
        arrays=original,
        sources=manifest.sources,
    )
    tried = refused = edited = 0
    for name in original:
        for attempt in range(PER_ARRAY):
            array = original[name].copy()
            raw = array.reshape(-1).view("u1")
            # From one wild byte to one in fifty; at last half of the array gone, or nothing left.
            count = min(len(raw), 1 if attempt < 12 else max(2, len(raw) // 50))
            where = random.integers(0, max(len(raw), 1), count)
            raw[where] = random.integers(0, 256, count)
            if attempt >= PER_ARRAY - 2:
                array = array[: len(array) // 2 if attempt == PER_ARRAY - 1 else 0]
            put(path, name, array)
            tried += 1
            try:
                editor = mce.MceEditor(pack.open_pack(path))
            except errors.PackCorruptError:
                refused += 1
                continue
            for result in mce.edit_many(claims, editor):
                result.to_dict()
            edited += 1
        put(path, name, original[name])
    print(tried, refused, edited)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
