"""``codeset-engine``: the command line.

Contract
--------
* Exit status 0: done, nothing to report. 1: findings (a code that is not valid, a damaged pack, a claim without an
  answer). 2: unusable input or an error, with one line ``CODE: text`` on standard error; ``CODE`` is stable
  (``engine.errors``, or the system's name of an error of a file: ``ENOENT``).
* Standard output carries the answer and nothing else; progress and summaries go to standard error.
* ``--json`` gives what a person reads as JSON with the names of the API (``proto/codeset/v1``): one document, or one
  object a line where there are many answers. A date that is not known is 0, as on the wire.
* A command imports what it needs when it runs: ``--help`` loads neither NumPy nor gRPC nor the core.

``app`` declares the commands and their options; ``packs``, ``codes``, ``claims``, ``explain`` and ``serving`` do the
work;
``output`` is how it looks.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..errors import CodesetError

__all__ = ["main"]

FINDINGS = 1
UNUSABLE = 2


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run ``codeset-engine`` with ``args`` (None: those of the process) and exit."""
    from .app import app

    try:
        app(args=args, prog_name="codeset-engine")
    except CodesetError as error:
        _end(error.code, str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _end(errno.errorcode.get(error.errno or 0, "OS_ERROR"), f"{where}{error.strerror or error}")
    sys.exit(0)


def _end(code: str, text: str) -> NoReturn:
    sys.stderr.write(f"{code}: {' '.join(text.split())}\n")
    sys.exit(UNUSABLE)
