"""Damage copies of a pack and open each: one case a line, in a process of its own because a crash is a finding.

    python corrupt_packs.py PACK SCRATCH FIRST LAST

Cases FIRST to LAST (exclusive) are the same damage in every run. Prints the number of each case before it is opened,
and what came of it: ``refused``, or what should not have been.
"""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import engine
from engine.errors import PackCorruptError, PackIncompatibleError
from engine.pack import MANIFEST


def damage(pack: Path, case: int) -> str:
    """Damage one file of the pack; return its name."""
    dice = random.Random(case)
    file = dice.choice(sorted(pack.iterdir()))
    data = bytearray(file.read_bytes())
    # Links to the files of other copies: replace, never write into.
    file.unlink()
    kind = case % 10
    if kind == 0:
        return file.name
    if kind == 1:
        file.write_bytes(data[: dice.randrange(len(data))])
    elif kind == 2:
        file.write_bytes(bytes(data) + dice.randbytes(dice.randrange(1, 100)))
    else:
        at = dice.randrange(len(data))
        data[at] ^= dice.choice([1 << dice.randrange(8), dice.randrange(1, 256)])
        file.write_bytes(data)
    return file.name


def outcome(store: Path, system: str, release: str, file: str) -> str:
    try:
        library = engine.open(store)
        found = library.validate(system, "U00.11", release=release)
        return f"answered {found.status.name}"
    except (PackCorruptError, PackIncompatibleError) as error:
        text = str(error)
        if isinstance(error, PackIncompatibleError) and file == MANIFEST:
            return "refused" if "ebuild" in text else f"without remedy: {text}"
        if file not in text:
            return f"does not name the file: {text}"
        return "refused" if "codeset-engine build" in text else f"without remedy: {text}"
    except Exception as error:
        return f"raised {error!r}"


def main() -> None:
    pack, scratch, first, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    for case in range(first, last):
        copy = scratch / str(case) / pack.parent.name / pack.name
        shutil.copytree(pack, copy)
        file = damage(copy, case)
        print(case, file, end=" ", flush=True)
        print(outcome(scratch / str(case), pack.parent.name, pack.name, file), flush=True)
        shutil.rmtree(scratch / str(case))


if __name__ == "__main__":
    main()
