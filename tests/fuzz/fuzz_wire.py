"""Fuzzes the path from bytes to bytes against the generated classes.

``python tests/fuzz/fuzz_wire.py [-runs=1000000] tests/fuzz/corpus`` runs it under atheris (libFuzzer) and adds what it
finds interesting to the corpus; without atheris, the same target gets random inputs. The packs are those of
``$CODESET_ENGINE_PACKS`` or of the default store.

An input is a request as it is, or, where its first byte is odd, the seed of a request that any conforming encoder might
have written, damaged where the second byte is odd as well. The other bits of the first byte choose the method. The
target fails when the answers differ: in a byte, in a refusal, in an error of an item, or in what the log would say.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
sys.path += [str(HERE.parents[1]), str(HERE.parent / "server")]

import wire_check  # noqa: E402
import wire_shapes as shapes  # noqa: E402

import engine  # noqa: E402
from engine.server import ServerConfig  # noqa: E402
from engine.server.services import Services  # noqa: E402

Method = tuple[Callable[[Random], bytes], Callable[[Services, bytes], tuple[wire_check.Outcome, wire_check.Outcome]]]
"""What makes requests, and what answers them on both ways."""

METHODS: list[Method] = [
    (shapes.drg_request, wire_check.drg),
    (shapes.drg_request, wire_check.drg_one),
    (shapes.edit_request, wire_check.edits),
    (shapes.edit_request, wire_check.edit),
    (shapes.hcc_request, wire_check.scores),
    (shapes.hcc_request, wire_check.score),
    (shapes.code_request, wire_check.codes),
    (shapes.one_code_request, wire_check.code),
]
"""New ones go to the end: the kept inputs name them by number."""


def target(services: Services) -> Callable[[bytes], None]:
    """Return the function that fails on an input."""

    def run(data: bytes) -> None:
        make, answer = METHODS[(data[0] >> 1 if data else 0) % len(METHODS)]
        raw = data[1:]
        if data and data[0] & 1:
            rng = Random(data[2:])
            raw = make(rng)
            if data[1:2] and data[1] & 1:
                raw = shapes.damaged(rng, raw)
        got, expected = answer(services, raw)
        if got != expected:
            raise AssertionError(f"{answer.__name__} {raw!r}: got {got!r}, expected {expected!r}")

    return run


def main() -> None:
    """Run until told to stop or the runs are done."""
    run = target(Services(engine.open(), ServerConfig()))
    try:
        import atheris
    except ImportError:
        runs = next((int(a.partition("=")[2]) for a in sys.argv if a.startswith("-runs=")), 1_000_000)
        rng = Random(0)
        for _ in range(runs):
            run(rng.randbytes(rng.randrange(1, 200)))
        sys.stdout.write(f"{runs:,} inputs\n")
        return
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
