"""Overwrite numbers in the arrays of an MS-DRG pack, make the checksums right again, open it, and group with what
opens.

    python msdrg_hostile.py STORE SCRATCH

Prints "tried refused grouped". A crash of this process is the failure the caller looks for.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import xxhash

from engine import drg, errors, pack

VERSION = "43.1"
PER_ARRAY = 12


def main(store: Path, scratch: Path) -> None:
    opened = pack.open_pack(store / "msdrg" / VERSION)
    manifest = opened.manifest
    arrays = {n.removesuffix(".npy"): e for n, e in manifest.files.items() if e.dtype is not None}
    original = {name: opened.array(name, ndim=len(entry.shape)).copy() for name, entry in arrays.items()}
    random = np.random.default_rng(20260401)
    diagnoses = [code.decode() for code in keys(original["dx_slot"])]
    procedures = [code.decode() for code in keys(original["px_slot"])]
    claims = [
        {
            "diagnoses": random.choice(diagnoses, random.integers(1, 9)).tolist(),
            "procedures": random.choice(procedures, random.integers(0, 7)).tolist(),
            "poa": "",
            "discharge_status": int(random.integers(0, 21)),
        }
        for _ in range(300)
    ]
    path = pack.write_pack(
        scratch,
        system="msdrg",
        release=VERSION,
        kind="msdrg",
        effective_from=manifest.effective_from,
        effective_to=manifest.effective_to,
        arrays=original,
        sources=manifest.sources,
    )
    tried = refused = grouped = 0
    for name in original:
        for attempt in range(PER_ARRAY):
            array = original[name].copy()
            raw = array.reshape(-1).view("u1")
            # From one wild byte to one in fifty, and half of the array gone.
            count = min(len(raw), 1 if attempt < 6 else max(2, len(raw) // 50))
            where = random.integers(0, max(len(raw), 1), count)
            raw[where] = random.integers(0, 256, count)
            if attempt == PER_ARRAY - 1:
                array = array[: len(array) // 2]
            put(path, name, array)
            tried += 1
            try:
                grouper = drg.MsdrgGrouper(pack.open_pack(path))
            except errors.PackCorruptError:
                refused += 1
                continue
            results = drg.group_many(claims, lambda version, date, grouper=grouper: grouper)
            for index in range(len(claims)):
                results[index].to_dict()
            grouped += 1
        put(path, name, original[name])
    print(tried, refused, grouped)


def put(path: Path, name: str, array: np.ndarray) -> None:
    """Replace one array of a pack, and the checksums that would tell."""
    file = path / f"{name}.npy"
    np.save(file, array)
    manifest = pack.read_manifest(path)
    entry = pack.FileEntry(
        file.stat().st_size,
        xxhash.xxh3_128_hexdigest(file.read_bytes()),
        manifest.files[file.name].dtype,
        array.shape,
    )
    changed = replace(manifest, files={**manifest.files, file.name: entry})
    (path / pack.MANIFEST).write_text(pack._to_text(pack._to_json(changed)), encoding="utf-8")


def keys(slots: np.ndarray) -> list[bytes]:
    return [k.tobytes().rstrip(b"\0") for k in slots["key"][slots["key"] != 0][:4000].astype(">u8")]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
