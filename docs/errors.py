"""Write ``errors.md`` from the error classes.

    python docs/errors.py

A test compares the file with what this would write.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from engine.errors import CodesetError, all_errors
from engine.rpc import status_of

HEAD = """# Errors

Every error has a stable code. It is

* `code` of the exception in Python (all of them derive from `engine.CodesetError` and from a built-in),
* `reason` of the `google.rpc.ErrorInfo` (domain `codeset.v1`) of a call that fails, whose gRPC status is in the table,
* `code` of the `error` of one item of a batch; the call itself is then OK,
* what the command line prints before the text, with exit status 2.

Test the code; the text may improve. `field` names the field at fault where one is. UNAVAILABLE is the only one of them worth
trying again, and always safe to: every method only reads.

This page is written by `docs/errors.py`.

| code | class | also a | gRPC status | meaning |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the text of ``errors.md``."""
    return HEAD + "".join(row(cls) for cls in all_errors())


def row(cls: type[CodesetError]) -> str:
    builtins = [base.__name__ for base in cls.__bases__ if base is not CodesetError]
    meaning = " ".join((inspect.getdoc(cls) or "").replace("``", "`").split())
    status = status_of(cls.code).name
    return f"| `{cls.code}` | `{cls.__name__}` | {', '.join(f'`{b}`' for b in builtins)} | {status} | {meaning} |\n"


if __name__ == "__main__":
    (Path(__file__).parent / "errors.md").write_text(page(), encoding="utf-8")
