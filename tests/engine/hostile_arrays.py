"""Open packs whose arrays were rewritten by somebody, checksums and all, and ask those that open everything.

    python hostile_arrays.py FIRST LAST

Every array lies against the end of its memory, so that a read past it is a crash and not luck. Prints "refused" or
"opened" for each case.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

import numpy as np
from codes_made_up import SYSTEM, MemoryPack, as_array, tables

from engine._pb.codeset.v1 import terminology_pb2
from engine._wire_codes import CodesRequest, ReleaseOnDay
from engine.codes import CodeSystem
from engine.compile_codes import KINDS, compile_code_system
from engine.errors import CodesetError, PackCorruptError
from engine.server.convert import validation_message
from engine.server.wire_codes import WORDING

_LIBC = ctypes.CDLL(None, use_errno=True)
_KEPT = []


def guarded(data: bytes) -> memoryview:
    """Copy the data to the end of a page that is followed by one nobody may read."""
    size = -(-len(data) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    memory[size - len(data) : size] = data
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory, size))
    if _LIBC.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    _KEPT.append(memory)
    return memoryview(memory)[size - len(data) : size]


def rewrite(arrays: dict[str, Any], dice: np.random.Generator) -> None:
    """Change one array, rarely two."""
    for _ in range(1 + (dice.random() < 0.2)):
        name = dice.choice(sorted(arrays))
        array = arrays[name] = arrays[name].copy()
        kind = dice.integers(8)
        if kind == 0:
            arrays[name] = array[: dice.integers(len(array) + 1)]
        elif kind == 1:
            arrays[name] = np.concatenate([array, array[: dice.integers(1, 4)], np.zeros(1, array.dtype)])
        elif kind == 2:
            arrays[name] = array.astype(dice.choice(["<i8", "<u2", "<f8"])) if not array.dtype.names else array["key"]
        elif len(array):
            plain = array.view(array.dtype if not array.dtype.names else "<u4")
            limits = np.iinfo(plain.dtype)
            for _ in range(dice.integers(1, 4)):
                at = dice.integers(len(plain))
                near = int(plain[at]) + int(dice.integers(-3, 4))
                extreme = int(
                    dice.choice([limits.min, limits.max, 0, len(array), len(array) - 1, 1 << 30, (1 << 30) - 1])
                )
                value = dice.choice([near, extreme, int(dice.integers(limits.min, limits.max, dtype=plain.dtype))])
                plain[at] = np.array(int(value) % (1 << 64), np.uint64).astype(plain.dtype)


def ask_everything(system: CodeSystem, codes: list[str]) -> None:
    for date in (20151001, 20180101, 20201001, 99991231):
        ask_from_bytes(system, codes, date)
        for code in codes:
            str(system.validate(code, date).to_dict())
        system.validate_columns(codes, date)
        system.validate_columns(as_array([code.encode() for code in codes]), date)
        system.valid_codes(date)
    for code in codes:
        for kind in (None, *KINDS):
            try:
                system.lookup(code, kind)
            except CodesetError:
                continue
            system.parent(code, kind)
            system.children(code, kind)
            system.ancestors(code, kind)
            system.descendants(code, kind)
            system.notes(code, kind=kind)
            system.subsumes(code, "U00", kind)
    for prefix in ("", "U", "U00", "W99.8", "ZZ"):
        system.prefix(prefix)
        system._index.begins_with(prefix)
        system._index.axis_label(prefix)
    system.roots()


def ask_from_bytes(system: CodeSystem, codes: list[str], date: int) -> None:
    """Whatever is in the pack, the two ways to an answer agree."""

    def answers(codes: list[str]) -> list[bytes]:
        return [validation_message(code, system.validate(code, date)).SerializeToString() for code in codes]

    def other(items: list[bytes]) -> list[bytes]:
        return answers([terminology_pb2.CodeToValidate.FromString(item).code for item in items])

    about = terminology_pb2.CodeValidation(system=system.system, release=system.release, date=date)
    day = ReleaseOnDay(system.core, WORDING, date, about.SerializeToString())
    request = terminology_pb2.BatchValidateCodesRequest(
        items=[terminology_pb2.CodeToValidate(code=code) for code in codes]
    )
    response, _ = CodesRequest(request.SerializeToString()).answer([day], other)
    expected = terminology_pb2.BatchValidateCodesResponse(
        results=map(terminology_pb2.CodeValidation.FromString, answers(codes))
    )
    if response != expected.SerializeToString():
        raise AssertionError((response, expected))


def main() -> None:
    made_up = tables()
    made_up.axes = {"": {"0": "Zero"}, "0": {"D": "Dragons"}, "0DB:4": {"Z": "None", "X": "Scales"}}
    original, tries = compile_code_system(made_up)
    known = {spell.code for spell in made_up.spells} | {node.code for node in made_up.nodes}
    codes = [*sorted(known), "ZZZ", "U", "?"]
    assert made_up.system == SYSTEM
    for case in range(int(sys.argv[1]), int(sys.argv[2])):
        arrays = dict(original)
        rewrite(arrays, np.random.default_rng(case))
        print(case, end=" ", flush=True)
        try:
            system = CodeSystem(MemoryPack(made_up, arrays, tries, guarded))
        except PackCorruptError:
            print("refused", flush=True)
            continue
        ask_everything(system, codes)
        print("opened", flush=True)
        _KEPT.clear()


if __name__ == "__main__":
    main()
